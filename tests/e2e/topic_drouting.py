"""Calls over gateways and carriers: what fails in each way, reloads under load, tables of each database."""
import contextlib, re, socket, threading, time
from databases import MariaDb, Postgres, quiet
from harness import check, free_port, until

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "db_mysql.so"
loadmodule "db_postgres.so"
loadmodule "drouting.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("tm", "fr_timeout", 2)
modparam("tm", "fr_inv_timeout", 3)
modparam("tm", "onreply_avp_mode", 1)
modparam("drouting", "db_url", "{URL}")
modparam("drouting", "force_dns", 0)
modparam("drouting", "gw_id_avp", "$avp(gw)")
modparam("drouting", "carrier_id_avp", "$avp(carrier)")
route {
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    if (is_method("INVITE"))
        record_route();
    if (!do_routing(0)) {
        sl_send_reply(404, "No Rule");
        exit;
    }
    route(send);
}
route[send] {
    t_on_failure("next");
    t_on_reply("tell");
    while (!t_relay("no-auto-477")) {
        if (!use_next_gw()) {
            t_reply(503, "Nothing Left");
            exit;
        }
    }
    exit;
}
onreply_route[tell] {
    append_hf("X-Gateway: $avp(gw) $avp(carrier)\\r\\n");
}
failure_route[next] {
    if (use_next_gw())
        route(send);
}
"""


class Gateway:
    """Answers each request with one status, or with nothing, and counts them."""

    def __init__(self, place, status=200):
        self.status, self.heard = status, set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        place.ending.callback(self.socket.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                data, peer = self.socket.recvfrom(65535)
                text = data.decode(errors="replace")
                self.heard.add(re.search(r"(?im)^call-id: *(.*?)\r?$", text)[1])
                kept = [l for l in text.split("\r\n") if re.match(r"(?i)(via|from|to|call-id|cseq):", l)]
                kept = [l + ";tag=gw" if l.lower().startswith("to:") else l for l in kept]
                if self.status:
                    reply = f"SIP/2.0 {self.status} Gateway\r\n" + "\r\n".join(kept) + "\r\nContent-Length: 0\r\n\r\n"
                    self.socket.sendto(reply.encode(), peer)


def rows(gateways, carriers=(), rules=()):
    """Statements that every database understands."""
    text = [f"insert into dr_gateways (gwid, type, address, strip, pri_prefix, attrs, probe_mode, state) "
            f"values ('{gwid}', 0, '{address}', 0, '', '', 0, 0)" for gwid, address in gateways]
    text += [f"insert into dr_carriers (carrierid, gwlist, flags, state) values ('{name}', '{gwlist}', {flags}, 0)"
             for name, gwlist, flags in carriers]
    text += [f"insert into dr_rules (groupid, prefix, timerec, priority, gwlist) "
             f"values ('0', '{prefix}', '', {priority}, '{gwlist}')" for prefix, priority, gwlist in rules]
    return ";\n".join(text)


def call(place, server, number, number_of=[1]):
    """(status, gateway and carrier that answered)"""
    number_of[0] = number_of[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number_of[0] + 2}")
    reply = phone.request("MESSAGE", f"sip:{number}@example.com")
    return reply.status, reply.header("X-Gateway").replace(" <null>", "").strip()


def start(place, statements):
    url = f"sqlite://{place.dir}/routes.sqlite"
    quiet(place.program, "db", "create", url, "drouting")
    place.sqlite("routes.sqlite", statements)
    return place.server(CONFIG, URL=url)


def test_fails_over(place):
    good, busy, mute = Gateway(place), Gateway(place, 503), Gateway(place, 0)
    server = start(place, rows(
        [("good", good.address), ("busy", busy.address), ("mute", mute.address), ("closed", f"127.0.0.1:{free_port()}"),
         ("nameless", "nobody.invalid"), ("stream", f"127.0.0.1:{free_port()};transport=tcp")],
        [("C1", "busy,mute", 0), ("C2", "closed,good", 0), ("ONE", "busy,good", 1)],
        [("1", 0, "busy,good"), ("2", 0, "mute,good"), ("3", 0, "closed,good"), ("4", 0, "nameless,good"),
         ("5", 0, "busy,mute,closed,nameless,good"), ("6", 0, "#C1,#C2"), ("7", 0, "#ONE,good"), ("8", 0, "busy,mute")]))
    check(call(place, server, "1000"), (200, "good"), "503")
    check(call(place, server, "2000"), (200, "good"), "silence")
    check(call(place, server, "3000"), (200, "good"), "refused")
    check(call(place, server, "4000"), (200, "good"), "a name without address")
    check(call(place, server, "5000"), (200, "good"), "one after the other")
    check(call(place, server, "6000"), (200, "good C2"), "carriers")
    good.heard.clear()
    check(call(place, server, "7000"), (200, "good"), "only the first gateway of a carrier")
    check(call(place, server, "8000")[0] in (408, 500), True, "nothing is left")
    check(call(place, server, "9000")[0], 404, "no rule")
    # What is switched off is not tried; a command brings it back.
    server.mi("dr_gw_status", {"gw_id": "good", "status": "0"})
    check(call(place, server, "1000")[0], 500, "switched off")
    server.mi("dr_gw_status", {"gw_id": "good", "status": "1"})
    check(call(place, server, "1000"), (200, "good"), "switched on")
    server.mi("dr_carrier_status", {"carrier_id": "C2", "status": "0"})
    check(call(place, server, "6000")[0] in (408, 500), True, "a carrier switched off")
    server.stop()
    check(sorted((r["gwid"], r["state"]) for r in place.sqlite("routes.sqlite", "select gwid, state from dr_gateways where state <> 0")), [])
    check(place.sqlite("routes.sqlite", "select carrierid from dr_carriers where state <> 0"), [{"carrierid": "C2"}], "saved")


def test_calls_fail_over(place):
    from topic_dispatcher import all_succeed, each_kind
    addresses, _ = each_kind(place)
    kinds = list(addresses)
    server = start(place, rows(list(addresses.items()), [("ALL", ",".join(kinds), 0)], [("", 0, "#ALL")]))
    all_succeed(place, server, 10)
    check([g["State"] for g in server.mi("dr_gw_status")["Gateways"]], ["Active"] * len(kinds), "nobody disables gateways here")


def test_reload_under_load(place):
    one, two = Gateway(place), Gateway(place)
    many = ";\n".join(f"insert into dr_rules (groupid, prefix, timerec, priority, gwlist) values ('0', '9{n:05}', '', 0, 'one')"
                      for n in range(5000))
    server = start(place, rows([("one", one.address), ("two", two.address)], rules=[("1", 0, "one,two")]) + ";\n" + many)
    ending, found, problems = threading.Event(), [], []

    def calls(ip):
        phone = place.phone(server, ip=ip)
        while not ending.is_set():
            try:
                reply = phone.request("MESSAGE", "sip:1000@example.com", call_id=f"{ip}-{len(found)}-{time.monotonic()}")
                found.append((reply.status, reply.header("X-Gateway").split(" ")[0]))
            except Exception as problem:
                problems.append(problem)
                return
    threads = [threading.Thread(target=calls, args=(f"127.0.1.{n + 1}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        wanted = ("two,one", "one,two")[turn % 2]
        place.sqlite("routes.sqlite", f"update dr_rules set gwlist = '{wanted}' where prefix = '1'")
        begun = len(found)
        check("error" in (server.mi("dr_reload") or {}), False, "reloaded")
        until("calls go the new way", lambda: len(found) > begun + 20 and found[-1][1] == wanted[:3])
    ending.set()
    for thread in threads:
        thread.join()
    check(problems, [])
    check({status for status, _ in found}, {200}, "every call")
    check({gateway for _, gateway in found}, {"one", "two"})
    server.stop()


def test_tables_of_each_database(place):
    good, busy = Gateway(place), Gateway(place, 503)
    for kind in (MariaDb, Postgres):
        database = kind(place)
        database.account()
        quiet(place.program, "db", "create", database.url(), "drouting")
        statements = rows([("good", good.address), ("busy", busy.address)], [("C", "busy=1,good=1", 0)],
                          [("12", 0, "#C,good"), ("", 0, "good")])
        for statement in statements.split(";\n"):
            database.sql(statement, "fermata")
        server = place.server(CONFIG, URL=database.url())
        check(call(place, server, "1200")[0], 200, kind.name)
        check(call(place, server, "77"), (200, "good"), "the rule for every number")
        check(server.mi("dr_gw_status", {"gw_id": "busy", "status": "0"}) in ("OK", {}), True)
        server.stop()
        check(database.sql("select state from dr_gateways where gwid = 'busy'", "fermata").strip(), "1", "saved")


BY_QUALITY = """
loadmodule "dialog.so"
loadmodule "qrouting.so"
modparam("qrouting", "db_url", "{URL}")
modparam("qrouting", "algorithm", "best-dest-first")
modparam("qrouting", "sampling_interval", 1)
modparam("qrouting", "min_samples_asr", 5)
modparam("qrouting", "min_samples_ccr", 5)
modparam("qrouting", "event_bad_dst_threshold", "0.5")
event_route[E_QROUTING_BAD_DST] {
    xlog("bad: $param(partition) $param(rule_id) $param(dst_name)\\n");
}
route {
"""


def test_calls_of_sipp_go_where_they_succeed(place):
    from topic_dispatcher import all_succeed, called
    url = f"sqlite://{place.dir}/routes.sqlite"
    for module in ("drouting", "qrouting"):
        quiet(place.program, "db", "create", url, module)
    bad, good = called(place, scenario="uas_503.xml"), called(place)
    place.sqlite("routes.sqlite", rows([("bad", f"127.0.0.1:{bad}"), ("good", f"127.0.0.1:{good}")], rules=[("", 0, "bad,good")])
                 + ";\nupdate dr_rules set sort_alg = 'Q', sort_profile = 1;\ninsert into qr_profiles (id, profile_name, crit_threshold_asr, "
                 "warn_threshold_asr, warn_threshold_pdd, crit_threshold_pdd, warn_threshold_ast, crit_threshold_ast) "
                 "values (1, 'all', 0.5, 0.9, 30000, 30000, 30000, 30000)")
    server = place.server(CONFIG.replace("\nroute {\n", BY_QUALITY, 1), URL=url)

    def asked(name):
        found = server.mi("qrouting:status", {"partition": "Default", "rule_id": "1"})["Destinations"]
        return next(int(d["Gateway"]["ASR"].split("/")[1]) for d in found if d["Gateway"]["GWID"] == name)
    all_succeed(place, server, 10)
    until("both were tried by all", lambda: asked("bad") >= 10 and asked("good") == 10)
    tried = asked("bad")
    all_succeed(place, server, 20)
    until("the good one is asked", lambda: asked("good") == 30)
    check(asked("bad"), tried, "the bad one is not asked any more")
    until("and it is told", lambda: "bad: Default 1 bad" in server.log_text())
    check("bad: Default 1 good" in server.log_text(), False)
    # Whoever runs it takes out the other one: calls fail over to what is left.
    check(server.mi("qrouting:disable_dst", {"rule_id": 1, "dst_name": "bad"}), "OK")
    check(server.mi("qrouting:disable_dst", {"rule_id": 1, "dst_name": "good"}), "OK")
    check(call(place, server, "1000")[0], 404, "nobody is left")
    check(server.mi("qrouting:enable_dst", {"rule_id": 1, "dst_name": "good"}), "OK")
    all_succeed(place, server, 2)
