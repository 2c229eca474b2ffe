//! `$tls_...`: what TLS agreed on and showed, of the connection that the message came by.

use host::streams::Tls;
use host::var::{At, VarKind, Variable};
use host::{Call, Ctx, Loader, Registrar, Value};
use script::ast::VarSpec;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Name};

/// What is read from the connection.
const OF_CONNECTION: [(&str, fn(&Tls) -> Value); 5] = [
    ("tls_version", |tls| tls.version.into()),
    ("tls_description", |tls| format!("{} {}", openssl_name(&tls.cipher), tls.version).into()),
    ("tls_cipher_info", |tls| openssl_name(&tls.cipher).into()),
    ("tls_cipher_bits", |tls| bits(&tls.cipher).into()),
    ("tls_peer_verified", |tls| i64::from(tls.verified).into()),
];

/// The names of a field: of the peer's certificate, of ours.
macro_rules! both {
    ($field:literal) => {
        [concat!("tls_peer_", $field), concat!("tls_my_", $field)]
    };
}

/// What is read from a certificate.
const OF_CERTIFICATE: [([&str; 2], fn(&X509Certificate) -> Value); 20] = [
    (both!("version"), |c| i64::from(c.version().0).into()),
    (both!("serial"), |c| serial(c)),
    (both!("subject"), |c| whole(c.subject())),
    (both!("subject_cn"), |c| part(c.subject(), "2.5.4.3")),
    (both!("subject_locality"), |c| part(c.subject(), "2.5.4.7")),
    (both!("subject_country"), |c| part(c.subject(), "2.5.4.6")),
    (both!("subject_state"), |c| part(c.subject(), "2.5.4.8")),
    (both!("subject_organization"), |c| part(c.subject(), "2.5.4.10")),
    (both!("subject_unit"), |c| part(c.subject(), "2.5.4.11")),
    (both!("issuer"), |c| whole(c.issuer())),
    (both!("issuer_cn"), |c| part(c.issuer(), "2.5.4.3")),
    (both!("issuer_locality"), |c| part(c.issuer(), "2.5.4.7")),
    (both!("issuer_country"), |c| part(c.issuer(), "2.5.4.6")),
    (both!("issuer_state"), |c| part(c.issuer(), "2.5.4.8")),
    (both!("issuer_organization"), |c| part(c.issuer(), "2.5.4.10")),
    (both!("issuer_unit"), |c| part(c.issuer(), "2.5.4.11")),
    (both!("san_email"), |c| alternative(c, |n| matches!(n, GeneralName::RFC822Name(_)))),
    (both!("san_hostname"), |c| alternative(c, |n| matches!(n, GeneralName::DNSName(_)))),
    (both!("san_uri"), |c| alternative(c, |n| matches!(n, GeneralName::URI(_)))),
    (both!("san_ip"), |c| alternative(c, |n| matches!(n, GeneralName::IPAddress(_)))),
];

/// What is read from the peer's certificate alone.
const OF_PEER: [(&str, fn(&X509Certificate, i64) -> Value); 5] = [
    // One that is revoked, where lists are given, never gets so far.
    ("tls_peer_revoked", |_, _| 0.into()),
    ("tls_peer_expired", |c, now| i64::from(c.validity().not_after.timestamp() < now).into()),
    ("tls_peer_selfsigned", |c, _| i64::from(c.subject() == c.issuer()).into()),
    ("tls_peer_notBefore", |c, _| moment(&c.validity().not_before)),
    ("tls_peer_notAfter", |c, _| moment(&c.validity().not_after)),
];

pub fn register<M: Default + Send + Sync + 'static>(m: &mut Registrar<M>) {
    for (name, read) in OF_CONNECTION {
        m.variable_class(name, move |_, _, _| Ok(VarKind::Other(Box::new(Connection(read)))));
    }
    for (name, read) in OF_PEER {
        m.variable_class(name, move |_, _, _| Ok(VarKind::Other(Box::new(Peer(read)))));
    }
    for ([peer, my], read) in OF_CERTIFICATE {
        let of = move |side| {
            move |_: &VarSpec, _: &mut Loader, _: &Arc<M>| {
                Ok(VarKind::Other(Box::new(Certificate { side, read }) as _))
            }
        };
        m.variable_class(peer, of(Side::Peer));
        m.variable_class(my, of(Side::My));
    }
}

/// is_peer_verified(): 1 when the message came by TLS from someone whose certificate is trusted, else -1.
pub fn is_peer_verified<M: Send + Sync + 'static>(call: &mut Call<M>) -> i32 {
    if tls_of(call.ctx).is_some_and(|tls| tls.verified) { 1 } else { -1 }
}

fn tls_of(ctx: &Ctx) -> Option<Arc<Tls>> {
    let source = ctx.state.source;
    if !source.is_reliable() {
        return None;
    }
    ctx.core.shared.connections()?.tls(source.connection_id())
}

struct Connection(fn(&Tls) -> Value);

impl Variable for Connection {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        tls_of(ctx).map_or(Value::Null, |tls| self.0(&tls))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Peer,
    My,
}

struct Certificate {
    side: Side,
    read: fn(&X509Certificate) -> Value,
}

impl Variable for Certificate {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let tls = tls_of(ctx);
        let der = tls
            .as_ref()
            .and_then(|tls| if self.side == Side::Peer { tls.peer.as_ref() } else { tls.own.as_ref() });
        read(der, self.read)
    }
}

struct Peer(fn(&X509Certificate, i64) -> Value);

impl Variable for Peer {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let now = (ctx.core.wall_us / 1_000_000) as i64;
        read(tls_of(ctx).as_ref().and_then(|tls| tls.peer.as_ref()), |c| self.0(c, now))
    }
}

fn read(der: Option<&Arc<[u8]>>, what: impl Fn(&X509Certificate) -> Value) -> Value {
    let parsed = der.and_then(|der| X509Certificate::from_der(der).ok());
    parsed.map_or(Value::Null, |(_, certificate)| what(&certificate))
}

/// A number; in hexadecimal digits when it is too long for one.
fn serial(certificate: &X509Certificate) -> Value {
    let bytes = certificate.raw_serial();
    if bytes.len() < 8 {
        return bytes.iter().fold(0, |n, b| n << 8 | i64::from(*b)).into();
    }
    bytes.iter().map(|b| format!("{b:02X}")).collect::<String>().into()
}

/// "Nov 27 21:54:32 2026 GMT", as OpenSSL writes it.
fn moment(time: &ASN1Time) -> Value {
    time.to_string().replace(" +00:00", " GMT").into()
}

/// "/C=DE/O=Example/CN=sip.example.com", as OpenSSL writes it on one line.
fn whole(name: &X509Name) -> Value {
    let mut text = String::new();
    for attribute in name.iter_attributes() {
        let oid = attribute.attr_type().to_id_string();
        let short = match oid.as_str() {
            "2.5.4.3" => "CN",
            "2.5.4.6" => "C",
            "2.5.4.7" => "L",
            "2.5.4.8" => "ST",
            "2.5.4.10" => "O",
            "2.5.4.11" => "OU",
            "1.2.840.113549.1.9.1" => "emailAddress",
            other => other,
        };
        text += &format!("/{short}={}", attribute.as_str().unwrap_or_default());
    }
    text.into()
}

fn part(name: &X509Name, oid: &str) -> Value {
    let found = name.iter_attributes().find(|a| a.attr_type().to_id_string() == oid);
    found.and_then(|a| a.as_str().ok()).map(str::to_owned).into()
}

/// The first alternative name of a kind.
fn alternative(certificate: &X509Certificate, kind: fn(&GeneralName) -> bool) -> Value {
    let names = certificate.subject_alternative_name().ok().flatten();
    let found = names.as_ref().and_then(|names| names.value.general_names.iter().find(|n| kind(n)));
    match found {
        Some(GeneralName::RFC822Name(text) | GeneralName::DNSName(text) | GeneralName::URI(text)) => {
            (*text).to_owned().into()
        }
        Some(GeneralName::IPAddress(bytes)) => {
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => std::net::IpAddr::from(v4).to_string().into(),
                (_, Ok(v6)) => std::net::IpAddr::from(v6).to_string().into(),
                _ => Value::Null,
            }
        }
        _ => Value::Null,
    }
}

/// "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" is "ECDHE-RSA-AES256-GCM-SHA384" in OpenSSL, and scripts.
fn openssl_name(iana: &str) -> String {
    if let Some(rest) = iana.strip_prefix("TLS13_") {
        return format!("TLS_{rest}");
    }
    let name = iana.trim_start_matches("TLS_").replace("_WITH_", "_");
    let name = name.replace("AES_256", "AES256").replace("AES_128", "AES128");
    name.replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305").replace('_', "-")
}

fn bits(cipher: &str) -> i64 {
    if cipher.contains("AES_128") { 128 } else { 256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ciphers() {
        for (iana, expected, size) in [
            ("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", 256),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", 128),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", 256),
        ] {
            assert_eq!((openssl_name(iana).as_str(), bits(iana)), (expected, size));
        }
    }

    #[test]
    fn fields_of_certificates() {
        let mut params = rcgen::CertificateParams::new(["sip.example.com".to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::IpAddress([10, 0, 0, 1].into()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in [
            (rcgen::DnType::CountryName, "DE"),
            (rcgen::DnType::OrganizationName, "Example"),
            (rcgen::DnType::CommonName, "sip.example.com"),
        ] {
            params.distinguished_name.push(kind, text);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let made: Arc<[u8]> = params.self_signed(&key).unwrap().der().as_ref().into();
        let field = |name: &str| {
            let (_, of) = OF_CERTIFICATE.iter().find(|(n, _)| n[0] == name).unwrap();
            String::from_utf8(read(Some(&made), of).to_text().to_vec()).unwrap()
        };
        assert_eq!(field("tls_peer_subject"), "/C=DE/O=Example/CN=sip.example.com");
        assert_eq!(
            (field("tls_peer_issuer_cn"), field("tls_peer_subject_country")),
            ("sip.example.com".into(), "DE".into())
        );
        assert_eq!(field("tls_peer_san_hostname"), "sip.example.com");
        assert_eq!(field("tls_peer_san_ip"), "10.0.0.1");
        let selfsigned = |c: &X509Certificate| OF_PEER[2].1(c, 0);
        assert_eq!(read(Some(&made), selfsigned), Value::Int(1));
        assert_eq!(read(None, OF_CERTIFICATE[0].1), Value::Null);
    }
}
