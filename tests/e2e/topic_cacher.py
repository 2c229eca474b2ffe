"""sql_cacher: tables of MariaDB read as variables, kept in memory and in Redis."""
from asking import Asking, lines, plays_on
from databases import MariaDb
from harness import check, until
from topic_cache import Redis

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
loadmodule "db_mysql.so"
loadmodule "cachedb_local.so"
loadmodule "cachedb_redis.so"
loadmodule "sql_cacher.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sql_cacher", "cache_table",
"id=whole
db_url={DB}
cachedb_url={CACHE}
table=gateways
key=id
key_type=int
columns=host code big
on_demand=0")
modparam("sql_cacher", "cache_table", "id=asked
db_url={DB}
cachedb_url={CACHE}
table=subs
key=name
on_demand=1
expire={EXPIRE}")
{PARAMS}
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    $var(k) = $hdr(X-Key);
    switch ($hdr(X-Do)) {
    case "whole":
        append_to_reply("X-Value: $sql_cached_value(whole:host:$var(k)) $sql_cached_value(whole:code:$var(k))\\r\\n");
        break;
    case "big":
        append_to_reply("X-Value: $sql_cached_value(whole:big:$var(k))\\r\\n");
        break;
    case "asked":
        if ($sql_cached_value(asked:credit:$var(k)) > 100) {
            append_to_reply("X-Value: rich\\r\\n");
        } else {
            append_to_reply("X-Value: $sql_cached_value(asked:credit:$var(k))\\r\\n");
        }
        break;
    case "dump":
        $var(n) = sql_cache_dump("whole", "host,code", "$avp(h),$avp(c)");
        append_to_reply("X-Value: $var(n) $(avp(h)[*]) / $(avp(c)[*])\\r\\n");
        break;
    }
    send_reply(200, "Done");
}
"""


def setup(place):
    database = MariaDb(place)
    database.account()
    database.sql("create table gateways (id int primary key, host varchar(50), code varchar(10), big bigint);"
                 "insert into gateways values (1, '', '408', 7), (2, 'gw1', '404', 4294967296), (3, 'gw2', null, null);"
                 "create table subs (name varchar(50) primary key, credit int);"
                 "insert into subs values ('alice', 50), ('bob', 500);", "fermata")
    database.sql("set global general_log_file='general.log'; set global general_log=on")
    return database


def queries(database, text):
    return (database.home / "data" / "general.log").read_text().count(text)


def start(place, database, cache, params="", workers=2, expire=3600):
    server = place.server(CONFIG, DB=database.url(), CACHE=cache, PARAMS=params, WORKERS=workers, EXPIRE=expire)
    until("the table is loaded", lambda: lines(server, "3 rows are loaded") or ask(place, server, "dump") != "-2 <null> / <null>")
    return server


def ask(place, server, what, key="-", number=[1]):
    number[0] = number[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number[0] + 2}")
    reply = phone.request("MESSAGE", "sip:b@x", headers=f"X-Do: {what}\r\nX-Key: {key}\r\n")
    check(reply.status, 200, what)
    return reply.header("X-Value")


def caches(place):
    redis = Redis(place)
    yield "local://"
    yield f"redis:g://127.0.0.1:{redis.port}/"


def test_whole_tables(place):
    database = setup(place)
    for cache in caches(place):
        server = start(place, database, cache)
        check(ask(place, server, "whole", "1"), "408", cache)
        check(ask(place, server, "whole", "2"), "gw1 404", cache)
        check(ask(place, server, "whole", "3"), "gw2 <null>", cache)
        check(ask(place, server, "whole", "9"), "<null> <null>", cache)
        check(ask(place, server, "big", "2"), "4294967296", cache)
        check(ask(place, server, "dump"), "3 , gw1, gw2 / 408, 404, <null>", cache)
        before = queries(database, "gateways")
        check(Asking(lambda n: int(ask(place, server, "whole", "2") == "gw1 404"), range(20)).codes(), [1] * 20)
        check(queries(database, "gateways"), before, "no query")
        # Changes are seen after a reload, of a row or of all; what is gone goes.
        database.sql("update gateways set host='new' where id=2; delete from gateways where id=3", "fermata")
        check(ask(place, server, "whole", "2"), "gw1 404")
        check(server.mi("sql_cacher:reload", ["whole", "2"]), "OK")
        check(ask(place, server, "whole", "2"), "new 404")
        check(ask(place, server, "whole", "3"), "gw2 <null>")
        check(server.mi("sql_cacher_reload", {"id": "whole"}), "OK")
        check(ask(place, server, "whole", "3"), "<null> <null>")
        check(server.mi("sql_cacher_reload", {"id": "none"})["error"]["code"], 404)
        database.sql("update gateways set host='gw1' where id=2; insert into gateways values (3, 'gw2', null, null)", "fermata")
        server.stop()


def test_rows_as_they_are_asked_for(place):
    database = setup(place)
    for cache in caches(place):
        server = start(place, database, cache)
        before = queries(database, "subs")
        check(ask(place, server, "asked", "alice"), "50", cache)
        check(ask(place, server, "asked", "alice"), "50", cache)
        check(ask(place, server, "asked", "bob"), "rich", cache)
        check(queries(database, "subs") - before, 2, "one query a row")
        # Many ask for one row at the same time: at most one query on each worker.
        database.sql("insert into subs values ('carol', 7) on duplicate key update credit=7", "fermata")
        before = queries(database, "where name='carol'") + queries(database, "where `name`='carol'")
        check(Asking(lambda n: int(ask(place, server, "asked", "carol")), range(30)).codes(), [7] * 30)
        # One that does not exist is asked for each time, so that it is found when it does.
        check(ask(place, server, "asked", "dave"), "<null>")
        database.sql("insert into subs values ('dave', 3)", "fermata")
        check(ask(place, server, "asked", "dave"), "3")
        database.sql("update subs set credit=60", "fermata")
        check(ask(place, server, "asked", "alice"), "50")
        check(server.mi("sql_cacher_reload", ["asked", "alice"]), "OK")
        check(ask(place, server, "asked", "alice"), "60")
        check(ask(place, server, "asked", "dave"), "3")
        check(server.mi("sql_cacher_reload", ["asked"]), "OK")
        check(ask(place, server, "asked", "dave"), "60")
        database.sql("delete from subs where name='dave'; update subs set credit=50 where name='alice';"
                     "update subs set credit=500 where name='bob'; delete from subs where name='carol'", "fermata")
        server.stop()


def test_without_the_database(place):
    database = setup(place)
    server = start(place, database, "local://", 'modparam("db_mysql", "timeout_interval", 1)')
    check(ask(place, server, "asked", "alice"), "50")
    database.pause()
    check(ask(place, server, "asked", "alice"), "50", "what is kept is there")
    check(ask(place, server, "whole", "2"), "gw1 404")
    asking = Asking(lambda n: int(ask(place, server, "asked", "bob") == "<null>"), range(5))
    plays_on(place, server, asking)
    check(asking.codes(), [1] * 5)
    database.go_on()
    until("the database is used again", lambda: ask(place, server, "asked", "bob") == "rich")
    # A server that starts without its database comes into its own by itself.
    server.stop()
    database.kill()
    server = place.server(CONFIG, DB=database.url(), CACHE="local://", PARAMS="", WORKERS=1, EXPIRE=10)
    check(ask(place, server, "whole", "2"), "<null> <null>")
    database.start()
    until("the table is loaded", lambda: ask(place, server, "dump").startswith("3 "))
    check(ask(place, server, "whole", "2"), "gw1 404")
