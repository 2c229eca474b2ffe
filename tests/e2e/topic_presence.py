"""Presence: two baresips watch each other through the server of docs/PRESENCE.md, also after it was started anew."""
import pathlib, re
from harness import until
from topic_peers import baresip, command

PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs/PRESENCE.md"

TABLES = """
create table version (table_name text, table_version integer);
insert into version values ('presentity', 5), ('active_watchers', 12), ('watchers', 4), ('xcap', 4);
create table presentity (id integer primary key autoincrement, username text, domain text, event text, etag text, expires integer,
    received_time integer, body blob, extra_hdrs blob, sender text);
create table active_watchers (id integer primary key autoincrement, presentity_uri text, watcher_username text, watcher_domain text,
    to_user text, to_domain text, event text, event_id text, to_tag text, from_tag text, callid text, local_cseq integer,
    remote_cseq integer, contact text, record_route text, expires integer, status integer, reason text, version integer,
    socket_info text, local_contact text, sharing_tag text);
create table watchers (id integer primary key autoincrement, presentity_uri text, watcher_username text, watcher_domain text,
    event text, status integer, reason text, inserted_time integer);
create table xcap (id integer primary key autoincrement, username text, domain text, doc blob, doc_type integer, etag text,
    source integer, doc_uri text, port integer);
"""


def presence_server(place):
    """The configuration of the page with sockets and files of the test."""
    place.sqlite("presence.sqlite", TABLES)
    text = next(b for b in re.findall(r"(?s)```\n(.*?)```", PAGE.read_text()) if "loadmodule" in b)
    text = text.replace("udp:127.0.0.1:5060", "udp:127.0.0.1:{PORT}").replace("sqlite://", "sqlite://{DIR}/")
    more = 'loadmodule "httpd.so"\nloadmodule "mi_http.so"\nmodparam("httpd", "port", {MI})\nloadmodule'
    return place.server(text.replace("loadmodule", more, 1))


def friend(place, server, user, other):
    """A baresip that publishes its state and watches the other one."""
    return baresip(place, server, user, "none", "manual", modules=("contact", "presence"), account=";pubint=600",
                   contacts=f'"{other}" <sip:{other}@127.0.0.1:{server.port}>;presence=p2p\n')


def sees(control, who, state):
    """What a baresip shows of its contact."""
    plain = lambda: re.sub(r"\\u001[bB]\[[0-9;]*m", "", command(control, "contacts"))
    until(f"{who} is seen {state}", lambda: re.search(rf"{state} {who} <", plain()))


def test_baresips_watch_each_other(place):
    server = presence_server(place)
    _, alice, _ = friend(place, server, "alice", "bob")
    _, bob, _ = friend(place, server, "bob", "alice")
    subscriptions = lambda: server.mi("presence:subs_phtable_list")
    until("both watch", lambda: sorted(s["from_user"] for s in subscriptions()) == ["alice", "bob"])
    command(alice, "presence_online"), command(bob, "presence_online")
    sees(alice, "bob", "Online"), sees(bob, "alice", "Online")
    command(bob, "presence_offline")
    sees(alice, "bob", "Offline")
    sees(bob, "alice", "Online")
    # Whoever watches goes on watching when the server is started anew.
    server.stop()
    server.start()
    until("both watch still", lambda: sorted(s["from_user"] for s in subscriptions()) == ["alice", "bob"])
    command(bob, "presence_online"), command(alice, "presence_offline")
    sees(alice, "bob", "Online")
    sees(bob, "alice", "Offline")
