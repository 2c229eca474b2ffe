"""Real user agents at the shipped configuration: PJSUA2, linphone, baresip. They register with a password, call
each other through recorded routes, hear each other, and either side hangs up."""
import pathlib, re, subprocess, time
from harness import check, free_port, tool, until
from topic_peers import USERS, baresip, command, program, registered, residential

HERE = pathlib.Path(__file__).resolve().parent


class Agent:
    """What all have: a log that tells what happened, from the last `mark` on."""
    patterns = {}

    def __init__(self, place, server, user, password):
        self.place, self.server, self.user = place, server, user
        self.log, self.seen = place.dir / f"{user}.out", 0
        self.start(user, password)

    def text(self):
        return self.log.read_text(errors="replace")[self.seen:] if self.log.exists() else ""

    def mark(self):
        self.seen += len(self.text())

    def wait(self, event):
        pattern = self.patterns[event]
        try:
            return until(f"{self.user}: {event}", lambda: re.search(pattern, self.text()))
        except Exception as error:
            error.args = (f"{error.args[0]}; its log ends: {self.text()[-600:]}",)
            raise

    def run(self, *words, **more):
        self.process = self.place.process(*words, stdin=subprocess.PIPE, stdout=open(self.log, "wb"),
                                          stderr=subprocess.STDOUT, **more)

    def tell(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()


class Pjsua(Agent):
    patterns = {"registered": r"(?m)^registered 200", "refused": r"(?m)^unregistered 40[13]", "established": r"(?m)^confirmed",
                "sound": r"(?m)^rtp", "closed": r"(?m)^closed 200"}

    def start(self, user, password):
        python = tool("python3")
        self.run(python, HERE / "agent_pjsua2.py", free_port(), self.server.port, user, password)

    def call(self, user):
        self.tell(f"call sip:{user}@127.0.0.1")

    def hang_up(self):
        self.tell("hangup")


class Linphone(Agent):
    patterns = {"registered": r"State: LinphoneRegistrationOk", "refused": r"State: LinphoneRegistrationFailed",
                "established": r"State: LinphoneCallStreamsRunning",
                "closed": r"LinphoneCallEnd|No active call|No current call"}

    asked = 0

    def start(self, user, password):
        home = self.place.dir / f"linphone-{user}"
        (home / ".local/share/linphone").mkdir(parents=True)
        (home / "rc").write_text(
            f"[sip]\nsip_port={free_port()}\nsip_tcp_port=-1\nsip_tls_port=-1\nguess_hostname=0\n"
            f"contact=sip:{user}@127.0.0.1\n[rtp]\naudio_rtp_port={free_port()}\n[net]\nfirewall_policy=0\n")
        self.run(program("linphone-daemon"), "--config", home / "rc", "--auto-answer",
                 env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
        self.tell(f"register sip:{user}@127.0.0.1 sip:127.0.0.1:{self.server.port} {password} {user}")

    def text(self):
        # It tells what happens when it is asked.
        if self.process.poll() is None and time.monotonic() > self.asked + 0.2:
            self.asked = time.monotonic()
            self.tell("register-status ALL\ncall-status")
        return super().text()

    def call(self, user):
        self.tell(f"call sip:{user}@127.0.0.1:{self.server.port}")

    def hang_up(self):
        self.tell("terminate")


class Baresip(Agent):
    patterns = {"registered": r"200 OK", "established": r"(?i)call established", "sound": r"incoming rtp for 'audio' established",
                "closed": r"(?i)session closed|terminate|call.*closed"}

    def start(self, user, password):
        self.process, self.control, self.log = baresip(self.place, self.server, user, password, "auto")

    def call(self, user):
        command(self.control, f"dial sip:{user}@127.0.0.1:{self.server.port}")

    def hang_up(self):
        command(self.control, "hangup")


def requests(server):
    return server.mi("get_statistics", [["rcv_requests"]])["core:rcv_requests"]


def talk(server, caller, callee, who_ends):
    """One call: established, heard, ended by one side, and the end went through the server."""
    caller.mark(), callee.mark()
    caller.call(callee.user)
    for side in (callee, caller):
        side.wait("established")
    # linphone plays and records nothing where there is no sound card.
    if Linphone not in (type(caller), type(callee)):
        for side in (callee, caller):
            side.wait("sound")
    before = requests(server)
    (caller if who_ends == "caller" else callee).hang_up()
    for side in (caller, callee):
        side.wait("closed")
    check(requests(server) > before, True, "the BYE took the recorded route")


def both_ways(place, first, second):
    server = residential(place)
    alice, bob = first(place, server, "alice", "wonder"), second(place, server, "bob", "builder")
    alice.wait("registered"), bob.wait("registered")
    check(registered(server), ["alice@127.0.0.1", "bob@127.0.0.1"])
    talk(server, alice, bob, "caller")
    talk(server, bob, alice, "caller")
    talk(server, alice, bob, "callee")
    talk(server, bob, alice, "callee")


def test_pjsua_and_baresip(place):
    both_ways(place, Pjsua, Baresip)


def test_pjsua_and_linphone(place):
    both_ways(place, Pjsua, Linphone)


def test_linphone_and_baresip(place):
    both_ways(place, Linphone, Baresip)


def test_wrong_passwords_are_refused(place):
    server = residential(place)
    Pjsua(place, server, "alice", "wrong").wait("refused")
    Linphone(place, server, "bob", "wrong").wait("refused")
    check(registered(server), [])
