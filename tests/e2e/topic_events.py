"""Scripts that wait for events: event_routing with registrations and tm's added branches, management commands
from scripts."""
import json
from harness import check, until

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
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "event_routing.so"
loadmodule "mi_script.so"
loadmodule "cachedb_local.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("tm", "fr_timeout", 2)
modparam("tm", "fr_inv_timeout", 5)
modparam("tm", "onreply_avp_mode", 1)
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    {BODY}
}
route[joined] {
    {JOINED}
}
"""
INJECT = """
    t_newtran();
    t_wait_for_new_branches();
    $avp(filter) = "aor=" + $rU + "@*";
    notify_on_event("E_UL_CONTACT_INSERT", $avp(filter), "joined", 20);
    if (lookup("location"))
        t_relay();
    exit;
"""
WAIT = """
    $avp(filter) = "aor=" + $rU + "@*";
    wait_for_event("E_UL_AOR_INSERT", $avp(filter), $(hdr(X-Wait){s.int}));
    if ($rc < 0) {
        append_to_reply("X-Rc: $rc\\r\\n");
        send_reply(480, "Not Here");
        exit;
    }
    lookup("location");
    t_relay();
"""


def invite(phone, user, headers=""):
    branch = "z9hG4bKe2e" + phone.call_id[:8]
    text = (f"INVITE sip:{user}@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{phone.user}@example.com>;tag=1\r\nTo: <sip:{user}@example.com>\r\n"
            f"Call-ID: {phone.call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:{phone.address}>\r\n{headers}Content-Length: 0\r\n\r\n")
    phone.socket.sendto(text.encode(), ("127.0.0.1", phone.server.port))


def test_a_contact_that_registers_joins_the_call(place):
    for joined, cancels in (('t_inject_branches("event");', False), ('t_inject_branches("event", "cancel,last");', True)):
        server = place.server(CONFIG, BODY=INJECT, JOINED=joined)
        alice, desk, mobile = place.phone(server), place.phone(server, "bob"), place.phone(server, "bob", "127.0.0.3")
        check(desk.register().status, 200)
        invite(alice, "bob")
        first = desk.receive("INVITE")
        desk.answer(first, 180)
        alice.receive("SIP/2.0 180")
        # The second phone registers while the first one rings, by way of whichever worker.
        check(mobile.register().status, 200)
        second = mobile.receive("INVITE")
        check(second.header("Call-ID"), first.header("Call-ID"))
        if cancels:
            desk.answer(desk.receive("CANCEL"), 200)
            desk.answer(first, 487)
        mobile.answer(second, 200, f"Contact: <sip:{mobile.address}>\r\n")
        alice.receive("SIP/2.0 200")
        if not cancels:
            desk.receive("CANCEL")
        server.stop()


def test_somebody_else_does_not_join(place):
    server = place.server(CONFIG, BODY=INJECT, JOINED='t_inject_branches("event");')
    alice, carol, bob = place.phone(server), place.phone(server, "carol", "127.0.0.3"), place.phone(server, "bob", "127.0.0.4")
    invite(alice, "bob")
    alice.receive("SIP/2.0 100")
    check(carol.register().status, 200)
    check(bob.register().status, 200)
    bob.receive("INVITE")
    check([m for m in pending(carol) if m.startswith("INVITE")], [])


def pending(phone):
    """What has arrived by now."""
    found = []
    phone.socket.setblocking(False)
    try:
        while True:
            found.append(phone.socket.recv(65535).decode())
    except BlockingIOError:
        return found


def test_a_branch_of_this_message_joins_the_subscriber(place):
    joined = '$ru = $avp(uri);\n    t_inject_branches("msg");'
    server = place.server(CONFIG, BODY=INJECT, JOINED=joined)
    alice, bob = place.phone(server), place.phone(server, "bob", "127.0.0.3")
    invite(alice, "bob")
    alice.receive("SIP/2.0 100")
    check(bob.register().status, 200)
    bob.answer(bob.receive("INVITE"), 200, f"Contact: <sip:{bob.address}>\r\n")
    alice.receive("SIP/2.0 200")


def test_a_call_waits_for_its_callee(place):
    server = place.server(CONFIG, BODY=WAIT, JOINED="exit;")
    alice, bob = place.phone(server), place.phone(server, "bob", "127.0.0.3")
    invite(alice, "bob", "X-Wait: 20\r\n")
    alice.receive("SIP/2.0 100")
    waiting = until("it shows what it waits for", lambda: server.mi("async_list", ["E_UL"])["Operations"])
    check((len(waiting), waiting[0]["Operation"], waiting[0]["Call-ID"]), (1, "wait_for_event", alice.call_id))
    check(bob.register().status, 200)
    bob.answer(bob.receive("INVITE"), 200, f"Contact: <sip:{bob.address}>\r\n")
    alice.receive("SIP/2.0 200")
    check(server.mi("async_list")["Operations"], [])
    # Nobody registers: the time is over, or somebody ends it.
    dave = place.phone(server, "dave", "127.0.0.4")
    invite(dave, "nobody", "X-Wait: 1\r\n")
    check(dave.receive("SIP/2.0 480").header("X-Rc"), "-2")
    erin = place.phone(server, "erin", "127.0.0.5")
    invite(erin, "nobody", "X-Wait: 1000\r\n")
    found = until("it waits", lambda: server.mi("async_list", [erin.call_id])["Operations"])
    check(server.mi("async_cancel", [found[0]["ID"]]), "OK")
    check(erin.receive("SIP/2.0 480").header("X-Rc"), "-2")
    check(server.mi("async_cancel", [found[0]["ID"]]), "no such operation")


MI = """
    cache_store("local", "key", "value");
    $avp(n) = "glob"; $avp(n) = "collection"; $avp(v) = "k*"; $avp(v) = "default";
    $avp(p) = "k*"; $avp(p) = "default";
    switch ($hdr(X-Form)) {
    case "words": mi("cache_fetch_chunk k*", $avp(r)); route(answer);
    case "positions": mi("cache_fetch_chunk", $avp(r), $avp(p)); route(answer);
    case "names": mi("cache_fetch_chunk", $avp(r), $avp(n), $avp(v)); route(answer);
    case "every worker": mi("ps", $avp(r)); route(answer);
    case "unknown": mi("no_such_command", $avp(r)); route(answer);
    case "refused": mi("cache_fetch_chunk k* none", $avp(r)); route(answer);
    case "async": async(mi("ps", $avp(r)), answer);
    case "launch": t_newtran(); launch(mi("cache_fetch_chunk k*", $avp(r)), answer); exit;
    case "nothing": mi("uptime"); route(answer);
    }
}
route[answer] {
    append_to_reply("X-Rc: $rc\\r\\nX-Result: $avp(r)\\r\\n");
    t_reply(200, "Done");
    exit;
"""


def test_management_commands_from_a_script(place):
    server = place.server(CONFIG, BODY=MI, JOINED="exit;")
    kept = {"keys": [{"name": "key", "value": "value"}]}
    for form, code, wanted in (
            ("words", 1, kept), ("positions", 1, kept), ("names", 1, kept), ("launch", 1, kept),
            ("every worker", 1, "Processes"), ("async", 1, "Processes"), ("nothing", 1, None),
            ("unknown", -2, None), ("refused", -2, "there is no such collection")):
        reply = place.phone(server, ip="127.0.0.9").request("MESSAGE", "sip:b@x", headers=f"X-Form: {form}\r\n")
        check(int(reply.header("X-Rc")), code, form)
        result = reply.header("X-Result")
        if isinstance(wanted, dict):
            check(json.loads(result), wanted, form)
        elif wanted:
            check(wanted in result, True, f"{form}: {result}")
