"""mid_registrar before a Kamailio that asks for a password; sipsak registers, SIPp calls and is called."""
import re, subprocess
from databases import find
from harness import Failed, check, free_port, until
from topic_mid_registrar import MID, contacts

KAMAILIO = """
debug=0
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:127.0.0.1:{PORT}
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "tm.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "auth.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "use_domain", 0)
modparam("registrar", "max_expires", {MAX})
modparam("registrar", "min_expires", 1)
request_route {
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("example.com", "secret", "0")) {
            www_challenge("example.com", "0");
            exit;
        }
        save("location");
        exit;
    }
    if (!lookup("location")) {
        if (!is_method("ACK"))
            sl_send_reply("404", "Nobody");
        exit;
    }
    if (is_method("OPTIONS")) {
        append_to_reply("X-Found: $ru\\r\\n");
        sl_send_reply("200", "Found");
        exit;
    }
    t_relay();
}
"""


class Kamailio:
    """Looks like a server of the harness, for phones."""

    def __init__(self, place, **names):
        self.port = free_port()
        text = KAMAILIO
        for name, value in {"PORT": self.port, **names}.items():
            text = text.replace("{%s}" % name, str(value))
        config = place.dir / "kamailio.cfg"
        config.write_text(text)
        log = open(place.dir / "kamailio.log", "w")
        place.process(find("kamailio"), "-DD", "-m", "64", "-M", "8", "-w", place.dir, "-Y", place.dir, "-f", config,
                      stdout=log, stderr=log)


def start(place, mode, limit=0):
    main = Kamailio(place, MAX=limit)
    mid = place.server(MID, MODE=mode, MAIN=main.port, MORE='modparam("usrloc", "use_domain", 0)')
    caller = place.phone(main, "carol", "127.0.0.4")
    until("kamailio answers", lambda: caller.request("OPTIONS", "sip:nobody@example.com").status == 404)
    return main, mid, caller


def sipsak(mid, contact, expires):
    """Registers alice, and answers the challenge."""
    done = subprocess.run(
        [find("sipsak"), "-U", "-C", contact, "-a", "secret", "-u", "alice", "-x", str(expires), "-vvv",
         "-s", f"sip:alice@127.0.0.1:{mid.port}"], capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise Failed(f"sipsak ended with {done.returncode}: {done.stdout[-800:]}{done.stderr}")
    return done.stdout


def theirs(caller):
    """The contact that Kamailio has of alice, or None."""
    reply = caller.request("OPTIONS", "sip:alice@example.com")
    return reply.header("X-Found") or None if reply.status == 200 else None


def sipp_call(place, main, port):
    """SIPp calls alice through Kamailio; the SIPp that alice is answers, and the call ends well on both sides."""
    log = open(place.dir / "sipp.log", "a")
    phone = place.process(find("sipp"), "-sn", "uas", "-i", "127.0.0.1", "-p", port, "-m", 1, "-nostdin",
                          stdout=log, stderr=log)
    caller = subprocess.run([find("sipp"), "-sn", "uac", "-s", "alice", "-i", "127.0.0.1", "-p", str(free_port()), "-m", "1",
                             "-d", "50", "-nostdin", "-timeout", "15", f"127.0.0.1:{main.port}"],
                            cwd=place.dir, stdout=log, stderr=log, timeout=30)
    check(caller.returncode, 0, "the caller's SIPp")
    check(phone.wait(10), 0, "the phone's SIPp")


def serve(place, mode):
    main, mid, caller = start(place, mode)
    port = free_port()
    contact = f"sip:alice@127.0.0.1:{port}"
    sipsak(mid, contact, 100)
    check([c for c, _ in contacts(mid, "alice")], [contact])
    check(bool(re.match(rf"sip:.*@127.0.0.1:{mid.port}", theirs(caller))), True, theirs(caller))
    sipp_call(place, main, port)
    return main, mid, caller, contact


def test_mirror(place):
    main, mid, caller, contact = serve(place, 0)
    sipsak(mid, contact, 0)
    check((theirs(caller), contacts(mid, "alice")), (None, []))


def test_by_contact(place):
    main, mid, caller, contact = serve(place, 1)
    before = theirs(caller)
    # Renewed here alone: nobody asks for a password.
    check("401" in sipsak(mid, contact, 100), False, "it was answered here")
    check(theirs(caller), before)


def test_by_address(place):
    main, mid, caller, contact = serve(place, 2)
    other = f"sip:alice@127.0.0.1:{free_port()}"
    check("401" in sipsak(mid, other, 100), False, "a second contact was answered here")
    check(sorted(c for c, _ in contacts(mid, "alice")), sorted([contact, other]))


def test_the_main_registrar_decides_how_long(place):
    """It grants less than was asked for: contacts here do not outlive those there."""
    main, mid, caller = start(place, 0, limit=3)
    phone = f"sip:alice@127.0.0.1:{free_port()}"
    check("expires=3" in sipsak(mid, phone, 600), True)
    until("it ends there and here", lambda: theirs(caller) is None and contacts(mid, "alice") == [])
