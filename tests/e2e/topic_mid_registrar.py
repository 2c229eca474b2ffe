"""mid_registrar in front of a registrar, in its three modes: phones, main registrar, calls back."""
from harness import check, until

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
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("usrloc", "timer_interval", 1)
"""

MAIN = HEAD + """
loadmodule "registrar.so"
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    if (!lookup("location")) {
        send_reply(404, "Nobody");
        exit;
    }
    t_relay();
}
"""

MID = HEAD + """
loadmodule "mid_registrar.so"
modparam("mid_registrar", "mode", {MODE})
modparam("mid_registrar", "outgoing_expires", 1000)
modparam("mid_registrar", "min_expires", 1)
{MORE}
route {
    if (is_method("REGISTER")) {
        mid_registrar_save("location");
        if ($rc == 1) {
            $du = "sip:127.0.0.1:{MAIN}";
            t_relay();
        }
        exit;
    }
    if (!mid_registrar_lookup("location")) {
        send_reply(404, "Not Here");
        exit;
    }
    t_relay();
}
"""


def start(place, mode, more=""):
    main = place.server(MAIN)
    return main, place.server(MID, MODE=mode, MAIN=main.port, MORE=more)


def contacts(server, aor="alice@example.com"):
    """[(URI, seconds left), ...] of an address."""
    shown = server.mi("ul_show_contact", ["location", aor])
    return [(c["Contact"], c["Expires"]) for c in shown.get("Contacts", [])]


def uris(header):
    return sorted(value.strip().split(">")[0].lstrip("<") for value in header.split(","))


def call(place, main, phone):
    """A request to the main registrar reaches the phone, whose answer goes back."""
    caller = place.phone(main, "carol", "127.0.0.4")
    branch = "z9hG4bKcall1"
    text = (f"MESSAGE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:carol@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\n"
            f"Call-ID: {caller.call_id}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n")
    caller.socket.sendto(text.encode(), ("127.0.0.1", main.port))
    request = phone.receive("MESSAGE ")
    check(request.text.split(" ")[1], f"sip:alice@{phone.address}")
    phone.answer(request, 200)
    check(caller.receive("SIP/2.0 200").status, 200)


def test_mirror(place):
    main, mid = start(place, 0)
    phone = place.phone(mid)
    reply = phone.register(expires=600)
    check((reply.status, uris(reply.header("Contact"))), (200, [f"sip:alice@{phone.address}"]))
    (theirs, seconds), = contacts(main)
    check(theirs.startswith(f"sip:alice@127.0.0.1:{mid.port};ctid="), True, theirs)
    check(590 < seconds <= 600, True, f"{seconds} s")
    check([c for c, _ in contacts(mid)], [f"sip:alice@{phone.address}"])
    call(place, main, phone)
    check(phone.register(expires=600).status, 200)
    check([c for c, _ in contacts(main)], [theirs], "the id stays")
    check(phone.register(expires=0).status, 200)
    check((contacts(main), contacts(mid)), ([], []))
    check(phone.register(expires=600).status, 200)
    check(phone.register("*", expires=0).status, 200)
    check((contacts(main), contacts(mid)), ([], []))


def test_ids_as_users(place):
    main, mid = start(place, 0, 'modparam("mid_registrar", "contact_id_insertion", "ct-username")')
    phone = place.phone(mid)
    check(phone.register().status, 200)
    (theirs, _), = contacts(main)
    check(theirs.split("@")[0].removeprefix("sip:").isdigit(), True, theirs)
    call(place, main, phone)


def test_by_contact(place):
    main, mid = start(place, 1)
    phone = place.phone(mid)
    check(phone.register(expires=100).status, 200)
    (_, seconds), = contacts(main)
    check(990 < seconds <= 1000, True, f"the main registrar has it for {seconds} s")
    (_, seconds), = contacts(mid)
    check(90 < seconds <= 100, True, f"here it is for {seconds} s")
    before = main.mi("get_statistics", ["accepted_regs"])
    for _ in range(5):
        reply = phone.register(expires=100)
        check((reply.status, uris(reply.header("Contact"))), (200, [f"sip:alice@{phone.address}"]))
    check(main.mi("get_statistics", ["accepted_regs"]), before, "the main registrar saw none of them")
    call(place, main, phone)
    check(phone.register(expires=0).status, 200)
    check((contacts(main), contacts(mid)), ([], []))
    # A phone that goes without a word: the main registrar must not keep it for 1000 s.
    check(phone.register(expires=2).status, 200)
    check(len(contacts(main)), 1)
    until("the main registrar is told", lambda: contacts(main) == [])


def test_by_address(place):
    main, mid = start(place, 2)
    one, two = place.phone(mid), place.phone(mid, ip="127.0.0.3")
    check(one.register(expires=100).status, 200)
    (theirs, seconds), = contacts(main)
    check(theirs, f"sip:alice%40example.com@127.0.0.1:{mid.port}")
    check(990 < seconds <= 1000, True, f"{seconds} s")
    before = main.mi("get_statistics", ["accepted_regs"])
    reply = two.register(expires=100)
    check(uris(reply.header("Contact")), sorted([f"sip:alice@{one.address}", f"sip:alice@{two.address}"]))
    check(two.register(expires=0).status, 200)
    check(main.mi("get_statistics", ["accepted_regs"]), before, "the main registrar saw nothing of it")
    check([c for c, _ in contacts(mid)], [f"sip:alice@{one.address}"])
    call(place, main, one)
    check(one.register(expires=0).status, 200)
    check((contacts(main), contacts(mid)), ([], []))
    check(one.register(expires=2).status, 200)
    until("the main registrar is told", lambda: contacts(main) == [])


def test_the_main_registrar_refuses(place):
    main = place.server(MAIN.replace('save("location");', 'send_reply(403, "No");'))
    mid = place.server(MID, MODE=1, MAIN=main.port, MORE="")
    phone = place.phone(mid)
    check(phone.register(expires=100).status, 403)
    check(contacts(mid), [])
