#!/usr/bin/env python3
"""Calls with a memory: CPU time per relayed call with dialog and accounting beside Kamailio's dialog and acc in the
same run, memory per established dialog, and what other calls feel when many dialogs time out at once.

  benches/dialog.py [--fermata target/release/fermata] [--calls 5000] [--rate 500] [--rounds 3] [--dialogs 20000]

The first part is benches/relay.py with a dialog and a line of accounting for each call. Then SIPp holds --dialogs calls:
once their transactions are gone, what the server holds more than before (PSS) is divided by them. All of them time
out within one second, with BYEs both ways, while a client sends a hundred OPTIONS a second and measures the answers.
"""
import argparse, json, os, pathlib, re, shutil, socket, statistics, subprocess, sys, tempfile, threading, time

import relay
from record import record

MEMORY = """
loadmodule "dialog.so"
loadmodule "acc.so"
"""


def with_dialogs(text, modules, first):
    """A script of relay.py that knows its calls."""
    text = text.replace('loadmodule "maxfwd.so"\n', 'loadmodule "maxfwd.so"\n' + modules.lstrip("\n"))
    return text.replace("    record_route();\n    $ru = ", "    record_route();\n" + first + "    $ru = ")


FERMATA = with_dialogs(relay.FERMATA, MEMORY, '    create_dialog();\n    do_accounting("log", "cdr");\n')
KAMAILIO = with_dialogs(relay.KAMAILIO, MEMORY + """
modparam("acc", "log_flag", 1)
modparam("acc", "cdr_enable", 1)
modparam("dialog", "dlg_flag", 4)
""", "    setflag(1);\n    setflag(4);\n    dlg_manage();\n")

HELD = FERMATA.replace("create_dialog();", 'create_dialog("bye-on-timeout");\n    $DLG_timeout = {end} - $Ts;').replace(
    '    do_accounting("log", "cdr");\n', "").replace(
    '    if (is_method("CANCEL"))', '    if (is_method("OPTIONS")) {{\n        sl_send_reply(200, "OK");\n        exit;\n    }}\n'
    '    if (is_method("CANCEL"))')


def pss(pid):
    """Kilobytes."""
    return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])


def stat(port, name):
    ask = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "get_statistics", "params": [[name]]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(30)
        s.sendto(ask.encode(), ("127.0.0.1", port))
        return int(next(iter(json.loads(s.recv(65536))["result"].values())))


def ask(port, until, found):
    """A hundred OPTIONS a second; (when, milliseconds to the answer)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.connect(("127.0.0.1", port))
        s.settimeout(5)
        number, own = 0, s.getsockname()[1]
        while time.time() < until:
            number += 1
            began = time.time()
            s.send((f"OPTIONS sip:x@x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKp{number}\r\nMax-Forwards: 70\r\n"
                    f"From: <sip:p@x>;tag=p\r\nTo: <sip:x@x>\r\nCall-ID: p{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode())
            s.recv(2000)
            found.append((began, (time.time() - began) * 1000))
            time.sleep(max(0, 0.01 - (time.time() - began)))


def wait_for(what, probe, seconds):
    end = time.time() + seconds
    while not probe():
        if time.time() > end:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def held(args):
    with tempfile.TemporaryDirectory() as folder:
        port, uas, uac, mi = (relay.free_port() for _ in range(4))
        setup = args.dialogs / args.rate
        end = int(time.time() + setup + 60)
        cfg = pathlib.Path(folder, "held.cfg")
        cfg.write_text(HELD.format(port=port, uas=uas, wait="", workers=1, mi=mi, end=end, transport="udp", no_tcp="yes"))
        with open(pathlib.Path(folder, "log"), "wb") as log:
            server = subprocess.Popen([os.path.abspath(args.fermata), "-f", str(cfg)], cwd=folder, stdout=log, stderr=log,
                                      start_new_session=True)
        callee = relay.sipp(["-sf", relay.SIPP / "uas.xml", "-i", "127.0.0.1", "-p", uas], folder)
        try:
            relay.listening(port, server)
            relay.listening(uas, callee)
            before = pss(server.pid)
            caller = relay.sipp(["-sf", relay.SIPP / "uac.xml", "-i", "127.0.0.1", "-p", uac, "-s", "bob", "-d", 3_600_000, "-r", args.rate,
                                 "-m", args.dialogs, "-l", args.dialogs, "127.0.0.1:%d" % port], folder)
            wait_for("the calls stand", lambda: stat(mi, "dialog:active_dialogs") >= args.dialogs * 0.99, setup + 50)
            wait_for("their transactions are gone", lambda: stat(mi, "tm:inuse_transactions") == 0, 60)
            dialogs = stat(mi, "dialog:active_dialogs")
            per_dialog = (pss(server.pid) - before) * 1024 / dialogs
            print("%.0f bytes for each of %d established dialogs" % (per_dialog, dialogs), flush=True)
            answers = []
            asking = threading.Thread(target=ask, args=(port, end + 10, answers))
            time.sleep(max(0, end - 5 - time.time()))
            asking.start()
            wait_for("the calls are over", lambda: stat(mi, "dialog:active_dialogs") == 0, 60)
            asking.join()
            relay.stop(caller)
        finally:
            for proc in (callee, server):
                relay.stop(proc)
        quiet = [ms for at, ms in answers if at < end - 1]
        busy = [ms for at, ms in answers if end - 1 <= at]
        worst = lambda list, part: sorted(list)[max(0, int(len(list) * part) - 1)]
        print("other requests: %.1f ms at most before, %.1f ms (99 %%: %.1f ms) while the dialogs time out" %
              (max(quiet), max(busy), worst(busy, 0.99)))
        return {"bytes_per_dialog": per_dialog, "dialogs": dialogs, "quiet_max_ms": max(quiet), "busy_max_ms": max(busy),
                "busy_p99_ms": worst(busy, 0.99)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--kamailio", default=shutil.which("kamailio") or "/usr/sbin/kamailio")
    ap.add_argument("--calls", type=int, default=5000)
    ap.add_argument("--rate", type=int, default=500)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--dialogs", type=int, default=20_000)
    args = ap.parse_args()
    args.workers, args.wait = 1, 0
    servers = {"fermata": ([os.path.abspath(args.fermata), "-f", "{cfg}"], FERMATA)}
    if os.path.exists(args.kamailio):
        servers["kamailio"] = ([args.kamailio, "-x", "fm", "-m", "256", "-M", "32", "-DD", "-E", "-f", "{cfg}"], KAMAILIO)
    seen, failed = {name: [] for name in servers}, 0
    for _ in range(args.rounds):
        for name, (command, text) in servers.items():
            found = relay.measure(name, command, text, args)
            per_call, bad = found["us"], found["failed"]
            seen[name].append(per_call)
            failed += bad
    medians = {name: statistics.median(values) for name, values in seen.items()}
    print("   ".join("%s: median %.1f us" % pair for pair in medians.items()))
    if "kamailio" in medians:
        print("fermata / kamailio = %.2f" % (medians["fermata"] / medians["kamailio"]))
    numbers = held(args) if args.dialogs else {}
    record("dialog", args.fermata, calls=args.calls, rounds=args.rounds, failed=failed,
           **{f"{name}_us": value for name, value in medians.items()}, **numbers)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
