"""TCP, TLS and WebSocket: calls between them, connections that come, go, stall and lie."""
import contextlib, pathlib, re, socket, subprocess, time
from harness import Failed, check, free_port, until
from streams import StreamPhone, WebWire, Wire, certificates, client_context

SCENARIOS = pathlib.Path(__file__).resolve().parent.parent / "sipp"

HEAD = """
log_level=3
stderror_enabled=yes
syslog_enabled=no
udp_workers=2
socket=udp:127.0.0.1:{PORT}
socket=tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "nat_bflag", "NAT")
modparam("nathelper", "received_avp", "$avp(rcv)")
modparam("registrar", "received_avp", "$avp(rcv)")
modparam("tm", "fr_timeout", 5)
modparam("tm", "wt_timer", 1)
"""

SECURE = """
socket=tls:127.0.0.1:{TLS}
socket=ws:127.0.0.1:{WS}
socket=wss:127.0.0.1:{WSS}
loadmodule "tls_openssl.so"
loadmodule "tls_mgm.so"
loadmodule "proto_tls.so"
loadmodule "proto_ws.so"
loadmodule "proto_wss.so"
modparam("tls_mgm", "server_domain", "plain")
modparam("tls_mgm", "certificate", "[plain]{DIR}/plain.example.com.pem")
modparam("tls_mgm", "private_key", "[plain]{DIR}/plain.example.com.key")
modparam("tls_mgm", "ca_list", "[plain]{DIR}/ca.pem")
modparam("tls_mgm", "require_cert", "[plain]0")
modparam("tls_mgm", "server_domain", "strict")
modparam("tls_mgm", "match_sip_domain", "[strict]strict.example.com")
modparam("tls_mgm", "certificate", "[strict]{DIR}/strict.example.com.pem")
modparam("tls_mgm", "private_key", "[strict]{DIR}/strict.example.com.key")
modparam("tls_mgm", "ca_list", "[strict]{DIR}/ca.pem")
modparam("tls_mgm", "client_domain", "out")
modparam("tls_mgm", "certificate", "[out]{DIR}/plain.example.com.pem")
modparam("tls_mgm", "private_key", "[out]{DIR}/plain.example.com.key")
modparam("tls_mgm", "ca_list", "[out]{DIR}/ca.pem")
"""

ROUTE = """
route {
    if (!mf_process_maxfwd_header(10)) {
        send_reply(483, "Too Many Hops");
        exit;
    }
    force_rport();
    if (has_totag()) {
        if (loose_route()) {
            t_relay();
        }
        exit;
    }
    if (is_method("CANCEL")) {
        if (t_check_trans()) {
            t_relay();
        }
        exit;
    }
    if (is_method("OPTIONS")) {
        append_to_reply("X-Way: $socket_in(proto) SHOWN\\r\\n");
        if (is_present_hf("X-Alias")) {
            force_tcp_alias();
        }
        sl_send_reply(200, "OK");
        exit;
    }
    if (is_method("REGISTER")) {
        fix_nated_register();
        setbflag("NAT");
        setflag("STAY");
        save("location");
        exit;
    }
    record_route();
    fix_nated_contact();
    t_on_reply("answered");
    if ($rU == "number") {
        $ru = "sip:" + $rU + "@127.0.0.1:{UAS};transport={PROTO}";
    } else if ($rU == "existing") {
        $ru = "sip:" + $rU + "@127.0.0.2:{UAS};transport=tcp";
        setbflag("ONLY");
    } else if (!lookup("location")) {
        send_reply(404, "Not Found");
        exit;
    }
    t_on_failure("failed");
    if (!t_relay("no-auto-477")) {
        send_reply(480, "Way $rc");
    }
}
failure_route[failed] {
    if (t_check_status("477")) {
        t_reply(480, "Unreachable");
    }
}
onreply_route[answered] {
    fix_nated_contact();
}
event_route[E_CORE_TCP_DISCONNECT] {
    xlog("GONE $param(proto) $param(src_ip)\\n");
}
"""

RULES = 'tcp_no_new_conn_bflag = ONLY\n'


def plain(place, more="", **names):
    return place.server(HEAD + RULES + more + ROUTE, **{"UAS": free_port(), "PROTO": "tcp", **names})


def secure(place, **names):
    certificates(place, "plain.example.com", "strict.example.com", "alice.example.com")
    ports = {"TLS": free_port(), "WS": free_port(), "WSS": free_port(), "UAS": free_port(), "PROTO": "tls", **names}
    server = place.server(HEAD + RULES + SECURE + ROUTE.replace("SHOWN", "$tls_version $tls_peer_subject_cn"), **ports)
    server.ports = ports
    return server


def tcp(server, user="alice"):
    return StreamPhone(Wire(("127.0.0.1", server.port)), user)


def statistic(server, name):
    return int(list(server.mi("get_statistics", [[name]]).values())[0])


def talk(caller, callee, to):
    """A whole call; both ends are StreamPhones, or the callee answers what it receives."""
    call_id = f"{time.monotonic_ns():x}@e2e"
    contact = f"Contact: {caller.contact}\r\n"
    caller.request("INVITE", f"sip:{to}@example.com", to=to, headers=contact, call_id=call_id)
    invite = callee.receive("INVITE ")
    callee.answer(invite, 180)
    callee.answer(invite, 200, f"Contact: {callee.contact}\r\n")
    ok = caller.receive("SIP/2.0 2")
    route = "".join(f"Route: {r.strip()}\r\n" for r in reversed(ok.header("Record-Route").split(",")))
    target = re.search(r"<(.*?)>", ok.header("Contact"))[1]
    tags = (f"f{call_id[:6]}", "e2e")
    caller.cseq -= 1
    caller.request("ACK", target, to=to, headers=route, call_id=call_id, tags=tags)
    ack = callee.receive("ACK ")
    caller.request("BYE", target, to=to, headers=route, call_id=call_id, tags=tags)
    callee.answer(callee.receive("BYE "), 200)
    caller.receive("SIP/2.0 200")
    return invite, ack


def sipp_pair(place, server, uac, uas, port, calls=40):
    """SIPp's agents through the server; every call must succeed."""
    listening = place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-t", uas, "-i", "127.0.0.1", "-p", server_uas(server),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the called party listens", lambda: hears(server_uas(server), uas))
    done = subprocess.run(["sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-t", uac, "-i", "127.0.0.1", "-p", str(free_port()), "-s", "number",
                           "-m", str(calls), "-r", "20", "-d", "100", "-max_socket", "100", f"127.0.0.1:{port}"],
                          capture_output=True, text=True, timeout=60, cwd=place.dir)
    listening.terminate()
    check(done.returncode, 0, f"{uac} to {uas}: {done.stdout[-600:]}{done.stderr[-300:]}")


def server_uas(server):
    return re.search(r"@127.0.0.1:(\d+);transport", server.config.read_text())[1]


def hears(port, kind):
    """Somebody listens there; asked of the system, since SIPp takes a connection that says nothing for a call."""
    if kind[0] == "u":
        return True
    lines = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(l[1].endswith(f":{int(port):04X}") and l[3] == "0A" for l in lines)


def test_sipp_one_connection(place):
    server = plain(place)
    sipp_pair(place, server, "t1", "t1", server.port)
    check(statistic(server, "tcp_connected"), 1, "one connection to the called party")


def test_sipp_connection_for_each_call(place):
    server = plain(place)
    sipp_pair(place, server, "tn", "t1", server.port)


def test_sipp_udp_to_tcp(place):
    server = plain(place)
    sipp_pair(place, server, "u1", "t1", server.port)


def test_sipp_tcp_to_udp(place):
    server = plain(place, PROTO="udp")
    sipp_pair(place, server, "t1", "u1", server.port)


def test_openssl(place):
    server = secure(place)
    options = ("OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK1;rport\r\nFrom: <sip:a@b>;tag=1\r\n"
               "To: <sip:a@b>\r\nCall-ID: o1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")

    def s_client(*words):
        client = place.process("openssl", "s_client", "-connect", f"127.0.0.1:{server.ports['TLS']}", "-CAfile", "ca.pem",
                               "-verify_return_error", "-quiet", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        # Refused, it may have ended before it reads this.
        with contextlib.suppress(BrokenPipeError):
            client.stdin.write(options.encode())
            client.stdin.flush()
        said = b""
        while (data := client.stdout.read1(4096)):
            said += data
            if b"\r\n\r\n" in said:
                break
        return said.decode(errors="replace")
    said = s_client("-noservername")
    check("SIP/2.0 200" in said and "CN = plain.example.com" in said.replace("CN=", "CN = "), True, said)
    said = s_client("-servername", "strict.example.com", "-cert", "alice.example.com.pem", "-key", "alice.example.com.key")
    check("SIP/2.0 200" in said and "alice.example.com\r" in said, True, said)
    said = s_client("-servername", "strict.example.com")
    check("SIP/2.0 200" in said, False, "a client that must show a certificate and shows none: " + said)
    check(server.mi("tls_reload"), "OK")
    check([d["ID"] for d in server.mi("tls_list")["Domains"]], ["plain", "strict", "out"])


def test_domains_in_a_database(place):
    certificates(place, "one.example.com", "two.example.com")
    place.sqlite("tls.sqlite", """create table tls_mgm (id integer primary key, domain char(64), match_ip_address char(255),
        match_sip_domain char(255), type integer, method char(16), verify_cert integer, require_cert integer, certificate blob,
        private_key blob, crl_check_all integer, crl_dir char(255), ca_list blob, ca_dir char(255), cipher_list char(255),
        dh_params blob, ec_curve char(255));
create table version (table_name text, table_version integer);
insert into version values ('tls_mgm', 3)""")

    def store(name):
        import contextlib, sqlite3
        pem = [(place.dir / f"{name}.{kind}").read_bytes() for kind in ("pem", "key")]
        with contextlib.closing(sqlite3.connect(place.dir / "tls.sqlite", timeout=10)) as db:
            db.execute("delete from tls_mgm")
            db.execute("insert into tls_mgm (domain, match_ip_address, match_sip_domain, type, method, verify_cert, require_cert, "
                       "certificate, private_key) values ('stored', '*', '*', 2, 'TLSv1_2-', 0, 0, ?, ?)", pem)
            db.commit()
    store("one.example.com")
    port = free_port()
    server = plain(place, f"""socket=tls:127.0.0.1:{port}
loadmodule "db_sqlite.so"
loadmodule "tls_mgm.so"
loadmodule "proto_tls.so"
modparam("tls_mgm", "db_url", "sqlite://{{DIR}}/tls.sqlite")
""")
    until("the domain was read", lambda: [d["ID"] for d in server.mi("tls_list")["Domains"]] == ["stored"])

    def shown():
        try:
            wire = Wire(("127.0.0.1", port), client_context(place), "any.example.com")
        except OSError:
            return None
        check(StreamPhone(wire, "alice").final("OPTIONS", "sip:x@example.com").status, 200)
        return dict(part[0] for part in wire.socket.getpeercert()["subject"])["commonName"]
    until("it serves", lambda: shown() == "one.example.com")
    store("two.example.com")
    check(shown(), "one.example.com")
    check(server.mi("tls_reload"), "OK")
    check(shown(), "two.example.com")


def test_every_transport_calls_every_other(place):
    server = secure(place)
    context = client_context(place)
    tls = lambda user: StreamPhone(Wire(("127.0.0.1", server.ports["TLS"]), context), user)
    ws = lambda user: StreamPhone(WebWire(f"ws://127.0.0.1:{server.ports['WS']}"), user)
    wss = lambda user: StreamPhone(WebWire(f"wss://127.0.0.1:{server.ports['WSS']}", context), user)
    makers = {"tcp": lambda user: tcp(server, user), "tls": tls, "ws": ws, "wss": wss}
    phones = {name: make(name) for name, make in makers.items()}
    for name, phone in phones.items():
        check(phone.register().status, 200, name)
    for caller in phones:
        for callee in phones:
            if caller != callee:
                invite, _ = talk(phones[caller], phones[callee], callee)
                check(f"SIP/2.0/{callee.upper()} " in invite.header("Via").split(",")[0], True, invite.text)
    udp = place.phone(server, "udp")
    check(udp.register().status, 200)
    udp.contact = f"<sip:udp@{udp.address}>"
    talk(phones["wss"], udp, "udp")
    kinds = sorted(c["Type"] for c in server.mi("tcp:list")["Connections"])
    check(kinds, ["tcp", "tls", "ws", "wss"], "no further connection was made")


def test_websocket_must_speak_sip(place):
    server = secure(place)
    for words in ({"subprotocols": ("chat",)}, {"origin": None}):
        try:
            WebWire(f"ws://127.0.0.1:{server.ports['WS']}", **words)
        except Exception as error:
            check("HTTP 400" in str(error), True, f"{words}: {error}")
        else:
            raise Failed(f"a handshake with {words} was accepted")
    until("they are counted", lambda: statistic(server, "tcp_closed_bad") == 2)
    phone = StreamPhone(WebWire(f"ws://127.0.0.1:{server.ports['WS']}"), "alice")
    phone.wire.ping()
    check(phone.final("OPTIONS", "sip:x@example.com").header("X-Way").split()[0], "ws")
    phone.wire.close()
    until("its end is told", lambda: "GONE ws 127.0.0.2" in server.log_text())


def test_pings_and_pieces(place):
    server = plain(place)
    phone = tcp(server)
    phone.wire.send("\r\n\r\n")
    check(phone.wire.socket.recv(10), b"\r\n", "a ping")
    phone.wire, wire = Recorder(), phone.wire
    phone.request("OPTIONS", "sip:x@example.com")
    for byte in phone.wire.sent:
        wire.socket.sendall(bytes([byte]))
    phone.wire = wire
    check(phone.receive("SIP/2.0").status, 200, "one byte at a time")


class Recorder:
    proto, local = "TCP", "127.0.0.1:1"

    def send(self, text):
        self.sent = text.encode()


def test_bad_and_slow_clients_end(place):
    server = plain(place, "tcp_max_msg_time=1\ntcp_connection_lifetime=2\n")
    address = ("127.0.0.1", server.port)
    for sent, counter in (("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "tcp_closed_bad"), ("OPTIONS sip:a SIP/2.0\r\nVia: x", "tcp_closed_slow"),
                          ("", "tcp_closed_idle"), ("X" * 70_000, "tcp_closed_bad")):
        wire = Wire(address)
        before = statistic(server, counter)
        wire.send(sent)
        wire.closed()
        until(counter, lambda: statistic(server, counter) == before + 1)
    check(tcp(server).final("OPTIONS", "sip:x@example.com").status, 200, "others are served")


def test_unreachable(place):
    server = plain(place)
    phone = tcp(server)
    check(phone.final("INVITE", "sip:number@example.com").text.split("\r\n")[0], "SIP/2.0 480 Unreachable")
    check(phone.final("INVITE", "sip:existing@example.com").text.split("\r\n")[0], "SIP/2.0 480 Way -6")
    check((statistic(server, "tcp_connect_failed"), statistic(server, "tcp_connected")), (1, 0))


def test_alias(place):
    """With force_tcp_alias() a request to the port of the Via takes the connection that is there."""
    uas = free_port()
    server = plain(place, UAS=uas)
    called = StreamPhone(Wire(("127.0.0.1", server.port)), "bob")
    called.wire.local = f"127.0.0.2:{uas}"
    check(called.final("OPTIONS", "sip:x@example.com", headers="X-Alias: 1\r\n").status, 200)
    check(server.mi("tcp:list")["Connections"][0]["Alias port"], uas)
    caller = tcp(server)
    caller.request("INVITE", "sip:existing@example.com")
    called.answer(called.receive("INVITE "), 486)
    check(caller.receive("SIP/2.0 [2-6]").status, 486)


def test_never_reads(place):
    """A called party that accepts and never reads costs nobody else anything."""
    uas = free_port()
    with socket.create_server(("127.0.0.1", uas), backlog=5) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server = plain(place, 'modparam("proto_tcp", "tcp_async_max_postponed_chunks", 8)\n', UAS=uas)
        caller, other = tcp(server), tcp(server, "carol")
        body = "x" * 60_000
        for n in range(200):
            caller.wire.send(
                f"MESSAGE sip:number@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 1.1.1.1;branch=z9hG4bKm{n}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:a@b>;tag=1\r\nTo: <sip:number@b>\r\nCall-ID: m{n}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 60000\r\n\r\n{body}")
        until("the queue is full", lambda: statistic(server, "tcp_send_overflow") > 0)
        check(other.final("OPTIONS", "sip:x@example.com").status, 200, "others are served")
        check(caller.receive("SIP/2.0 4").status, 480, "what does not fit is answered")


def test_closed_in_a_call(place):
    server = plain(place, 'modparam("registrar", "tcp_persistent_flag", "STAY")\ntcp_connection_lifetime=2\n')
    caller, called = tcp(server), tcp(server, "bob")
    check(called.register().status, 200)
    caller.request("INVITE", "sip:bob@example.com", headers=f"Contact: {caller.contact}\r\n")
    invite = called.receive("INVITE ")
    called.answer(invite, 180)
    caller.receive("SIP/2.0 180")
    left = next(c for c in server.mi("tcp:list")["Connections"] if c["Remote"] == called.wire.local)
    check(server.mi("tcp:close", {"ipport": f"tcp:{left['Remote']}"}), "OK")
    called.wire.closed()
    # The answer comes by a new connection.
    called.wire = Wire(("127.0.0.1", server.port))
    called.answer(invite, 603)
    check(caller.receive("SIP/2.0 [2-6]").status, 603)


def test_registered_clients_stay(place):
    server = plain(place, 'modparam("registrar", "tcp_persistent_flag", "STAY")\ntcp_connection_lifetime=1\n')
    idle, called = Wire(("127.0.0.1", server.port)), tcp(server, "bob")
    check(called.register().status, 200)
    idle.closed()
    until("the idle one has ended", lambda: statistic(server, "tcp_closed_idle") >= 1)
    caller = tcp(server)
    caller.request("INVITE", "sip:bob@example.com")
    called.answer(called.receive("INVITE "), 486)
    check(caller.receive("SIP/2.0 [2-6]").status, 486)


def test_a_thousand_idle(place):
    """Memory of connections that do nothing."""
    server = plain(place)
    check(tcp(server).final("OPTIONS", "sip:x@example.com").status, 200)
    resident = lambda: int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text())[1])
    before = resident()
    idle = [Wire(("127.0.0.1", server.port)) for _ in range(1000)]
    until("all are there", lambda: statistic(server, "tcp_connections") >= 1000)
    each = (resident() - before) * 1024 / 1000
    print(f"     {each:.0f} bytes for each idle TCP connection")
    check(each < 16_384, True, f"{each} bytes for each")
    check(StreamPhone(idle[500], "late").final("OPTIONS", "sip:x@example.com").status, 200, "one of them speaks")
    for wire in idle:
        wire.close()


def test_a_limit_of_connections(place):
    server = plain(place, "tcp_max_connections=3\n")
    wires = [Wire(("127.0.0.1", server.port)) for _ in range(3)]
    until("they are there", lambda: statistic(server, "tcp_connections") == 3)
    Wire(("127.0.0.1", server.port)).closed()
    check(StreamPhone(wires[0], "alice").final("OPTIONS", "sip:x@example.com").status, 200)
    check(statistic(server, "tcp_refused"), 1)


def test_baresip(place):
    """baresip registers over TCP and calls one that registered over TLS."""
    from topic_peers import baresip, command
    server = secure(place)
    _, alice, alice_log = baresip(place, server, "alice", "x", "manual", transport="tcp")
    _, _, bob_log = baresip(place, server, "bob", "x", "auto", transport="tls", port=server.ports["TLS"], ca=place.dir / "ca.pem")
    until("both are registered",
          lambda: sum(len(d["AORs"]) for d in server.mi("ul_dump")["Domains"]) == 2)
    command(alice, f"dial sip:bob@127.0.0.1:{server.port};transport=tcp")
    until("bob answers", lambda: "established" in alice_log.read_text(errors="replace").lower())
    command(alice, "hangup")
    until("bob hears of the end", lambda: re.search(r"(?i)session closed|terminated|call.*closed", bob_log.read_text(errors="replace")))
