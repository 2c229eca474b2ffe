"""Private database servers for the end-to-end tests: own files, own ports, ended with the test."""
import contextlib, os, pathlib, shutil, signal, socket, subprocess
from harness import Failed, free_port, until

ROOT = os.geteuid() == 0


def find(name):
    """A program in PATH, or where Debian keeps those of PostgreSQL."""
    places = ["/usr/sbin", *sorted(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin")))]
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if not found:
        raise Failed(f"{name} is not installed: tests/run installs it")
    return found


def quiet(*command, **more):
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def family(pid):
    """A process and all that it started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


class Server:
    """What both kinds have in common."""

    def __init__(self, place):
        self.place, self.port, self.process = place, free_port(), None
        self.home = place.dir / self.name
        self.home.mkdir()
        self.install()
        place.ending.callback(self.kill)
        self.start()

    def start(self):
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(list(map(str, self.command())), cwd=self.home, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        until(f"{self.name} answers", self.answers, 60)

    def signal(self, number):
        """To the server and what it started: children of PostgreSQL have sessions of their own."""
        for pid in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self):
        if self.process:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def pause(self):
        """It keeps its connections and says nothing more."""
        self.signal(signal.SIGSTOP)
        states = lambda: [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
                          for pid in family(self.process.pid)]
        until(f"{self.name} stands still", lambda: set(states()) == {"T"})

    def go_on(self):
        self.signal(signal.SIGCONT)

    def answers(self):
        try:
            return self.sql("select 1")
        except Failed:
            return False


class MariaDb(Server):
    name, scheme = "mariadb", "mysql"

    def __init__(self, place, *options):
        self.options = options
        super().__init__(place)

    def user(self):
        return ["--user=root"] if ROOT else []

    def install(self):
        quiet(find("mariadb-install-db"), "--no-defaults", "--skip-test-db", f"--datadir={self.home}/data",
              "--auth-root-authentication-method=normal", *self.user())

    def command(self):
        return [find("mariadbd"), "--no-defaults", *self.user(), f"--datadir={self.home}/data",
                f"--socket={self.home}/s", f"--pid-file={self.home}/pid", f"--port={self.port}",
                "--bind-address=127.0.0.1", "--skip-name-resolve", "--max-allowed-packet=64M", *self.options]

    def sql(self, text, database=""):
        return quiet(find("mariadb"), "--no-defaults", "-uroot", f"--socket={self.home}/s", "-N", "-e", text,
                     *([database] if database else []), timeout=20)

    def account(self):
        self.sql("create database fermata; create user 'fermata'@'%' identified by 'secret';"
                 "grant all on *.* to 'fermata'@'%'")

    def url(self, password="secret", database="fermata", params=""):
        return f"mysql://fermata:{password}@127.0.0.1:{self.port}/{database}{params}"


class Postgres(Server):
    name, scheme = "postgres", "postgres"

    def __init__(self, place, *options):
        self.options = options
        super().__init__(place)

    def asuser(self):
        """It refuses to run as root."""
        if not ROOT:
            return []
        place = self.place.dir
        place.chmod(0o755)
        quiet("chown", "-R", "postgres", self.home)
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def install(self):
        (self.home / "password").write_text("secret")
        quiet(*self.asuser(), find("initdb"), "-D", self.home / "data", "-U", "fermata", "-A", "scram-sha-256",
              "--no-sync", "--pwfile", self.home / "password", cwd=self.home)

    def command(self):
        return [*self.asuser(), find("postgres"), "-D", self.home / "data", "-p", self.port, "-k", self.home,
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", *self.options]

    def sql(self, text, database="postgres"):
        return quiet(find("psql"), "-h", "127.0.0.1", "-p", self.port, "-U", "fermata", "-At", "-c", text, database,
                     env={**os.environ, "PGPASSWORD": "secret"}, timeout=20)

    def account(self):
        self.sql("create database fermata")

    def url(self, password="secret", database="fermata", params=""):
        return f"postgres://fermata:{password}@127.0.0.1:{self.port}/{database}{params}"


def silent(place):
    """A port that takes connections and never says a word."""
    listener = place.ending.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    return listener.getsockname()[1]


def full(place):
    """A port where attempts to connect get no answer at all: its queue is full."""
    listener = place.ending.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    for _ in range(4):
        filler = place.ending.enter_context(socket.socket())
        filler.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            filler.connect(("127.0.0.1", port))
    return port


def certificates(folder, name):
    """A self-signed authority and a certificate of 127.0.0.1 that it signed: (ca, certificate, key)."""
    ca, key, cert = folder / f"{name}-ca.pem", folder / f"{name}-key.pem", folder / f"{name}.pem"
    quiet("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name} authority",
          "-keyout", folder / f"{name}-ca.key", "-out", ca, "-addext", "basicConstraints=critical,CA:TRUE")
    quiet("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key,
          "-out", folder / f"{name}.csr")
    names = folder / f"{name}.ext"
    names.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    quiet("openssl", "x509", "-req", "-days", "2", "-in", folder / f"{name}.csr", "-CA", ca,
          "-CAkey", folder / f"{name}-ca.key", "-CAcreateserial", "-extfile", names, "-out", cert)
    return ca, cert, key
