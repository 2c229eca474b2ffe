#!/usr/bin/env python3
"""CPU time per relayed call, side by side with Kamailio, in one run on one machine.

  benches/relay.py [--fermata target/release/fermata] [--calls 5000] [--rate 500] [--rounds 3] [--workers 1] [--transport udp] [--wait MS]

SIPp calls SIPp through the server: INVITE, 180, 200, ACK, BYE, 200, with record-routing. The servers take turns; the
figure is user plus system time of all threads and processes of the server, divided by the calls. With several workers it
also says how many of Fermata's messages came to another worker than their call's.
Needs sip-tester; kamailio is measured when it is installed. With --wait, each INVITE of Fermata also waits that long
in the script (a plain call of usleep); Kamailio is left out then, because it would block.
"""
import argparse, json, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/e2e"))
from harness import free_port
from record import record

SIPP = pathlib.Path(__file__).resolve().parent.parent / "tests/sipp"
TICK = os.sysconf("SC_CLK_TCK")

FERMATA = """
log_level=1
stderror_enabled=yes
syslog_enabled=no
udp_workers={workers}
socket={transport}:127.0.0.1:{port}
loadmodule "mi_datagram.so"
modparam("mi_datagram", "socket_name", "udp:127.0.0.1:{mi}")
loadmodule "proto_{transport}.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
route {{
    if (!mf_process_maxfwd_header(10)) {{
        send_reply(483, "Too Many Hops");
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            t_relay();
            exit;
        }}
        if (is_method("ACK")) {{
            if (t_check_trans()) {{
                t_relay();
            }}
            exit;
        }}
        send_reply(404, "Not here");
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{
            t_relay();
        }}
        exit;
    }}
    t_check_trans();
    {wait}
    record_route();
    $ru = "sip:" + $rU + "@127.0.0.1:{uas};transport={transport}";
    if (!t_relay()) {{
        sl_reply_error();
    }}
}}
"""

KAMAILIO = """
debug=1
log_stderror=yes
children={workers}
tcp_children={workers}
disable_tcp={no_tcp}
auto_aliases=no
listen={transport}:127.0.0.1:{port}
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
request_route {{
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            t_relay();
            exit;
        }}
        if (is_method("ACK")) {{
            if (t_check_trans()) {{
                t_relay();
            }}
            exit;
        }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{
            t_relay();
        }}
        exit;
    }}
    t_check_trans();
    record_route();
    $ru = "sip:" + $rU + "@127.0.0.1:{uas};transport={transport}";
    if (!t_relay()) {{
        sl_reply_error();
    }}
}}
"""


def cpu(group):
    """Seconds of user and system time of all processes of a process group."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[2]) == group:
            total += int(stat[11]) + int(stat[12])
    return total / TICK


def listening(port, proc):
    deadline = time.monotonic() + 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", port))
        s.settimeout(0.05)
        while time.monotonic() < deadline:
            if proc.poll() is not None:
                sys.exit("the server ended with code %d" % proc.returncode)
            try:
                s.send(b"\0\0\0\0")
                s.recv(100)
            except ConnectionRefusedError:
                continue
            except socket.timeout:
                return
    sys.exit("the server does not listen")


def accepting(port, proc):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if proc.poll() is not None:
            sys.exit("the server ended with code %d" % proc.returncode)
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    sys.exit("the server does not listen")


def sipp(args, folder, **more):
    return subprocess.Popen(["sipp", "-nostdin", *map(str, args)], cwd=folder, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True, **more)


def stop(proc):
    """Asks first: a program that takes a profile of itself (benches/pgo) writes it at its orderly end."""
    if proc.poll() is None:
        proc.terminate()
        try:
            proc.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(proc.pid, signal.SIGKILL)
    proc.wait()


def statistic(folder, name):
    """The last value of a column of SIPp's -trace_stat file."""
    rows = [line.split(";") for line in next(pathlib.Path(folder).glob("uac_*_.csv")).read_text().splitlines()]
    return int(float(rows[-1][rows[0].index(name)] or 0))


def within(folder, share):
    """Milliseconds within which this share of the INVITEs had their 200, through the server and both SIPps (-trace_rtt)."""
    rows = next(pathlib.Path(folder).glob("uac_*_rtt.csv")).read_text().splitlines()[1:]
    times = sorted(float(row.split(";")[1]) for row in rows)
    return times[int(len(times) * share)] if times else None


def handed_over(port):
    """Share of the messages that another worker than the owner of the call received, in percent; None: no answer."""
    ask = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "get_statistics",
                      "params": [["net:mailbox_messages", "core:rcv_requests", "core:rcv_replies"]]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(ask.encode(), ("127.0.0.1", port))
        try:
            seen = {name.rpartition(":")[2]: int(n) for name, n in json.loads(s.recv(65536))["result"].items()}
        except socket.timeout:
            return None
    return 100 * seen["mailbox_messages"] / max(seen["rcv_requests"] + seen["rcv_replies"], 1)


def memory(group):
    """Bytes of all processes of a process group, what they share counted once (Pss)."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == group:
                text = pathlib.Path("/proc", pid, "smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) * 1024
        except OSError:
            continue
    return total


def measure(name, command, text, args):
    """One server, all calls of `args` through it: {us, failed, again, over, rest, after, p99}: CPU for each call in microseconds,
    failed calls, retransmissions, percent handed over between workers, bytes of memory before and after, milliseconds within which 99 %
    of the INVITEs had their 200."""
    transport = getattr(args, "transport", "udp")
    with tempfile.TemporaryDirectory() as folder:
        port, uas, uac, mi = free_port(), free_port(), free_port(), free_port()
        cfg = pathlib.Path(folder, "relay.cfg")
        wait = "usleep(%d);" % (args.wait * 1000) if args.wait else ""
        cfg.write_text(text.format(port=port, uas=uas, wait=wait, workers=args.workers, mi=mi, transport=transport,
                                   no_tcp="yes" if transport == "udp" else "no"))
        with open(pathlib.Path(folder, "log"), "wb") as log:
            words = [p.format(cfg=cfg, port=port, uas=uas, uac=uac) for p in command]
            server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        mode = ["-t", "u1" if transport == "udp" else "t1"]
        callee = sipp(["-sf", SIPP / "uas.xml", "-i", "127.0.0.1", "-p", uas, *mode], folder)
        try:
            for at, process in (port, server), (uas, callee):
                (listening if transport == "udp" else accepting)(at, process)
            before, rest = cpu(server.pid), memory(server.pid)
            caller = sipp(["-sf", SIPP / "uac.xml", "-i", "127.0.0.1", "-p", uac, "-s", "bob", "-d", 0, "-r", args.rate, "-m", args.calls,
                           "-l", 100000, "-trace_stat", "-fd", 1, "-trace_rtt", "-rtt_freq", 1, "-timeout", "%ds" % (args.calls // args.rate + 60), *mode,
                           "127.0.0.1:%d" % port], folder)
            caller.wait()
            used = cpu(server.pid) - before
            over = handed_over(mi) if name == "fermata" and args.workers > 1 else None
            found = {"us": used * 1e6 / args.calls, "failed": statistic(folder, "FailedCall(C)"), "over": over, "rest": rest,
                     "again": statistic(folder, "Retransmissions(C)"), "after": memory(server.pid), "p99": within(folder, 0.99)}
        finally:
            for proc in (callee, server):
                stop(proc)
        print("%-9s %6.1f us of CPU per call   %d failed, %d retransmissions, 99 %% within %.1f ms, %.1f MB of memory, then %.0f%s" %
              (name, found["us"], found["failed"], found["again"], found["p99"], found["rest"] / 1e6, found["after"] / 1e6,
               "" if over is None else ", %.2f %% handed over" % over), flush=True)
        return found


def fermata(program):
    return [os.path.abspath(program), "-f", "{cfg}"]


def kamailio(program, shared_mb=256):
    """With its fast allocator."""
    return [program, "-x", "fm", "-m", str(shared_mb), "-M", "32", "-DD", "-E", "-f", "{cfg}"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--kamailio", default=shutil.which("kamailio") or "/usr/sbin/kamailio")
    ap.add_argument("--calls", type=int, default=5000)
    ap.add_argument("--rate", type=int, default=500)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--workers", type=int, default=1)
    ap.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    ap.add_argument("--wait", type=int, default=0, help="milliseconds that each INVITE waits in the script")
    args = ap.parse_args()
    servers = {"fermata": (fermata(args.fermata), FERMATA)}
    if os.path.exists(args.kamailio) and not args.wait:
        servers["kamailio"] = (kamailio(args.kamailio), KAMAILIO)
    seen, failed = {name: [] for name in servers}, 0
    for _ in range(args.rounds):
        for name, (command, text) in servers.items():
            found = measure(name, command, text, args)
            seen[name].append(found["us"])
            failed += found["failed"]
    medians = {name: statistics.median(values) for name, values in seen.items()}
    print("\n" + "   ".join("%s: median %.1f us" % pair for pair in medians.items()))
    if "kamailio" in medians:
        print("fermata / kamailio = %.2f" % (medians["fermata"] / medians["kamailio"]))
    record("relay", args.fermata, calls=args.calls, rounds=args.rounds, workers=args.workers, wait_ms=args.wait, failed=failed,
           **{f"{name}_us": value for name, value in medians.items()})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
