"""Names of next hops against a real name server (unbound, or none that answers): what is asked, how often, where
calls go, and that nobody else waits."""
import random, select, socket
from asking import Asking, plays_on
from databases import ROOT, Server, find
from harness import Failed, check, free_port, until


CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = {WORKERS}
socket = udp:127.0.0.1:{PORT}
dns_retr_time = 1
dns_retr_no = 0
{GLOBALS}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("tm", "fr_timeout", 2)
modparam("tm", "fr_inv_timeout", 20)
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    t_on_failure("failed");
    {BODY}
    t_relay();
    if ($rc < 0) {
        append_to_reply("X-Rc: $rc\\r\\n");
        t_reply(480, "Not Sent");
    }
}
failure_route[failed] {
    xlog("failed: $T_reply_code\\n");
}
"""


class Unbound(Server):
    """Answers for names below `example` from its own lines, and logs each question."""
    name = "unbound"

    def __init__(self, place, *lines):
        if not ROOT:
            raise Failed("a name server on port 53 and a resolv.conf of its own need root")
        self.lines = lines
        self.address = f"127.{random.randrange(1, 250)}.{random.randrange(250)}.{random.randrange(1, 250)}"
        super().__init__(place)
        (self.home / "resolv.conf").write_text(f"nameserver {self.address}\n")

    def install(self):
        data = "\n".join(f"local-data: '{line}'" for line in self.lines)
        (self.home / "unbound.conf").write_text(f"""
server:
    interface: {self.address}
    port: 53
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{self.home}"
    pidfile: "{self.home}/pid"
    use-syslog: no
    log-queries: yes
    verbosity: 1
    num-threads: 1
    module-config: "iterator"
    local-zone: "example." static
    local-data: "example. 3600 IN SOA ns.example. root.example. 1 3600 1200 604800 {NEGATIVE}"
    {data}
remote-control:
    control-enable: no
""")

    def command(self):
        return [find("unbound"), "-d", "-c", self.home / "unbound.conf"]

    def answers(self):
        return "start of service" in (self.home / "log").read_text(errors="replace")

    def asked(self, name, kind=""):
        """How often it was asked for this."""
        log = (self.home / "log").read_text(errors="replace")
        return log.count(f" {name}. {kind}")

    def before(self):
        """A command that starts a program with this name server."""
        mount = f'mount --bind {self.home}/resolv.conf "$(readlink -f /etc/resolv.conf)" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh"]


NEGATIVE = 3600


def start(place, names, body="", globals="", workers=1):
    return place.server(CONFIG, BODY=body, GLOBALS=globals, WORKERS=workers, BEFORE=names.before())


def ask(place, server, uri, number=[1]):
    number[0] = number[0] % 250 + 1
    return place.phone(server, ip=f"127.0.0.{number[0] + 2}").request("MESSAGE", uri)


class Callee:
    """A phone that answers requests as they come, with what `reply` says."""

    def __init__(self, place, server, status=200, ip="127.0.0.1"):
        self.phone = place.phone(server, "bob", ip)
        self.port = int(self.phone.address.split(":")[1])
        self.status = status

    def take(self):
        request = self.phone.receive("[A-Z]+ sip")
        self.phone.answer(request, self.status)
        return request


def test_a_name_is_asked_for_once_as_long_as_it_holds(place):
    port = free_port()
    names = Unbound(place, "long.example. 3600 IN A 127.0.0.1", "short.example. 1 IN A 127.0.0.1")
    server = start(place, names, workers=2)
    callee = place.phone(server, "bob", "127.0.0.1")
    port = callee.address.split(":")[1]

    def call(name):
        asking = Asking(lambda n: ask(place, server, f"sip:bob@{name}:{port}").status, [1])
        callee.answer(callee.receive("MESSAGE"), 200)
        return asking.codes()
    for _ in range(10):
        check(call("long.example"), [200])
    check(names.asked("long.example", "A"), 1)
    check(call("LONG.example."), [200])
    check(names.asked("long.example", "A"), 1, "case and a final dot make no difference")
    known = server.mi("dns_cache_list", ["long.example"])["Names"]
    check([(n["Name"], n["Port"], n["Addresses"]) for n in known], [("long.example", int(port), [f"udp:127.0.0.1:{port}"])])
    check(3000 < known[0]["Seconds left"] <= 3600, True, known)
    # One that holds for a second is asked for again, but not for each call.
    calls = 0
    while names.asked("short.example", "A") < 3:
        check(call("short.example"), [200])
        calls += 1
    check(calls > 6, True, f"{calls} calls for 3 questions")
    check(server.mi("dns_cache_flush"), "OK")
    check(server.mi("dns_cache_list")["Names"], [])
    check(call("long.example"), [200])
    check(names.asked("long.example", "A"), 2, "asked for again when forgotten")


def test_what_does_not_exist_is_remembered_too(place):
    names = Unbound(place, "real.example. 3600 IN A 127.0.0.1")
    server = start(place, names)
    for _ in range(5):
        reply = ask(place, server, "sip:bob@missing.example")
        check((reply.status, "Unresolvable" in reply.text), (476, True), reply.text)
    asked = [names.asked("missing.example", kind) for kind in ("NAPTR", "A")]
    check(asked, [1, 1])
    check(names.asked("_sip._udp.missing.example", "SRV"), 1)
    shown = server.mi("dns_cache_list", ["missing.example"])["Names"][0]
    check(shown["Error"], "the name does not exist or has no address")


def test_failover_between_servers_of_a_name(place):
    closed = free_port()
    # Ports of the phones are known before the name server starts.
    server_port = free_port()

    class Bare:
        port = server_port
    first, second = place.phone(Bare, "bob", "127.0.0.1"), place.phone(Bare, "bob", "127.0.0.1")
    ports = [int(p.address.split(":")[1]) for p in (first, second)]
    names = Unbound(
        place,
        *(f"{host}.example. 3600 IN A 127.0.0.1" for host in ("a", "b", "c")),
        f"_sip._udp.dead.example. 3600 IN SRV 10 0 {closed} a.example.",
        f"_sip._udp.dead.example. 3600 IN SRV 20 0 {ports[1]} b.example.",
        f"_sip._udp.busy.example. 3600 IN SRV 10 0 {ports[0]} a.example.",
        f"_sip._udp.busy.example. 3600 IN SRV 20 0 {ports[1]} b.example.",
        "naptr.example. 3600 IN NAPTR 10 10 \"s\" \"SIP+D2T\" \"\" _sip._tcp.busy.example.",
        "naptr.example. 3600 IN NAPTR 20 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.busy.example.",
        # Two addresses of one name.
        "many.example. 3600 IN A 127.0.0.1",
        "many.example. 3600 IN A 127.0.0.9")
    server = place.server(CONFIG, PORT=server_port, BODY="", GLOBALS="", WORKERS=1, BEFORE=names.before())
    alice = place.phone(server, "alice", "127.0.0.5")
    # Nobody at the first server: the call goes to the second.
    invite_to(alice, "sip:bob@dead.example")
    second.answer(second.receive("INVITE sip:bob@dead"), 200, f"Contact: <sip:{second.address}>\r\n")
    alice.receive("SIP/2.0 200")
    # A server that is busy says 503.
    for domain in ("busy.example", "naptr.example"):
        carol = place.phone(server, "carol", "127.0.0.6")
        invite_to(carol, f"sip:bob@{domain}")
        first.answer(first.receive(f"INVITE sip:bob@{domain}"), 503)
        second.answer(second.receive(f"INVITE sip:bob@{domain}"), 200, f"Contact: <sip:{second.address}>\r\n")
        carol.receive("SIP/2.0 200")
    check("failed:" in server.log_text(), False, "no failure route: the call went through")
    # Any other answer is an answer.
    dave = place.phone(server, "dave", "127.0.0.7")
    invite_to(dave, "sip:bob@busy.example")
    first.answer(first.receive("INVITE sip:bob@busy"), 486)
    dave.receive("SIP/2.0 486")
    server.stop()
    server = place.server(CONFIG, PORT=server_port, BODY="", GLOBALS="disable_dns_failover = yes", WORKERS=1,
                          BEFORE=names.before())
    erin = place.phone(server, "erin", "127.0.0.8")
    invite_to(erin, "sip:bob@busy.example")
    first.answer(first.receive("INVITE sip:bob@busy"), 503)
    erin.receive("SIP/2.0 50[03]")


def test_servers_that_failed_are_remembered(place):
    """`disable_dns_blacklist = no`: after one call, no request goes to the dead server, not even an ACK, which has no answer to miss."""
    closed, server_port = free_port(), free_port()

    class Bare:
        port = server_port
    alive = place.phone(Bare, "bob", "127.0.0.1")
    names = Unbound(
        place,
        *(f"{host}.example. 3600 IN A 127.0.0.1" for host in ("a", "b")),
        f"_sip._udp.half.example. 3600 IN SRV 10 0 {closed} a.example.",
        f"_sip._udp.half.example. 3600 IN SRV 20 0 {alive.address.split(':')[1]} b.example.")
    # Two workers: what one learnt holds for the other too.
    server = place.server(CONFIG, PORT=server_port, BODY="", GLOBALS="disable_dns_blacklist = no", WORKERS=2, BEFORE=names.before())
    dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dead.bind(("127.0.0.1", closed))
    dead.setblocking(False)
    check(server.mi("list_blacklists")["Lists"][0]["Rules"], [])
    alice = place.phone(server, "alice", "127.0.0.5")
    invite_to(alice, "sip:bob@half.example")
    alive.answer(alive.receive("INVITE"), 200, f"Contact: <sip:bob@half.example>\r\n")
    answer = alice.receive("SIP/2.0 200")
    rules = server.mi("list_blacklists")["Lists"][0]["Rules"]
    check([(r["IP"], r["Proto"], r["Port"]) for r in rules], [("127.0.0.1", "udp", closed)])
    check(230 <= rules[0]["Expire"] <= 240, True)
    while readable(dead):
        dead.recv(65536)
    ack_to(alice, "sip:bob@half.example", answer)
    alive.receive("ACK")
    for _ in range(10):
        asking = Asking(lambda n: ask(place, server, "sip:bob@half.example").status, [1])
        alive.answer(alive.receive("MESSAGE"), 200)
        check(asking.codes(), [200])
    check(readable(dead), False, "something went to the dead server")


def readable(sock):
    return bool(select.select([sock], [], [], 0)[0])


def ack_to(phone, uri, answer):
    text = (f"ACK {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bKa{phone.call_id[:9]}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{phone.user}@example.com>;tag=1\r\nTo: {answer.header('To')}\r\n"
            f"Call-ID: {phone.call_id}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n")
    phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))


def invite_to(phone, uri):
    text = (f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bK{phone.call_id[:9]}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{phone.user}@example.com>;tag=1\r\nTo: <{uri}>\r\n"
            f"Call-ID: {phone.call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:{phone.address}>\r\nContent-Length: 0\r\n\r\n")
    phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))


def test_parameters(place):
    names = Unbound(place, "real.example. 3600 IN A 127.0.0.9")
    server = start(place, names, body='sl_send_reply(202, "x"); ', globals="dns_try_naptr = no")
    ask(place, server, "sip:bob@real.example")
    until("it was asked", lambda: names.asked("real.example", "A") == 1)
    check((names.asked("real.example", "NAPTR"), names.asked("_sip._udp.real.example", "SRV")), (0, 1))
    check(names.asked("real.example", "AAAA"), 0)


def test_a_silent_name_server_holds_nobody_else_up(place):
    names = Unbound(place, "known.example. 3600 IN A 127.0.0.1", "new.example. 3600 IN A 127.0.0.1")
    server = start(place, names)
    callee = place.phone(server, "bob", "127.0.0.1")
    port = callee.address.split(":")[1]
    asking = Asking(lambda n: ask(place, server, f"sip:bob@known.example:{port}").status, [1])
    callee.answer(callee.receive("MESSAGE"), 200)
    check(asking.codes(), [200])
    names.pause()
    asking = Asking(lambda n: ask(place, server, f"sip:bob@new{n}.example").status, range(5))
    waiting = until("they wait", lambda: [o for o in server.mi("async_list")["Operations"] if "new" in o["For"]])
    check({o["Operation"] for o in waiting}, {"t_relay"})
    plays_on(place, server, asking)
    # What is known goes on.
    known = Asking(lambda n: ask(place, server, f"sip:bob@known.example:{port}").status, [1])
    callee.answer(callee.receive("MESSAGE"), 200)
    check(known.codes(), [200])
    check(asking.codes(), [476] * 5)
    names.go_on()

    def works():
        asking = Asking(lambda n: ask(place, server, f"sip:bob@new.example:{port}").status, [1])
        while asking.run():
            try:
                callee.answer(callee.receive("MESSAGE", 0.05), 200)
            except Failed:
                pass
        return asking.codes() == [200]
    until("names are looked up again", works)
