"""Calls with a memory: what a crash leaves of them, in each database, and calls of SIPp from end to end."""
import re, socket
from databases import MariaDb, Postgres
from harness import Failed, check, free_port, run, until
from topic_calls import SCENARIOS
from topic_durability import Sqlite, database

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "dialog.so"
loadmodule "acc.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
{DRIVER}
modparam("httpd", "port", {MI})
modparam("dialog", "profiles_with_value", "caller")
{DIALOG}
modparam("acc", "db_url", "{ACC}")
route {
    if (has_totag()) {
        loose_route();
        if ($DLG_status == NULL) {
            send_reply(481, "No such call");
            exit;
        }
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    if (!is_method("INVITE")) {
        send_reply(405, "No");
        exit;
    }
    create_dialog("bye-on-timeout");
    do_accounting("db", "cdr");
    set_dlg_profile("caller", $fU);
    $dlg_val(place) = "in the value of " + $ci;
    $DLG_timeout = {LIFE};
    record_route();
    $du = "sip:127.0.0.1:{CALLEE}";
    t_relay();
}
"""
DRIVERS = {"sqlite": "db_sqlite", "mariadb": "db_mysql", "postgres": "db_postgres"}


def value(text, name):
    return [line.split(":", 1)[1].strip() for line in text.split("\r\n") if line.lower().startswith(name.lower() + ":")]


class Party:
    """One socket that plays one side of many calls."""

    def __init__(self, place, port=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind(("127.0.0.1", port))
        self.socket.settimeout(20)
        place.ending.callback(self.socket.close)
        self.port = self.socket.getsockname()[1]

    def send(self, server, text):
        self.socket.sendto(text.replace("\n", "\r\n").encode(), ("127.0.0.1", server))

    def take(self):
        return self.socket.recv(65535).decode()


def answer(party, server, request, status, headers=""):
    lines = [f"SIP/2.0 {status}"]
    for name in ("Via", "Record-Route", "From", "To", "Call-ID", "CSeq"):
        for text in value(request, name):
            lines.append(f"{name}: {text}" + (";tag=callee" if name == "To" and "tag=" not in text else ""))
    party.send(server, "\n".join(lines) + f"\n{headers}Content-Length: 0\n\n")


class Call:
    """An established call: what both sides need to end it."""

    def __init__(self, caller, callee, server, number):
        self.caller, self.callee, self.server, self.id = caller, callee, server, f"call-{number}"
        head = (f"Max-Forwards: 70\nFrom: <sip:user{number % 10}@a.example>;tag=caller\n"
                f"Call-ID: {self.id}\nContent-Length: 0\n")
        via = f"Via: SIP/2.0/UDP 127.0.0.1:{caller.port};branch=z9hG4bK{self.id}"
        caller.send(server, f"INVITE sip:bob@b.example SIP/2.0\n{via}\nTo: <sip:bob@b.example>\nCSeq: 1 INVITE\n"
                            f"Contact: <sip:a@127.0.0.1:{caller.port}>\n{head}\n")
        invite = self.wait(callee, "INVITE ")
        answer(callee, server, invite, "200 OK", f"Contact: <sip:b@127.0.0.1:{callee.port}>\n")
        reply = self.wait(caller, "SIP/2.0 200")
        self.routes = value(reply, "Record-Route")
        routes = "".join(f"Route: {r}\n" for r in reversed(self.routes))
        caller.send(server, f"ACK sip:b@127.0.0.1:{callee.port} SIP/2.0\n{via}a\nTo: <sip:bob@b.example>;tag=callee\n"
                            f"CSeq: 1 ACK\n{routes}{head}\n")
        self.wait(callee, "ACK ")

    def wait(self, party, start):
        while True:
            text = party.take()
            if text.startswith(start) and value(text, "Call-ID") == [self.id]:
                return text

    def bye(self, from_caller):
        """Hangs up; the status that the BYE gets."""
        one, other = (self.caller, self.callee) if from_caller else (self.callee, self.caller)
        ends = [f"<sip:user{int(self.id[5:]) % 10}@a.example>;tag=caller", "<sip:bob@b.example>;tag=callee"]
        if not from_caller:
            ends.reverse()
        routes = "".join(f"Route: {r}\n" for r in (reversed(self.routes) if from_caller else self.routes))
        one.send(self.server, f"BYE sip:x@127.0.0.1:{other.port} SIP/2.0\n"
                              f"Via: SIP/2.0/UDP 127.0.0.1:{one.port};branch=z9hG4bK{self.id}b\n{routes}Max-Forwards: 70\n"
                              f"From: {ends[0]}\nTo: {ends[1]}\nCall-ID: {self.id}\nCSeq: 2 BYE\nContent-Length: 0\n\n")
        answer(other, self.server, self.wait(other, "BYE "), "200 OK")
        return self.wait(one, "SIP/2.0 ").split(" ")[1]


def server_of(place, db, mode, callee, life=3600, more=""):
    dialog = (f'modparam("dialog", "db_url", "{db.url()}")\nmodparam("dialog", "db_mode", {mode})\n'
              f'modparam("dialog", "db_update_period", 1)\nmodparam("dialog", "db_flush_vals_profiles", 1)\n{more}')
    return place.server(CONFIG, DRIVER=f'loadmodule "{DRIVERS[db.name]}.so"', DIALOG=dialog, ACC=db.url(), LIFE=life,
                        CALLEE=callee)


def count(db, table, where="1=1"):
    return int(db.sql(f"select count(*) from {table} where {where}", "fermata").strip() or 0)


def survive(place, kind, mode, calls, die):
    db = database(place, kind)
    caller, callee = Party(place), Party(place)
    server = server_of(place, db, mode, callee.port)
    made = [Call(caller, callee, server.port, n) for n in range(calls)]
    check(server.mi("dialog:profile_get_size", {"profile": "caller"})["Profile"]["count"], calls)
    if mode != 3:
        until("all calls are in the database", lambda: count(db, "dialog", "state = 4") == calls, 30)
    die(server)
    server.start()
    until("the server is there again", server.listens)
    size = lambda value: server.mi("dialog:profile_get_size", {"profile": "caller", "value": value})["Profile"]["count"]
    # Management answers while dialogs are still being loaded; SIP waits for them.
    until("the dialogs have the value user3", lambda: size("user3") == calls // 10)
    one = server.mi("dialog:list_ctx", {"callid": made[3].id})["Dialog"]
    check(one["state"], 4)
    values = {k: v for pair in one["context"]["values"] for k, v in pair.items()}
    check(values["place"], "in the value of call-3")
    left = int(one["timeout"]) - int(one["timestart"])
    if not 3500 < left <= 3601:
        raise Failed(f"the call would last {left} s")
    for call in made:
        check(call.bye(from_caller=int(call.id[5:]) % 2 == 0), "200", call.id)
    check(size("user3"), 0)
    if mode == 3:                       # written when the server ends, and only then
        server.stop()
    until("the table is empty", lambda: count(db, "dialog") == 0, 30)
    until("each call has its record", lambda: count(db, "acc", "method = 'INVITE'") == calls, 30)


def test_sqlite_calls_survive_kill(place):
    survive(place, Sqlite, 1, 1000, lambda server: server.kill())


def test_mariadb_calls_survive_kill(place):
    survive(place, MariaDb, 1, 1000, lambda server: server.kill())


def test_postgres_calls_survive_kill(place):
    survive(place, Postgres, 2, 1000, lambda server: server.kill())


def test_calls_survive_an_orderly_end(place):
    survive(place, Sqlite, 3, 50, lambda server: server.stop())


def test_calls_end_in_time_after_a_restart(place):
    db = database(place, Sqlite)
    caller, callee = Party(place), Party(place)
    server = server_of(place, db, 1, callee.port, life=3)
    call = Call(caller, callee, server.port, 0)
    until("the call is in the database", lambda: count(db, "dialog", "state = 4") == 1)
    server.kill()
    server.start()
    for party in (caller, callee):
        bye = call.wait(party, "BYE ")
        answer(party, server.port, bye, "200 OK")
    until("the table is empty", lambda: count(db, "dialog") == 0)
    until("the call has its record", lambda: count(db, "acc") == 1)


def test_calls_of_sipp(place):
    db = database(place, Sqlite)
    callee = free_port()
    server = server_of(place, db, 1, callee)
    quiet = {"stdout": open(place.dir / "sipp.log", "ab"), "stderr": -2}
    place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-i", "127.0.0.1", "-p", callee, **quiet)
    caller = place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", "bob",
                           "-d", "100", "-r", 50, "-m", 200, f"127.0.0.1:{server.port}", **quiet)
    check(caller.wait(60), 0, "exit code of sipp")
    stats = server.mi("get_statistics", {"statistics": ["dialog:"]})
    check({k: stats["dialog:" + k] for k in ("processed_dialogs", "active_dialogs", "early_dialogs", "failed_dialogs")},
          {"processed_dialogs": 200, "active_dialogs": 0, "early_dialogs": 0, "failed_dialogs": 0})
    check(server.mi("dialog:profile_get_size", {"profile": "caller"})["Profile"]["count"], 0)
    until("each call has one record", lambda: count(db, "acc") == 200)
    until("no dialog is left", lambda: server.mi("dialog:list")["Dialogs"] == [], 20)
    check(count(db, "dialog"), 0)


def test_the_shipped_trunk(place):
    from topic_calls import listens
    run(place.program, "db", "create", f"sqlite://{place.dir}/fermata.sqlite")
    callee = free_port()
    text = (SCENARIOS.parent.parent / "etc/trunk.cfg").read_text()
    for old, new in (("socket = udp:*:5060", "socket = udp:127.0.0.1:{PORT}"), ("/tmp/fermata_fifo", "{FIFO}"),
                     ("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite"), ('"192.0.2.10"', '"127.0.0.1"'),
                     ("sip:198.51.100.20:5060", f"sip:127.0.0.1:{callee}")):
        assert old in text, old
        text = text.replace(old, new)
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
    server = place.server(text.replace('loadmodule "mi_fifo.so"', 'loadmodule "mi_fifo.so"\n' + more))
    quiet = {"stdout": open(place.dir / "sipp.log", "ab"), "stderr": -2}
    place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-i", "127.0.0.1", "-p", callee, **quiet)
    until("the called party listens", lambda: listens(callee))
    caller = place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", "bob",
                           "-d", "200", "-r", 20, "-m", 40, f"127.0.0.1:{server.port}", **quiet)
    check(caller.wait(60), 0, "exit code of sipp")
    rows = lambda: place.sqlite("fermata.sqlite", "select count(*) as n from acc where sip_code = '200'")[0]["n"]
    until("each call has its record", lambda: int(rows()) == 40)
    check(server.mi("dialog:profile_get_size", {"profile": "side", "value": "pbx"})["Profile"]["count"], 0)
