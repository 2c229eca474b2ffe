"""Recordings of what directories, RADIUS servers and media engines answered: a replay without them sends what was sent."""
import re, socket, subprocess, threading
from harness import Failed, check
from topic_aaa import CONFIG as PLAIN, Radius, Slapd

RECORDER = 'loadmodule "recorder.so"\nmodparam("recorder", "enabled", 1)\nloadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
CONFIG = PLAIN.replace("{MODULES}", "{MODULES}\n" + RECORDER)


class Engine(threading.Thread):
    """Speaks the protocol of rtpproxy: another port for each call."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port, self.given = self.socket.getsockname()[1], 40000
        place.ending.callback(self.socket.close)
        self.start()

    def run(self):
        while True:
            try:
                data, peer = self.socket.recvfrom(65535)
            except OSError:
                return
            cookie, _, command = data.partition(b" ")
            if command.startswith(b"VF"):
                answer = b"1"
            elif command.startswith(b"V"):
                answer = b"20040107"
            else:
                self.given += 2
                answer = b"%d 127.0.0.1" % self.given
            self.socket.sendto(cookie + b" " + answer + b"\n", peer)


def verify(place, server):
    recording = place.dir / "a.rec"
    server.mi("recorder:save", [str(recording)])
    server.stop()
    done = subprocess.run([str(place.program), "replay", str(recording), "--verify"], capture_output=True, text=True, timeout=120)
    if done.returncode or not re.search(r"the replay sends all \d+ messages as they were sent", done.stdout):
        raise Failed(done.stdout[-3000:] + done.stderr)


def asked(place, server, users):
    """X-Value of the answer to a MESSAGE to each."""
    phone = place.phone(server)
    return [phone.request("MESSAGE", f"sip:{user}@example.com").header("X-Value") for user in users]


def test_a_directory(place):
    slapd = Slapd(place)
    (place.dir / "ldap.cfg").write_text(f'[dir]\nldap_server_url = "ldap://127.0.0.1:{slapd.port}"\n')
    server = place.server(CONFIG, MODULES=f'loadmodule "ldap.so"\nmodparam("ldap", "config_file", "{place.dir}/ldap.cfg")\n',
                          BODY='ldap_search("ldap://dir/dc=example,dc=com??sub?(uid=$rU)");\n    ldap_result("mail", $avp(v));')
    check(asked(place, server, ["bob", "nobody", "bob"]), ["sip:bob@home", "<null>", "sip:bob@home"])
    slapd.kill()
    verify(place, server)


def test_radius(place):
    daemon = Radius(place)
    (place.dir / "client.dictionary").write_text(
        "ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\nATTRIBUTE Reply-Message 18 string\n")
    (place.dir / "client.conf").write_text(f"authserver 127.0.0.1:{daemon.port}:testing123\ndictionary {place.dir}/client.dictionary\n")
    modules = f"""loadmodule "aaa_radius.so"
modparam("aaa_radius", "radius_config", "{place.dir}/client.conf")
modparam("aaa_radius", "sets", "in = (User-Name = $rU, User-Password = $var(p))")
modparam("aaa_radius", "sets", "out = (Reply-Message = $avp(v))")
"""
    server = place.server(CONFIG, MODULES=modules, BODY='$var(p) = "secret";\n    radius_send_auth("in", "out");')
    check(asked(place, server, ["bob", "nobody", "bob"]), ["welcome", "<null>", "welcome"])
    daemon.kill()
    verify(place, server)


def test_an_engine(place):
    engine = Engine(place)
    callee = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    callee.bind(("127.0.0.1", 0))
    callee.settimeout(5)
    body = 'rtpproxy_offer("r");\n    $du = "sip:127.0.0.1:%d"; t_relay(); exit;' % callee.getsockname()[1]
    modules = f'loadmodule "rtpproxy.so"\nmodparam("rtpproxy", "rtpproxy_sock", "udp:127.0.0.1:{engine.port}")\n'
    server = place.server(CONFIG, MODULES=modules, BODY=body)
    phone = place.phone(server)
    sdp = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    for n in range(2):
        branch = f"z9hG4bKe{n}"
        text = (f"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch={branch}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:a@example.com>;tag=a{n}\r\nTo: <sip:bob@example.com>\r\nCall-ID: engine{n}\r\nCSeq: 1 INVITE\r\n"
                f"Contact: <sip:a@{phone.address}>\r\nContent-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}")
        phone.socket.sendto(text.encode(), ("127.0.0.1", server.port))
        while not (got := callee.recv(65535).decode()).startswith("INVITE") or f"engine{n}" not in got:
            pass
        check(re.search(r"m=audio (\d+)", got)[1], str(40002 + 2 * n))
    engine.socket.close()
    verify(place, server)
