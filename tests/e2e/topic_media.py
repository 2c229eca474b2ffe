"""Real RTP through rtpengine (user space): calls, re-INVITEs, forks, an engine that dies, an engine that is silent."""
import contextlib, random, re, socket, struct, threading
from databases import find
from harness import check, free_port, run, until
from topic_calls import SCENARIOS

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "dialog.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "{ENGINES}")
{MORE}
route {
    if (is_method("OPTIONS")) { sl_send_reply(200, "Here"); exit; }
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (has_totag()) {
        loose_route();
        {WITHIN}
        t_relay();
        exit;
    }
    record_route();
    {FIRST}
    t_relay();
}
{ROUTES}
"""

BY_HAND = {
    "MORE": "", "FIRST": 't_on_reply("media"); rtpengine_offer();',
    "WITHIN": 'if (is_method("INVITE")) { t_on_reply("media"); rtpengine_offer(); } '
              'if (is_method("BYE")) rtpengine_delete();',
    "ROUTES": 'onreply_route[media] { if (has_body("application/sdp")) rtpengine_answer(); }',
}
RELAYED = {
    "MORE": 'loadmodule "rtp_relay.so"', "WITHIN": "", "ROUTES": "",
    "FIRST": 'create_dialog(); rtp_relay_engage("rtpengine");',
}


class Engine:
    """rtpengine without a kernel module."""

    def __init__(self, place, low):
        self.port, stream, http = free_port(), free_port(), free_port()
        self.process = place.process(
            find("rtpengine"), "--foreground", "--log-stderr", "--config-file=none", "--table=-1", "--interface=127.0.0.1",
            f"--listen-ng=127.0.0.1:{self.port}", f"--listen-tcp-ng=127.0.0.1:{stream}", f"--listen-http=127.0.0.1:{http}",
            f"--port-min={low}", f"--port-max={low + 200}", "--num-threads=2", "--delete-delay=0",
            stderr=open(place.dir / f"engine{self.port}", "wb"))
        self.url, self.tcp, self.ws = f"udp:127.0.0.1:{self.port}", f"tcp:127.0.0.1:{stream}", f"ws://127.0.0.1:{http}/ng"
        until("rtpengine answers", self.answers)

    def ask(self, command):
        """The answer to a command, or nothing."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            probe.connect(("127.0.0.1", self.port))
            try:
                # The engine answers a cookie that it saw before as it did then.
                probe.send(b"%x " % random.getrandbits(60) + command)
                return probe.recv(65535)
            except OSError:
                return b""

    def answers(self):
        return b"pong" in self.ask(b"d7:command4:pinge")

    def knows(self, call):
        """It has media of the call."""
        return b"6:result2:ok" in self.ask(b"d7:call-id%d:%s7:command5:querye" % (len(call.id), call.id.encode()))

    def kill(self):
        self.process.kill()
        self.process.wait()


class Party:
    """A phone with one stream."""

    def __init__(self, place, server, user, ip):
        self.phone, self.user, self.ip = place.phone(server, user, ip), user, ip
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((ip, 0))
        self.rtp.setblocking(False)
        place.ending.callback(self.rtp.close)
        self.mark, self.heard, self.seq, self.target = random.getrandbits(32), {}, 0, None
        self.contact = f"Contact: <sip:{user}@{self.phone.address}>\r\n"

    def sdp(self):
        port = self.rtp.getsockname()[1]
        return (f"v=0\r\no={self.user} 1 1 IN IP4 {self.ip}\r\ns=-\r\nc=IN IP4 {self.ip}\r\nt=0 0\r\n"
                f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n")

    def take(self, text):
        """Where the other side wants its media, from a message."""
        ip, port = re.search(r"(?m)^c=IN IP4 (\S+)", text)[1], int(re.search(r"(?m)^m=audio (\d+)", text)[1])
        self.target = (ip, port)
        return self.target

    def body(self):
        return f"Content-Type: application/sdp\r\nContent-Length: {len(self.sdp())}\r\n\r\n{self.sdp()}"

    def send(self, text):
        self.phone.socket.sendto(text.encode(), ("127.0.0.1", self.phone.server.port))

    def answer(self, request):
        """200 with a description."""
        keep = [l for l in request.text.split("\r\n\r\n")[0].split("\r\n")
                if re.match(r"(?i)(via|from|call-id|cseq|record-route|to):", l)]
        keep = [l + f";tag={self.user}" if l.lower().startswith("to:") and "tag=" not in l else l for l in keep]
        self.send("SIP/2.0 200 OK\r\n" + "\r\n".join(keep) + f"\r\n{self.contact}{self.body()}")

    def play(self):
        self.seq += 1
        packet = struct.pack("!BBHII", 0x80, 0, self.seq & 0xffff, self.seq * 160, self.mark) + b"\xd5" * 160
        self.rtp.sendto(packet, self.target)

    def listen(self):
        while True:
            try:
                packet, source = self.rtp.recvfrom(2000)
            except BlockingIOError:
                return
            self.heard.setdefault(struct.unpack("!I", packet[8:12])[0], {})[struct.unpack("!H", packet[2:4])[0]] = source


def talk(a, b, packets=20):
    """RTP passes both ways; the ports of the engine that it came from."""
    # What came before does not count.
    a.listen(), b.listen()
    a.heard, b.heard = {}, {}

    def heard():
        a.play(), b.play()
        a.listen(), b.listen()
        return min(len(a.heard.get(b.mark, {})), len(b.heard.get(a.mark, {}))) >= packets
    until("RTP passes both ways", heard)
    return {source[1] for source in {*a.heard[b.mark].values(), *b.heard[a.mark].values()}}


class Call:
    """From `caller` to the parties that answer."""

    def __init__(self, caller, callee):
        self.caller, self.callee, self.cseq = caller, callee, 0
        self.id, self.to_tag, self.routes = f"{random.getrandbits(60):x}@e2e", "", ""
        self.uri = f"sip:{callee.user}@{callee.phone.address}"

    def request(self, method, body="Content-Length: 0\r\n\r\n"):
        if method != "ACK":
            self.cseq += 1
        to = f"<sip:{self.callee.user}@example.com>" + (f";tag={self.to_tag}" if self.to_tag else "")
        self.caller.send(
            f"{method} {self.uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.caller.phone.address};branch=z9hG4bK{random.getrandbits(60):x}\r\n"
            f"Max-Forwards: 70\r\n{self.routes}From: <sip:{self.caller.user}@example.com>;tag=caller\r\nTo: {to}\r\n"
            f"Call-ID: {self.id}\r\nCSeq: {self.cseq} {method}\r\n{self.caller.contact}{body}")

    def answered(self, by=None):
        """The callee gets the INVITE and answers, the caller acknowledges."""
        by = by or self.callee
        offer = by.phone.receive("INVITE ")
        by.take(offer.text)
        by.answer(offer)
        reply = self.caller.phone.receive("SIP/2.0 200")
        self.caller.take(reply.text)
        self.to_tag = re.search(r"(?im)^To:.*;tag=(\S+?)\r", reply.text)[1]
        if not self.routes:
            recorded = re.findall(r"(?im)^Record-Route: (.*?)\r", reply.text)
            self.routes = "".join(f"Route: {r}\r\n" for r in reversed(recorded))
        self.uri = re.search(r"(?im)^Contact: <(.*?)>", reply.text)[1]
        self.request("ACK")
        by.phone.receive("ACK ")
        return offer, reply

    def begin(self, by=None):
        self.request("INVITE", self.caller.body())
        return self.answered(by)

    def end(self):
        self.request("BYE")
        by = self.callee
        by.phone.answer(by.phone.receive("BYE "), 200)
        self.caller.phone.receive("SIP/2.0 200")


def parties(place, server):
    return Party(place, server, "alice", "127.0.0.2"), Party(place, server, "bob", "127.0.0.3")


def test_call_and_reinvite(place):
    engine = Engine(place, 33000)
    server = place.server(CONFIG, ENGINES=engine.url, **BY_HAND)
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    call.begin()
    ports = talk(alice, bob)
    check(all(33000 <= port <= 33200 for port in ports), True, "media comes from the engine")
    call.begin()
    talk(alice, bob)
    call.end()


def test_engine_over_streams(place):
    engine = Engine(place, 34200)
    for url in (engine.tcp, engine.ws):
        server = place.server(CONFIG, ENGINES=url, **BY_HAND)
        alice, bob = parties(place, server)
        for _ in range(2):
            call = Call(alice, bob)
            call.begin()
            talk(alice, bob)
            check(engine.knows(call), True)
            call.end()
            until("the session is over", lambda: not engine.knows(call))
        server.stop()


def test_a_relayed_call_outlives_a_restart(place):
    run(place.program, "db", "create", f"sqlite://{place.dir}/calls.sqlite", "dialog")
    engine = Engine(place, 34500)
    more = (RELAYED["MORE"] + '\nloadmodule "db_sqlite.so"\nmodparam("dialog", "db_mode", 1)\n'
            f'modparam("dialog", "db_url", "sqlite://{place.dir}/calls.sqlite")')
    server = place.server(CONFIG, ENGINES=engine.url, **dict(RELAYED, MORE=more))
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    call.begin()
    before = talk(alice, bob)
    server.stop()
    server.start()
    until("the call is back", lambda: len(server.mi("rtp_relay:list")) == 1)
    # A re-INVITE goes through the same engine, whose session ends with the call.
    call.begin()
    check(talk(alice, bob), before, "ports of the engine")
    call.end()
    until("the session is over", lambda: not engine.knows(call))


class Proxy(threading.Thread):
    """An rtpproxy that says yes to everything, and tells what a test wants."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.socket, self.heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), []
        self.socket.bind(("127.0.0.1", 0))
        place.ending.callback(self.socket.close)
        self.url = "udp:127.0.0.1:%d" % self.socket.getsockname()[1]
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                data, peer = self.socket.recvfrom(65535)
                cookie, *words = data.decode().split()
                if words[0] != "V" and words[0] != "VF":
                    self.heard.append(words)
                answer = {"V": "20040107", "VF": "1"}.get(words[0], "40000 127.0.0.1" if words[0][0] in "UL" else "0")
                self.socket.sendto(f"{cookie} {answer}\n".encode(), peer)


def test_an_rtpproxy_of_a_table_ends_calls(place):
    run(place.program, "db", "create", f"sqlite://{place.dir}/nodes.sqlite", "rtpproxy")
    proxy, listener = Proxy(place), free_port()
    place.sqlite("nodes.sqlite", f"INSERT INTO rtpproxy_sockets (rtpproxy_sock, set_id) VALUES ('nowhere:1', 0), ('{proxy.url}', 0)")
    more = (f'loadmodule "db_sqlite.so"\nloadmodule "rtpproxy.so"\nloadmodule "event_route.so"\n'
            f'modparam("rtpproxy", "db_url", "sqlite://{place.dir}/nodes.sqlite")\n'
            f'modparam("rtpproxy", "rtpp_notify_socket", "tcp:127.0.0.1:{listener}")')
    server = place.server(CONFIG, ENGINES="udp:127.0.0.1:9", MORE=more, WITHIN="",
                          FIRST='create_dialog(); rtpproxy_offer("nd"); t_on_reply("media");',
                          ROUTES='onreply_route[media] { if (has_body("application/sdp")) rtpproxy_answer("nd"); }\n'
                                 'event_route[E_RTPPROXY_DTMF] { xlog("digit $param(digit) of $param(stream)\\n"); }')
    check([n["url"] for n in server.mi("rtpproxy:show")[0]["Nodes"]], ["nowhere:1", proxy.url])
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    _, reply = call.begin()
    check("m=audio 40000 " in reply.text, True, "media goes to the proxy")
    offer = next(words for words in proxy.heard if words[0].startswith("U"))
    told = offer.index(f"tcp:127.0.0.1:{listener}")
    digits = offer[offer.index("&&") + 2]
    with socket.create_connection(("127.0.0.1", listener)) as teller:
        teller.sendall(f"{digits} 5 10 160 1\n".encode())
        until("the digit is heard", lambda: "digit 5 of 1" in server.log_text())
        # Media has stopped: both hear that the call is over.
        teller.sendall(f"{offer[told + 1]}\n".encode())
        for party in (alice, bob):
            party.phone.answer(party.phone.receive("BYE "), 200)


def test_the_shipped_sbc(place):
    run(place.program, "db", "create", f"sqlite://{place.dir}/fermata.sqlite", "dispatcher", "dialog")
    engine = Engine(place, 34800)
    text = (SCENARIOS.parent.parent / "etc/sbc.cfg").read_text()
    for old, new in (("socket = udp:*:5060", "socket = udp:127.0.0.1:{PORT}"), ("/tmp/fermata_fifo", "{FIFO}"),
                     ("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite"), ("udp:127.0.0.1:2223", engine.url),
                     ('"ds_ping_interval", 10', '"ds_ping_interval", 0')):
        assert old in text, old
        text = text.replace(old, new)
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
    server = place.server(text.replace('loadmodule "mi_fifo.so"', 'loadmodule "mi_fifo.so"\n' + more))
    alice, bob = parties(place, server)
    down, stranger = Party(place, server, "down", "127.0.0.4"), Party(place, server, "mallory", "127.0.0.5")
    place.sqlite("fermata.sqlite", f"""INSERT INTO dispatcher (setid, destination) VALUES (1, 'sip:{alice.phone.address}'),
        (2, 'sip:{down.phone.address}'), (2, 'sip:{bob.phone.address}')""")
    check(server.mi("ds_reload"), "OK")
    Call(stranger, bob).request("INVITE", stranger.body())
    stranger.phone.receive("SIP/2.0 403")
    call = Call(alice, bob)
    call.request("INVITE", alice.body())
    # The first server inside is down for maintenance: the call goes on, with media.
    down.phone.answer(down.phone.receive("INVITE "), 503)
    offer, reply = call.answered()
    for told, hidden in ((offer, alice.ip), (reply, bob.ip)):
        head, _, body = told.text.partition("\r\n\r\n")
        seen = [l for l in head.split("\r\n") if hidden + ":" in l and not l.startswith("Via: SIP/2.0/UDP " + alice.phone.address)]
        check((seen, hidden in body), ([], False), "nobody sees the other side")
    check("Record-Route" in offer.text, False)
    ports = talk(alice, bob)
    check(all(34800 <= port <= 35000 for port in ports), True, "media comes from the engine")
    call.end()
    until("the session is over", lambda: not engine.knows(call))
    check(server.mi("ds_list")["PARTITIONS"][0]["SETS"][1]["Destinations"][0]["state"], "Active", "one failure of two")


def test_fork(place):
    engine = Engine(place, 33300)
    # The caller says who else rings.
    first = 'create_dialog(); rtp_relay_engage("rtpengine"); append_branch("$hdr(X-Also)");'
    server = place.server(CONFIG, ENGINES=engine.url, **{**RELAYED, "FIRST": first})
    alice, bob = parties(place, server)
    carol = Party(place, server, "carol", "127.0.0.4")
    alice.contact += f"X-Also: sip:carol@{carol.phone.address}\r\n"
    call = Call(alice, bob)
    call.request("INVITE", alice.body())
    ringing = bob.phone.receive("INVITE ")
    bob.phone.answer(ringing, 180)
    alice.phone.receive("SIP/2.0 180")
    call.answered(by=carol)
    call.callee = carol
    bob.phone.answer(bob.phone.receive("CANCEL "), 200)
    bob.phone.answer(ringing, 487)
    ports = talk(alice, carol)
    check(all(33300 <= port <= 33500 for port in ports), True, "media comes from the engine")
    call.end()


def test_engine_dies_and_the_call_moves(place):
    engines = [Engine(place, 33600), Engine(place, 33900)]
    names = dict(RELAYED, MORE=RELAYED["MORE"] + '\nmodparam("rtpengine", "rtpengine_tout", 1)\nmodparam("rtpengine", "rtpengine_retr", 1)')
    server = place.server(CONFIG, ENGINES=" ".join(engine.url for engine in engines), **names)
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    call.begin()
    ports = talk(alice, bob)
    first = 0 if min(ports) < 33900 else 1
    engines[first].kill()
    moving = place.process("curl", "-s", "-o", place.dir / "moved", "-H", "Content-Type: application/json", "-d",
                           '{"jsonrpc": "2.0", "id": 1, "method": "rtp_relay:update"}', f"http://127.0.0.1:{server.mi_port}/mi")
    for party in (alice, bob):
        again = party.phone.receive("INVITE ")
        party.take(again.text)
        party.answer(again)
        party.phone.receive("ACK ")
    until("the command is answered", lambda: moving.poll() is not None)
    check("Sessions: 1" in (place.dir / "moved").read_text(), True, "one call was moved")
    now = talk(alice, bob)
    low = 33900 if first == 0 else 33600
    check(all(low <= port <= low + 200 for port in now), True, "media comes from the other engine")
    call.end()


def test_silent_engine_holds_nobody_else(place):
    """The engine says nothing until many others were answered by the only worker: time plays no part."""
    engine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    engine.bind(("127.0.0.1", 0))
    place.ending.callback(engine.close)
    names = dict(BY_HAND, MORE='modparam("rtpengine", "rtpengine_tout", 30)')
    server = place.server(CONFIG, ENGINES="udp:127.0.0.1:%d" % engine.getsockname()[1], **names)
    alice, bob = parties(place, server)
    engine.settimeout(20)

    def asked(command):
        while True:
            data, source = engine.recvfrom(65535)
            cookie, _, text = data.partition(b" ")
            if b"7:command4:ping" in text:
                engine.sendto(cookie + b" d6:result4:ponge", source)
            elif command in text:
                return cookie, source
    call = Call(alice, bob)
    call.request("INVITE", alice.body())
    cookie, source = asked(b"5:offer")
    for n in range(100):
        check(place.phone(server, ip=f"127.0.0.{n % 90 + 5}").request("OPTIONS", "sip:example.com").status, 200, "others are answered")
    bob.phone.socket.settimeout(0.05)
    try:
        early = bob.phone.socket.recv(65535)
    except TimeoutError:
        early = b""
    check(early, b"", "the call waits for its engine all the while")
    sdp = bob.sdp()
    engine.sendto(cookie + f" d6:result2:ok3:sdp{len(sdp)}:{sdp}e".encode(), source)
    bob.phone.receive("INVITE ")
