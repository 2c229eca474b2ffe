"""Clients over TCP, TLS and WebSocket, and certificates for them."""
import asyncio, pathlib, random, re, socket, ssl, sys, time
from harness import DEADLINE, Failed, Reply, run, tool


def certificates(place, *names):
    """An authority and certificates signed by it, NAME.pem and NAME.key, in the folder of the test."""
    def openssl(*words):
        run("openssl", *words, cwd=place.dir)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", "ca.key",
            "-out", "ca.pem", "-subj", "/O=E2E/CN=authority")
    for name in names:
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/C=DE/O=E2E/CN={name}")
        (place.dir / "ext").write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", f"{name}.pem")


class Wire:
    """A TCP or TLS connection: messages by Content-Length."""

    def __init__(self, address, context=None, name=None, ip="127.0.0.2"):
        self.socket = socket.create_connection(address, timeout=DEADLINE, source_address=(ip, 0))
        host, port = self.socket.getsockname()[:2]
        self.local = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.proto = "TLS" if context else "TCP"
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.buffer = b""

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def message(self, seconds):
        """The next message; "" when the connection ends, `None` when nothing comes in time."""
        end = time.monotonic() + seconds
        while True:
            self.buffer = self.buffer.lstrip(b"\r\n")
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if found:
                length = int(re.search(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*(\d+)", head)[1])
                if len(rest) >= length:
                    self.buffer = rest[length:]
                    return (head + found + rest[:length]).decode(errors="replace")
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(65535)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            if not data:
                return ""
            self.buffer += data

    def closed(self, seconds=DEADLINE):
        """Waits for the end of the connection."""
        if self.message(seconds) != "":
            raise Failed("the connection stays open")

    def close(self):
        self.socket.close()


class WebWire:
    """A WebSocket of the package `websockets`: one message in each of its messages. Its loop runs only while something is
    waited for."""

    def __init__(self, uri, context=None, name=None, ip="127.0.0.2", origin="http://example.com", subprotocols=("sip",), host="127.0.0.1"):
        if sites := sorted(pathlib.Path(tool("pip")).parent.parent.glob("lib/python*/site-packages")):
            sys.path.append(str(sites[0]))
        from websockets.asyncio.client import connect
        self.proto = "WSS" if context else "WS"
        sock = socket.create_connection((host, int(uri.rsplit(":", 1)[1])), timeout=DEADLINE, source_address=(ip, 0))
        sock.setblocking(False)
        self.local = f"{random.getrandbits(40):x}.invalid"
        more = {"ssl": context, "server_hostname": name or "127.0.0.1"} if context else {}
        self.loop = asyncio.new_event_loop()

        async def begin():
            return await connect(uri, sock=sock, origin=origin, subprotocols=list(subprotocols), compression=None, proxy=None,
                                 ping_interval=None, **more)
        self.web = self.run(begin())

    def run(self, what, seconds=DEADLINE):
        return self.loop.run_until_complete(asyncio.wait_for(what, seconds))

    def send(self, text):
        self.run(self.web.send(text))

    def message(self, seconds):
        from websockets.exceptions import ConnectionClosed
        try:
            return self.run(self.web.recv(), seconds)
        except TimeoutError:
            return None
        except ConnectionClosed:
            return ""

    def ping(self):
        async def both():
            await (await self.web.ping())
        self.run(both())

    def close(self):
        self.run(self.web.close())


class StreamPhone:
    """A client that registers, calls and answers over one connection."""

    def __init__(self, wire, user):
        self.wire, self.user = wire, user
        self.call_id = f"{random.getrandbits(60):x}@e2e"
        self.cseq = 0
        transport = wire.proto.lower()
        self.contact = f"<sip:{user}@{wire.local};transport={transport}>"

    def request(self, method, uri, to="bob", headers="", via="", call_id=None, branch=None, tags=("", "")):
        """Sends a request without waiting; its branch."""
        self.cseq += 1
        branch = branch or f"z9hG4bK{random.getrandbits(60):x}"
        call_id = call_id or self.call_id
        own = tags[0] or f"f{call_id[:6]}"
        other = f";tag={tags[1]}" if tags[1] else ""
        self.wire.send(
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{self.wire.proto} {self.wire.local};branch={branch};rport{via}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.user}@example.com>;tag={own}\r\nTo: <sip:{to}@example.com>{other}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {self.cseq} {method}\r\n{headers}Content-Length: 0\r\n\r\n")
        return branch

    def receive(self, pattern, seconds=DEADLINE):
        end = time.monotonic() + seconds
        while (text := self.wire.message(max(0.01, end - time.monotonic()))):
            if re.match(pattern, text):
                return Reply(text)
        raise Failed(f"{self.user} received nothing like {pattern}" + (": the connection ended" if text == "" else ""))

    def final(self, *words, **more):
        """Sends a request and returns its final reply."""
        self.request(*words, **more)
        return self.receive(r"SIP/2.0 [2-6]")

    def register(self):
        return self.final("REGISTER", "sip:example.com", to=self.user, headers=f"Contact: {self.contact}\r\nExpires: 600\r\n")

    def answer(self, request, status, headers=""):
        keep = [l for l in request.text.split("\r\n")
                if re.match(r"(?i)(via|from|call-id|cseq|record-route|to|v|f|t|i)[ \t]*:", l)]
        keep = [l + ";tag=e2e" if re.match(r"(?i)to?[ \t]*:", l) and "tag=" not in l else l for l in keep]
        self.wire.send(f"SIP/2.0 {status} E2E\r\n" + "\r\n".join(keep) + f"\r\n{headers}Content-Length: 0\r\n\r\n")


def client_context(place, certificate=None):
    """TLS that trusts the authority of the test."""
    context = ssl.create_default_context(cafile=place.dir / "ca.pem")
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(place.dir / f"{certificate}.pem", place.dir / f"{certificate}.key")
    return context
