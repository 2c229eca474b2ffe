"""Calls at a steady rate through a database that is killed and comes back: no call is lost that the script did not
give up itself."""
import csv, re, signal, subprocess
from asking import lines
from databases import MariaDb, Postgres
from harness import Failed, check, free_port, until
from topic_cache import Redis
from topic_calls import ROUTE, SCENARIOS, listens

HEAD = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "sqlops.so"
loadmodule "db_mysql.so"
loadmodule "db_postgres.so"
loadmodule "cachedb_local.so"
loadmodule "cachedb_redis.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
# SIPp as called party gives up a call when a request is repeated because the machine is busy.
modparam("tm", "T1_timer", 10000)
modparam("tm", "T2_timer", 10000)
{PARAMS}
"""
# A call goes on whatever the database says; how it went is counted.
COUNT = """
    {ASK}
    if ($rc > 0)
        cache_add("local", "good", 1, 0);
    else
        cache_add("local", "bad", 1, 0);
"""
RATE = 60


class Calls:
    """SIPp calling SIPp through the server until told to end."""

    def __init__(self, place, server, uas, user="bob", called="uas.xml"):
        """`called`: the scenario of the called party; `None`: there is one already."""
        self.stats = place.dir / f"calls{uas}.csv"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if called:
            place.process("sipp", "-nostdin", "-sf", SCENARIOS / called, "-i", "127.0.0.1", "-p", uas, **quiet)
            until("the called party listens", lambda: listens(uas))
        self.caller = place.process(
            "sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", user, "-d", "0",
            "-r", RATE, "-m", 100000, "-trace_stat", "-fd", "1", "-stf", self.stats, "-trace_err", f"127.0.0.1:{server.port}", **quiet)

    def end(self):
        """No new calls; (successful, failed) when those that run are over."""
        self.caller.send_signal(signal.SIGUSR1)
        self.caller.wait(timeout=60)
        with open(self.stats) as file:
            last = list(csv.DictReader(file, delimiter=";"))[-1]
        self.reasons = {k: v for k, v in last.items() if k and k.startswith("Failed") and k.endswith("(C)") and v != "0"}
        return int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])


def killed_under_load(place, database, params, ask, gone, back):
    uas = free_port()
    route = ROUTE.replace("WAIT", COUNT.replace("{ASK}", ask))
    server = place.server(HEAD + route, UAS=uas, PARAMS=params)

    def count(name):
        found = server.mi("cache_fetch", ["local", name])
        return int(found.get("value", 0))
    calls = Calls(place, server, uas)
    until("calls pass", lambda: count("good") > RATE)
    for outage in (1, 2):
        good, bad = count("good"), count("bad")
        database.kill()
        until("calls meet the outage", lambda: count("bad") > bad + RATE)
        database.start()
        until("the database is used again", lambda: count("good") > good + RATE)
        check(lines(server, gone), outage, "lines that it is gone, whatever the number of workers")
        until("it is told that it is back", lambda: lines(server, back) == outage)
    succeeded, failed = calls.end()
    if failed:
        text = "".join(p.read_text(errors="replace") for p in place.dir.glob("*errors.log"))
        # SIPp also notes each retransmission for a call that is over.
        errors = "".join(re.findall(r"(?s)Aborting call.{0,800}", text)[:3])
        raise Failed(f"{failed} of {succeeded + failed} calls lost: {calls.reasons} {errors}")
    check(count("good") + count("bad"), succeeded, "every call was counted once")
    # And the server knows of nothing that still waits.
    check(server.mi("async_list")["Operations"], [])


def test_mariadb_killed_twice_under_load(place):
    database = MariaDb(place)
    database.account()
    params = f'modparam("sqlops", "db_url", "{database.url()}")'
    killed_under_load(place, database, params, 'sql_query_one("select 7", "$var(x)");', "is unreachable", "is reachable again")


def test_postgres_killed_twice_under_load(place):
    database = Postgres(place)
    database.account()
    params = f'modparam("sqlops", "db_url", "{database.url()}")'
    killed_under_load(place, database, params, 'sql_query_one("select 7", "$var(x)");', "is unreachable", "is reachable again")


def test_redis_killed_twice_under_load(place):
    redis = Redis(place)
    params = f'modparam("cachedb_redis", "cachedb_url", "redis:g://127.0.0.1:{redis.port}/")'
    killed_under_load(place, redis, params, 'cache_store("redis:g", "k", "v");', "is unreachable", "is back")
