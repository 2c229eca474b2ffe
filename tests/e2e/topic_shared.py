"""Several servers share their contacts through a key-value store; one of them dies."""
import shutil, threading
from harness import Failed, check, free_port, until
from topic_location import CONFIG, found

SHARED = CONFIG.replace('loadmodule "db_sqlite.so"', 'loadmodule "cachedb_redis.so"').replace(
    'modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")',
    'modparam("usrloc", "cachedb_url", "redis:loc://127.0.0.1:{REDIS}/")')


def redis(place):
    program = shutil.which("redis-server")
    if not program:
        raise Failed("redis-server is not installed")
    port = free_port()
    place.process(program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                  "--dir", place.dir, stdout=open(place.dir / "redis.log", "w"))
    return port


def start(place, port):
    return place.server(SHARED, MODE="full-sharing-cachedb-cluster", TIMER=60, MORE="", REDIS=port)


def test_two_servers_and_one_dies(place):
    port = redis(place)
    one, two = start(place, port), start(place, port)
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
    # Its phone comes to the one that lives, which knows its registration and ends it.
    check(bob.register("<sip:a@10.0.0.1>", user="alice", expires=0, call_id=alice.call_id).status, 200)
    check(found(bob, "alice"), "sip:a2@10.0.0.3")
    one.start()
    check(found(alice, "alice"), "sip:a2@10.0.0.3", "after it came back")


def test_servers_that_change_one_address_at_once(place):
    port = redis(place)
    servers = [start(place, port), start(place, port)]
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


def test_a_store_that_is_away(place):
    server = start(place, free_port())
    phone = place.phone(server)
    reply = phone.register("<sip:a@10.0.0.1>")
    check((reply.status, reply.header("P-Registrar-Error")), (500, "usrloc_record_get failed"))
    check(phone.request("OPTIONS", "sip:alice@example.com").status, 404)
