"""Phones behind NATs: keep-alives for registrations, subscriptions and calls; pings of contacts."""
import re, threading
from harness import check, free_port, until

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
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
"""

KEEPALIVE = HEAD + """
loadmodule "nat_traversal.so"
modparam("nat_traversal", "keepalive_interval", 1)
modparam("nat_traversal", "keepalive_method", "OPTIONS")
modparam("nat_traversal", "keepalive_from", "sip:keepalive@example.com")
modparam("nat_traversal", "keepalive_extra_headers", "X-Keep: yes\\r\\n")
modparam("nat_traversal", "keepalive_state_file", "{DIR}/keepalive_state")
route {
    if (is_method("REGISTER")) {
        nat_keepalive();
        save("location");
        exit;
    }
    if (is_method("SUBSCRIBE")) {
        nat_keepalive();
        append_to_reply("Expires: 600\\r\\n");
        send_reply(200, "OK");
        exit;
    }
    if (is_method("INVITE") && !has_totag()) {
        nat_keepalive();
    }
    if (is_method("INVITE|BYE|ACK")) {
        $du = "sip:{CALLEE}";
        t_relay();
        exit;
    }
    send_reply(200, "$keepalive.socket($hdr(X-Ask))");
}
"""


def counts(server):
    found = server.mi("get_statistics", [["nat_traversal:"]])
    return {k.split(":")[1].split("_")[0]: v for k, v in found.items()}


def started(place):
    class Unknown:
        port = 0
    callee = place.phone(Unknown, "bob", "127.0.0.3")
    server = place.server(KEEPALIVE, CALLEE=callee.address)
    callee.server = server
    return server, place.phone(server), callee


def test_registrations_and_subscriptions_are_kept_alive(place):
    server, phone, _ = started(place)
    check(phone.register(expires=600).status, 200)
    ping = phone.receive("OPTIONS")
    check((ping.header("From").split(";")[0], ping.header("X-Keep")), ("<sip:keepalive@example.com>", "yes"))
    check(ping.text.startswith(f"OPTIONS sip:{phone.address} SIP/2.0"), True, ping.text)
    phone.receive("OPTIONS")
    check(counts(server), {"refused": 0, "keepalive": 1, "registered": 1, "subscribed": 0, "dialog": 0})
    other = place.phone(server, "carol", "127.0.0.4")
    check(other.request("SUBSCRIBE", "sip:x@example.com", headers="Event: presence\r\n").status, 200)
    other.receive("OPTIONS")
    check(counts(server), {"refused": 0, "keepalive": 2, "registered": 1, "subscribed": 1, "dialog": 0})
    asked = phone.request("MESSAGE", "sip:x@example.com", headers=f"X-Ask: sip:{phone.address}\r\n")
    check(f"udp:127.0.0.1:{server.port}" in asked.text, True, "$keepalive.socket")
    # Nobody is forgotten when the server is started again.
    server.stop()
    server.start()
    other.receive("OPTIONS")
    check(counts(server)["keepalive"], 2)
    check(phone.register(expires=0).status, 200)
    until("who leaves is left alone", lambda: counts(server)["registered"] == 0)


def test_calls_are_kept_alive(place):
    server, caller, callee = started(place)
    check(callee.register(expires=600).status, 200)
    for who_ends in (caller, callee):
        call_id, branch = f"call-{who_ends.user}", f"z9hG4bK{who_ends.user}"
        text = (f"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:alice@example.com>;tag=from\r\nTo: <sip:bob@example.com>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n"
                "Content-Length: 0\r\n\r\n")
        caller.socket.sendto(text.encode(), ("127.0.0.1", server.port))
        invite = callee.receive("INVITE")
        callee.answer(invite, 180)
        check(caller.receive("SIP/2.0 180").status, 180)
        check(counts(server)["dialog"], 2, "the caller, and the callee, who has registered")
        caller.receive("OPTIONS")
        callee.answer(invite, 200)
        check(caller.receive("SIP/2.0 200").status, 200)
        caller.receive("OPTIONS")
        first, second = ("from", "e2e") if who_ends is caller else ("e2e", "from")
        bye = (f"BYE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {who_ends.address};branch={branch}b\r\nMax-Forwards: 70\r\n"
               f"From: <sip:x@example.com>;tag={first}\r\nTo: <sip:y@example.com>;tag={second}\r\nCall-ID: {call_id}\r\n"
               "CSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n")
        who_ends.socket.sendto(bye.encode(), ("127.0.0.1", server.port))
        callee.answer(callee.receive("BYE"), 200)
        until("the call is over", lambda: counts(server)["dialog"] == 0)
    # A call that fails needs nobody any more.
    got = []
    thread = threading.Thread(target=lambda: got.append(caller.request("INVITE", "sip:bob@example.com", call_id="busy")))
    thread.start()
    callee.answer(callee.receive("INVITE"), 486)
    thread.join()
    check((got[0].status, counts(server)["dialog"]), (486, 0))


PINGS = HEAD + """
loadmodule "nathelper.so"
modparam("nathelper", "natping_interval", 1)
modparam("nathelper", "ping_nated_only", 1)
modparam("nathelper", "sipping_bflag", "SIP_PING")
modparam("nathelper", "sipping_from", "sip:pinger@example.com")
modparam("usrloc", "nat_bflag", "NAT")
modparam("nathelper", "received_avp", "$avp(received)")
modparam("registrar", "received_avp", "$avp(received)")
route {
    if (is_method("REGISTER")) {
        if (nat_uac_test(127)) {
            setbflag("NAT");
            if ($fU == "sip") {
                setbflag("SIP_PING");
            }
            fix_nated_register();
        }
        save("location");
        exit;
    }
    send_reply(200, "OK");
}
"""


def test_contacts_are_pinged(place):
    server = place.server(PINGS)
    udp, sip = place.phone(server, "udp"), place.phone(server, "sip")
    for phone in (udp, sip):
        check(phone.register(f"<sip:{phone.user}@10.1.2.3:5060>").status, 200)
    udp.socket.settimeout(10)
    check(udp.socket.recv(100), b"\0\0\0\0", "four bytes to who is behind a NAT")
    ping = sip.receive("OPTIONS")
    check((ping.header("From").split(";")[0], ping.text.split(" ")[1]), ("<sip:pinger@example.com>", "sip:sip@10.1.2.3:5060"))
    # What is switched off stays silent, and on again pings again.
    check(server.mi("nathelper:enable_ping", [0]), "OK")
    check(server.mi("nh_enable_ping"), {"Status": 0})
    check(server.mi("nh_enable_ping", [1]), "OK")
    sip.receive("OPTIONS")
