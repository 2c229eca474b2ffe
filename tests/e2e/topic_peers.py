"""User agents from packages register at the shipped configuration and call each other."""
import pathlib, re, shutil, subprocess, wave
from harness import Failed, check, free_port, run, until

HERE = pathlib.Path(__file__).resolve().parent
SHIPPED = HERE.parent.parent / "etc/residential.cfg"

USERS = """
create table version (table_name text, table_version integer);
create table subscriber (
    id integer primary key autoincrement not null, username char(64) default '' not null,
    domain char(64) default '' not null, password char(25) default '' not null, ha1 char(64) default '' not null,
    ha1_sha256 char(64) default '' not null, ha1_sha512t256 char(64) default '' not null, rpid char(64) default null);
insert into version values ('subscriber', 8);
insert into subscriber (username, domain, password) values ('alice', '127.0.0.1', 'wonder'), ('bob', '127.0.0.1', 'builder');
"""


def program(name):
    path = shutil.which(name)
    if not path:
        raise Failed(f"{name} is not installed")
    return path


def residential(place):
    """etc/residential.cfg with sockets and files of the test."""
    from topic_location import TABLE
    place.sqlite("fermata.sqlite", USERS + TABLE)
    text = SHIPPED.read_text()
    text = text.replace("socket = udp:*:5060", "socket = udp:127.0.0.1:{PORT}").replace("/tmp/fermata_fifo", "{FIFO}")
    text = text.replace("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite")
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
    return place.server(text.replace('loadmodule "mi_fifo.so"', 'loadmodule "mi_fifo.so"\n' + more))


def registered(server):
    return sorted(a["AOR"] for d in server.mi("ul_dump")["Domains"] for a in d["AORs"])


def test_sipsak(place):
    server = residential(place)
    said = run(program("sipsak"), "-U", "-C", "sip:alice@127.0.0.1:40404", "-u", "alice", "-a", "wonder", "-x", "600",
               "-s", f"sip:alice@127.0.0.1:{server.port}", "-H", "127.0.0.1", "-vv")
    check(registered(server), ["alice@127.0.0.1"], said)
    wrong = subprocess.run([program("sipsak"), "-U", "-C", "sip:bob@127.0.0.1:40405", "-u", "bob", "-a", "wrong", "-x", "600",
                            "-s", f"sip:bob@127.0.0.1:{server.port}", "-H", "127.0.0.1"], capture_output=True, timeout=60)
    check(wrong.returncode != 0, True, "a wrong password")
    check(registered(server), ["alice@127.0.0.1"])


def baresip(place, server, user, password, answer, transport="udp", port=None, ca=None, modules=(), account="", contacts=""):
    """A baresip without sound, driven over its control socket; (process, control port, log)."""
    home = place.dir / user
    home.mkdir()
    control = free_port()
    with wave.open(str(home / "in.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(range(256)) * 2000)
    (home / "config").write_text(f"""
sip_listen 127.0.0.1:{free_port()}
audio_player aufile,{home}/out.wav
audio_source aufile,{home}/in.wav
audio_alert aufile,{home}/alert.wav
module_path {next(p for p in ('/usr/lib/baresip/modules', '/usr/lib/x86_64-linux-gnu/baresip/modules') if pathlib.Path(p).exists())}
module g711.so
module aufile.so
module account.so
module menu.so
module ctrl_tcp.so
{"".join(f"module {name}.so{chr(10)}" for name in modules)}
ctrl_tcp_listen 127.0.0.1:{control}
{f"sip_cafile {ca}" if ca else ""}
""")
    (home / "accounts").write_text(
        f"<sip:{user}@127.0.0.1:{port or server.port};transport={transport}>;auth_user={user};auth_pass={password};answermode={answer};"
        f"regint=600{account}\n")
    (home / "contacts").write_text(contacts)
    process = place.process(program("baresip"), "-f", home, stdin=subprocess.PIPE,
                            stdout=open(home / "log", "w"), stderr=subprocess.STDOUT)
    return process, control, home / "log"


def command(control, text):
    """One command over baresip's control socket (netstrings of JSON)."""
    import json, socket
    name, _, params = text.partition(" ")
    body = json.dumps({"command": name, "params": params, "token": "e2e"}).encode()
    with socket.create_connection(("127.0.0.1", control), timeout=10) as link:
        link.sendall(b"%d:%s," % (len(body), body))
        link.settimeout(5)
        return link.recv(65535).decode(errors="replace")


def test_baresip_calls_baresip(place):
    server = residential(place)
    _, alice, alice_log = baresip(place, server, "alice", "wonder", "manual")
    _, bob, bob_log = baresip(place, server, "bob", "builder", "auto")
    until("both are registered", lambda: registered(server) == ["alice@127.0.0.1", "bob@127.0.0.1"])
    command(alice, f"dial sip:bob@127.0.0.1:{server.port}")
    until("bob answers", lambda: "established" in alice_log.read_text(errors="replace").lower())
    until("audio flows", lambda: "incoming rtp for 'audio' established" in bob_log.read_text(errors="replace"))
    command(alice, "hangup")
    until("bob hears of the end", lambda: re.search(r"(?i)session closed|terminated|call.*closed", bob_log.read_text(errors="replace")))
