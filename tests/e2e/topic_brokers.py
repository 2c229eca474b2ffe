"""RabbitMQ (Debian's own): events and messages of scripts reach its queues, its messages raise events; a broker that is
away delays nobody. STUN at the port of SIP."""
import base64, glob, json, os, secrets, socket, struct, urllib.error, urllib.request
from databases import find
from harness import Failed, check, free_port, until

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
loadmodule "event_rabbitmq.so"
loadmodule "rabbitmq_consumer.so"
loadmodule "cachedb_local.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("event_rabbitmq", "server_id", "[A] uri = amqp://127.0.0.1:{AMQP}; retries = 3; heartbeat = 5")
modparam("rabbitmq_consumer", "connection_id", "uri = amqp://127.0.0.1:{AMQP}; queue = in; event = E_IN; ack")
modparam("rabbitmq_consumer", "retry_timeout", 200)
startup_route {
    subscribe_event("E_CALL", "rabbitmq:guest:guest@127.0.0.1:{AMQP}/persistent?events");
}
route {
    if ($hdr(X-Read) != NULL) {
        cache_fetch("local", $hdr(X-Read), $avp(got));
        append_to_reply("X-Got: $avp(got)\\r\\n");
        send_reply(200, "OK");
        exit;
    }
    $avp(name) = "from"; $avp(name) = "to"; $avp(value) = $fU; $avp(value) = $rU;
    rabbitmq_publish("A", "calls", "call of $fU", "text/plain", $avp(name), $avp(value));
    append_to_reply("X-Rc: $rc\\r\\n");
    raise_event("E_CALL", $avp(name), $avp(value));
    send_reply(200, "OK");
}
event_route[E_IN] {
    cache_store("local", "$param(body)", "seen");
}
"""


class Rabbit:
    """A broker of its own, with its management over HTTP."""

    def __init__(self, place):
        home = place.dir / "rabbit"
        home.mkdir()
        self.port, self.http, distribution, names = free_port(), free_port(), free_port(), free_port()
        program = sorted(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
        if not program:
            raise Failed("rabbitmq-server is missing")
        (home / "plugins").write_text("[rabbitmq_management].\n")
        (home / "rabbit.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nmanagement.tcp.port = {self.http}\nmanagement.tcp.ip = 127.0.0.1\n"
            "loopback_users = none\n")
        environment = {
            **os.environ, "HOME": str(home), "RABBITMQ_NODENAME": "fermata@localhost", "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"), "RABBITMQ_CONFIG_FILE": str(home / "rabbit.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"), "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"), "RABBITMQ_SERVER_START_ARGS": "-start_epmd false"}
        with open(home / "out", "wb") as log:
            place.process(find("epmd"), env=environment, stdout=log, stderr=log)
            self.process = place.process(program[-1], env=environment, stdout=log, stderr=log)
        self.home = home
        until("the broker answers", self.answers, 60)

    def answers(self):
        if self.process.poll() is not None:
            raise Failed("the broker ended: " + (self.home / "out").read_text(errors="replace")[-2000:])
        try:
            return self.ask("GET", "overview")
        except (OSError, urllib.error.URLError):
            return None

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        login = base64.b64encode(b"guest:guest").decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/api/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            text = reply.read()
            return json.loads(text) if text else True

    def declare(self, queue):
        self.ask("PUT", f"queues/%2F/{queue}", {"durable": True})

    def publish(self, queue, text):
        message = {"properties": {}, "routing_key": queue, "payload": text, "payload_encoding": "string"}
        check(self.ask("POST", "exchanges/%2F/amq.default/publish", message), {"routed": True})

    def take(self, queue):
        """The next message of a queue, once there is one."""
        wanted = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
        return until(f"a message in {queue}", lambda: self.ask("POST", f"queues/%2F/{queue}/get", wanted))[0]


def test_messages_go_both_ways(place):
    rabbit = Rabbit(place)
    for queue in ("calls", "events", "in"):
        rabbit.declare(queue)
    server = place.server(CONFIG, AMQP=rabbit.port)
    alice = place.phone(server)
    check(alice.request("OPTIONS", "sip:bob@example.com").header("X-Rc"), "1")
    got = rabbit.take("calls")
    check((got["payload"], got["properties"]["content_type"], got["properties"]["delivery_mode"]), ("call of alice", "text/plain", 2))
    check(got["properties"]["headers"], {"from": "alice", "to": "bob"})
    got = rabbit.take("events")
    wanted = {"jsonrpc": "2.0", "method": "E_CALL", "params": {"from": "alice", "to": "bob"}}
    check((json.loads(got["payload"]), got["properties"]["delivery_mode"]), (wanted, 2))
    for text in ("first", "second"):
        rabbit.publish("in", text)
    for text in ("first", "second"):
        until(f"{text} raised an event", lambda: alice.request("OPTIONS", "sip:x", headers=f"X-Read: {text}\r\n").header("X-Got") == "seen")
    # Acknowledged: nothing is left for anybody else.
    until("the queue is empty", lambda: rabbit.ask("GET", "queues/%2F/in").get("messages") == 0)


def test_a_broker_that_is_away_delays_nobody(place):
    # It takes connections and says nothing.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        server = place.server(CONFIG, AMQP=silent.getsockname()[1])
        alice = place.phone(server)
        for _ in range(20):
            check(alice.request("OPTIONS", "sip:bob@example.com").header("X-Rc"), "1")
        until("losses are counted", lambda: server.mi("get_statistics", [["event_rabbitmq:events_lost"]])["event_rabbitmq:events_lost"] >= 1)
        check("is lost" in server.log_text(), True)


STUN = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "sipmsgops.so"
loadmodule "stun.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("stun", "primary_ip", "127.0.0.1 / 192.0.2.1")
modparam("stun", "primary_port", "{PORT}")
modparam("stun", "alternate_ip", "127.0.0.7")
modparam("stun", "alternate_port", "{OTHER}")
route { sl_send_reply(200, "OK"); }
"""


def stun(client, place, change=0):
    """Asks, and returns where the answer came from and its attributes."""
    number = secrets.token_bytes(12)
    attributes = struct.pack("!HHI", 3, 4, change) if change else b""
    client.sendto(struct.pack("!HHI", 1, len(attributes), 0x2112a442) + number + attributes, place)
    client.settimeout(20)
    answer, source = client.recvfrom(2048)
    check((answer[:2], answer[8:20]), (b"\1\1", number))
    found, at = {}, 20
    while at < len(answer):
        kind, length = struct.unpack("!HH", answer[at:at + 4])
        port, ip = struct.unpack("!xxH4s", answer[at + 4:at + 4 + length])
        found[kind] = (socket.inet_ntoa(ip), port)
        at += 4 + length
    return source, found


def test_stun_shares_the_port_of_sip(place):
    other = free_port()
    server = place.server(STUN, OTHER=other)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.9", 0))
        until("the other sockets are open", lambda: asked(client, ("127.0.0.7", other)))
        for change, source, told in ((0, ("127.0.0.1", server.port), ("192.0.2.1", server.port)), (2, ("127.0.0.1", other), ("192.0.2.1", other)),
                                     (4, ("127.0.0.7", server.port), ("127.0.0.7", server.port)), (6, ("127.0.0.7", other), ("127.0.0.7", other))):
            found, attributes = stun(client, ("127.0.0.1", server.port), change)
            check((found, attributes[4], attributes[1]), (source, told, client.getsockname()))
            check(attributes[5], ("127.0.0.7", other))
        # From a socket beside those of SIP back to one of SIP.
        check(stun(client, ("127.0.0.7", other), 6)[0], ("127.0.0.1", server.port))
    check(place.phone(server).request("OPTIONS", "sip:x").status, 200)
    check(server.mi("get_statistics", [["stun:answered_requests"]])["stun:answered_requests"] >= 6, True)


def asked(client, place):
    """An answer is there at once, or none."""
    client.sendto(struct.pack("!HHI", 1, 0, 0x2112a442) + bytes(12), place)
    client.settimeout(0.05)
    try:
        return client.recvfrom(2048)
    except (TimeoutError, ConnectionRefusedError):
        return None
