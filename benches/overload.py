#!/usr/bin/env python3
"""What is left of a server's capacity when more is asked of it than it can do, beside Kamailio in the same run.

  benches/overload.py [--fermata target/release/fermata] [--seconds 5] [--svg docs/overload.svg] [--work US]

One worker on one core relays calls (INVITE, 180, 200, ACK, BYE, 200, with record-routing); benches/calls.rs on another core
is caller and callee. First the capacity: so many calls at a time that the server is always busy. Then so many calls a
second, whatever becomes of them, from half the capacity to three times of it: how many of them are completed within 4 s,
what REGISTERs feel that come beside, and how much memory is used. At last twice the capacity for some seconds and then half
of it: how long until every call succeeds again. `--work` adds a loop of so many turns to each INVITE in the scripts of all
servers, for machines whose other core cannot bring more than the server can do.

The picture shows goodput over load, both in shares of the server's own capacity. Needs rustc; kamailio when it is there.
"""
import argparse, os, pathlib, shutil, signal, socket, subprocess, sys, tempfile, time

import relay
from record import ROOT, record

FACTORS = [0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0]
REGISTER = '    if (is_method("REGISTER")) {{\n        sl_send_reply(%s, "OK");\n        exit;\n    }}\n'
CANCEL = '    if (is_method("CANCEL")) {{'
FERMATA = relay.FERMATA.replace(CANCEL, REGISTER % "200" + CANCEL)
KAMAILIO = relay.KAMAILIO.replace(CANCEL, REGISTER % '"200"' + CANCEL)
SO_RCVBUFFORCE = 33


def pin(core):
    return lambda: os.sched_setaffinity(0, {core % os.cpu_count()})


def bound():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    except PermissionError:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    s.bind(("127.0.0.1", 0))
    return s


class Server:
    def __init__(self, folder, command, text, work):
        self.port, mi = relay.free_port(), relay.free_port()
        self.callee = bound()
        loop = "$var(i) = 0; while ($var(i) < %d) {{ $var(i) = $var(i) + 1; }}" % work if work else ""
        cfg = pathlib.Path(folder, "relay.cfg")
        text = text.replace("    record_route();\n    $ru", "    " + loop + "\n    record_route();\n    $ru")
        cfg.write_text(text.format(port=self.port, uas=self.callee.getsockname()[1], wait="", workers=1, mi=mi, transport="udp",
                                   no_tcp="yes"))
        self.log = open(pathlib.Path(folder, "log"), "wb")
        self.process = subprocess.Popen([w.format(cfg=cfg) for w in command], cwd=folder, stdout=self.log, stderr=self.log,
                                        start_new_session=True, preexec_fn=pin(0))
        relay.listening(self.port, self.process)

    def calls(self, program, window, *phases):
        """Rows of benches/calls.rs: (when, offered, completed, refused, failed, again, asked, answered, slowest)."""
        caller = bound()
        done = subprocess.Popen([program, "127.0.0.1:%d" % self.port, str(window), *phases], stdin=caller, stdout=self.callee,
                                stderr=subprocess.PIPE, text=True, preexec_fn=pin(1))
        self.memory = 0
        while done.poll() is None:
            self.memory = max(self.memory, relay.memory(self.process.pid))
            time.sleep(0.5)
        rows = [[float(word) for word in line.split()] for line in done.stderr]
        if done.returncode:
            sys.exit("calls.rs ended with %d" % done.returncode)
        caller.close()
        return rows

    def stop(self):
        relay.stop(self.process)
        self.callee.close()


def total(rows, at):
    return sum(row[at] for row in rows)


def measure(name, command, text, args, calls):
    """What one server does at each load, in shares of its capacity. `None`: it completes nothing."""
    found = {"points": []}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, command, text, args.work)
        try:
            server.calls(calls, 64, "0:2")
            rows = [row for row in server.calls(calls, 64, "0:%d" % args.seconds) if 1 <= row[0] < args.seconds - 0.5]
            capacity = total(rows, 2) / max(len(rows) / 10, 1)
            if not capacity:
                print("%-20s left out: none of its calls was completed while its capacity was measured" % name, flush=True)
                return None
            found["capacity"] = capacity
            print("%-20s capacity %.0f calls/s" % (name, capacity), flush=True)
            for factor in FACTORS:
                rows = server.calls(calls, 0, "%.0f:%d" % (capacity * factor, args.seconds))
                offered = total(rows, 1) / args.seconds
                goodput = total(rows, 2) / args.seconds
                point = {
                    "load": offered / capacity, "goodput": goodput / capacity, "refused": total(rows, 3) / args.seconds / capacity,
                    "failed": total(rows, 4) / args.seconds / capacity, "again": total(rows, 5),
                    "registers": total(rows, 7) / max(total(rows, 6), 1), "slowest_ms": max(row[8] for row in rows),
                    "memory_mb": server.memory / 1e6,
                }
                found["points"].append(point)
                print("%-20s load %4.2f  goodput %4.2f  refused %4.2f  failed %4.2f  retransmissions %6d  REGISTERs answered %3.0f %%, "
                      "the slowest after %4.0f ms  %3.0f MB" % (name, point["load"], point["goodput"], point["refused"], point["failed"],
                                                                point["again"], point["registers"] * 100, point["slowest_ms"],
                                                                point["memory_mb"]), flush=True)
            rows = server.calls(calls, 0, "%.0f:2" % (capacity / 2), "%.0f:%d" % (capacity * 2, args.seconds), "%.0f:4" % (capacity / 2))
            drop = 2 + args.seconds
            bad = [row[0] + 0.1 for row in rows if drop <= row[0] and row[2] < row[1]]
            found["recovery_s"] = max(bad, default=drop) - drop
            found["rows"] = rows
            print("%-20s every call succeeds again %.1f s after the load went back" % (name, found["recovery_s"]), flush=True)
        finally:
            server.stop()
    return found


COLOURS = {"fermata": "#1a7f37", "fermata, off": "#9a6700", "kamailio": "#cf222e"}


def svg(all_found, path):
    """Goodput over load."""
    left, top, wide, high, x_max, y_max = 60, 40, 460, 260, 3.0, 1.1
    x = lambda load: left + load / x_max * wide
    y = lambda part: top + high - part / y_max * high
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" font-family="sans-serif" font-size="12">',
           '<rect width="640" height="360" fill="white"/>',
           '<text x="60" y="22" font-size="14">Completed calls under overload (both axes: shares of the own capacity)</text>']
    for part in (0, 0.25, 0.5, 0.75, 1.0):
        out.append('<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d %%</text>' %
                   (left, left + wide, y(part), y(part), left - 6, y(part) + 4, part * 100))
    for load in (0, 0.5, 1, 1.5, 2, 2.5, 3):
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%g</text>' % (x(load), top + high + 18, load))
    out.append('<text x="%d" y="%d" text-anchor="middle">offered load</text>' % (left + wide / 2, top + high + 36))
    out.append('<polyline points="%.1f,%.1f %.1f,%.1f %.1f,%.1f" fill="none" stroke="#aaa" stroke-dasharray="4"/>' %
               (x(0), y(0), x(1), y(1), x(3), y(1)))
    for n, (name, found) in enumerate(all_found.items()):
        points = " ".join("%.1f,%.1f" % (x(min(p["load"], x_max)), y(min(p["goodput"], y_max))) for p in found["points"])
        out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>' % (points, COLOURS[name]))
        label = {"fermata, off": "fermata, overload_delay=0"}.get(name, name)
        out.append('<rect x="400" y="%d" width="14" height="4" fill="%s"/><text x="420" y="%d">%s</text>' %
                   (200 + n * 20, COLOURS[name], 206 + n * 20, label))
    path.write_text("\n".join(out) + "\n</svg>\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--kamailio", default=shutil.which("kamailio") or "/usr/sbin/kamailio")
    ap.add_argument("--seconds", type=int, default=5)
    ap.add_argument("--work", type=int, default=0, help="turns of an empty loop for each INVITE")
    ap.add_argument("--svg", type=pathlib.Path)
    ap.add_argument("--only", help="measure only servers whose name contains this")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls = str(pathlib.Path(folder, "calls"))
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", calls, ROOT / "benches/calls.rs"], check=True)
        servers = {"fermata": (relay.fermata(args.fermata), FERMATA),
                   "fermata, off": (relay.fermata(args.fermata), "overload_delay=0\n" + FERMATA)}
        if os.path.exists(args.kamailio):
            # With little memory it fails calls as soon as finished transactions fill it, at a tenth of what it can do.
            servers["kamailio"] = (relay.kamailio(args.kamailio, shared_mb=6144), KAMAILIO)
        found = {name: measure(name, *how, args, calls) for name, how in servers.items() if not args.only or args.only in name}
        found = {name: points for name, points in found.items() if points}
    if args.svg:
        svg(found, args.svg)
    at = lambda name, load, what: min(found[name]["points"], key=lambda p: abs(p["load"] - load))[what]
    numbers = {}
    for name in found:
        key = name.replace(", ", "_")
        numbers |= {key + "_capacity": found[name]["capacity"], key + "_goodput_at_2": at(name, 2, "goodput"),
                    key + "_goodput_at_3": at(name, 3, "goodput"), key + "_slowest_register_ms": at(name, 2, "slowest_ms"),
                    key + "_recovery_s": found[name]["recovery_s"]}
    record("overload", args.fermata, work=args.work, seconds=args.seconds, **numbers)


if __name__ == "__main__":
    main()
