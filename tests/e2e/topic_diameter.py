"""Diameter from scripts, against python-diameter: requests and answers, a peer that is slow, a peer that leaves."""
import base64, hashlib, threading, time
from diameter.message import Avp, constants
from diameter.node import Node
from diameter.node.application import ThreadingApplication
from harness import check, free_port, until

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
    $var(rc) = dm_send_request(16777216, 303, "[{\\"Origin-Host\\": \\"client.diameter.test\\"}, {\\"Origin-Realm\\": \\"diameter.test\\"},
        {\\"Destination-Realm\\": \\"diameter.test\\"}, {\\"Vendor-Specific-Application-Id\\": [{\\"Vendor-Id\\": 10415},
        {\\"Auth-Application-Id\\": 16777216}]}, {\\"Auth-Session-State\\": 1}, {\\"Public-Identity\\": \\"$fu\\"},
        {\\"User-Name\\": \\"$fU\\"}, {\\"Server-Name\\": \\"sip:scscf\\"}, {\\"3GPP-SIP-Number-Auth-Items\\": 1},
        {\\"3GPP-SIP-Auth-Data-Item\\": [{\\"3GPP-SIP-Authentication-Scheme\\": \\"Digest-AKAv1-MD5\\"}]}]",
        $avp(answer));
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
ATTRIBUTE 3GPP-SIP-Authorization          610 hexstring  10415
ATTRIBUTE Confidentiality-Key             625 hexstring  10415
ATTRIBUTE Integrity-Key                   626 hexstring  10415
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
AKA = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "auth.so"
loadmodule "sipmsgops.so"
loadmodule "aaa_diameter.so"
loadmodule "auth_aka.so"
loadmodule "aka_av_diameter.so"
modparam("auth_aka", "default_av_mgm", "diameter")
modparam("auth_aka", "default_qop", "auth")
modparam("aka_av_diameter", "realm", "scscf.ims.test")
modparam("aka_av_diameter", "aaa_url", "diameter:{DIR}/client.conf;extra-avps-file:{DIR}/dictionary")
route {
    $var(rc) = aka_www_authorize("ims.test");
    if ($var(rc) < 0) {
        $var(sent) = aka_www_challenge(, "ims.test");
        if ($var(sent) < 0) send_reply(480, "No Vector $var(sent)");
        exit;
    }
    append_to_reply("X-User: $au\\r\\n");
    send_reply(200, "Registered");
}
"""
CX, TGPP = 16777216, 10415
NONCE, XRES = bytes(range(32)), b"\x00\x01answer"


class Hss(ThreadingApplication):
    """Answers Multimedia-Auth-Requests; `slow` ones late."""

    def __init__(self):
        super().__init__(CX, is_auth_application=True, max_threads=20)
        self.seen, self.resync = [], []

    def handle_request(self, message):
        def value(code, vendor=0):
            return next(avp.value for avp in message.avps if (avp.code, avp.vendor_id) == (code, vendor))
        user = value(1)
        self.seen.append((value(601, TGPP), value(602, TGPP), value(607, TGPP)))
        if user == "slow":
            time.sleep(4)
        answer = message.to_answer()
        answer.session_id, answer.result_code = value(263), constants.E_RESULT_CODE_DIAMETER_SUCCESS
        answer.origin_host, answer.origin_realm, answer.auth_session_state = b"server.diameter.test", b"diameter.test", 1
        asked = {avp.code: avp.value for avp in value(612, TGPP)}
        self.resync.append(asked.get(610))
        item = [Avp.new(613, TGPP, value=1), Avp.new(608, TGPP, value=asked[608]), Avp.new(609, TGPP, value=NONCE),
                Avp.new(610, TGPP, value=XRES), Avp.new(625, TGPP, value=b"\xcc" * 16), Avp.new(626, TGPP, value=b"\x11" * 16)]
        answer.append_avp(Avp.new(1, value=user))
        answer.append_avp(Avp.new(612, TGPP, value=item))
        return answer


class Peer:
    def __init__(self, port):
        self.node = Node("server.diameter.test", "diameter.test", ip_addresses=["127.0.0.1"], tcp_port=port,
                         vendor_ids=[TGPP])
        # It knows the attributes of Cx by numbers of another standard.
        self.node.validate_received_request_avps = False
        client = self.node.add_peer("aaa://client.diameter.test", "diameter.test")
        self.hss = Hss()
        self.node.add_application(self.hss, [client], ["diameter.test", "ims.test"])
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
        check(NONCE.hex() in item and "3GPP-SIP-Item-Number" in item, True, item)
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


def credentials(secret, nonce, auts=""):
    """As a phone makes them, RFC 3310 with qop=auth."""
    def md5(*parts):
        return hashlib.md5(b":".join(parts)).hexdigest().encode()
    ha1, ha2 = md5(b"alice@ims.test", b"ims.test", secret), md5(b"REGISTER", b"sip:ims.test")
    response = md5(ha1, nonce.encode(), b"00000001", b"c", b"auth", ha2).decode()
    return (f'Authorization: Digest username="alice@ims.test", realm="ims.test", nonce="{nonce}", uri="sip:ims.test", '
            f'response="{response}", algorithm=AKAv1-MD5, qop=auth, nc=00000001, cnonce="c"{auts}\r\n')


def test_a_phone_of_a_mobile_network_registers(place):
    port = free_port()
    files(place, port)
    peer = Peer(port)
    try:
        server = place.server(AKA, DIR=place.dir)
        def register(headers):
            return place.phone(server, ip="127.0.0.2").request("REGISTER", "sip:ims.test", to="alice",
                                                                headers=headers)
        first = ('Authorization: Digest username="alice@ims.test", realm="ims.test", nonce="", uri="sip:ims.test", '
                 'response=""\r\n')
        reply = until("a challenge", lambda: (lambda r: r if r.status == 401 else None)(register(first)))
        nonce = base64.b64encode(NONCE).decode()
        challenge = reply.header("WWW-Authenticate")
        for part in (f'nonce="{nonce}"', "algorithm=AKAv1-MD5", f'ck="{"cc" * 16}"', f'ik="{"11" * 16}"', 'qop="auth"'):
            check(part in challenge, True, challenge)
        check(peer.hss.seen[-1], ("sip:alice@example.com", "sip:scscf.ims.test", 1))
        # A wrong answer costs the challenge; the right one to the next is taken once.
        check(register(credentials(b"guess", nonce)).status, 401)
        reply = register(credentials(XRES, nonce))
        check((reply.status, reply.header("X-User")), (200, "alice"))
        check(register(credentials(XRES, nonce)).status, 401)
        # A phone whose counter is ahead: the HSS hears of it.
        auts = bytes(range(100, 114))
        check(register(credentials(b"", nonce, f', auts="{base64.b64encode(auts).decode()}"')).status, 401)
        check(peer.hss.resync[-1], NONCE[:16] + auts)
        check(register(credentials(XRES, nonce)).status, 200)
    finally:
        peer.stop()
