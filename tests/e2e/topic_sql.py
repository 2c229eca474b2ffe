"""SQL from scripts against real MariaDB and PostgreSQL, and what happens when they fail."""
import pathlib, re, subprocess
from asking import Asking, lines, plays_on, said_once
from databases import ROOT, MariaDb, Postgres, certificates, full, silent
from harness import check, run, until

# OPTIONS is answered at once; MESSAGE runs the query in X-Query and says what came of it.
CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
{GLOBALS}
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "sqlops.so"
loadmodule "db_mysql.so"
loadmodule "db_postgres.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sqlops", "db_url", "{URL}")
{PARAMS}
route {
    if (is_method("OPTIONS")) {
        sl_send_reply(200, "Here");
        exit;
    }
    if ($hdr(X-Async) != NULL) {
        async(sql_query("$hdr(X-Query)", "$avp(v)"), done, 1);
    }
    sql_query("$hdr(X-Query)", "$avp(v)");
    route(done);
}
route[done] {
    append_to_reply("X-Rc: $rc\\r\\n");
    append_to_reply("X-Length: $(avp(v){s.len})\\r\\n");
    if ($(avp(v){s.len}) < 1000) {
        append_to_reply("X-Values: $(avp(v)[*])\\r\\n");
    }
    t_reply(200, "Done");
    exit;
}
"""


def start(place, url, params="", globals=""):
    return place.server(CONFIG, URL=url, PARAMS=params, GLOBALS=globals)


def ask(place, server, query, headers="", number=[1]):
    """Runs a query through the script: its return code and the values, or their length."""
    number[0] = number[0] % 250 + 1
    phone = place.phone(server, ip=f"127.0.0.{number[0] + 2}")
    reply = phone.request("MESSAGE", "sip:bob@example.com", headers=f"X-Query: {query}\r\n{headers}")
    check(reply.status, 200, query)
    values = reply.header("X-Values")
    length = reply.header("X-Length")
    return int(reply.header("X-Rc")), None if length == "<null>" else values or int(length)


def asking_of(place, server, queries, headers=""):
    """Queries that run at the same time, each from a phone of its own."""
    return Asking(lambda query: ask(place, server, query, headers), queries)


def reaches(place, server, query="select 7"):
    """The server is back, by itself."""
    until("the database is used again", lambda: ask(place, server, query)[0] == 1)


def both(place):
    for kind in (MariaDb, Postgres):
        database = kind(place)
        database.account()
        yield database


def test_values_and_return_codes(place):
    for database in both(place):
        server = start(place, database.url())
        check(ask(place, server, "create table t (a int, b varchar(50))"), (-2, None))
        check(ask(place, server, "insert into t values (1, 'one'), (2, 'two'), (3, null)"), (-2, None))
        check(ask(place, server, "select b from t order by a"), (1, "one, two, <null>"))
        check(ask(place, server, "select b from t where a = 9"), (-2, None))
        check(ask(place, server, "select nonsense from t"), (-1, None))
        said_once(server, "ERROR.*nonsense")
        check(ask(place, server, "select 4294967296 * 2"), (1, "8589934592"))
        server.stop()


def test_ten_megabytes_do_not_hold_others_up(place):
    for database in both(place):
        server = start(place, database.url())
        asking = asking_of(place, server, ["select repeat('x', 10485760)"] * 3)
        plays_on(place, server)
        check(asking.codes(), [1, 1, 1])
        check(ask(place, server, "select repeat('x', 10485760)"), (1, 10485760))
        server.stop()


def test_killed_under_load_and_restarted(place):
    for database in both(place):
        server = start(place, database.url(), globals="db_max_async_connections = 8")
        slow = "select sleep(0.2)" if database.name == "mariadb" else "select pg_sleep(0.2)"
        check(ask(place, server, slow)[0], 1)
        asking = asking_of(place, server, [slow] * 60)
        # All 60 are on their way when it goes.
        until("queries run", lambda: len(asking.found) >= 8)
        database.kill()
        plays_on(place, server)
        codes = asking.codes()
        check(len(codes), 60, "every script went on")
        check(set(codes) <= {1, -1}, True, "documented return codes")
        check(ask(place, server, "select 7"), (-1, None))
        said_once(server, "is unreachable")
        database.start()
        reaches(place, server)
        said_once(server, "is reachable again")
        # A restart between two queries costs no query that only reads.
        database.kill()
        database.start()
        reaches(place, server, slow)
        server.stop()


def test_paused_server_ends_with_the_deadline(place):
    for database in both(place):
        limit = "timeout_interval" if database.name == "mariadb" else "timeout"
        server = start(place, database.url(), f'modparam("db_{database.scheme}", "{limit}", 1)',
                       globals="db_max_async_connections = 4")
        check(ask(place, server, "select 7"), (1, "7"))
        database.pause()
        asking = asking_of(place, server, ["select 7"] * 10, "X-Async: yes\r\n")
        plays_on(place, server, asking)
        check(asking.codes(), [-1] * 10)
        until("it is found out", lambda: lines(server, "is unreachable") == 1)
        check(ask(place, server, "select 7"), (-1, None))
        database.go_on()
        reaches(place, server)
        server.stop()


def refuses(place, server, pattern):
    asking = asking_of(place, server, ["select 7"] * 5)
    plays_on(place, server)
    check(asking.codes(), [-1] * 5)
    said_once(server, pattern)


def test_nobody_answers(place):
    for make in (silent, full):
        port = make(place)
        for scheme, limit in (("mysql", "timeout_interval"), ("postgres", "timeout")):
            server = start(place, f"{scheme}://u:p@127.0.0.1:{port}/d", f'modparam("db_{scheme}", "{limit}", 1)')
            refuses(place, server, "is unreachable: no answer within 1 s")
            server.stop()


def test_nobody_listens(place):
    for scheme in ("mysql", "postgres"):
        server = start(place, f"{scheme}://u:p@127.0.0.1:1/d")
        refuses(place, server, "is unreachable.*refused")
        server.stop()


def test_wrong_password(place):
    for database in both(place):
        server = start(place, database.url(password="wrong"))
        refuses(place, server, "is unreachable.*(Access denied|password authentication failed)")
        check("wrong@" in server.log_text(), False, "the password is in the log")
        server.stop()


def test_few_connections_and_a_short_queue(place):
    for database in both(place):
        slow = "select sleep(0.1)" if database.name == "mariadb" else "select pg_sleep(0.1)"
        server = start(place, database.url(), globals="db_max_async_connections = 2")
        asking = asking_of(place, server, [slow] * 20)
        plays_on(place, server, asking)
        check(asking.codes(), [1] * 20, "they queue")
        server.stop()
        server = start(place, database.url(), globals="db_max_async_connections = 1\ndb_max_queue = 3")
        check(ask(place, server, "select 7"), (1, "7"))
        codes = asking_of(place, server, [slow] * 12).codes()
        refused = codes.count(-1)
        check(codes, [-1] * refused + [1] * (12 - refused))
        check(refused > 0, True, "some find the queue full")
        check(int(server.mi("get_statistics", {"statistics": ["db_queue_full"]})["db:db_queue_full"]), refused)
        server.stop()


def test_tls_and_a_refused_certificate(place):
    ca, cert, key = certificates(place.dir, "good")
    other, _, _ = certificates(place.dir, "other")
    mariadb = MariaDb(place, f"--ssl-cert={cert}", f"--ssl-key={key}", f"--ssl-ca={ca}")
    mine = place.dir / "postgres-key.pem"
    mine.write_bytes(pathlib.Path(key).read_bytes())
    mine.chmod(0o640)
    if ROOT:
        run("chown", "root:postgres", mine)
    place.dir.chmod(0o755)
    postgres = Postgres(place, "-c", "ssl=on", "-c", f"ssl_cert_file={cert}", "-c", f"ssl_key_file={mine}")
    for database, query in ((mariadb, "show status like 'Ssl_version'"),
                            (postgres, "select version, ssl from pg_stat_ssl where pid = pg_backend_pid()")):
        database.account()
        for params in (f"?sslmode=verify-full&sslrootcert={ca}", "?sslmode=require", f"?sslrootcert={ca}"):
            server = start(place, database.url(params=params))
            code, _ = ask(place, server, query)
            check(code, 1, params)
            server.stop()
        server = start(place, database.url(params=f"?sslmode=verify-ca&sslrootcert={other}"))
        refuses(place, server, "is unreachable.*certificate")
        server.stop()
        # The same through a domain of tls_mgm.
        tls = f"""loadmodule "tls_mgm.so"
            modparam("tls_mgm", "client_domain", "db")
            modparam("tls_mgm", "ca_list", "[db]{ca}")
            modparam("db_{database.scheme}", "use_tls", 1)"""
        server = start(place, database.url(params="?tls_domain=db"), tls)
        check(ask(place, server, "select 7"), (1, "7"))
        server.stop()
        server = start(place, database.url(params="?tls_domain=db"), tls.replace(str(ca), str(other)))
        refuses(place, server, "is unreachable.*certificate")
        server.stop()


def test_slow_queries_are_named(place):
    for database in both(place):
        slow = "select sleep(0.05)" if database.name == "mariadb" else "select pg_sleep(0.05)"
        limit = f'modparam("db_{database.scheme}", "exec_query_threshold", 20000)'
        server = start(place, database.url(), limit)
        check(ask(place, server, slow)[0], 1)
        said_once(server, r"slow query \(\d+ us\): " + re.escape(slow))
        server.stop()


def test_tables_are_made_and_migrated(place):
    fermata = place.program
    for database in both(place):
        url = database.url(database="made")
        said = run(fermata, "db", "create", url)
        check("made    database made" in said and "30 tables made, 0 kept" in said, True, said)
        said = run(fermata, "db", "create", url, "all")
        check("46 tables made, 30 kept" in said, True, said)
        check("0 tables changed, 76 up to date" in run(fermata, "db", "migrate", url), True)
        database.sql("alter table location drop column attr; ", "made")
        database.sql("update version set table_version=1011 where table_name='location'", "made")
        said = run(fermata, "db", "migrate", "--dry-run", url)
        check("ALTER TABLE location ADD COLUMN attr" in said, True, said)
        said = run(fermata, "db", "migrate", url)
        check("changed location (version 1011 to 1013): attr" in said, True, said)
        database.sql("select attr from location", "made")
        check(database.sql("select table_version from version where table_name='location'", "made").strip(), "1013")
        database.sql("update version set table_version=2000 where table_name='location'", "made")
        said = run(fermata, "db", "migrate", url)
        check("kept    version 2000 of location" in said, True, said)
        check(database.sql("select table_version from version where table_name='location'", "made").strip(), "2000")
        wrong = subprocess.run([fermata, "db", "create", database.url(password="wrong")], capture_output=True, text=True)
        check((wrong.returncode, "wrong@" in wrong.stderr), (1, False), wrong.stderr)


def test_rows_are_written_together(place):
    database = MariaDb(place)
    database.account()
    run(place.program, "db", "create", database.url(), "acc")
    database.sql("set global general_log_file='general.log'; set global general_log=on")
    config = CONFIG.replace("route {", """loadmodule "acc.so"
modparam("acc", "db_url", "{URL}")
route {
    if (is_method("INFO")) {
        acc_db_request("200 Fine", "acc");
        do_accounting("db");
        t_newtran();
        t_reply(200, "Fine");
        exit;
    }""", 1)
    server = place.server(config, URL=database.url(), PARAMS="", GLOBALS="query_buffer_size = 5\nquery_flush_time = 1")
    for n in range(7):
        phone = place.phone(server, ip=f"127.0.0.{n + 3}")
        check(phone.request("INFO", "sip:bob@example.com").status, 200)
    rows = lambda: int(database.sql("select count(*) from acc where sip_reason = 'Fine'", "fermata"))
    until("all rows are there", lambda: rows() >= 14)
    log = (database.home / "data" / "general.log").read_text()
    bulk = [line for line in log.splitlines() if "insert into acc" in line and line.count("),(") == 4]
    check(len(bulk), 1, "statements of five rows")


def test_a_statement_that_takes_too_long_is_ended(place):
    for database, limit, query, count in (
            (MariaDb, "timeout_interval", "select sleep(30)", "select count(*) from information_schema.processlist where info like 'select sleep%'"),
            (Postgres, "timeout", "select pg_sleep(30)", "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'")):
        database = database(place)
        database.account()
        server = start(place, database.url(), f'modparam("db_{database.scheme}", "{limit}", 1)')
        asking = asking_of(place, server, [query] * 3)
        plays_on(place, server, asking)
        check(asking.codes(), [-1] * 3)
        said_once(server, "gave no answer in time")
        # Nothing is left running there, and the connections are good.
        until("the statements have ended", lambda: int(database.sql(count)) == 0)
        check(ask(place, server, "select 7"), (1, "7"))
        server.stop()


def both_of(place):
    """Two databases that hold their own number."""
    pair = [MariaDb(place), Postgres(place)]
    for number, database in enumerate(pair):
        database.account()
        database.sql(f"create table t (n int); insert into t values ({number})", "fermata")
    return pair


def virtual(place, pair, mode):
    params = "\n".join(['loadmodule "db_virtual.so"', f'modparam("db_virtual", "db_urls", "define set {mode}")',
                        *(f'modparam("db_virtual", "db_urls", "{d.url()}")' for d in pair),
                        'modparam("db_mysql", "timeout_interval", 1)', 'modparam("db_postgres", "timeout", 1)'])
    return start(place, "virtual://set", params)


def rows(database):
    return int(database.sql("select count(*) from t", "fermata"))


def test_a_set_goes_on_with_the_next_database(place):
    pair = both_of(place)
    server = virtual(place, pair, "FAILOVER")
    check([ask(place, server, "select n from t")[1] for _ in range(3)], ["0"] * 3)
    asking = asking_of(place, server, ["select n from t"] * 40)
    pair[0].kill()
    check(asking.codes(), [1] * 40, "nobody notices")
    check(ask(place, server, "select n from t"), (1, "1"))
    shown = server.mi("db_virtual:get")["SETS"][0]
    check((shown["mode"], [d["can"] for d in shown["DBS"]]), ("FAILOVER", [0, 1]))
    # The first comes back and the second goes: round again.
    pair[0].start()
    said_once(server, "mysql.*is unreachable")
    until("the first is found again", lambda: lines(server, "mysql.*is reachable again") == 1)
    pair[1].kill()
    check(ask(place, server, "select n from t"), (1, "0"))
    said_once(server, "postgres.*is unreachable")
    # None is left.
    pair[0].kill()
    check(ask(place, server, "select n from t")[0], -1)
    for database in pair:
        database.start()
    reaches(place, server)


def test_a_set_writes_to_all(place):
    pair = both_of(place)
    server = virtual(place, pair, "PARALLEL")
    check(ask(place, server, "insert into t values (5)")[0], -2)
    check([rows(d) for d in pair], [2, 2])
    pair[1].kill()
    check(ask(place, server, "insert into t values (6)")[0], -2, "one is enough")
    check(ask(place, server, "select count(*) from t"), (1, "3"))
    pair[1].start()
    until("both are used again", lambda: ask(place, server, "insert into t values (7)")[0] == -2 and rows(pair[1]) > 2)
    check(server.mi("db_set", [0, 0, 0]), "OK")
    before = [rows(d) for d in pair]
    check(ask(place, server, "insert into t values (8)")[0], -2)
    check([rows(d) for d in pair], [before[0], before[1] + 1], "one may not be used")


def test_a_set_takes_turns(place):
    pair = both_of(place)
    server = virtual(place, pair, "ROUND")
    seen = [ask(place, server, "select n from t")[1] for _ in range(6)]
    check((seen.count("0"), seen.count("1")), (3, 3))
    pair[0].kill()
    check([ask(place, server, "select n from t") for _ in range(6)], [(1, "1")] * 6)
    pair[0].start()
    until("the first is used again", lambda: ask(place, server, "select n from t")[1] == "0")
