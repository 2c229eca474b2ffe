"""Clients and ways from outside: a browser's own SIP client over WSS, IPv6 on every transport, long requests, HTTPS."""
import base64, functools, http.client, http.server, json, os, pathlib, re, socket, ssl, subprocess, threading, time, urllib.error, urllib.request
from browser import Browser
from harness import DEADLINE, Failed, Reply, check, free_port, until
from streams import StreamPhone, WebWire, Wire, certificates
from topic_page import ask

HEAD = """
log_level=3
stderror_enabled=yes
syslog_enabled=no
udp_workers=2
{SOCKETS}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "tls_mgm.so"
loadmodule "proto_tls.so"
loadmodule "proto_ws.so"
loadmodule "proto_wss.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "nat_bflag", "NAT")
modparam("nathelper", "received_avp", "$avp(rcv)")
modparam("registrar", "received_avp", "$avp(rcv)")
modparam("tls_mgm", "server_domain", "main")
modparam("tls_mgm", "certificate", "[main]{DIR}/example.com.pem")
modparam("tls_mgm", "private_key", "[main]{DIR}/example.com.key")
modparam("tls_mgm", "require_cert", "[main]0")
modparam("tls_mgm", "verify_cert", "[main]0")
modparam("tm", "fr_timeout", 5)
"""
ROUTE = """
route {
    force_rport();
    if (has_totag()) {
        loose_route();
        # A browser's Contact says transport=ws also over TLS (RFC 7118 §5).
        if ($(ru{uri.transport}) == "ws" && $du == NULL && $rU != "far" && $socket_in(proto) == "wss")
            $du = "sip:" + $rd + ":" + $rp + ";transport=wss";
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    if (is_method("REGISTER")) {
        fix_nated_register();
        setbflag("NAT");
        save("location");
        exit;
    }
    if (is_method("OPTIONS")) {
        append_to_reply("X-Way: $socket_in(proto) $socket_in(af)\\r\\n");
        sl_send_reply(200, "OK");
        exit;
    }
    record_route();
    fix_nated_contact();
    t_on_reply("answered");
    if ($rU == "far")
        $du = "sip:127.0.0.1:{FAR}";
    else if (!lookup("location")) {
        send_reply(404, "Not Found");
        exit;
    }
    t_relay();
}
onreply_route[answered] {
    fix_nated_contact();
}
"""
HTML = """<!doctype html><meta charset="utf-8"><title>phones</title><script src="jssip.js"></script><script>
JsSIP.debug.disable();
window.told = [];
function phone(name) {
  const ua = new JsSIP.UA({sockets: [new JsSIP.WebSocketInterface("wss://127.0.0.1:{WSS}")], uri: `sip:${name}@example.com`, register: true});
  for (const event of ["connected", "registered", "registrationFailed"]) ua.on(event, (e) => told.push(`${name} ${event} ${e?.cause ?? ""}`.trim()));
  ua.on("newRTCSession", ({session, originator}) => {
    for (const event of ["progress", "accepted", "confirmed", "ended", "failed"]) session.on(event, (e) => told.push(`${name} ${event} ${e?.cause ?? ""}`.trim()));
    if (originator === "remote") { window.incoming = session; session.answer({mediaConstraints: {audio: true}, pcConfig: {iceServers: []}}); }
  });
  ua.start();
  return ua;
}
window.alice = phone("alice");
window.bob = phone("bob");
</script>"""


def config(sockets, head=HEAD):
    return head.replace("{SOCKETS}", sockets) + ROUTE


def bundle(package):
    """The CommonJS files of a package and what it needs, as one script for a browser."""
    modules = pathlib.Path(os.environ.get("E2E_NODE", ""), "node_modules").resolve()
    if not (modules / package).exists():
        raise Failed(f"{package} is missing: npm install --prefix $E2E_NODE {package}, as tests/run does")
    found, names = {}, {}

    def file_of(name, beside):
        base = (beside / name) if name.startswith(".") else modules / name
        if base.is_dir() and (base / "package.json").exists():
            told = json.loads((base / "package.json").read_text())
            main = told.get("browser") if isinstance(told.get("browser"), str) else told.get("main", "index.js")
            base = base / main
        for path in (base, base.with_name(base.name + ".js"), base.with_name(base.name + ".json"), base / "index.js"):
            if path.is_file():
                return path.resolve()
        return None

    def take(path):
        if path in found:
            return found[path]
        found[path] = number = len(found)
        text = path.read_text()
        if path.suffix == ".json":
            text = "module.exports = " + text
        needs = {}
        for name in re.findall(r"""require\(\s*['"]([^'"]+)['"]\s*\)""", text):
            other = file_of(name, path.parent)
            if other:
                needs[name] = take(other)
        names[number] = f"[function (module, exports, require) {{\n{text}\n}}, {json.dumps(needs)}]"
        return number
    first = take(file_of(package, modules))
    table = ",\n".join(f"{n}: {names[n]}" for n in sorted(names))
    return (f"(() => {{ const files = {{{table}}}, made = {{}}; window.process = window.process || {{env: {{}}}};\n"
            f"function load(n) {{ if (!made[n]) {{ made[n] = {{exports: {{}}}}; files[n][0].call(made[n].exports, made[n], made[n].exports, (name) => load(files[n][1][name])); }} return made[n].exports; }}\n"
            f"window.JsSIP = load({first}); }})();")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_browser_calls_another(place):
    certificates(place, "example.com")
    wss = free_port()
    server = place.server(config(f"socket=udp:127.0.0.1:{{PORT}}\nsocket=wss:127.0.0.1:{wss}"), FAR=9)
    site = place.dir / "site"
    site.mkdir()
    (site / "jssip.js").write_text(bundle("jssip"))
    (site / "index.html").write_text(HTML.replace("{WSS}", str(wss)))
    handler = functools.partial(Quiet, directory=str(site))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    place.ending.callback(web.shutdown)
    browser = Browser(place, "--ignore-certificate-errors", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
                      "--allow-loopback-in-peer-connection")
    browser.open(f"http://127.0.0.1:{web.server_port}/index.html")
    until("both are registered", lambda: {"alice registered", "bob registered"} <= set(browser.run("window.told || []")))
    check(server.mi("get_statistics", ["registered_users"]), {"usrloc:registered_users": 2})
    browser.run("window.call = alice.call('sip:bob@example.com', {mediaConstraints: {audio: true, video: false}, pcConfig: {iceServers: []}}), 0")
    told = lambda: browser.run("window.told")
    try:
        until("the call stands", lambda: {"alice confirmed", "bob confirmed"} <= set(told()) or any("failed" in t for t in told()))
    except Failed as error:
        raise Failed(f"{error}: {told()} {browser.complaints()}")
    check([t for t in told() if "failed" in t], [], told())
    browser.run("window.call.terminate(), 0")
    until("the call ends", lambda: {"alice ended Terminated", "bob ended Terminated"} <= set(told()))
    check([c["Type"] for c in server.mi("tcp:list")["Connections"]], ["wss", "wss"])


def test_ipv6_on_every_transport(place):
    certificates(place, "example.com")
    ports = {name: free_port() for name in ("udp", "tcp", "tls", "ws", "wss")}
    sockets = "\n".join(f"socket={name}:[::1]:{port}" for name, port in ports.items()) + "\nsocket=udp:127.0.0.1:{PORT}"
    server = place.server(config(sockets), FAR=9)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wires = {"udp": Udp6(("::1", ports["udp"]))}
    for name in ("tcp", "tls"):
        wires[name] = until("it listens", lambda: Wire(("::1", ports[name]), context if name == "tls" else None, ip="::1"))
    wires["ws"] = WebWire(f"ws://[::1]:{ports['ws']}", ip="::1", host="::1")
    wires["wss"] = WebWire(f"wss://[::1]:{ports['wss']}", context, ip="::1", host="::1")
    phones = {}
    for name, wire in wires.items():
        phone = phones[name] = StreamPhone(wire, f"on{name}")
        phone.request("OPTIONS", "sip:example.com")
        reply = Reply(wire.message(DEADLINE))
        check((reply.status, reply.header("X-Way")), (200, f"{name} INET6"), name)
        check("received=" in reply.header("Via") or "::1" in reply.header("Via") or ".invalid" in reply.header("Via"), True, reply.text)
        phone.request("REGISTER", "sip:example.com", to=f"on{name}", headers=f"Contact: {phone.contact}\r\nExpires: 60\r\n")
        check(Reply(wire.message(DEADLINE)).status, 200, name)
    # Each calls the next one over another transport.
    names = list(wires)
    for caller, called in zip(names, names[1:] + names[:1]):
        phones[caller].call_id = f"{caller}-{called}@e2e"
        phones[caller].request("INVITE", f"sip:on{called}@example.com", to=f"on{called}", headers=f"Contact: {phones[caller].contact}\r\n")
        invite = other(wires[called], "INVITE")
        check(re.search(rf"(?m)^Via: SIP/2.0/{called.upper()} \[::1\]", invite) is not None, True, invite)
        check(len(re.findall(r"(?m)^Record-Route:.*\[::1\]", invite)) >= 1, True, invite)
        keep = [l for l in invite.split("\r\n") if re.match(r"(?i)(via|from|call-id|cseq|record-route|to)[ \t]*:", l)]
        keep = [l + ";tag=e2e" if l.lower().startswith("to:") else l for l in keep]
        wires[called].send("SIP/2.0 486 Busy\r\n" + "\r\n".join(keep) + "\r\nContent-Length: 0\r\n\r\n")
        check(Reply(other(wires[caller], "SIP/2.0 [2-6]")).status, 486, f"{caller} to {called}")
    for wire in wires.values():
        wire.close()


class Udp6:
    """A UDP socket with the manner of a `Wire`."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind(("::1", 0))
        self.socket.connect(address)
        self.local, self.proto = "[::1]:%d" % self.socket.getsockname()[1], "UDP"

    def send(self, text):
        self.socket.send(text.encode())

    def message(self, seconds):
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(65535).decode()
        except TimeoutError:
            return None

    def close(self):
        self.socket.close()


def other(wire, pattern):
    """The next message that begins so; ACKs, retransmissions and 100s are passed over."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        text = wire.message(end - time.monotonic())
        if text and re.match(pattern, text):
            return text
    raise Failed(f"nothing like {pattern} came")


def test_long_requests_leave_by_tcp(place):
    certificates(place, "example.com")
    # The next hop listens on UDP and TCP.
    far = socket.create_server(("127.0.0.1", 0))
    place.ending.callback(far.close)
    port = far.getsockname()[1]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", port))
    datagrams.settimeout(DEADLINE)
    place.ending.callback(datagrams.close)
    far.settimeout(DEADLINE)
    server = place.server("udp_mtu=1300\n" + config("socket=udp:127.0.0.1:{PORT}\nsocket=tcp:127.0.0.1:{PORT}"), FAR=port)
    phone = place.phone(server)

    def invite(pad):
        phone.call_id = f"long{pad}@e2e"
        text = (f"INVITE sip:far@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bKlong{pad}\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\n"
                f"To: <sip:far@example.com>\r\nCall-ID: {phone.call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{phone.address}>\r\nX-Pad: {'p' * pad}\r\nContent-Length: 0\r\n\r\n")
        phone.socket.sendto(text.encode(), ("127.0.0.1", server.port))
    invite(10)
    short = datagrams.recv(65535).decode()
    check(short.startswith("INVITE") and "Via: SIP/2.0/UDP" in short, True)
    invite(1000)
    connection = far.accept()[0]
    connection.settimeout(DEADLINE)
    text = connection.recv(65535).decode()
    check(len(text) > 1300 and text.startswith("INVITE") and re.findall(r"(?m)^Via: SIP/2.0/(\w+)", text)[0] == "TCP", True, text)
    # An answer comes back over UDP, and the ACK of a refusal goes the way of its INVITE.
    lines = [l for l in text.split("\r\n") if re.match(r"(?i)(via|from|call-id|cseq|record-route|to)[ \t]*:", l)]
    connection.sendall(("SIP/2.0 486 Busy\r\n" + "\r\n".join(l + ";tag=x" if l.startswith("To:") else l for l in lines) + "\r\nContent-Length: 0\r\n\r\n").encode())
    check(phone.receive(r"SIP/2.0 486").status, 486)
    check(connection.recv(65535).decode().startswith("ACK"), True)
    # Who takes no TCP gets the datagram.
    connection.close()
    far.close()
    until("the connection is gone", lambda: not server.mi("tcp:list")["Connections"])
    invite(1001)

    def long_datagram():
        text = datagrams.recv(65535).decode()
        return text if "long1001@e2e" in text and text.startswith("INVITE") else None
    text = until("the datagram", long_datagram)
    check("Via: SIP/2.0/UDP" in text and len(text) > 1300, True, text)


def test_https_and_password(place):
    certificates(place, "example.com")
    more = 'modparam("httpd", "tls_cert_file", "{DIR}/example.com.pem")\nmodparam("httpd", "tls_key_file", "{DIR}/example.com.key")\n' \
           'modparam("httpd", "auth_username", "admin")\nmodparam("httpd", "auth_password", "s3cret")\nloadmodule "page.so"\n'
    server = place.server(config("socket=udp:127.0.0.1:{PORT}", HEAD + more), FAR=9)
    context = ssl.create_default_context(cafile=place.dir / "ca.pem")
    url = f"https://127.0.0.1:{server.mi_port}"

    def post(path, authorization=None, scheme=url):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "pwd"}).encode()
        headers = {"Content-Type": "application/json", **({"Authorization": "Basic " + base64.b64encode(authorization.encode()).decode()} if authorization else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(scheme + path, body, headers), timeout=DEADLINE, context=context if scheme == url else None) as reply:
                return reply.status, json.loads(reply.read())["result"]
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("WWW-Authenticate", "")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
    until("it answers", lambda: post("/mi")[0] == 401)
    check(post("/mi"), (401, 'Basic realm="OpenSIPS MI", charset="UTF-8"'))
    check(post("/mi", "admin:wrong")[0], 401)
    check(post("/mi", "admin:s3cret"), (200, {"WD": str(place.dir)}))
    check(post("/mi", "admin:s3cret", f"http://127.0.0.1:{server.mi_port}")[0], 0, "plain HTTP")
    done = subprocess.run(["curl", "-s", "--cacert", place.dir / "ca.pem", "-u", "admin:s3cret", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}", f"{url}/page"], capture_output=True, text=True)
    check(done.stdout, "200 0")
