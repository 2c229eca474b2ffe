"""What end-to-end tests share: servers, phones, management commands, waiting with a deadline."""
import contextlib, json, os, pathlib, random, re, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, time
import urllib.request

DEADLINE = 20.0                   # seconds that anything may take before it counts as failed


class Failed(Exception):
    """A test did not find what it expected."""


def check(found, expected, what=""):
    if found != expected:
        raise Failed(f"{what}: expected {expected!r}, found {found!r}")


def until(what, probe, seconds=DEADLINE):
    """Asks `probe` until it gives something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def free_port():
    """A UDP and TCP port of the loopback address that nobody has now."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Place:
    """A folder and everything that a test starts; all of it ends with the test."""

    def __init__(self, program):
        self.program = program
        self.ending = contextlib.ExitStack()
        self.servers = []

    def __enter__(self):
        self.dir = pathlib.Path(self.ending.enter_context(tempfile.TemporaryDirectory(prefix="fermata-e2e-")))
        return self

    def __exit__(self, *_):
        self.ending.close()

    def server(self, config, **names):
        """Starts the program with a configuration; {PORT}, {DIR} and further names in it are filled in.
        ENV: variables of its environment; BEFORE: a command that starts it."""
        server = Server(self, config, names)
        self.servers.append(server)
        self.ending.callback(server.kill)
        server.start()
        return server

    def process(self, *command, **more):
        """Starts another program in the folder; it is killed with the test."""
        process = subprocess.Popen([str(c) for c in command], cwd=self.dir, start_new_session=True, **more)

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.ending.callback(end)
        return process

    def phone(self, server, user="alice", ip="127.0.0.2"):
        phone = Phone(server, user, ip)
        self.ending.callback(phone.socket.close)
        return phone

    def sqlite(self, name, statements=""):
        """Runs statements on a database of the folder and returns the rows of the last one."""
        with contextlib.closing(sqlite3.connect(self.dir / name, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            rows = []
            for statement in filter(str.strip, statements.split(";\n")):
                rows = [dict(r) for r in db.execute(statement).fetchall()]
            db.commit()
            return rows

    def show_logs(self):
        for server in self.servers:
            lines = server.log.read_text(errors="replace").splitlines() if server.log.exists() else []
            for line in lines[-25:]:
                print("     |", line)


class Server:
    def __init__(self, place, config, names):
        self.place, self.process = place, None
        self.port = names.pop("PORT", None) or free_port()
        self.environment = {**os.environ, **names.pop("ENV", {})}
        self.before = names.pop("BEFORE", [])
        self.mi_port = free_port()
        self.fifo = place.dir / f"fifo{len(place.servers)}"
        self.log = place.dir / f"log{len(place.servers)}"
        self.config = place.dir / f"server{len(place.servers)}.cfg"
        fill = {"PORT": self.port, "DIR": place.dir, "MI": self.mi_port, "FIFO": self.fifo, **names}
        text = re.sub(r"\{([A-Z][A-Z0-9_]*)\}", lambda m: str(fill.get(m[1], m[0])), config)
        self.config.write_text(text)

    def start(self, *switches):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.before, str(self.place.program), "-f", str(self.config), *switches], cwd=self.place.dir,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until("the server listens", self.listens)

    def listens(self):
        if self.process.poll() is not None:
            raise Failed(f"the server ended with {self.process.returncode}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", self.port))
            probe.settimeout(0.05)
            try:
                probe.send(b"\0\0\0\0")
                probe.recv(10)
            except ConnectionRefusedError:
                return False
            except TimeoutError:
                pass
        return True

    def kill(self):
        """As a power failure would end it."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self):
        """As an operator would end it."""
        self.process.terminate()
        self.process.wait(timeout=DEADLINE)

    def mi(self, method, params=None):
        """One JSON-RPC call over HTTP; the result, or {"error": ...}."""
        answer = self.mi_raw({"jsonrpc": "2.0", "id": 1, "method": method, **({"params": params} if params is not None else {})})
        return answer["result"] if "result" in answer else {"error": answer["error"]}

    def mi_raw(self, request):
        def post():
            data = request if isinstance(request, bytes) else json.dumps(request).encode()
            try:
                post = urllib.request.Request(f"http://127.0.0.1:{self.mi_port}/mi", data, {"Content-Type": "application/json"})
                with urllib.request.urlopen(post, timeout=DEADLINE) as reply:
                    return reply.read() or b"null"
            except urllib.error.URLError as error:
                if isinstance(error.reason, ConnectionRefusedError):
                    return None
                raise
        return json.loads(until("mi_http answers", post))

    def log_text(self):
        return self.log.read_text(errors="replace")


class Phone:
    """A client with one UDP socket: sends requests, answers what it is sent."""

    def __init__(self, server, user, ip):
        self.server, self.user = server, user
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ip, 0))
        self.address = "%s:%d" % self.socket.getsockname()
        self.call_id = f"{random.getrandbits(60):x}@e2e"
        self.cseq = 0

    def register(self, contact=None, expires=3600, user=None, headers="", call_id=None):
        """Registers and returns the final reply."""
        contact = f"<sip:{self.user}@{self.address}>" if contact is None else contact
        contact = f"Contact: {contact}\r\n" if contact else ""
        expires = "" if expires is None else f"Expires: {expires}\r\n"
        return self.request("REGISTER", "sip:example.com", user or self.user, contact + expires + headers, call_id)

    def request(self, method, uri, to=None, headers="", call_id=None):
        self.cseq += 1
        branch = f"z9hG4bK{random.getrandbits(60):x}"
        to = to or "bob"
        text = (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.address};branch={branch}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:{self.user}@example.com>;tag=f{branch[-6:]}\r\nTo: <sip:{to}@example.com>\r\n"
                f"Call-ID: {call_id or self.call_id}\r\nCSeq: {self.cseq} {method}\r\n{headers}Content-Length: 0\r\n\r\n")
        return self.exchange(text, branch)

    def exchange(self, text, branch):
        """Sends a request, again as RFC 3261 does over UDP, and returns its final reply."""
        end, wait = time.monotonic() + DEADLINE, 0.5
        self.socket.sendto(text.encode(), ("127.0.0.1", self.server.port))
        again = time.monotonic() + wait
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, min(again, end) - time.monotonic()))
            try:
                data = self.socket.recv(65535).decode(errors="replace")
            except (TimeoutError, ConnectionRefusedError):
                if time.monotonic() >= again:
                    self.socket.sendto(text.encode(), ("127.0.0.1", self.server.port))
                    wait = min(wait * 2, 4)
                    again = time.monotonic() + wait
                continue
            if data.startswith("SIP/2.0") and branch in data and not data.startswith("SIP/2.0 1"):
                return Reply(data)
        raise Failed(f"no reply to {text.split(' ')[0]}")

    def receive(self, pattern, seconds=DEADLINE):
        """Waits for a message that begins like this."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(65535).decode(errors="replace")
            except TimeoutError:
                break
            if re.match(pattern, data):
                return Reply(data)
        raise Failed(f"{self.user} received nothing like {pattern}")

    def answer(self, request, status, headers=""):
        """Answers a request that was received."""
        keep = [l for l in request.text.split("\r\n")
                if re.match(r"(?i)(via|from|call-id|cseq|record-route|to|v|f|t|i)[ \t]*:", l)]
        keep = [l + ";tag=e2e" if re.match(r"(?i)to?[ \t]*:", l) and "tag=" not in l else l for l in keep]
        text = f"SIP/2.0 {status} E2E\r\n" + "\r\n".join(keep) + f"\r\n{headers}Content-Length: 0\r\n\r\n"
        self.socket.sendto(text.encode(), ("127.0.0.1", self.server.port))


class Reply:
    def __init__(self, text):
        self.text = text
        match = re.match(r"SIP/2.0 (\d+)", text)
        self.status = int(match[1]) if match else 0

    def header(self, name):
        """All values of a header, joined."""
        return ", ".join(re.findall(rf"(?im)^{re.escape(name)}[ \t]*:[ \t]*(.*?)\r?$", self.text))


def tool(name):
    """A program of the virtual environment that tests/run makes from requirements.txt."""
    venv = os.environ.get("E2E_VENV")
    path = pathlib.Path(venv, "bin", name) if venv else None
    if path is None or not path.exists():
        raise Failed(f"{name} is missing: set E2E_VENV to a virtual environment with tests/e2e/requirements.txt")
    return path


def run(*command, **more):
    """Runs a program to its end and returns its output; anything but exit code 0 fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=DEADLINE, **more)
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
