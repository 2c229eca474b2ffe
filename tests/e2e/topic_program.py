"""The program as a newcomer meets it: without a configuration, and the demonstration."""
import re, socket, subprocess

from harness import DEADLINE, Failed, Place, Server, check, free_port, until


class BuiltIn(Server):
    """The program without -f."""

    def start(self, *switches):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(self.place.program), "-l", f"udp:127.0.0.1:{self.port}", "-n", "1"],
                                            cwd=self.place.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        until("the server listens", self.listens)


def test_the_built_in_configuration_registers_a_phone(place):
    server = BuiltIn(place, "", {})
    place.servers.append(server)
    place.ending.callback(server.kill)
    server.start()
    place.sqlite("fermata.sqlite",
                 "INSERT INTO subscriber (username, domain, password) VALUES ('alice', '127.0.0.1', 's3cret')")
    register = ["sipsak", "-U", "-C", "sip:alice@127.0.0.1:5099", "-x", "60", "-a", "s3cret", "-u", "alice",
                "-s", f"sip:alice@127.0.0.1:{server.port}"]
    done = subprocess.run(register, capture_output=True, text=True, timeout=DEADLINE)
    check(done.returncode, 0, f"sipsak with the right password: {done.stdout}{done.stderr}")
    wrong = [("wrong" if a == "s3cret" else a) for a in register]
    done = subprocess.run(wrong, capture_output=True, text=True, timeout=DEADLINE)
    if done.returncode == 0:
        raise Failed("sipsak registered with a wrong password")


def test_the_demonstration(place):
    done = subprocess.run([str(place.program), "demo", "--calls", "40", "--rate", "40", "--slowest", "400"],
                          cwd=place.dir, capture_output=True, text=True, timeout=60)
    check(done.returncode, 0, done.stdout + done.stderr)
    for words in ("40 calls", "none failed", "rest_get", "Set-up time", "OPTIONS sent meanwhile"):
        if words not in done.stdout:
            raise Failed(f"`{words}` is not in\n{done.stdout}")


def test_a_bad_script_is_explained(place):
    bad = place.dir / "bad.cfg"
    bad.write_text('loadmodule "tm.so"\nroute {\n    t_rely();\n    async(t_relay(), nowhere);\n    $nosuch = 1;\n}\n')
    done = subprocess.run([str(place.program), "-f", str(bad)], capture_output=True, text=True, timeout=DEADLINE)
    check(done.returncode, 1, "exit code")
    for words in ("bad.cfg:3", "t_relay", "bad.cfg:4", "nowhere", "bad.cfg:5", "nosuch"):
        if words not in done.stderr:
            raise Failed(f"`{words}` is not in\n{done.stderr}")


STARTUP = """
log_level=3
stderror_enabled=yes
syslog_enabled=no
udp_workers=2
socket=udp:127.0.0.1:{PORT}
socket=tcp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "sipmsgops.so"
loadmodule "exec.so"
loadmodule "cfgutils.so"
modparam("cfgutils", "shvset", "ready=s:no")
startup_route {
    exec("until [ -e {DIR}/open ]; do sleep 0.05; done; echo yes", , $var(out));
    $shv(ready) = $var(out);
}
route {
    append_to_reply("X-Ready: $shv(ready)\\r\\n");
    sl_send_reply(200, "Here");
}
"""


def test_no_message_before_the_startup_route_has_ended(place):
    server = place.server(STARTUP)
    phones = [place.phone(server, f"user{n}", f"127.0.0.{n + 2}") for n in range(4)]
    for n, phone in enumerate(phones):
        phone.socket.settimeout(DEADLINE)
        phone.socket.sendto(f"OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP {phone.address};branch=z9hG4bK{n}\r\n"
                            f"From: <sip:a@x>;tag={n}\r\nTo: <sip:b@x>\r\nCall-ID: {n}@startup\r\nCSeq: 1 OPTIONS\r\n"
                            "Content-Length: 0\r\n\r\n".encode(), ("127.0.0.1", server.port))
    (place.dir / "open").touch()
    answers = [re.search(r"X-Ready: (\w+)", phone.socket.recv(65535).decode())[1] for phone in phones]
    check(answers, ["yes"] * 4)
