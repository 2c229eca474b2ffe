#!/usr/bin/env python3
"""Memory for each registered contact and CPU time for each REGISTER, beside Kamailio, in one run on one machine.

  benches/registrar.py [--fermata target/release/fermata] [--contacts 100000] [--refresh 20000] [--lookups 20000]
  benches/registrar.py --db sqlite|mariadb|postgres [--mode single-instance-sql-write-through] [--window 256]

Every address registers one contact (a realistic REGISTER: Call-ID, User-Agent, instance, Path, received), then some
register again, then some are looked up. One worker, UDP on the loopback address, no database. Memory is what the
whole server (all processes, Pss of /proc) holds after the registrations, less what it held before; CPU is user plus
system time of all threads and processes. The rate is what this one client got through with a window of requests in
flight, so it is a lower bound. Kamailio is measured when it is installed.

With --db contacts are in a database of its own too, as the working mode says; a reply then means that it has them.
Kamailio is left out: its write-through blocks a process for each statement.
"""
import argparse, os, pathlib, re, select, shutil, signal, socket, subprocess, sys, time
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/e2e"))
from databases import MariaDb, Postgres
from harness import Place, free_port
import relay
from record import record

TICK = os.sysconf("SC_CLK_TCK")
WINDOW = 64

FERMATA = """
log_level=1
stderror_enabled=yes
syslog_enabled=no
udp_workers=1
socket=udp:127.0.0.1:{port}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "sipmsgops.so"
{driver}
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "working_mode_preset", "{mode}")
modparam("registrar", "received_avp", "$avp(rcv)")
route {{
    if (is_method("REGISTER")) {{
        $avp(rcv) = "sip:" + $si + ":" + $sp;
        save("location", "path-off");
        exit;
    }}
    if (lookup("location")) {{
        sl_send_reply(200, "Found");
        exit;
    }}
    sl_send_reply(404, "Nobody");
}}
"""

KAMAILIO = """
debug=0
log_stderror=yes
fork=yes
children=1
disable_tcp=yes
listen=udp:127.0.0.1:{port}
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "use_domain", 1)
modparam("usrloc", "hash_size", 14)
modparam("registrar", "use_path", 1)
modparam("registrar", "path_mode", 0)
modparam("registrar", "received_avp", "$avp(rcv)")
modparam("registrar", "gruu_enabled", 0)
request_route {{
    if (is_method("REGISTER")) {{
        $avp(rcv) = "sip:" + $si + ":" + $sp;
        save("location");
        exit;
    }}
    if (lookup("location")) {{
        sl_send_reply("200", "Found");
        exit;
    }}
    sl_send_reply("404", "Nobody");
}}
"""


def register(n, cseq, port):
    user = f"user{n:06d}"
    return (f"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{n:06x}{cseq:x}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag={n:08x}\r\nTo: <sip:{user}@example.com>\r\n"
            f"Call-ID: {n:06x}-8b1f2c9d47ae5630@10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}\r\nCSeq: {cseq} REGISTER\r\n"
            f"Contact: <sip:{user}@10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:5060;transport=udp>;"
            f"+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{n:012x}>\"\r\n"
            f"Path: <sip:edge{n % 16}.example.com;lr>\r\nSupported: path\r\nUser-Agent: Yealink SIP-T46U 108.86.0.20\r\n"
            f"Expires: 3600\r\nContent-Length: 0\r\n\r\n").encode()


def options(n, port):
    return (f"OPTIONS sip:user{n:06d}@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKo{n:06x}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:bench@example.com>;tag={n:08x}\r\nTo: <sip:user{n:06d}@example.com>\r\n"
            f"Call-ID: o{n:06x}@bench\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode()


class Server:
    def __init__(self, name, command, template, folder, **more):
        self.name = name
        self.port = free_port()
        config = pathlib.Path(folder, name + ".cfg")
        config.write_text(template.format(port=self.port, **more))
        said = config.with_suffix(".log")
        with open(said, "wb") as log:
            self.process = subprocess.Popen([*command, str(config)], stdout=log, stderr=log, cwd=folder, start_new_session=True)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.bind(("127.0.0.1", 0))
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.client.connect(("127.0.0.1", self.port))
        self.client.setblocking(False)
        deadline = time.monotonic() + 20
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"{name} does not run: " + "\n".join(said.read_text(errors="replace").splitlines()[-5:]))

    def answers(self):
        try:
            self.client.send(options(999999, self.client.getsockname()[1]))
            return bool(select.select([self.client], [], [], 0.1)[0]) and self.client.recv(65535).startswith(b"SIP/2.0")
        except ConnectionRefusedError:
            time.sleep(0.02)
            return False

    def processes(self):
        found = {self.process.pid}
        for _ in range(3):
            for entry in pathlib.Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) not in found:
                    try:
                        parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    except (OSError, ValueError):
                        continue
                    if parent in found:
                        found.add(int(entry.name))
        return found

    def cpu(self):
        total = 0
        for pid in self.processes():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory(self):
        total = 0
        for pid in self.processes():
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) * 1024
        return total

    def drive(self, messages, expected):
        """Sends all messages, `WINDOW` in flight, and waits for all answers; (seconds, CPU seconds)."""
        poll = select.poll()
        poll.register(self.client, select.POLLIN)
        start, cpu, in_flight, pending = time.monotonic(), self.cpu(), 0, {}
        messages = iter(messages)
        more = True
        while more or in_flight:
            while more and in_flight < WINDOW:
                message = next(messages, None)
                if message is None:
                    more = False
                    break
                branch = message.split(b"branch=", 1)[1].split(b"\r", 1)[0]
                pending[branch] = message
                self.client.send(message)
                in_flight += 1
            if not in_flight:
                break
            if not poll.poll(500):
                for message in pending.values():        # lost datagrams go out again
                    self.client.send(message)
                continue
            while True:
                try:
                    reply = self.client.recv(65535)
                except BlockingIOError:
                    break
                branch = reply.split(b"branch=", 1)[1].split(b"\r", 1)[0].split(b";", 1)[0]
                if pending.pop(branch, None) is not None:
                    in_flight -= 1
                    if not reply.startswith(expected):
                        sys.exit(f"{self.name} answered {reply[:40]!r}")
        return time.monotonic() - start, self.cpu() - cpu

    def stop(self):
        relay.stop(self.process)


def database(place, args):
    """Starts a database with the standard table; (lines of the configuration, URL)."""
    if args.db == "sqlite":
        url, module = f"sqlite://{place.dir}/db.sqlite", "db_sqlite"
    else:
        server = (MariaDb if args.db == "mariadb" else Postgres)(place, *([] if args.db == "mariadb" else ["-c", "fsync=on"]))
        server.account()
        url, module = server.url(), "db_mysql" if args.db == "mariadb" else "db_postgres"
    subprocess.run([args.fermata, "db", "create", url], check=True, stdout=subprocess.DEVNULL)
    lines = [f'loadmodule "{module}.so"', f'modparam("usrloc", "db_url", "{url}")']
    if args.pragma:
        lines.insert(1, f'modparam("db_sqlite", "exec_pragma", "{args.pragma}")')
    return "\n".join(lines), url


def measure(server, args):
    port = server.client.getsockname()[1]
    ok = b"SIP/2.0 200"
    before = server.memory()
    first = server.drive((register(n, 1, port) for n in range(args.contacts)), ok)
    memory = (server.memory() - before) / args.contacts
    again = server.drive((register(n * 7919 % args.contacts, 2 + n // args.contacts, port) for n in range(args.refresh)), ok)
    found = server.drive((options(n * 7919 % args.contacts, port) for n in range(args.lookups)), ok)

    def show(what, count, result):
        print(f"{server.name:10} {what:12} {count / result[0]:8.0f}/s {result[1] / count * 1e6:8.1f} µs CPU each")
    show("new", args.contacts, first)
    show("refreshed", args.refresh, again)
    show("looked up", args.lookups, found)
    print(f"{server.name:10} {'memory':12} {memory:8.0f} bytes a contact", flush=True)
    return {"bytes": memory, "new_us": first[1] / args.contacts * 1e6, "refreshed_us": again[1] / args.refresh * 1e6,
            "looked_up_us": found[1] / args.lookups * 1e6}


def save(args, found):
    record("registrar", args.fermata, contacts=args.contacts, db=args.db or "none",
           **{f"{server}_{what}": number for server, numbers in found.items() for what, number in numbers.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fermata", default="target/release/fermata")
    parser.add_argument("--kamailio", default="kamailio")
    for name, value in (("contacts", 100_000), ("refresh", 20_000), ("lookups", 20_000), ("window", 64)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--db", choices=("sqlite", "mariadb", "postgres"))
    parser.add_argument("--mode", default="single-instance-sql-write-through")
    parser.add_argument("--pragma", help='for SQLite: "journal_mode = WAL"')
    args = parser.parse_args()
    global WINDOW
    WINDOW = args.window
    memory = {}
    with Place(args.fermata) as place:
        folder = str(place.dir)
        if args.db:
            driver, _ = database(place, args)
            server = Server("fermata", [str(pathlib.Path(args.fermata).resolve()), "-f"], FERMATA, folder, driver=driver,
                            mode=args.mode)
            try:
                save(args, {"fermata": measure(server, args)})
            finally:
                server.stop()
            return
        servers = [("fermata", [str(pathlib.Path(args.fermata).resolve()), "-f"], FERMATA)]
        if kamailio := shutil.which(args.kamailio):
            servers.append(("kamailio", [kamailio, "-x", "fm", "-DD", "-m", "512", "-M", "8", "-w", folder, "-Y", folder, "-f"], KAMAILIO))
        for name, command, template in servers:
            server = Server(name, command, template, folder, driver="", mode="single-instance-no-db")
            try:
                memory[name] = measure(server, args)
            finally:
                server.stop()
    if len(memory) == 2:
        print(f"memory: {memory['fermata']['bytes'] / memory['kamailio']['bytes']:.2f} of Kamailio's")
    save(args, memory)


if __name__ == "__main__":
    main()
