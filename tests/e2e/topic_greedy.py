"""Clients that send as fast as they can, or never read what they are sent: others do not notice."""
import select, socket, threading, time
from harness import Failed, check, free_port, until
from streams import WebWire

CONFIG = """
log_level = 2
udp_workers = 2
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
socket = ws:127.0.0.1:{WS}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "proto_ws.so"
loadmodule "sl.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
route { sl_send_reply(200, "OK"); }
"""


def options(n, call):
    return (f"OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.2:5060;branch=z9hG4bK{call}{n}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: {call}{n}@flood\r\nCSeq: {n} OPTIONS\r\n"
            "Content-Length: 0\r\n\r\n").encode()


class Flood:
    """Connections that send requests without a pause; their answers are read or left."""

    def __init__(self, port, connections, reads):
        self.on, self.sent = True, 0
        self.threads = [threading.Thread(target=self.run, args=(port, f"c{n}", reads)) for n in range(connections)]

    def run(self, port, call, reads):
        block = memoryview(b"".join(options(n, call) for n in range(500)))
        with socket.create_connection(("127.0.0.1", port)) as tcp:
            tcp.setblocking(False)
            rest = block
            while self.on:
                readable, writable, _ = select.select([tcp] if reads else [], [tcp], [], 0.1)
                try:
                    if readable and not tcp.recv(1 << 20):
                        return
                    if writable:
                        done = tcp.send(rest)
                        self.sent += done
                        rest = rest[done:] or block
                except BlockingIOError:
                    pass
                except OSError:
                    return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.on = False
        for thread in self.threads:
            thread.join()


def answered(place, server):
    """Phones over UDP, none of which sends anything twice: how many of 60 got their answer, and the slowest of them."""
    slowest, count = 0, 0
    for n in range(60):
        phone = place.phone(server, f"u{n}")
        begin = time.monotonic()
        text = options(n, f"u{n}").replace(b"SIP/2.0/TCP 127.0.0.2:5060", f"SIP/2.0/UDP {phone.address}".encode())
        phone.socket.sendto(text, ("127.0.0.1", server.port))
        phone.socket.settimeout(5)
        try:
            phone.socket.recv(65535)
            count += 1
        except TimeoutError:
            pass
        slowest = max(slowest, time.monotonic() - begin)
    return count, slowest


def test_who_floods_over_tcp_starves_nobody_on_udp(place):
    """Phones on UDP are answered in a time that does not depend on how much waits in connections. What is
    slow about a debug build or a busy machine is measured first, without the flood."""
    server = place.server(CONFIG, WS=free_port())
    for connections, reads in ((1, False), (1, True), (8, True)):
        with Flood(server.port, connections, reads) as flood:
            until("the flood has begun", lambda: flood.sent > 100_000 * connections)
            count, slowest = answered(place, server)
            print(f"     {connections} connections, {flood.sent} bytes: {count} of 60, slowest {slowest * 1000:.0f} ms")
            check(count, 60, "answered phones")
            if slowest > 1:
                raise Failed(f"a phone on UDP waited {slowest:.1f} s")


def connect(port):
    """A client that has room for next to nothing, so that what it does not read stays with the server."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    return client


def resident(server):
    """Memory of the server, bytes."""
    text = open(f"/proc/{server.process.pid}/status").read()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


def unread(server, send):
    """Sends without reading for as long as the connection takes it; how much it took."""
    before, sent, end = resident(server), 0, time.monotonic() + 6
    while time.monotonic() < end and sent < 200_000_000:
        try:
            sent += send()
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break
    grown = resident(server) - before
    print(f"     {sent} bytes of keep-alives: memory grew by {grown}")
    if grown > 4_000_000:
        raise Failed(f"{sent} bytes of keep-alives took {grown} bytes of memory")


def test_answers_to_keep_alives_that_nobody_reads(place):
    port = free_port()
    server = place.server(CONFIG, WS=port)
    block = b"\r\n\r\n" * 20_000
    with socket.create_connection(("127.0.0.1", server.port)) as tcp:
        # What the server takes for clients that do read.
        for _ in range(20):
            tcp.sendall(block)
            left = len(block) // 2
            while left:
                left -= len(tcp.recv(left))
    with connect(server.port) as tcp:
        tcp.setblocking(False)
        unread(server, lambda: tcp.send(block))
    for frames in (bytes([0x89, 0x80, 0, 0, 0, 0]) * 10_000, (bytes([0x81, 0x84, 0, 0, 0, 0]) + b"\r\n\r\n") * 8_000,
                   (bytes([0x89, 0xfd, 0, 0, 0, 0]) + b"x" * 125) * 600):
        with connect(port) as web:
            web.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://h\r\n"
                        b"Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
            check(b" 101 " in web.recv(2000), True, "handshake")
            web.setblocking(False)
            unread(server, lambda: web.send(frames))
    check(place.phone(server).request("OPTIONS", "sip:example.com").status, 200)


def test_keep_alives_of_browsers_are_answered(place):
    """A browser cannot send pings: it sends a double CRLF and is answered with one (RFC 7118 6, RFC 5626 3.5.1)."""
    port = free_port()
    place.server(CONFIG, WS=port)
    web = WebWire(f"ws://127.0.0.1:{port}")
    web.send("\r\n\r\n")
    check(web.message(10), "\r\n")
    web.send(b"\r\n\r\n")
    check(web.message(10), b"\r\n")
    web.send("\r\n")
    web.ping()
    web.send(options(1, "web").decode())
    check(web.message(10).split("\r\n")[0], "SIP/2.0 200 OK")
    web.close()
