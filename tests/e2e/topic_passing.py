"""A database that cannot take anything for a while (a backup that locks it, a failover that makes it read-only, a full disk):
what was answered with 200 gets into the table when that has passed, also when the server is ended meanwhile."""
import contextlib, sqlite3, threading
from asking import said_once
from databases import MariaDb, Postgres
from harness import DEADLINE, check, until
from topic_durability import Sqlite, database, start, users

MODES = ("single-instance-sql-write-through", "single-instance-sql-write-back")


class Locked:
    """An SQLite file that another process has locked."""

    def __init__(self, place):
        self.db = sqlite3.connect(place.dir / "db.sqlite", timeout=10, isolation_level=None, check_same_thread=False)
        self.db.execute("begin exclusive")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("rollback")
        self.db.close()


def register(phone, names):
    return {name for name in names if phone.register(f"<sip:{name}@10.0.0.1>", user=name, call_id=name).status == 200}


def names(prefix, count=20):
    return [f"{prefix}{n}" for n in range(count)]


def test_a_locked_sqlite_file_is_written_when_it_is_free(place):
    for mode in MODES:
        place.dir.joinpath("db.sqlite").unlink(missing_ok=True)
        db = database(place, Sqlite)
        server = start(place, db, mode, timer=1)
        phone = place.phone(server)
        before = register(phone, names("before", 3))
        until("all is written", lambda: users(db) >= before)
        with Locked(place):
            during = register(phone, names("during", 12))
            check(len(during), 12, f"answered with 200 in {mode}")
            # A contact that goes while it is locked is gone afterwards.
            check(phone.register("<sip:before0@10.0.0.1>", user="before0", call_id="before0", expires=0).status, 200)
            said_once(server, "takes no statements")
        until("all is written", lambda: users(db) == before - {"before0"} | during)
        said_once(server, "takes statements again")
        server.kill()
        server.start()
        until("it is loaded", lambda: "200" in str(phone.request("OPTIONS", "sip:during0@example.com").status))
        server.kill()


def test_an_orderly_end_waits_for_a_locked_file(place):
    for mode in MODES:
        place.dir.joinpath("db.sqlite").unlink(missing_ok=True)
        db = database(place, Sqlite)
        server = start(place, db, mode)
        phone = place.phone(server)
        with Locked(place):
            during = register(phone, names("during", 5))
            check(len(during), 5)
            ended = threading.Thread(target=server.stop)
            ended.start()
            # Longer than an attempt takes.
            ended.join(7)
            check(ended.is_alive(), True, "the end waits")
        ended.join(DEADLINE)
        check(server.process.returncode, 0)
        check(users(db), during, mode)


def test_sql_only_says_that_it_could_not(place):
    db = database(place, Sqlite)
    server = start(place, db, "sql-only")
    phone = place.phone(server)
    with Locked(place):
        check(phone.register("<sip:x@10.0.0.1>", user="x", call_id="x").status, 500)
    check(users(db), set())
    check(phone.register("<sip:y@10.0.0.1>", user="y", call_id="y").status, 200)
    check(users(db), {"y"})


def test_a_full_disk_loses_nothing(place):
    for mode in MODES:
        place.dir.joinpath("db.sqlite").unlink(missing_ok=True)
        db = database(place, Sqlite)
        # As many pages as there are: the next one does not fit, as on a full disk.
        server = start(place, db, mode, timer=1)
        phone = place.phone(server)
        place.sqlite("db.sqlite", "create table ballast (x);\ninsert into ballast values (zeroblob(100000))")
        limit = "modparam(\"db_sqlite\", \"exec_pragma\", \"max_page_count = {}\")\n"
        pages = place.sqlite("db.sqlite", "pragma page_count")[0]["page_count"]
        server.kill()
        server.config.write_text(server.config.read_text().replace('loadmodule "usrloc.so"',
                                                                  limit.format(pages) + 'loadmodule "usrloc.so"'))
        server.start()
        wanted = register(phone, names("full", 200))
        check(len(wanted), 200, f"answered with 200 in {mode}")
        said_once(server, "takes no statements")
        # Somebody makes room.
        place.sqlite("db.sqlite", "drop table ballast")
        until("all is written", lambda: users(db) == wanted)
        server.kill()


def read_only(place, kind, begin, end):
    db = database(place, kind)
    if kind is MariaDb:
        db.sql("revoke all on *.* from 'fermata'@'%'; grant all on fermata.* to 'fermata'@'%'")
    for mode in MODES:
        db.sql("delete from location", "fermata")
        server = start(place, db, mode, timer=1)
        phone = place.phone(server)
        before = register(phone, names("before", 3))
        until("all is written", lambda: users(db) >= before)
        begin(db)
        during = register(phone, names("during"))
        check(len(during), 20, f"answered with 200 in {mode}")
        said_once(server, "takes no statements")
        check(users(db) & during, set())
        end(db)
        until("all is written", lambda: users(db) == before | during)
        said_once(server, "takes statements again")
        server.kill()
        only = start(place, db, "sql-only")
        phone = place.phone(only)
        begin(db)
        check(phone.register("<sip:x@10.0.0.1>", user="x", call_id="x").status, 500)
        end(db)
        check(phone.register("<sip:x@10.0.0.1>", user="x", call_id="x").status, 200)
        check("x" in users(db), True)
        only.kill()


def test_mariadb_read_only_for_a_failover(place):
    read_only(place, MariaDb, lambda db: db.sql("set global read_only = 1"), lambda db: db.sql("set global read_only = 0"))


def test_postgres_read_only_for_a_failover(place):
    def switch(word):
        def change(db):
            db.sql(f"alter database fermata set default_transaction_read_only = {word}")
            db.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'fermata'")
        return change
    read_only(place, Postgres, switch("on"), switch("off"))
