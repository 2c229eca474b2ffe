"""Seeing into calls: recordings that are played again, live traces, the profiler, top; and spans at a collector."""
import http.server, json, os, re, socket, subprocess, threading, time, xml.dom.minidom
from harness import DEADLINE, Failed, check, until

CONFIG = """
log_level = 2
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "db_sqlite.so"
loadmodule "sqlops.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "cachedb_local.so"
loadmodule "rest_client.so"
loadmodule "exec.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sqlops", "db_url", "sqlite://{DIR}/calls.db")
modparam("auth_db", "db_url", "sqlite://{DIR}/calls.db")
modparam("auth_db", "calculate_ha1", 1)
modparam("auth_db", "password_column", "password")
{MORE}
route {
    if (is_method("REGISTER")) {
        if (!www_authorize("", "subscriber")) {
            www_challenge("");
            exit;
        }
        save("location");
        exit;
    }
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    record_route();
    $avp(to) = "none";
    if ($rU == "sql" || $rU == "busy" || $rU == "fork") {
        sql_query("select host from targets where name='$rU'", "$avp(to)");
    } else if ($rU == "http") {
        rest_get("http://127.0.0.1:{HTTP}/$rU/$(ci{s.len})", $avp(to));
    } else if ($rU == "exec") {
        exec("echo -n 127.0.0.1:{UAS}", , $avp(to));
    } else if ($rU == "cache") {
        cache_add("local", "count", 1, 300, $avp(n));
        async(usleep(20000), later);
    }
    route(send);
}
route[later] {
    $avp(to) = "127.0.0.1:{UAS}";
    append_hf("X-Count: $avp(n)\\r\\n");
    route(send);
}
route[send] {
    $var(random) = $RANDOM;
    append_hf("X-Random: $var(random)\\r\\n");
    $du = "sip:" + $avp(to);
    if ($rU == "fork")
        $msg.branch = "sip:second@127.0.0.1:{UAS}";
    if ($rU == "busy")
        t_on_failure("again");
    if (!t_relay())
        send_reply(480, "Nobody");
}
failure_route[again] {
    sql_query("select host from targets where name='sql'", "$avp(to)");
    $ru = "sip:second@127.0.0.1:{UAS}";
    $du = "sip:" + $avp(to);
    t_relay();
}
"""
RECORDER = """
loadmodule "recorder.so"
modparam("recorder", "enabled", 1)
"""
KINDS = ["sql", "http", "exec", "cache", "busy", "fork", "nobody"]


class Callee(threading.Thread):
    """Answers calls: 486 for the user busy, 180 and 200 for others; a BYE gets its 200."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        place.ending.callback(self.socket.close)
        self.start()

    def run(self):
        while True:
            try:
                data, peer = self.socket.recvfrom(65535)
            except OSError:
                return
            text = data.decode()
            keep = [l for l in text.split("\r\n") if re.match(r"(?i)(via|from|to|call-id|cseq|record-route):", l)]
            keep = [l + ";tag=callee" if l.startswith("To:") and "tag=" not in l else l for l in keep]
            for status in self.statuses(text):
                head = [f"SIP/2.0 {status} E2E", *keep, f"Contact: <sip:callee@127.0.0.1:{self.port}>", "Content-Length: 0"]
                self.socket.sendto(("\r\n".join(head) + "\r\n\r\n").encode(), peer)

    def statuses(self, text):
        if text.startswith("INVITE"):
            return [486] if text.startswith("INVITE sip:busy") else [180, 200]
        return [200] if text.split(" ")[0] in ("BYE", "CANCEL") else []


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = b""
    posted = []

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Web.posted.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def start(place, more, **names):
    callee = Callee(place)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    Web.answer, Web.posted = f"127.0.0.1:{callee.port}".encode(), []
    threading.Thread(target=web.serve_forever, daemon=True).start()
    place.ending.callback(web.shutdown)
    place.sqlite("calls.db", f"""create table targets (name text, host text);
insert into targets values ('sql', '127.0.0.1:{callee.port}'), ('busy', '127.0.0.1:{callee.port}'), ('fork', '127.0.0.1:{callee.port}');
create table subscriber (username text, domain text, password text, ha1 text);
insert into subscriber values ('alice', 'example.com', 'secret', '')""")
    subprocess.run([str(place.program), "db", "create", f"sqlite://{place.dir}/calls.db"], check=True, capture_output=True)
    return place.server(CONFIG, MORE=more.replace("{HTTP}", str(web.server_address[1])), UAS=callee.port, HTTP=web.server_address[1], **names)


def call(phone, user, number):
    """A call to its end; its Call-ID and the final status."""
    call_id = f"{phone.call_id}-{user}-{number}"
    reply = phone.request("INVITE", f"sip:{user}@127.0.0.1:{phone.server.port}", to=user, call_id=call_id,
                          headers=f"Contact: <sip:{phone.user}@{phone.address}>\r\n")
    if reply.status == 200:
        route = reply.header("Record-Route")
        target = re.search(r"<(.*)>", reply.header("Contact"))[1]
        for method in ("ACK", "BYE"):
            text = (f"{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bK{method}{number}{user}{phone.user}\r\n"
                    f"Max-Forwards: 70\r\nRoute: {route}\r\nFrom: {reply.header('From')}\r\nTo: {reply.header('To')}\r\n"
                    f"Call-ID: {call_id}\r\nCSeq: {phone.cseq + (method == 'BYE')} {method}\r\nContent-Length: 0\r\n\r\n")
            if method == "ACK":
                phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))
            else:
                phone.cseq += 1
                check(phone.exchange(text, f"BYE{number}{user}{phone.user}").status, 200)
    return call_id, reply.status


def calls(place, server, rounds):
    """Calls of every kind from several phones at once."""
    made, failed = [], []

    def run(phone):
        try:
            for number in range(rounds):
                for kind in KINDS:
                    made.append((kind, *call(phone, kind, number)))
        except Exception as error:
            failed.append(error)
    phones = [place.phone(server, f"user{n}") for n in range(4)]
    threads = [threading.Thread(target=run, args=(phone,)) for phone in phones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    check({(kind, status) for kind, _, status in made}, {(kind, 476 if kind == "nobody" else 200) for kind in KINDS})
    return made


def fermata(place, *arguments, code=0):
    done = subprocess.run([str(place.program), *map(str, arguments)], capture_output=True, text=True, timeout=600)
    if done.returncode != code:
        raise Failed(f"fermata {arguments} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr}")
    return done.stdout


def test_a_replay_is_what_happened(place):
    rounds = int(os.environ.get("REPLAY_ROUNDS", "4"))
    server = start(place, RECORDER)
    made = calls(place, server, rounds)
    server.mi("get_statistics", [["recorder:"]])
    recording = place.dir / "calls.rec"
    check(server.mi("recorder:status")["recording"], True)
    if not server.mi("recorder:save", [str(recording)])["bytes"] > 10_000:
        raise Failed("nothing was recorded")
    server.stop()
    # What it asked is gone: the replay needs none of it.
    for file in place.dir.glob("calls.db*"):
        file.unlink()
    said = fermata(place, "replay", recording, "--verify")
    if not re.search(r"the replay sends all \d+ messages as they were sent", said):
        raise Failed(said)
    listed = fermata(place, "replay", recording)
    for _, call_id, _ in made:
        if call_id not in listed:
            raise Failed(f"{call_id} is not listed")


def test_one_call_line_by_line_and_with_another_script(place):
    server = start(place, RECORDER)
    phone = place.phone(server)
    call_id, _ = call(phone, "sql", 1)
    busy, _ = call(phone, "busy", 2)
    recording = place.dir / "calls.rec"
    server.mi("recorder:save", [str(recording)])

    shown = fermata(place, "replay", recording, "--call-id", call_id)
    for pattern in (r"► server: INVITE sip:sql@", r"waits for sql_query select host from targets where name='sql'",
                    r"sql_query = 1 after \d+ ms", r'\$avp\(to\) = "none"', r"t_relay\(\) = 1",
                    r"server\d*\.cfg:\d+: t_relay|server\d*\.cfg:\d+: if \(!t_relay", r"server ──► 127\.0\.0\.1:\d+: INVITE", r"BYE"):
        if not re.search(pattern, shown):
            raise Failed(f"{pattern} is not in\n{shown}")
    if busy in shown:
        raise Failed("another call is shown")
    whole = fermata(place, "replay", recording, "--call-id", call_id, "--messages")
    if f"| Call-ID: {call_id}" not in whole:
        raise Failed(whole)
    # The changed script answers busy calls itself, with what the database said then.
    text = server.config.read_text().replace('t_on_failure("again");', '{ t_reply(486, "To $avp(to)"); exit; }')
    text = text.replace("select host from targets where name='sql'", "select other from targets")
    other = place.dir / "other.cfg"
    other.write_text(text)
    changed = fermata(place, "replay", recording, "--call-id", busy, "--config", other)
    if not re.search(r"server ──► [^ ]+: 486 To 127\.0\.0\.1:\d+", changed):
        raise Failed(changed)
    fermata(place, "replay", place.dir / "calls.db", code=255)


def test_credentials_are_masked_and_the_disk_keeps_the_end(place):
    server = start(place, RECORDER + f'modparam("recorder", "mask_credentials", 1)\nmodparam("recorder", "directory", "{place.dir}/tape")\n')
    phone = place.phone(server)
    challenge = phone.register()
    check(challenge.status, 401)
    nonce = re.search(r'nonce="([^"]+)"', challenge.text)[1]
    import hashlib
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()
    response = md5(f"{md5('alice:example.com:secret')}:{nonce}:{md5('REGISTER:sip:example.com')}")
    header = (f'Authorization: Digest username="alice", realm="example.com", nonce="{nonce}", uri="sip:example.com", '
              f'response="{response}"\r\n')
    check(phone.register(headers=header).status, 200)
    call(phone, "sql", 1)
    recording = place.dir / "calls.rec"
    server.mi("recorder:save", [str(recording)])
    kept = recording.read_bytes()
    if response.encode() in kept or b"secret" in kept.split(b"SIP/2.0", 1)[1]:
        raise Failed("a credential stands in the recording")
    check(recording.stat().st_mode & 0o77, 0)
    # The digest was found right, and is so again.
    server.stop()
    for what in (recording, place.dir / "tape"):
        said = fermata(place, "replay", what, "--verify")
        if "messages as they were sent" not in said:
            raise Failed(said)


def test_a_live_trace(place):
    server = start(place, "")
    url = f"http://127.0.0.1:{server.mi_port}/mi"
    server.mi("ps")
    trace = subprocess.Popen([str(place.program), "trace", "sip:sql@example.com", "--http", url, "--seconds", "6", "--ladder"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    place.ending.callback(trace.kill)
    check("waiting for calls" in trace.stderr.readline(), True)
    phone = place.phone(server)
    call_id, _ = call(phone, "sql", 1)
    other, _ = call(phone, "exec", 2)
    shown, _ = trace.communicate(timeout=DEADLINE)
    for pattern in (rf"== {re.escape(call_id)}", r"► server: INVITE sip:sql@", r"waits for sql_query", r"sql_query = 1 after",
                    r't_relay\(\) = 1', r"server ──► 127\.0\.0\.1:\d+: INVITE", r"│.*INVITE sip:sql"):
        if not re.search(pattern, shown):
            raise Failed(f"{pattern} is not in\n{shown}")
    if other in shown:
        raise Failed("a call that nobody asked for is shown")


def test_top_and_the_profile(place):
    server = start(place, "")
    url = f"http://127.0.0.1:{server.mi_port}/mi"
    server.mi("ps")
    graph, waits = place.dir / "time.svg", place.dir / "waits.svg"
    profile = subprocess.Popen([str(place.program), "profile", "--http", url, "--seconds", "3", "--svg", graph, "--waits-svg", waits],
                               stdout=subprocess.PIPE, text=True)
    place.ending.callback(profile.kill)
    until("it measures", lambda: server.mi("fermata:profile").get("running"))
    calls(place, server, 2)
    shown, _ = profile.communicate(timeout=DEADLINE)
    if not re.search(r"OPERATION\n(.*\n)*.*server0\.cfg:\d+ +sql_query", shown):
        raise Failed(shown)
    for file in (graph, waits):
        xml.dom.minidom.parse(str(file))
    if "sql_query" not in waits.read_text():
        raise Failed("the graph of waits has no sql_query")
    top = fermata(place, "top", "--http", url, "--once")
    if not re.search(r"requests \d+  replies \d+  workers \d+ % busy", top):
        raise Failed(top)
    fermata(place, "top", "--http", "http://127.0.0.1:1/mi", "--once", code=255)


def test_spans_at_a_collector(place):
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    import base64
    server = start(place, 'loadmodule "opentelemetry.so"\nmodparam("opentelemetry", "enable", 1)\n'
                   'modparam("opentelemetry", "service_name", "edge")\n'
                   'modparam("opentelemetry", "exporter_endpoint", "http://127.0.0.1:{HTTP}/v1/traces")\n')
    phone = place.phone(server)
    call_id, status = call(phone, "sql", 1)
    check(status, 200)
    refused, _ = call(phone, "nobody", 2)

    def spans():
        found = []
        for path, kind, body in list(Web.posted):
            check((path, kind), ("/v1/traces", "application/json"))
            data = json.loads(body)
            # The JSON form of OTLP has numbers in hexadecimal where protobuf has base64.
            for resource in data["resourceSpans"]:
                for span in (s for scope in resource["scopeSpans"] for s in scope["spans"]):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in span:
                            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
            request = json_format.ParseDict(data, ExportTraceServiceRequest())
            for resource in request.resource_spans:
                check([(a.key, a.value.string_value) for a in resource.resource.attributes], [("service.name", "edge")])
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found
    attribute = lambda span, name: next((a.value for a in span.attributes if a.key == name), None)
    of = lambda wanted: [s for s in spans() if attribute(s, "sip.call_id").string_value == wanted]
    until("all spans have come", lambda: {s.name for s in of(call_id)} >= {"call", "INVITE request", "BYE request", "sql_query"}
          and {s.name for s in of(refused)} >= {"call", "INVITE request"})
    own = {s.name: s for s in of(call_id)}
    root = own["call"]
    check({len(s.trace_id) for s in own.values()}, {16})
    check({s.trace_id for s in own.values()}, {root.trace_id})
    check((root.parent_span_id, {s.parent_span_id for n, s in own.items() if n != "call"}), (b"", {root.span_id}))
    for span in own.values():
        if not root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano + 10**6:
            times = (root.start_time_unix_nano, span.start_time_unix_nano, span.end_time_unix_nano, root.end_time_unix_nano)
            raise Failed(f"{span.name} is not within its call: {[t - times[0] for t in times]}")
    check(attribute(own["INVITE request"], "sip.response.status_code").int_value, 200)
    line = attribute(own["sql_query"], "code.lineno").int_value
    if "sql_query(" not in server.config.read_text().splitlines()[line - 1]:
        raise Failed(f"line {line} is not the query's")
    check(attribute(next(s for s in of(refused) if s.name == "call"), "sip.response.status_code").int_value, 476)
