"""Calls between SIPp's user agents through one worker, while scripts wait."""
import pathlib, re, signal, socket, subprocess, time

from harness import DEADLINE, Failed, check, free_port, until

SCENARIOS = pathlib.Path(__file__).resolve().parent.parent / "sipp"

HEAD = """
log_level=2
stderror_enabled=yes
syslog_enabled=no
udp_workers=1
socket=udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "exec.so"
loadmodule "rest_client.so"
loadmodule "db_sqlite.so"
loadmodule "sqlops.so"
modparam("sqlops", "db_url", "sqlite://{DIR}/routes.sqlite")
modparam("tm", "wt_timer", 1)
"""

ROUTE = """
route {
    if (!mf_process_maxfwd_header(10)) {
        send_reply(483, "Too Many Hops");
        exit;
    }
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
        send_reply(200, "OK");
        exit;
    }
    WAIT
    route(onwards);
}
route[onwards] {
    record_route();
    $ru = "sip:" + $rU + "@127.0.0.1:{UAS}";
    t_relay();
}
"""

# What each INVITE waits for, as a script would write it.
WAITS = {
    "nothing": "",
    "a pause, plain": "usleep(50000);",
    "a pause, async": "async(usleep(50000), onwards);",
    "a query, plain": 'if (!sql_query_one("SELECT gateway FROM routes", "$var(gw)")) { send_reply(500, "No Route"); exit; }',
    "a query, async": 'async(sql_query_one("SELECT gateway FROM routes", "$avp(gw)"), onwards);',
    "a process, plain": 'exec("/bin/echo hello", , $var(out)); if ($var(out) == NULL) { send_reply(500, "No Output"); exit; }',
}


def sipp_calls(place, wait, calls=60, rate=30):
    uas = free_port()
    place.sqlite("routes.sqlite", "CREATE TABLE IF NOT EXISTS routes (gateway TEXT);\nINSERT INTO routes VALUES ('gw1')")
    server = place.server(HEAD + ROUTE.replace("WAIT", wait), UAS=uas)
    place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-i", "127.0.0.1", "-p", uas,
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the called party listens", lambda: listens(uas))
    caller = place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", "bob",
                           "-d", "0", "-r", rate, "-m", calls, "-timeout", "60s", "-trace_err",
                           f"127.0.0.1:{server.port}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if caller.wait(timeout=90) != 0:
        errors = "".join(p.read_text(errors="replace")[:2000] for p in place.dir.glob("*errors.log"))
        raise Failed(f"SIPp ended with {caller.returncode}: {errors}")
    return server


def listens(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        probe.settimeout(0.05)
        try:
            probe.send(b"\0\0\0\0")
            probe.recv(10)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            pass
    return True


def test_calls_pass_while_scripts_wait(place):
    for name, wait in WAITS.items():
        try:
            sipp_calls(place, wait)
        except Failed as error:
            raise Failed(f"{name}: {error}")


def answered_meanwhile(place, setup, statement):
    """An INVITE hangs in `statement`; an OPTIONS of somebody else is answered before it is over."""
    server = place.server(HEAD + setup + ROUTE.replace("WAIT", statement), UAS=free_port())
    caller, other = place.phone(server), place.phone(server, "carol", "127.0.0.4")
    invite(caller)
    check(caller.receive(r"SIP/2.0 1").status, 100, "the INVITE waits")
    for _ in range(5):
        check(other.request("OPTIONS", "sip:example.com").status, 200, "OPTIONS meanwhile")
    return server, caller


def invite(phone, call_id=None):
    call_id, branch = call_id or phone.call_id, "z9hG4bK" + (call_id or phone.call_id)[:12]
    text = (f"INVITE sip:bob@127.0.0.1:{phone.server.port} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{phone.user}@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\n"
            f"Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:{phone.user}@{phone.address}>\r\nContent-Length: 0\r\n\r\n")
    phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))
    return text


def test_a_hanging_process_holds_one_call(place):
    answered_meanwhile(place, "", 'exec("/bin/sleep 30", , $var(out));')


def test_a_silent_web_server_holds_one_call(place):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        answered_meanwhile(place, "", 'rest_get("http://127.0.0.1:%d/", $var(body));' % silent.getsockname()[1])


def test_a_host_that_drops_connections_holds_one_call(place):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port, fill = full.getsockname()[1], []
        try:
            for _ in range(4):                       # the backlog is full: further SYNs are dropped
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", port))
                fill.append(s)
            answered_meanwhile(place, "", 'rest_get("http://127.0.0.1:%d/", $var(body));' % port)
        finally:
            for s in fill:
                s.close()


def test_cancel_ends_a_waiting_call_at_once(place):
    statement = 'exec("echo $$$$ > {DIR}/pid; exec sleep 30", , $var(out)); xlog("went on\\n");'
    server, caller = answered_meanwhile(place, "", statement)
    pid = int(until("the process runs", lambda: (place.dir / "pid").exists() and (place.dir / "pid").read_text().strip()))
    cancel = invite(caller).replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL")
    caller.socket.sendto(cancel.encode(), ("127.0.0.1", server.port))
    seen = {caller.receive(r"SIP/2.0 (200|487)").status, caller.receive(r"SIP/2.0 (200|487)").status}
    check(seen, {200, 487}, "replies to CANCEL and INVITE")
    until("the process is ended", lambda: not pathlib.Path(f"/proc/{pid}").exists())
    if "went on" in server.log_text():
        raise Failed("the script went on after the CANCEL")


def test_the_server_drains(place):
    server = place.server(HEAD + ROUTE.replace("WAIT", "sleep(2); send_reply(480, \"Waited\"); exit;"), UAS=free_port())
    caller, late = place.phone(server), place.phone(server, "late", "127.0.0.4")
    invite(caller)
    caller.receive(r"SIP/2.0 100")
    server.process.send_signal(signal.SIGTERM)
    until("the server is told to end", lambda: "refused" in server.log_text())
    refused = late.request("OPTIONS", "sip:example.com")
    check(refused.status, 503, "a request that comes late")
    if not refused.header("Retry-After"):
        raise Failed("503 without Retry-After")
    check(caller.receive(r"SIP/2.0 [2-6]").status, 480, "the call that was waiting")
    ack = invite(caller).replace("INVITE sip", "ACK sip").replace("1 INVITE", "1 ACK")
    caller.socket.sendto(ack.encode(), ("127.0.0.1", server.port))
    check(server.process.wait(timeout=DEADLINE), 0, "exit code")


def test_an_idle_server_ends_at_once(place):
    server = place.server(HEAD + ROUTE.replace("WAIT", ""), UAS=free_port())
    server.process.terminate()
    check(server.process.wait(timeout=DEADLINE), 0, "exit code")


def test_retransmissions_run_the_script_once(place):
    server = place.server(HEAD + ROUTE.replace("WAIT", 'xlog("ran once\\n"); sleep(1); send_reply(480, "No"); exit;'), UAS=free_port())
    caller = place.phone(server)
    for _ in range(4):
        invite(caller)
        check(caller.receive(r"SIP/2.0 1").status, 100, "each retransmission")
    check(caller.receive(r"SIP/2.0 [2-6]").status, 480, "the end")
    check(len(re.findall("ran once", server.log_text())), 1, "runs of the script")
