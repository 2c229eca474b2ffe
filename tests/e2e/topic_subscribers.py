"""Subscribers: digest with clients that are not ours, accounting, addresses, this server as somebody's client."""
import hashlib, hmac, re, shutil, socket, subprocess, threading
from harness import Failed, check, free_port, until

HEAD = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
"""

REGISTRAR = HEAD + """
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("auth_db", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("auth_db", "calculate_ha1", 1)
modparam("auth_db", "password_column", "password")
modparam("usrloc", "working_mode_preset", "single-instance-no-db")
route {
    if (!www_authorize("example.com", "subscriber")) {
        www_challenge("example.com", "auth", "{ALGORITHMS}");
        exit;
    }
    consume_credentials();
    save("location");
    exit;
}
"""

SUBSCRIBERS = """
create table subscriber (id integer primary key, username varchar(64), domain varchar(64), password varchar(25),
    ha1 varchar(64) default '', ha1_sha256 varchar(64) default '', ha1_sha512t256 varchar(64) default '');
insert into subscriber (username, domain, password) values ('alice', 'example.com', 'secret')
"""

SCENARIO = """<?xml version="1.0"?>
<scenario name="register with digest">
  <send retrans="500"><![CDATA[
    REGISTER sip:example.com SIP/2.0
    Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
    From: <sip:alice@example.com>;tag=[call_number]
    To: <sip:alice@example.com>
    Call-ID: [call_id]
    CSeq: 1 REGISTER
    Contact: <sip:alice@[local_ip]:[local_port]>
    Content-Length: 0

  ]]></send>
  <recv response="401" auth="true"/>
  <send retrans="500"><![CDATA[
    REGISTER sip:example.com SIP/2.0
    Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
    From: <sip:alice@example.com>;tag=[call_number]
    To: <sip:alice@example.com>
    Call-ID: [call_id]
    CSeq: 2 REGISTER
    Contact: <sip:alice@[local_ip]:[local_port]>
    [authentication]
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"""


def registrar(place, algorithms="MD5"):
    place.sqlite("db.sqlite", SUBSCRIBERS)
    return place.server(REGISTRAR, ALGORITHMS=algorithms)


def sipp(place, server, password, calls):
    (place.dir / "register.xml").write_text(SCENARIO)
    command = ["sipp", f"127.0.0.1:{server.port}", "-sf", "register.xml", "-i", "127.0.0.1", "-p", str(free_port()), "-au", "alice",
               "-ap", password, "-m", str(calls), "-l", "10", "-r", "50", "-nostdin", "-recv_timeout", "5000"]
    done = subprocess.run(command, cwd=place.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    return done.returncode


def test_sipp_is_authenticated(place):
    server = registrar(place)
    check(sipp(place, server, "secret", 50), 0, "SIPp with the right password")
    check(sipp(place, server, "guess", 3) == 0, False, "SIPp with a wrong password")


def test_sipsak_is_authenticated(place):
    if not shutil.which("sipsak"):
        raise Failed("sipsak is missing")
    server = registrar(place)
    for password, good in [("secret", True), ("guess", False)]:
        done = subprocess.run(["sipsak", "-U", "-C", "sip:alice@127.0.0.1:5999", "-x", "60", "-s", f"sip:alice@127.0.0.1:{server.port}", "-u", "alice",
                               "-a", password, "-H", "127.0.0.1", "-l", str(free_port())], cwd=place.dir, capture_output=True, timeout=60)
        check(done.returncode == 0, good, f"sipsak with {password}")


def hashed(algorithm, *parts):
    name = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}[algorithm]
    return hashlib.new(name, ":".join(parts).encode()).hexdigest()


def answer(challenge, password, nc=1, uri="sip:example.com"):
    """The Authorization header that answers one challenge."""
    field = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge.split("Digest", 1)[1]))
    algorithm = field.get("algorithm", "MD5")
    ha1 = hashed(algorithm, "alice", field["realm"], password)
    ha2 = hashed(algorithm, "REGISTER", uri)
    response = hashed(algorithm, ha1, field["nonce"], f"{nc:08x}", "c", "auth", ha2)
    return (f'Authorization: Digest username="alice", realm="{field["realm"]}", nonce="{field["nonce"]}", uri="{uri}", '
            f'response="{response}", algorithm={algorithm}, qop=auth, nc={nc:08x}, cnonce="c"\r\n')


def test_replays_guesses_and_nonsense_are_refused(place):
    server = registrar(place)
    phone = place.phone(server)
    challenge = phone.register().header("WWW-Authenticate")
    good = answer(challenge, "secret")
    check(phone.register(headers=good).status, 200, "the right answer")
    # Call-IDs decide the worker: the others know of the used nonce too.
    for n in range(8):
        again = phone.register(headers=good, call_id=f"replay-{n}")
        check((again.status, "stale=true" in again.header("WWW-Authenticate")), (401, True), "the same answer again")
    check(phone.register(headers=answer(challenge, "secret", nc=2)).status, 200, "the nonce with a higher count")
    for guess in ["", "a", "Secret"]:
        fresh = phone.register().header("WWW-Authenticate")
        check(phone.register(headers=answer(fresh, guess)).status, 401, f"the password {guess!r}")
    made_up = re.sub('nonce="[^"]*"', 'nonce="made up"', challenge)
    check(phone.register(headers=answer(made_up, "secret")).status, 401, "a nonce that is not ours")
    for bad in ["Digest blah", 'Digest username="alice', "Digest username=alice, realm=\"example.com\""]:
        check(phone.register(headers=f"Authorization: {bad}\r\n").status, 400, bad)


def test_algorithms_of_rfc_8760(place):
    server = registrar(place, "MD5,SHA-256,SHA-512-256")
    phone = place.phone(server)
    challenges = re.findall(r"(?im)^WWW-Authenticate: (.*?)\r?$", phone.register().text)
    check([re.search("algorithm=([^,]*)", c)[1] for c in challenges], ["SHA-512-256", "SHA-256", "MD5"], "strongest first")
    for challenge in challenges:
        check(phone.register(headers=answer(challenge, "secret")).status, 200, challenge)


CLIENT = HEAD + """
loadmodule "uac_auth.so"
loadmodule "uac_registrant.so"
modparam("uac_registrant", "db_url", "sqlite://{DIR}/client.sqlite")
modparam("uac_registrant", "hash_size", 0)
modparam("uac_registrant", "timer_interval", 1)
modparam("uac_registrant", "failure_retry_interval", 1)
route { }
"""


def test_registers_itself_elsewhere(place):
    home = registrar(place, "SHA-256")
    rows = ", ".join(f"('sip:127.0.0.1:{home.port}', 'sip:alice@example.com', 'alice', '{password}', 'sip:{contact}@127.0.0.1', 60)"
                     for contact, password in [("good", "secret"), ("bad", "guess")])
    place.sqlite("client.sqlite", f"""
create table registrant (id integer primary key, registrar varchar(255), proxy varchar(255), aor varchar(255),
    third_party_registrant varchar(255), username varchar(64), password varchar(64), binding_URI varchar(255),
    binding_params varchar(64), expiry int, forced_socket varchar(64), cluster_shtag varchar(64), state int default 0);
insert into registrant (registrar, aor, username, password, binding_URI, expiry) values {rows}""")
    client = place.server(CLIENT)

    def states():
        listed = client.mi("reg_list").get("Records", [])
        found = {r["binding"]: r["state"] for r in listed}
        return found if found.get("sip:good@127.0.0.1") == "REGISTERED_STATE" and found["sip:bad@127.0.0.1"] == "WRONG_CREDENTIALS_STATE" else None
    until("one is registered, one is refused", states)
    check("sip:good@127.0.0.1" in str(home.mi("ul_dump")), True, "the registrar knows the contact")
    check("sip:bad@127.0.0.1" in str(home.mi("ul_dump")), False, "but not the other")
    who = {"aor": "sip:alice@example.com", "contact": "sip:good@127.0.0.1", "registrar": f"sip:127.0.0.1:{home.port}"}
    check(client.mi("uac_registrant:disable", who), "OK", "disable")
    until("the contact is gone", lambda: "sip:good@127.0.0.1" not in str(home.mi("ul_dump")))
    until("the table says so", lambda: place.sqlite("client.sqlite", "select state from registrant order by id")[0]["state"] == 1)


PROXY = HEAD + """
loadmodule "acc.so"
loadmodule "permissions.so"
modparam("acc", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("acc", "extra_fields", "db: caller")
modparam("permissions", "db_url", "sqlite://{DIR}/db.sqlite")
route {
    if (!check_source_address(1)) {
        acc_log_request("403 Unknown address");
        send_reply(403, "Forbidden");
        exit;
    }
    if (is_method("INVITE")) {
        do_accounting("db|log", "missed");
        $acc_extra(caller) = $fU;
    }
    $du = "sip:{CALLEE}";
    t_relay();
}
"""

ACCOUNTS = """
create table acc (id integer primary key, method char(16), from_tag char(64), to_tag char(64), callid char(64), sip_code char(3),
    sip_reason char(32), time datetime, duration int default 0, ms_duration int default 0, setuptime int default 0, created datetime,
    caller char(64));
create table missed_calls (id integer primary key, method char(16), from_tag char(64), to_tag char(64), callid char(64),
    sip_code char(3), sip_reason char(32), time datetime, setuptime int default 0, created datetime, caller char(64));
create table address (id integer primary key, grp int, ip char(50), mask int default 32, port int default 0,
    proto char(4) default 'any', pattern char(64), context_info char(32))
"""


def test_calls_are_accounted_and_addresses_let_in(place):
    place.sqlite("db.sqlite", ACCOUNTS)

    class Callee:
        port = 0
    callee = place.phone(Callee, "bob", "127.0.0.3")
    server = place.server(PROXY, CALLEE=callee.address)
    callee.server = server
    caller = place.phone(server)
    check(caller.request("INVITE", "sip:bob@example.com").status, 403, "an unknown address")
    place.sqlite("db.sqlite", "insert into address (grp, ip, mask) values (1, '127.0.0.0', 8)")
    check(server.mi("permissions:address_reload"), "OK", "address_reload")
    check(server.mi("subnet_dump")["Partitions"][0]["Destinations"][0]["mask"], "255.0.0.0", "the network")
    for status, table in [(200, "acc"), (486, "missed_calls")]:
        results = []
        thread = threading.Thread(target=lambda: results.append(caller.request("INVITE", "sip:bob@example.com", call_id=f"call-{status}")))
        thread.start()
        callee.answer(callee.receive("INVITE"), status)
        thread.join()
        check(results[0].status, status, "the call")
        rows = until(f"a row in {table}", lambda: place.sqlite("db.sqlite", f"select callid, sip_code, caller from {table}"))
        check(rows, [{"callid": f"call-{status}", "sip_code": str(status), "caller": "alice"}], table)
    log = server.log_text()
    check("ACC: request accounted: timestamp=" in log and ";code=403;reason=Unknown address" in log, True, "the line of the request")
    check("ACC: transaction answered: timestamp=" in log, True, "the line of the call")
    check("ACC: call missed: timestamp=" in log, True, "the line of the missed call")


class RadiusServer:
    """A small RADIUS server that knows one user and checks digests (RFC 5090 numbers)."""

    def __init__(self, secret):
        self.secret, self.asked = secret, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                data, client = self.socket.recvfrom(4096)
            except OSError:
                return
            attributes, at = {}, 20
            while at < len(data):
                attributes[data[at]] = data[at + 2:at + data[at + 1]]
                at += data[at + 1]
            text = {number: value.decode(errors="replace") for number, value in attributes.items()}
            self.asked.append(text)
            ha1 = hashed("MD5", text[115], text[104], "secret")
            ha2 = hashed("MD5", text[108], text[109])
            right = hashed("MD5", ha1, text[105], text[114], text[113], text[110], ha2) == text[103]
            body = bytes([225, 2 + len(b"level:gold")]) + b"level:gold" if right else b""
            # Message-Authenticator stands first (RFC 2869 over the answer with the request's authenticator).
            head = bytes([2 if right else 3, data[1]])
            blank = bytes([80, 18]) + bytes(16)
            length = (20 + len(blank) + len(body)).to_bytes(2, "big")
            mac = hmac.new(self.secret, head + length + data[4:20] + blank + body, "md5").digest()
            body = bytes([80, 18]) + mac + body
            authenticator = hashlib.md5(head + length + data[4:20] + body + self.secret).digest()
            self.socket.sendto(head + length + authenticator + body, client)


def test_radius_checks_digests(place):
    radius = RadiusServer(b"testing123")
    place.ending.callback(radius.socket.close)
    names = {1: "User-Name", 103: "Digest-Response", 104: "Digest-Realm", 105: "Digest-Nonce", 108: "Digest-Method", 109: "Digest-URI",
             110: "Digest-QOP", 111: "Digest-Algorithm", 113: "Digest-CNonce", 114: "Digest-Nonce-Count", 115: "Digest-Username",
             225: "SIP-AVP"}
    lines = [f"ATTRIBUTE {name} {number} string" for number, name in names.items()] + ["ATTRIBUTE Service-Type 6 integer"]
    (place.dir / "dictionary").write_text("\n".join(lines) + "\n")
    (place.dir / "radius.conf").write_text(
        f"authserver 127.0.0.1:{radius.port}:testing123\ndictionary {place.dir}/dictionary\nradius_timeout 1\nradius_retries 2\n")
    server = place.server(HEAD + """
loadmodule "aaa_radius.so"
loadmodule "auth.so"
loadmodule "auth_aaa.so"
modparam("auth_aaa", "aaa_url", "radius:{DIR}/radius.conf")
route {
    if (!aaa_www_authorize("example.com")) {
        www_challenge("example.com", "auth");
        exit;
    }
    append_to_reply("X-Level: $avp(level)\\r\\n");
    sl_send_reply(200, "OK");
}
""")
    phone = place.phone(server)
    challenge = phone.register().header("WWW-Authenticate")
    good = answer(challenge, "secret")
    reply = phone.register(headers=good)
    check((reply.status, reply.header("X-Level")), (200, "gold"), "the right answer")
    check((radius.asked[-1][1], radius.asked[-1][108]), ("alice@example.com", "REGISTER"), "what RADIUS was asked")
    check(phone.register(headers=good).status, 401, "the same answer again")
    fresh = phone.register().header("WWW-Authenticate")
    check(phone.register(headers=answer(fresh, "guess")).status, 401, "a wrong password")


KAMAILIO = """
debug=2
log_stderror=yes
fork=yes
children=1
disable_tcp=yes
listen=udp:127.0.0.1:{KPORT}
mpath="{MODULES}"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("auth", "nonce_expire", 2)
modparam("registrar", "max_expires", 5)
request_route {
    if (!is_method("REGISTER")) {
        sl_send_reply("405", "Only registrations");
        exit;
    }
    if (!pv_www_authenticate("$td", "secret", "0")) {
        www_challenge("$td", "1");
        exit;
    }
    xlog("L_WARN", "GOT $ct expires $hdr(Expires)\\n");
    save("location");
}
"""


def test_registers_itself_at_kamailio(place):
    """Another program's registrar: digest with qop, a shorter expiry than asked for, nonces that get old."""
    import glob
    if not shutil.which("kamailio"):
        raise Failed("kamailio is not installed: tests/run installs it")
    modules = next(iter(glob.glob("/usr/lib/*/kamailio/modules")))
    port = free_port()
    (place.dir / "kamailio.cfg").write_text(KAMAILIO.replace("{KPORT}", str(port)).replace("{MODULES}", modules))
    (place.dir / "kamailio").mkdir()
    log = place.dir / "kamailio.log"
    place.process("kamailio", "-f", place.dir / "kamailio.cfg", "-DD", "-E", "-Y", place.dir / "kamailio", "-m", "32", "-M", "8",
                  stdout=open(log, "w"), stderr=subprocess.STDOUT)
    place.sqlite("client.sqlite", f"""
create table registrant (id integer primary key, registrar varchar(255), proxy varchar(255), aor varchar(255),
    third_party_registrant varchar(255), username varchar(64), password varchar(64), binding_URI varchar(255),
    binding_params varchar(64), expiry int, forced_socket varchar(64), cluster_shtag varchar(64), state int default 0);
insert into registrant (registrar, aor, username, password, binding_URI, binding_params, expiry) values
    ('sip:127.0.0.1:{port}', 'sip:alice@example.com', 'alice', 'secret', 'sip:alice@127.0.0.1:5099', ';q=0.5', 60)""")
    client = place.server(CLIENT)
    listed = lambda: next(iter(client.mi("reg_list").get("Records", [])), {})
    until("it is registered", lambda: listed().get("state") == "REGISTERED_STATE")
    found = listed()
    check((found["expires"], found["dst_IP"], found["ip"], found["socket"]),
          (5, "IPv4", "127.0.0.1", f"udp:127.0.0.1:{client.port}"), "Kamailio grants 5 seconds")
    name = f"aor=sip:alice@example.com;contact=sip:alice@127.0.0.1:5099;registrar=sip:127.0.0.1:{port}"
    check(client.mi("sr_get_status", ["uac_registrant", name])["Readiness"], True)
    until("again before they are over, with a fresh nonce", lambda: log.read_text().count("GOT") >= 3, 30)
    check(listed()["state"], "REGISTERED_STATE")
    who = {"aor": "sip:alice@example.com", "contact": "sip:alice@127.0.0.1:5099", "registrar": f"sip:127.0.0.1:{port}"}
    check(client.mi("reg_disable", who), "OK")
    until("it says goodbye", lambda: "expires=0" in log.read_text())
    until("it is gone", lambda: listed()["state"] == "NOT_REGISTERED_STATE")
    before = log.read_text().count("GOT")
    check(client.mi("reg_enable", who), "OK")
    until("and comes back", lambda: listed()["state"] == "REGISTERED_STATE")
    check(client.mi("reg_force_register", who), "OK")
    until("forced", lambda: log.read_text().count("GOT") >= before + 2)
    check(client.mi("reg_delete", who), "OK")
    check(client.mi("reg_list"), {"Records": []})
