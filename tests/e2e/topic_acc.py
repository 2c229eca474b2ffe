"""Accounting as an operator meets it: FreeRADIUS's detail file, MariaDB, events, and what a call leaves behind."""
import json, socket, threading
from harness import check, until
from databases import MariaDb
from topic_auth import HEAD, Freeradius

ROUTES = """
route {
    if (is_method("ACK|BYE")) {
        if (is_method("BYE")) {
            do_accounting("{BACKEND}");
        }
        $du = "sip:{CALLEE}";
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    $acc_extra(caller) = $fU;
    do_accounting("{BACKEND}", "missed|failed");
    if ($rU == "two") {
        $acc_leg(dst) = "first";
        acc_new_leg();
        $acc_leg(dst) = "second";
    } else {
        $acc_leg(dst) = $rU;
    }
    if ($rU == "nobody") {
        acc_{REQUEST}_request("403 Nobody is called so"{TABLE});
        # A function that waited made a transaction, whose reply would be accounted too.
        drop_accounting();
        send_reply(403, "Forbidden");
        exit;
    }
    $du = "sip:{CALLEE}";
    t_relay();
}
"""


def start(place, backend, params, table=""):
    class Unknown:
        port = 0
    callee = place.phone(Unknown, "bob", "127.0.0.3")
    names = {"aaa": "Calling-Station-Id", "db": "caller", "evi": "caller"}
    params += (f'modparam("acc", "extra_fields", "{backend}: caller->{names[backend]}")\n'
               f'modparam("acc", "leg_fields", "{backend}: dst->{"Called-Station-Id" if backend == "aaa" else "dst"}")\n')
    server = place.server(HEAD + 'modparam("tm", "fr_timeout", 2)\n' + params + ROUTES, BACKEND=backend, REQUEST=backend,
                          TABLE=table, CALLEE=callee.address)
    callee.server = server
    return server, place.phone(server), callee


def call(caller, callee, user, status, method="INVITE"):
    """One request, answered with `status`; the final reply."""
    got = []
    ask = lambda: got.append(caller.request(method, f"sip:{user}@example.com", call_id=f"{user}-{method}-{status}"))
    thread = threading.Thread(target=ask)
    thread.start()
    if status:
        callee.answer(callee.receive(method), status)
    thread.join()
    return got[0].status


def story(caller, callee):
    """What every backend is told."""
    check(call(caller, callee, "alice", 200), 200)
    check(call(caller, callee, "alice", 200, "BYE"), 200)
    check(call(caller, callee, "two", 200), 200)
    check(call(caller, callee, "alice", 486), 486)
    check(call(caller, callee, "nobody", None), 403)


def test_freeradius_accounts(place):
    daemon = Freeradius(place)
    params = f'''loadmodule "aaa_radius.so"
loadmodule "acc.so"
modparam("acc", "aaa_url", "radius:{daemon.home}/client.conf")
'''
    server, caller, callee = start(place, "aaa", params)
    story(caller, callee)
    of = lambda call_id: [r for r in daemon.detail() if r.get("Acct-Session-Id") == call_id]
    until("all is in the detail file", lambda: len(daemon.detail()) == 6)
    seen = {c: [r["Acct-Status-Type"] for r in of(c)] for c in
            ("alice-INVITE-200", "alice-BYE-200", "two-INVITE-200", "alice-INVITE-486", "nobody-INVITE-None")}
    check(seen, {"alice-INVITE-200": ["Start"], "alice-BYE-200": ["Stop"], "two-INVITE-200": ["Start"],
                 "alice-INVITE-486": ["Failed", "Failed"], "nobody-INVITE-None": ["Failed"]})
    first = of("alice-INVITE-200")[0]
    check((first["Calling-Station-Id"], first["Called-Station-Id"], first["Service-Type"]), ("alice", "alice", "IAPP-Register"))
    # A server that is away: calls go on, the log says which are missing.
    daemon.kill()
    check(call(caller, callee, "alice", 200, "OPTIONS"), 200)
    until("the log names the call", lambda: "alice-OPTIONS-200 is not accounted" in server.log_text())


COLUMNS = """id int auto_increment primary key, method char(16) default '', from_tag char(64) default '',
    to_tag char(64) default '', callid char(64) default '', sip_code char(3) default '', sip_reason char(32) default '',
    time datetime, setuptime int default 0, created datetime, caller char(64) default '', dst char(64) default ''"""


def test_mariadb_accounts(place):
    daemon = MariaDb(place)
    daemon.account()
    daemon.sql(f"create table acc ({COLUMNS}, duration int default 0, ms_duration int default 0)", "fermata")
    daemon.sql(f"create table missed_calls ({COLUMNS})", "fermata")
    params = f'''loadmodule "db_mysql.so"
loadmodule "acc.so"
modparam("acc", "db_url", "{daemon.url()}")
'''
    server, caller, callee = start(place, "db", params, ', "acc"')
    story(caller, callee)
    rows = lambda table: daemon.sql(
        f"select callid, sip_code, sip_reason, caller, dst from {table} order by callid, sip_code, dst", "fermata").splitlines()
    expected = ["alice-BYE-200\t200\tE2E\t\t", "alice-INVITE-200\t200\tE2E\talice\talice",
                "alice-INVITE-486\t486\tE2E\talice\talice", "nobody-INVITE-None\t403\tNobody is called so\talice\tnobody",
                "two-INVITE-200\t200\tE2E\talice\tfirst",
                "two-INVITE-200\t200\tE2E\talice\tsecond"]
    until("all rows", lambda: len(rows("acc")) >= len(expected))
    check(rows("acc"), expected)
    check(rows("missed_calls"), ["alice-INVITE-486\t486\tE2E\talice\talice"])


def test_events_account(place):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        server, caller, callee = start(place, "evi", 'loadmodule "event_datagram.so"\nloadmodule "acc.so"\n')
        for event in ("E_ACC_EVENT", "E_ACC_MISSED_EVENT"):
            check(server.mi("event_subscribe", [event, "udp:127.0.0.1:%d" % listener.getsockname()[1]]), "OK")
        story(caller, callee)
        events = []
        while len(events) < 7:
            got = json.loads(listener.recv(65535))
            events.append((got["method"], got["params"]["callid"], got["params"]["sip_code"], got["params"].get("dst")))
    check(sorted(events, key=str), sorted([
        ("E_ACC_EVENT", "alice-INVITE-200", "200", "alice"), ("E_ACC_EVENT", "alice-BYE-200", "200", ""),
        ("E_ACC_EVENT", "two-INVITE-200", "200", "first"), ("E_ACC_EVENT", "two-INVITE-200", "200", "second"),
        ("E_ACC_MISSED_EVENT", "alice-INVITE-486", "486", "alice"), ("E_ACC_EVENT", "alice-INVITE-486", "486", "alice"),
        ("E_ACC_MISSED_EVENT", "nobody-INVITE-None", "403", "nobody")], key=str))
