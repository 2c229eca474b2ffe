"""Management: JSON-RPC over HTTP, FIFO and datagrams, as operators' tools speak it."""
import json, os, socket, subprocess
from harness import Failed, check, run, tool, until

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
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "event_datagram.so"
loadmodule "mi_fifo.so"
loadmodule "mi_datagram.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("mi_fifo", "fifo_name", "{FIFO}")
modparam("mi_fifo", "reply_dir", "{DIR}")
modparam("mi_datagram", "socket_name", "{DATAGRAM}")
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    send_reply(404, "Not Here");
}
"""


def start(place):
    return place.server(CONFIG, DATAGRAM=place.dir / "mi.sock")


def test_json_rpc_over_http(place):
    server = start(place)
    check(server.mi_raw({"jsonrpc": "2.0", "id": "a", "method": "nonsense"}),
          {"jsonrpc": "2.0", "id": "a", "error": {"code": -32601, "message": "Method not found"}})
    check(server.mi_raw(b"{")["error"]["code"], -32700)
    check(server.mi_raw({"id": 1, "method": "ps"})["error"]["code"], -32600)
    check(server.mi_raw({"jsonrpc": "2.0", "method": "ps"}), None, "a notification gets no answer")
    both = server.mi_raw([{"jsonrpc": "2.0", "id": n, "method": "pwd"} for n in (1, 2)])
    check([b["id"] for b in both], [1, 2])
    url = f"http://127.0.0.1:{server.mi_port}/mi"
    body = '{"jsonrpc": "2.0", "id": 7, "method": "log_level", "params": [4]}'
    answer = run("curl", "-sS", "-X", "POST", "-H", "Content-Type: application/json", "-d", body, url)
    check(json.loads(answer)["result"], {"New global log level": 4})
    check(run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{server.mi_port}/other"), "404")
    kinds = [p["Type"].split(" ")[0] for p in server.mi("log_level")["Processes"]]
    check(kinds, ["attendant", "SIP", "SIP", "management"])


def cli(server, kind, *command):
    """opensips-cli as installed, with the options that an operator's file would hold."""
    options = {"fifo": {"fifo_file": server.fifo, "fifo_reply_dir": server.place.dir},
               "http": {"url": f"http://127.0.0.1:{server.mi_port}/mi"},
               "datagram": {"datagram_unix_socket": server.place.dir / "mi.sock"}}[kind]
    words = [w for name, value in {"communication_type": kind, **options}.items() for w in ("-o", f"{name}={value}")]
    home = {**os.environ, "HOME": str(server.place.dir)}
    done = subprocess.run([str(tool("opensips-cli")), *map(str, words), "-x", "mi", *command],
                          capture_output=True, text=True, timeout=20, env=home)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return (done.stdout + done.stderr).strip()


def test_opensips_cli(place):
    server = start(place)
    phone = place.phone(server)
    check(phone.register("<sip:a@10.0.0.1>;q=0.5").status, 200)
    for kind in ("fifo", "http"):
        ask = lambda *command: cli(server, kind, *command)
        check([p["ID"] for p in ask("ps")["Processes"]], [0, 1, 2, 3], kind)
        check(sorted(ask("uptime")), ["Now", "Up since", "Up time"])
        check("compatible" in ask("version")["Server"], True)
        check({"ps", "ul_dump", "usrloc:dump", "get_statistics", "which"} - set(ask("which")), set())
        check(ask("which", "ul_show_contact"), [["table_name", "aor"]])
        both = ask("get_statistics", "registered_users", "core:")
        check((both["usrloc:registered_users"], set(both) >= {"core:rcv_requests", "core:timestamp"}), (1, True))
        check(ask("get_statistics", "usrloc:location-contacts"), {"usrloc:location-contacts": 1})
        check(ask("list_statistics", "usrloc:")["usrloc:location-expires"], "incremental")
        check(ask("reset_statistics", "accepted_regs"), "OK")
        check(ask("get_statistics", "accepted_regs"), {"registrar:accepted_regs": 0})
        check(ask("statistics:reset_all"), "OK")
        check(ask("log_level", "2"), {"New global log level": 2})
        check({p["Log level"] for p in ask("log_level")["Processes"]}, {2})
        dump = ask("ul_dump")
        contact = dump["Domains"][0]["AORs"][0]["Contacts"][0]
        check((contact["Contact"], contact["Q"]), ("sip:a@10.0.0.1", "0.5"))
        check(ask("ul_show_contact", "table_name=location", "aor=alice@example.com")["AOR"], "alice@example.com")
        said = str(ask("ul_show_contact", "location", "nobody@example.com"))
        if "AOR not found" not in said:
            raise Failed(f"opensips-cli said {said!r} about an unknown address")
        check(ask("arg")[1], "-f")
        check(ask("pwd"), {"WD": str(place.dir)})
        check(ask("help", "ps")["Exported by"], "core")


def test_the_python_package(place):
    server = start(place)
    mi = tool("opensips-mi")
    for words in (["-t", "fifo", "-f", server.fifo, "-fd", place.dir],
                  ["-t", "http", "-p", str(server.mi_port)],
                  ["-t", "datagram", "-ds", place.dir / "mi.sock", "-dt", "5", "-db", "65535"]):
        check(json.loads(run(mi, *words, "pwd")), {"WD": str(place.dir)}, words[1])
        check(json.loads(run(mi, *words, "-s", "registered_users")), {"usrloc:registered_users": 0}, words[1])


def test_datagrams_over_udp(place):
    from harness import free_port
    port = free_port()
    server = place.server(CONFIG, DATAGRAM=f"udp:127.0.0.1:{port}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)

        def ask():
            client.sendto(b'{"jsonrpc": "2.0", "id": 1, "method": "uptime"}', ("127.0.0.1", port))
            try:
                return client.recv(65535)
            except (TimeoutError, ConnectionRefusedError):
                return None
        check(sorted(json.loads(until("an answer", ask))["result"]), ["Now", "Up since", "Up time"])


def test_events_to_other_programs(place):
    server = start(place)
    phone = place.phone(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        where = "udp:127.0.0.1:%d" % listener.getsockname()[1]
        check("E_UL_CONTACT_INSERT" in [e["name"] for e in server.mi("events_list")["Events"]], True)
        check(server.mi("event_subscribe", ["E_NOTHING", where])["error"]["code"], 404)
        for event in ("E_UL_AOR_INSERT", "E_UL_CONTACT_INSERT", "E_UL_CONTACT_UPDATE", "E_UL_CONTACT_DELETE",
                      "E_UL_AOR_DELETE"):
            check(server.mi("event_subscribe", {"event": event, "socket": where, "expire": 60}), "OK")
        listed = server.mi("subscribers_list", ["E_UL_AOR_INSERT", where])["Event"]
        check((listed["name"], listed["Subscriber"]["socket"]), ("E_UL_AOR_INSERT", where))
        take = lambda: json.loads(listener.recv(65535))
        check(phone.register("<sip:a@10.0.0.1>;q=0.5").status, 200)
        check(take(), {"jsonrpc": "2.0", "method": "E_UL_AOR_INSERT",
                       "params": {"domain": "location", "aor": "alice@example.com"}})
        event = take()
        params = event["params"]
        check((event["method"], params["uri"], params["qval"], params["socket"], params["cseq"]),
              ("E_UL_CONTACT_INSERT", "sip:a@10.0.0.1", 500, f"udp:127.0.0.1:{server.port}", 1))
        check(phone.register("<sip:a@10.0.0.1>").status, 200)
        check(take()["method"], "E_UL_CONTACT_UPDATE")
        check(phone.register("*", expires=0).status, 200)
        check([take()["method"] for _ in range(2)], ["E_UL_CONTACT_DELETE", "E_UL_AOR_DELETE"])
        check(server.mi("raise_event", {"event": "E_UL_AOR_INSERT", "params": {"domain": "x", "aor": "y"}}), "OK")
        check(take()["params"], {"domain": "x", "aor": "y"})


RELOADED = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "cachedb_local.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
"""

OLD_ROUTES = """
route {
    $var(kept) = "old";
    if (is_method("INVITE")) {
        t_on_failure("busy");
        t_relay();
        exit;
    }
    if (is_method("MESSAGE")) {
        t_newtran();
        cache_store("local", "waits", "yes");
        sleep(3);
        route(ANSWER);
        exit;
    }
    route(ANSWER);
}
route[ANSWER] {
    send_reply(200, "Old $var(kept)");
}
failure_route[busy] {
    t_reply(480, "Old failure");
}
route[GONE] {
    xlog("never");
}
"""

NEW_ROUTES = """
timer_route[tick, 1] {
    cache_add("local", "ticks", 1, 0);
}
route[FRESH] {
    $var(fresh) = "new " + $var(kept);
    setflag("fresh");
    send_reply(202, "$var(fresh)");
}
failure_route[busy] {
    t_reply(481, "New failure");
}
route {
    $var(kept) = "kept";
    route(FRESH);
}
"""


def test_routes_are_reloaded(place):
    server = place.server(RELOADED + OLD_ROUTES)
    kept = server.config.read_text().split("\nroute {")[0]
    phone, waiting, callee = place.phone(server), place.phone(server), place.phone(server, "bob", "127.0.0.3")
    line = lambda call_id: phone.request("OPTIONS", "sip:x@example.com", call_id=call_id).text.split("\r\n")[0]
    check(line("o1"), "SIP/2.0 200 Old old")
    # One script waits, and one call waits for its answer, while the routes change.
    branch = "z9hG4bKwaits"
    text = (f"MESSAGE sip:x@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {waiting.address};branch={branch}\r\n"
            "Max-Forwards: 70\r\nFrom: <sip:w@example.com>;tag=1\r\nTo: <sip:x@example.com>\r\n"
            "Call-ID: waits@e2e\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n")
    waiting.socket.sendto(text.encode(), ("127.0.0.1", server.port))
    until("the script waits", lambda: server.mi("cache_fetch", ["local", "waits"]).get("value") == "yes")
    invite = text.replace("MESSAGE", "INVITE").replace("waits", "invite").replace("sip:x@example.com SIP", f"sip:bob@{callee.address} SIP")
    invite = invite.replace(waiting.address, phone.address)
    phone.socket.sendto(invite.encode(), ("127.0.0.1", server.port))
    ringing = callee.receive("INVITE")
    # Scripts with errors change nothing.
    server.config.write_text(kept + NEW_ROUTES + "route[BAD] { no_such_function(); }")
    refused = server.mi("reload_routes")["error"]
    check((refused["code"], "unknown function no_such_function()" in refused["data"]), (500, True))
    server.config.write_text(kept + NEW_ROUTES + "route[BAD] { if (")
    check(server.mi("reload_routes")["error"]["code"], 500)
    check(line("o2"), "SIP/2.0 200 Old old")
    server.config.write_text(kept + NEW_ROUTES)
    check(server.mi("reload_routes"), "OK")
    check(line("o3"), "SIP/2.0 202 new kept")
    check(line("o4"), "SIP/2.0 202 new kept")
    # The waiting script ends as it began; the failure route armed before runs as it is now.
    check(waiting.exchange(text, branch).text.split("\r\n")[0], "SIP/2.0 200 Old old")
    callee.answer(ringing, 486)
    check(phone.exchange(invite, "z9hG4bKinvite").status, 481)
    until("the new timer route runs", lambda: server.mi("cache_fetch", ["local", "ticks"]).get("value"))
    # And back.
    server.config.write_text(kept + OLD_ROUTES)
    check(server.mi("core:reload_routes"), "OK")
    check(line("o5"), "SIP/2.0 200 Old old")


def test_reloads_lose_no_call(place):
    """Calls go on while routes change twenty times; each is answered by the old script or by the new one."""
    server = place.server(RELOADED + 'route { send_reply(200, "A"); }')
    kept = server.config.read_text().split("\nroute {")[0]
    phones = [place.phone(server, f"u{n}") for n in range(4)]
    seen = set()
    for n in range(20):
        letter = "ABCD"[n % 4]
        server.config.write_text(kept + '\nroute { send_reply(200, "%s"); }' % letter)
        for phone in phones:
            phone.cseq += 1
        check(server.mi("reload_routes"), "OK")
        for m, phone in enumerate(phones):
            reply = phone.request("OPTIONS", "sip:x@example.com", call_id=f"c{n}-{m}")
            seen.add(reply.text.split("\r\n")[0])
            check(reply.text.split("\r\n")[0], f"SIP/2.0 200 {letter}")
    check(len(seen), 4)


def test_status_logs_and_wrong_parameters(place):
    server = start(place)
    check(server.mi("status_report:get", ["core"]), {"Readiness": True, "Status": 1, "Details": "running"})
    check([r["Log"] for r in server.mi("sr_list_reports", ["core", "main"])],
          ["initializing", "initialization completed, ready now"])
    check(server.mi("status_report:identifiers", ["core"]), {"Group": "core", "Identifiers": ["main"]})
    check(server.mi("status_report:status", ["nobody"])["error"], {"code": 404, "message": "Group not found"})
    check(server.mi("log_mute_state", ["stderror"]), {"mute state": 0})
    check(server.mi("log_mute_state", {"consumer": "stderror", "mute_state": 1}), "OK")
    size = server.log.stat().st_size
    check(server.mi("mem_shm_dump"), "OK")
    check(server.mi("log_mute_state", ["stderror", 0]), "OK")
    check(server.mi("mem_shm_dump"), "OK")
    until("what came later is logged", lambda: server.log.stat().st_size > size)
    check(server.log_text().count("bytes in use"), 1, "the silenced line is not")
    check(server.mi("log_level_filter", ["stderror", 1]), "OK")
    check(server.mi("log_level_filter", ["stderror"]), {"Log level filter": 1})
    invalid = lambda data: {"code": -32602, "message": "Invalid params", "data": data}
    check(server.mi("ps", ["more"])["error"], invalid("Too few or too many parameters"))
    check(server.mi("log_level", {"lewel": 3})["error"], invalid("Named parameters do not match"))
    check(server.mi("log_level", ["high"])["error"], invalid("Bad type for parameter 'level'"))
    check(server.mi("core:timestamp")["error"]["code"], -32601)
    check(server.mi("get_statistics", [["load:", "core:timestamp"]]).keys() >= {"load:load", "load:load1m", "core:timestamp"}, True)


PROMETHEUS = CONFIG.replace('route {', '''
loadmodule "statistics.so"
loadmodule "prometheus.so"
modparam("statistics", "stat_groups", "mine")
modparam("statistics", "variable", "mine:gw_1_calls")
modparam("prometheus", "statistics", "core: registered_users mine:")
modparam("prometheus", "labels", "mine: /^gw_(.*)_(.*)$/\\\\2:gateway=\\"\\\\1\\"/")
modparam("prometheus", "group_mode", 2)
modparam("prometheus", "script_route", "more")
route[more] {
    prometheus_declare_stat("opensips_cps");
    prometheus_push_stat(3);
    prometheus_declare_stat("opensips_cc", "counter", "calls so far");
    prometheus_push_stat(10, "gateway", "gw1");
    prometheus_push_stat(11, "{gateway=\\"gw2\\",x=\\"y\\"}");
}
route {''', 1)


def test_statistics_for_prometheus(place):
    server = place.server(PROMETHEUS, DATAGRAM=place.dir / "mi.sock")
    check(place.phone(server).register().status, 200)
    url = f"http://127.0.0.1:{server.mi_port}/metrics"
    text = until("metrics", lambda: subprocess.run(["curl", "-sf", url], capture_output=True, text=True).stdout)
    lines = text.splitlines()
    for line in ['# TYPE opensips_rcv_requests counter', 'opensips_rcv_requests{group="core"} 1',
                 '# TYPE opensips_registered_users gauge', 'opensips_registered_users{group="usrloc"} 1',
                 'opensips_calls{group="mine",gateway="1"} 0', '# TYPE opensips_cps gauge', 'opensips_cps 3',
                 '# HELP opensips_cc calls so far', '# TYPE opensips_cc counter', 'opensips_cc{gateway="gw1"} 10',
                 'opensips_cc{gateway="gw2",x="y"} 11']:
        check(line in lines, True, f"{line} in {text}")
    check(run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{content_type}", url), "200 text/plain; version=0.0.4")
