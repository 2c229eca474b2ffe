#!/usr/bin/env python3
"""CPU time per relayed call, side by side with Kamailio, in one run on one machine.

  benches/relay.py [--fermata target/release/fermata] [--calls 5000] [--rate 500] [--rounds 3] [--wait MS]

SIPp calls SIPp through the server: INVITE, 180, 200, ACK, BYE, 200, with record-routing and one worker. The
servers take turns; the figure is user plus system time of all threads and processes of the server, divided by the calls.
Needs sip-tester; kamailio is measured when it is installed. With --wait, each INVITE of Fermata also waits that long
in the script (a plain call of usleep); Kamailio is left out then, because it would block.
"""
import argparse, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

from record import record

SIPP = pathlib.Path(__file__).resolve().parent.parent / "tests/sipp"
TICK = os.sysconf("SC_CLK_TCK")

FERMATA = """
log_level=1
stderror_enabled=yes
syslog_enabled=no
udp_workers=1
socket=udp:127.0.0.1:{port}
loadmodule "proto_udp.so"
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
    $ru = "sip:" + $rU + "@127.0.0.1:{uas}";
    if (!t_relay()) {{
        sl_reply_error();
    }}
}}
"""

KAMAILIO = """
debug=1
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:127.0.0.1:{port}
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
    $ru = "sip:" + $rU + "@127.0.0.1:{uas}";
    if (!t_relay()) {{
        sl_reply_error();
    }}
}}
"""


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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


def sipp(args, folder, **more):
    return subprocess.Popen(["sipp", "-nostdin", *map(str, args)], cwd=folder, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True, **more)


def stop(proc):
    if proc.poll() is None:
        os.killpg(proc.pid, signal.SIGKILL)
    proc.wait()


def statistic(folder, name):
    """The last value of a column of SIPp's -trace_stat file."""
    files = list(pathlib.Path(folder).glob("uac_*.csv"))
    rows = [line.split(";") for line in files[0].read_text().splitlines()]
    return int(float(rows[-1][rows[0].index(name)] or 0))


def measure(name, command, text, args):
    with tempfile.TemporaryDirectory() as folder:
        port, uas, uac = free_port(), free_port(), free_port()
        cfg = pathlib.Path(folder, "relay.cfg")
        wait = "usleep(%d);" % (args.wait * 1000) if args.wait else ""
        cfg.write_text(text.format(port=port, uas=uas, wait=wait))
        with open(pathlib.Path(folder, "log"), "wb") as log:
            server = subprocess.Popen([p.format(cfg=cfg) for p in command], cwd=folder, stdout=log, stderr=log,
                                      start_new_session=True)
        callee = sipp(["-sf", SIPP / "uas.xml", "-i", "127.0.0.1", "-p", uas], folder)
        try:
            listening(port, server)
            listening(uas, callee)
            before = cpu(server.pid)
            caller = sipp(["-sf", SIPP / "uac.xml", "-i", "127.0.0.1", "-p", uac, "-s", "bob", "-d", 0, "-r", args.rate, "-m", args.calls,
                           "-l", 100000, "-trace_stat", "-fd", 1, "-timeout", "%ds" % (args.calls // args.rate + 60),
                           "127.0.0.1:%d" % port], folder)
            caller.wait()
            used = cpu(server.pid) - before
            failed, again = statistic(folder, "FailedCall(C)"), statistic(folder, "Retransmissions(C)")
            rss = sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path("/proc", p, "status").read_text())[1])
                      for p in [str(server.pid)])
        finally:
            for proc in (callee, server):
                stop(proc)
        per_call = used * 1e6 / args.calls
        print("%-9s %6.1f us of CPU per call   %d failed, %d retransmissions, %d MB resident" %
              (name, per_call, failed, again, rss // 1024), flush=True)
        return per_call, failed


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--fermata", default="target/release/fermata")
    ap.add_argument("--kamailio", default=shutil.which("kamailio") or "/usr/sbin/kamailio")
    ap.add_argument("--calls", type=int, default=5000)
    ap.add_argument("--rate", type=int, default=500)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--wait", type=int, default=0, help="milliseconds that each INVITE waits in the script")
    args = ap.parse_args()
    servers = {"fermata": ([os.path.abspath(args.fermata), "-f", "{cfg}"], FERMATA)}
    if os.path.exists(args.kamailio) and not args.wait:
        servers["kamailio"] = ([args.kamailio, "-x", "fm", "-m", "256", "-M", "32", "-DD", "-E", "-f", "{cfg}"], KAMAILIO)
    seen, failed = {name: [] for name in servers}, 0
    for _ in range(args.rounds):
        for name, (command, text) in servers.items():
            per_call, bad = measure(name, command, text, args)
            seen[name].append(per_call)
            failed += bad
    medians = {name: statistics.median(values) for name, values in seen.items()}
    print("\n" + "   ".join("%s: median %.1f us" % pair for pair in medians.items()))
    if "kamailio" in medians:
        print("fermata / kamailio = %.2f" % (medians["fermata"] / medians["kamailio"]))
    record("relay", args.fermata, calls=args.calls, rounds=args.rounds, wait_ms=args.wait, failed=failed,
           **{f"{name}_us": value for name, value in medians.items()})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
