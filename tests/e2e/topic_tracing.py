"""Tracing: copies of messages over HEP, as Homer's own library for Node.js (hep-js) reads them, and in a table."""
import json, os, pathlib, re, socket, subprocess, time
from harness import DEADLINE, Failed, check, run, until

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
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "proto_hep.so"
loadmodule "tracer.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("proto_hep", "hep_capture_id", 7)
modparam("proto_hep", "hep_id", "[udp] 127.0.0.1:{HEPUDP}; transport=udp; version=3")
modparam("proto_hep", "hep_id", "[tcp] 127.0.0.1:{HEPTCP}")
modparam("tracer", "trace_id", "[udp]uri=hep:udp")
modparam("tracer", "trace_id", "[tcp]uri=hep:tcp")
modparam("tracer", "trace_id", "[tcp]
uri=sqlite://{DIR}/trace.db;
table=sip_trace;")
route {
    if ($hdr(X-Trace) != NULL) {
        trace($hdr(X-Trace), "t", "sip", "attrs of $fU");
    }
    if ($hdr(X-Correlate) != NULL) {
        correlate("udp", "one", "$ci", "two", "$hdr(X-Correlate)");
    }
    send_reply(404, "Not Here");
}
"""

READ = """
const hep = require(process.argv[1]);
let all = '';
process.stdin.on('data', d => all += d).on('end', () => {
    console.log(JSON.stringify(JSON.parse(all).map(hex => hep.decapsulate(Buffer.from(hex, 'hex')))));
});
"""


def decoded(packets):
    """What hep-js makes of HEP packets."""
    library = pathlib.Path(os.environ.get("E2E_NODE", "target/e2e-node")).resolve() / "node_modules" / "hep-js"
    if not library.exists():
        raise Failed("hep-js is missing: npm install --prefix target/e2e-node hep-js@1.0.22, or set E2E_NODE to where it is")
    out = run("node", "-e", READ, str(library), input=json.dumps([p.hex() for p in packets]))
    return json.loads(out)


def listeners(place):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    tcp = socket.create_server(("127.0.0.1", 0))
    for one in (udp, tcp):
        one.settimeout(DEADLINE)
        place.ending.callback(one.close)
    return udp, tcp


def start(place):
    udp, tcp = listeners(place)
    subprocess.run([str(place.program), "db", "create", f"sqlite://{place.dir}/trace.db", "tracer"], check=True, capture_output=True)
    server = place.server(CONFIG, HEPUDP=udp.getsockname()[1], HEPTCP=tcp.getsockname()[1])
    return server, udp, tcp


def checked(packet, phone, server, way):
    """One decoded packet: its addresses, protocol, agent, time and correlation; gives its first line."""
    info = packet["rcinfo"]
    client, own = phone.socket.getsockname(), ("127.0.0.1", server.port)
    ends = (client, own) if way == "in" else (own, client)
    check(((info["srcIp"], info["srcPort"]), (info["dstIp"], info["dstPort"])), ends)
    check([info[k] for k in ("protocolFamily", "protocol", "payloadType", "captureId")], [2, 17, 1, 7])
    check(info["correlation_id"], phone.call_id)
    if abs(info["timeSeconds"] - time.time()) > 60 or not 0 <= info["timeUseconds"] < 1000000:
        raise Failed(f"the time is {info['timeSeconds']}.{info['timeUseconds']}")
    return packet["payload"].split("\r\n")[0]


def test_hep_over_udp(place):
    server, udp, _ = start(place)
    phone = place.phone(server)
    phone.request("OPTIONS", "sip:x@example.com", headers="X-Trace: udp\r\n")
    both = decoded([udp.recv(65535), udp.recv(65535)])
    check(checked(both[0], phone, server, "in"), "OPTIONS sip:x@example.com SIP/2.0")
    check(checked(both[1], phone, server, "out"), "SIP/2.0 404 Not Here")
    phone.request("OPTIONS", "sip:x@example.com", headers="X-Correlate: other\r\n")
    packet = udp.recv(65535)
    extra = re.search(rb'\{"one":"([^"]+)","two":"other"\}', packet)
    check(extra and extra[1].decode(), phone.call_id)
    check(decoded([packet])[0]["rcinfo"]["correlation_id"], phone.call_id)


def packets_of(stream, count):
    """So many HEP3 packets of a connection."""
    data, out = b"", []
    while len(out) < count:
        while len(data) < 6 or len(data) < int.from_bytes(data[4:6], "big"):
            more = stream.recv(65535)
            if not more:
                raise Failed("the connection ended")
            data += more
        length = int.from_bytes(data[4:6], "big")
        out.append(data[:length])
        data = data[length:]
    return out


def test_hep_over_tcp_and_a_table(place):
    server, _, tcp = start(place)
    phone = place.phone(server)
    phone.request("OPTIONS", "sip:y@example.com", headers="X-Trace: tcp\r\n")
    stream, _ = tcp.accept()
    stream.settimeout(DEADLINE)
    both = decoded(packets_of(stream, 2))
    check([checked(p, phone, server, way) for p, way in zip(both, ("in", "out"))],
          ["OPTIONS sip:y@example.com SIP/2.0", "SIP/2.0 404 Not Here"])
    rows = lambda: place.sqlite("trace.db", "select * from sip_trace order by id")
    until("both messages are in the table", lambda: len(rows()) == 2)
    found = [[r[k] for k in ("direction", "method", "status", "callid", "trace_attrs", "from_proto", "to_ip")] for r in rows()]
    check(found, [["in", "OPTIONS", "", phone.call_id, "attrs of alice", "udp", "127.0.0.1"],
                  ["out", "OPTIONS", "404", phone.call_id, "attrs of alice", "udp", "127.0.0.2"]])
    check([rows()[0]["from_port"], rows()[1]["to_port"]], [phone.socket.getsockname()[1]] * 2)
    # The capture server starts anew: what comes then goes by a new connection.
    stream.close()
    phone.request("OPTIONS", "sip:z@example.com", headers="X-Trace: tcp\r\n")
    again, _ = tcp.accept()
    again.settimeout(DEADLINE)
    check(decoded(packets_of(again, 1))[0]["payload"].split(" ")[1], "sip:z@example.com")


def test_what_management_asks_for(place):
    server, udp, _ = start(place)
    port = udp.getsockname()[1]
    check(server.mi("tracer:start", {"id": "live", "uri": f"hep:127.0.0.1:{port};transport=udp", "filter": ["caller=carol"], "scope": "t"}), "OK")
    place.phone(server, "alice").request("OPTIONS", "sip:x@example.com")
    carol = place.phone(server, "carol")
    carol.request("OPTIONS", "sip:x@example.com")
    check(checked(decoded([udp.recv(65535)])[0], carol, server, "in"), "OPTIONS sip:x@example.com SIP/2.0")
    udp.recv(65535)
    listed = server.mi("tracer:trace")
    check([(d["name"], d["type"], d["state"]) for d in listed["trace destinations"]],
          [("udp", "HEP", "on"), ("tcp", "HEP", "on"), ("tcp", "Database", "on"), ("live", "HEP", "dynamic")])
    check(server.mi("tracer:stop", {"id": "live"}), "OK")
    check(server.mi("tracer:trace", {"id": "udp", "mode": "off"}), "OK")
    carol.request("OPTIONS", "sip:x@example.com", headers="X-Trace: udp\r\n")
    check(server.mi("tracer:trace", {"id": "udp", "mode": "on"}), "OK")
    carol.request("OPTIONS", "sip:last@example.com", headers="X-Trace: udp\r\n")
    check(decoded([udp.recv(65535)])[0]["payload"].split(" ")[1], "sip:last@example.com", "what was off is not sent")


WRITE = """
const hep = require(process.argv[1]);
let all = '';
process.stdin.on('data', d => all += d).on('end', () => {
    console.log(JSON.stringify(JSON.parse(all).map(p => hep.encapsulate(p.payload, p.rcinfo).toString('hex'))));
});
"""

CAPTURE = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{PORT}
socket = hep_udp:127.0.0.1:{HEP}
socket = hep_tcp:127.0.0.1:{HEP}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "db_sqlite.so"
loadmodule "proto_hep.so"
loadmodule "sipcapture.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
modparam("httpd", "port", {MI})
modparam("sipcapture", "db_url", "sqlite://{DIR}/capture.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "capture_node", "here")
{ROUTE}
route {
    sip_capture(, "$hep_net(src_ip)", "v$HEPVERSION");
}
onreply_route {
    sip_capture(, "$hep_net(src_ip)", "v$HEPVERSION");
}
route[hep] {
    hep_get("proto_type", , $var(kind));
    if ($var(kind) == "SIP") {
        hep_set("captagent_id", "77");
        $du = "sip:127.0.0.1:{RELAY}";
        hep_relay();
        hep_resume_sip();
    }
    report_capture("report of $var(kind)");
}
"""


def encoded(packets):
    """HEP3 packets as hep-js makes them."""
    library = pathlib.Path(os.environ.get("E2E_NODE", "target/e2e-node")).resolve() / "node_modules" / "hep-js"
    out = run("node", "-e", WRITE, str(library), input=json.dumps(packets))
    return [bytes.fromhex(hex) for hex in json.loads(out)]


def caught(payload, kind=1, source="10.9.0.1"):
    now = int(time.time())
    return {"payload": payload, "rcinfo": {
        "payloadType": kind, "captureId": 2001, "capturePass": "x", "protocolFamily": 2, "protocol": 17,
        "srcIp": source, "dstIp": "10.9.0.2", "srcPort": 5061, "dstPort": 5062, "timeSeconds": now,
        "timeUseconds": 123, "correlation_id": "corr"}}


def sip(start, call_id):
    return (f"{start}\r\nVia: SIP/2.0/UDP 10.9.0.1:5061;branch=z9hG4bK1\r\nFrom: <sip:alice@a.example>;tag=f\r\n"
            f"To: <sip:bob@b.example>;tag=t\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n")


def capturing(place, route=""):
    relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    relay.bind(("127.0.0.1", 0))
    relay.settimeout(DEADLINE)
    place.ending.callback(relay.close)
    subprocess.run([str(place.program), "db", "create", f"sqlite://{place.dir}/capture.db", "sipcapture"], check=True, capture_output=True)
    hep = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    hep.bind(("127.0.0.1", 0))
    port = hep.getsockname()[1]
    hep.close()
    server = place.server(CAPTURE, HEP=port, RELAY=relay.getsockname()[1], ROUTE=route)
    return server, port, relay


def test_hep_comes_in_and_goes_into_tables(place):
    server, port, _ = capturing(place)
    packets = encoded([caught(sip("INVITE sip:bob@b.example SIP/2.0", "one")), caught(sip("SIP/2.0 180 Ringing", "two"))])
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    place.ending.callback(udp.close)
    rows = lambda: place.sqlite("capture.db", "select * from sip_capture order by callid")

    def first():
        # What is sent before the socket is there is lost.
        udp.sendto(packets[0], ("127.0.0.1", port))
        return rows()
    until("a message that came by UDP is stored", first)
    tcp = socket.create_connection(("127.0.0.1", port))
    place.ending.callback(tcp.close)
    # Cut somewhere: the stream is put together.
    tcp.sendall(packets[1][:20])
    tcp.sendall(packets[1][20:] + packets[1])
    until("two that came by TCP are stored", lambda: len([r for r in rows() if r["callid"] == "two"]) == 2)
    one, two = rows()[0], rows()[-1]
    check([one[k] for k in ("method", "ruri_user", "from_user", "to_tag", "source_ip", "source_port", "destination_ip", "proto", "node", "type",
                            "custom_field1", "custom_field2")],
          ["INVITE", "bob", "alice", "t", "10.9.0.1", 5061, "10.9.0.2", 17, "here:2001", 1, "127.0.0.1", "v3"])
    check([two[k] for k in ("method", "reply_reason", "type", "msg")], ["180", "Ringing", 2, sip("SIP/2.0 180 Ringing", "two")])
    check(one["correlation_id"], "corr")
    check(server.mi("sipcapture:capture", ["off"]), "OK")
    check(server.mi("get_statistics", [["proto_hep:hep_refused"]]), {"proto_hep:hep_refused": 0})


def test_hep_is_changed_and_sent_on(place):
    server, port, relay = capturing(place, 'modparam("sipcapture", "hep_route", "hep")')
    packets = encoded([caught(sip("INVITE sip:bob@b.example SIP/2.0", "one")), caught('{"rtcp": 1}', kind=5)])
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    place.ending.callback(udp.close)

    def relayed():
        udp.sendto(packets[0], ("127.0.0.1", port))
        relay.settimeout(0.3)
        try:
            return relay.recv(65535)
        except TimeoutError:
            return None
    packet = decoded([until("the packet is sent on", relayed)])[0]
    check([packet["rcinfo"][k] for k in ("captureId", "srcIp", "dstPort", "correlation_id")], [77, "10.9.0.1", 5062, "corr"])
    until("the main route went on", lambda: place.sqlite("capture.db", "select * from sip_capture"))
    udp.sendto(packets[1], ("127.0.0.1", port))
    until("the report is stored", lambda: place.sqlite("capture.db", "select * from rtcp_capture"))
    row = place.sqlite("capture.db", "select * from rtcp_capture")[0]
    check([row[k] for k in ("correlation_id", "type", "msg", "source_ip", "node")], ["report of RTCP", 5, '{"rtcp": 1}', "10.9.0.1", "here:2001"])
