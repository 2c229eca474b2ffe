"""Calls of SIPp over sets of destinations: failover of each kind, destinations that go down and come back, tables in each
database."""
import socket, subprocess
from databases import MariaDb, Postgres
from harness import Failed, check, free_port, until
from topic_calls import SCENARIOS, listens
from topic_dialog import DRIVERS
from topic_durability import Sqlite, database
from topic_names import Unbound

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
dns_retr_time = 1
dns_retr_no = 0
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
loadmodule "{DRIVER}.so"
loadmodule "dispatcher.so"
modparam("httpd", "port", {MI})
modparam("tm", "fr_timeout", 2)
modparam("tm", "fr_inv_timeout", 3)
modparam("dispatcher", "db_url", "{DB}")
modparam("dispatcher", "ds_probing_threshold", 1)
{MORE}
route {
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    record_route();
    if (!ds_select_dst(1, {ALGORITHM}, "f")) {
        send_reply(503, "None");
        exit;
    }
    t_on_failure("next");
    while (!t_relay("no-auto-477")) {
        ds_mark_dst("p");
        if (!ds_next_dst()) {
            send_reply(503, "None Left");
            exit;
        }
    }
}
failure_route[next] {
    xlog("failed: $T_reply_code\\n");
    if (t_check_status("(408)|(477)|(5[0-9][0-9])")) {
        ds_mark_dst("p");
        if (ds_next_dst()) {
            t_on_failure("next");
            t_relay();
            exit;
        }
    }
}
"""


def insert(db, *rows):
    """Rows of (destination, priority)."""
    for destination, priority in rows:
        db.sql(f"INSERT INTO dispatcher (setid, destination, priority) VALUES (1, '{destination}', {priority})", "fermata")


def start(place, db, more="", algorithm=8, **names):
    return place.server(CONFIG, DRIVER=DRIVERS[db.name], DB=db.url(), MORE=more, ALGORITHM=algorithm, **names)


def states(server):
    found = {}
    for partition in server.mi("ds_list")["PARTITIONS"]:
        for one in partition.get("SETS", []):
            found.update({d["URI"]: d["state"] for d in one["Destinations"]})
    return found


def sipp(place, *command):
    with open(place.dir / "sipp.log", "ab") as log:
        return place.process("sipp", "-nostdin", "-i", "127.0.0.1", *command, stdout=log, stderr=subprocess.STDOUT)


def called(place, port=None, scenario="uas.xml"):
    """A called party; its port."""
    port = port or free_port()
    sipp(place, "-sf", SCENARIOS / scenario, "-p", port)
    until("the called party listens", lambda: listens(port))
    return port


def calls(place, server, count, rate=20, more=()):
    """Calls, all of which must succeed."""
    caller = sipp(place, "-sf", SCENARIOS / "uac.xml", "-p", free_port(), "-s", "bob", "-d", "50", "-r", rate, "-m", count,
                  "-timeout", "50s", "-trace_err", *more, f"127.0.0.1:{server.port}")
    return caller


def all_succeed(place, server, count, rate=20):
    if calls(place, server, count, rate).wait(60) != 0:
        errors = "".join(p.read_text(errors="replace")[:1000] for p in place.dir.glob("*errors.log"))
        raise Failed(f"calls failed: {errors}")


def silent(place, port=0):
    """A socket that hears and never answers."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", port))
    place.ending.callback(one.close)
    return one


def each_kind(place):
    """(addresses of parties that fail in each way, and last of one that does not, by kind; the socket of the silent one)"""
    deaf = silent(place)
    ports = {"503": called(place, scenario="uas_503.xml"), "silent": deaf.getsockname()[1],
             "dies": called(place, scenario="uas_dies.xml"), "good": called(place)}
    return {"refused": f"127.0.0.1:{free_port()};transport=tcp", **{kind: f"127.0.0.1:{port}" for kind, port in ports.items()}}, deaf


def test_failover_of_each_kind(place):
    db = database(place, Sqlite)
    addresses, deaf = each_kind(place)
    uris = {kind: "sip:" + address for kind, address in addresses.items()}
    insert(db, *zip(uris.values(), (5, 4, 3, 2, 1)))
    server = start(place, db, more='modparam("dispatcher", "ds_ping_interval", 1)')
    all_succeed(place, server, 10)
    # Traffic alone found out who is down; none of them answers a probe with 200.
    check(states(server), {uri: "Active" if kind == "good" else "Probing" for kind, uri in uris.items()})
    until("each kind of failure is seen", lambda: all(f"failed: {code}" in server.log_text() for code in (477, 503, 408)))
    before = server.log_text().count("failed:")
    all_succeed(place, server, 20)
    check(server.log_text().count("failed:"), before, "later calls go straight to the good one")
    # The silent one answers from now on: a probe finds it.
    port = deaf.getsockname()[1]
    deaf.close()
    called(place, port, "uas_options.xml")
    until("the probe brings it back", lambda: states(server)[uris["silent"]] == "Active")


def test_names_that_lose_their_address(place):
    good = called(place)
    names = Unbound(place, "gw.example. 1 IN A 127.0.0.1", "_sip._udp.srv.example. 1 IN SRV 10 0 %d gw.example." % good)
    db = database(place, Sqlite)
    insert(db, ("sip:srv.example", 3), ("sip:missing.example", 2), (f"sip:127.0.0.1:{good}", 1))
    server = start(place, db, BEFORE=names.before())
    # By its SRV record, without a lookup that anybody waits for; the one that does not exist is left out.
    until("the table is read", lambda: states(server))
    listed = server.mi("ds_list")["PARTITIONS"][0]["SETS"][0]["Destinations"]
    check([(d["URI"], d["resolved_addresses"]) for d in listed],
          [("sip:srv.example", [f"127.0.0.1:{good}"]), (f"sip:127.0.0.1:{good}", [f"127.0.0.1:{good}"])])
    until("it is said that missing.example has no address", lambda: "missing.example" in server.log_text())
    all_succeed(place, server, 5)
    names.kill()
    server.mi("dns_cache_flush")
    # DNS is gone: the call waits for it, goes on to the next, and the name is marked.
    all_succeed(place, server, 3, rate=3)
    check(states(server)["sip:srv.example"], "Probing")


def test_probes_find_what_is_down(place):
    db = database(place, Sqlite)
    port = free_port()
    uas = sipp(place, "-sf", SCENARIOS / "uas_options.xml", "-p", port)
    until("it listens", lambda: listens(port))
    uri = f"sip:127.0.0.1:{port}"
    insert(db, (uri, 0))
    probing = 'modparam("dispatcher", "ds_ping_interval", 1)\nmodparam("dispatcher", "ds_probing_mode", 1)'
    server = start(place, db, more=probing)
    until("a probe was answered", lambda: states(server) == {uri: "Active"})
    uas.kill()
    until("probes find it down", lambda: states(server) == {uri: "Probing"})
    # Written back, and what the next start goes by.
    until("the table has it", lambda: db.sql("SELECT state FROM dispatcher", "fermata").strip() == "2")
    server.kill()
    server.start()
    until("the table is read", lambda: states(server) == {uri: "Probing"})
    called(place, port, "uas_options.xml")
    until("probes find it up", lambda: states(server) == {uri: "Active"})


def over(place, kind):
    """The reference's layout in a database: bad rows are said, the others load, states are kept, a reload drops no call."""
    db = database(place, kind)
    one, two = called(place), called(place)
    insert(db, (f"sip:127.0.0.1:{one}", 1), ("nonsense", 1), (f"sip:127.0.0.1:{two}", 1))
    server = start(place, db, algorithm=4)
    both = {f"sip:127.0.0.1:{one}": "Active", f"sip:127.0.0.1:{two}": "Active"}
    until("the table is read", lambda: states(server) == both)
    said = lambda: [line for line in server.log_text().splitlines() if "nonsense" in line]
    until("the bad row is said with table and key", lambda: any("table dispatcher" in line and "set 1" in line for line in said()))
    caller = calls(place, server, 150, 100)
    reloads = 0
    while caller.poll() is None:
        check(server.mi("ds_reload"), "OK")
        reloads += 1
    check((caller.wait(1), reloads > 5), (0, True), "calls while the table was read again")
    check(server.mi("ds_set_state", ["i", "1", f"sip:127.0.0.1:{one}"]), "OK")
    until("the state is in the table",
          lambda: db.sql(f"SELECT state FROM dispatcher WHERE destination='sip:127.0.0.1:{one}'", "fermata").strip() == "1")
    all_succeed(place, server, 4)
    check(server.mi("ds_list")["PARTITIONS"][0]["SETS"][0]["Destinations"][0]["state"], "Inactive")


def test_tables_in_sqlite(place):
    over(place, Sqlite)


def test_tables_in_mariadb(place):
    over(place, MariaDb)


def test_tables_in_postgres(place):
    over(place, Postgres)


def test_a_table_that_will_not_do_ends_the_start(place):
    db = database(place, Sqlite)
    insert(db, ("sip:127.0.0.1:5060", 1))
    db.sql("UPDATE dispatcher SET weight = 'many'")
    try:
        start(place, db)
    except Failed:
        pass
    said = place.servers[0].log_text()
    if "table dispatcher" not in said or "sip:127.0.0.1:5060" not in said or "many" not in said:
        raise Failed(f"what is wrong is not said: {said}")
