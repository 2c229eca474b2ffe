"""Management that others cannot hold up, and what the start refuses."""
import json, os, pathlib, signal, socket, stat, subprocess, time
from asking import said_once, lines
from harness import DEADLINE, Failed, Server, check, free_port, until
from stores import Redis

CONFIG = """
log_level = 2
udp_workers = 2
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
{MORE}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
loadmodule "mi_fifo.so"
loadmodule "mi_datagram.so"
modparam("httpd", "port", {MI})
modparam("mi_fifo", "fifo_name", "{FIFO}")
modparam("mi_fifo", "reply_dir", "{DIR}")
modparam("mi_datagram", "socket_name", "{DATAGRAM}")
route { sl_send_reply(200, "OK"); }
"""


def start(place, more="", **names):
    return place.server(CONFIG, MORE=more, DATAGRAM=names.pop("DATAGRAM", place.dir / f"mi{len(place.servers)}.sock"), **names)


def refused(place, what, config=CONFIG, switches=(), **names):
    """The server does not start, says why with exit code 255."""
    server = Server(place, config, {"MORE": "", "DATAGRAM": place.dir / "other.sock", **names})
    done = subprocess.run([str(place.program), "-f", str(server.config), *map(str, switches)], cwd=place.dir, capture_output=True,
                          text=True, timeout=DEADLINE)
    check(done.returncode, 255, done.stdout + done.stderr)
    if what not in done.stderr:
        raise Failed(f"no {what!r} in {done.stderr}")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_what_is_taken_ends_the_start(place):
    server = start(place)
    fill = {"FIFO": place.dir / "f2", "DATAGRAM": place.dir / "d2"}
    refused(place, f"127.0.0.1:{server.mi_port}: Address already in use", **fill, MI=server.mi_port)
    refused(place, "another server uses it", **{**fill, "FIFO": server.fifo})
    refused(place, "another server uses it", **{**fill, "DATAGRAM": place.dir / "mi0.sock"})
    refused(place, "its folder is missing", **{**fill, "FIFO": place.dir / "missing/fifo"})
    refused(place, "its folder is missing", **{**fill, "DATAGRAM": place.dir / "missing/sock"})
    mine = place.dir / "notes"
    mine.write_text("kept")
    refused(place, "no FIFO: it is left alone", **{**fill, "FIFO": mine})
    refused(place, "no socket: it is left alone", **{**fill, "DATAGRAM": mine})
    check(mine.read_text(), "kept")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        refused(place, "cannot listen on", **{**fill, "DATAGRAM": "udp:127.0.0.1:%d" % taken.getsockname()[1]})
    # The first one goes on.
    check(fifo(place, server, "core:version")["result"]["Server"][:7], "Fermata")
    check(datagram(place, place.dir / "mi0.sock", "core:version")["result"]["Server"][:7], "Fermata")
    for path in (server.fifo, place.dir / "mi0.sock"):
        check(mode(path), 0o660, path)
    server.kill()
    # What a kill leaves behind is taken; what an end leaves is nothing.
    server.start()
    check(fifo(place, server, "core:version")["result"]["Server"][:7], "Fermata")
    server.stop()
    check([path.exists() for path in (server.fifo, place.dir / "mi0.sock")], [False, False])


def test_pid_files(place):
    pid = place.dir / "pid"
    server = start(place)
    server.kill()
    server.start("-P", str(pid))
    check(pid.read_text(), f"{server.process.pid}\n")
    fill = {"FIFO": place.dir / "f2", "DATAGRAM": place.dir / "d2"}
    refused(place, f"process {server.process.pid} runs", switches=("-P", pid), **fill)
    check(pid.read_text(), f"{server.process.pid}\n")
    server.kill()
    # It ran: its file is as good as none.
    server.start("-P", str(pid))
    check(pid.read_text(), f"{server.process.pid}\n")
    server.stop()
    check(pid.exists(), False)
    refused(place, "cannot write the PID file", switches=("-P", place.dir / "missing/pid"), **fill)
    refused(place, "cannot write the PID file", switches=("-P", place.dir), **fill)


def test_files_keep_others_out(place):
    url = f"sqlite://{place.dir}/made.sqlite"
    subprocess.run([place.program, "db", "create", url], check=True, capture_output=True, umask=0)
    check(mode(place.dir / "made.sqlite") & 0o007, 0, "an SQLite file")


def request(method, params=None):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **({"params": params} if params else {})}).encode()


def fifo(place, server, method, params=None):
    name = f"reply{time.monotonic_ns()}"
    os.mkfifo(place.dir / name)
    reader = os.open(place.dir / name, os.O_RDWR | os.O_NONBLOCK)
    try:
        with open(server.fifo, "wb") as out:
            out.write(f":{name}:".encode() + request(method, params))

        def read():
            try:
                return os.read(reader, 1 << 20)
            except BlockingIOError:
                return b""
        return json.loads(until("the FIFO answers", read))
    finally:
        os.close(reader)
        os.unlink(place.dir / name)


def datagram(place, path, method, params=None):
    own = place.dir / f"client{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(str(own))
        client.settimeout(DEADLINE)
        client.sendto(request(method, params), str(path))
        return json.loads(client.recv(1 << 20))


def test_a_command_that_waits_holds_back_no_other(place):
    redis = Redis(place)
    more = f'loadmodule "cachedb_redis.so"\nmodparam("cachedb_redis", "cachedb_url", "redis:r://{redis.url()}/")\n'
    server = start(place, more)
    path = place.dir / "mi0.sock"
    check(server.mi("cache_store", ["redis:r", "k", "v"]), "OK")
    os.kill(redis.process.pid, signal.SIGSTOP)
    waiting = []
    try:
        # Ten on each way, none of which is answered before Redis goes on or gives up.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(str(place.dir / "waiting"))
            for _ in range(10):
                client.sendto(request("cache_fetch", ["redis:r", "k"]), str(path))
                with open(server.fifo, "wb") as out:
                    out.write(b"::" + request("cache_fetch", ["redis:r", "k"]))
                http = socket.create_connection(("127.0.0.1", server.mi_port))
                body = request("cache_fetch", ["redis:r", "k"])
                http.sendall(b"POST /mi HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                waiting.append(http)
            begin = time.monotonic()
            check(server.mi("core:version")["Server"][:7], "Fermata")
            check(datagram(place, path, "core:version")["result"]["Server"][:7], "Fermata")
            check(fifo(place, server, "core:version")["result"]["Server"][:7], "Fermata")
            took = time.monotonic() - begin
            for http in waiting:
                http.setblocking(False)
                try:
                    raise Failed(f"answered already: {http.recv(1000)}")
                except BlockingIOError:
                    pass
            if took > 4:
                raise Failed(f"the others took {took:.1f} s")
            os.kill(redis.process.pid, signal.SIGCONT)
            client.settimeout(DEADLINE)
            check(len([client.recv(100_000) for _ in range(10)]), 10)
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
        for http in waiting:
            http.close()


def test_a_datagram_client_that_never_reads(place):
    server = start(place)
    path = place.dir / "mi0.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(place.dir / "deaf"))
        deaf.setblocking(False)
        for _ in range(200):
            try:
                deaf.sendto(request("get_statistics", [["all"]]), str(path))
            except BlockingIOError:
                time.sleep(0.01)
        for _ in range(3):
            check(datagram(place, path, "core:version")["result"]["Server"][:7], "Fermata")
        until("it is said", lambda: lines(server, "the answer to .*deaf is lost"))
    check(datagram(place, path, "core:version")["result"]["Server"][:7], "Fermata")


def cpu(server):
    """Seconds of processor time."""
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_http_without_descriptors_does_not_spin(place):
    server = start(place, "open_files_limit = 64")
    held = []
    try:
        while not lines(server, "cannot accept connections on port"):
            check(len(held) < 200, True, "it runs out of descriptors")
            held.append(socket.create_connection(("127.0.0.1", server.mi_port)))
            time.sleep(0.01)
        for _ in range(5):
            held.append(socket.create_connection(("127.0.0.1", server.mi_port)))
        before, begin = cpu(server), time.monotonic()
        time.sleep(2)
        share = (cpu(server) - before) / (time.monotonic() - begin)
        if share > 0.3:
            raise Failed(f"it takes {share:.0%} of a processor")
        said_once(server, "cannot accept connections on port")
        check(place.phone(server).request("OPTIONS", "sip:example.com").status, 200)
    finally:
        for connection in held:
            connection.close()
    check(server.mi("core:version")["Server"][:7], "Fermata")
    said_once(server, "are accepted again")


def test_http_connections_have_a_bound_and_an_end(place):
    server = start(place, 'loadmodule "httpd.so"\nmodparam("httpd", "conn_timeout", 1)\nmodparam("httpd", "max_connections", 4)')
    check(server.mi("core:version")["Server"][:7], "Fermata")
    idle = [socket.create_connection(("127.0.0.1", server.mi_port)) for _ in range(4)]
    # One more than there may be, as long as those are not over.
    with socket.create_connection(("127.0.0.1", server.mi_port)) as fifth:
        fifth.settimeout(DEADLINE)
        check(fifth.recv(10), b"")
    said_once(server, "connections on port .* are refused: there are 4")
    idle[1].sendall(b"POST /mi HTTP/1.1\r\nHost: x\r\n")
    idle[2].sendall(b"POST /mi HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
    body = request("core:version")
    idle[3].sendall(b"POST /mi HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    idle[3].settimeout(DEADLINE)
    check(b"200 OK" in idle[3].recv(100_000), True)
    for connection in idle:
        connection.settimeout(DEADLINE)
        while connection.recv(1000):
            pass
        connection.close()
    check(server.mi("core:version")["Server"][:7], "Fermata")
