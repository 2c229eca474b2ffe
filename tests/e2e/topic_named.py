"""TLS to next hops that have a name: the name is asked for, and the certificate must be for it."""
import contextlib, re, socket, ssl, threading
from harness import DEADLINE, check, free_port
from streams import certificates

CONFIG = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:127.0.0.1:{PORT}
socket = tls:127.0.0.1:{TLS}
loadmodule "proto_udp.so"
loadmodule "tls_mgm.so"
loadmodule "proto_tls.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
modparam("tls_mgm", "server_domain", "own")
modparam("tls_mgm", "certificate", "[own]{DIR}/localhost.pem")
modparam("tls_mgm", "private_key", "[own]{DIR}/localhost.key")
modparam("tls_mgm", "ca_list", "[own]{DIR}/ca.pem")
modparam("tls_mgm", "client_domain", "out")
modparam("tls_mgm", "ca_list", "[out]{DIR}/ca.pem")
{MORE}
route {
    $du = "sip:{HOST}:{NEXT};transport=tls";
    if (!t_relay())
        t_reply(480, "Not Sent");
}
"""


class Next:
    """A TLS server that answers each request with 200 and notes the names that were asked for."""

    def __init__(self, place, certificate):
        self.names = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place.dir / f"{certificate}.pem", place.dir / f"{certificate}.key")
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self.listener = place.ending.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, args=(context,), daemon=True).start()

    def serve(self, context):
        while True:
            try:
                plain = self.listener.accept()[0]
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                tls.settimeout(DEADLINE)
                request = tls.recv(65535).decode()
                kept = [l for l in request.split("\r\n") if re.match(r"(?i)(via|from|to|call-id|cseq):", l)]
                tls.sendall(("SIP/2.0 200 There\r\n" + "\r\n".join(kept) + "\r\nContent-Length: 0\r\n\r\n").encode())
                with contextlib.suppress(OSError):
                    tls.recv(1)


def reached(place, certificate, host, more=""):
    """(status of a request that goes to the next hop by this name, names that it was asked for)"""
    following = Next(place, certificate)
    server = place.server(CONFIG, TLS=free_port(), HOST=host, NEXT=following.port, MORE=more)
    status = place.phone(server).request("OPTIONS", "sip:bob@example.com").status
    server.kill()
    return status, following.names


def test_named_next_hops(place):
    certificates(place, "localhost", "other.example.com")
    check(reached(place, "localhost", "localhost"), (200, ["localhost"]), "its own name")
    check(reached(place, "other.example.com", "localhost"), (477, ["localhost"]), "another's name")
    lenient = 'modparam("tls_mgm", "verify_hostname", "[out]0")'
    check(reached(place, "other.example.com", "localhost", lenient), (200, ["localhost"]), "names are not checked")
    blind = 'modparam("tls_mgm", "verify_cert", "[out]0")'
    check(reached(place, "other.example.com", "localhost", blind), (200, ["localhost"]), "nothing is checked")
    # An address has no name to ask for; whom to trust is the domain's business.
    check(reached(place, "other.example.com", "127.0.0.1"), (200, [None]), "an address")
