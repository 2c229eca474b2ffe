"""The page in a real browser, under calls of SIPp: its numbers are those of get_statistics."""
import json, os, pathlib, subprocess, urllib.error, urllib.request
from browser import Browser
from harness import Failed, check, free_port, until
from topic_calls import SCENARIOS, listens

CONFIG = """
log_level = 2
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
loadmodule "dialog.so"
loadmodule "cfgutils.so"
loadmodule "sqlops.so"
loadmodule "db_sqlite.so"
loadmodule "dispatcher.so"
loadmodule "usrloc.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
loadmodule "page.so"
modparam("httpd", "port", {MI})
modparam("httpd", "ip", "{IP}")
modparam("sqlops", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("dispatcher", "db_url", "sqlite://{DIR}/db.sqlite")
modparam("tm", "T1_timer", 10000)
{TOKEN}
route {
    if (has_totag()) {
        loose_route();
        route(relay);
        exit;
    }
    if (!is_method("INVITE|OPTIONS")) {
        send_reply(405, "Method Not Allowed");
        exit;
    }
    if ($rU == "nobody") {
        send_reply(404, "Not Found");
        exit;
    }
    create_dialog();
    record_route();
    sql_query("SELECT uri FROM gw WHERE user = '$rU'", "$avp(uri)");
    route(patience);
    $du = "sip:127.0.0.1:{UAS}";
    route(relay);
}
route[patience] {
    if ($rU == "slow")
        sleep(4);
    else
        usleep(30000);
}
route[relay] {
    t_on_failure("busy");
    t_relay();
}
failure_route[busy] {
    xlog("L_DBG", "no luck\\n");
}
"""
TABLES = """CREATE TABLE gw (user TEXT, uri TEXT);
CREATE TABLE version (table_name TEXT, table_version INTEGER);
INSERT INTO version VALUES ('dispatcher', 9);
CREATE TABLE dispatcher (id INTEGER PRIMARY KEY, setid INTEGER, destination TEXT, socket TEXT, state INTEGER, probe_mode INTEGER, weight TEXT, priority INTEGER, attrs TEXT, description TEXT);
INSERT INTO dispatcher VALUES (1, 1, 'sip:127.0.0.1:5098', NULL, 0, 0, '1', 0, '', ''), (2, 1, 'sip:127.0.0.1:5099', NULL, 1, 0, '1', 0, '', '')
"""
# Where pictures of the views go, for whoever wants to look: target/page-pictures.
PICTURES = os.environ.get("E2E_PICTURES")
RATE = int(os.environ.get("E2E_RATE", "60"))


def start(place, **more):
    place.sqlite("db.sqlite", TABLES)
    uas = free_port()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uas.xml", "-i", "127.0.0.1", "-p", uas, **quiet)
    until("the called party listens", lambda: listens(uas))
    return place.server(CONFIG, **{"UAS": uas, "TOKEN": "", "IP": "127.0.0.1", **more})


def calls(place, server, user, rate, number):
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return place.process("sipp", "-nostdin", "-sf", SCENARIOS / "uac.xml", "-i", "127.0.0.1", "-p", free_port(), "-s", user, "-d", "0",
                         "-r", rate, "-m", number, f"127.0.0.1:{server.port}", **quiet)


def picture(browser, name):
    if PICTURES:
        folder = pathlib.Path(PICTURES)
        folder.mkdir(parents=True, exist_ok=True)
        browser.picture(folder / f"{name}.png")


def test_numbers_are_those_of_the_statistics(place):
    server = start(place)
    browser = Browser(place)
    browser.size(1280, 900)
    running = calls(place, server, "bob", RATE, RATE * 6)
    browser.open(f"http://127.0.0.1:{server.mi_port}/page")
    browser.until("calls are drawn", "document.querySelectorAll('#chart-answers polygon').length > 0 && document.querySelector('#state').textContent == 'live'")
    calls(place, server, "slow", 5, 12)
    browser.until("waits are shown", "[...document.querySelectorAll('#waits-now .n')].length > 1")
    picture(browser, "overview")
    rate = browser.run("Number(document.querySelector('[data-tile=calls]').dataset.value)")
    check(rate > 0, True, "calls a second")
    # The view of statistics beside get_statistics, once nothing moves any more.
    check(running.wait(timeout=60), 0, "SIPp")
    browser.key("6")
    browser.until("statistics", "document.querySelectorAll('[data-statistic]').length > 50")

    def same():
        shown = json.loads(browser.run("JSON.stringify(Object.fromEntries([...document.querySelectorAll('[data-statistic]')].map(e => [e.dataset.statistic, Number(e.textContent.replaceAll(',', ''))])))"))
        real = server.mi("get_statistics", ["all"])
        still = lambda all: {k: v for k, v in all.items() if not k.startswith(("core:timestamp", "load:", "shmem:", "net:"))}
        return still(shown) == still(real) and real
    real = until("the page shows what get_statistics gives", same)
    check((real["page:calls"], real["page:calls_2xx"]), (RATE * 6 + 12, RATE * 6 + 12))
    check(sum(n for name, n in real.items() if name.startswith("page:setup_")), RATE * 6 + 12, "set-up times")
    check(real["page:setup_5000ms"] >= 12, True, "the slow ones")
    browser.key("1")
    browser.until("the total", f"document.querySelector('[data-tile=total]').dataset.value == '{real['page:calls']}'")
    check(browser.run("Number(document.querySelector('[data-class=\"2xx\"]').dataset.value)"), real["page:calls_2xx"])
    # What operations took, beside async_stats.
    browser.key("2")
    browser.until("operations", "!!document.querySelector('[data-operation=sql_query]')")
    done = browser.run("Number(document.querySelector('[data-operation=sql_query]').dataset.done)")
    check(done, server.mi("async_stats")["Operations"]["sql_query"]["Done"])
    check(browser.complaints(), [])


def test_a_call_with_its_waits(place):
    server = start(place)
    browser = Browser(place)
    browser.size(1280, 900)
    browser.open(f"http://127.0.0.1:{server.mi_port}/page#calls")
    browser.until("the form", "document.querySelector('#state').textContent == 'live'")
    browser.key("/")
    for letter in "slow@":
        browser.key(letter)
    browser.key("Enter")
    browser.until("the call is followed", "document.querySelector('#follow-state').textContent.includes('slow@')")
    calls(place, server, "bob", 20, 20)
    calls(place, server, "slow", 1, 1)
    browser.until("the ladder ends", "[...document.querySelectorAll('#ladder .step')].some(e => e.getAttribute('aria-label').includes('to 127') === false && e.getAttribute('aria-label').includes('BYE'))")
    check(browser.run("document.querySelectorAll('#table-calls tbody tr').length"), 1, "calls")
    browser.until("its end", "[...document.querySelectorAll('#ladder .step')].filter(e => / 200 OK/.test(e.getAttribute('aria-label'))).length >= 4")
    steps = browser.run("[...document.querySelectorAll('#ladder .step')].map(e => e.getAttribute('aria-label').replace(/^\\S+ ms /, '').replace(/udp:\\S+/, 'x'))")
    waits = [s for s in steps if s.startswith("waits")]
    check([w.split(" ")[1] for w in waits], ["sql_query", "sleep"])
    check("returned 1 server0.cfg:" in waits[1] and "4.0 s" in waits[1], True, waits[1])
    check([s for s in steps if "INVITE" in s][0].startswith("from x INVITE"), True)
    browser.run("document.querySelector('#ladder .step').focus()")
    browser.key("ArrowDown")
    browser.key("Enter")
    browser.until("the text of the step", "!document.querySelector('#message').hidden && document.querySelector('#message').textContent.length > 10")
    picture(browser, "ladder")
    browser.key("4")
    browser.until("the routes", "document.querySelectorAll('#graph text.title').length == 4")
    titles = browser.run("[...document.querySelectorAll('#graph text.title')].map(e => e.textContent)")
    check(titles, ["route", "route[patience]", "route[relay]", "failure_route[busy]"])
    hottest = browser.until("hot lines", "document.querySelector('#table-hot tbody td:nth-child(2)')?.textContent")
    check(hottest in ("sleep", "usleep"), True, hottest)
    picture(browser, "routes")
    browser.key("5")
    browser.until("destinations", "!!document.querySelector('[data-list=\"dispatcher:list\"]')")
    states = browser.run("[...document.querySelectorAll('[data-list=\"dispatcher:list\"] tbody tr')].map(e => e.textContent).join('|')")
    check("Active" in states and "Inactive" in states, True, states)
    check("up" in browser.run("document.querySelector('#table-backends').textContent"), True)
    picture(browser, "backends")
    browser.size(390, 800, dark=True)
    browser.key("1")
    browser.until("the overview", "!!document.querySelector('[data-tile=total]')")
    check(browser.run("document.documentElement.scrollWidth <= innerWidth"), True, "it fits a telephone")
    picture(browser, "small-dark")
    check(browser.complaints(), [])


def ask(url, method, headers=None, kind="application/json"):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()
    try:
        request = urllib.request.Request(f"{url}/api", body, {"Content-Type": kind, **(headers or {})})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_who_may_look(place):
    server = start(place, IP="0.0.0.0")
    url = f"http://127.0.0.1:{server.mi_port}/page"
    until("httpd answers", lambda: ask(url, "version") == 200)
    check(ask(url, "kill"), 403, "a command that does something")
    check(ask(url, "ul_rm"), 403, "another one")
    check(ask(url, "version", kind="text/plain"), 415)
    check(ask(url, "version", {"Host": "evil.example"}), 403, "under a foreign name")
    outside = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    for address in outside[:1]:
        check(ask(f"http://{address}:{server.mi_port}/page", "version"), 403, "from beyond the loopback")
    token = "0123456789abcdef"
    server = start(place, IP="0.0.0.0", TOKEN=f'modparam("page", "token", "{token}")') if not place.sqlite("db.sqlite", "DROP TABLE gw;\nDROP TABLE version;\nDROP TABLE dispatcher") else None
    url = f"http://127.0.0.1:{server.mi_port}/page"
    until("httpd answers", lambda: ask(url, "version", {"X-Fermata-Token": token}) == 200)
    check(ask(url, "version"), 401, "without the token")
    browser = Browser(place)
    browser.size(800, 600)
    browser.open(url)
    browser.until("it asks for the token", "document.querySelector('#login').open")
    picture(browser, "token")
    browser.run("document.querySelector('#token').focus()")
    for letter in token:
        browser.key(letter)
    browser.key("Enter")
    browser.until("it opens", "document.querySelector('#state').textContent == 'live' && !document.querySelector('#login').open")
