"""Directories and RADIUS from scripts, and what happens when their servers fail."""
import subprocess
from asking import Asking, lines, plays_on, said_once
from databases import Server, certificates, find, full, quiet, silent
from harness import check, free_port, until

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
loadmodule "sipmsgops.so"
{MODULES}
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    {BODY}
    append_to_reply("X-Rc: $rc\\r\\n");
    append_to_reply("X-Value: $avp(v)\\r\\n");
    t_reply(200, "Done");
}
"""


def ask(place, server, n=0):
    reply = place.phone(server, ip=f"127.0.0.{n % 200 + 3}").request("MESSAGE", "sip:bob@example.com")
    check(reply.status, 200)
    return int(reply.header("X-Rc")), reply.header("X-Value")


def asking_of(place, server, count):
    return Asking(lambda n: ask(place, server, n), range(count))


class Slapd(Server):
    name = "slapd"

    def __init__(self, place, settings="", secure=()):
        """`settings`: further lines of slapd.conf; `secure`: the port of ldaps."""
        self.settings, self.secure = settings, secure
        super().__init__(place)

    def install(self):
        (self.home / "slapd.conf").write_text(f"""
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
{self.settings}
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example,dc=com"
rootdn "cn=admin,dc=example,dc=com"
rootpw secret
directory {self.home}
""")
        (self.home / "entries").write_text("""
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=Bob,dc=example,dc=com
objectClass: inetOrgPerson
cn: Bob
sn: Builder
uid: bob
mail: sip:bob@home
""")
        quiet(find("slapadd"), "-f", self.home / "slapd.conf", "-l", self.home / "entries")

    def command(self):
        urls = " ".join([f"ldap://127.0.0.1:{self.port}", *(f"ldaps://127.0.0.1:{port}" for port in self.secure)])
        return [find("slapd"), "-d", "0", "-h", urls, "-f", self.home / "slapd.conf"]

    def answers(self):
        done = subprocess.run([find("slapd"), "-VV"], capture_output=True)
        return done.returncode == 0 and not subprocess.run(
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{self.port}"], capture_output=True).returncode


def directory(place, ports, more="", body='ldap_search("ldap://dir/dc=example,dc=com??sub?(uid=$rU)");'):
    urls = ", ".join(f"ldap://127.0.0.1:{port}" for port in ports)
    (place.dir / "ldap.cfg").write_text(f"""[dir]
ldap_server_url = "{urls}"
ldap_network_timeout = 500
ldap_client_bind_timeout = 500
ldap_client_search_timeout = 2000
{more}
""")
    modules = f'loadmodule "ldap.so"\nmodparam("ldap", "config_file", "{place.dir}/ldap.cfg")'
    body += '\n    $var(rc) = $rc;\n    ldap_result("mail", $avp(v));\n    $avp(rc) = $var(rc);'
    config = CONFIG.replace("X-Rc: $rc", "X-Rc: $avp(rc)")
    return place.server(config, MODULES=modules, BODY=body)


def test_directory_killed_under_load_and_restarted(place):
    slapd = Slapd(place)
    server = directory(place, [slapd.port])
    check(ask(place, server), (1, "sip:bob@home"))
    asking = asking_of(place, server, 60)
    slapd.kill()
    plays_on(place, server)
    check(set(asking.codes()) <= {1, -2}, True)
    check(ask(place, server), (-2, "<null>"))
    said_once(server, "is unreachable")
    slapd.start()
    until("the directory is used again", lambda: ask(place, server)[0] == 1)
    said_once(server, "is reachable again")


def test_paused_directory_ends_with_its_timeout(place):
    slapd = Slapd(place)
    server = directory(place, [slapd.port])
    check(ask(place, server)[0], 1)
    slapd.pause()
    asking = asking_of(place, server, 10)
    plays_on(place, server)
    check(asking.codes(), [-2] * 10)
    said_once(server, "gave no answer")
    slapd.go_on()
    until("the directory is used again", lambda: ask(place, server)[0] == 1)


def test_directory_that_never_answers(place):
    for make in (silent, full):
        server = directory(place, [make(place)])
        asking = asking_of(place, server, 8)
        plays_on(place, server)
        check(asking.codes(), [-2] * 8)
        said_once(server, "is unreachable")
        server.stop()


def test_wrong_password_and_the_second_server(place):
    slapd = Slapd(place)
    admin = 'ldap_bind_dn = "cn=admin,dc=example,dc=com"\nldap_bind_password = '
    server = directory(place, [slapd.port], admin + "wrong")
    check(ask(place, server)[0], -2)
    said_once(server, "is unreachable.*49")
    server.stop()
    server = directory(place, [free_port(), slapd.port], admin + "secret")
    check(ask(place, server)[0], 1)


def test_starttls_ldaps_and_a_refused_certificate(place):
    ca, cert, key = certificates(place.dir, "good")
    other, _, _ = certificates(place.dir, "other")
    secure = free_port()
    # Without TLS the server does not even bind.
    settings = f"TLSCACertificateFile {ca}\nTLSCertificateFile {cert}\nTLSCertificateKeyFile {key}\nsecurity tls=1\n"
    slapd = Slapd(place, settings, [secure])

    def session(url, more):
        server = directory(place, [slapd.port], more)
        (place.dir / "ldap.cfg").write_text((place.dir / "ldap.cfg").read_text().replace(f"ldap://127.0.0.1:{slapd.port}", url))
        server.stop()
        server.start()
        return server
    plain = f"ldap://127.0.0.1:{slapd.port}"
    trusted = f"ldap_ca_cert_file = {ca}\nldap_require_certificate = DEMAND"
    for url, more in ((plain, trusted), (plain, "ldap_require_certificate = NEVER\n" + f"ldap_ca_cert_file = {other}"),
                      (f"ldaps://127.0.0.1:{secure}", trusted)):
        server = session(url, more)
        check(ask(place, server), (1, "sip:bob@home"), f"{url} {more}")
        server.stop()
    for url, more, why in ((plain, "", "LDAP error 13|confidential"), (plain, trusted.replace(str(ca), str(other)), "ertificate|UnknownIssuer"),
                           (f"ldaps://127.0.0.1:{secure}", trusted.replace(str(ca), str(other)), "ertificate|UnknownIssuer")):
        server = session(url, more)
        check(ask(place, server)[0], -2, f"{url} {more}")
        until("the log says why", lambda: lines(server, why))
        server.stop()


def test_filters_and_several_entries(place):
    slapd = Slapd(place)
    entries = "".join(f"""
dn: cn=Agent {n},dc=example,dc=com
objectClass: inetOrgPerson
cn: Agent {n}
sn: Smith
uid: agent{n}
mail: sip:agent{n}@desk
telephoneNumber: +49-30-{n}
telephoneNumber: +49-40-{n}
""" for n in range(3))
    (slapd.home / "more").write_text(entries)
    quiet("ldapadd", "-x", "-H", f"ldap://127.0.0.1:{slapd.port}", "-D", "cn=admin,dc=example,dc=com", "-w", "secret",
          "-f", slapd.home / "more")
    body = """
    $avp(count) = ldap_search("ldap://dir/dc=example,dc=com?mail,telephoneNumber?sub?(&(objectClass=inetOrgPerson)(|(sn=Smith)(sn=Nobody))(!(uid=agent1)))");
    ldap_result("mail", $avp(all));
    ldap_result("telephoneNumber", $avp(number), "str", "/^\\+49-(30|40)-/0\\1/");
    ldap_result_next();
    ldap_result("mail", $avp(all));
    $avp(checked) = ldap_result_check("mail", "sip:agent2@desk");
    $avp(absent) = ldap_result("fax", $avp(none));
    $avp(last) = ldap_result_next();
    ldap_filter_url_encode("a*(b)", $avp(encoded));
    append_to_reply("X-All: $avp(count) $(avp(all)[*]) / $(avp(number)[*]) / $avp(checked) $avp(absent) $avp(last) $avp(encoded)\\r\\n");
    """
    server = directory(place, [slapd.port], body=body)
    reply = place.phone(server).request("MESSAGE", "sip:bob@example.com")
    found = reply.header("X-All")
    head, numbers, rest = [part.strip() for part in found.split("/")]
    check(head.split(" ", 1)[0], "2")
    check(sorted(head.split(" ", 1)[1].split(", ")), ["sip:agent0@desk", "sip:agent2@desk"])
    check(sorted(numbers.split(", ")), ["0300", "0400"], found)
    check(rest.split()[:3], ["1", "-1", "-1"], found)
    check(rest.split()[3], r"a\2a\28b\29", found)


class Radius(Server):
    name = "radius"

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
 require_message_authenticator = yes
}}
modules {{
 pap {{
 }}
 files {{
  filename = {self.home}/users
 }}
}}
server default {{
 listen {{
  type = auth
  ipaddr = 127.0.0.1
  port = {self.port}
 }}
 authorize {{
  files
  pap
 }}
 authenticate {{
  Auth-Type PAP {{
   pap
  }}
 }}
}}
""")
        (self.home / "users").write_text('bob Cleartext-Password := "secret"\n  Reply-Message = "welcome"\n')
        (self.home / "dictionary").write_text("ATTRIBUTE SIP-AVP 225 string\n")

    def command(self):
        return [find("freeradius"), "-f", "-d", self.home]

    def answers(self):
        log = self.home / "radius.log"
        return log.exists() and "Ready to process requests" in log.read_text().rsplit("Debugger", 1)[-1]


def radius(place, servers):
    (place.dir / "client.dictionary").write_text(
        "ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\nATTRIBUTE Reply-Message 18 string\n")
    (place.dir / "client.conf").write_text(
        f"authserver {servers}\ndictionary {place.dir}/client.dictionary\nradius_timeout 1\nradius_retries 2\n")
    modules = f"""loadmodule "aaa_radius.so"
modparam("aaa_radius", "radius_config", "{place.dir}/client.conf")
modparam("aaa_radius", "sets", "in = (User-Name = $rU, User-Password = $var(p))")
modparam("aaa_radius", "sets", "out = (Reply-Message = $avp(v))")"""
    return place.server(CONFIG, MODULES=modules, BODY='$var(p) = "secret";\n    radius_send_auth("in", "out");')


def test_radius_killed_under_load_and_restarted(place):
    daemon = Radius(place)
    server = radius(place, f"127.0.0.1:{daemon.port}:testing123")
    check(ask(place, server), (1, "welcome"))
    check(asking_of(place, server, 40).codes(), [1] * 40)
    daemon.kill()
    asking = asking_of(place, server, 20)
    plays_on(place, server)
    check(asking.codes(), [-1] * 20)
    said_once(server, "ERROR:aaa_radius")
    (daemon.home / "radius.log").unlink()
    daemon.start()
    until("the server is used again", lambda: ask(place, server) == (1, "welcome"))
    said_once(server, "answers again")


def test_the_second_radius_server_answers(place):
    daemon = Radius(place)
    server = radius(place, f"127.0.0.1:{free_port()}:x,127.0.0.1:{daemon.port}:testing123")
    asking = asking_of(place, server, 5)
    plays_on(place, server)
    check(asking.codes(), [1] * 5)


def test_a_wrong_radius_secret(place):
    daemon = Radius(place)
    server = radius(place, f"127.0.0.1:{daemon.port}:other")
    check(ask(place, server)[0], -1)
    said_once(server, "ERROR:aaa_radius")
