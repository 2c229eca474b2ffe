"""Signed identities beside openssl: what one server signs openssl verifies, what openssl signs a server believes, and a
certificate server that hangs delays no other call."""
import base64, email.utils, http.server, json, socket, threading, time
from harness import check, run

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
loadmodule "cachedb_local.so"
loadmodule "rest_client.so"
loadmodule "stir_shaken.so"
modparam("rest_client", "connection_timeout", 20)
modparam("stir_shaken", "ca_list", "{DIR}/ca.pem")
route {
    if (is_present_hf("Identity")) {
        if (!cache_fetch("local", $identity(x5u), $var(cert)) || !stir_shaken_check_cert($var(cert))) {
            if (!rest_get($identity(x5u), $var(cert))) {
                send_reply(436, "Bad Identity Info");
                exit;
            }
            cache_store("local", $identity(x5u), $var(cert), 3600);
        }
        $var(rc) = stir_shaken_verify($var(cert), $var(code), $var(reason));
        if ($var(rc) < 0) {
            send_reply($var(code), $var(reason));
            exit;
        }
        append_to_reply("X-Attest: $identity(attest)\\r\\n");
        send_reply(200, "OK");
        exit;
    }
    $var(cert) = "{CERT}";
    $var(key) = "{KEY}";
    $var(rc) = stir_shaken_auth("A", "origin-1", $var(cert), $var(key), "http://127.0.0.1:{CERTS}/cert.pem", , , "rpl");
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    send_reply(200, "OK");
}
"""
EXTENSIONS = """
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[provider]
basicConstraints = CA:FALSE
1.3.6.1.5.5.7.1.26 = DER:30:08:A0:06:16:04:37:30:39:4A
"""


def certificates(place):
    (place.dir / "ext").write_text(EXTENSIONS)
    for name in ("ca", "provider"):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", place.dir / f"{name}.key")
        run("openssl", "req", "-new", "-key", place.dir / f"{name}.key", "-subj", f"/CN={name}", "-out", place.dir / f"{name}.csr")
    common = ["openssl", "x509", "-req", "-days", "30", "-extfile", place.dir / "ext"]
    run(*common, "-in", place.dir / "ca.csr", "-signkey", place.dir / "ca.key", "-extensions", "ca", "-out", place.dir / "ca.pem")
    run(*common, "-in", place.dir / "provider.csr", "-CA", place.dir / "ca.pem", "-CAkey", place.dir / "ca.key", "-CAcreateserial",
        "-extensions", "provider", "-out", place.dir / "cert.pem")
    run("openssl", "x509", "-in", place.dir / "cert.pem", "-pubkey", "-noout", "-out", place.dir / "pub.pem")


def serve(place, folder):
    """A web server for the certificate; counts what it is asked."""
    asked = []

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = (folder / "cert.pem").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place.ending.callback(server.shutdown)
    return server.server_address[1], asked


def start(place):
    certificates(place)
    port, asked = serve(place, place.dir)
    text = lambda name: (place.dir / name).read_text()
    return place.server(CONFIG, CERT=text("cert.pem"), KEY=text("provider.key"), CERTS=port), port, asked


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def plain(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def integer(n):
    data = n.to_bytes(33, "big").lstrip(b"\0") or b"\0"
    data = b"\0" + data if data[0] & 0x80 else data
    return b"\x02" + bytes([len(data)]) + data


def of_der(signature):
    """r and s of an ECDSA signature, 32 bytes each."""
    first = signature[3]
    r, s = signature[4:4 + first], signature[6 + first:]
    return b"".join(int.from_bytes(part, "big").to_bytes(32, "big") for part in (r, s))


def signed_by_openssl(place, url, orig="12025551000", dest="12025552000"):
    claims = {"attest": "B", "dest": {"tn": [dest]}, "iat": int(time.time()), "orig": {"tn": orig}, "origid": "o", "extra": {"x": 1}}
    header = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": url}
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    (place.dir / "text").write_text(text)
    run("openssl", "dgst", "-sha256", "-sign", place.dir / "provider.key", "-out", place.dir / "sig", place.dir / "text")
    return f"Identity: {text}.{b64(of_der((place.dir / 'sig').read_bytes()))};info=<{url}>;alg=ES256;ppt=\"shaken\"\r\n"


def call(phone, headers="", orig="+12025551000"):
    """The final reply to an INVITE."""
    branch = f"z9hG4bK{time.monotonic_ns():x}"
    text = (f"INVITE sip:+12025552000@x SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:{orig}@x>;tag=1\r\nTo: <sip:+12025552000@x>\r\nCall-ID: {branch}\r\nCSeq: 1 INVITE\r\n"
            f"{headers}Content-Length: 0\r\n\r\n")
    return phone.exchange(text, branch)


def date():
    return f"Date: {email.utils.formatdate(usegmt=True)}\r\n"


def test_openssl_verifies_what_is_signed(place):
    server, port, _ = start(place)
    reply = call(place.phone(server))
    check(reply.header("X-Rc"), "1")
    identity = reply.header("Identity")
    check(identity.endswith(f";info=<http://127.0.0.1:{port}/cert.pem>;alg=ES256;ppt=shaken"), True, identity)
    head, payload, signature = identity.split(";")[0].split(".")
    check(json.loads(plain(head)), {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": f"http://127.0.0.1:{port}/cert.pem"})
    claims = json.loads(plain(payload))
    check((claims["attest"], claims["orig"], claims["dest"]), ("A", {"tn": "12025551000"}, {"tn": ["12025552000"]}))
    raw = plain(signature)
    body = integer(int.from_bytes(raw[:32], "big")) + integer(int.from_bytes(raw[32:], "big"))
    (place.dir / "sig").write_bytes(b"\x30" + bytes([len(body)]) + body)
    (place.dir / "text").write_text(f"{head}.{payload}")
    run("openssl", "dgst", "-sha256", "-verify", place.dir / "pub.pem", "-signature", place.dir / "sig", place.dir / "text")


def test_what_openssl_signs_is_believed(place):
    server, port, asked = start(place)
    phone, url = place.phone(server), f"http://127.0.0.1:{port}/cert.pem"
    for _ in range(3):
        reply = call(phone, signed_by_openssl(place, url) + date())
        check((reply.status, reply.header("X-Attest")), (200, "B"))
    check(asked, ["/cert.pem"], "the certificate is fetched once")
    check(call(phone, signed_by_openssl(place, url) + date(), orig="+12025551001").status, 438)
    token, params = signed_by_openssl(place, url).split(";", 1)
    text, signature = token.rsplit(".", 1)
    spoilt = f"{text}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]};{params}"
    check(call(phone, spoilt + date()).status, 438)


def test_a_certificate_server_that_hangs_delays_no_other_call(place):
    server, port, _ = start(place)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cert.pem"
        waiting = [place.phone(server) for _ in range(20)]
        header = signed_by_openssl(place, url) + date()
        for n, phone in enumerate(waiting):
            phone.socket.sendto((
                f"INVITE sip:+12025552000@x SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bKw{n}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:+12025551000@x>;tag=1\r\nTo: <sip:+12025552000@x>\r\nCall-ID: w{n}\r\nCSeq: 1 INVITE\r\n{header}"
                "Content-Length: 0\r\n\r\n").encode(), ("127.0.0.1", server.port))
        # They wait: each has heard that its call is being worked on.
        for phone in waiting:
            phone.receive("SIP/2.0 100")
        phone = place.phone(server)
        for _ in range(10):
            check(call(phone, signed_by_openssl(place, f"http://127.0.0.1:{port}/cert.pem") + date()).status, 200)
        check(call(phone).header("X-Rc"), "1")
