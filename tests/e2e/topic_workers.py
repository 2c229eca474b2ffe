"""Several workers: what one asks comes back to it, and there are no more of them than cores."""
import concurrent.futures, os, re

from harness import check, until

SCRIPT = """
log_level=3
stderror_enabled=yes
syslog_enabled=no
{MORE}
socket=udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "ip", "127.0.0.1")
modparam("httpd", "port", {MI})
route { sl_send_reply(404, "Nobody"); }
"""


def start(place, more, *switches):
    server = place.server(SCRIPT, MORE=more)
    if switches:
        server.stop()
        server.log.unlink()
        server.start(*switches)
    return server


def workers(server):
    return int(until("the server says how many", lambda: re.search(r"with (\d+) workers?,", server.log_text()))[1])


def test_requests_with_call_ids_of_their_own_are_answered(place):
    server = start(place, "", "-n", "2")
    phone = place.phone(server)
    requests = 24
    with concurrent.futures.ThreadPoolExecutor(requests) as pool:
        sent = [pool.submit(server.mi, "t_uac_dlg", {
            "method": "OPTIONS", "ruri": f"sip:x@{phone.address}",
            "headers": f"From: <sip:a@b>;tag=t\r\nTo: <sip:c@d>\r\nCall-ID: own-{n}@e2e\r\n"}) for n in range(requests)]
        for _ in range(requests):
            phone.answer(phone.receive("OPTIONS "), 200)
        answers = [one.result() for one in sent]
    check([str(answer.get("Status")) for answer in answers], ["200 E2E"] * requests, "answers")


def test_no_more_workers_than_cores(place):
    cores = len(os.sched_getaffinity(0))
    server = start(place, "udp_workers=64")
    check(workers(server), cores, "workers that run")
    said = re.findall(r"the script asks for 64 workers, \d+ run", server.log_text())
    check(said, [f"the script asks for 64 workers, {cores} run"], "said once")
    check(workers(start(place, "udp_workers=1", "-n", str(cores + 1))), cores + 1, "the switch")
