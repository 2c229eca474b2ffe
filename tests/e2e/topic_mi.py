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
        check(ask("get_statistics", "registered_users", "core:"),
              {"usrloc:registered_users": 1, **{k: v for k, v in ask("get_statistics", "core:").items()}})
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
