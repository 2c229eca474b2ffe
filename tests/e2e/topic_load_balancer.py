"""Channels counted by calls: on one server, over two with one Redis, over a restart, and in each database."""
from databases import MariaDb, Postgres
from harness import check, free_port, run, until
from stores import Redis
from topic_calls import SCENARIOS
from topic_dialog import DRIVERS, Call, Party, answer
from topic_durability import Sqlite, database

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "cachedb_redis.so"
loadmodule "{DRIVER}.so"
loadmodule "dialog.so"
loadmodule "load_balancer.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("load_balancer", "db_url", "{DB}")
{MORE}
route {
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    record_route();
    if (!lb_start(1, "pstn")) {
        $var(rc) = $rc;
        send_reply(503, "Full $var(rc)");
        exit;
    }
    t_on_failure("next");
    t_relay();
}
failure_route[next] {
    if (t_check_status("(408)|(477)|(5[0-9][0-9])")) {
        lb_disable_dst();
        if (lb_next()) {
            t_on_failure("next");
            t_relay();
        }
    }
}
"""


def start(place, db, more=""):
    return place.server(CONFIG, DRIVER=DRIVERS[db.name], DB=db.url(), MORE=more)


def insert(db, *rows):
    for uri, resources in rows:
        db.sql(f"INSERT INTO load_balancer (group_id, dst_uri, resources) VALUES (1, '{uri}', '{resources}')", "fermata")


def loads(server):
    found = server.mi("lb_list")["Destinations"]
    return [(d["enabled"], *((r["name"], r["max"], r["load"]) for r in d["Resources"])) for d in found]


def refused(caller, server, number):
    """A call that finds everything full; the reason it is told."""
    via = f"Via: SIP/2.0/UDP 127.0.0.1:{caller.port};branch=z9hG4bKfull{number}"
    head = (f"Max-Forwards: 70\nFrom: <sip:x@a.example>;tag=full{number}\nTo: <sip:bob@b.example>\nCall-ID: full-{number}\n"
            f"CSeq: 1 {{}}\nContact: <sip:a@127.0.0.1:{caller.port}>\nContent-Length: 0\n\n")
    caller.send(server, f"INVITE sip:bob@b.example SIP/2.0\n{via}\n" + head.format("INVITE"))
    while True:
        reply = caller.take()
        if f"full-{number}" in reply and not reply.startswith("SIP/2.0 1"):
            caller.send(server, f"ACK sip:bob@b.example SIP/2.0\n{via}\n" + head.format("ACK"))
            return reply.split("\r\n")[0]


def test_two_servers_share_the_channels(place):
    db, redis = database(place, Sqlite), Redis(place)
    caller, callee = Party(place), Party(place)
    insert(db, (f"sip:127.0.0.1:{callee.port}", "pstn=4"))
    share = (f'modparam("cachedb_redis", "cachedb_url", "redis:lb://{redis.url()}/")\n'
             f'modparam("dialog", "cachedb_url", "redis:lb://{redis.url()}/")\n'
             'modparam("load_balancer", "cluster_id", 1)')
    servers = [start(place, db, share), start(place, db, share)]
    made = []
    for number in range(4):
        made.append(Call(caller, callee, servers[number % 2].port, number))
        for server in servers:
            until("both count all calls", lambda: loads(server) == [("yes", ("pstn", 4, number + 1))])
    for number, server in enumerate(servers):
        check(refused(caller, server.port, number), "SIP/2.0 503 Full -2")
    check(made[0].bye(from_caller=True), "200")
    until("the end of a call at one is seen at the other", lambda: loads(servers[1]) == [("yes", ("pstn", 4, 3))])
    made[0] = Call(caller, callee, servers[1].port, 9)
    for call in made:
        check(call.bye(from_caller=False), "200")
    for server in servers:
        until("nothing is counted", lambda: loads(server) == [("yes", ("pstn", 4, 0))])


def over(place, kind):
    db = database(place, kind)
    caller, callee = Party(place), Party(place)
    here = f"sip:127.0.0.1:{callee.port}"
    insert(db, (here, "pstn=3;vm=1"), (here, "pstn"), (here, "pstn=2"))
    keep = f'modparam("dialog", "db_url", "{db.url()}")\nmodparam("dialog", "db_mode", 1)\nmodparam("dialog", "db_flush_vals_profiles", 1)'
    server = start(place, db, keep)
    until("the table is read", lambda: len(loads(server)) == 2)
    said = lambda: [line for line in server.log_text().splitlines() if "table load_balancer" in line]
    until("the bad row is said with table and key", lambda: any("id 2" in line and "pstn" in line for line in said()))
    made = [Call(caller, callee, server.port, number) for number in range(5)]
    full = [("yes", ("pstn", 3, 3), ("vm", 1, 0)), ("yes", ("pstn", 2, 2))]
    check(loads(server), full)
    check(refused(caller, server.port, 1), "SIP/2.0 503 Full -2")
    check(server.mi("lb_reload"), "OK")
    check(loads(server), full, "a reload keeps what is counted")
    until("all calls are in the database",
          lambda: db.sql("select count(*) from dialog where state = 4", "fermata").strip() == "5")
    server.kill()
    server.start()
    until("calls count over a restart", lambda: loads(server) == full)
    for call in made:
        check(call.bye(from_caller=True), "200")
    until("nothing is counted", lambda: [load for _, *all in loads(server) for _, _, load in all] == [0, 0, 0])


def test_channels_in_sqlite(place):
    over(place, Sqlite)


def test_channels_in_mariadb(place):
    over(place, MariaDb)


def test_channels_in_postgres(place):
    over(place, Postgres)


def test_failover_of_each_kind(place):
    from topic_dispatcher import all_succeed, each_kind
    db = database(place, Sqlite)
    addresses, _ = each_kind(place)
    insert(db, *((f"sip:{address}", f"pstn={900 - 100 * n}") for n, address in enumerate(addresses.values())))
    server = start(place, db, 'modparam("tm", "fr_timeout", 2)\nmodparam("tm", "fr_inv_timeout", 3)')
    all_succeed(place, server, 10)
    check([enabled for enabled, *_ in loads(server)], ["no", "no", "no", "no", "yes"], "who takes calls")
    until("no channel is in use", lambda: all(load == 0 for _, (_, _, load) in loads(server)))


def test_a_destination_that_fails_is_left_out(place):
    db = database(place, Sqlite)
    caller, broken, good = Party(place), Party(place), Party(place)
    insert(db, (f"sip:127.0.0.1:{broken.port}", "pstn=9"), (f"sip:127.0.0.1:{good.port}", "pstn=5"))
    server = start(place, db, 'modparam("load_balancer", "probing_interval", 1)')
    db.sql("UPDATE load_balancer SET probe_mode = 1", "fermata")
    check(server.mi("lb_reload"), "OK")
    via = f"Via: SIP/2.0/UDP 127.0.0.1:{caller.port};branch=z9hG4bKf1"
    caller.send(server.port, f"INVITE sip:bob@b.example SIP/2.0\n{via}\nMax-Forwards: 70\nFrom: <sip:x@a.example>;tag=f\n"
                             f"To: <sip:bob@b.example>\nCall-ID: failing\nCSeq: 1 INVITE\nContact: <sip:a@127.0.0.1:{caller.port}>\n"
                             "Content-Length: 0\n\n")
    answer(broken, server.port, broken.take(), "503 Down")
    good.take()
    check(loads(server), [("no", ("pstn", 9, 0)), ("yes", ("pstn", 5, 1))])
    # It is asked now whether it is there again.
    while not (probe := broken.take()).startswith("OPTIONS"):
        pass
    answer(broken, server.port, probe, "200 OK")
    until("the probe brings it back", lambda: loads(server)[0][0] == "yes")


def test_the_shipped_balancer(place):
    from topic_dispatcher import called, silent, sipp
    run(place.program, "db", "create", f"sqlite://{place.dir}/fermata.sqlite", "dispatcher", "load_balancer")
    good, deaf = called(place), silent(place).getsockname()[1]
    place.sqlite("fermata.sqlite", f"""INSERT INTO load_balancer (group_id, dst_uri, resources, probe_mode)
        VALUES (1, 'sip:127.0.0.1:{deaf}', 'channels=1000', 1), (1, 'sip:127.0.0.1:{good}', 'channels=20', 1);
INSERT INTO dispatcher (setid, destination) VALUES (1, 'sip:127.0.0.1:{deaf}'), (1, 'sip:127.0.0.1:{good}')""")
    text = (SCENARIOS.parent.parent / "etc/balancer.cfg").read_text()
    for old, new in (("socket = udp:*:5060", "socket = udp:127.0.0.1:{PORT}"), ("/tmp/fermata_fifo", "{FIFO}"),
                     ("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite"), ('"fr_timeout", 3', '"fr_timeout", 2'), ('"192.0.2.10"', '"127.0.0.1"')):
        assert old in text, old
        text = text.replace(old, new)
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
    server = place.server(text.replace('loadmodule "mi_fifo.so"', 'loadmodule "mi_fifo.so"\n' + more))
    until("the tables are read", lambda: len(loads(server)) == 2)
    # The one with more channels does not answer: calls go on to the other one, and leave the silent one out from then on.
    for user in ("bob", "0049"):
        caller = sipp(place, "-sf", SCENARIOS / "uac.xml", "-p", free_port(), "-s", user, "-d", "50", "-r", 6, "-m", 6,
                      "-timeout", "50s", f"127.0.0.1:{server.port}")
        check(caller.wait(60), 0, f"exit code of sipp, calls to {user}")
    check([enabled for enabled, *_ in loads(server)], ["no", "yes"])
    until("nothing is counted", lambda: [load for _, *all in loads(server) for _, _, load in all] == [0, 0])
