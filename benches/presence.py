#!/usr/bin/env python3
"""Subscriptions: memory of each, how long it takes until all watchers of one user have heard of a change, and what other
calls feel meanwhile.

  benches/presence.py [--fermata target/release/fermata] [--subscriptions 50000] [--workers 2]

A client subscribes --subscriptions times to one user. Once their transactions are gone, what the server holds more than
before (PSS) is divided by them. Then the user publishes a change: every watcher answers its NOTIFY, while another client
sends a hundred OPTIONS a second and measures the answers.
"""
import argparse, os, pathlib, re, select, shutil, socket, statistics, subprocess, sys, tempfile, threading, time

from dialog import pss
from record import record

CONFIG = """
log_level = 1
stderror_enabled = yes
syslog_enabled = no
udp_workers = {workers}
socket = udp:127.0.0.1:{port}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "presence.so"
loadmodule "xcap.so"
loadmodule "presence_xml.so"
modparam("presence|xcap", "db_url", "sqlite://{folder}/p.sqlite")
modparam("xcap", "integrated_xcap_server", 1)
modparam("presence_xml", "force_active", 1)
route {{
    if (is_method("SUBSCRIBE")) {{ handle_subscribe(); exit; }}
    if (is_method("PUBLISH")) {{ handle_publish(); exit; }}
    sl_send_reply(200, "OK");
}}
"""
PIDF = ('<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@x"><tuple id="t"><status>'
        '<basic>open</basic></status><note>here</note></tuple></presence>')


def message(first, own, number, call_id, tag, to, headers, body=""):
    return (f"{first} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKp{number}\r\nMax-Forwards: 70\r\nFrom: <sip:{tag}@x>;tag={tag}\r\n"
            f"To: <sip:{to}@x>\r\nCall-ID: {call_id}\r\nCSeq: 1 {first.split()[0]}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}").encode()


class Watchers:
    """Answers NOTIFYs; counts what comes."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
        self.socket.bind(("127.0.0.1", 0))
        self.server = ("127.0.0.1", port)
        self.own = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.accepted, self.told = set(), {}
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        keep = re.compile(rb"(?im)^(?:via|from|to|call-id|cseq):.*\r\n")
        name = re.compile(rb"(?im)^call-id: *(\S+)")
        while self.running:
            if not select.select([self.socket], [], [], 0.2)[0]:
                continue
            data = self.socket.recv(65535)
            call_id = name.search(data)[1]
            if data.startswith(b"NOTIFY"):
                self.told[call_id] = time.monotonic()
                self.socket.sendto(b"SIP/2.0 200 OK\r\n" + b"".join(keep.findall(data)) + b"Content-Length: 0\r\n\r\n", self.server)
            elif data.startswith(b"SIP/2.0 2"):
                self.accepted.add(call_id)

    def subscribe(self, number):
        headers = f"Contact: <sip:w{number}@{self.own}>\r\nEvent: presence\r\nExpires: 3600\r\n"
        self.socket.sendto(message("SUBSCRIBE sip:bob@x", self.own, number, f"s{number}", f"w{number}", "bob", headers), self.server)


class Others:
    """A hundred OPTIONS a second: (when, milliseconds to the answer)."""

    def __init__(self, port):
        self.found, self.running = [], True
        self.thread = threading.Thread(target=self.run, args=(port,), daemon=True)
        self.thread.start()

    def run(self, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            s.connect(("127.0.0.1", port))
            s.settimeout(5)
            number, own = 0, "127.0.0.1:%d" % s.getsockname()[1]
            while self.running:
                number += 1
                began = time.monotonic()
                s.send(message("OPTIONS sip:x@x", own, f"o{number}", f"o{number}", "o", "x", ""))
                try:
                    s.recv(2000)
                except TimeoutError:
                    pass                  # one that was lost counts with the whole time
                self.found.append((began, (time.monotonic() - began) * 1000))
                time.sleep(max(0, 0.01 - (time.monotonic() - began)))


def subscribe_all(watchers, count, patience):
    """At most 200 under way; what was lost is sent again. After PATIENCE seconds it is left at those that are there."""
    waiting, following, began = {}, 0, time.monotonic()
    while len(watchers.accepted) < count or len(watchers.told) < count:
        now = time.monotonic()
        if now - began > patience:
            break
        for number in [n for n in waiting if f"s{n}".encode() in watchers.accepted]:
            del waiting[number]
        for number, sent in waiting.items():
            if now - sent > 2:
                watchers.subscribe(number)
                waiting[number] = now
        while following < count and len(waiting) < 200:
            watchers.subscribe(following)
            waiting[following] = now
            following += 1
        time.sleep(0.005)


def publish(port):
    headers = "Event: presence\r\nExpires: 3600\r\nContent-Type: application/pidf+xml\r\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(30)
        own = "127.0.0.1:%d" % s.getsockname()[1]
        s.sendto(message("PUBLISH sip:bob@x", own, "pub", "pub", "bob", "bob", headers, PIDF), ("127.0.0.1", port))
        if not s.recv(65535).startswith(b"SIP/2.0 200"):
            sys.exit("the PUBLISH was refused")


def measure(args, folder):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "bench.cfg").write_text(CONFIG.format(port=port, folder=folder, workers=args.workers))
    program = [os.path.abspath(args.fermata)]
    subprocess.run([*program, "db", "create", f"sqlite://{folder}/p.sqlite", "presence", "xcap"], check=True, stdout=subprocess.DEVNULL)
    server = subprocess.Popen([*program, "-f", folder / "bench.cfg"])
    try:
        time.sleep(2)
        watchers = Watchers(port)
        before = pss(server.pid)
        began = time.monotonic()
        subscribe_all(watchers, args.subscriptions, args.patience)
        took = time.monotonic() - began
        time.sleep(12)
        count = len(watchers.accepted)
        if count == 0:
            sys.exit("nobody could subscribe")
        bytes_each = (pss(server.pid) - before) * 1024 / count
        watchers.told.clear()
        others = Others(port)
        time.sleep(1)
        began = time.monotonic()
        publish(port)
        while len(watchers.told) < count and time.monotonic() - began < args.patience:
            time.sleep(0.01)
        told = time.monotonic() - began
        others.running = False
        others.thread.join(10)
        answers = sorted(ms for when, ms in others.found if began <= when <= began + told)
        return {
            "subscriptions": count, "wanted": args.subscriptions, "workers": args.workers, "bytes_each": round(bytes_each),
            "subscribed_per_s": round(count / took), "heard": len(watchers.told), "all_heard_s": round(told, 2),
            "others_median_ms": round(statistics.median(answers), 2) if answers else None,
            "others_worst_ms": round(answers[-1], 2) if answers else None}
    finally:
        server.kill()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fermata", default="target/release/fermata")
    parser.add_argument("--subscriptions", type=int, default=50000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--patience", type=int, default=300, help="seconds for all to subscribe, and again for all to hear")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fermata-bench-"))
    try:
        record("presence", args.fermata, **measure(args, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
