"""rest_client against nginx and a proxy, and what happens when they fail."""
import contextlib, http.server, os, pathlib, socket, subprocess, threading
from asking import Asking, lines, plays_on, said_once
from databases import ROOT, certificates, find, full, quiet, silent
from harness import Failed, check, free_port, until

# OPTIONS is answered at once; MESSAGE does the request that its headers ask for and says what came of it.
CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = {WORKERS}
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
loadmodule "tls_mgm.so"
loadmodule "rest_client.so"
modparam("httpd", "port", {MI})
{PARAMS}
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    if ($hdr(X-Domain) != NULL)
        rest_init_client_tls("$hdr(X-Domain)");
    $var(body) = "";
    if ($hdr(X-Repeat) != NULL) {
        $var(i) = 0;
        while ($var(i) < $(hdr(X-Repeat){s.int})) {
            $var(body) = $var(body) + "0123456789abcdef";
            $var(i) = $var(i) + 1;
        }
    }
    if ($hdr(X-Method) == "POST") {
        $avp(rc) = rest_post("$hdr(X-Url)", "$var(body)", "text/plain", $avp(b), $avp(t), $avp(c));
    } else if ($hdr(X-Method) == "PUT") {
        $avp(rc) = rest_put("$hdr(X-Url)", "$var(body)", "text/plain", $avp(b), $avp(t), $avp(c));
    } else {
        $avp(rc) = rest_get("$hdr(X-Url)", $avp(b), $avp(t), $avp(c));
    }
    append_to_reply("X-Rc: $avp(rc)\\r\\nX-Status: $avp(c)\\r\\nX-Type: $avp(t)\\r\\nX-Length: $(avp(b){s.len})\\r\\n");
    if ($(avp(b){s.len}) < 500)
        append_to_reply("X-Body: $avp(b)\\r\\n");
    t_reply(200, "Done");
    exit;
}
"""


def start(place, params="", workers=1, **more):
    params = "\n".join(f'modparam("rest_client", {p})' if p[0] == '"' else p for p in filter(None, params.split("\n")))
    return place.server(CONFIG, PARAMS=params, WORKERS=workers, **more)


def ask(place, server, url, headers="", number=[1]):
    """(return code, status, body or its length)"""
    number[0] = number[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number[0] + 2}")
    reply = phone.request("MESSAGE", "sip:bob@example.com", headers=f"X-Url: {url}\r\n{headers}")
    check(reply.status, 200, url)
    body = reply.header("X-Body") or reply.header("X-Length")
    body = 0 if body in ("", "<null>") else int(body) if body.isdigit() else body
    status = reply.header("X-Status")
    return int(reply.header("X-Rc")), 0 if status == "<null>" else int(status), body


def asking_of(place, server, urls, headers=""):
    return Asking(lambda url: ask(place, server, url, headers), urls)


class Nginx:
    """nginx with what the tests ask for: plain, TLS with HTTP/2, HTTP/2 without TLS."""

    def __init__(self, place):
        self.home = place.dir / "nginx"
        self.home.mkdir()
        self.ports = [free_port() for _ in range(4)]
        plain, tls, two, mutual = self.ports
        self.ca, cert, key = certificates(place.dir, "web")
        self.other, self.client_cert, self.client_key = certificates(place.dir, "client")
        with open(self.home / "big", "wb") as big:
            big.truncate(10 << 20)
        with open(self.home / "huge", "wb") as huge:
            huge.truncate(11 << 20)
        module = pathlib.Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
        if not module.exists():
            raise Failed(f"{module} is not installed: tests/run installs it")
        temp = "\n".join(f"{kind}_temp_path {self.home}/{kind};" for kind in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        places = f"""
        location = /hello {{ default_type text/plain; return 200 "hi\\n"; }}
        location = /missing {{ return 404 "no"; }}
        location = /broken {{ return 500 "sorry"; }}
        location = /redirect {{ return 302 /hello; }}
        location = /loop {{ return 302 /loop; }}
        location = /away {{ return 307 http://127.0.0.1:{plain}/who; }}
        location = /who {{ default_type text/plain; return 200 "$server_protocol $request_method $http_expect"; }}
        location = /login {{ default_type text/plain; return 200 "$ssl_client_verify $ssl_client_s_dn"; }}
        location = /slow {{ echo_sleep 3600; echo done; }}
        location = /wait {{ echo_sleep 0.2; echo done; }}
        location = /body {{ default_type text/plain; client_body_buffer_size 1m; echo_read_request_body; echo "$request_length $http_expect"; }}
        location = /drip {{ limit_rate_after 4k; limit_rate 1; alias {self.home}/big; }}
        location / {{ root {self.home}; }}"""
        (self.home / "nginx.conf").write_text(f"""
load_module {module};
daemon off;
{"user root;" if ROOT else ""}
pid {self.home}/pid;
error_log {self.home}/error;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log {self.home}/access;
    {temp}
    server {{ listen 127.0.0.1:{plain} backlog=1024; {places} }}
    server {{ listen 127.0.0.1:{two} http2; {places} }}
    server {{ listen 127.0.0.1:{tls} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key}; {places} }}
    server {{ listen 127.0.0.1:{mutual} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
        ssl_client_certificate {self.other}; ssl_verify_client on; {places} }}
}}
""")
        self.place, self.process = place, None
        self.start()

    def start(self):
        self.process = self.place.process(find("nginx"), "-p", self.home, "-c", self.home / "nginx.conf")
        until("nginx listens", self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[0])) == 0

    def kill(self):
        """The master and its worker."""
        children = quiet("ps", "-o", "pid=", "--ppid", self.process.pid).split()
        for pid in [self.process.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait()

    def at(self, path, port=0):
        scheme = "https" if port in (1, 3) else "http"
        return f"{scheme}://127.0.0.1:{self.ports[port]}{path}"


def test_answers_sizes_and_redirects(place):
    web = Nginx(place)
    server = start(place)
    check(ask(place, server, web.at("/hello")), (1, 200, "hi"))
    check(ask(place, server, web.at("/missing"))[:2], (1, 404))
    check(ask(place, server, web.at("/broken"))[:2], (1, 500))
    check(ask(place, server, web.at("/redirect"))[:2], (1, 302), "redirects are not followed unless asked for")
    check(ask(place, server, web.at("/big")), (1, 200, 10 << 20), "10 MB")
    check(ask(place, server, web.at("/huge"))[0], -10, "larger than max_transfer_size")
    asking = asking_of(place, server, [web.at("/big")] * 4)
    plays_on(place, server)
    check(asking.codes(), [1] * 4)
    check(ask(place, server, web.at("/body"), "X-Method: POST\r\nX-Repeat: 20\r\n")[:2], (1, 200))
    check(ask(place, server, web.at("/who"), "X-Method: PUT\r\n"), (1, 200, "HTTP/1.1 PUT"))
    server.stop()
    server = start(place, '"max_redirects", 3\n"max_transfer_size", 64')
    check(ask(place, server, web.at("/redirect")), (1, 200, "hi"))
    check(ask(place, server, web.at("/away"), "X-Method: POST\r\nX-Repeat: 3\r\n"), (1, 200, "HTTP/1.1 POST"))
    check(ask(place, server, web.at("/loop"))[0], -10, "a loop ends")
    check(ask(place, server, web.at("/big"))[0], -10)


def test_versions(place):
    web = Nginx(place)
    trust = f'"ssl_capath", "{web.ca}"'
    for version, plain, tls in ((0, "HTTP/1.1", "HTTP/2.0"), (1, "HTTP/1.0", "HTTP/1.0"), (2, "HTTP/1.1", "HTTP/1.1"),
                                (4, "HTTP/1.1", "HTTP/2.0")):
        server = start(place, f'{trust}\n"curl_http_version", {version}')
        check(ask(place, server, web.at("/who")), (1, 200, f"{plain} GET"), f"version {version}")
        check(ask(place, server, web.at("/who", 1)), (1, 200, f"{tls} GET"), f"version {version}, TLS")
        server.stop()
    server = start(place, f'{trust}\n"curl_http_version", 5')
    check(ask(place, server, web.at("/who", 2)), (1, 200, "HTTP/2.0 GET"))
    check(ask(place, server, web.at("/who", 1)), (1, 200, "HTTP/2.0 GET"))


def test_certificates(place):
    web = Nginx(place)
    server = start(place)
    check(ask(place, server, web.at("/hello", 1)), (-10, 0, 0), "an unknown authority")
    said_once(server, "ERROR:rest_client.*UnknownIssuer")
    server.stop()
    server = start(place, '"ssl_verifypeer", 0')
    check(ask(place, server, web.at("/hello", 1)), (1, 200, "hi"))
    server.stop()
    # A name that the certificate does not hold.
    named = web.at("/hello", 1).replace("127.0.0.1", "localhost")
    server = start(place, f'"ssl_capath", "{web.ca}"')
    check(ask(place, server, web.at("/hello", 1)), (1, 200, "hi"))
    check(ask(place, server, named)[0], -10, "another name")
    check(ask(place, server, web.at("/login", 3))[:2], (1, 400), "without a client certificate")
    server.stop()
    server = start(place, f'"ssl_capath", "{web.ca}"\n"ssl_verifyhost", 0')
    check(ask(place, server, named), (1, 200, "hi"))
    server.stop()
    domain = "\n".join(f'modparam("tls_mgm", "{name}", "{value}")' for name, value in (
        ("client_domain", "web"), ("ca_list", f"[web]{web.ca}"), ("certificate", f"[web]{web.client_cert}"),
        ("private_key", f"[web]{web.client_key}")))
    server = start(place, domain)
    check(ask(place, server, web.at("/login", 3), "X-Domain: web\r\n"), (1, 200, "SUCCESS CN=127.0.0.1"))
    server.stop()
    # The same domain as a row of a table.
    quiet(place.program, "db", "create", f"sqlite://{place.dir}/tls.db", "tls_mgm")
    pem = lambda path: pathlib.Path(path).read_text()
    place.sqlite("tls.db", f"insert into tls_mgm (domain, type, certificate, private_key, ca_list) values "
                 f"('web', 1, '{pem(web.client_cert)}', '{pem(web.client_key)}', '{pem(web.ca)}')")
    server = start(place, f'loadmodule "db_sqlite.so"\nmodparam("tls_mgm", "db_url", "sqlite://{place.dir}/tls.db")')
    until("the row is used", lambda: ask(place, server, web.at("/login", 3), "X-Domain: web\r\n") == (1, 200, "SUCCESS CN=127.0.0.1"))
    place.sqlite("tls.db", f"update tls_mgm set ca_list = '{pem(web.other)}'")
    check(server.mi("tls_reload"), "OK")
    check(ask(place, server, web.at("/login", 3), "X-Domain: web\r\n")[0], -10, "an authority that is not its")


def test_nobody_answers(place):
    web = Nginx(place)
    server = start(place, '"connection_timeout", 1\n"curl_timeout", 2')
    check(ask(place, server, "http://127.0.0.1:1/"), (-1, 0, 0))
    asking = asking_of(place, server, [f"http://127.0.0.1:{full(place)}/"] * 5)
    plays_on(place, server, asking)
    check(asking.codes(), [-2] * 5, "no connection in time")
    asking = asking_of(place, server, [f"http://127.0.0.1:{silent(place)}/", web.at("/slow"), web.at("/drip")])
    plays_on(place, server, asking)
    check(asking.codes(), [-3] * 3, "no answer in time")
    # What has arrived by then is there.
    code, status, body = ask(place, server, web.at("/drip"))
    check((code, status), (-3, 200))


def test_turns(place):
    web = Nginx(place)
    server = start(place, '"max_async_transfers", 2')
    asking = asking_of(place, server, [web.at("/wait")] * 10)
    plays_on(place, server, asking)
    check(asking.codes(), [1] * 10)
    stats = server.mi("async_stats", ["rest_get"])["Operations"]["rest_get"]
    check((stats["Started"], stats["Done"], stats["Failed"], stats["In flight"]), (10, 10, 0, 0))
    check(stats["Queued"] > 0, True, "some waited for their turn")
    check(sum(stats["Histogram ms"].values()), 10)
    server.stop()
    server = start(place, '"max_async_transfers", 1\n"curl_timeout", 2')
    # One runs, twenty wait, the others find the queue full.
    codes = asking_of(place, server, [web.at("/slow")] * 24).codes()
    check((codes.count(-10), codes.count(-3)), (4, 20) if codes.count(-10) == 4 else (3, 21))
    stats = server.mi("async_stats", ["rest_get"])["Operations"]["rest_get"]
    check(stats["Refused"], codes.count(-10))


def test_killed_under_load_and_restarted(place):
    web = Nginx(place)
    server = start(place)
    check(ask(place, server, web.at("/hello"))[0], 1)
    asking = asking_of(place, server, [web.at("/wait")] * 60)
    until("some are answered", lambda: len(asking.found) >= 5)
    web.kill()
    plays_on(place, server)
    codes = asking.codes()
    check((len(codes), set(codes) <= {1, -1, -10}), (60, True), f"every script went on: {codes}")
    # A process of nginx that is about to end may still take one connection, and reset it.
    until("nobody listens", lambda: ask(place, server, web.at("/hello"))[0] == -1)
    web.start()
    # Connections that rested are gone; nobody notices.
    check(ask(place, server, web.at("/hello")), (1, 200, "hi"))


def test_one_worker_connects(place):
    server = start(place, '"no_concurrent_connects", 1\n"connection_timeout", 2\n"curl_timeout", 3', workers=4)
    url = f"http://127.0.0.1:{full(place)}/"
    codes = asking_of(place, server, [url] * 24).codes()
    check(set(codes), {-2, -4}, "one worker waits, the others know")


class Tinyproxy:
    def __init__(self, place, more=""):
        self.port, self.log = free_port(), place.dir / "tinyproxy.log"
        user = "User root\nGroup root\n" if ROOT else ""
        (place.dir / "tinyproxy.conf").write_text(
            f'{user}Port {self.port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{self.log}"\nLogLevel Connect\n'
            f"MaxClients 50\n{more}\n")
        place.process(find("tinyproxy"), "-d", "-c", place.dir / "tinyproxy.conf", stdout=subprocess.DEVNULL)
        until("the proxy listens", self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def saw(self, text):
        return text in self.log.read_text()


def test_proxies(place):
    web, proxy = Nginx(place), Tinyproxy(place, "BasicAuth me secret")
    at = f"http://me:secret@127.0.0.1:{proxy.port}"
    trust = f'"ssl_capath", "{web.ca}"'
    server = start(place, trust, ENV={"http_proxy": at, "https_proxy": at})
    check(ask(place, server, web.at("/hello")), (1, 200, "hi"))
    until("it went through the proxy", lambda: proxy.saw(f"GET {web.at('/hello')}"))
    check(ask(place, server, web.at("/hello", 1)), (1, 200, "hi"))
    until("it went through a tunnel", lambda: proxy.saw(f"CONNECT 127.0.0.1:{web.ports[1]}"))
    server.stop()
    server = start(place, trust, ENV={"http_proxy": at, "no_proxy": "127.0.0.1"})
    check(ask(place, server, web.at("/missing"))[:2], (1, 404))
    check(proxy.saw("/missing"), False, "no_proxy")
    server.stop()
    wrong = at.replace("secret", "wrong")
    server = start(place, trust, ENV={"http_proxy": wrong, "https_proxy": wrong})
    check(ask(place, server, web.at("/hello"))[:2], (1, 401))
    check(ask(place, server, web.at("/hello", 1))[0], -10, "no tunnel")
    server.stop()
    server = start(place, ENV={"http_proxy": "http://127.0.0.1:1"})
    check(ask(place, server, web.at("/hello"))[0], -1, "no proxy")


class Continues(http.server.BaseHTTPRequestHandler):
    """Notes what is asked for before a body, and takes it or not."""
    protocol_version = "HTTP/1.1"
    seen = []

    def handle_expect_100(self):
        self.seen.append(self.headers["Expect"])
        if self.path == "/refuse":
            self.send_response(417)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            return False
        return super().handle_expect_100()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = f"{len(body)} {self.headers['Expect']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_expect_100(place):
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Continues)
    place.ending.callback(web.shutdown)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_address[1]}"
    server = start(place, '"enable_expect_100", 1')
    post = lambda path, blocks: ask(place, server, url + path, f"X-Method: POST\r\nX-Repeat: {blocks}\r\n")
    check(post("/", 64), (1, 200, "1024 None"), "short enough to go at once")
    check(post("/", 65), (1, 200, "1040 100-continue"))
    check(post("/refuse", 65)[:2], (1, 417))
    check(Continues.seen, ["100-continue"] * 2)


def test_what_waits_and_what_was_slow(place):
    web = Nginx(place)
    server = start(place, "exec_msg_threshold = 100000")
    asking = asking_of(place, server, [web.at("/slow"), web.at("/slow"), web.at("/wait")])
    waiting = lambda *words: server.mi("async_list", list(words))["Operations"]
    until("they wait", lambda: len(waiting("/slow")) == 2)
    shown = waiting("/slow")
    line = server.config.read_text().splitlines()[int(shown[0]["Line"].rsplit(":", 1)[1]) - 1]
    check("rest_get(" in line, True, shown[0])
    check((shown[0]["Operation"], shown[0]["For"]), ("rest_get", web.at("/slow")))
    check((len(waiting(shown[1]["Call-ID"])), waiting("no such thing")), (1, []))
    check(0 < shown[0]["Deadline in ms"] <= 21000, True, shown[0])
    stats = lambda: server.mi("async_stats", ["rest_get"])["Operations"]["rest_get"]
    until("the short one is done", lambda: stats()["Done"] == 1)
    check((stats()["Started"], stats()["In flight"]), (3, 2))
    # One is ended by command: its script goes on as at its limit.
    check(server.mi("async_cancel", [shown[0]["ID"]]), "OK")
    until("it went on", lambda: asking.found.count(-3) == 1)
    check((stats()["Cancelled"], stats()["In flight"]), (1, 1))
    check(server.mi("async_cancel", {"id": shown[1]["ID"]}), "OK")
    check(asking.codes(), [-3, -3, 1])
    check(list(stats()["Histogram ms"].values()), [1])
    check(list(stats()["Histogram ms"])[0] in ("<= 500", "<= 1000", "<= 2000"), True, stats())
    said_once(server, rf"server0.cfg:\d+: rest_get {web.at('/wait')} took \d+ ms, more than exec_msg_threshold")
    check(server.mi("async_reset"), "OK")
    check(stats()["Done"], 0)
