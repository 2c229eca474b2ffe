"""Diameter from scripts, against python-diameter: requests and answers, a peer that is slow, a peer that leaves."""
import threading, time
from diameter.message import Avp, Message, constants
from diameter.node import Node
from diameter.node.application import ThreadingApplication
from harness import Failed, check, free_port, until

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
loadmodule "json.so"
loadmodule "aaa_diameter.so"
modparam("aaa_diameter", "realm", "diameter.test")
modparam("aaa_diameter", "answer_timeout", 1500)
modparam("aaa_diameter", "aaa_url", "diameter:{DIR}/client.conf;extra-avps-file:{DIR}/dictionary")
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    $var(avps) = '[{"Origin-Host": "client.diameter.test"}, {"Origin-Realm": "diameter.test"},
        {"Destination-Realm": "diameter.test"}, {"Vendor-Specific-Application-Id": [{"Vendor-Id": 10415},
        {"Auth-Application-Id": 16777216}]}, {"Auth-Session-State": 1}, {"Public-Identity": "$fu"},
        {"User-Name": "$fU"}, {"Server-Name": "sip:scscf"}, {"3GPP-SIP-Number-Auth-Items": 1},
        {"3GPP-SIP-Auth-Data-Item": [{"3GPP-SIP-Authentication-Scheme": "Digest-AKAv1-MD5"}]}]';
    $var(rc) = dm_send_request(16777216, 303, $var(avps), $avp(answer));
    $json(all) := $avp(answer);
    for ($var(one) in $(json(all)[*])) {
        $json(one) := $var(one);
        if ($json(one/Result-Code) != NULL) $avp(code) = $json(one/Result-Code);
        if ($json(one/User-Name) != NULL) $avp(user) = $json(one/User-Name);
        if ($json(one/3GPP-SIP-Auth-Data-Item) != NULL) $avp(item) = $json(one/3GPP-SIP-Auth-Data-Item);
    }
    append_to_reply("X-Rc: $var(rc)\\r\\nX-Code: $avp(code)\\r\\nX-User: $avp(user)\\r\\nX-Item: $avp(item)\\r\\n");
    t_reply(200, "Done");
}
"""
CLIENT = """
Identity = "client.diameter.test";
Realm = "diameter.test";
ConnectPeer = "server.diameter.test" {{ ConnectTo = "127.0.0.1"; Port = {port}; No_TLS; }};
"""
DICTIONARY = """
VENDOR 10415 TGPP
ATTRIBUTE Public-Identity                 601 string     10415
ATTRIBUTE Server-Name                     602 string     10415
ATTRIBUTE 3GPP-SIP-Number-Auth-Items      607 unsigned32 10415
ATTRIBUTE 3GPP-SIP-Authentication-Scheme  608 utf8string 10415
ATTRIBUTE 3GPP-SIP-Authenticate           609 hexstring  10415
ATTRIBUTE 3GPP-SIP-Item-Number            613 unsigned32 10415
ATTRIBUTE 3GPP-SIP-Auth-Data-Item         612 grouped    10415
{
    3GPP-SIP-Item-Number | OPTIONAL | 1
}
APPLICATION-AUTH 16777216/10415 3GPP Cx
REQUEST 303 Multimedia-Auth Request
{
    Session-Id | REQUIRED | 1
}
"""
CX, TGPP = 16777216, 10415


class Hss(ThreadingApplication):
    """Answers Multimedia-Auth-Requests; `slow` ones late."""

    def __init__(self):
        super().__init__(CX, is_auth_application=True, max_threads=20)
        self.seen = []

    def handle_request(self, message):
        def value(code, vendor=0):
            return next(avp.value for avp in message.avps if (avp.code, avp.vendor_id) == (code, vendor))
        user = value(1)
        self.seen.append((value(601, TGPP), value(602, TGPP), value(607, TGPP)))
        if user == "slow":
            time.sleep(4)
        answer = message.to_answer()
        answer.header.is_error = False
        for avp in (Avp.new(263, value=value(263)), Avp.new(268, value=2001), Avp.new(264, value=b"server.diameter.test"),
                    Avp.new(296, value=b"diameter.test"), Avp.new(1, value=user),
                    Avp.new(612, TGPP, value=[Avp.new(613, TGPP, value=1), Avp.new(609, TGPP, value=bytes.fromhex("00ff10"))])):
            answer.append_avp(avp)
        return answer


class Peer:
    def __init__(self, port):
        self.node = Node("server.diameter.test", "diameter.test", ip_addresses=["127.0.0.1"], tcp_port=port,
                         vendor_ids=[TGPP])
        client = self.node.add_peer("aaa://client.diameter.test", "diameter.test")
        self.hss = Hss()
        self.node.add_application(self.hss, [client])
        self.node.start()

    def stop(self):
        self.node.stop(wait_timeout=1, force=True)


def files(place, port):
    (place.dir / "client.conf").write_text(CLIENT.format(port=port))
    (place.dir / "dictionary").write_text(DICTIONARY)


def ask(place, server, user, ip="127.0.0.2"):
    return place.phone(server, user=user, ip=ip).request("MESSAGE", "sip:bob@example.com")


def answered(place, server):
    return until("an answer of the peer", lambda: (lambda r: r if r.header("X-Rc") == "1" else None)(
        ask(place, server, "alice")))


def test_requests_and_answers(place):
    port = free_port()
    files(place, port)
    peer = Peer(port)
    try:
        server = place.server(CONFIG, DIR=place.dir)
        reply = answered(place, server)
        check((reply.header("X-Code"), reply.header("X-User")), ("2001", "alice"))
        item = reply.header("X-Item")
        check("00ff10" in item and "3GPP-SIP-Item-Number" in item, True, item)
        check(peer.hss.seen[-1][1:], ("sip:scscf", 1))
        # One that waits for its answer delays nobody; it gives up in its time.
        late = []
        slow = threading.Thread(target=lambda: late.append(ask(place, server, "slow", ip="127.0.0.9")))
        slow.start()
        until("the slow request", lambda: len(peer.hss.seen) > 1)
        since = time.monotonic()
        check(ask(place, server, "bob").header("X-User"), "bob")
        check(time.monotonic() - since < 1, True)
        slow.join()
        check(late[0].header("X-Rc"), "-2")
    finally:
        peer.stop()


def test_the_peer_leaves_and_comes_back(place):
    port = free_port()
    files(place, port)
    server = place.server(CONFIG, DIR=place.dir)
    until("a refusal", lambda: ask(place, server, "alice").header("X-Rc") == "-1")
    peer = Peer(port)
    try:
        answered(place, server)
    finally:
        peer.stop()
    until("a refusal", lambda: ask(place, server, "alice").header("X-Rc") == "-1")
    text = server.log_text()
    check((text.count("is unreachable"), text.count("is back")), (2, 1), text)
