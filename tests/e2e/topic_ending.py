"""The end of the server, and of single calls: nobody is left without an answer, nothing stays held."""
import re, select, time

from harness import Failed, check, run, until

SCRIPT = """
log_level=3
stderror_enabled=yes
syslog_enabled=no
socket=udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "exec.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "ip", "127.0.0.1")
modparam("httpd", "port", {MI})
modparam("tm", "fr_inv_timeout", 120)
{ROUTES}
"""

CALLS = """
route {
    if (is_method("CANCEL|ACK")) { t_relay(); exit; }
    if ($rU == "waits") { exec("sleep 60", , $var(out)); send_reply(480, "Too late"); exit; }
    $du = "sip:{CALLEE}";
    t_relay();
}
timer_route[tick, 1] { xlog("tick\\n"); }
"""


def invite(phone, user, n, body=""):
    return (f"INVITE sip:{user}@x SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bK{user}{n}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:a@x>;tag={user}{n}\r\nTo: <sip:b@x>\r\nCall-ID: {user}{n}@ending\r\nCSeq: 1 INVITE\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}")


def send(phone, text):
    phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))


def collect(phone, heard, seconds=0.05):
    """Status by call, of what has come; negative ones are acknowledged."""
    while select.select([phone.socket], [], [], seconds)[0]:
        data = phone.socket.recv(65535).decode()
        match = re.match(r"SIP/2.0 (\d+)", data)
        call = re.search(r"(?im)^Call-ID: ([\w-]+)@", data)[1]
        if match and int(match[1]) >= 180:
            heard.setdefault(call, []).append(int(match[1]))
        yield data


def test_everybody_hears_of_the_end(place):
    callee_place = type("Nowhere", (), {"port": 0})
    callee = place.phone(callee_place, "callee")
    server = place.server(SCRIPT.replace("{ROUTES}", CALLS), CALLEE=callee.address)
    server.stop()
    server.log.unlink()
    server.start("--grace", "4")
    callee_place.port = server.port
    caller = place.phone(server, "caller")
    calls, heard, cancelled = 50, {}, set()
    for n in range(calls):
        send(caller, invite(caller, "waits", n))
        send(caller, invite(caller, "rings", n))

    def callee_acts():
        for data in collect(callee, {}, 0.01):
            request = type("Request", (), {"text": data})
            if data.startswith("INVITE "):
                callee.answer(request, 180)
            elif data.startswith("CANCEL "):
                cancelled.add(re.search(r"Call-ID: (\w+)@", data)[1])
                callee.answer(request, 200)
        list(collect(caller, heard, 0.01))
        return len(heard)

    until("all phones ring", lambda: callee_acts() >= calls)
    ticks = server.log_text().count("tick")
    server.process.terminate()
    begun = time.monotonic()
    until("the server ends", lambda: [callee_acts(), server.process.poll() is not None][1], 15)
    took = time.monotonic() - begun
    callee_acts()
    if took > 5.5:
        raise Failed(f"the end took {took:.1f} s, 4 are allowed")
    finals = {call: statuses[-1] for call, statuses in heard.items()}
    check(finals, {f"{user}{n}": 503 for user in ("waits", "rings") for n in range(calls)}, "what callers heard")
    check(len(cancelled), calls, "branches that were cancelled")
    # One turn may have begun before the signal was seen.
    if server.log_text().count("tick") > ticks + 1:
        raise Failed("timer routes went on after SIGTERM")


PROBES = """
loadmodule "db_sqlite.so"
loadmodule "dispatcher.so"
modparam("dispatcher", "db_url", "sqlite:///{DB}")
modparam("dispatcher", "ds_ping_interval", 1)
modparam("dispatcher", "ds_probing_mode", 1)
route { send_reply(480, "Nobody"); }
"""


def test_a_probe_does_not_hold_the_end(place):
    silent = place.phone(type("Nowhere", (), {"port": 0}), "gateway")
    run(place.program, "db", "create", f"sqlite://{place.dir}/probes.db", "dispatcher")
    place.sqlite("probes.db", f"insert into dispatcher (setid, destination, probe_mode) values (1, 'sip:{silent.address}', 2)")
    server = place.server(SCRIPT.replace("{ROUTES}", PROBES), DB=place.dir / "probes.db")
    until("a probe waits", lambda: any(data.startswith("OPTIONS ") for data in collect(silent, {}, 0.01)))
    server.process.terminate()
    until("the server ends", lambda: server.process.poll() is not None, 8)
    if "did not finish" in server.log_text():
        raise Failed("a probe held the end")
    check(place.sqlite("probes.db", "select state from dispatcher"), [{"state": 0}], "state of the gateway")


LOCKS = """
route {
    if (is_method("CANCEL|ACK")) { t_relay(); exit; }
    if ($rU == "dynamic") get_dynamic_lock("key"); else get_static_lock("key");
    if ($hdr(X-Wait) != NULL) { parallel { exec("sleep 30", , $var(a)); exec("sleep 31", , $var(b)); } }
    if ($rU == "dynamic") release_dynamic_lock("key"); else release_static_lock("key");
    send_reply(480, "Done");
}
"""


def test_who_gives_up_gives_back_what_he_held(place):
    server = place.server(SCRIPT.replace("{ROUTES}", LOCKS))
    phone = place.phone(server)
    for kind in ("dynamic", "static"):
        text = invite(phone, kind, 0).replace("Max-Forwards", "X-Wait: 1\r\nMax-Forwards")
        send(phone, text)
        until("the call waits", lambda: server.mi("async_list"))
        time.sleep(0.1)
        send(phone, text.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL"))
        heard = {}
        until("the call has ended", lambda: list(collect(phone, heard)) and 487 in heard.get(f"{kind}0", []))
        begun = time.monotonic()
        reply = phone.request("MESSAGE", f"sip:{kind}@x", call_id=f"{kind}-next")
        check(reply.status, 480, f"{kind}: the next message")
        if time.monotonic() - begun > 5:
            raise Failed(f"{kind}: the lock was held")
