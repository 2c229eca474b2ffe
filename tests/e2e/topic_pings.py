"""Pings of contacts wherever they live: who is pinged, by whom, and what becomes of those that do not answer."""
import re, time
from harness import check, until
from stores import Redis
from topic_location import CONFIG, TABLE, found

NAT = """
loadmodule "nathelper.so"
modparam("usrloc", "nat_bflag", "NAT")
modparam("nathelper", "natping_interval", 1)
modparam("nathelper", "ping_nated_only", 1)
modparam("nathelper", "sipping_bflag", "SIP_PING")
modparam("nathelper", "remove_on_timeout_bflag", "REMOVE")
modparam("nathelper", "sipping_from", "sip:pinger@example.com")
modparam("nathelper", "ping_threshold", 1)
modparam("nathelper", "max_pings_lost", 2)
"""
PINGING = CONFIG.replace('        save("location");', """        if ($tU != "public") {
            setbflag("NAT");
            setbflag("SIP_PING");
            setbflag("REMOVE");
        }
        $var(tag) = $hdr(X-Tag);
        if ($hdr(X-Tag) != NULL)
            save("location", , , $var(tag));
        else
            save("location");""")
SHARED = PINGING.replace('loadmodule "db_sqlite.so"', 'loadmodule "cachedb_redis.so"').replace(
    'modparam("usrloc", "db_url", "sqlite://{DIR}/db.sqlite")', 'modparam("usrloc", "cachedb_url", "redis:loc://{REDIS}/")')


def start(place, mode, config=PINGING, more="", **names):
    return place.server(config, MODE=mode, TIMER=3600, MORE=NAT + more, **names)


def pinged(phone):
    """Waits for a ping, answers it, and tells from which port it came."""
    ping = phone.receive("OPTIONS ")
    port = int(re.search(r"Via: SIP/2.0/UDP [\d.]+:(\d+)", ping.text)[1])
    keep = [l for l in ping.text.split("\r\n") if re.match(r"(?i)(via|from|call-id|cseq|to)[ \t]*:", l)]
    text = "SIP/2.0 200 OK\r\n" + "\r\n".join(keep) + "\r\nContent-Length: 0\r\n\r\n"
    phone.socket.sendto(text.encode(), ("127.0.0.1", port))
    return port


def quiet(phone):
    """Nothing waits in the phone's socket now."""
    phone.socket.settimeout(0.01)
    try:
        return not phone.socket.recv(65535)
    except TimeoutError:
        return True


def live_and_die(place, server):
    phone, public, silent = place.phone(server), place.phone(server, "public", "127.0.0.3"), place.phone(server, "silent", "127.0.0.4")
    until("it takes registrations", lambda: phone.register().status == 200)
    check((public.register().status, silent.register().status), (200, 200))
    for _ in range(4):
        check(pinged(phone), server.port)
    check(quiet(public), True, "it is not behind NAT")
    silent.receive("OPTIONS ")
    until("who does not answer goes", lambda: found(public, "silent") is None)
    check(found(public, "alice"), f"sip:alice@{phone.address}")


def test_contacts_in_memory(place):
    live_and_die(place, start(place, "single-instance-no-db"))


def test_contacts_written_through(place):
    place.sqlite("db.sqlite", TABLE)
    live_and_die(place, start(place, "single-instance-sql-write-through"))
    until("its row goes too", lambda: sorted(r["username"] for r in place.sqlite("db.sqlite", "select * from location"))
          == ["alice", "public"])


def test_contacts_in_a_database(place):
    place.sqlite("db.sqlite", TABLE)
    live_and_die(place, start(place, "sql-only"))


def test_contacts_in_a_store(place):
    live_and_die(place, start(place, "full-sharing-cachedb-cluster", SHARED, REDIS=Redis(place).url()))


def test_the_server_that_a_phone_registered_at_pings_it(place):
    store = Redis(place)
    one, two = (start(place, "full-sharing-cachedb-cluster", SHARED, REDIS=store.url()) for _ in range(2))
    phone = place.phone(one)
    until("the store is there", lambda: phone.register().status == 200)
    check({pinged(phone) for _ in range(3)}, {one.port})
    phone.server = two
    check(phone.register().status, 200)
    until("the other one pings", lambda: pinged(phone) == two.port)
    check({pinged(phone) for _ in range(3)}, {two.port})


def test_sharing_tags(place):
    more = """
loadmodule "clusterer.so"
modparam("clusterer", "db_mode", 0)
modparam("clusterer", "my_node_id", 1)
modparam("clusterer", "my_node_info", "cluster_id=1, url=bin:127.0.0.1:5566, sip_addr=127.0.0.1")
modparam("clusterer", "sharing_tag", "vip/1=backup")
modparam("usrloc", "location_cluster", 1)
"""
    server = start(place, "single-instance-no-db", more=more)
    phone, other = place.phone(server), place.phone(server, "bob", "127.0.0.3")
    check(phone.register(headers="X-Tag: vip\r\n").status, 200)
    check(other.register().status, 200)
    for _ in range(3):
        pinged(other)
    check(quiet(phone), True, "its tag is not active here")
    check(server.mi("clusterer_shtag_set_active", ["vip/1"]), "OK")
    check(pinged(phone), server.port)


def test_latencies_are_events(place):
    more = 'modparam("nathelper", "sipping_latency_flag", "LATENCY")\nmodparam("usrloc", "latency_event_min_us", 1)'
    server = start(place, "single-instance-no-db", PINGING.replace('setbflag("REMOVE");', 'setbflag("LATENCY");') +
                   'event_route[E_UL_LATENCY_UPDATE] { xlog("L_NOTICE", "LATENCY $param(aor) $param(latency)\\n"); }', more)
    phone = place.phone(server)
    check(phone.register().status, 200)
    pinged(phone)
    line = until("the event", lambda: re.search(r"LATENCY alice@example.com (\d+)", server.log_text()))
    check(int(line[1]) > 0, True)
    shown = server.mi("ul_show_contact", ["location", "alice@example.com"])["Contacts"][0]
    check(shown["Ping-Latency"] > 0, True)
