"""The shipped configuration relays for nobody without a password, and real calls go through."""
import random, re, socket
from harness import Failed, check
from topic_auth import answer
from topic_peers import registered, residential


class Agent:
    """A user agent at the shipped configuration, whose domain is 127.0.0.1."""

    def __init__(self, place, server, user, password=None, domain="127.0.0.1"):
        self.phone = place.phone(server, user)
        self.user, self.password, self.domain = user, password, domain
        self.contact = f"sip:{user}@{self.phone.address}"

    def send(self, method, uri, to=None, call_id=None, from_tag="ft", to_tag=None, routes=(), extra="", cseq=None, contact=None,
             branch=None, from_uri=None):
        """The final reply; `None` for an ACK."""
        self.phone.cseq = cseq or self.phone.cseq + 1
        branch = branch or f"z9hG4bK{random.getrandbits(60):x}"
        to_tag = f";tag={to_tag}" if to_tag else ""
        text = (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
                + "".join(f"Route: {route}\r\n" for route in routes) +
                f"From: <{from_uri or f'sip:{self.user}@{self.domain}'}>;tag={from_tag}\r\nTo: <{to or uri}>{to_tag}\r\n"
                f"Call-ID: {call_id or self.phone.call_id}\r\nCSeq: {self.phone.cseq} {method}\r\n"
                f"Contact: <{contact or self.contact}>\r\n{extra}Content-Length: 0\r\n\r\n")
        if method == "ACK":
            self.phone.socket.sendto(text.encode(), ("127.0.0.1", self.phone.server.port))
            return None
        reply = self.phone.exchange(text, branch)
        if method == "INVITE" and reply.status >= 300:
            to = re.search(r"(?im)^To: (.*?)\r", reply.text)[1]
            ack = re.sub(r"(?m)^To: .*?\r", lambda _: f"To: {to}\r", text.replace("INVITE", "ACK"))
            self.phone.socket.sendto(ack.encode(), ("127.0.0.1", self.phone.server.port))
        return reply

    def authenticated(self, method, uri, **more):
        reply = self.send(method, uri, **more)
        asked = "Proxy-Authorization" if reply.status == 407 else "Authorization"
        challenge = reply.header("Proxy-Authenticate") or reply.header("WWW-Authenticate")
        extra = answer(challenge, self.user, self.password, method=method, uri=uri, header=asked) + more.pop("extra", "")
        return lambda: self.send(method, uri, extra=extra, **more)

    def register(self):
        check(self.authenticated("REGISTER", "sip:127.0.0.1", to=f"sip:{self.user}@127.0.0.1")().status, 200, f"{self.user} registers")


class Third:
    """Somebody who must not hear anything through the server."""

    def __init__(self, place):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        place.ending.callback(self.socket.close)
        self.uri = "sip:third@127.0.0.1:%d" % self.socket.getsockname()[1]

    def heard_nothing(self, what):
        self.socket.sendto(b"end", self.socket.getsockname())
        self.socket.settimeout(10)
        heard = self.socket.recv(65535)
        check(heard[:60], b"end", f"{what}: somebody else heard it")


def people(place):
    server = residential(place)
    alice, bob = Agent(place, server, "alice", "wonder"), Agent(place, server, "bob", "builder")
    alice.register()
    bob.register()
    return server, alice, bob, Agent(place, server, "mallory", domain="elsewhere.example")


def own(server):
    return f"<sip:127.0.0.1:{server.port};lr>"


def refused(reply, what):
    if reply is not None and reply.status not in (401, 403, 404, 407, 481, 483, 484):
        raise Failed(f"{what} was answered {reply.status}")


METHODS = "INVITE ACK BYE OPTIONS MESSAGE INFO UPDATE PRACK REFER NOTIFY SUBSCRIBE PUBLISH FOO".split()


def test_nobody_relays_to_others_without_a_password(place):
    server, alice, bob, mallory = people(place)
    third = Third(place)
    host, port = third.uri.removeprefix("sip:third@").split(":")
    froms = ("sip:mallory@elsewhere.example", "sip:alice@127.0.0.1", f"sip:alice@127.0.0.1:{server.port}", "sip:127.0.0.1")
    shapes = {
        "plain": dict(),
        "a Route of ours": dict(routes=[own(server)]),
        "a foreign Route": dict(routes=[f"<{third.uri};lr>"]),
        "our Route, then a foreign one": dict(routes=[own(server), f"<{third.uri};lr>"]),
        "a To tag": dict(to_tag="forged"),
        "a To tag and our Route": dict(to_tag="forged", routes=[own(server)]),
        "a To tag, our Route and a foreign one": dict(to_tag="forged", routes=[own(server), f"<{third.uri};lr>"]),
        "a To tag and a forged signature": dict(to_tag="forged", routes=[own(server).replace(";lr", ";lr;sub=" + 32 * "0")]),
        "a To tag and an expression": dict(to_tag="forged", routes=[own(server).replace(";lr", ";lr;sub=.*")]),
        "a made-up password": dict(extra='Proxy-Authorization: Digest username="alice", realm="127.0.0.1", nonce="x", uri="sip:h", '
                                         f'response="{32 * "0"}"\r\n'),
    }
    targets = (third.uri, f"sip:nobody@127.0.0.1;maddr={host}", f"sip:nobody@127.0.0.1:{port}", f"sip:127.0.0.1:{port}")
    for method in METHODS:
        for shape, more in shapes.items():
            what = f"{method} with {shape}"
            number = random.getrandbits(40)
            refused(mallory.send(method, third.uri, from_uri=random.choice(froms), call_id=f"{number}@m", **more), what)
            third.heard_nothing(what)
    for method in ("INVITE", "MESSAGE", "ACK", "FOO"):
        for frm in froms:
            for target in targets:
                for shape in ("a To tag and our Route", "plain"):
                    what = f"{method} from {frm} to {target} with {shape}"
                    call_id = f"{random.getrandbits(40)}@m"
                    refused(mallory.send(method, target, from_uri=frm, call_id=call_id, **shapes[shape]), what)
                    third.heard_nothing(what)


def call(caller, callee, uri, **more):
    """A call that is answered: (INVITE as the callee got it, 200 as the caller got it, route set of each)."""
    sending = caller.authenticated("INVITE", uri, **more) if caller.password else lambda: caller.send("INVITE", uri, **more)
    import threading
    got = {}

    def ring():
        invite = callee.phone.receive("INVITE")
        callee.phone.answer(invite, 200, f"Contact: <{callee.contact}>\r\n")
        got["invite"] = invite
    thread = threading.Thread(target=ring)
    thread.start()
    reply = sending()
    thread.join()
    check(reply.status, 200, "the call is answered")
    routes = re.findall(r"(?im)^Record-Route: (.*?)\r", reply.text)
    check(len(routes), 1, "one Record-Route")
    return got["invite"], reply, routes


def tags(reply):
    return re.search(r"(?im)^From:.*?;tag=([^;\r]+)", reply.text)[1], re.search(r"(?im)^To:.*?;tag=([^;\r]+)", reply.text)[1]


def within(sender, receiver, method, reply, routes, uri=None, **more):
    """A request inside a dialog reaches the other side and is answered."""
    import threading
    heard = {}

    def hear():
        heard["request"] = receiver.phone.receive(method)
        if method != "ACK":
            receiver.phone.answer(heard["request"], 200, f"Contact: <{receiver.contact}>\r\n")
    thread = threading.Thread(target=hear)
    thread.start()
    answered = sender.send(method, uri or receiver.contact, routes=routes, call_id=re.search(r"(?im)^Call-ID: (.*?)\r", reply.text)[1], **more)
    thread.join()
    check("request" in heard, True, f"{method} arrives")
    if answered is not None:
        check(answered.status, 200, f"{method} is answered")


def test_calls_of_subscribers(place):
    server, alice, bob, _ = people(place)
    _, reply, routes = call(alice, bob, "sip:bob@127.0.0.1")
    mine, theirs = tags(reply)
    within(alice, bob, "ACK", reply, routes, from_tag=mine, to_tag=theirs, cseq=alice.phone.cseq)
    from_bob = dict(from_tag=theirs, to_tag=mine, to="sip:alice@127.0.0.1")
    within(bob, alice, "INVITE", reply, routes, **from_bob)
    within(bob, alice, "ACK", reply, routes, cseq=bob.phone.cseq, **from_bob)
    within(alice, bob, "INFO", reply, routes, from_tag=mine, to_tag=theirs)
    within(bob, alice, "BYE", reply, routes, **from_bob)


def test_requests_between_subscribers(place):
    server, alice, bob, mallory = people(place)
    import threading
    for method in ("MESSAGE", "NOTIFY", "OPTIONS"):
        thread = threading.Thread(target=lambda: bob.phone.answer(bob.phone.receive(method), 200))
        thread.start()
        check(alice.authenticated(method, "sip:bob@127.0.0.1")().status, 200, method)
        thread.join()
    # Calls from elsewhere reach subscribers, and only them.
    thread = threading.Thread(target=lambda: bob.phone.answer(bob.phone.receive("MESSAGE"), 200))
    thread.start()
    check(mallory.send("MESSAGE", "sip:bob@127.0.0.1").status, 200, "a message from elsewhere")
    thread.join()


def test_a_call_from_elsewhere_is_no_way_out(place):
    """Somebody who calls a subscriber has a signed route, and may use it for this call only."""
    server, alice, bob, mallory = people(place)
    third = Third(place)
    _, reply, routes = call(mallory, bob, "sip:bob@127.0.0.1", contact=third.uri)
    mine, theirs = tags(reply)
    within(mallory, bob, "ACK", reply, routes, from_tag=mine, to_tag=theirs, cseq=mallory.phone.cseq)
    call_id = re.search(r"(?im)^Call-ID: (.*?)\r", reply.text)[1]
    bob_at = bob.contact.removeprefix("sip:bob@")
    for method in METHODS:
        for more in (dict(call_id=call_id), dict(call_id="other@m"), dict(call_id=call_id, routes=[*routes, f"<{third.uri};lr>"]),
                     dict(call_id=call_id, uri=f"sip:bob@{bob_at};maddr=127.0.0.1:1")):
            what = f"{method} {more}"
            uri = more.pop("uri", third.uri)
            refused(mallory.send(method, uri, **{"routes": routes, "from_tag": mine, "to_tag": theirs, **more}), what)
            third.heard_nothing(what)
    within(mallory, bob, "BYE", reply, routes, from_tag=mine, to_tag=theirs)


def test_the_called_side_of_a_call_from_elsewhere_ends_it(place):
    server, alice, bob, mallory = people(place)
    _, reply, routes = call(mallory, bob, "sip:bob@127.0.0.1")
    mine, theirs = tags(reply)
    within(mallory, bob, "ACK", reply, routes, from_tag=mine, to_tag=theirs, cseq=mallory.phone.cseq)
    within(bob, mallory, "BYE", reply, routes, from_tag=theirs, to_tag=mine, to="sip:mallory@elsewhere.example")


def test_subscribers_call_out(place):
    """A subscriber calls somebody elsewhere, who may answer and hang up, and nothing else."""
    server, alice, bob, mallory = people(place)
    third = Third(place)
    _, reply, routes = call(alice, mallory, mallory.contact)
    mine, theirs = tags(reply)
    within(alice, mallory, "ACK", reply, routes, from_tag=mine, to_tag=theirs, cseq=alice.phone.cseq)
    call_id = re.search(r"(?im)^Call-ID: (.*?)\r", reply.text)[1]
    for method in METHODS:
        refused(mallory.send(method, third.uri, routes=routes, call_id=call_id, from_tag=theirs, to_tag=mine), method)
        third.heard_nothing(method)
    within(mallory, alice, "BYE", reply, routes, from_tag=theirs, to_tag=mine)


def test_a_subscriber_is_nobody_else(place):
    """One's own password does not make a caller or a registration of somebody else, whatever stands beside it."""
    server, alice, bob, _ = people(place)
    other = ('{}: Digest username="bob", realm="elsewhere", nonce="00", uri="sip:127.0.0.1", response="' + 32 * "0" + '"\r\n')
    for method, uri, header in (("REGISTER", "sip:127.0.0.1", "Authorization"), ("MESSAGE", "sip:bob@127.0.0.1", "Proxy-Authorization")):
        for order in (lambda own, other: own + other, lambda own, other: other + own):
            more = dict(to="sip:bob@127.0.0.1", from_uri="sip:bob@127.0.0.1")
            challenge = alice.send(method, uri, **more)
            challenge = challenge.header("Proxy-Authenticate") or challenge.header("WWW-Authenticate")
            own = answer(challenge, "alice", "wonder", method=method, uri=uri, header=header)
            check(alice.send(method, uri, extra=order(own, other.format(header)), **more).status, 403, f"{method} as bob")
    check(registered(server), ["alice@127.0.0.1", "bob@127.0.0.1"])
