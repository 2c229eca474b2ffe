"""Key-value stores from scripts: a Redis server, a Cluster of three nodes, Sentinel, TLS, and what happens when
they fail."""
import json, subprocess
from asking import Asking, lines, plays_on, said_once
from databases import MariaDb, Server, certificates, find, full, quiet, silent
from harness import Failed, check, free_port, until

# OPTIONS is answered at once; MESSAGE does what its headers ask for, in the way they ask for.
CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
{PARAMS}
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    $var(k) = $hdr(X-Key);
    $avp(rc) = "none";
    switch ($hdr(X-Do)) {
    case "store":
        cache_store("{STORE}", "$var(k)", "$hdr(X-Value)");
        route(done);
    case "fetch":
        cache_fetch("{STORE}", "$var(k)", $avp(v));
        route(done);
    case "add":
        cache_add("{STORE}", "$var(k)", 1, 0, $avp(v));
        route(done);
    case "raw":
        cache_raw_query("{STORE}", "$hdr(X-Value)", "$avp(v)");
        route(done);
    case "async":
        async(cache_store("{STORE}", "$var(k)", "$hdr(X-Value)"), stored);
    case "async-raw":
        async(cache_raw_query("{STORE}", "$hdr(X-Value)", "$avp(v)"), done);
    case "launch":
        t_newtran();
        launch(cache_add("{STORE}", "$var(k)", 5, 0, $avp(v)), done, "launched");
        exit;
    }
}
route[stored] {
    $avp(rc) = $rc;
    async(cache_fetch("{STORE}", "$var(k)", $avp(v)), fetched);
}
route[fetched] {
    $avp(rc) = $avp(rc) + $rc;
    async(cache_counter_fetch("{STORE}", "$var(k)", $avp(n)), counted);
}
route[counted] {
    $avp(rc) = $avp(rc) + $rc;
    async(cache_remove("{STORE}", "$var(k)"), removed);
}
route[removed] {
    $avp(rc) = $avp(rc) + $rc;
    async(cache_sub("{STORE}", "$var(k)", 3, 0, $avp(n)), done);
}
route[done] {
    append_to_reply("X-Rc: $rc\\r\\nX-Values: $(avp(v)[*])\\r\\nX-All: $avp(rc) $avp(n) $param(1)\\r\\n");
    t_reply(200, "Done");
    exit;
}
"""


def start(place, store, params, **more):
    return place.server(CONFIG, STORE=store, PARAMS=params, **more)


def redis_at(place, url, more="", **names):
    params = f'loadmodule "tls_mgm.so"\nloadmodule "cachedb_redis.so"\nmodparam("cachedb_redis", "cachedb_url", "{url}")\n{more}'
    return start(place, "redis:g", params, **names)


def ask(place, server, what, key="k", value="-", number=[1]):
    """(return code, values)"""
    number[0] = number[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number[0] + 2}")
    reply = phone.request("MESSAGE", "sip:b@x", headers=f"X-Do: {what}\r\nX-Key: {key}\r\nX-Value: {value}\r\n")
    check(reply.status, 200, what)
    return int(reply.header("X-Rc")), reply.header("X-Values"), reply.header("X-All")


def asking_of(place, server, what, keys):
    return Asking(lambda key: ask(place, server, what, key), keys)


class Redis(Server):
    name = "redis"
    count = 0

    def __init__(self, place, *options):
        self.options = options
        Redis.count += 1
        self.name = f"redis{Redis.count}"
        super().__init__(place)

    def install(self):
        pass

    def command(self):
        return [find("redis-server"), "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", self.home,
                *self.options]

    def cli(self, *words):
        return quiet(find("redis-cli"), "-p", self.port, *words, timeout=20).strip()

    def answers(self):
        try:
            return self.cli("ping") in ("PONG", "NOAUTH Authentication required.")
        except Failed:
            return False


def test_every_function_in_every_way(place):
    redis = Redis(place)
    database = MariaDb(place)
    database.account()
    quiet(place.program, "db", "create", database.url(), "cachedb_sql")
    for store, params in (
            ("redis:g", f'loadmodule "cachedb_redis.so"\nmodparam("cachedb_redis", "cachedb_url", "redis:g://127.0.0.1:{redis.port}/")'),
            ("sql:g-mysql", f'loadmodule "db_mysql.so"\nloadmodule "cachedb_sql.so"\nmodparam("cachedb_sql", "cachedb_url", "sql:g-{database.url()}")'),
            ("local", 'loadmodule "cachedb_local.so"')):
        server = start(place, store, params)
        check(ask(place, server, "store", "a", "one")[0], 1, store)
        check(ask(place, server, "fetch", "a")[:2], (1, "one"), store)
        check(ask(place, server, "fetch", "none")[0], -2, store)
        check(ask(place, server, "add", "n")[:2], (1, "1"), store)
        # Store, fetch, count, remove, each in its own resume route; then a counter below 0. A word is no number,
        # but a table keeps values and counters beside each other.
        sum = 4 if store.startswith("sql") else 0
        check(ask(place, server, "async", "b", "word"), (1, "word", f"{sum} -3 <null>"), store)
        # The report route begins with no AVPs of the script that launched, or with a copy when there was nothing to wait for.
        rc = "none" if store == "local" else "<null>"
        check(ask(place, server, "launch", "n"), (1, "6", f"{rc} <null> launched"), store)
        server.stop()


def test_killed_under_load_and_restarted(place):
    redis = Redis(place)
    server = redis_at(place, f"redis:g://127.0.0.1:{redis.port}/")
    check(ask(place, server, "store", "a", "one")[0], 1)
    asking = asking_of(place, server, "add", ["n"] * 80)
    until("some are done", lambda: len(asking.found) >= 5)
    redis.kill()
    plays_on(place, server)
    codes = asking.codes()
    check((len(codes), set(codes) <= {1, -1}), (80, True), "every script went on")
    check(ask(place, server, "fetch", "a")[0], -1)
    said_once(server, "is unreachable")
    redis.start()
    until("it is used again", lambda: ask(place, server, "store", "a", "two")[0] == 1)
    said_once(server, "is back")
    # A restart between two operations costs none that may be sent twice.
    redis.kill()
    redis.start()
    check(ask(place, server, "store", "a", "three")[0], 1)
    check(ask(place, server, "fetch", "a")[:2], (1, "three"))


def test_nobody_answers(place):
    limits = 'modparam("cachedb_redis", "connect_timeout", 500)\nmodparam("cachedb_redis", "query_timeout", 500)'
    for make in (silent, full):
        server = redis_at(place, f"redis:g://127.0.0.1:{make(place)}/", limits)
        asking = asking_of(place, server, "fetch", ["k"] * 5)
        plays_on(place, server)
        check(asking.codes(), [-1] * 5)
        said_once(server, "is unreachable")
        stats = server.mi("async_stats", ["cache_fetch"])["Operations"]["cache_fetch"]
        check((stats["Done"], stats["Failed"], stats["In flight"]), (5, 5, 0))
        server.stop()
    redis = Redis(place)
    server = redis_at(place, f"redis:g://127.0.0.1:{redis.port}/", limits)
    check(ask(place, server, "store", "a", "one")[0], 1)
    redis.pause()
    asking = asking_of(place, server, "fetch", ["a"] * 5)
    plays_on(place, server, asking)
    check(asking.codes(), [-1] * 5)
    redis.go_on()
    until("it is used again", lambda: ask(place, server, "fetch", "a")[:2] == (1, "one"))


def test_login_and_raw_commands(place):
    redis = Redis(place, "--requirepass", "p@ss")
    server = redis_at(place, f"redis:g://:wrong@127.0.0.1:{redis.port}/")
    check(ask(place, server, "fetch", "a")[0], -1)
    said_once(server, "is unreachable")
    check("wrong" in server.log_text(), False, "the password is in the log")
    server.stop()
    server = redis_at(place, f"redis:g://:p@ss@127.0.0.1:{redis.port}/3")
    for raw, expected in (("HSET h one 1 two 2", 1), ("SADD s a", 1), ("NOSUCH thing", -1), ("GET nothing", -2)):
        check(ask(place, server, "raw", value=raw)[0], expected, raw)
    check(ask(place, server, "raw", value="HGETALL h")[:2], (1, "one, 1, two, 2"))
    check(ask(place, server, "async-raw", value="HGET h two")[:2], (1, "2"))
    check(ask(place, server, "raw", value="SET big x EX 100")[0], 1)
    node = server.mi("cachedb_redis:redis_cluster_info", ["g"])[0]
    check((node["group"], node["mode"], node["nodes"][0]["port"], node["nodes"][0]["status"]),
          ("g", "single", redis.port, "connected"))
    check("p@ss" in json.dumps(node), False, "the password is shown")
    check(node["nodes"][0]["queries"] >= 4, True)
    pinged = server.mi("redis_ping_nodes")[0]["nodes"][0]
    check((pinged["status"], pinged["latency_us"] > 0), ("reachable", True))
    check(server.mi("redis_cluster_refresh"), [{"group": "g", "status": "skipped (not cluster mode)"}])
    check(server.mi("redis_ping_nodes", {"group": "other"}), [])
    redis.kill()
    until("it is gone", lambda: server.mi("redis_ping_nodes")[0]["nodes"][0]["status"] == "disconnected")


def cluster(place, nodes=3):
    servers = [Redis(place, "--cluster-enabled", "yes", "--cluster-config-file", f"nodes{n}", "--cluster-node-timeout",
                     "2000", "--cluster-require-full-coverage", "no") for n in range(nodes)]
    quiet(find("redis-cli"), "--cluster", "create", *[f"127.0.0.1:{s.port}" for s in servers], "--cluster-yes", timeout=60)
    until("the cluster is complete", lambda: all("cluster_state:ok" in s.cli("cluster", "info") for s in servers))
    return servers


def slots_of(server, key):
    """The node that has the key."""
    slot = int(server.cli("cluster", "keyslot", key))
    for line in server.cli("cluster", "nodes").splitlines():
        for part in line.split()[8:]:
            first, _, last = part.partition("-")
            if first.isdigit() and int(first) <= slot <= int(last or first):
                return int(line.split()[1].split(":")[1].split("@")[0])
    raise Failed(f"nobody has slot {slot}")


def test_cluster(place):
    servers = cluster(place)
    server = redis_at(place, f"redis:g://127.0.0.1:{servers[0].port},127.0.0.1:{servers[1].port}/",
                      'modparam("cachedb_redis", "query_timeout", 1000)')
    keys = [f"key{n}" for n in range(30)]
    check(asking_of(place, server, "store", keys).codes(), [1] * 30)
    sizes = [int(s.cli("dbsize")) for s in servers]
    check((sum(sizes), min(sizes) > 0), (30, True), "every node has some")
    check(asking_of(place, server, "fetch", keys).codes(), [1] * 30)
    check(ask(place, server, "raw", value="GET key7")[0], 1)
    info = server.mi("cachedb_redis:redis_cluster_info")[0]
    check((info["mode"], info["total_slots_mapped"]), ("cluster", 16384))
    check(sorted(n["port"] for n in info["nodes"]), sorted(s.port for s in servers))
    check({n["status"] for n in info["nodes"]}, {"connected"})
    check(server.mi("redis_cluster_refresh"), [{"group": "g", "status": "ok"}])
    check({n["status"] for n in server.mi("redis_ping_nodes")[0]["nodes"]}, {"reachable"})
    # A slot moves to another node: the client is sent there.
    key = keys[0]
    source = next(s for s in servers if s.port == slots_of(servers[0], key))
    target = next(s for s in servers if s.port != source.port)
    slot, value = source.cli("cluster", "keyslot", key), source.cli("get", key)
    for s, role, other in ((target, "importing", source), (source, "migrating", target)):
        s.cli("cluster", "setslot", slot, role, other.cli("cluster", "myid"))
    source.cli("migrate", "127.0.0.1", target.port, key, "0", "5000")
    check(ask(place, server, "fetch", key)[:2], (1, value), "while it moves")
    for s in servers:
        s.cli("cluster", "setslot", slot, "node", target.cli("cluster", "myid"))
    check(ask(place, server, "fetch", key)[:2], (1, value), "after it moved")
    # One node dies: the others' keys stay there, and it comes back.
    dead = servers[2]
    mine = [k for k in keys if slots_of(servers[0], k) == dead.port]
    others = [k for k in keys if k not in mine]
    dead.kill()
    asking = asking_of(place, server, "fetch", mine[:3])
    plays_on(place, server)
    check(set(asking.codes()), {-1})
    until("the others answer", lambda: set(asking_of(place, server, "fetch", others[:6]).codes()) == {1})
    dead.start()
    until("it is used again", lambda: set(asking_of(place, server, "store", mine[:3]).codes()) == {1})


def test_sentinel_follows_the_master(place):
    master = Redis(place)
    replica = Redis(place, "--replicaof", f"127.0.0.1 {master.port}")
    until("the replica is in step", lambda: "master_link_status:up" in replica.cli("info", "replication"))
    conf = place.dir / "sentinel.conf"
    conf.write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds main 500\n"
                    "sentinel failover-timeout main 5000\n")
    port = free_port()
    place.process(find("redis-server"), conf, "--sentinel", "--port", port, "--bind", "127.0.0.1", stdout=subprocess.DEVNULL)
    told = lambda: quiet(find("redis-cli"), "-p", port, "sentinel", "get-master-addr-by-name", "main").split()
    sees = lambda: "slaves=1" in quiet(find("redis-cli"), "-p", port, "info", "sentinel")

    def knows():
        try:
            return sees()
        except Failed:
            return False
    until("the sentinel knows both", knows)
    server = redis_at(place, f"redis:g://127.0.0.1:{port}/?sentinel=main")
    check(ask(place, server, "store", "a", "one")[0], 1)
    until("it is copied", lambda: replica.cli("get", "a") == "one")
    master.kill()
    until("the sentinel has chosen", lambda: told()[1] == str(replica.port), 60)
    until("the new master is used", lambda: ask(place, server, "store", "a", "two")[0] == 1)
    check(replica.cli("get", "a"), "two")
    check(lines(server, "is unreachable") <= 1, True, "said at most once")


def test_tls_and_a_refused_certificate(place):
    ca, cert, key = certificates(place.dir, "good")
    other, _, _ = certificates(place.dir, "other")
    port = free_port()
    place.process(find("redis-server"), "--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--save", "",
                  "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "yes",
                  stdout=subprocess.DEVNULL)
    ping = lambda: quiet(find("redis-cli"), "--tls", "--cacert", ca, "--cert", cert, "--key", key, "-p", port, "ping")

    def answers():
        try:
            return ping().strip() == "PONG"
        except Failed:
            return False
    until("redis answers", answers)
    domain = lambda ca: f"""modparam("tls_mgm", "client_domain", "dom")
        modparam("tls_mgm", "ca_list", "[dom]{ca}")
        modparam("tls_mgm", "certificate", "[dom]{cert}")
        modparam("tls_mgm", "private_key", "[dom]{key}")
        modparam("cachedb_redis", "use_tls", 1)"""
    url = f"redis:g://127.0.0.1:{port}/?tls_domain=dom"
    server = redis_at(place, url, domain(ca))
    check(ask(place, server, "store", "a", "one")[0], 1)
    check(ask(place, server, "fetch", "a")[:2], (1, "one"))
    server.stop()
    server = redis_at(place, url, domain(other))
    check(ask(place, server, "fetch", "a")[0], -1)
    said_once(server, "is unreachable.*ertificate")


def test_local_collections_survive_a_restart(place):
    params = """loadmodule "cachedb_local.so"
        restart_persistency_cache_file = "{DIR}/kept"
        modparam("cachedb_local", "cachedb_url", "local://")
        modparam("cachedb_local", "cachedb_url", "local:keep:///kept")
        modparam("cachedb_local", "cache_collections", "kept = 4; other")
        modparam("cachedb_local", "enable_restart_persistency", 1)""".replace("{DIR}", str(place.dir))
    server = start(place, "local:keep", params)
    check(ask(place, server, "store", "a", "one")[0], 1)
    check(ask(place, server, "fetch", "a")[:2], (1, "one"))
    found = server.mi("cache_fetch_chunk", {"glob": "*", "collection": "kept"})
    check(found["keys"], [{"name": "a", "value": "one"}])
    check(server.mi("cache_fetch_chunk", {"glob": "*"})["keys"], [], "the default collection is another one")
    server.stop()
    server.start()
    check(ask(place, server, "fetch", "a")[:2], (1, "one"), "after the restart")
    check(server.mi("cache_remove_chunk", {"glob": "a", "collection": "kept"}), "OK")
    check(ask(place, server, "fetch", "a")[0], -2)
    server.stop()
    server.start()
    check(ask(place, server, "fetch", "a")[0], -2)
