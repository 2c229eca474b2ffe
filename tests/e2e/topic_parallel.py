"""`parallel`: a script asks a database and a web server at the same time, and goes on when both are there, or the
first, or its time is up."""
import time
from asking import Asking, plays_on
from databases import MariaDb
from harness import check, until
from topic_http import Nginx

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
loadmodule "sqlops.so"
loadmodule "db_mysql.so"
loadmodule "rest_client.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sqlops", "db_url", "{DB}")
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    $var(url) = $hdr(X-Url);
    switch ($hdr(X-How)) {
    case "all":
        parallel {
            $var(db) = sql_query_one("$hdr(X-Query)", "$var(row)");
            $var(web) = rest_get("$var(url)", $var(page));
        }
        route(done);
    case "any":
        parallel any {
            $var(db) = sql_query_one("$hdr(X-Query)", "$var(row)");
            $var(web) = rest_get("$var(url)", $var(page));
        }
        route(done);
    case "limit":
        parallel (1) {
            $var(db) = sql_query_one("$hdr(X-Query)", "$var(row)");
            $var(web) = rest_get("$var(url)", $var(page));
        }
        route(done);
    }
}
route[done] {
    append_to_reply("X-Result: $rc $var(db) $var(row) $var(web) $var(page)\\r\\n");
    t_reply(200, "Done");
    exit;
}
"""


def setup(place):
    database, web = MariaDb(place), Nginx(place)
    database.account()
    return database, web, place.server(CONFIG, DB=database.url())


def ask(place, server, how, query, url, number=[1]):
    number[0] = number[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number[0] + 2}")
    begin = time.monotonic()
    reply = phone.request("MESSAGE", "sip:b@x", headers=f"X-How: {how}\r\nX-Query: {query}\r\nX-Url: {url}\r\n")
    return reply.header("X-Result"), time.monotonic() - begin


def test_both_at_the_same_time(place):
    database, web, server = setup(place)
    # Each alone takes 0.2 s and more; together they take less than both, which even a busy machine shows in the
    # best of some.
    took = []
    for _ in range(5):
        result, seconds = ask(place, server, "all", "select sleep(0.2)", web.at("/wait"))
        check(result, "1 1 0 1 done")
        took.append(seconds)
    check(min(took) < 0.39, True, f"they wait one after the other: {took}")
    # One fails: the whole does, the other one's output is there.
    check(ask(place, server, "all", "select nothing", web.at("/hello"))[0], "-1 -1 <null> 1 hi")
    check(ask(place, server, "all", "select 7", "http://127.0.0.1:1/")[0], "-1 1 7 -1 <null>")


def test_the_first_is_enough(place):
    database, web, server = setup(place)
    asking = Asking(lambda n: int(ask(place, server, "any", "select sleep(30)", web.at("/wait"))[0] == "2 <null> <null> 1 done"), range(8))
    plays_on(place, server, asking)
    check(asking.codes(), [1] * 8)
    # The others are dropped, on the server too.
    running = "select count(*) from information_schema.processlist where info like 'select sleep%'"
    until("the queries have ended", lambda: int(database.sql(running)) == 0)
    check(ask(place, server, "any", "select 7", web.at("/slow"))[0], "1 1 7 <null> <null>")
    check(server.mi("async_list")["Operations"], [])


def test_the_limit_ends_both(place):
    database, web, server = setup(place)
    asking = Asking(lambda n: int(ask(place, server, "limit", "select sleep(30)", web.at("/slow"))[0] == "-1 -1 <null> -1 <null>"), [1])
    shown = until("it shows what it waits for", lambda: len(server.mi("async_list")["Operations"]) == 3 and server.mi("async_list")["Operations"])
    check(sorted(o["Operation"] for o in shown), ["parallel", "rest_get", "sql_query_one"])
    check(len({o["Call-ID"] for o in shown}), 1)
    lines = {o["Operation"]: int(o["Line"].rsplit(":", 1)[1]) for o in shown}
    text = server.config.read_text().splitlines()
    check("parallel (1)" in text[lines["parallel"] - 1] or "sql_query" in text[lines["parallel"] - 1], True, shown)
    plays_on(place, server, asking)
    check(asking.codes(), [1])
    check(ask(place, server, "limit", "select 7", web.at("/hello"))[0], "1 1 7 1 hi")
