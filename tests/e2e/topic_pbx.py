"""The shipped small PBX: phones from packages register and call each other through it."""
from harness import check, run, until
from topic_calls import SCENARIOS
from topic_peers import baresip, command, registered


def pbx(place):
    """etc/pbx.cfg with sockets and files of the test, alice and bob."""
    run(place.program, "db", "create", f"sqlite://{place.dir}/fermata.sqlite")
    place.sqlite("fermata.sqlite", "insert into subscriber (username, domain, password) values "
                                   "('alice', '127.0.0.1', 'wonder'), ('bob', '127.0.0.1', 'builder')")
    text = (SCENARIOS.parent.parent / "etc/pbx.cfg").read_text()
    for old, new in (("socket = udp:*:5060", "socket = udp:127.0.0.1:{PORT}"), ("/tmp/fermata_fifo", "{FIFO}"),
                     ("sqlite://fermata.sqlite", "sqlite://{DIR}/fermata.sqlite")):
        assert old in text, old
        text = text.replace(old, new)
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\n'
    return place.server(text.replace('loadmodule "mi_fifo.so"', 'loadmodule "mi_fifo.so"\n' + more))


def test_phones_call_each_other(place):
    server = pbx(place)
    _, alice, alice_log = baresip(place, server, "alice", "wonder", "manual")
    _, bob, bob_log = baresip(place, server, "bob", "builder", "auto")
    until("both are registered", lambda: registered(server) == ["alice@127.0.0.1", "bob@127.0.0.1"])
    active = lambda: server.mi("get_statistics", {"statistics": ["dialog:active_dialogs"]})["dialog:active_dialogs"]
    records = lambda: int(place.sqlite("fermata.sqlite", "select count(*) as n from acc")[0]["n"])
    command(alice, f"dial sip:bob@127.0.0.1:{server.port}")
    until("audio flows", lambda: "incoming rtp for 'audio' established" in bob_log.read_text(errors="replace"))
    check(active(), 1)
    # A second one is fine, a third one is too many.
    command(alice, f"dial sip:bob@127.0.0.1:{server.port}")
    until("two calls stand", lambda: active() == 2)
    command(alice, f"dial sip:bob@127.0.0.1:{server.port}")
    until("the third is refused", lambda: "Both Your Lines Are Busy" in alice_log.read_text(errors="replace"))
    check(server.mi("dialog:profile_get_size", {"profile": "calls", "value": "alice"})["Profile"]["count"], 2)
    command(alice, "hangup")
    until("one ends", lambda: active() == 1 and records() == 1)
    command(bob, "hangup")
    until("the other end hangs up", lambda: active() == 0 and records() == 2)
    check(server.mi("dialog:profile_get_size", {"profile": "calls", "value": "alice"})["Profile"]["count"], 0)
