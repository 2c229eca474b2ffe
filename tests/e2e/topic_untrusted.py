"""What callers write stays text: in SQL, commands, headers, log lines; management takes nothing from web pages."""
import http.client, json, re
from databases import MariaDb, Postgres
from harness import check, until

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
{GLOBALS}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "textops.so"
loadmodule "json.so"
loadmodule "auth.so"
loadmodule "diversion.so"
loadmodule "path.so"
loadmodule "uac.so"
loadmodule "exec.so"
loadmodule "sqlops.so"
loadmodule "db_sqlite.so"
loadmodule "db_mysql.so"
loadmodule "db_postgres.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sqlops", "db_url", "{URL}")
route {
    $json(m) := $rb;
    $var(x) = $json(m/x);
    {BODY}
}
"""


def start(place, body, url="sqlite://{DIR}/db.sqlite", globals=""):
    return place.server(CONFIG.replace("{BODY}", body).replace("{URL}", url), GLOBALS=globals)


def send(phone, value, method="MESSAGE"):
    phone.cseq += 1
    branch = f"z9hG4bK{phone.cseq}x{phone.address.replace(':', 'p')}"
    body = json.dumps({"x": value})
    return phone.exchange(
        f"{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\nCall-ID: {phone.call_id}{phone.cseq}\r\n"
        f"CSeq: {phone.cseq} {method}\r\nContact: <sip:alice@{phone.address}>\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body.encode())}\r\n\r\n{body}", branch)


VALUES = ["plain", "it's", "' or '1'='1", "'; drop table t; --", "\\", "\\' or 1=1 -- ", "a\"b", "x\\'y", "100%_", "\u00e4\u20ac", "`", "$$x$$", "E'"]


def sql(place, url):
    """Each value finds its own row, by every way to write the query, and nothing else."""
    server = start(place, """
    sql_query("insert into t (name, n) values ('$var(x)', 1)");
    sql_query("select count(*) from t where name = '$var(x)'", "$avp(plain)");
    sql_query_one("select count(*) from t where name = '$(var(x){s.escape.common})'", "$var(own)");
    $var(q) = "select count(*) from t where name = '" + $var(x) + "'";
    sql_query("$var(q)", "$avp(built)");
    sql_select('["count(*)"]', "t", '[{"name": "$var(x)"}]', , "$avp(json)");
    sql_query("delete from t where name = '$var(x)'");
    sql_query("select count(*) from t", "$avp(left)");
    sl_send_reply(200, "$avp(plain) $var(own) $avp(built) $avp(json) $avp(left)");
    """, url)
    phone = place.phone(server)
    for value in VALUES:
        reply = send(phone, value)
        check(reply.text.split("\r\n")[0], "SIP/2.0 200 1 1 1 1 1", value)


def test_sqlite(place):
    place.sqlite("db.sqlite", "create table t (name text, n integer);\ninsert into t values ('other', 1)")
    sql(place, "sqlite://{DIR}/db.sqlite")


def test_postgres(place):
    database = Postgres(place)
    database.account()
    database.sql("create table t (name text, n integer); insert into t values ('other', 1)", "fermata")
    sql(place, database.url())


def test_mariadb(place):
    database = MariaDb(place)
    database.account()
    database.sql("create table t (name varchar(200) character set utf8mb4 collate utf8mb4_bin, n integer); insert into t values ('other', 1)", "fermata")
    sql(place, database.url())


def several(place, url, rows):
    body = """
    $var(rc) = sql_query("insert into t values ('a', 1); insert into t values ('b', 2)");
    $var(x) = sql_query("select n from t where n = $var(x)");
    sl_send_reply(200, "$var(rc) $var(x)");
    """
    server = start(place, body, url)
    reply = send(place.phone(server), "1; delete from t")
    check(reply.text.split("\r\n")[0], "SIP/2.0 200 -1 -1", "refused")
    check(rows(), 1, "nothing was done")
    until("the log says so", lambda: "several statements" in server.log_text())
    allowed = start(place, body, url, "db_multi_statements = 1")
    check(send(place.phone(allowed), "7").text.split("\r\n")[0], "SIP/2.0 200 -2 -2", "allowed")
    check(rows(), 3, "both were done")


def test_several_statements_in_sqlite(place):
    place.sqlite("db.sqlite", "create table t (name text, n integer);\ninsert into t values ('other', 5)")
    several(place, "sqlite://{DIR}/db.sqlite", lambda: place.sqlite("db.sqlite", "select count(*) as n from t")[0]["n"])


def test_several_statements_in_postgres(place):
    database = Postgres(place)
    database.account()
    database.sql("create table t (name text, n integer); insert into t values ('other', 5)", "fermata")
    several(place, database.url(), lambda: int(re.search(r"\d+", database.sql("select count(*) from t", "fermata"))[0]))


def test_several_statements_in_mariadb(place):
    database = MariaDb(place)
    database.account()
    database.sql("create table t (name varchar(200), n integer); insert into t values ('other', 5)", "fermata")
    several(place, database.url(), lambda: int(re.search(r"\d+", database.sql("select count(*) from t", "fermata"))[0]))


def test_commands(place):
    server = start(place, """
    exec("printf '%s|' '$var(x)' \\"$var(x)\\"", , $avp(out));
    sl_send_reply(200, "$avp(out)");
    """)
    phone = place.phone(server)
    for value in [v for v in VALUES if "\u00e4" not in v] + ["$(touch hacked)", "`touch hacked`", "'; touch hacked; '", "\"; touch hacked; \""]:
        check(send(phone, value).text.split("\r\n")[0], f"SIP/2.0 200 {value}|{value}|", value)
    check((place.dir / "hacked").exists(), False, "nothing was run")


EVIL = "x\r\nX-Evil: yes\r\n\r\nbody"

# What a script does with the value, and what must stand in the reply beside it.
REPLIES = {
    "a reason": 'send_reply(480, "$var(x)");',
    "a reason from JSON": 'send_reply(480, "$json(m/x)");',
    "a reason without a transaction": 'sl_send_reply(480, "was $var(x)");',
    "a reason of a transaction": 't_newtran(); t_reply(480, "$var(x)");',
    "a joined reason": '$var(r) = "was " + $var(x) + "!"; send_reply(480, "$var(r)");',
    "an AVP": '$avp(r) = $var(x); send_reply(480, "$avp(r)");',
    "a challenge": 'www_challenge("$var(x)", "auth");',
    "a proxy challenge": 'proxy_challenge("$var(x)", "auth");',
    "a header of the reply": 'append_to_reply("X-Value: $var(x)\\r\\n"); send_reply(480, "No");',
    "a joined header": '$var(h) = "X-Value: " + $var(x) + "\\r\\nX-Two: b\\r\\n"; append_to_reply("$var(h)"); send_reply(480, "No");',
    "a decoded value": '$var(e) = $(var(x){s.encode.hexa}); send_reply(480, "$(var(e){s.decode.hexa})");',
}


def test_replies(place):
    for what, body in REPLIES.items():
        server = start(place, body)
        reply = send(place.phone(server), EVIL)
        head = reply.text.split("\r\n\r\n")[0]
        check(re.findall(r"(?m)^X-Evil", head), [], what)
        check("x X-Evil: yes" in head, True, f"{what}: the text is there: {head}")
        check("b" in reply.header("X-Two"), "X-Two" in body, f"{what}: what the script wrote is meant")
        server.kill()


REQUESTS = {
    "append_hf": 'append_hf("X-Value: $var(x)\\r\\n");',
    "insert_hf": 'insert_hf("X-Value: $var(x)\\r\\n");',
    "append_urihf": 'append_urihf("X-$var(x): ", "\\r\\n");',
    "Record-Route": 'record_route(";p=$var(x)");',
    "add_rr_param": 'record_route(); add_rr_param(";p=$var(x)");',
    "record_route_preset": 'record_route_preset("127.0.0.1;p=$var(x)");',
    "Diversion": 'add_diversion("$var(x)", "sip:a@b;$var(x)");',
    "Remote-Party-ID": '$avp(rpid) = $var(x); append_rpid_hf();',
    "the ends of Remote-Party-ID": '$avp(rpid) = "a"; append_rpid_hf("<sip:$var(x)", "$var(x)>");',
    "Path": 'add_path("$var(x)");',
    "From": 'uac_replace_from("$var(x)", "sip:$var(x)@b");',
    "To": 'uac_replace_to("$var(x)", "sip:$var(x)@b");',
    "the R-URI": '$ru = "sip:" + $var(x) + "@127.0.0.1";',
    "its user": '$rU = $var(x);',
    "its host": '$rd = $var(x);',
    "its parameters": 'ruri_add_param("p=$var(x)");',
    "prefix": 'prefix("$var(x)");',
    "subst": 'subst("/Max-Forwards: .*/Max-Forwards: 9 $var(x)/");',
    "replace": 'replace("Max-Forwards: ..", "Max-Forwards: 69 $var(x)");',
    "search_append": 'search_append("Max-Forwards: ", "$var(x)");',
    "a part's type": 'add_body_part("text", "text/$var(x)", "X-A: $var(x)");',
}


def test_requests(place):
    for what, body in REQUESTS.items():
        server = start(place, f"{body}\n    append_hf(\"X-Two: a\\r\\nX-Three: b\\r\\n\"); $du = \"sip:\" + $hdr(X-To); t_relay();")
        phone, other = place.phone(server), place.phone(server, "bob")
        text = json.dumps({"x": EVIL})
        branch = "z9hG4bK" + str(abs(hash(what)))
        phone.socket.sendto((
            f"MESSAGE sip:bob@{other.address} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
            f"X-To: {other.address}\r\nFrom: <sip:alice@example.com>;tag=f\r\nTo: <sip:bob@example.com>\r\nCall-ID: {phone.call_id}\r\n"
            f"CSeq: 1 MESSAGE\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}").encode(), ("127.0.0.1", server.port))
        got = other.receive("MESSAGE")
        head = got.text.split("\r\n\r\n")[0]
        check(re.findall(r"(?m)^[ \t]*X-Evil", head), [], f"{what}: {head}")
        check((got.header("X-Two"), got.header("X-Three")), ("a", "b"), f"{what}: what the script wrote is meant")
        check(got.text.split(" ")[2][:7], "SIP/2.0", f"{what}: the first line: {head}")
        other.answer(got, 200)
        server.kill()


def test_log_lines(place):
    server = start(place, 'xlog("value: $var(x)\\nsecond: literal\\n"); $var(rc) = sql_query("select \'$var(x)\' from absent"); sl_send_reply(200, "OK");')
    send(place.phone(server), "x\nERROR:core: forged\r\n\x1b[2Jmore")
    log = until("the log", lambda: "no such table" in server.log_text() and server.log_text())
    check([line for line in log.splitlines() if line.startswith("ERROR:core: forged") or "\x1b" in line], [], "no forged line")
    check("value: x\\nERROR:core: forged\\r\\n\\x1b[2Jmore" in log, True, "shown on one line")
    check("second: literal" in log.splitlines(), True, "line ends of the script are line ends")


def test_what_is_not_done_is_said(place):
    """Functions that refuse a value, or cannot send, say so with the line of the script."""
    said = [("prefix($var(x));", "the URI stays as it is"), ("sethost($var(x));", "the URI stays as it is"),
            ('send("udp:nosuch.invalid:5060");', "nothing is sent to sip:nosuch.invalid:5060"),
            ('t_new_request("OPTIONS", "sip:a@nosuch.invalid", "sip:a@h", "sip:b@h");', "nothing is sent to sip:a@nosuch.invalid"),
            ('t_new_request("OPTIONS", "bad", "sip:a@h", "sip:b@h");', "nothing is sent to bad"),
            ("set_advertised_address($var(x));", "is no host"), ("record_route(); record_route();", "a Record-Route was added to this request before")]
    phone = None
    for body, line in said:
        server = start(place, body + ' sl_send_reply(200, "OK");')
        phone = place.phone(server, "alice")
        check(send(phone, "q\r\nX-Evil: 1\r\n").status, 200)
        found = until(line, lambda: [text for text in server.log_text().splitlines() if line in text])
        check("Call-ID " in found[0] and ".cfg:" in found[0], True, found[0])
        server.kill()


def test_management_takes_json_from_its_own_pages_only(place):
    server = start(place, 'sl_send_reply(200, "OK");')
    send(place.phone(server), "x")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "version"})

    def post(kind, **headers):
        link = http.client.HTTPConnection("127.0.0.1", server.mi_port, timeout=20)
        link.request("POST", "/mi", body, {**({"Content-Type": kind} if kind else {}), **headers})
        answer = link.getresponse()
        return answer.status, b"result" in answer.read()
    until("management answers", lambda: server.mi("version"))
    here = f"127.0.0.1:{server.mi_port}"
    for kind in ("application/json", "application/json; charset=utf-8", "application/json-rpc"):
        check(post(kind), (200, True), kind)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        check(post(kind), (415, False), kind)
    check(post("application/json", Origin=f"http://{here}"), (200, True), "our own page")
    for origin in ("http://evil.example", "null", f"http://evil.example:{server.mi_port}", "http://127.0.0.1:1", ""):
        check(post("application/json", Origin=origin), (403, False), origin)
    check(post("application/json", Origin="http://evil.example:80", Host="evil.example:80"), (403, False), "a name that points here")
