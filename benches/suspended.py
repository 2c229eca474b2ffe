#!/usr/bin/env python3
"""Memory of a suspended INVITE: many are held at once by a plain sleep(), then all are answered.

  benches/suspended.py [--fermata target/release/fermata] [--calls 20000] [--statement 'sleep(15);']

Prints the growth of the server's resident memory, from the moment when a tenth of the calls wait (receive buffers and
the like are in place then) to the moment when all wait, divided by the calls that came meanwhile, and how many were
answered. Exit code 1 if one was not.
"""
import argparse, os, pathlib, re, selectors, socket, subprocess, sys, tempfile, time

from record import record
from relay import free_port, listening, stop

CONFIG = """
log_level=1
stderror_enabled=yes
syslog_enabled=no
udp_workers=1
socket=udp:127.0.0.1:{port}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "cfgutils.so"
loadmodule "sipmsgops.so"
route {{
    $var(a) = $rU;
    $avp(caller) = $fU;
    {statement}
    t_reply(480, "Waited for $var(a)");
}}
"""

INVITE = ("INVITE sip:user{n}@127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK-{n}-suspended\r\n"
          "From: \"Caller {n}\" <sip:caller{n}@127.0.0.1>;tag=from{n}\r\nTo: <sip:user{n}@127.0.0.1:{port}>\r\n"
          "Call-ID: suspended-{n}@127.0.0.1\r\nCSeq: 1 INVITE\r\nContact: <sip:caller{n}@{me}>\r\nMax-Forwards: 70\r\n"
          "User-Agent: bench\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}")
BODY = ("v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio 6004 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n")


def resident(pid):
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path("/proc", str(pid), "status").read_text())[1])


class Caller:
    def __init__(self, port):
        self.port = port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.me = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.waiting = selectors.DefaultSelector()
        self.waiting.register(self.socket, selectors.EVENT_READ)
        self.trying, self.final = set(), {}

    def send(self, n):
        text = INVITE.format(n=n, me=self.me, port=self.port, body=BODY, length=len(BODY))
        self.socket.sendto(text.encode(), ("127.0.0.1", self.port))

    def hold(self, start, end):
        """Sends the calls of a range and waits until all calls so far wait."""
        for n in range(start, end):
            self.send(n)
            if n % 20 == 19:
                self.receive(0.01)
        deadline = time.monotonic() + 60
        while len(self.trying) < end and time.monotonic() < deadline:
            if not self.receive(0.5):
                for n in set(range(end)) - self.trying:     # lost on the way: once more
                    self.send(n)

    def receive(self, seconds):
        if not self.waiting.select(seconds):
            return False
        while True:
            try:
                data = self.socket.recv(4096).decode()
            except BlockingIOError:
                return True
            status, n = int(data[8:11]), int(re.search(r"Call-ID: suspended-(\d+)", data)[1])
            if status < 200:
                self.trying.add(n)
            elif n not in self.final:
                self.final[n] = status
                to = re.search(r"\r\nTo: ([^\r]*)", data)[1]
                head = INVITE.split("From:")[0].replace("INVITE", "ACK").format(n=n, me=self.me, port=self.port)
                ack = head + ("From: \"Caller %d\" <sip:caller%d@127.0.0.1>;tag=from%d\r\nTo: %s\r\nCall-ID: suspended-%d@127.0.0.1"
                              "\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n") % (n, n, n, to, n)
                self.socket.sendto(ack.encode(), ("127.0.0.1", self.port))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--calls", type=int, default=20000)
    ap.add_argument("--statement", default="sleep(25);")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        cfg = pathlib.Path(folder, "suspended.cfg")
        cfg.write_text(CONFIG.format(port=port, statement=args.statement))
        server = subprocess.Popen([os.path.abspath(args.fermata), "-f", str(cfg)], cwd=folder, start_new_session=True)
        try:
            listening(port, server)
            caller, first = Caller(port), args.calls // 10
            caller.hold(0, first)
            before = resident(server.pid)
            caller.hold(first, args.calls)
            grown = resident(server.pid) - before
            deadline = time.monotonic() + 60
            held = len(caller.trying) - len(caller.final)
            while len(caller.final) < args.calls and time.monotonic() < deadline:
                caller.receive(0.5)
        finally:
            stop(server)
    answered = sum(status == 480 for status in caller.final.values())
    print("%d of %d INVITEs waited at once; %.0f bytes of resident memory for each (%.1f MB in all)" %
          (held, args.calls, grown / max(held - first, 1), grown / 1e6))
    print("%d answered" % answered)
    record("suspended", args.fermata, calls=args.calls, held=held, answered=answered,
           bytes_each=grown / max(held - first, 1))
    return 0 if answered == args.calls and held == args.calls else 1


if __name__ == "__main__":
    sys.exit(main())
