"""Sockets that are bound to all addresses of the machine: who answers, and which address stands in messages."""
import re, socket
from harness import check, free_port
from streams import StreamPhone, WebWire, Wire, certificates, client_context

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:0.0.0.0:{PORT}
socket = tcp:0.0.0.0:{PORT}
socket = udp:[::]:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "path.so"
loadmodule "sipmsgops.so"
route {
    if (is_method("OPTIONS")) {
        append_to_reply("X-Here: $Ri $socket_in(ip) $socket_in\\r\\n");
        if (is_myself("$Ri", {PORT})) append_to_reply("X-Mine: yes\\r\\n");
        send_reply(200, "OK");
        exit;
    }
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    record_route();
    add_path();
    t_relay();
}
"""


def request(method, uri, local, transport="UDP", headers="", tag="", branch="a"):
    return (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bK{method}{branch};rport\r\nMax-Forwards: 70\r\n"
            f"From: <sip:a@example.com>;tag=a\r\nTo: <sip:b@example.com>{tag}\r\nCall-ID: {branch}@w\r\nCSeq: 1 {method}\r\n"
            f"{headers}Content-Length: 0\r\n\r\n").encode()


def name(sock):
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def udp(server, ours, own):
    """A UDP socket that hears only what comes from that address of the server."""
    family = socket.AF_INET6 if ":" in ours else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((own, 0))
    sock.connect((ours, server.port))
    sock.settimeout(5)
    return sock


def receive(sock):
    return sock.recv(65535).decode()


def header(text, label):
    return re.findall(rf"(?im)^{label}:[ \t]*(.*?)\r$", text)


def test_the_address_that_was_asked_answers(place):
    server = place.server(CONFIG)
    for ours, own in [("127.0.0.1", "127.0.0.2"), ("127.0.0.5", "127.0.0.2"), ("::1", "::1")]:
        sock = udp(server, ours, own)
        sock.send(request("OPTIONS", "sip:x", name(sock), branch=ours.replace(":", "x")))
        reply = receive(sock)
        shown = f"[{ours}]" if ":" in ours else ours
        check(header(reply, "X-Here"), [f"{ours} {shown} udp:{shown}:{server.port}"], ours)
        check(header(reply, "X-Mine"), ["yes"], ours)
    with socket.create_connection(("127.0.0.5", server.port), 5) as tcp:
        tcp.sendall(request("OPTIONS", "sip:x", name(tcp), "TCP", branch="t"))
        check(header(receive(tcp), "X-Here"), [f"127.0.0.5 127.0.0.5 tcp:127.0.0.5:{server.port}"])


def test_messages_name_addresses_that_can_be_reached(place):
    server = place.server(CONFIG)
    callee = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    callee.bind(("127.0.0.9", 0))
    callee.settimeout(5)
    uri = f"sip:b@{name(callee)}"
    caller = udp(server, "127.0.0.5", "127.0.0.2")
    caller.send(request("MESSAGE", uri, name(caller)))
    text, came_from = callee.recvfrom(65535)
    text = text.decode()
    check("0.0.0.0" in text, False, text)
    # The route to the callee starts from 127.0.0.1; the caller knows 127.0.0.5.
    check(came_from, ("127.0.0.1", server.port))
    port = "" if server.port == 5060 else f":{server.port}"
    check(header(text, "Via")[0].split(";")[0], f"SIP/2.0/UDP 127.0.0.1{port}")
    for label in ("Record-Route", "Path"):
        hosts = [re.search(r"sip:([^;>]*)", value)[1] for value in header(text, label)]
        check(hosts, [f"127.0.0.1:{server.port}", f"127.0.0.5:{server.port}"], label)
    lines = [l for l in text.split("\r\n") if re.match("(?i)(via|from|to|call-id|cseq|record-route):", l)]
    callee.sendto(("SIP/2.0 200 OK\r\n" + "\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode(), came_from)
    check(receive(caller).split("\r\n")[0], "SIP/2.0 200 OK")
    # Requests of the dialog come back by both of our Routes and go on.
    route = "".join(f"Route: {value}\r\n" for value in header(text, "Record-Route"))
    got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    caller_port = caller.getsockname()[1]
    caller.close()
    got.bind(("127.0.0.2", caller_port))
    got.settimeout(5)
    callee.sendto(request("BYE", f"sip:a@127.0.0.2:{caller_port}", name(callee), headers=route, tag=";tag=b", branch="b"), came_from)
    text = receive(got)
    check((text.split(" ")[0], header(text, "Route"), "0.0.0.0" in text), ("BYE", [], False))


def test_connections_from_here_start_where_they_say(place):
    server = place.server(CONFIG)
    listener = socket.socket()
    listener.bind(("127.0.0.9", free_port()))
    listener.listen(1)
    listener.settimeout(5)
    caller = udp(server, "127.0.0.5", "127.0.0.2")
    caller.send(request("MESSAGE", f"sip:b@{name(listener)};transport=tcp", name(caller), branch="c"))
    link, came_from = listener.accept()
    link.settimeout(5)
    text = receive(link)
    check((came_from[0], "0.0.0.0" in text), ("127.0.0.1", False), text)
    check(header(text, "Via")[0].startswith("SIP/2.0/TCP 127.0.0.1"), True, text)


SECURE = """
socket = tls:0.0.0.0:{TLS}
socket = ws:0.0.0.0:{WS}
socket = wss:0.0.0.0:{WSS}
loadmodule "tls_openssl.so"
loadmodule "tls_mgm.so"
loadmodule "proto_tls.so"
loadmodule "proto_ws.so"
loadmodule "proto_wss.so"
modparam("tls_mgm", "server_domain", "any")
modparam("tls_mgm", "certificate", "[any]{DIR}/any.example.com.pem")
modparam("tls_mgm", "private_key", "[any]{DIR}/any.example.com.key")
modparam("tls_mgm", "ca_list", "[any]{DIR}/ca.pem")
modparam("tls_mgm", "require_cert", "[any]0")
route {"""


def test_tls_and_websockets_name_the_address_that_was_asked(place):
    certificates(place, "any.example.com")
    ports = {proto: free_port() for proto in ("TLS", "WS", "WSS")}
    server = place.server(CONFIG.replace("route {", SECURE, 1), **ports)
    context = client_context(place)
    for proto, wire in [
        ("tls", lambda port: Wire(("127.0.0.5", port), context, "any.example.com")),
        ("ws", lambda port: WebWire(f"ws://127.0.0.5:{port}", host="127.0.0.5")),
        ("wss", lambda port: WebWire(f"wss://127.0.0.5:{port}", context, host="127.0.0.5")),
    ]:
        port = ports[proto.upper()]
        phone = StreamPhone(wire(port), f"p{proto}")
        text = phone.final("OPTIONS", "sip:x").text
        check(header(text, "X-Here"), [f"127.0.0.5 127.0.0.5 {proto}:127.0.0.5:{port}"], proto)
        # What goes on from there names that address on the side of the phone, and one that the callee reaches.
        callee = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        callee.bind(("127.0.0.9", 0))
        callee.settimeout(5)
        phone.request("MESSAGE", f"sip:b@{name(callee)};transport=udp")
        text = receive(callee)
        routes = header(text, "Record-Route")
        check("0.0.0.0" in text, False, text)
        check(f"127.0.0.5:{port}" in routes[1] and f"transport={proto}" in routes[1], True, routes)
        check(f"127.0.0.1:{server.port}" in routes[0], True, routes)
        phone.wire.close()
