"""Calls with the server between the ends: many at once on several workers, with media, over a restart, and joined."""
import subprocess
from databases import MariaDb, Postgres
from harness import Failed, check, free_port, run, until
from topic_calls import SCENARIOS, listens
from topic_media import Call, Engine, Party, parties, talk
from topic_peers import baresip, command, registered

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = {WORKERS}
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
loadmodule "b2b_entities.so"
loadmodule "b2b_logic.so"
modparam("b2b_logic", "script_req_route", "req")
modparam("b2b_logic", "script_reply_route", "rep")
modparam("b2b_logic", "cleanup_period", 5)
{MORE}
route {
    if (!is_method("INVITE")) { sl_send_reply(405, "Not Here"); exit; }
    {FIRST}
    b2b_server_new("caller");
    b2b_client_new("callee", "{TARGET}");
    b2b_init_request("two");
}
route[req] {
    {REQ}
    b2b_pass_request();
}
route[rep] {
    {REP}
    b2b_handle_reply();
}
"""
PLAIN = {"MORE": "", "FIRST": "", "REQ": "", "REP": "", "WORKERS": 4, "TARGET": "$ru"}


def nothing_left(server):
    until("no entity is left", lambda: server.mi("b2b_entities:list") == [])
    check(server.mi("b2b_logic:list"), {"Tuples": []})


def many(place, **names):
    uas = free_port()
    names["FIRST"] = names.get("FIRST", "").replace("UAS", str(uas))
    server = place.server(CONFIG, **{**PLAIN, "TARGET": f"sip:bob@127.0.0.1:{uas}", **names})
    place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-i", "127.0.0.1", "-p", uas,
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the called party listens", lambda: listens(uas))
    caller = place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", "bob",
                           "-d", "0", "-r", 100, "-m", 400, "-timeout", "60s", "-trace_err",
                           f"127.0.0.1:{server.port}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if caller.wait(timeout=90) != 0:
        errors = "".join(p.read_text(errors="replace")[-2000:] for p in place.dir.glob("*errors.log"))
        raise Failed(f"SIPp ended with {caller.returncode}: {errors}")
    nothing_left(server)


def test_many_calls_on_several_workers(place):
    many(place)


def test_many_hidden_calls(place):
    many(place, FIRST='$ru = "sip:bob@127.0.0.1:UAS"; b2b_init_request("top hiding"); exit;')


def test_many_calls_of_routes_that_wait(place):
    many(place, REQ="usleep(20000);", REP="usleep(20000);")


def test_media_through_an_engine(place):
    engine = Engine(place, 34200)
    flags = "call-id=$b2b_logic.ctx(call) from-tag=caller to-tag=callee"
    more = f'loadmodule "rtpengine.so"\nmodparam("rtpengine", "rtpengine_sock", "{engine.url}")'
    first = f'$b2b_logic.ctx(call) = $ci; rtpengine_offer("call-id=$ci from-tag=caller");'
    req = f'if ($rm == "BYE") rtpengine_delete("{flags}");'
    rep = f'if ($rm == "INVITE" && $rs == 200) rtpengine_answer("{flags}");'
    server = place.server(CONFIG, **{**PLAIN, "MORE": more, "FIRST": first, "REQ": req, "REP": rep})
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    call.begin()
    ports = talk(alice, bob)
    check(all(34200 <= port <= 34400 for port in ports), True, "media comes from the engine")
    call.end()
    nothing_left(server)


def outlives(place, driver, url, count):
    """A call goes on when its server was killed and is there again."""
    run(place.program, "db", "create", url, "b2b_entities", "b2b_logic")
    more = f'loadmodule "{driver}.so"\n' + "".join(
        f'modparam("{module}", "db_url", "{url}")\nmodparam("{module}", "db_mode", 1)\n' for module in ("b2b_entities", "b2b_logic"))
    server = place.server(CONFIG, **{**PLAIN, "MORE": more})
    alice, bob = parties(place, server)
    call = Call(alice, bob)
    call.begin()
    rows = lambda: tuple(int(count(f"select count(*) as n from {table}")) for table in ("b2b_entities", "b2b_logic"))
    until("the call is in the database", lambda: rows() == (2, 1))
    server.kill()
    server.start()
    until("both ends are back", lambda: len(server.mi("b2b_entities:list")) == 2)
    call.begin()
    call.end()
    nothing_left(server)
    until("its rows are gone", lambda: rows() == (0, 0))


def test_a_call_outlives_a_restart(place):
    outlives(place, "db_sqlite", f"sqlite://{place.dir}/calls.sqlite", lambda query: place.sqlite("calls.sqlite", query)[0]["n"])


def test_a_call_outlives_a_restart_with_mariadb(place):
    database = MariaDb(place)
    database.account()
    outlives(place, "db_mysql", database.url(), lambda query: database.sql(query, "fermata"))


def test_a_call_outlives_a_restart_with_postgresql(place):
    database = Postgres(place)
    database.account()
    outlives(place, "db_postgres", database.url(), lambda query: database.sql(query, "fermata"))


def test_a_caller_joins_whatever_worker_has_the_call(place):
    first = 'if ($hdr(X-Key) != NULL) { b2b_bridge_request("$hdr(X-Key)", 1); sl_send_reply(500, "No"); exit; }'
    server = place.server(CONFIG, **{**PLAIN, "FIRST": first})
    alice, bob = parties(place, server)
    for _ in range(8):
        call = Call(alice, bob)
        call.begin()
        key = server.mi("b2b_logic:list")["Tuples"][0]["key"]
        carol = Party(place, server, "carol", "127.0.0.4")
        joins = Call(carol, bob)
        joins.request("INVITE", f"X-Key: {key}\r\n" + carol.body())
        alice.phone.answer(alice.phone.receive("BYE "), 200)
        joins.answered()
        talk(carol, bob)
        joins.end()
        nothing_left(server)


def test_somebody_calls_two_others(place):
    more = 'modparam("b2b_logic", "server_address", "sip:server@127.0.0.1:{PORT}")'
    server = place.server(CONFIG, **{**PLAIN, "MORE": more})
    alice, bob = parties(place, server)
    uri = lambda party: f"sip:{party.user}@{party.phone.address}"
    server.mi("b2b_logic:trigger_scenario", {"scenario_id": "two", "entity1": f"one,{uri(alice)}", "entity2": f"two,{uri(bob)}"})
    alice.answer(alice.phone.receive("INVITE "))
    offer = bob.phone.receive("INVITE ")
    bob.take(offer.text)
    bob.answer(offer)
    alice.take(alice.phone.receive("ACK ").text)
    bob.phone.receive("ACK ")
    talk(alice, bob)
    key = server.mi("b2b_logic:list")["Tuples"][0]["key"]
    server.mi("b2b_logic:terminate_call", {"key": key})
    for party in (alice, bob):
        party.phone.answer(party.phone.receive("BYE "), 200)
    nothing_left(server)


PHONES = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
loadmodule "b2b_entities.so"
loadmodule "b2b_logic.so"
route {
    if (is_method("REGISTER")) { save("location"); exit; }
    if (!is_method("INVITE") || !lookup("location")) { send_reply(404, "Nobody"); exit; }
    b2b_init_request("top hiding");
}
"""


def test_phones_speak_through_two_dialogs(place):
    server = place.server(PHONES)
    _, alice, _ = baresip(place, server, "alice", "wonder", "manual")
    _, bob, bob_log = baresip(place, server, "bob", "builder", "auto")
    until("both are registered", lambda: len(registered(server)) == 2)
    command(alice, f"dial sip:bob@127.0.0.1:{server.port}")
    until("audio flows", lambda: "incoming rtp for 'audio' established" in bob_log.read_text(errors="replace"))
    check(len(server.mi("b2b_entities:list")), 2)
    command(bob, "hangup")
    nothing_left(server)
