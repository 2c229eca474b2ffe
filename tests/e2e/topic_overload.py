"""More than a worker can do: new requests are refused early, everything else goes on, and it is over as soon as it can be."""
import re, socket, time
from asking import said_once
from harness import DEADLINE, check, until

# Each INVITE takes some milliseconds, on any machine.
SCRIPT = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
max_while_loops = 1000000
{MORE}
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "event_route.so"
loadmodule "cachedb_local.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
route {
    if (is_method("ACK")) {
        xlog("an ACK reached the script\\n");
        exit;
    }
    if (is_method("INVITE")) {
        $var(i) = 0;
        while ($var(i) < 20000)
            $var(i) = $var(i) + 1;
        sl_send_reply(486, "Busy");
        exit;
    }
    sl_send_reply(200, "OK");
}
event_route[E_CORE_OVERLOAD] {
    xlog("event: $param(state) of worker $param(worker), refused $param(refused)\\n");
}
"""


def message(method, n, address, proto="UDP", to_tag="", tag="a"):
    return (f"{method} sip:bob@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{proto} {address};branch=z9hG4bKo{n};rport\r\nMax-Forwards: 70\r\n"
            f"From: <sip:a@b>;tag={tag}\r\nTo: <sip:c@d>{to_tag}\r\nCall-ID: o{n}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n").encode()


def replies(phone, count):
    """Final replies by Call-ID, as many as come; (status, text)."""
    found, end = {}, time.monotonic() + DEADLINE
    phone.socket.settimeout(0.5)
    while len(found) < count and time.monotonic() < end:
        try:
            text = phone.socket.recv(65535).decode()
        except TimeoutError:
            continue
        call = re.search(r"Call-ID: (\S+)", text)[1]
        found.setdefault(call, (int(text[8:11]), text))
    return found


def flood(server, phone, count):
    """So many INVITEs at once, and other requests among them."""
    sent = {}
    for n in range(count):
        method, to_tag = {3: ("REGISTER", ""), 5: ("BYE", ";tag=b"), 7: ("OPTIONS", ";tag=b"), 9: ("OPTIONS", "")}.get(n % 20, ("INVITE", ""))
        sent[f"o{n}"] = (method, bool(to_tag))
        phone.socket.sendto(message(method, n, phone.address, to_tag=to_tag), ("127.0.0.1", server.port))
    return sent


def test_new_requests_are_refused_and_the_rest_goes_on(place):
    server = place.server(SCRIPT, MORE="overload_delay = 20\noverload_time = 40")
    phone = place.phone(server)
    phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sent = flood(server, phone, 400)
    found = replies(phone, len(sent))
    check(len(found), len(sent), "everybody is answered")
    seen = {}
    for call, (method, inside) in sent.items():
        seen.setdefault((method, inside), set()).add(found[call][0])
    # REGISTERs that waited three times as long are refused too.
    check(seen[("INVITE", False)], {486, 503}, "INVITEs")
    check(seen[("OPTIONS", True)] | seen[("BYE", True)], {200}, "requests inside a dialog")
    refused = [text for status, text in found.values() if status == 503]
    check(len(refused) > 200, True, f"{len(refused)} were refused")
    pause = {re.search(r"Retry-After: (\d+)\r\n", text)[1] for text in refused}
    check(pause <= {"1", "2", "3", "4"} and len(pause) > 1, True, f"pauses {pause}")
    # The ACK of a refusal ends here.
    for call, (status, text) in list(found.items())[-3:]:
        if status == 503 and sent[call][0] == "INVITE":
            tag = ";tag=" + re.search(r"To: \S+;tag=(\S+)", text)[1]
            phone.socket.sendto(message("ACK", call[1:], phone.address, to_tag=tag), ("127.0.0.1", server.port))
    count = server.mi("get_statistics", {"statistics": ["net:overload_refused", "net:socket_dropped", "net:overloaded"]})
    check(count["net:overload_refused"], len(refused), "counted")
    # It is over at once.
    check(phone.request("OPTIONS", "sip:bob@127.0.0.1").status, 200)
    until("it ends", lambda: server.mi("get_statistics", {"statistics": ["net:overloaded"]})["net:overloaded"] == 0)
    said_once(server, "worker 0 has more to do than it can")
    until("its end is told", lambda: "worker 0 keeps up again" in server.log_text())
    until("an event", lambda: f"event: end of worker 0, refused {len(refused)}" in server.log_text())
    check("event: begin of worker 0" in server.log_text(), True)
    check("an ACK reached the script" in server.log_text(), False)


def test_the_same_over_a_connection(place):
    server = place.server(SCRIPT, MORE="overload_delay = 20\noverload_time = 40")
    with socket.create_connection(("127.0.0.1", server.port)) as tcp:
        address = "%s:%d" % tcp.getsockname()
        tcp.sendall(b"".join(message("INVITE", n, address, "TCP") for n in range(400)))
        tcp.settimeout(DEADLINE)
        got = b""
        while got.count(b"\r\n\r\n") < 400:
            got += tcp.recv(65535)
        check(len(re.findall(rb"SIP/2\.0 503 ", got)) > 100, True, "refused")
        check(len(re.findall(rb"SIP/2\.0 486 ", got)) > 2, True, "served")
        tcp.sendall(message("OPTIONS", 1000, address, "TCP"))
        check(tcp.recv(65535).startswith(b"SIP/2.0 200"), True)


def test_it_can_be_turned_off(place):
    server = place.server(SCRIPT, MORE="overload_delay = 0")
    phone = place.phone(server)
    phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sent = flood(server, phone, 120)
    statuses = [status for status, _ in replies(phone, len(sent)).values()]
    check(503 in statuses, False, f"{len(statuses)} answers")
