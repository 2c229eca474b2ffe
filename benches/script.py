#!/usr/bin/env python3
"""Nanoseconds of CPU time per statement and per transformation, beside the reference's interpreter in the same run.

usage: benches/script.py FERMATA [--reference OPENSIPS --modules FOLDER] [--rounds N]

FERMATA is the server, or the example `script_cost` (cargo build --release -p host --example script_cost), which has the
language without the modules and is built in a minute; calls of modules are left out then.

Each figure is the CPU time of a loop with the statement in it ten times, less that of the empty loop. CPU time is read
from the kernel for the whole process, so other work on the machine matters little.
"""
import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from record import record

COPIES = 10
CASES = [
    ("$var(x) = 5;", "statement"),
    ("$var(x) = $var(s);", "statement"),
    ('$avp(x) := "text";', "statement"),
    ("$var(x) = $avp(one);", "statement"),
    ("$var(x) = $var(i) + 7;", "statement"),
    ('$var(x) = "sip:" + $var(s);', "statement"),
    ("if ($var(n) == 7) $var(y) = 1;", "statement"),
    ('if ($var(s) == "bob") $var(y) = 1;', "statement"),
    ('if ($var(n) == 7 || ($var(s) == "bob" && $var(i) >= 0)) $var(y) = 1;', "statement"),
    ('if ($var(s) =~ "^b") $var(y) = 1;', "statement"),
    ('switch ($var(s)) { case "bob": break; case "carol": break; default: $var(y) = 1; }', "statement"),
    ("if ($rm == \"INVITE\") $var(y) = 1;", "statement"),
    ("$var(x) = $fU;", "statement"),
    ("if (is_method(\"INVITE\")) $var(y) = 1;", "statement"),
    ("route(sub);", "statement"),
    ("setflag(A);", "statement"),
    ("$var(x) = $(var(u){s.len});", "transformation"),
    ("$var(x) = $(var(u){s.substr,4,5});", "transformation"),
    ("$var(x) = $(var(u){s.select,1,@});", "transformation"),
    ("$var(x) = $(var(u){s.toupper});", "transformation"),
    ("$var(x) = $(var(u){s.index,@});", "transformation"),
    ("$var(x) = $(var(u){s.md5});", "transformation"),
    ("$var(x) = $(var(u){uri.host});", "transformation"),
    ("$var(x) = $(var(u){uri.param,transport});", "transformation"),
    ("$var(x) = $(var(p){param.value,b});", "transformation"),
    ("$var(x) = $(var(c){csv.value,1});", "transformation"),
    ("$var(x) = $(var(u){re.subst,/alice/bob/});", "transformation"),
    ("$var(x) = $(var(a){ip.pton}{ip.ntop});", "transformation"),
]


def script(port, rounds, modules, new):
    """The configuration: one route for each case, chosen by the user part of the request's URI."""
    head = [f"socket=udp:127.0.0.1:{port}", "udp_workers=1", "log_level=0", f"max_while_loops={rounds + 1}"]
    head += ["stderror_enabled=yes", "syslog_enabled=no"]
    head += [f'loadmodule "{m}"' for m in ["proto_udp.so"] + [
        (f"{modules}/{m}/{m}.so" if modules else f"{m}.so") for m in ("signaling", "sl", "sipmsgops")]]
    setup = ('$var(s) = "alice"; $var(n) = 3; $var(i) = 0; $var(u) = "sip:alice@example.com:5070;transport=tcp";'
             '$var(p) = "a=1;b=2;c=3"; $var(c) = "one,two,three"; $var(a) = "192.0.2.17"; $avp(one) = "value";')
    routes = [f'route {{ {setup} route($rU); sl_send_reply(200, "Done"); exit; }}', "route[sub] { return(1); }"]
    for at, body in enumerate([""] + [case for case, _ in CASES]):
        # The reference takes the names of flags as strings, too.
        body = body.replace("setflag(A)", 'setflag("A")')
        routes.append(f"route[c{at}] {{ $var(i) = 0; while ($var(i) < {rounds}) "
                      f"{{ {body * COPIES} $var(i) = $var(i) + 1; }} }}")
    return "\n".join(head + routes) + "\n"


def cpu_ns(pid):
    """CPU time of a process, its threads and its children so far."""
    total = 0
    todo = [pid]
    while todo:
        one = todo.pop()
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/schedstat") as f:
                    total += int(f.read().split()[0])
                with open(f"/proc/{one}/task/{thread}/children") as f:
                    todo += [int(child) for child in f.read().split()]
        except FileNotFoundError:
            pass
    return total


class Server:
    def __init__(self, binary, text, folder, arguments):
        self.path = os.path.join(folder, f"{os.path.basename(binary)}.cfg")
        with open(self.path, "w") as f:
            f.write(text)
        self.log = open(self.path + ".log", "w")
        self.process = subprocess.Popen([binary, "-f", self.path] + arguments, stdout=self.log, stderr=self.log,
                                        start_new_session=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.count = 0

    def ask(self, port, case, timeout):
        self.count += 1
        own = self.socket.getsockname()[1]
        self.socket.settimeout(timeout)
        message = (f"OPTIONS sip:{case}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{self.count}\r\n"
                   f"From: <sip:alice@x>;tag=1\r\nTo: <sip:x@x>\r\nCall-ID: {self.count}\r\nCSeq: 1 OPTIONS\r\n"
                   "Content-Length: 0\r\n\r\n")
        self.socket.sendto(message.encode(), ("127.0.0.1", port))
        return b"200" in self.socket.recv(4096)

    def wait(self, port):
        for _ in range(100):
            try:
                if self.ask(port, "none", 0.2):
                    return
            except OSError:
                if self.process.poll() is not None:
                    break
        with open(self.path + ".log") as f:
            sys.exit("the server does not start:\n" + f.read()[-2000:])

    def measure(self, port, rounds):
        """Nanoseconds per statement of each case."""
        times = []
        for at in range(len(CASES) + 1):
            best = None
            for _ in range(3):
                before = cpu_ns(self.process.pid)
                self.ask(port, f"c{at}", 120)
                took = cpu_ns(self.process.pid) - before
                best = took if best is None else min(best, took)
            times.append(best)
        return [(t - times[0]) / rounds / COPIES for t in times[1:]], times[0] / rounds

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def by_example(binary, rounds, folder):
    """The same from the example: the routes, run without a server."""
    text = script(5060, rounds, None, True)
    lines = [line for line in text.split("\n") if not line.startswith("loadmodule") and not line.startswith("route {")]
    setup = text[text.index("route {") + 7:text.index("route($rU)")]
    path = os.path.join(folder, "example.cfg")
    with open(path, "w") as f:
        f.write("\n".join(lines + [f"route[setup] {{ {setup} }}", "route { exit; }"]) + "\n")
    out = subprocess.run([binary, path], check=True, capture_output=True, text=True).stdout
    times = [int(line) for line in out.split()]
    return [(t - times[0]) / rounds / COPIES for t in times[1:]], times[0] / rounds


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fermata")
    parser.add_argument("--reference", help="binary of OpenSIPS 3.x or 4.x")
    parser.add_argument("--modules", help="folder of its modules, one folder each")
    parser.add_argument("--rounds", type=int, default=20000)
    args = parser.parse_args()
    results = []
    if os.path.basename(args.fermata).startswith("script_cost"):
        CASES[:] = [case for case in CASES if "is_method" not in case[0] and "setflag" not in case[0]]
    with tempfile.TemporaryDirectory() as folder:
        for binary, modules, arguments in [(args.fermata, None, []), (args.reference, args.modules, ["-F"])]:
            if binary is None:
                continue
            if os.path.basename(binary).startswith("script_cost"):
                results.append(by_example(binary, args.rounds, folder))
                continue
            port = free_port()
            server = Server(binary, script(port, args.rounds, modules, True), folder, arguments)
            try:
                server.wait(port)
                results.append(server.measure(port, args.rounds))
            finally:
                server.stop()
    print(f"{'ns of CPU time':>9}  " + ("reference  ratio  " if len(results) > 1 else "") + "what")
    ratios = {}
    for at, (case, kind) in enumerate([("(the empty loop)", "loop")] + CASES):
        row = [r[1] if at == 0 else r[0][at - 1] for r in results]
        line = f"{row[0]:14.0f}  "
        if len(row) > 1:
            ratio = row[0] / row[1] if row[1] > 0 else float("nan")
            ratios.setdefault(kind, []).append(ratio)
            line += f"{row[1]:9.0f}  {ratio:5.2f}  "
        print(line + case)
    for kind, list_ in ratios.items():
        list_.sort()
        print(f"{kind}: median ratio {list_[len(list_) // 2]:.2f}, worst {list_[-1]:.2f}")
    statements = sorted(ns for ns, (_, kind) in zip(results[0][0], CASES) if kind == "statement")
    record("script", args.fermata, statement_ns=statements[len(statements) // 2],
           **{f"{kind}_ratio": list_[len(list_) // 2] for kind, list_ in ratios.items()})


if __name__ == "__main__":
    main()
