#!/usr/bin/env python3
"""Calls that each wait 50 ms for MariaDB, through one worker.

  benches/sql.py target/quick/fermata [--rate 1000] [--seconds 10] [--query 'select sleep(0.05)']

Sends requests at a steady rate; the script of each runs the query and answers. Prints how many were answered,
how long that took, and what the server used of a core: in all, and for each query. A second run with
`--query 'select 1'` shows the same without the wait. The database is a private MariaDB on a port of its own.
"""
import argparse, pathlib, socket, statistics, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import harness
from databases import MariaDb
from record import record

CONFIG = """
log_level = 1
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
db_max_async_connections = {CONNECTIONS}
db_max_connections = {CONNECTIONS}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "sqlops.so"
loadmodule "db_mysql.so"
modparam("sqlops", "db_url", "{URL}")
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "OK");
        exit;
    }
    if (sql_query("{QUERY}", "$avp(v)")) {
        t_reply(200, "OK");
    } else {
        t_reply(500, "No Answer");
    }
}
"""


def cpu(pid):
    """Seconds of CPU that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0


def request(method, number, address):
    return (f"{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bKb{number}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=t{number}\r\nTo: <sip:bob@example.com>\r\n"
            f"Call-ID: c{number}@bench\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n").encode()


def number_of(reply):
    at = reply.index(b"branch=z9hG4bKb") + 15
    end = at
    while reply[end:end + 1].isdigit():
        end += 1
    return int(reply[at:end])


class Load:
    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.2", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.address = "%s:%d" % self.socket.getsockname()
        self.sent, self.took, self.failed = {}, [], 0

    def send(self, method, number):
        self.sent[number] = time.monotonic()
        self.socket.send(request(method, number, self.address))

    def receive(self):
        while True:
            try:
                reply = self.socket.recv(4096)
            except BlockingIOError:
                return
            if reply.startswith(b"SIP/2.0 1"):
                continue
            begin = self.sent.pop(number_of(reply), None)
            if begin is not None:
                self.took.append(time.monotonic() - begin)
                self.failed += not reply.startswith(b"SIP/2.0 200")

    def run(self, method, rate, seconds, first):
        begin, sent = time.monotonic(), 0
        total = int(rate * seconds)
        while sent < total or (self.sent and time.monotonic() - begin < seconds + 10):
            due = min(total, int((time.monotonic() - begin) * rate))
            while sent < due:
                self.send(method, first + sent)
                sent += 1
            self.receive()
            time.sleep(0.0005)
        return total


def report(name, load, total, used, seconds):
    took = sorted(t * 1000 for t in load.took) or [0]
    at = lambda part: took[min(len(took) - 1, int(len(took) * part))]
    print(f"{name}: {total} sent, {len(load.took)} answered, {load.failed} with an error; "
          f"median {at(0.5):.1f} ms, 99 % within {at(0.99):.1f} ms, longest {took[-1]:.1f} ms; "
          f"CPU {used / seconds * 100:.0f} % of a core, {used / max(1, total) * 1e6:.0f} us each")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rate", type=int, default=1000, help="requests a second")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--query", default="select sleep(0.05)")
    parser.add_argument("--connections", type=int, default=150)
    options = parser.parse_args()
    with harness.Place(pathlib.Path(options.program).resolve()) as place:
        database = MariaDb(place, f"--max-connections={options.connections + 20}")
        database.account()
        server = place.server(CONFIG, URL=database.url(), QUERY=options.query, CONNECTIONS=options.connections)
        pid = server.process.pid
        warm = Load(server.port)
        warm.run("MESSAGE", options.rate, 2, 0)
        load, begin = Load(server.port), cpu(pid)
        total = load.run("MESSAGE", options.rate, options.seconds, 10_000_000)
        report(options.query, load, total, cpu(pid) - begin, options.seconds)
        bare, begin = Load(server.port), cpu(pid)
        total = bare.run("OPTIONS", options.rate, options.seconds, 20_000_000)
        with_query = (load, total)
        report("no query", bare, total, cpu(pid) - begin, options.seconds)
        print(f"{resident(pid):.0f} MB in memory")
        took = sorted(load.took) or [0]
        record("sql", options.program, rate=options.rate, query=options.query, sent=with_query[1], answered=len(load.took),
               failed=load.failed, median_ms=took[len(took) // 2] * 1000, resident_mb=resident(pid))
        if load.failed or len(load.took) < total:
            place.show_logs()


if __name__ == "__main__":
    main()
