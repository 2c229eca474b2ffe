"""Damaged and recombined messages through the shipped scripts, and through one that edits whatever can be edited, over UDP, TCP
and WebSocket: the server goes on without a defect, its memory stays, and whatever leaves it is one message for a reader that
knows nothing of it (the rules of RFC 3261 §18.3, checked here).

`MANGLED_SECONDS=600 SEED=7 tests/e2e/run PROGRAM mangled` runs that long for each script, with other messages."""
import base64, json, os, pathlib, random, re, select, socket, struct, time
from harness import DEADLINE, Failed, check, free_port, run, until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SECONDS = float(os.environ.get("MANGLED_SECONDS", 4))
SEED = int(os.environ.get("SEED", 1))
# Sends what comes on to where the header X-Out says, with edits that X-Edit chooses.
EDITS = r"""
log_level = -3
xlog_level = -3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:*:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "textops.so"
loadmodule "nathelper.so"
loadmodule "path.so"
loadmodule "topology_hiding.so"
loadmodule "dialog.so"
loadmodule "uac.so"
loadmodule "mi_fifo.so"
modparam("mi_fifo", "fifo_name", "/tmp/fermata_fifo")
modparam("tm", "fr_timeout", 2)
modparam("tm", "fr_inv_timeout", 3)
modparam("tm", "wt_timer", 1)
modparam("dialog", "default_timeout", 5)
route {
    force_rport();
    # Damaged routes lead back here, and each failure route would try again.
    if ($hdr(X-Seen) != NULL || !mf_process_maxfwd_header(10)) { sl_send_reply(482, "Loop"); exit; }
    append_hf("X-Seen: 1\r\n");
    if ($(hdr(X-Edit)) =~ "h") { append_hf("X-A: $ru $hdr(Subject) $ua\r\n"); remove_hf("Subject"); insert_hf("X-B: $fn $hdr(X-Any)\r\n"); remove_hf_re("^X-Any"); }
    if ($(hdr(X-Edit)) =~ "b") { add_body_part("$hdr(Subject)", "text/plain"); remove_body_part("application/isup"); }
    if ($(hdr(X-Edit)) =~ "s") { codec_delete("PCMU"); codec_move_up("PCMA"); stream_delete("video"); fix_nated_sdp("add-dir-active,rewrite-media-ip", "10.9.9.9"); }
    if ($(hdr(X-Edit)) =~ "r") { replace_body_all("1", "2"); subst("/Supported: (.*)/X-S: \1/"); replace("Allow", "Disallow"); replace_all("a=", "a=x"); subst_body("/m=/M=/"); }
    if ($(hdr(X-Edit)) =~ "u") { $rU = $hdr(Subject); ruri_add_param("x=$fU"); }
    if ($(hdr(X-Edit)) =~ "p") add_path("x");
    if ($(hdr(X-Edit)) =~ "c") { fix_nated_contact(); strip_body(); }
    if ($(hdr(X-Edit)) =~ "l") sip_to_json($var(j));
    if (loose_route()) { t_relay(); exit; }
    if (is_method("CANCEL")) { t_check_trans(); t_relay(); exit; }
    if (is_method("INVITE|SUBSCRIBE")) record_route(";x=y");
    if ($(hdr(X-Edit)) =~ "t" && is_method("INVITE")) topology_hiding("UC");
    if ($(hdr(X-Edit)) =~ "f" && is_method("INVITE")) uac_replace_from("$hdr(Subject)", "sip:x@$fd");
    $du = $hdr(X-Out);
    t_on_branch("b"); t_on_reply("r"); t_on_failure("f");
    if ($(hdr(X-Edit)) =~ "n") forward(); else if (!t_relay()) sl_reply_error();
}
branch_route[b] { append_hf("X-C: $T_branch_idx $ru $hdr(Call-ID)\r\n"); }
onreply_route { $var(x) = $rs + $rr + $hdr(Contact); append_hf("X-R: $rs $hdr(Subject)\r\n"); remove_hf("Server"); }
onreply_route[r] { fix_nated_contact(); replace_body_all("a", "b"); }
failure_route[f] { append_hf("X-F: $T_reply_code\r\n"); $du = $hdr(X-Out); t_relay(); }
"""
# What X-Edit may ask for.
LETTERS = "hbsrupcltfn"
PIECES = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\0", b"\xff\xfe", b":", b";", b",", b"<", b">", b'"', b"@", b"sip:", b"tel:", b"%", b" \t", b"=",
          b"\r\n ", b"Content-Length: 0\r\n", b"Content-Length: 99999\r\n", b"l: 5\r\n", b"Content-Length:\r\n 7\r\n", b"SIP/2.0 200 OK\r\n", b"INVITE sip:x SIP/2.0\r\n",
          b"Via: SIP/2.0/UDP x;branch=z9hG4bK0.0.0.0\r\n", b"Route: <sip:127.0.0.1;lr>\r\n", b"Max-Forwards: 0\r\n", b"CSeq: 4294967296 INVITE\r\n",
          b"Content-Type: multipart/mixed;boundary=x\r\n", b"--x\r\n", b"--x--", b"m=audio 1 RTP/AVP 0\r\n", b"c=IN IP4 0.0.0.0\r\n"]


def corpus():
    """Messages of the golden cases and of RFC 4475."""
    texts = []
    for line in (ROOT / "tests/golden/messages.jsonl").read_text().splitlines():
        case = json.loads(line)
        texts += [case.get("request")] + [step.get("send") for step in case.get("steps", [])]
    texts = [t.replace("\r\n", "\n").replace("\n", "\r\n").encode() for t in texts if isinstance(t, str) and len(t) > 40]
    return texts + [path.read_bytes() for path in sorted((ROOT / "crates/sip/tests/rfc4475").glob("*.dat"))]


def mangle(rng, message, other):
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 5))):
        at = rng.randrange(len(message) + 1)
        end = min(len(message), at + rng.randrange(20))
        kind = rng.randrange(7)
        if kind == 0:
            message = message[:at] + message[end:]
        elif kind == 1 and rng.randrange(4) == 0:
            message = message[:max(at, 1)]
        elif kind == 2:
            message = message[:at] + rng.choice(PIECES) + message[at:]
        elif kind == 3:
            message = message[:at] + bytes([rng.randrange(256)]) + message[at + 1:]
        elif kind == 4:
            message = message[:at] + message[at:end] + message[at:]
        elif kind == 5:
            start = rng.randrange(len(other))
            message = message[:at] + other[start:start + rng.randrange(200)] + message[end:]
        else:
            # At the beginning of a line, where it means most.
            lines = message.split(b"\r\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(PIECES).strip(b"\r\n"))
            message = b"\r\n".join(lines)
    return message


def whole(data, why):
    """Exactly one message, for whoever cuts a stream by RFC 3261; the rest of `data` after it."""
    def wrong(what):
        raise Failed(f"{why}: {what}: {data[:3000]!r}")
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        wrong("no empty line")
    lines = head.split(b"\r\n")
    # A tab before the version is passed on as it came, as the reference does.
    if not re.match(rb"SIP/\d+\.\d+ [1-6]\d\d( |$)|[!%&'*+\-.0-9A-Z_`a-z|~]+ \S[^\r\n]*[ \t]\S+/\d+\.\d+$", lines[0]):
        wrong("no start line")
    for line in lines:
        if b"\r" in line or b"\n" in line or not line.strip(b" \t"):
            wrong(f"the line {line!r}")
    unfolded = re.sub(rb"\r\n[ \t]+", b" ", head).replace(b"\r\n", b"\n")
    lengths = re.findall(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*$", unfolded)
    if len(lengths) > 1 or lengths and not lengths[0].isdigit():
        wrong(f"the lengths {lengths}")
    return rest, int(lengths[0]) if lengths else None


def one(data, why):
    """A datagram, or one message of a WebSocket."""
    rest, length = whole(data, why)
    if length is not None and length != len(rest):
        raise Failed(f"{why}: Content-Length {length} before {len(rest)} bytes: {data[:3000]!r}")


class Place:
    """The ends: sockets that call and are called, by each transport."""

    def __init__(self, server, ports, rng, texts):
        self.server, self.ports, self.rng, self.texts = server, ports, rng, texts
        self.udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for s in self.udp:
            s.bind(("127.0.0.1", 0))
            s.setblocking(False)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.streams, self.web = {}, None
        self.sent = self.left = 0
        self.kinds = {}

    def uri(self, way):
        if way == "ws" and self.web:
            return "sip:%s:%d;transport=ws" % self.web.getsockname()
        if way == "tcp":
            return "sip:127.0.0.1:%d;transport=tcp" % self.listener.getsockname()[1]
        return "sip:127.0.0.1:%d" % self.udp[1].getsockname()[1]

    def tcp(self):
        open_ones = [s for s, state in self.streams.items() if state["calls"]]
        if open_ones:
            return open_ones[0]
        s = socket.create_connection(("127.0.0.1", self.server.port))
        s.setblocking(False)
        self.streams[s] = {"in": b"", "calls": True, "who": "a connection"}
        return s

    def websocket(self):
        if self.web is None:
            self.web = socket.create_connection(("127.0.0.1", self.ports["WS"]))
            self.web.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://h\r\n"
                             b"Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                             + base64.b64encode(bytes(16)) + b"\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer:
                more = self.web.recv(1)
                if not more:
                    raise Failed("no handshake")
                answer += more
            check(b" 101 " in answer, True, "handshake")
            self.web.setblocking(False)
            self.web_in = b""
        return self.web

    def message(self, way):
        rng = self.rng
        text, other = rng.choice(self.texts), rng.choice(self.texts)
        via = {"udp": self.udp[0], "tcp": self.udp[0], "ws": self.udp[0]}[way].getsockname()
        for name, value in ((b"{SRV}", b"127.0.0.1:%d" % self.server.port), (b"{UAS}", b"127.0.0.1:%d" % self.udp[1].getsockname()[1]),
                            (b"{UAC}", b"127.0.0.1:%d" % via[1]), (b"{BRANCH}", b"z9hG4bK%x" % rng.getrandbits(40)),
                            (b"{CALLID}", b"%x" % rng.getrandbits(40))):
            text, other = text.replace(name, value), other.replace(name, value)
        if way != "udp":
            text = text.replace(b"SIP/2.0/UDP", b"SIP/2.0/" + way.upper().encode(), 1)
        edits = "".join(rng.sample(LETTERS, rng.randrange(5)))
        first, found, rest = text.partition(b"\r\n")
        text = first + found + f"X-Out: {self.uri(rng.choice(('udp', 'tcp', 'ws')))}\r\nX-Edit: {edits}\r\n".encode() + rest
        return mangle(rng, text, other)

    def send(self):
        way = self.rng.choice(("udp", "udp", "tcp", "ws"))
        message = self.message(way)
        self.sent += 1
        try:
            if way == "udp":
                self.udp[0].sendto(message[:60000], ("127.0.0.1", self.server.port))
            elif way == "tcp":
                s = self.tcp()
                # Mostly with a true length, so that more than the first comes through.
                if self.rng.randrange(4):
                    head, found, body = message.partition(b"\r\n\r\n")
                    head = re.sub(rb"(?im)^(content-length|l)[ \t]*:[^\r\n]*(\r\n[ \t][^\r\n]*)*\r?\n?", b"", head).rstrip(b"\r\n")
                    message = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                s.send(message)
            else:
                mask = bytes(self.rng.randrange(256) for _ in range(4))
                size = struct.pack("!BH", 0x80 | 126, len(message[:60000]))
                self.websocket().send(b"\x81" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(message[:60000])))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.drop(way)

    def drop(self, way):
        if way == "tcp":
            for s in [s for s, state in self.streams.items() if state["calls"]]:
                self.streams.pop(s).clear()
                s.close()
        elif way == "ws" and self.web:
            self.web.close()
            self.web = None

    def receive(self):
        sockets = [*self.udp, self.listener, *self.streams, *([self.web] if self.web else [])]
        for s in select.select(sockets, [], [], 0)[0]:
            try:
                if s in self.udp:
                    for _ in range(100):
                        data, peer = s.recvfrom(65535)
                        if data.strip(b"\r\n\0"):
                            self.seen("udp", data)
                            self.answer(data, lambda reply: s.sendto(reply, peer))
                elif s is self.listener:
                    accepted, _ = s.accept()
                    accepted.setblocking(False)
                    self.streams[accepted] = {"in": b"", "calls": False, "who": "a connection to a callee"}
                elif s is self.web:
                    self.frames()
                else:
                    self.stream(s)
            except BlockingIOError:
                pass
            except ConnectionError:
                self.close(s)

    def close(self, s):
        if s is self.web:
            self.web = None
        self.streams.pop(s, None)
        s.close()

    def stream(self, s):
        state = self.streams[s]
        data = s.recv(65535)
        if not data:
            return self.close(s)
        state["in"] += data
        while True:
            state["in"] = re.sub(rb"^(\r\n)+", b"", state["in"])
            if b"\r\n\r\n" not in state["in"]:
                return
            rest, length = whole(state["in"], state["who"])
            if length is None:
                raise Failed(f"a message without Content-Length on a stream: {state['in'][:2000]!r}")
            if len(rest) < length:
                return
            message, state["in"] = state["in"][:len(state["in"]) - len(rest) + length], rest[length:]
            self.seen("tcp", message)
            self.answer(message, s.send)

    def frames(self):
        data = self.web.recv(65535)
        if not data:
            return self.close(self.web)
        self.web_in += data
        while len(self.web_in) >= 2:
            size, at = self.web_in[1] & 127, 2
            if size == 126:
                if len(self.web_in) < 4:
                    return
                size, at = struct.unpack("!H", self.web_in[2:4])[0], 4
            elif size == 127:
                raise Failed("a frame of more than 64 KiB")
            if len(self.web_in) < at + size:
                return
            kind, frame, self.web_in = self.web_in[0] & 15, self.web_in[at:at + size], self.web_in[at + size:]
            if kind in (1, 2) and frame.strip(b"\r\n"):
                self.seen("ws", frame)

    def seen(self, way, data):
        self.left += 1
        one(data, f"what left over {way}")
        method = data.split(b" ", 1)[0].decode(errors="replace")[:12]
        self.kinds[way] = self.kinds.get(way, 0) + 1
        self.kinds[method] = self.kinds.get(method, 0) + 1

    def answer(self, data, send):
        if data.startswith(b"SIP/") or data.startswith(b"ACK ") or self.rng.randrange(3) == 0:
            return
        keep = [line for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")
                if re.match(rb"(?i)(via|v|from|f|to|t|call-id|i|cseq|record-route)[ \t]*:", line)]
        code = self.rng.choice((b"100 x", b"180 x", b"183 x", b"200 OK", b"302 Moved", b"404 x", b"486 Busy", b"503 x", b"699 x"))
        body = b"" if self.rng.randrange(3) else b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 1.1.1.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0 8\r\n"
        reply = b"\r\n".join([b"SIP/2.0 " + code, *keep, b"Contact: <sip:x@10.1.1.1>", b"Subject: a", b"Server: s",
                              b"Content-Type: application/sdp", b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
        if self.rng.randrange(2):
            reply = mangle(self.rng, reply, self.rng.choice(self.texts))
        send(reply[:60000])


def resident(server):
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def mangled(place, name, text, seed):
    rng = random.Random(seed)
    db = place.dir / "fermata.sqlite"
    if not db.exists():
        run(place.program, "db", "create", f"sqlite://{db}")
        place.sqlite("fermata.sqlite", "insert into subscriber (username, domain, password) values ('alice', 'example.com', 'wonder')")
    ports = {"WS": free_port()}
    # What is refused for overload is not read.
    more = ('overload_delay = 0\nsocket = tcp:127.0.0.1:{PORT}\nsocket = ws:127.0.0.1:{WS}\nloadmodule "proto_tcp.so"\nloadmodule "proto_ws.so"\n'
            'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n')
    for old, new in (("socket = udp:*:5060\n", "socket = udp:127.0.0.1:{PORT}\n" + more), ("/tmp/fermata_fifo", "{FIFO}"),
                     ("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite"), ("log_level = 3", "log_level = 0")):
        text = text.replace(old, new)
    server = place.server(text, **ports)
    ends = Place(server, ports, rng, corpus())
    begin, warm = time.monotonic(), None
    while time.monotonic() < begin + SECONDS:
        for _ in range(20):
            ends.send()
        ends.receive()
        if server.process.poll() is not None:
            raise Failed(f"the server ended with {server.process.returncode}: {server.log_text()[-3000:]}")
        if warm is None and time.monotonic() > begin + SECONDS / 2:
            warm = resident(server)
    quiet = time.monotonic() + 1
    while time.monotonic() < quiet:
        ends.receive()
        time.sleep(0.01)
    found = server.mi("get_statistics", {"statistics": ["core:defects", "core:rcv_requests", "core:bad_msg_hdr"]})
    print(f"     {name}: seed {seed}, {ends.sent} messages in {SECONDS:.0f} s, {ends.left} left {ends.kinds}, "
          f"{found['core:rcv_requests']} requests, {found['core:bad_msg_hdr']} bad, {resident(server):.0f} MB (half way {warm:.0f} MB)")
    check(found["core:defects"], 0, f"defects in {name}: {server.log_text()[-3000:]}")
    if "panicked" in server.log_text():
        raise Failed(server.log_text()[-3000:])
    server.kill()
    return ends


def test_what_is_edited_and_sent_on(place):
    ends = mangled(place, "edits", EDITS, SEED)
    check(all(ends.kinds.get(way, 0) > 10 for way in ("udp", "tcp", "ws")), True, f"every transport is reached: {ends.kinds}")


def test_the_shipped_scripts(place):
    for n, name in enumerate(("residential", "pbx", "trunk", "balancer")):
        ends = mangled(place, name, (ROOT / f"etc/{name}.cfg").read_text(), SEED + n)
        check(ends.left > 50, True, f"it answers: {ends.left}")


def test_management(place):
    """Damaged and recombined commands of management over UDP and HTTP: each gets one answer that is JSON, or none."""
    rng = random.Random(SEED)
    config = EDITS.replace("socket = udp:*:5060\n", 'socket = udp:127.0.0.1:{PORT}\nloadmodule "httpd.so"\nloadmodule "mi_http.so"\n'
                           'modparam("httpd", "port", {MI})\nloadmodule "mi_datagram.so"\nmodparam("mi_datagram", "socket_name", '
                           '"udp:127.0.0.1:{DATAGRAM}")\n').replace("/tmp/fermata_fifo", "{FIFO}").replace("log_level = -3", "log_level = 0")
    port = free_port()
    server = place.server(config, DATAGRAM=port)
    names = [name for name in server.mi("which") if not re.search("kill|shut|log_level", name)]
    words = ["", "1", "-1", "x", "*", "all", "\u0000", "9" * 40, "sip:a@b", "core:", "dialog:", None, 1, -1, 1 << 63, 1.5, True, [], {}, [["a"]],
             {"a": 1}, ["core:rcv_requests"], "\ud800", "a" * 5000]
    keys = ["statistics", "level", "name", "value", "profile", "id", "aor", "table_name", "method", "ruri", "headers", "body", "filter", "limit", "x"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(0.02)
        sent = answered = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            params = rng.choice([None, [rng.choice(words) for _ in range(rng.randrange(4))],
                                 {rng.choice(keys): rng.choice(words) for _ in range(rng.randrange(4))}, rng.choice(words)])
            request = {"jsonrpc": "2.0", "id": rng.choice([1, "a", None, [], 1 << 70]), "method": rng.choice(names)}
            if params is not None:
                request["params"] = params
            text = json.dumps([request] * 3 if rng.randrange(20) == 0 else request).encode()
            if rng.randrange(3) == 0:
                text = mangle(rng, text, text)
            sent += 1
            if rng.randrange(10) == 0:
                with socket.create_connection(("127.0.0.1", server.mi_port), timeout=DEADLINE) as web:
                    web.sendall(b"POST /mi HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                                b"Content-Length: %d\r\n\r\n" % len(text) + text)
                    web.recv(65535)
                continue
            client.send(text[:60000])
            try:
                json.loads(client.recv(65535))
                answered += 1
            except TimeoutError:
                pass
        check(server.process.poll(), None, "the server runs")
        print(f"     management: {sent} commands in {SECONDS:.0f} s, {answered} answers over UDP, {resident(server):.0f} MB")
        check(server.mi("get_statistics", {"statistics": ["core:defects"]})["core:defects"], 0, f"defects: {server.log_text()[-3000:]}")
        check("panicked" in server.log_text(), False, server.log_text()[-3000:])
        check(answered > sent / 4, True, f"answers: {answered} of {sent}")
