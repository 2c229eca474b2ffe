"""HTTP servers that close kept connections, are away, or are slow under `async(..., N)`; a Redis that says no or stands still."""
import os, signal, socket, threading
from asking import lines, said_once
from databases import full, silent
from harness import check, free_port, until
from stores import Redis
from topic_http import ask
from topic_http import start as start_http

TIMEOUTS = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "rest_client.so"
route { async(rest_get("$hdr(X-Url)", $avp(b), $avp(t), $avp(c)), done, 1); }
route[done] { t_reply(200, "Rc $rc"); }
"""

REFUSALS = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "cachedb_redis.so"
modparam("cachedb_redis", "cachedb_url", "redis:r://{REDIS}/")
modparam("cachedb_redis", "query_timeout", 500)
modparam("cachedb_redis", "connect_timeout", 500)
route {
    cache_fetch("redis:r", "k", $var(v)); $var(fetch) = $rc;
    cache_counter_fetch("redis:r", "k", $var(n)); $var(counter) = $rc;
    cache_store("redis:r", "k2", "v"); $var(store) = $rc;
    cache_remove("redis:r", "k2"); $var(remove) = $rc;
    cache_add("redis:r", "k3", 1, 0, $var(n)); $var(add) = $rc;
    cache_sub("redis:r", "k3", 1, 0, $var(n)); $var(sub) = $rc;
    cache_raw_query("redis:r", "GET k", $avp(r)); $var(raw) = $rc;
    sl_send_reply(200, "$var(fetch) $var(counter) $var(store) $var(remove) $var(add) $var(sub) $var(raw)");
}
"""


class Web:
    """An HTTP server by hand: /drop on a used connection is read and answered by closing."""

    def __init__(self, place):
        self.listener = place.ending.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.at = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.requests, self.connections = [], 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.connection, args=(client,), daemon=True).start()

    def connection(self, client):
        with client:
            for number in range(100):
                request = b""
                while b"\r\n\r\n" not in request:
                    got = client.recv(65535)
                    if not got:
                        return
                    request += got
                self.requests.append(request.decode())
                if b" /never" in request or b" /drop" in request and number > 0:
                    return
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_a_kept_connection_that_was_closed_is_replaced_once(place):
    web = Web(place)
    server = start_http(place)
    for path in ("/ok", "/ok", "/drop", "/ok", "/drop"):
        check(ask(place, server, web.at + path), (1, 200, "ok"), path)
    check(ask(place, server, web.at + "/ok"), (1, 200, "ok"))
    for method in ("POST", "PUT"):
        check(ask(place, server, web.at + "/ok"), (1, 200, "ok"))
        check(ask(place, server, web.at + "/drop", f"X-Method: {method}\r\nX-Repeat: 2\r\n"), (1, 200, "ok"), method)
    # A server that never answers is asked once on a new connection, twice when there was a kept one.
    check(ask(place, server, web.at + "/ok"), (1, 200, "ok"))
    before = len(web.requests)
    check(ask(place, server, web.at + "/never")[0], -10)
    check(len(web.requests) - before, 2)
    before = len(web.requests)
    check(ask(place, server, web.at + "/never")[0], -10)
    check(len(web.requests) - before, 1)


def test_requests_without_a_body_say_so(place):
    web = Web(place)
    server = start_http(place)
    for method in ("POST", "PUT"):
        check(ask(place, server, web.at + "/ok", f"X-Method: {method}\r\n"), (1, 200, "ok"))
        check("\r\ncontent-length: 0\r\n" in web.requests[-1].lower(), True, web.requests[-1])
    check(ask(place, server, web.at + "/ok"), (1, 200, "ok"))
    check("content-length" in web.requests[-1].lower(), False, web.requests[-1])


def test_an_http_outage_is_told_once(place):
    port = free_port()
    server = start_http(place, workers=2)
    for _ in range(5):
        check(ask(place, server, f"http://127.0.0.1:{port}/x?secret")[0], -1)
    said_once(server, f"http://127.0.0.1:{port} gives no answer")
    with socket.create_server(("127.0.0.1", port)) as listener:
        def serve():
            for _ in range(3):
                with listener.accept()[0] as client:
                    client.recv(65535)
                    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(3):
            check(ask(place, server, f"http://127.0.0.1:{port}/x")[0], 1)
        thread.join()
    said_once(server, f"http://127.0.0.1:{port} answers again")
    check(ask(place, server, f"http://127.0.0.1:{port}/x")[0], -1)
    until("the next one is told", lambda: lines(server, f"http://127.0.0.1:{port} gives no answer") == 2)


def test_what_was_late_under_async(place):
    server = place.server(TIMEOUTS)
    phone = place.phone(server)
    for url, expected in ((f"http://127.0.0.1:{full(place)}/", "Rc -2"), (f"http://127.0.0.1:{silent(place)}/", "Rc -3")):
        reply = phone.request("MESSAGE", "sip:bob@example.com", headers=f"X-Url: {url}\r\n")
        check(reply.text.split("\r\n")[0], f"SIP/2.0 200 {expected}", url)


def codes(phone):
    return phone.request("OPTIONS", "sip:example.com").text.split("\r\n")[0].removeprefix("SIP/2.0 200 ")


def test_what_redis_refuses_is_an_error(place):
    redis = Redis(place, "--maxmemory-policy", "noeviction")
    redis.options = ()
    server = place.server(REFUSALS, REDIS=redis.url())
    phone = place.phone(server)
    redis.command("set", "k", "7")
    check(codes(phone), "1 1 1 1 1 1 1", "normal")
    redis.command("acl", "setuser", "default", "-get", "-set", "-del", "-incrby", "-decrby")
    check(codes(phone), "-1 -1 -1 -1 -1 -1 -1", "forbidden")
    redis.command("acl", "setuser", "default", "+@all")
    redis.command("config", "set", "maxmemory", "1")
    check(codes(phone), "1 1 -1 1 -1 -1 1", "memory is full")
    redis.command("config", "set", "maxmemory", "0")
    redis.command("replicaof", "127.0.0.1", "1")
    check(codes(phone), "1 1 -1 -1 -1 -1 1", "a replica")
    check(lines(server, "is unreachable"), 0)


def test_a_redis_that_stands_still_is_told_once(place):
    redis = Redis(place)
    server = place.server(REFUSALS, REDIS=redis.url())
    phone = place.phone(server)
    redis.command("set", "k", "7")
    check(codes(phone), "1 1 1 1 1 1 1")
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            check(codes(phone), "-1 -1 -1 -1 -1 -1 -1")
        said_once(server, f"redis.*127.0.0.1:{redis.port}.* is unreachable")
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    until("it is used again", lambda: codes(phone) == "1 1 1 1 1 1 1")
    said_once(server, "is back")
