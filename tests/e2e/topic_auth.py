"""Digest authentication as a user meets it: qop, algorithms, lifetimes, databases that go away, RADIUS."""
import hashlib, random, re, threading
from harness import check, free_port, until
from databases import MariaDb, Postgres, Server, find

HEAD = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 3
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "auth.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
"""

CONFIG = HEAD + """
loadmodule "{DRIVER}.so"
loadmodule "auth_db.so"
modparam("auth_db", "db_url", "{URL}")
modparam("auth_db", "load_credentials", "$avp(level)=rpid;$avp(mail)=email_address")
{PARAMS}
route {
    if (is_method("OPTIONS")) {
        send_reply(200, "Alive");
        exit;
    }
    if (is_method("INVITE")) {
        if (!proxy_authorize("{REALM}", "subscriber")) {
            append_to_reply("X-Code: $rc\\r\\n");
            proxy_challenge("{REALM}", "{QOP}", "{ALGORITHMS}");
            exit;
        }
        send_reply(200, "OK");
        exit;
    }
    if (!www_authorize("{REALM}", "subscriber")) {
        append_to_reply("X-Code: $rc\\r\\n");
        www_challenge("{REALM}", "{QOP}", "{ALGORITHMS}");
        exit;
    }
    consume_credentials();
    append_to_reply("X-Level: $avp(level) $avp(mail)\\r\\nX-User: $au $ar\\r\\n");
    send_reply(200, "OK");
}
"""

TABLE = """create table subscriber (id {SERIAL}, username varchar(64), domain varchar(64), password varchar(25),
    ha1 varchar(64) default '', ha1_sha256 varchar(64) default '', ha1_sha512t256 varchar(64) default '',
    rpid varchar(64), email_address varchar(64) default '')"""

NAMES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}


def hashed(algorithm, *parts):
    return hashlib.new(NAMES[algorithm.removesuffix("-sess")], ":".join(parts).encode("latin1")).hexdigest()


def rows(*users):
    """Statements that put users (name, domain, password) into the table, with their three hashes."""
    for name, domain, password in users:
        hashes = [hashed(a, name, domain, password) for a in NAMES]
        yield (f"insert into subscriber (username, domain, password, ha1, ha1_sha256, ha1_sha512t256, rpid, email_address) values "
               f"('{name}', '{domain}', '{password}', '{hashes[0]}', '{hashes[1]}', '{hashes[2]}', 'gold', '{name}@mail')")


def start(place, params="", qop="auth", algorithms="MD5", realm="example.com", url="sqlite://{DIR}/db.sqlite", driver="db_sqlite"):
    if driver == "db_sqlite":
        table = TABLE.replace("{SERIAL}", "integer primary key")
        place.sqlite("db.sqlite", ";\n".join([table, *rows(("alice", "example.com", "secret"), ("bob", "other.org", "builder"))]))
    config = CONFIG.replace("{URL}", url)
    return place.server(config, DRIVER=driver, PARAMS=params, QOP=qop, ALGORITHMS=algorithms, REALM=realm)


PLAIN = 'modparam("auth_db", "calculate_ha1", 1)\nmodparam("auth_db", "password_column", "password")\n'


def fields(challenge):
    return {name: quoted or plain for name, quoted, plain in re.findall(r'([\w-]+)=(?:"([^"]*)"|([^,\s]+))', challenge)}


def answer(challenge, user="alice", password="secret", qop="auth", method="REGISTER", uri="sip:example.com", nc=1, body="",
           header="Authorization", **more):
    """The header that answers a challenge; `more` replaces fields of it."""
    asked = fields(challenge)
    algorithm = asked.get("algorithm", "MD5")
    ha1 = hashed(algorithm, user, asked["realm"], password)
    if algorithm.endswith("-sess"):
        ha1 = hashed(algorithm, ha1, asked["nonce"], "cn")
    ha2 = hashed(algorithm, method, uri, *([hashed(algorithm, body)] if qop == "auth-int" else []))
    parts = [ha1, asked["nonce"], *([f"{nc:08x}", "cn", qop] if qop else []), ha2]
    given = {"username": user, "realm": asked["realm"], "nonce": asked["nonce"], "uri": uri, "response": hashed(algorithm, *parts), **more}
    text = ", ".join(f'{k}="{v}"' for k, v in given.items()) + f", algorithm={algorithm}"
    text += f', qop={qop}, nc={nc:08x}, cnonce="cn"' if qop else ', cnonce="cn"' if algorithm.endswith("-sess") else ""
    return f"{header}: Digest {text}\r\n"


def send(phone, headers="", body="", method="REGISTER", uri="sip:example.com", call_id=None):
    """A request with a body, which the harness's phone does not have."""
    phone.cseq += 1
    branch = f"z9hG4bK{random.getrandbits(60):x}"
    text = (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@example.com>;tag=f{branch[-6:]}\r\nTo: <sip:alice@example.com>\r\nCall-ID: {call_id or phone.call_id}\r\n"
            f"CSeq: {phone.cseq} {method}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    return phone.exchange(text, branch)


def challenged(phone, **more):
    reply = send(phone, **more)
    check(reply.status in (401, 407), True, f"a challenge, not {reply.status}")
    return re.findall(r"(?im)^(?:WWW|Proxy)-Authenticate: (.*?)\r?$", reply.text)


def test_the_body_is_protected_by_auth_int(place):
    server = start(place, PLAIN, qop="auth,auth-int")
    phone = place.phone(server)
    challenge = challenged(phone)[0]
    check(set(fields(challenge)["qop"].split(",")), {"auth", "auth-int"})
    good = answer(challenge, qop="auth-int", body="hello")
    check(send(phone, good, "hello").status, 200, "auth-int")
    fresh = challenged(phone)[0]
    tampered = send(phone, answer(fresh, qop="auth-int", body="hello"), "jello")
    check((tampered.status, tampered.header("X-Code")), (401, "-2"), "a changed body")
    check(send(phone, answer(challenged(phone)[0], qop="auth"), "anything").status, 200, "auth does not look at the body")
    check(send(phone, answer(challenged(phone)[0], qop="auth-int")).status, 200, "auth-int without a body")


def test_without_qop(place):
    server = start(place, PLAIN, qop="", algorithms="")
    phone = place.phone(server)
    challenge = challenged(phone)[0]
    check(("qop" in fields(challenge), "algorithm" in fields(challenge)), (False, False), "as RFC 2069 has it")
    check(send(phone, answer(challenge, qop=None)).status, 200)
    again = send(phone, answer(challenge, qop=None))
    check((again.status, fields(again.header("WWW-Authenticate")).get("stale")), (401, "true"), "a nonce is good for one request")


def test_hashes_of_the_table(place):
    """calculate_ha1 off: the columns hold the hashes, one for each kind of algorithm; -sess too."""
    server = start(place, algorithms="MD5,SHA-256,SHA-512-256,MD5-sess,SHA-256-sess,SHA-512-256-sess")
    phone = place.phone(server)
    challenges = challenged(phone)
    check({fields(c)["algorithm"] for c in challenges}, {a + s for a in NAMES for s in ("", "-sess")})
    for challenge in challenges:
        check(send(phone, answer(challenge)).status, 200, challenge)
        wrong = send(phone, answer(challenge, password="guess", nc=2))
        check((wrong.status, wrong.header("X-Code")), (401, "-2"), challenge)


def test_what_is_known_of_who_came(place):
    server = start(place, PLAIN)
    phone = place.phone(server)
    reply = send(phone, answer(challenged(phone)[0]))
    check((reply.status, reply.header("X-Level"), reply.header("X-User")), (200, "gold alice@mail", "alice example.com"))
    stranger = send(phone, answer(challenged(phone)[0], user="nobody"))
    check((stranger.status, stranger.header("X-Code")), (401, "-1"), "no such user")
    other = send(phone, answer(challenged(phone)[0], realm="elsewhere.org"))
    check((other.status, other.header("X-Code")), (401, "-4"), "credentials for another realm are none")
    domain = send(phone, answer(challenged(phone)[0], user="bob", password="builder"))
    check((domain.status, domain.header("X-Code")), (401, "-1"), "bob is at other.org")


def test_domains_do_not_count(place):
    server = start(place, PLAIN + 'modparam("auth_db", "use_domain", 0)\n')
    phone = place.phone(server)
    check(send(phone, answer(challenged(phone)[0], user="bob", password="builder")).status, 200, "bob of any domain")


def test_a_nonce_gets_old(place):
    server = start(place, PLAIN + 'modparam("auth", "nonce_expire", 1)\n')
    phone = place.phone(server)
    challenge = challenged(phone)[0]
    count = iter(range(1, 10_000))

    def stale():
        reply = send(phone, answer(challenge, nc=next(count)))
        return reply if reply.status == 401 else None
    late = until("the nonce is too old", stale)
    check((late.header("X-Code"), fields(late.header("WWW-Authenticate"))["stale"]), ("-3", "true"))
    # The user is not asked for the password again: the new nonce does.
    check(send(phone, answer(late.header("WWW-Authenticate"))).status, 200)


def test_calls_ask_for_a_password_too(place):
    server = start(place, PLAIN)
    phone = place.phone(server)
    uri = "sip:bob@example.com"
    challenge = challenged(phone, method="INVITE", uri=uri)[0]
    good = answer(challenge, method="INVITE", uri=uri, header="Proxy-Authorization")
    check(send(phone, good, method="INVITE", uri=uri, call_id="with").status, 200)
    check(send(phone, good, method="INVITE", uri="sip:carol@example.com", call_id="moved").status, 407, "made for another URI")


def test_nonsense_gets_400(place):
    server = start(place, PLAIN)
    phone = place.phone(server)
    challenge = fields(challenged(phone)[0])
    full = answer(challenged(phone)[0])
    for what, bad in [
        ("no response", re.sub(r'response="[^"]*", ', "", full)),
        ("no nonce", re.sub(r'nonce="[^"]*", ', "", full)),
        ("no username", re.sub(r'username="[^"]*", ', "", full)),
        ("a short response", re.sub(r'response="[^"]*"', 'response="abc"', full)),
        ("an open quote", full.replace('username="alice"', 'username="alice')),
        ("only a scheme", "Authorization: Digest\r\n"),
        ("a bad count", full.replace("nc=00000001", "nc=zz")),
    ]:
        check(send(phone, bad, call_id=what.replace(" ", "-")).status, 400, what)
    check(send(phone, "Authorization: Basic YWxpY2U6c2VjcmV0\r\n").status, 401, "another scheme is no Digest")
    check(challenge["realm"], "example.com")


def test_guessing_gets_nowhere(place):
    """Many guesses from several places at once, each on a nonce of its own and on shared ones."""
    server = start(place, PLAIN)
    codes, shared = [], challenged(place.phone(server))[0]

    def guess(n):
        phone = place.phone(server, f"g{n}")
        for m in range(25):
            challenge = shared if m % 2 else challenged(phone, call_id=f"{n}-{m}")[0]
            codes.append(send(phone, answer(challenge, password=f"{n}{m}", nc=m + 1), call_id=f"{n}-{m}").status)
    threads = [threading.Thread(target=guess, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check((len(codes), set(codes)), (100, {401}))
    phone = place.phone(server)
    check(send(phone, answer(shared)).status, 200, "wrong answers do not use up the nonce of who knows the password")


def goes_away(place, kind, driver):
    daemon = kind(place)
    daemon.account()
    serial = "serial primary key" if kind is Postgres else "int auto_increment primary key"
    for statement in [TABLE.replace("{SERIAL}", serial), *rows(("alice", "example.com", "secret"))]:
        daemon.sql(statement, "fermata")
    server = start(place, PLAIN, url=daemon.url(), driver=driver)
    phone = place.phone(server)
    check(send(phone, answer(challenged(phone)[0])).header("X-Level"), "gold alice@mail")
    challenge = challenged(phone)[0]
    daemon.kill()
    down = send(phone, answer(challenge))
    check((down.status, down.header("X-Code")), (401, "-5"), "the documented code for an error")
    check(place.phone(server).request("OPTIONS", "sip:x@example.com").status, 200, "others play on")
    daemon.start()
    back = lambda: send(phone, answer(challenged(phone)[0])).status == 200
    until("users come in again", back)


def test_mariadb_goes_away(place):
    goes_away(place, MariaDb, "db_mysql")


def test_postgres_goes_away(place):
    goes_away(place, Postgres, "db_postgres")


class Freeradius(Server):
    """FreeRADIUS with its own digest module, and accounting written to its detail file."""
    name = "freeradius"

    def install(self):
        self.acct = free_port()
        (self.home / "radiusd.conf").write_text(f"""
prefix = {self.home}
localstatedir = {self.home}
raddbdir = {self.home}
logdir = {self.home}
run_dir = {self.home}
libdir = /usr/lib/freeradius
pidfile = {self.home}/pid
log {{
 destination = files
 file = {self.home}/radius.log
}}
client test {{
 ipaddr = 127.0.0.1
 secret = testing123
}}
modules {{
 digest {{
 }}
 files {{
  filename = {self.home}/users
 }}
 detail {{
  filename = {self.home}/detail
 }}
}}
server default {{
 listen {{
  type = auth
  ipaddr = 127.0.0.1
  port = {self.port}
 }}
 listen {{
  type = acct
  ipaddr = 127.0.0.1
  port = {self.acct}
 }}
 authorize {{
  digest
  files
 }}
 authenticate {{
  digest
 }}
 accounting {{
  detail
 }}
}}
""")
        (self.home / "users").write_text('alice@example.com Cleartext-Password := "secret"\n  SIP-AVP = "level:gold"\n'
                                         'alice Cleartext-Password := "secret"\n')
        (self.home / "dictionary").write_text(
            "ATTRIBUTE SIP-AVP 225 string\n")
        # The client side: names as OpenSIPS's own dictionary has them.
        (self.home / "client.dictionary").write_text(CLIENT_DICTIONARY)
        (self.home / "client.conf").write_text(
            f"authserver 127.0.0.1:{self.port}:testing123\nacctserver 127.0.0.1:{self.acct}:testing123\n"
            f"dictionary {self.home}/client.dictionary\nradius_timeout 2\nradius_retries 2\n")

    def command(self):
        return [find("freeradius"), "-f", "-d", self.home]

    def answers(self):
        log = self.home / "radius.log"
        return log.exists() and "Ready to process requests" in log.read_text()

    def detail(self):
        """The records of accounting, each a dictionary."""
        path = self.home / "detail"
        blocks = re.split(r"\n\n+", path.read_text()) if path.exists() else []
        pairs = [dict(re.findall(r'(?m)^\t([\w-]+) = "?(.*?)"?$', block)) for block in blocks]
        return [p for p in pairs if p]


CLIENT_DICTIONARY = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Event-Timestamp 55 date
ATTRIBUTE Sip-Method 101 string
ATTRIBUTE Sip-Response-Code 102 string
ATTRIBUTE Sip-From-Tag 105 string
ATTRIBUTE Sip-To-Tag 104 string
ATTRIBUTE SIP-AVP 225 string
ATTRIBUTE Digest-Response 206 string
ATTRIBUTE Digest-Attributes 207 string
ATTRIBUTE Digest-Realm 1063 string
ATTRIBUTE Digest-Nonce 1064 string
ATTRIBUTE Digest-Method 1065 string
ATTRIBUTE Digest-URI 1066 string
ATTRIBUTE Digest-QOP 1067 string
ATTRIBUTE Digest-Algorithm 1068 string
ATTRIBUTE Digest-Body-Digest 1069 string
ATTRIBUTE Digest-CNonce 1070 string
ATTRIBUTE Digest-Nonce-Count 1071 string
ATTRIBUTE Digest-User-Name 1072 string
VALUE Service-Type Sip-Session 15
VALUE Acct-Status-Type Start 1
VALUE Acct-Status-Type Stop 2
VALUE Acct-Status-Type Failed 15
"""


def test_freeradius_checks_digests(place):
    daemon = Freeradius(place)
    server = place.server(HEAD + """
loadmodule "aaa_radius.so"
loadmodule "auth_aaa.so"
modparam("auth_aaa", "aaa_url", "radius:{CONF}")
route {
    if (!aaa_www_authorize("example.com")) {
        append_to_reply("X-Code: $rc\\r\\n");
        www_challenge("example.com", "auth");
        exit;
    }
    append_to_reply("X-Level: $avp(level)\\r\\n");
    send_reply(200, "OK");
}
""", CONF=daemon.home / "client.conf")
    phone = place.phone(server)
    reply = send(phone, answer(challenged(phone)[0]))
    check((reply.status, reply.header("X-Level")), (200, "gold"), "FreeRADIUS accepts")
    wrong = send(phone, answer(challenged(phone)[0], password="guess"))
    check((wrong.status, wrong.header("X-Code")), (401, "-2"), "FreeRADIUS rejects")
    challenge = challenged(phone)[0]
    daemon.kill()
    down = send(phone, answer(challenge))
    check((down.status, down.header("X-Code") in ("-5", "-2")), (401, True), f"no server: {down.header('X-Code')}")
