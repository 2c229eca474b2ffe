"""Servers of a federation: each keeps its own contacts, a store tells which server to send a call to."""
import signal, time
from harness import check, free_port, until
from stores import Cluster, Redis
from topic_location import TABLE

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
socket = bin:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "proto_bin.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "cachedb_redis.so"
loadmodule "clusterer.so"
loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("tm", "fr_timeout", 2)
modparam("clusterer", "db_mode", 0)
modparam("clusterer", "my_node_id", {NODE})
modparam("clusterer", "my_node_info", "cluster_id=1, url=bin:127.0.0.1:{PORT}, sip_addr=127.0.0.1:{PORT}")
modparam("registrar", "min_expires", 1)
modparam("usrloc", "location_cluster", 1)
modparam("usrloc", "cachedb_url", "redis:loc://{REDIS}/")
{MODE}
route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    $var(flags) = "global";
    if (cluster_check_addr(1, $si))
        lookup("location");
    else
        lookup("location", "global");
    if ($rc < 0) {
        $var(rc) = $rc;
        send_reply(404, "Nobody $var(rc)");
        exit;
    }
    record_route();
    t_relay();
}
"""
CONFIG = CONFIG.replace('    $var(flags) = "global";\n', "")
PRESET = 'modparam("usrloc", "working_mode_preset", "federation-cachedb-cluster")'


def start(place, node, store, mode=PRESET):
    return place.server(CONFIG, NODE=node, REDIS=store, MODE=mode)


def call(caller, user, phone):
    """A MESSAGE to a user reaches the phone, which answers; the request that the phone saw, and the reply."""
    branch = "z9hG4bK%s%d" % (phone.user, caller.cseq)
    caller.cseq += 1
    text = (f"MESSAGE sip:{user}@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:caller@example.com>;tag=1\r\nTo: <sip:{user}@example.com>\r\n"
            f"Call-ID: {branch}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n")
    caller.socket.sendto(text.encode(), ("127.0.0.1", caller.server.port))
    seen = phone.receive("MESSAGE ")
    # From the server that the phone registered at.
    source = seen.header("Via").split(";")[0].rsplit(":", 1)[1]
    answered = seen.text.replace("\r\n", "\r\n", 1)
    phone.server_port = int(source)
    keep = [l for l in answered.split("\r\n") if l.lower().startswith(("via", "from", "call-id", "cseq", "to", "record-route"))]
    reply = "SIP/2.0 200 OK\r\n" + "\r\n".join(keep) + "\r\nContent-Length: 0\r\n\r\n"
    phone.socket.sendto(reply.encode(), ("127.0.0.1", phone.server_port))
    return seen, caller.receive("SIP/2.0 [2-6]")


def serve_and_die(place, store):
    one, two = start(place, 1, store.url()), start(place, 2, store.url())
    alice, bob = place.phone(one, "alice"), place.phone(two, "bob", "127.0.0.3")
    until("the store is there", lambda: alice.register().status == 200 and store.fields("location:alice@example.com"))
    check(bob.register().status, 200)
    check(list(store.fields("location:bob@example.com")), [f"127.0.0.1:{two.port}"])
    # Each calls the other's subscriber; the call reaches the phone through the server it registered at.
    seen, reply = call(place.phone(two, "x", "127.0.0.4"), "alice", alice)
    check((reply.status, alice.server_port), (200, one.port))
    seen, reply = call(place.phone(one, "y", "127.0.0.5"), "bob", bob)
    check((reply.status, bob.server_port), (200, two.port))
    # Contacts are not shared.
    check(two.mi("ul_show_contact", ["location", "alice@example.com"])["error"]["message"], "AOR not found")
    one.kill()
    # What lives goes on, and a subscriber of the dead server comes over.
    caller = place.phone(two, "z", "127.0.0.6")
    check(call(caller, "bob", bob)[1].status, 200)
    check(caller.request("MESSAGE", "sip:alice@example.com").status, 408, "its server is dead")
    alice.server = two
    check(alice.register().status, 200)
    seen, reply = call(caller, "alice", alice)
    check((reply.status, alice.server_port), (200, two.port))
    one.start()
    caller = place.phone(one, "w", "127.0.0.7")
    check(call(caller, "alice", alice)[1].status, 200)


def test_two_servers_and_one_dies(place):
    serve_and_die(place, Redis(place))


def test_on_a_redis_cluster(place):
    serve_and_die(place, Cluster(place))


def test_ends_of_registrations(place):
    store = Redis(place)
    one, two = start(place, 1, store.url()), start(place, 2, store.url())
    alice = place.phone(one)
    caller = place.phone(two, "x", "127.0.0.4")
    until("the store is there", lambda: alice.register().status == 200 and store.fields("location:alice@example.com"))
    check(alice.register(expires=0).status, 200)
    check(store.fields("location:alice@example.com"), {})
    check(caller.request("MESSAGE", "sip:alice@example.com").status, 404, "after it left")
    # A server that is dead renews nothing: the store forgets its subscribers.
    check(alice.register(expires=2).status, 200)
    check(len(store.fields("location:alice@example.com")), 1)
    one.kill()
    until("the store forgets", lambda: not store.fields("location:alice@example.com"))
    check(caller.request("MESSAGE", "sip:alice@example.com").status, 404, "after it expired")


def test_a_store_that_goes_and_comes_back(place):
    store = Redis(place)
    one, two = start(place, 1, store.url()), start(place, 2, store.url())
    alice, bob = place.phone(one), place.phone(two, "bob", "127.0.0.3")
    until("the store is there", lambda: bob.register().status == 200 and store.fields("location:bob@example.com"))
    store.kill()
    # Registrations and local calls go on.
    check(alice.register().status, 200)
    near = place.phone(one, "x", "127.0.0.4")
    check(call(near, "alice", alice)[1].status, 200)
    check(near.request("MESSAGE", "sip:bob@example.com").text.split("\r\n")[0], "SIP/2.0 404 Nobody -3")
    check(near.request("MESSAGE", "sip:nobody@example.com").status, 404)
    check(one.log_text().count("is unreachable"), 1, "logged once")
    store.start()
    # What the store was not told is told by itself; what it lost comes back by command.
    until("alice is published", lambda: store.fields("location:alice@example.com"))
    check(two.mi("ul_cluster_sync"), "OK")
    until("bob is published again", lambda: store.fields("location:bob@example.com"))
    check(call(place.phone(two, "y", "127.0.0.5"), "alice", alice)[1].status, 200)
    until("it is back", lambda: call(place.phone(one, "z", "127.0.0.6"), "bob", bob)[1].status == 200)
    check((one.log_text().count("is unreachable"), one.log_text().count("is back")), (1, 1))


def test_with_contacts_in_a_database(place):
    """cluster_mode beside restart_persistency: a server that was killed knows its subscribers again."""
    place.sqlite("db.sqlite", TABLE)
    store = Redis(place)
    mode = ('modparam("usrloc", "cluster_mode", "federation-cachedb")\n'
            'modparam("usrloc", "restart_persistency", "load-from-sql")\n'
            'modparam("usrloc", "sql_write_mode", "write-through")\n'
            'modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")')
    one = start(place, 1, store.url(), mode.replace("{DIR}", str(place.dir)))
    two = start(place, 2, store.url())
    alice = place.phone(one)
    until("the store is there", lambda: alice.register().status == 200 and store.fields("location:alice@example.com"))
    one.kill()
    store.command("flushall")
    one.start()
    until("published after the start", lambda: store.fields("location:alice@example.com"))
    check(call(place.phone(two, "x", "127.0.0.4"), "alice", alice)[1].status, 200)


def test_only_the_active_one_of_a_pair_publishes(place):
    store = Redis(place)
    mode = PRESET + '\nmodparam("usrloc", "ha_cluster", 1)\nmodparam("usrloc", "ha_shtag", "vip")\n' \
                    'modparam("clusterer", "sharing_tag", "vip/1=backup")'
    one = start(place, 1, store.url(), mode)
    alice = place.phone(one)
    until("the store answers", lambda: alice.register().status == 200)
    check(store.fields("location:alice@example.com"), {}, "a backup")
    check(one.mi("clusterer:shtag_set_active", ["vip/1"]), "OK")
    check(one.mi("clusterer:list_shtags"), [{"Tag": "vip", "Cluster": 1, "State": "active"}])
    check(alice.register().status, 200)
    check(list(store.fields("location:alice@example.com")), [f"127.0.0.1:{one.port}"])
