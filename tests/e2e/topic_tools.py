"""The tools around the server: fermata mi, fermata doctor, manual pages, completions, the Debian package."""
import configparser, json, os, pathlib, re, shlex, shutil, subprocess
from harness import Failed, check, free_port, until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CONFIG = """
log_level = 2
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "usrloc.so"
loadmodule "mi_fifo.so"
loadmodule "mi_datagram.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("mi_fifo", "fifo_name", "{FIFO}")
modparam("mi_fifo", "reply_dir", "{DIR}")
modparam("mi_datagram", "socket_name", "{DIR}/mi.sock")
route { exit; }
"""


def fermata(place, *words):
    done = subprocess.run([str(place.program), *map(str, words)], capture_output=True, text=True, timeout=60, cwd=place.dir)
    return done.returncode, done.stdout, done.stderr


def test_mi_finds_the_server(place):
    server = place.server(CONFIG)
    server.mi("version")
    ways = [["-f", server.config], ["--fifo", server.fifo, "--reply-dir", place.dir], ["--datagram", place.dir / "mi.sock"],
            ["--http", f"127.0.0.1:{server.mi_port}"], ["--http", f"http://127.0.0.1:{server.mi_port}/mi"]]
    for way in ways:
        code, out, err = fermata(place, "mi", *way, "get_statistics", "core:")
        check((code, err), (0, ""), way)
        check("core:rcv_requests" in json.loads(out), True, way)
        check(fermata(place, "mi", *way, "log_level", "level=3")[:2], (0, '{\n  "New global log level": 3\n}\n'), way)
    code, out, err = fermata(place, "mi", "-f", server.config, "no_such_command")
    check((code, out, "fermata mi which" in err), (1, "", True), err)
    code, out, err = fermata(place, "mi", "-f", server.config, "log_level", "x")
    check((code, "Bad type" in err), (1, True), err)
    check(fermata(place, "mi", "-f", server.config, "--compact", "pwd")[1], json.dumps({"WD": str(place.dir)}, separators=(",", ":")) + "\n")
    # A large answer comes whole by the FIFO.
    names = json.loads(fermata(place, "mi", "-f", server.config, "list_statistics")[1])
    check(len(names) > 20, True, "statistics")
    server.kill()
    code, out, err = fermata(place, "mi", "-f", server.config, "uptime")
    check((code, err.count("\n  "), "does not run" in err), (255, 3, True), err)
    check([p.name for p in place.dir.glob("fermata_mi_*")], [], "nothing is left behind")


def certificate(folder, days):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                    folder / "key.pem", "-out", folder / "cert.pem", "-days", str(days), "-subj", "/CN=example.com"], check=True, capture_output=True)


def test_doctor_names_what_mends(place):
    certificate(place.dir, 3)
    port = free_port()
    script = place.dir / "sick.cfg"
    script.write_text(f"""
socket = udp:127.0.0.1:{port}
socket = tls:127.0.0.1:{port}
loadmodule "proto_udp.so"
loadmodule "proto_tls.so"
loadmodule "tls_mgm.so"
loadmodule "db_sqlite.so"
loadmodule "signaling.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "mi_fifo.so"
modparam("tls_mgm", "certificate", "{place.dir}/cert.pem")
modparam("tls_mgm", "private_key", "{place.dir}/key.pem")
modparam("auth_db", "db_url", "sqlite://{place.dir}/none.sqlite")
modparam("mi_fifo", "fifo_name", "{place.dir}/missing/fifo")
route {{ exit; }}
""")
    code, out, err = fermata(place, "doctor", "-f", script)
    check((code, err), (1, ""))
    for found in (r"ok +the script .*sick.cfg is correct", rf"mend: mkdir -p {place.dir}/missing", r"warning +the certificate .*cert.pem of domain \S* ends in [23] days",
                  r"mend: fermata db create sqlite:", r"files may be open", r"name server|nameserver"):
        if not re.search(found, out):
            raise Failed(f"doctor does not say {found!r}:\n{out}")
    # What it names is what mends it.
    for command in re.findall(r"mend: (mkdir -p .*|fermata db create .*)", out):
        words = shlex.split(command)
        subprocess.run([place.program if words[0] == "fermata" else words[0], *words[1:]], check=True, capture_output=True)
    certificate(place.dir, 90)
    code, out, err = fermata(place, "doctor", "-f", script)
    left = [line for line in out.splitlines() if line.startswith(("fault", "warning")) and not re.search("name server|clock|receive buffers|files may", line)]
    check(left, [])
    script.write_text("route { nonsense(); }")
    code, out, err = fermata(place, "doctor", "-f", script)
    check((code, f"mend: fermata check {script}" in out), (1, True), out)


def test_papers(place):
    check(fermata(place, "man", "--to", place.dir / "man")[0], 0)
    pages = sorted(p.name for p in (place.dir / "man").iterdir())
    commands = re.findall(r"(?m)^  (\w+) ", fermata(place, "--help")[1].split("Commands:")[1].split("Options:")[0])
    check(pages, sorted(["fermata.8"] + [f"fermata-{c}.8" for c in commands if c != "help"]))
    for shell, check_syntax in (("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)):
        code, out, _ = fermata(place, "completions", shell)
        check((code, "doctor" in out and "reply-dir" in out), (0, True), shell)
        if check_syntax:
            (place.dir / "completion").write_text(out)
            subprocess.run([*check_syntax, place.dir / "completion"], check=True)
            said = subprocess.run(["bash", "-c", f"source {place.dir}/completion; COMP_WORDS=(fermata do); COMP_CWORD=1; _fermata fermata do fermata; echo ${{COMPREPLY[@]}}"],
                                  capture_output=True, text=True).stdout
            check(said.split(), ["doctor"])


def unit_of(path):
    """Settings of a unit: name → list of values."""
    found = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


# Runs in a mount and network namespace of its own: a real install over a copy of this machine that is thrown away.
INSTALL = r"""
set -e
cd "$1"
mkdir layer && mount -t tmpfs tmpfs layer && mkdir layer/up layer/work layer/root
mount -t overlay overlay -o lowerdir=/,upperdir=layer/up,workdir=layer/work layer/root || exit 77
root=$PWD/layer/root
mount -t proc proc $root/proc; mount --bind /dev $root/dev; mount -t tmpfs tmpfs $root/run; mount -t tmpfs tmpfs $root/tmp
ip link set lo up
cp fermata.deb $root/tmp/
chroot $root dpkg --force-depends -i /tmp/fermata.deb >dpkg.log 2>&1
chroot $root systemd-analyze verify /usr/lib/systemd/system/fermata.service >verify.log 2>&1 || true
chroot $root systemd-analyze security --offline=true --no-pager fermata.service >security.log 2>&1 || true
# What the unit gives: its folders, a user without a name, everything else read-only, one capability, no new ones.
mkdir -p $root/var/lib/fermata $root/run/fermata
chown 61184:61184 $root/var/lib/fermata $root/run/fermata
mount --bind $root/var/lib/fermata $root/var/lib/fermata
mount -o remount,bind,ro $root
as_unit() { exec chroot $root env -i PATH=/usr/bin setpriv --reuid 61184 --regid 61184 --clear-groups --no-new-privs \
    --inh-caps -all,+net_bind_service --ambient-caps -all,+net_bind_service --bounding-set -all,+net_bind_service \
    sh -c "cd /var/lib/fermata; umask 0027; exec $*"; }
while read -r line; do (as_unit "$line" </dev/null); done < pre.txt
as_unit "$(cat start.txt)" >server.log 2>&1 &
server=$!
for try in $(seq 200); do chroot $root fermata mi uptime >mi.log 2>&1 && break; sleep 0.05; done
chroot $root fermata mi get_statistics core: >>mi.log 2>&1
touch $root/usr/written 2>/dev/null && echo writable >>mi.log
kill -TERM $server
wait $server && echo "ended 0" >>mi.log
umount $root/var/lib/fermata
mount -o remount,bind,rw $root
chroot $root dpkg -P fermata >>dpkg.log 2>&1
for left in /usr/bin/fermata /etc/fermata /usr/lib/systemd/system/fermata.service; do [ -e $root$left ] && echo "left $left" >>mi.log; done
true
"""


def test_the_package_installs_and_runs(place):
    if os.getuid() != 0:
        raise Failed("this test wants root: it installs the package over a copy of the system")
    done = subprocess.run([ROOT / "tests" / "deb", place.program, place.dir], capture_output=True, text=True, timeout=300)
    check(done.returncode, 0, done.stderr)
    [package] = place.dir.glob("*.deb")
    package.rename(place.dir / "fermata.deb")
    listed = subprocess.run(["dpkg-deb", "-c", place.dir / "fermata.deb"], capture_output=True, text=True).stdout
    for name in ("./usr/bin/fermata", "./usr/lib/systemd/system/fermata.service", "./etc/fermata/fermata.cfg", "./usr/share/man/man8/fermata.8.gz",
                 "./usr/share/man/man8/fermata-doctor.8.gz", "./usr/share/bash-completion/completions/fermata", "./usr/share/doc/fermata/copyright"):
        check(name in listed, True, name)
    check("libc6" in subprocess.run(["dpkg-deb", "-f", place.dir / "fermata.deb", "Depends"], capture_output=True, text=True).stdout, True)
    unit = unit_of(ROOT / "etc" / "fermata.service")
    (place.dir / "pre.txt").write_text("\n".join(unit["ExecStartPre"]) + "\n")
    (place.dir / "start.txt").write_text(unit["ExecStart"][0])
    (place.dir / "install.sh").write_text(INSTALL)
    done = subprocess.run(["unshare", "-m", "-n", "--propagation", "private", "sh", place.dir / "install.sh", place.dir], capture_output=True, text=True, timeout=120)
    if done.returncode == 77:
        print("     no overlay can be mounted here: the package was made and read, not installed")
        return
    read = lambda name: (place.dir / name).read_text() if (place.dir / name).exists() else ""
    check(done.returncode, 0, done.stderr + read("dpkg.log") + read("server.log"))
    check("listens on udp:127.0.0.1:5060" in read("server.log"), True, read("server.log"))
    said = read("mi.log")
    check(("Up since" in said, "core:rcv_requests" in said, "ended 0" in said, "left" in said, "writable" in said), (True, True, True, False, False), said)
    if not shutil.which("systemd-analyze"):
        print("     no systemd-analyze here: the unit was used, not judged")
        return
    check("fermata.service:" in read("verify.log"), False, read("verify.log"))
    level = re.search(r"Overall exposure level for fermata.service: ([\d.]+)", read("security.log"))
    check(level is not None and float(level[1]) < 2.5, True, read("security.log")[-300:])
