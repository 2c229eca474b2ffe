"""Registrations told from one server to another (RFC 3680): pua_reginfo to presence_reginfo and back."""
import subprocess
from harness import check, until

BASE = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "presence.so"
loadmodule "presence_reginfo.so"
loadmodule "pua.so"
loadmodule "pua_reginfo.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "use_domain", 0)
modparam("presence|pua", "db_url", "sqlite://{DIR}/{NAME}.sqlite")
modparam("pua_reginfo", "server_address", "sip:reginfo@127.0.0.1:{PORT}")
modparam("pua_reginfo", "ul_domain", "location")
modparam("pua_reginfo", "default_domain", "127.0.0.1")
"""

HOME = BASE + """
route {
    if (is_method("REGISTER")) { save("location"); exit; }
    if (is_method("SUBSCRIBE")) { handle_subscribe(); exit; }
    send_reply(405, "No");
}
"""

MIRROR = BASE + """
route {
    if (is_method("OPTIONS")) { reginfo_subscribe("sip:bob@127.0.0.1:{HOME}", 600); send_reply(200, "OK"); exit; }
    if (is_method("NOTIFY")) { reginfo_handle_notify("location"); send_reply(200, "OK"); exit; }
    send_reply(405, "No");
}
"""


def server(place, config, name, **names):
    tables = ["presence", "pua"]
    subprocess.run([place.program, "db", "create", f"sqlite://{place.dir}/{name}.sqlite", *tables], check=True,
                   stdout=subprocess.DEVNULL)
    return place.server(config, NAME=name, **names)


def contacts(server):
    """What a server has registered for bob."""
    [table] = server.mi("ul_dump")["Domains"]
    return sorted(c["Contact"] for aor in table["AORs"] if aor["AOR"] == "bob" for c in aor["Contacts"])


def test_a_mirror_follows_a_registrar(place):
    home = server(place, HOME, "home")
    mirror = server(place, MIRROR, "mirror", HOME=home.port)
    bob = place.phone(home, "bob", "127.0.0.3")
    one, two = "sip:one@127.0.0.3:5071", "sip:two@127.0.0.3:5072"
    check(bob.register(f"<{one}>").status, 200)
    # Whoever subscribes hears what is there already.
    check(place.phone(mirror, "carol").request("OPTIONS", "sip:mirror@127.0.0.1").status, 200)
    until("the mirror knows one contact", lambda: contacts(mirror) == [one])
    check(bob.register(f"<{two}>").status, 200)
    until("and the second", lambda: contacts(mirror) == [one, two])
    check(bob.register(f"<{one}>", expires=0).status, 200)
    until("and that the first is gone", lambda: contacts(mirror) == [two])
    check(bob.register("*", expires=0).status, 200)
    until("and that nobody is left", lambda: contacts(mirror) == [])
    check(contacts(home), [])
