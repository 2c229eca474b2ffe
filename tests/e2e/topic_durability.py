"""What was acknowledged survives kill -9, on each database; databases that stand still or die hold nobody else."""
import random, threading
from databases import MariaDb, Postgres
from harness import Failed, check, run, until
from topic_location import CONFIG, found, registered

INFO = '    if (is_method("INFO")) {\n        send_reply(200, "Info");\n        exit;\n    }\n    lookup("location");\n    $var(rc) = $rc;\n    if ($var(rc) > 0) {'


class Sqlite:
    name = "sqlite"

    def __init__(self, place):
        self.place = place

    def account(self):
        pass

    def url(self):
        return f"sqlite://{self.place.dir}/db.sqlite"

    def sql(self, text, database=""):
        return "\n".join("|".join(str(v) for v in row.values()) for row in self.place.sqlite("db.sqlite", text))


def database(place, kind):
    db = kind(place)
    db.account()
    run(place.program, "db", "create", db.url())
    return db


def start(place, db, mode, timer=3600):
    module = {"sqlite": "db_sqlite", "mariadb": "db_mysql", "postgres": "db_postgres"}[db.name]
    config = CONFIG.replace("db_sqlite", module).replace("sqlite://{DIR}/db.sqlite", db.url())
    config = config.replace('    if (lookup("location")) {', INFO)
    config = config.replace("    $var(rc) = $rc;\n    send_reply(404", "    send_reply(404")
    return place.server(config, MODE=mode, TIMER=timer, MORE='modparam("registrar", "min_expires", 1)')


def users(db):
    return {line.strip() for line in db.sql("select username from location", "fermata").split("\n") if line.strip()}


def storm(place, server, workers, stop):
    """Phones that register one new user after the other; who got a 200 goes into the set."""
    acknowledged = set()

    def one(worker):
        phone = place.phone(server, ip=f"127.0.0.{10 + worker}")
        for n in range(100000):
            user = f"u{worker}-{n}"
            try:
                reply = phone.register(f"<sip:{user}@10.0.0.1>", user=user, call_id=user)
            except (Failed, OSError):
                return
            if reply.status == 200:
                acknowledged.add(user)
            if stop.is_set():
                return
    for n in range(workers):
        threading.Thread(target=one, args=(n,), daemon=True).start()
    return acknowledged


def write_through(place, kind):
    db = database(place, kind)
    server = start(place, db, "single-instance-sql-write-through")
    stop = threading.Event()
    acknowledged = storm(place, server, 8, stop)
    until("registrations go through", lambda: len(acknowledged) > random.randrange(100, 300))
    server.kill()
    stop.set()
    known = set(acknowledged)
    check(known - users(db), set(), "acknowledged, but not in the database")
    server.start()
    phone = place.phone(server)
    # All of a contact is as it was, and ends as it should.
    user = sorted(known)[0]
    check(found(phone, user), f"sip:{user}@10.0.0.1")
    check(phone.register(f"<sip:{user}@10.0.0.1>", expires=0, user=user, call_id="other").status, 200)
    server.kill()
    check(user in users(db), False, "its end was acknowledged")


def test_write_through_on_mariadb(place):
    write_through(place, MariaDb)


def test_write_through_on_postgres(place):
    write_through(place, Postgres)


def write_back(place, kind):
    db = database(place, kind)
    server = start(place, db, "single-instance-sql-write-back", timer=1)
    phone = place.phone(server)
    names = {f"a{n}" for n in range(50)}
    for name in names:
        check(phone.register(f"<sip:{name}@10.0.0.1>", user=name, call_id=name).status, 200)
    # Written within timer_interval, by itself; nothing that was written is lost.
    until("the timer writes", lambda: users(db) >= names)
    server.kill()
    server.start()
    until("it is loaded", lambda: len(registered(server)) >= len(names))
    for name in sorted(names)[:3]:
        check(found(phone, name), f"sip:{name}@10.0.0.1")
    server.kill()
    # Without a timer everything since the last flush is lost by a kill, and nothing by an orderly end.
    slow = start(place, db, "single-instance-sql-write-back")
    phone = place.phone(slow)
    check(phone.register("<sip:b@10.0.0.1>", user="b", call_id="b").status, 200)
    check(slow.mi("ul_flush"), "OK")
    check(phone.register("<sip:c@10.0.0.1>", user="c", call_id="c").status, 200)
    slow.kill()
    check({"b", "c"} & users(db), {"b"}, "after kill -9")
    slow.start()
    check(phone.register("<sip:d@10.0.0.1>", user="d", call_id="d").status, 200)
    check(phone.register("<sip:b@10.0.0.1>", user="b", call_id="b", expires=0).status, 200)
    slow.stop()
    check({"b", "c", "d"} & users(db), {"d"}, "after an orderly end")


def test_write_back_on_sqlite(place):
    write_back(place, Sqlite)


def test_write_back_on_mariadb(place):
    write_back(place, MariaDb)


def test_write_back_on_postgres(place):
    write_back(place, Postgres)


def sql_only(place, kind):
    db = database(place, kind)
    server = start(place, db, "sql-only", timer=1)
    other = start(place, db, "sql-only", timer=1)
    phone, far = place.phone(server), place.phone(other, ip="127.0.0.3")
    check(phone.register("<sip:a@10.0.0.1>;q=0.3").status, 200)
    check(found(far, "alice"), "sip:a@10.0.0.1")
    check(far.register("<sip:b@10.0.0.2>;q=0.9", user="alice").status, 200)
    check(found(phone, "alice"), "sip:b@10.0.0.2", "the higher q")
    # The database stands still: who needs it waits, everybody else is served.
    db.pause()
    waiting = []
    one = place.phone(server, ip="127.0.0.20")
    thread = threading.Thread(target=lambda: waiting.append(found(one, "alice")), daemon=True)
    thread.start()
    until("a script waits", lambda: any("lookup" in str(o) for o in server.mi("async_list")["Operations"]))
    callers = [place.phone(server, ip=f"127.0.0.{30 + n}") for n in range(8)]
    check({caller.request("INFO", "sip:x@example.com").status for caller in callers}, {200})
    check(waiting, [], "it still waits")
    db.go_on()
    thread.join(15)
    check(waiting, ["sip:b@10.0.0.2"])
    # It dies: documented answers, logged once; it comes back and is used by itself.
    db.kill()
    reply = phone.register("<sip:a@10.0.0.1>")
    check((reply.status, reply.header("P-Registrar-Error")), (500, "usrloc_record_get failed"))
    check(phone.request("OPTIONS", "sip:alice@example.com").text.split("\r\n")[0], "SIP/2.0 404 Nobody -3")
    check(phone.request("INFO", "sip:x@example.com").status, 200)
    db.start()
    until("it is used again", lambda: phone.register("<sip:a@10.0.0.1>;q=1").status == 200)
    check(found(far, "alice") or until("there too", lambda: found(far, "alice")), "sip:a@10.0.0.1")
    check(phone.register("<sip:short@10.0.0.1>", user="brief", call_id="brief", expires=1).status, 200)
    until("expired rows go", lambda: "brief" not in users(db))


def test_sql_only_on_mariadb(place):
    sql_only(place, MariaDb)


def test_sql_only_on_postgres(place):
    sql_only(place, Postgres)


def test_a_database_that_dies_in_write_through(place):
    """Registrations go on in memory and are written when it is back."""
    db = database(place, MariaDb)
    server = start(place, db, "single-instance-sql-write-through", timer=1)
    phone = place.phone(server)
    check(phone.register("<sip:a@10.0.0.1>").status, 200)
    db.kill()
    check(phone.register("<sip:b@10.0.0.1>", user="bob", call_id="b").status, 200)
    check(found(phone, "bob"), "sip:b@10.0.0.1")
    db.start()
    until("what was missed is written", lambda: users(db) == {"alice", "bob"})


def test_a_contact_that_the_database_refuses(place):
    """It does not keep the others of its transaction from being written."""
    db = database(place, MariaDb)
    db.sql("alter table location add constraint c check (username <> 'bad')", "fermata")
    server = start(place, db, "single-instance-sql-write-back")
    phone = place.phone(server)
    names = ["a", "bad", "c"]
    for name in names:
        check(phone.register(f"<sip:{name}@10.0.0.1>", user=name, call_id=name).status, 200)
    check(server.mi("ul_flush"), "OK")
    check(users(db), {"a", "c"})
    check("refuses a contact" in server.log_text(), True)
    check(found(phone, "bad"), "sip:bad@10.0.0.1", "memory has it")
