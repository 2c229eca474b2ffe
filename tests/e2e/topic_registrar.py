"""What registrar does beyond plain registrations: GRUU, outbound flows, push notification, questions."""
import re, socket
from harness import check, until
from topic_location import CONFIG as LOCATION, found, registered, start

PUSH = """
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
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "event_datagram.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "contact_refresh_timer", 1)
modparam("registrar", "pn_enable", 1)
modparam("registrar", "pn_providers", "apns, fcm")
modparam("registrar", "pn_enable_purr", 1)
modparam("registrar", "pn_trigger_interval", {TRIGGER})
modparam("registrar", "pn_refresh_timeout", 5)
modparam("registrar", "min_expires", 1)
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    if (is_method("BYE")) {
        async(pn_process_purr("location"), awake);
    }
    $var(found) = lookup("location");
    switch ($rc) {
    case 1:
        t_relay();
        break;
    case 2:
        exit;
    default:
        send_reply(404, "Nobody");
    }
}
route[awake] {
    append_to_reply("X-Rc: $rc\\r\\n");
    send_reply(200, "Awake");
}
"""
PUSH = PUSH.replace('    $var(found) = lookup("location");\n', '    lookup("location");\n')


class Listener:
    """Receives the events of a server as datagrams."""

    def __init__(self, place, server, *events):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        place.ending.callback(self.socket.close)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(10)
        for event in events:
            check(server.mi("event_subscribe", [event, "udp:127.0.0.1:%d" % self.socket.getsockname()[1]]), "OK")

    def take(self):
        import json
        return json.loads(self.socket.recv(65535))["params"]


def push_contact(phone, instance="1"):
    return f"<sip:{phone.user}@{phone.address};pn-provider=fcm;pn-prid=token{instance};pn-param=app>"


def test_push_wakes_a_phone_for_a_call(place):
    server = place.server(PUSH, TRIGGER=1000)
    phone, caller = place.phone(server), place.phone(server, "carol", "127.0.0.3")
    reply = phone.register(push_contact(phone), expires=600)
    check(reply.status, 200)
    caps = reply.header("Feature-Caps")
    check(re.sub(r'pnspurr="[0-9a-f.]{18}"', 'pnspurr="?"', caps),
          '+sip.pns="fcm";+sip.pnsreg="130";+sip.pnspurr="?"')
    contact = server.mi("ul_show_contact", ["location", "alice@example.com"])["Contacts"][0]
    check(contact["Flags"], 4)
    listener = Listener(place, server, "E_UL_CONTACT_REFRESH")
    branch = "z9hG4bKpush1"
    text = (f"INVITE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:carol@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\n"
            f"Call-ID: {caller.call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:carol@{caller.address}>\r\n"
            f"Content-Length: 0\r\n\r\n")
    caller.socket.sendto(text.encode(), ("127.0.0.1", server.port))
    event = listener.take()
    check((event["aor"], event["reason"], event["req_callid"], "pn-prid=token1" in event["uri"]),
          ("alice@example.com", "ini-INVITE", caller.call_id, True))
    # The push reached the phone: it registers, and the call comes to it, without push parameters.
    check(phone.register(push_contact(phone), expires=600).status, 200)
    invite = phone.receive("INVITE ")
    check(invite.text.split(" ")[1], f"sip:alice@{phone.address}")
    phone.answer(invite, 200, f"Contact: <sip:alice@{phone.address}>\r\n")
    check(caller.receive("SIP/2.0 200").status, 200)


def test_push_that_nobody_answers(place):
    server = place.server(PUSH, TRIGGER=1000)
    phone, caller = place.phone(server), place.phone(server, "carol", "127.0.0.3")
    check(phone.register(push_contact(phone), expires=600).status, 200)
    reply = caller.request("MESSAGE", "sip:alice@example.com")
    check(reply.status, 408, "no phone registered in time")


def test_push_within_a_dialog(place):
    server = place.server(PUSH, TRIGGER=1000)
    phone, caller = place.phone(server), place.phone(server, "carol", "127.0.0.3")
    caps = phone.register(push_contact(phone), expires=600).header("Feature-Caps")
    purr = re.search(r'pnspurr="([^"]+)"', caps)[1]
    check(caller.request("BYE", "sip:alice@10.0.0.1").header("X-Rc"), "2", "no PURR")
    check(caller.request("BYE", "sip:alice@10.0.0.1;pn-purr=abc.defgh.12345678").header("X-Rc"), "2", "not ours")
    listener = Listener(place, server, "E_UL_CONTACT_REFRESH")
    branch = "z9hG4bKpurr1"
    text = (f"BYE sip:alice@10.0.0.1;pn-purr={purr} SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:carol@example.com>;tag=1\r\nTo: <sip:alice@example.com>;tag=2\r\n"
            f"Call-ID: {caller.call_id}\r\nCSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n")
    caller.socket.sendto(text.encode(), ("127.0.0.1", server.port))
    check(listener.take()["reason"], "mid-BYE")
    check(phone.register(push_contact(phone), expires=600).status, 200)
    check(caller.receive("SIP/2.0 200").header("X-Rc"), "1")


def test_push_before_a_registration_ends(place):
    server = place.server(PUSH, TRIGGER=2)
    phone = place.phone(server)
    listener = Listener(place, server, "E_UL_CONTACT_REFRESH")
    check(phone.register(push_contact(phone), expires=3).status, 200)
    event = listener.take()
    check((event["aor"], event["reason"]), ("alice@example.com", "reg-refresh"))


def test_push_questions_and_refusals(place):
    server = place.server(PUSH, TRIGGER=120)
    phone = place.phone(server)
    ask = phone.register(f"<sip:alice@{phone.address};pn-provider>")
    check((ask.status, ask.header("Feature-Caps")), (200, '+sip.pns="apns", +sip.pns="fcm"'))
    refused = phone.register(f"<sip:alice@{phone.address};pn-provider=acme;pn-prid=1;pn-param=2>")
    check((refused.status, refused.header("P-Registrar-Error")), (555, "Push Notification Service Not Supported"))
    # The same device from another address: known by its push parameters.
    check(phone.register("*", expires=0).status, 200)
    check(phone.register(push_contact(phone)).status, 200)
    check(phone.register("<sip:alice@10.9.9.9;pn-provider=fcm;pn-prid=token1;pn-param=app>").status, 200)
    check(len(registered(server)["alice@example.com"]), 1)


def test_gruu(place):
    server = start(place, "single-instance-no-db", MORE='modparam("registrar", "disable_gruu", 0)')
    phone, other = place.phone(server), place.phone(server, "alice", "127.0.0.3")
    contact = '<sip:alice@{0}>;+sip.instance="<urn:uuid:{1}>"'
    headers = "Supported: gruu\r\n"
    check(other.register(contact.format("10.0.0.9", "9"), headers=headers).status, 200)
    reply = phone.register(contact.format("10.0.0.1", "1"), headers=headers)
    mine = next(c for c in reply.header("Contact").split(", ") if "10.0.0.1" in c)
    public, temporary = (re.search(f'{kind}-gruu="([^"]+)"', mine)[1] for kind in ("pub", "temp"))
    check(public, "sip:alice@example.com;gr=urn:uuid:1")
    for gruu in (public, temporary):
        check(phone.request("OPTIONS", gruu).header("X-Found"), "sip:alice@10.0.0.1", gruu)
    check(phone.request("OPTIONS", "sip:alice@example.com;gr=urn:uuid:9").header("X-Found"), "sip:alice@10.0.0.9")
    check(phone.request("OPTIONS", "sip:alice@example.com;gr=urn:uuid:5").status, 404)
    check(phone.request("OPTIONS", "sip:tgruu.xxxx@127.0.0.1;gr").status, 404)
    # Another Call-ID: the temporary GRUU ends, the public one stays.
    again = phone.register(contact.format("10.0.0.2", "1"), headers=headers, call_id="another@e2e")
    check(again.status, 200)
    check(phone.request("OPTIONS", temporary).status, 404)


def test_outbound_flows(place):
    server = start(place, "single-instance-no-db")
    phone = place.phone(server)
    contact = '<sip:alice@{0}>;+sip.instance="<urn:uuid:1>";reg-id={1}'
    headers = "Supported: path, outbound\r\n"
    first = phone.register(contact.format("10.0.0.1", 1), headers=headers)
    check((first.status, first.header("Require")), (200, "outbound"))
    check(phone.register(contact.format("10.0.0.2", 2), headers=headers).status, 200)
    check(len(registered(server)["alice@example.com"]), 2, "two flows")
    # The first flow broke and came back from elsewhere: it replaces itself.
    check(phone.register(contact.format("10.0.0.3", 1), headers=headers, call_id="again@e2e").status, 200)
    check(sorted(registered(server)["alice@example.com"]), ["sip:alice@10.0.0.2", "sip:alice@10.0.0.3"])


def test_questions(place):
    config = LOCATION.replace("    if (lookup", """
    if (is_method("INFO")) {
        $var(s) = "";
        if (is_registered("location", "sip:alice@example.com")) $var(s) = $var(s) + "r";
        if (is_contact_registered("location", "sip:alice@example.com", "sip:a@10.0.0.1")) $var(s) = $var(s) + "c";
        if (is_contact_registered("location", "sip:alice@example.com", , "other")) $var(s) = $var(s) + "x";
        $avp(ip) = "10.0.0.1";
        if (is_ip_registered("location", "sip:alice@example.com", $avp(ip))) $var(s) = $var(s) + "i";
        remove_ip_port("10.0.0.1", 5060, "location");
        if (is_registered("location", "sip:alice@example.com")) $var(s) = $var(s) + "still";
        append_to_reply("X-S: $var(s)\\r\\n");
        send_reply(200, "OK");
        exit;
    }
    if (lookup""")
    import topic_location
    for mode in ("single-instance-no-db", "single-instance-sql-write-through", "sql-only"):
        place.sqlite("db.sqlite", "drop table if exists location;\n" + topic_location.TABLE)
        server = start(place, mode, config=config)
        phone = place.phone(server)
        check(phone.register("<sip:a@10.0.0.1>").status, 200)
        expected = "rcistill" if mode == "sql-only" else "rci"
        check(phone.request("INFO", "sip:x@y").header("X-S"), expected, mode)
        check(phone.request("OPTIONS", "sip:alice@example.com").status, 200 if mode == "sql-only" else 404)
        server.kill()
