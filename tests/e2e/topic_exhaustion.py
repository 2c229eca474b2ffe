"""What runs out: descriptors, ports for connections, and the disk that log lines go to. The server goes on, says so once, and recovers."""
import contextlib, os, pathlib, socket, subprocess, threading, time
from harness import DEADLINE, Failed, check, free_port, until

SCRIPT = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
{MORE}
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
route {
    if ($rU == "loud") {
        $var(i) = 0;
        while ($var(i) < 500) {
            xlog("a line that fills the disk, number $var(i): $(ru{s.fill.right,x,500})\\n");
            $var(i) = $var(i) + 1;
        }
    }
    sl_send_reply(200, "OK");
}
"""


def test_no_descriptor_is_left(place):
    server = place.server(SCRIPT, MORE="open_files_limit = 64")
    phone = place.phone(server)
    clients = []
    try:
        for _ in range(100):
            clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE))
        until("it is said", lambda: "cannot accept connections" in server.log_text())
        # Whoever is there already goes on.
        check(phone.request("OPTIONS", "sip:bob@127.0.0.1").status, 200)
        clients[0].sendall(b"OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n"
                           b"Call-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
        check(clients[0].recv(2000).startswith(b"SIP/2.0 200"), True, "a connection that is open")
        lines = server.log_text().count("cannot accept connections")
        begin = time.monotonic()
        check(phone.request("OPTIONS", "sip:bob@127.0.0.1").status, 200)
        check(server.log_text().count("cannot accept connections") - lines <= 1 + (time.monotonic() - begin), True, "lines in a second")
    finally:
        for client in clients:
            client.close()
    def again():
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as client:
            client.settimeout(1)
            client.sendall(b"\r\n\r\n")
            try:
                return client.recv(10) == b"\r\n"
            except TimeoutError:
                return False
    until("connections are accepted again", again)
    found = server.mi("get_statistics", {"statistics": ["tcp:tcp_accept_failed", "tcp:tcp_connections"]})
    check(found["tcp:tcp_accept_failed"] > 0, True, f"counted: {found}")


def test_a_full_disk_for_the_log(place):
    disk = place.dir / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        print("     not root: left out")
        return
    try:
        log = disk / "log"
        server = place.server(SCRIPT, MORE="")
        server.stop()
        server.log = log
        server.start()
        phone = place.phone(server)
        check(phone.request("OPTIONS", "sip:loud@127.0.0.1").status, 200)
        until("the disk is full", lambda: os.statvfs(disk).f_bavail == 0)
        for _ in range(3):
            check(phone.request("OPTIONS", "sip:loud@127.0.0.1").status, 200)
        os.truncate(log, 0)
        check(phone.request("OPTIONS", "sip:bob@127.0.0.1").status, 200)
        def told():
            phone.request("OPTIONS", "sip:bob@127.0.0.1")
            server.mi("xlog_level", {"level": 4})
            phone.request("OPTIONS", "sip:loud@127.0.0.1")
            text = log.read_bytes().replace(b"\0", b"")
            os.truncate(log, 0)
            return b"log lines were lost" in text
        until("what was lost is told", told)
        server.kill()
    finally:
        subprocess.run(["umount", "-l", disk])


CALLS_BY_TCP = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
socket = tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
loadmodule "tm.so"
route {
    if ($rU == "near") {
        sl_send_reply(200, "OK");
        exit;
    }
    $du = "sip:127.0.0.1:{CALLEE};transport=tcp";
    t_relay();
}
"""
RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


def answer_one(callee):
    """Takes a connection, and answers the first request on it with 200."""
    with callee.accept()[0] as connection:
        lines = connection.recv(65535).split(b"\r\n")
        kept = [line for line in lines if line.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")]
        connection.sendall(b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""]))
        connection.recv(100)


def test_no_port_is_left_for_a_connection(place):
    if [name for _, name in socket.if_nameindex()] != ["lo"] or not os.access(RANGE, os.W_OK):
        print("     needs a network namespace of its own and root (unshare -n): left out")
        return
    callee = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = callee.getsockname()[1]
    server = place.server(CALLS_BY_TCP, CALLEE=port)
    phone = place.phone(server)
    before, taken = RANGE.read_text(), []
    try:
        RANGE.write_text("61000 61003")
        with contextlib.suppress(OSError):
            while True:
                taken.append(socket.create_connection(("127.0.0.1", port)))
        check(len(taken), 4, "ports that were free")
        for _ in range(3):
            begin = time.monotonic()
            refused = phone.request("OPTIONS", "sip:far@127.0.0.1")
            check(refused.status in (477, 503), True, f"{refused.status} when there is no port")
            check(time.monotonic() - begin < 2, True, "it is told at once")
        # Everybody else goes on.
        check(phone.request("OPTIONS", "sip:near@127.0.0.1").status, 200)
        check("no port is left for a connection to" in server.log_text(), True, "it is said")
        while taken:
            # Reset, so that no port waits for its time.
            taken[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            taken.pop().close()
        callee.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                callee.accept()[0].close()
        callee.settimeout(DEADLINE)
        threading.Thread(target=answer_one, args=(callee,), daemon=True).start()
        check(phone.request("OPTIONS", "sip:far@127.0.0.1").status, 200, "connections are made again")
    finally:
        RANGE.write_text(before)
        callee.close()
