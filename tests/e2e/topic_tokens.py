"""Tokens of PyJWT, with keys of the script and of a database."""
import time, jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from harness import check

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
loadmodule "textops.so"
loadmodule "db_sqlite.so"
loadmodule "auth_jwt.so"
modparam("auth_jwt", "db_mode", 1)
modparam("auth_jwt", "db_url", "sqlite://{DB}")
modparam("auth_jwt", "load_credentials", "$avp(plan)=plan")
route {
    if ($hdr(X-Key) != NULL) {
        if ($hdr(X-Key) == "numbers") extract_pub_key_from_exp_mod($hdr(X-E), $hdr(X-N), $var(key));
        else $var(key) = $(hdr(X-Key){s.decode.hexa});
        $var(rc) = jwt_script_authorize($hdr(X-Token), $var(key), $avp(shown));
    } else {
        $var(rc) = jwt_db_authorize($hdr(X-Token), $avp(shown), $avp(user));
    }
    append_to_reply("X-Rc: $var(rc)\\r\\nX-Shown: $avp(shown)\\r\\nX-Who: $avp(user) $avp(plan)\\r\\n");
    send_reply(200, "Done");
}
"""


def pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def server(place):
    today = int(time.time())
    place.sqlite("tokens.db", f"""
        create table jwt_profiles (tag text, sip_username text, plan text);
        create table jwt_secrets (corresponding_tag text, secret text, start_ts integer, end_ts integer);
        insert into jwt_profiles values ('acme', 'alice', 'gold');
        insert into jwt_secrets values ('acme', '{'old' * 11}', 0, {today - 10});
        insert into jwt_secrets values ('acme', '{'one' * 11}', 0, {today + 1000});
        insert into jwt_secrets values ('acme', '{'two' * 11}', 0, {today + 1000});
    """)
    return place.server(CONFIG, DB=place.dir / "tokens.db")


def ask(place, server, token, headers=""):
    reply = place.phone(server).request("MESSAGE", "sip:bob@example.com", headers=f"X-Token: {token}\r\n{headers}")
    return reply.header("X-Rc"), reply.header("X-Shown"), reply.header("X-Who")


def test_keys_of_the_script(place):
    at = server(place)
    claims = {"tag": "acme", "n": 1}
    keys = {"RS256": rsa.generate_private_key(65537, 2048), "PS384": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()), "ES384": ec.generate_private_key(ec.SECP384R1())}
    for name, key in keys.items():
        token = jwt.encode(claims, key, algorithm=name)
        rc, shown, _ = ask(place, at, token, f"X-Key: {pem(key).hex()}\r\n")
        check((rc, shown), ("1", f'{{"alg":"{name}","typ":"JWT"}}.{{"n":1,"tag":"acme"}}'), name)
        other = keys["ES256" if name != "ES256" else "ES384"]
        check(ask(place, at, token, f"X-Key: {pem(other).hex()}\r\n")[0], "-1", name)
    for name in ("HS256", "HS512"):
        token = jwt.encode(claims, "s" * 64, algorithm=name)
        check(ask(place, at, token, f"X-Key: {('s' * 64).encode().hex()}\r\n")[0], "1", name)
    numbers = jwt.algorithms.RSAAlgorithm.to_jwk(keys["RS256"].public_key(), as_dict=True)
    token = jwt.encode(claims, keys["RS256"], algorithm="RS256")
    check(ask(place, at, token, f"X-Key: numbers\r\nX-E: {numbers['e']}\r\nX-N: {numbers['n']}\r\n")[0], "1")
    check(ask(place, at, "a.b", "X-Key: 00\r\n")[0], "-2")


def test_keys_of_a_database(place):
    at = server(place)
    token = jwt.encode({"tag": "acme"}, "two" * 11, algorithm="HS256")
    check(ask(place, at, token), ("1", '{"alg":"HS256","typ":"JWT"}.{"tag":"acme"}', "alice gold"))
    for claims, secret in (({"tag": "acme"}, "old" * 11), ({"tag": "x' or '1'='1"}, "two" * 11), ({}, "two" * 11)):
        check(ask(place, at, jwt.encode(claims, secret, algorithm="HS256"))[0], "-1", claims)
