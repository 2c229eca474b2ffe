"""Several servers share their contacts through a key-value store; one of them dies."""
import signal, threading
from harness import check, free_port, until
from stores import Cluster, Redis
from topic_location import CONFIG, found

SHARED = CONFIG.replace('''    if (lookup("location")) {''', '''    if (is_method("INFO")) {
        send_reply(200, "Info");
        exit;
    }
    lookup("location");
    $var(rc) = $rc;
    if ($var(rc) > 0 && is_method("MESSAGE")) {
        t_relay();
        exit;
    }
    if ($var(rc) > 0) {''').replace("    $var(rc) = $rc;\n    send_reply(404", "    send_reply(404").replace('loadmodule "db_sqlite.so"', 'loadmodule "cachedb_redis.so"').replace(
    'modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")',
    'modparam("usrloc", "cachedb_url", "redis:loc://{REDIS}/")')


def start(place, store):
    url = store if isinstance(store, str) else store.url()
    return place.server(SHARED, MODE="full-sharing-cachedb-cluster", TIMER=60,
                        MORE='modparam("registrar", "min_expires", 1)', REDIS=url)


def serve_and_die(place, store):
    one, two = start(place, store), start(place, store)
    alice, bob = place.phone(one), place.phone(two, "bob", "127.0.0.3")
    until("the store is there", lambda: alice.register("<sip:a@10.0.0.1>;q=0.5").status == 200)
    check(bob.register("<sip:b@10.0.0.2>").status, 200)
    # Each finds the other's subscribers.
    check(found(alice, "bob"), "sip:b@10.0.0.2")
    check(found(bob, "alice"), "sip:a@10.0.0.1")
    # A second phone of alice registers at the other server: both know both.
    again = bob.register("<sip:a2@10.0.0.3>", user="alice", call_id="a2")
    check(sorted(c.split(">")[0] for c in again.header("Contact").split(", ")), ["<sip:a2@10.0.0.3", "<sip:a@10.0.0.1"])
    shown = one.mi("ul_show_contact", ["location", "alice@example.com"])
    check(sorted((c["Contact"], c["Q"]) for c in shown["Contacts"]), [("sip:a2@10.0.0.3", ""), ("sip:a@10.0.0.1", "0.5")])
    one.kill()
    check(found(bob, "alice"), "sip:a@10.0.0.1", "after the other server died")
    # Its phone comes to the one that lives, which knows its registration: it renews it, and ends it.
    alice.server = two
    check(alice.register("<sip:a@10.0.0.1>;q=0.5").status, 200)
    check(alice.register("<sip:a@10.0.0.1>", expires=0).status, 200)
    check(found(bob, "alice"), "sip:a2@10.0.0.3")
    one.start()
    alice.server = one
    check(found(alice, "alice"), "sip:a2@10.0.0.3", "after it came back")


def test_a_call_through_the_other_server(place):
    store = Redis(place)
    one, two = start(place, store), start(place, store)
    alice, caller = place.phone(one), place.phone(two, "carol", "127.0.0.4")
    until("the store is there", lambda: alice.register().status == 200)

    def call():
        """A MESSAGE through the second server reaches the phone, whose answer comes back."""
        caller.cseq += 1
        branch = f"z9hG4bKshared{caller.cseq}"
        text = (f"MESSAGE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller.address};branch={branch}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:carol@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\n"
                f"Call-ID: {branch}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n")
        caller.socket.sendto(text.encode(), ("127.0.0.1", two.port))
        request = alice.receive("MESSAGE ")
        alice.server = two
        alice.answer(request, 200)
        return caller.receive("SIP/2.0 [2-6]").status
    check(call(), 200)
    one.kill()
    check(call(), 200, "after the server that it registered at died")


def test_two_servers_and_one_dies(place):
    serve_and_die(place, Redis(place))


def test_on_a_redis_cluster(place):
    serve_and_die(place, Cluster(place))


def test_servers_that_change_one_address_at_once(place):
    store = Redis(place)
    servers = [start(place, store), start(place, store)]
    phones = [place.phone(servers[n % 2], "alice", f"127.0.0.{10 + n}") for n in range(8)]
    until("the store is there", lambda: phones[0].register("<sip:p0@10.0.0.1>", call_id="p0").status == 200)
    statuses = {}

    def register(n):
        statuses[n] = phones[n].register(f"<sip:p{n}@10.0.0.1>", call_id=f"p{n}").status
    threads = [threading.Thread(target=register, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(set(statuses.values()), {200})
    shown = servers[1].mi("ul_show_contact", ["location", "alice@example.com"])
    check(sorted(c["Contact"] for c in shown["Contacts"]), [f"sip:p{n}@10.0.0.1" for n in range(8)])


def test_ends_of_registrations(place):
    store = Redis(place)
    one, two = start(place, store), start(place, store)
    alice, bob = place.phone(one), place.phone(two, "bob", "127.0.0.3")
    until("the store is there", lambda: alice.register("<sip:a@10.0.0.1>").status == 200)
    # Ended at one server, gone at the other.
    check(alice.register("<sip:a@10.0.0.1>", expires=0).status, 200)
    check(found(bob, "alice"), None)
    check(store.fields("location:alice@example.com"), {})
    # The store forgets what nobody renews, also when the server that wrote it is dead.
    check(alice.register("<sip:a@10.0.0.1>", expires=2).status, 200)
    check(found(bob, "alice"), "sip:a@10.0.0.1")
    one.kill()
    until("the contact expires", lambda: found(bob, "alice") is None)
    until("the store forgets", lambda: not store.fields("location:alice@example.com"))
    # A short registration beside a long one does not shorten its life.
    check(bob.register("<sip:b1@10.0.0.1>", expires=1000, call_id="b1").status, 200)
    check(bob.register("<sip:b2@10.0.0.1>", expires=2, call_id="b2").status, 200)
    check(int(store.command("ttl", "location:bob@example.com")) > 900, True)


def test_a_store_that_goes_and_comes_back(place):
    store = Redis(place)
    server = start(place, store)
    phone = place.phone(server)
    until("the store is there", lambda: phone.register("<sip:a@10.0.0.1>").status == 200)
    store.kill()
    reply = phone.register("<sip:a@10.0.0.1>")
    check((reply.status, reply.header("P-Registrar-Error")), (500, "usrloc_record_get failed"))
    check(phone.request("OPTIONS", "sip:alice@example.com").text.split("\r\n")[0], "SIP/2.0 404 Nobody -3")
    check(server.log_text().count("is unreachable"), 1, "logged once")
    store.start()
    until("it works again by itself", lambda: phone.register("<sip:a@10.0.0.1>").status == 200)
    check(found(phone, "alice"), "sip:a@10.0.0.1")
    check(server.log_text().count("is back"), 1)


def test_a_store_that_says_nothing_holds_nobody_else(place):
    store = Redis(place)
    server = start(place, store)
    phones = [place.phone(server, ip=f"127.0.0.{10 + n}") for n in range(8)]
    until("the store is there", lambda: phones[0].register("<sip:a@10.0.0.1>").status == 200)
    store.process.send_signal(signal.SIGSTOP)
    waiting = []

    def register(phone):
        waiting.append(phone.register("<sip:w@10.0.0.1>").status)
    threads = [threading.Thread(target=register, args=(phone,), daemon=True) for phone in phones[:4]]
    for thread in threads:
        thread.start()
    until("they wait", lambda: len(server.mi("async_list")["Operations"]) >= 4)
    check({phone.request("INFO", "sip:x@example.com").status for phone in phones[4:]}, {200})
    check(waiting, [], "the others still wait")
    store.process.send_signal(signal.SIGCONT)
    for thread in threads:
        thread.join(15)
    check(waiting, [200] * 4)


def test_a_store_that_is_away(place):
    server = start(place, f"127.0.0.1:{free_port()}")
    phone = place.phone(server)
    reply = phone.register("<sip:a@10.0.0.1>")
    check((reply.status, reply.header("P-Registrar-Error")), (500, "usrloc_record_get failed"))
    check(phone.request("OPTIONS", "sip:alice@example.com").status, 404)
