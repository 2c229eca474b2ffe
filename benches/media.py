#!/usr/bin/env python3
"""Calls whose media goes through an engine: CPU time per call beside Kamailio, many calls through one worker, and an engine
that is silent.

  benches/media.py [--fermata target/release/fermata] [--calls 3000] [--rate 200] [--rounds 3] [--full 1000]

The engine is scripted here: it answers every command 20 ms late. SIPp calls SIPp with an offer, an answer and a deletion
for each call. Kamailio waits in its processes for each answer, so it has as many as the rate needs; Fermata has one worker.
The figure is user plus system time of all threads and processes of the server, divided by the calls. Then --full calls a
second go through one worker of Fermata for ten seconds, and an engine is silent for ten seconds while OPTIONS are asked.
Exit code 1 when a call failed. Needs sip-tester; kamailio with its rtpengine module is measured when it is installed.
"""
import argparse, collections, os, select, shutil, socket, statistics, subprocess, sys, tempfile, threading, time, types, pathlib

import relay
from record import record

DELAY = 0.020
MEDIA = """
    if (has_body("application/sdp")) {{
        rtpengine_offer();
        t_on_reply("media");
    }}
"""
ROUTES = 'onreply_route[media] {{\n    if (has_body("application/sdp"))\n        rtpengine_answer();\n}}\n'


def with_media(text, engine, routes):
    """A script of relay.py whose media goes through an engine at `engine`."""
    begin = "request_route {{" if "request_route {{" in text else "route {{"
    load = 'loadmodule "rtpengine.so"\nmodparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:%d")\n' % engine
    within = "        if (loose_route()) {{\n"
    assert text.count(within) == 1 and text.count("    record_route();\n") == 1
    text = text.replace(within, within + '            if (is_method("BYE")) {{\n                rtpengine_delete();\n            }}\n')
    text = text.replace("    record_route();\n", "    record_route();\n" + MEDIA)
    return text.replace(begin, load + "%s\n" % routes + begin)


class Engine(threading.Thread):
    """Answers commands of the NG protocol some time later; `mute`: not at all."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.open, self.mute, self.asked = True, False, 0
        self.start()

    def run(self):
        later = collections.deque()
        with self.sock:
            while self.open:
                wait = max(later[0][0] - time.monotonic(), 0) if later else 0.1
                if select.select([self.sock], [], [], wait)[0]:
                    try:
                        while True:
                            data, peer = self.sock.recvfrom(65535)
                            self.asked += 1
                            if not self.mute:
                                late = 0 if b"7:command4:ping" in data else DELAY
                                later.append((time.monotonic() + late, answer(data), peer))
                    except BlockingIOError:
                        pass
                while later and later[0][0] <= time.monotonic():
                    _, data, peer = later.popleft()
                    self.sock.sendto(data, peer)


def answer(data):
    cookie = data[:data.index(b" ")]
    if b"7:command4:ping" in data:
        return cookie + b" d6:result4:ponge"
    at = data.find(b"3:sdp")
    if at < 0:
        return cookie + b" d6:result2:oke"
    colon = data.index(b":", at + 5)
    length = int(data[at + 5:colon])
    return b"%s d6:result2:ok3:sdp%s:%se" % (cookie, data[at + 5:colon], data[colon + 1:colon + 1 + length])


def options(port, seconds):
    """Milliseconds that OPTIONS took, asked one after the other."""
    took, end = [], time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(2)
        own = s.getsockname()[1]
        while time.monotonic() < end:
            n = len(took)
            text = ("OPTIONS sip:x@127.0.0.1:%d SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bKo%d\r\nFrom: <sip:a@b>;tag=o%d\r\n"
                    "To: <sip:x@b>\r\nCall-ID: options-%d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 0\r\nContent-Length: 0\r\n\r\n") % (port, own, n, n, n)
            begin = time.monotonic()
            s.sendto(text.encode(), ("127.0.0.1", port))
            s.recv(65535)
            took.append((time.monotonic() - begin) * 1000)
            time.sleep(0.01)
    return took


def while_silent(program):
    """(calls that waited, the median and the longest time of OPTIONS in ms, from an engine that is silent for ten seconds)"""
    engine = Engine()
    with tempfile.TemporaryDirectory() as folder:
        port, uas, uac = relay.free_port(), relay.free_port(), relay.free_port()
        cfg = pathlib.Path(folder, "media.cfg")
        text = with_media(relay.FERMATA, engine.port, ROUTES)
        cfg.write_text(text.format(port=port, uas=uas, wait="", workers=1, mi=relay.free_port(), transport="udp"))
        with open(pathlib.Path(folder, "log"), "wb") as log:
            server = subprocess.Popen([os.path.abspath(program), "-f", cfg], cwd=folder, stdout=log, stderr=log, start_new_session=True)
        relay.listening(port, server)
        time.sleep(0.5)
        engine.mute = True
        callee = relay.sipp(["-sf", relay.SIPP / "uas.xml", "-i", "127.0.0.1", "-p", uas, "-t", "u1"], folder)
        caller = relay.sipp(["-sf", relay.SIPP / "uac.xml", "-i", "127.0.0.1", "-p", uac, "-s", "bob", "-d", 0, "-r", 50, "-m", 400,
                             "-t", "u1", "127.0.0.1:%d" % port], folder)
        try:
            took = options(port, 10)
        finally:
            engine.open = False
            for proc in (caller, callee, server):
                relay.stop(proc)
    return engine.asked, statistics.median(took), max(took)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--kamailio", default=shutil.which("kamailio") or "/usr/sbin/kamailio")
    ap.add_argument("--calls", type=int, default=3000)
    ap.add_argument("--rate", type=int, default=200)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--full", type=int, default=1000, help="calls a second through one worker")
    args = ap.parse_args()
    engine = Engine()
    fermata = (relay.fermata(args.fermata), with_media(relay.FERMATA, engine.port, ROUTES), 1)
    # Three commands of 20 ms for each call, and as many again in reserve.
    servers = {"fermata": fermata, "kamailio": (relay.kamailio(args.kamailio), with_media(relay.KAMAILIO, engine.port, ROUTES),
                                                max(8, int(args.rate * 3 * DELAY * 2)))}
    if not os.path.exists(args.kamailio):
        del servers["kamailio"]
    seen, failed = {name: [] for name in servers}, 0

    def run(name, calls, rate):
        command, text, workers = servers[name]
        asked = engine.asked
        one = types.SimpleNamespace(calls=calls, rate=rate, workers=workers, wait=0)
        found = relay.measure(name, command, text, one)
        print("          %.1f commands per call" % ((engine.asked - asked) / calls), flush=True)
        return found

    for _ in range(args.rounds):
        for name in servers:
            found = run(name, args.calls, args.rate)
            seen[name].append(found["us"])
            failed += found["failed"]
    full = run("fermata", args.full * 10, args.full)
    failed += full["failed"]
    engine.open = False
    commands, median, longest = while_silent(args.fermata)
    print("engine silent: OPTIONS in %.1f ms (longest %.1f ms) while %d commands went unanswered" % (median, longest, commands))
    medians = {name: statistics.median(values) for name, values in seen.items()}
    if "kamailio" in medians:
        print("fermata / kamailio = %.2f" % (medians["fermata"] / medians["kamailio"]))
    record("media", args.fermata, calls=args.calls, rate=args.rate, rounds=args.rounds, failed=failed, full_rate=args.full,
           full_failed=full["failed"], full_us=full["us"], options_ms=median, options_longest_ms=longest,
           **{f"{name}_us": value for name, value in medians.items()})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
