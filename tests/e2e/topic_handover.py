"""Two servers, one Redis: dialogs of a sharing tag are found by the other server, and taken over when one dies."""
from harness import check, until
from stores import Redis
from topic_dialog import Call, Party, answer
from topic_durability import Sqlite, database

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
alias = udp:127.0.0.1:{OTHER}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "cachedb_redis.so"
loadmodule "db_sqlite.so"
loadmodule "clusterer.so"
loadmodule "dialog.so"
loadmodule "topology_hiding.so"
loadmodule "acc.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("clusterer", "my_node_id", {NODE})
modparam("clusterer", "db_mode", 0)
modparam("clusterer", "my_node_info", "cluster_id=1, url=bin:127.0.0.1:5555")
modparam("clusterer", "sharing_tag", "vip/1={STATE}")
modparam("dialog", "cachedb_url", "{REDIS}")
modparam("dialog", "profiles_with_value", "caller/s")
modparam("acc", "db_url", "{ACC}")
route {
    if (is_method("OPTIONS")) {
        get_profile_size("caller", "user1", $var(n));
        send_reply(200, "Size $var(n)");
        exit;
    }
    if (has_totag()) {
        if ({MATCH}) {
            t_relay();
            exit;
        }
        send_reply(481, "No such call");
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    create_dialog("bye-on-timeout");
    do_accounting("db", "cdr");
    set_dlg_sharing_tag("vip");
    set_dlg_profile("caller", $fU);
    $DLG_timeout = {LIFE};
    {HIDE}
    $du = "sip:127.0.0.1:{CALLEE}";
    t_relay();
}
"""
MATCH = "loose_route() && $DLG_status != NULL"


def pair(place, life, match=MATCH, hide="record_route();"):
    store, db, callee = Redis(place), database(place, Sqlite), Party(place)
    start = lambda node, other: place.server(
        CONFIG, NODE=node, OTHER=other, STATE="active" if node == 1 else "backup", REDIS=f"redis:d://{store.url()}/",
        ACC=db.url(), LIFE=life, CALLEE=callee.port, MATCH=match, HIDE=hide)
    one = start(1, 9)
    two = start(2, one.port)
    return store, db, Party(place), callee, one, two


def count(db, where="1=1"):
    return int(db.sql(f"select count(*) from acc where {where}", "fermata").strip() or 0)


def size(server, caller):
    """Calls of user1 as a script counts them."""
    size.number += 1
    caller.send(server.port, f"OPTIONS sip:x@x SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:{caller.port};branch=z9hG4bKs{size.number}\n"
                             f"From: <sip:s@x>;tag=s\nTo: <sip:x@x>\nCall-ID: s{size.number}\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n")
    while True:
        first = caller.take().split("\r\n")[0]
        if " Size " in first:
            return int(first.rsplit(" ", 1)[1])
size.number = 0


def states(store):
    return [key for key in store.command("keys", "dlg_state_*").split() if key]


def test_calls_outlive_the_server_that_took_them(place):
    store, db, caller, callee, one, two = pair(place, 3600)
    calls = [Call(caller, callee, one.port, n) for n in range(40)]
    until("the other server can know them", lambda: len(states(store)) == 40)
    until("the counts are shared", lambda: size(two, caller) == 4)
    # A BYE that comes to the other server, while the first one lives.
    calls[1].server = two.port
    check(calls[1].bye(from_caller=False), "200")
    until("the call is gone", lambda: len(states(store)) == 39)
    until("it counts no more", lambda: size(one, caller) == 3)
    one.kill()
    check(two.mi("clusterer:shtag_set_active", {"tag": "vip/1"}), "OK")
    until("the other server has all", lambda: two.mi("get_statistics", {"statistics": ["dialog:active_dialogs"]}) ==
          {"dialog:active_dialogs": 39})
    check(size(two, caller), 3)
    for call in calls[:1] + calls[2:]:
        call.server = two.port
        check(call.bye(from_caller=int(call.id[5:]) % 2 == 0), "200", call.id)
    until("no call counts any more", lambda: size(two, caller) == 0)
    until("the store is empty", lambda: store.command("keys", "dlg_state_*").split() == [])
    until("each call has one record", lambda: count(db) == 40)


def test_time_of_calls_of_a_dead_server(place):
    store, db, caller, callee, one, two = pair(place, 4)
    call = Call(caller, callee, one.port, 0)
    until("the other server can know it", lambda: len(states(store)) == 1)
    one.kill()
    check(two.mi("clusterer:shtag_set_active", {"tag": "vip/1"}), "OK")
    for party in (caller, callee):
        answer(party, two.port, call.wait(party, "BYE "), "200 OK")
    until("the store is empty", lambda: states(store) == [])
    until("the call has one record", lambda: count(db) == 1)


def test_a_hidden_call_at_the_other_server(place):
    store, db, caller, callee, one, two = pair(place, 3600, match="topology_hiding_match()", hide='topology_hiding("C");')
    # Whichever worker a masked Call-ID would fall to, its call is found.
    for number in range(8):
        check(HiddenCall(caller, callee, one.port, number).bye_of_callee(one.port), "200", number)
    # Keys of the calls before are not taken for its own.
    until("the store is empty", lambda: states(store) == [])
    call = HiddenCall(caller, callee, one.port, 8)
    until("the other server can know it", lambda: len(states(store)) == 1)
    one.kill()
    check(call.bye_of_callee(two.port), "200")
    until("the store is empty", lambda: states(store) == [])
    until("each call has one record", lambda: count(db) == 9)


class HiddenCall:
    """A call whose ends see another Call-ID each, and no address of the other one."""

    def __init__(self, caller, callee, server, number):
        self.caller, self.callee, self.id = caller, callee, f"call-{number}"
        head = f"Max-Forwards: 70\nFrom: <sip:a@x>;tag=caller\nCall-ID: {self.id}\nContent-Length: 0\n"
        via = f"Via: SIP/2.0/UDP 127.0.0.1:{caller.port};branch=z9hG4bK{self.id}"
        caller.send(server, f"INVITE sip:bob@x SIP/2.0\n{via}\nTo: <sip:bob@x>\nCSeq: 1 INVITE\n"
                            f"Contact: <sip:a@127.0.0.1:{caller.port}>\n{head}\n")
        self.invite = callee.take()
        if f":{caller.port}" in self.invite or self.id in self.invite:
            raise AssertionError("the caller shows:\n" + self.invite)
        answer(callee, server, self.invite, "200 OK", f"Contact: <sip:b@127.0.0.1:{callee.port}>\n")
        while not (reply := caller.take()).startswith("SIP/2.0 200"):
            pass
        self.target = contact(reply)
        caller.send(server, f"ACK {self.target} SIP/2.0\n{via}a\nTo: <sip:bob@x>;tag=callee\nCSeq: 1 ACK\n{head}\n")
        assert callee.take().startswith("ACK ")

    def bye_of_callee(self, server):
        line = lambda name: next(l.split(": ", 1)[1] for l in self.invite.split("\r\n") if l.startswith(name + ":"))
        self.callee.send(server, f"BYE {contact(self.invite)} SIP/2.0\n"
                                 f"Via: SIP/2.0/UDP 127.0.0.1:{self.callee.port};branch=z9hG4bK{self.id}bye\nMax-Forwards: 70\n"
                                 f"From: <sip:bob@x>;tag=callee\nTo: {line('From')}\nCall-ID: {line('Call-ID')}\n"
                                 f"CSeq: 2 BYE\nContent-Length: 0\n\n")
        while not (bye := self.caller.take()).startswith("BYE "):
            pass
        check(f"Call-ID: {self.id}" in bye, True, "the caller's own Call-ID")
        answer(self.caller, server, bye, "200 OK")
        reply = self.callee.take()
        check(line("Call-ID") in reply, True, "the callee's own Call-ID")
        return reply.split(" ")[1]


def contact(text):
    return next(l for l in text.split("\r\n") if l.startswith("Contact:")).split("<", 1)[1].split(">")[0]
