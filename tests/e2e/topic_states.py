"""States of destinations that several servers share through Redis: dispatcher, load_balancer, drouting."""
from harness import check, until
from stores import Redis
from topic_durability import Sqlite, database

CONFIG = """
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
loadmodule "sipmsgops.so"
loadmodule "cachedb_redis.so"
loadmodule "db_sqlite.so"
loadmodule "dialog.so"
loadmodule "dispatcher.so"
loadmodule "load_balancer.so"
loadmodule "drouting.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("cachedb_redis", "cachedb_url", "redis:st://{REDIS}/")
modparam("dialog", "cachedb_url", "redis:st://{REDIS}/")
modparam("dispatcher", "db_url", "{DB}")
modparam("load_balancer", "db_url", "{DB}")
modparam("drouting", "db_url", "{DB}")
# What the others know does not come from the table.
modparam("dispatcher", "persistent_state", 0)
modparam("drouting", "persistent_state", 0)
modparam("drouting", "force_dns", 0)
modparam("load_balancer", "probing_interval", 0)
modparam("dispatcher", "cluster_id", 1)
modparam("load_balancer", "cluster_id", 1)
modparam("drouting", "cluster_id", 1)
route {
    send_reply(200, "OK");
}
event_route[E_DISPATCHER_STATUS] {
    xlog("told: $param(address) $param(status)\\n");
}
"""
ROWS = ("insert into dispatcher (setid, destination) values (1, 'sip:127.0.0.21:5080'), (1, 'sip:127.0.0.22:5080')",
        "insert into load_balancer (group_id, dst_uri, resources) values (1, 'sip:127.0.0.31:5080', 'pstn=4')",
        "insert into dr_gateways (gwid, type, address, strip, pri_prefix, attrs, probe_mode, state) values ('gw1', 0, '127.0.0.41:5080', 0, '', '', 0, 0)",
        "insert into dr_carriers (carrierid, gwlist, flags, state) values ('gw1', 'gw1', 0, 0)")


def start(place):
    db, redis = database(place, Sqlite), Redis(place)
    for row in ROWS:
        db.sql(row, "fermata")
    return redis, lambda: place.server(CONFIG, DB=db.url(), REDIS=redis.url())


def dispatched(server):
    return [d["state"] for d in server.mi("ds_list")["PARTITIONS"][0]["SETS"][0]["Destinations"]]


def balanced(server):
    return server.mi("lb_list")["Destinations"][0]["enabled"]


def routed(server):
    return server.mi("dr_gw_status")["Gateways"][0]["State"]


def carried(server):
    """The carrier is named as the gateway is: they are not mixed up."""
    return server.mi("dr_carrier_status")["Carriers"][0]["Enabled"].strip()


def test_servers_hear_of_each_others_states(place):
    redis, another = start(place)
    one, two = another(), another()
    for server in (one, two):
        until("the tables are loaded", lambda: (dispatched(server), balanced(server), routed(server)) == (["Active", "Active"], "yes", "Active"))
    check(one.mi("ds_set_state", ["i", "1", "sip:127.0.0.22:5080"]), "OK")
    check(one.mi("lb_status", ["1", "0"]), "OK")
    check(one.mi("dr_gw_status", {"gw_id": "gw1", "status": 0}), "OK")
    until("the other one knows", lambda: (dispatched(two), balanced(two), routed(two)) == (["Active", "Inactive"], "no", "Disabled MI"))
    until("and has told so", lambda: "told: sip:127.0.0.22:5080 inactive" in two.log_text())
    check(carried(two), "yes", "a carrier of the same name")
    check(one.mi("dr_carrier_status", {"carrier_id": "gw1", "status": 0}), "OK")
    until("carriers too", lambda: carried(two) == "no")
    # The last one who says something is right, whoever it is.
    check(two.mi("ds_set_state", ["a", "1", "sip:127.0.0.22:5080"]), "OK")
    check(two.mi("lb_status", ["1", "1"]), "OK")
    check(two.mi("dr_gw_status", {"gw_id": "gw1", "status": 1}), "OK")
    check(two.mi("ds_set_state", ["i", "1", "sip:127.0.0.21:5080"]), "OK")
    until("the first one follows", lambda: (dispatched(one), balanced(one), routed(one)) == (["Inactive", "Active"], "yes", "Active"))
    check(carried(one), "no", "and not the other way round")
    # Who comes later knows what the others know.
    three = another()
    until("the third one knows of carriers", lambda: carried(three) == "no")
    until("the third one knows", lambda: dispatched(three) == ["Inactive", "Active"])
    # Without the store each goes on by itself; what changed meanwhile is told when it is back.
    redis.kill()
    check(one.mi("ds_set_state", ["i", "1", "sip:127.0.0.22:5080"]), "OK")
    until("the outage is said", lambda: "states are not shared with other servers" in one.log_text())
    check(dispatched(two), ["Inactive", "Active"])
    redis.start()
    until("the others hear of it", lambda: dispatched(two) == ["Inactive", "Inactive"] == dispatched(three))
    check(sum(line.count("states are not shared") for line in one.log_text().splitlines() if "dispatcher" in line), 1)
