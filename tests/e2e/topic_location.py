"""Registrations in every working mode: what was acknowledged survives as documented."""
import random, threading, time
from harness import Failed, check, free_port, until

TABLE = """
create table location (
    contact_id integer primary key autoincrement not null, username char(64) default '' not null,
    domain char(64) default null, contact text not null, received char(255) default null,
    path char(255) default null, expires integer not null, q float(10,2) default 1.0 not null,
    callid char(255) default 'Default-Call-ID' not null, cseq integer default 13 not null,
    last_modified datetime default '1900-01-01 00:00:01' not null, flags integer default 0 not null,
    cflags char(255) default null, user_agent char(255) default '' not null, socket char(64) default null,
    methods integer default null, sip_instance char(255) default null, kv_store text(512) default null,
    attr char(255) default null)
"""

OLD_TABLE = """
create table location (
    id integer primary key autoincrement not null, username char(64) default '' not null,
    domain char(64) default '' not null, contact char(255) default '' not null, received char(128) default null,
    path char(255) default null, expires datetime default '2020-05-28 21:32:15' not null,
    q float(10,2) default 1.0 not null, callid char(255) default 'Default-Call-ID' not null,
    cseq integer default 13 not null, last_modified datetime default '1900-01-01 00:00:01' not null,
    flags integer default 0 not null, cflags char(255) default null, user_agent char(255) default '' not null,
    socket char(64) default null, methods integer default null, sip_instance char(255) default null,
    attr char(255) default null, constraint account_contact_idx unique (username, domain, contact, callid))
"""

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
loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("usrloc", "working_mode_preset", "{MODE}")
modparam("usrloc", "timer_interval", {TIMER})
{MORE}
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    if (lookup("location")) {
        append_to_reply("X-Found: $ru\\r\\n");
        send_reply(200, "Found");
        exit;
    }
    $var(rc) = $rc;
    send_reply(404, "Nobody $var(rc)");
}
"""

OLD_CONFIG = """
debug = 3
log_stderror = yes
fork = yes
children = 2
listen = udp:127.0.0.1:{PORT}
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("usrloc", "db_mode", {MODE})
modparam("usrloc", "timer_interval", {TIMER})
route {
    if (method == "REGISTER") {
        save("location");
        exit;
    }
    if (lookup("location"))
        sl_send_reply("200", "Found");
    else
        sl_send_reply("404", "Nobody");
}
"""


def start(place, mode, timer=3600, config=CONFIG, **more):
    return place.server(config, MODE=mode, TIMER=timer, MORE=more.pop("MORE", ""), **more)


def found(phone, user):
    """The contact that the server finds for a user, or None."""
    reply = phone.request("OPTIONS", f"sip:{user}@example.com")
    return reply.header("X-Found") or None if reply.status == 200 else None


def rows(place, where="1 = 1"):
    return place.sqlite("db.sqlite", f"select * from location where {where} order by username, contact")


def registered(server):
    """Contacts by address, as ul_dump shows them."""
    domains = server.mi("ul_dump")["Domains"]
    return {a["AOR"]: [c["Contact"] for c in a["Contacts"]] for d in domains for a in d["AORs"]}


def test_memory_only(place):
    server = start(place, "single-instance-no-db")
    phone = place.phone(server)
    check(phone.register().status, 200)
    check(found(phone, "alice"), f"sip:alice@{phone.address}")
    check(phone.register(expires=0).status, 200)
    check(found(phone, "alice"), None)
    check(server.mi("get_statistics", {"statistics": ["usrloc:"]}),
          {"usrloc:registered_users": 0, "usrloc:location-users": 0, "usrloc:location-contacts": 0,
           "usrloc:location-expires": 0})


def test_write_through_survives_kill(place):
    place.sqlite("db.sqlite", TABLE)
    server = start(place, "single-instance-sql-write-through")
    phone = place.phone(server)
    for user in ("alice", "bob", "carol"):
        check(phone.register(f"<sip:{user}@10.0.0.1>;q=0.5", user=user, call_id=user).status, 200)
    check(phone.register("<sip:bob@10.0.0.1>", expires=0, user="bob", call_id="bob").status, 200)
    server.kill()
    check([(r["username"], r["domain"], r["contact"], r["q"]) for r in rows(place)],
          [(u, "example.com", f"sip:{u}@10.0.0.1", 0.5) for u in ("alice", "carol")], "rows after kill -9")
    server.start()
    check(found(phone, "carol"), "sip:carol@10.0.0.1")
    check(found(phone, "bob"), None)
    contacts = server.mi("ul_show_contact", {"table_name": "location", "aor": "alice@example.com"})["Contacts"]
    check([(c["State"], c["Q"], c["Callid"]) for c in contacts], [("CS_SYNC", "0.5", "alice")])


def test_write_through_loses_nothing_in_a_storm(place):
    """Phones register while the server is killed: who got a 200 is in the database."""
    place.sqlite("db.sqlite", TABLE)
    server = start(place, "single-instance-sql-write-through")
    acknowledged, stop = set(), threading.Event()

    def storm(worker):
        phone = place.phone(server, ip=f"127.0.0.{10 + worker}")
        for n in range(100000):
            user = f"u{worker}-{n}"
            try:
                reply = phone.register(f"<sip:{user}@10.0.0.1>", user=user, call_id=user)
            except (Failed, OSError):
                return
            if reply.status == 200:
                acknowledged.add(user)
            if stop.is_set():
                return
    threads = [threading.Thread(target=storm, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    until("registrations go through", lambda: len(acknowledged) > random.randrange(100, 300))
    server.kill()
    stop.set()
    # Phones that wait for an answer now get none.
    known = set(acknowledged)
    stored = {r["username"] for r in rows(place)}
    check(known - stored, set(), "acknowledged, but not in the database")


def test_write_back_writes_by_timer_and_at_the_end(place):
    place.sqlite("db.sqlite", TABLE)
    server = start(place, "single-instance-sql-write-back", timer=1)
    phone = place.phone(server)
    check(phone.register("<sip:a@10.0.0.1>", user="alice").status, 200)
    until("the timer writes", lambda: [r["contact"] for r in rows(place)] == ["sip:a@10.0.0.1"])
    server.kill()
    server.start()
    check(found(phone, "alice"), "sip:a@10.0.0.1")
    server.kill()

    slow = start(place, "single-instance-sql-write-back", timer=3600)
    phone = place.phone(slow)
    check(phone.register("<sip:b@10.0.0.1>", user="bob", call_id="b").status, 200)
    check(phone.register("<sip:c@10.0.0.1>", user="carol", call_id="c").status, 200)
    check([r["username"] for r in rows(place)], ["alice"], "before the timer")
    check(slow.mi("ul_flush"), "OK")
    check([r["username"] for r in rows(place)], ["alice", "bob", "carol"], "after ul_flush")
    check(phone.register("<sip:c@10.0.0.1>", expires=0, user="carol", call_id="c").status, 200)
    check(phone.register("<sip:d@10.0.0.1>", user="dave", call_id="d").status, 200)
    slow.stop()
    check([r["username"] for r in rows(place)], ["alice", "bob", "dave"], "after an orderly end")


def test_everything_of_a_contact_comes_back(place):
    place.sqlite("db.sqlite", TABLE)
    more = 'modparam("registrar", "received_avp", "$avp(rcv)")\nmodparam("registrar", "attr_avp", "$avp(attr)")'
    config = CONFIG.replace('save("location");', '$avp(rcv) = "sip:127.0.0.9:5099"; $avp(attr) = "gold";'
                                                 'save("location", "path-lazy");')
    server = start(place, "single-instance-sql-write-through", config=config, MORE=more)
    phone = place.phone(server)
    headers = "User-Agent: Phone 1\r\nPath: <sip:10.0.0.8;lr>\r\nAllow: INVITE, ACK, BYE\r\nSupported: path\r\n"
    contact = '<sip:a@10.0.0.1;x=1>;q=0.7;+sip.instance="<urn:uuid:1>"'
    check(phone.register(contact, headers=headers).status, 200)
    before = server.mi("ul_show_contact", ["location", "alice@example.com"])
    server.kill()
    server.start()
    after = server.mi("ul_show_contact", ["location", "alice@example.com"])
    for contact in before["Contacts"] + after["Contacts"]:
        contact.pop("Expires")
    check(after, before)
    contact = after["Contacts"][0]
    check((contact["Contact"], contact["Q"], contact["User-agent"], contact["Path"], contact["Received"],
           contact["Methods"], contact["Attr"], contact["SIP_instance"], contact["Socket"]),
          ("sip:a@10.0.0.1;x=1", "0.7", "Phone 1", "<sip:10.0.0.8;lr>", "sip:127.0.0.9:5099", 13, "gold",
           "<urn:uuid:1>", f"udp:127.0.0.1:{server.port}"))


def test_sql_only_is_shared_by_servers(place):
    place.sqlite("db.sqlite", TABLE)
    one, two = start(place, "sql-only", timer=1), start(place, "sql-only", timer=1)
    phone, other = place.phone(one), place.phone(two, ip="127.0.0.3")
    check(phone.register("<sip:a@10.0.0.1>").status, 200)
    check(found(other, "alice"), "sip:a@10.0.0.1")
    again = other.register("<sip:b@10.0.0.2>", user="alice")
    check(sorted(c.split(">")[0] for c in again.header("Contact").split(", ")), ["<sip:a@10.0.0.1", "<sip:b@10.0.0.2"])
    check(phone.register("<sip:a@10.0.0.1>", expires=0).status, 200)
    check(found(other, "alice"), "sip:b@10.0.0.2")
    one.kill()
    check(found(other, "alice"), "sip:b@10.0.0.2")
    check(two.mi("ul_rm", ["location", "alice@example.com"]), "OK")
    check(rows(place), [])
    place.sqlite("db.sqlite", "insert into location (username, domain, contact, expires, callid) values "
                              "('old', 'example.com', 'sip:old@10.0.0.1', 1000, 'x')")
    until("expired rows go", lambda: not rows(place))


def test_tables_of_2_1(place):
    for mode in (1, 2, 3):
        place.sqlite("db.sqlite", "drop table if exists location;\n" + OLD_TABLE)
        server = start(place, mode, timer=1, config=OLD_CONFIG)
        phone = place.phone(server)
        check(phone.register("<sip:a@10.0.0.1>").status, 200)
        until("it is in the table", lambda: [r["contact"] for r in rows(place)] == ["sip:a@10.0.0.1"])
        check(len(rows(place)[0]["expires"]), len("2026-01-01 00:00:00"), "expires is a moment")
        # The Call-ID belongs to the key: a new one must not leave the old row.
        check(phone.register("<sip:a@10.0.0.1>", call_id="new@e2e").status, 200)
        until("the key moved", lambda: [r["callid"] for r in rows(place)] == ["new@e2e"])
        server.kill()
        server.start()
        check(phone.request("OPTIONS", "sip:alice@example.com").status, 200)
        check(phone.register("<sip:a@10.0.0.1>", expires=0, call_id="new@e2e").status, 200)
        until("the row goes", lambda: not rows(place))
        server.kill()


def test_a_database_that_comes_back(place):
    """Without its table the server serves from memory, and writes when the table is there."""
    server = start(place, "single-instance-sql-write-through", timer=1)
    phone = place.phone(server)
    check(phone.register("<sip:a@10.0.0.1>").status, 200)
    check(found(phone, "alice"), "sip:a@10.0.0.1")
    place.sqlite("db.sqlite", TABLE)
    until("it is written", lambda: [r["contact"] for r in rows(place)] == ["sip:a@10.0.0.1"])


def test_expired_contacts_leave_memory_and_database(place):
    place.sqlite("db.sqlite", TABLE)
    server = start(place, "single-instance-sql-write-back", timer=1,
                   MORE='modparam("registrar", "min_expires", 1)')
    phone = place.phone(server)
    check(phone.register("<sip:a@10.0.0.1>", expires=1).status, 200)
    check(phone.register("<sip:b@10.0.0.1>", expires=600, user="bob").status, 200)
    until("bob is written", lambda: any(r["username"] == "bob" for r in rows(place)))
    until("alice expires", lambda: list(registered(server)) == ["bob@example.com"])
    until("alice's row goes", lambda: [r["username"] for r in rows(place)] == ["bob"])
    check(server.mi("get_statistics", [["location-expires"]]), {"usrloc:location-expires": 1})


def test_management_commands(place):
    place.sqlite("db.sqlite", TABLE)
    server = start(place, "single-instance-sql-write-through", MORE='modparam("usrloc", "nat_bflag", "NAT")')
    add = {"table_name": "location", "aor": "eve@example.com", "contact": "sip:e@10.0.0.5", "expires": "300",
           "q": "0.3", "flags": "0", "cflags": "1", "methods": "32767"}
    check(server.mi("ul_add", add), "OK")
    shown = server.mi("usrloc:show_contact", {"table_name": "location", "aor": "eve@example.com"})
    check([(c["Contact"], c["Q"], c["Methods"], c["Cflags"]) for c in shown["Contacts"]],
          [("sip:e@10.0.0.5", "0.3", 32767, "NAT")])
    check([r["cflags"] for r in rows(place)], ["NAT"])
    check(server.mi("ul_show_contact", ["location", "eve"])["error"], {"code": 400, "message": "Domain missing in AOR"})
    check(server.mi("ul_show_contact", ["nowhere", "eve@example.com"])["error"]["message"], "Table not found")
    check(server.mi("ul_rm_contact", ["location", "eve@example.com", "sip:x@1"])["error"]["message"], "Contact not found")
    check(len(rows(place)), 1)
    place.sqlite("db.sqlite", "delete from location")
    check(server.mi("ul_sync", ["location"]), "OK")
    check([r["username"] for r in rows(place)], ["eve"])
    check(server.mi("ul_rm_contact", ["location", "eve@example.com", "sip:e@10.0.0.5"]), "OK")
    check(rows(place), [])
    check(registered(server), {})
    check(server.mi("ul_dump", {"brief": "brief"}), {"Domains": [{"name": "location", "hash_size": 512, "AORs": []}]})
