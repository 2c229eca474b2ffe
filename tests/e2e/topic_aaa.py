"""Directories and RADIUS from scripts, and what happens when their servers fail."""
import re, subprocess, threading, time
from databases import Server, find, full, quiet, silent
from harness import Failed, check, free_port, until

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


class Asking:
    def __init__(self, place, server, count):
        self.found, self.problems = [], []

        def one(n):
            try:
                self.found.append(ask(place, server, n)[0])
            except Exception as problem:
                self.problems.append(problem)
        self.threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def codes(self):
        for thread in self.threads:
            thread.join()
        if self.problems:
            raise self.problems[0]
        return sorted(self.found)


def plays_on(place, server):
    begin = time.monotonic()
    check(place.phone(server, ip="127.0.0.2").request("OPTIONS", "sip:example.com").status, 200, "OPTIONS")
    if time.monotonic() - begin > 0.5:
        raise Failed("the OPTIONS waited")


def lines(server, pattern):
    return len(re.findall(pattern, server.log_text()))


def said_once(server, pattern):
    """One line in the log, which is written beside the workers."""
    until(f"a line like {pattern}", lambda: lines(server, pattern))
    check(lines(server, pattern), 1, f"lines like {pattern}")


class Slapd(Server):
    name = "slapd"

    def install(self):
        (self.home / "slapd.conf").write_text(f"""
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
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
        return [find("slapd"), "-d", "0", "-h", f"ldap://127.0.0.1:{self.port}", "-f", self.home / "slapd.conf"]

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
    asking = Asking(place, server, 60)
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
    asking = Asking(place, server, 10)
    plays_on(place, server)
    check(asking.codes(), [-2] * 10)
    said_once(server, "gave no answer")
    slapd.go_on()
    until("the directory is used again", lambda: ask(place, server)[0] == 1)


def test_directory_that_never_answers(place):
    for make in (silent, full):
        server = directory(place, [make(place)])
        asking = Asking(place, server, 8)
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
    check(Asking(place, server, 40).codes(), [1] * 40)
    daemon.kill()
    asking = Asking(place, server, 20)
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
    asking = Asking(place, server, 5)
    plays_on(place, server)
    check(asking.codes(), [1] * 5)


def test_a_wrong_radius_secret(place):
    daemon = Radius(place)
    server = radius(place, f"127.0.0.1:{daemon.port}:other")
    check(ask(place, server)[0], -1)
    said_once(server, "ERROR:aaa_radius")
