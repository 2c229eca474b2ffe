//! uac_auth: credentials of this server as a client, and answers to challenges (RFC 3261 §22, RFC 8760).

use bytes::Bytes;
use host::Accepts;
use host::load::Loader;
use host::{Ctx, Registrar, Var};
use sip::digest::{Algorithm, Answer, Challenge, DigestError, Qop, ha1};
use sip::{HeaderName, Message};

/// A user name and password for a realm.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    pub user: Bytes,
    pub realm: Bytes,
    /// The password, or "0x" and the HA1 in hexadecimal.
    pub password: Bytes,
}

impl Credential {
    /// "user:realm:password"; the password may hold colons.
    fn parse(text: &str) -> Result<Credential, String> {
        let mut parts = text.splitn(3, ':').map(|p| Bytes::copy_from_slice(p.trim().as_bytes()));
        match (parts.next(), parts.next(), parts.next()) {
            (Some(user), Some(realm), Some(password)) if !user.is_empty() => {
                Ok(Credential { user, realm, password })
            }
            _ => Err("a credential is written user:realm:password".into()),
        }
    }

    /// HA1 for an algorithm; `None`: only the hash of another one is known.
    fn ha1(&self, algorithm: Algorithm, realm: &[u8]) -> Option<String> {
        let hash = self
            .password
            .strip_prefix(b"0x")
            .filter(|h| matches!(h.len(), 32 | 64) && h.iter().all(u8::is_ascii_hexdigit));
        match hash {
            Some(hash) if hash.len() == algorithm.hex_len() => {
                Some(String::from_utf8_lossy(hash).to_ascii_lowercase())
            }
            Some(_) => None,
            None => Some(ha1(algorithm, &self.user, realm, &self.password)),
        }
    }
}

#[derive(Default)]
pub struct UacAuth {
    credentials: Vec<Credential>,
    realm_text: String,
    user_text: String,
    password_text: String,
    /// (realm, user, password)
    avps: Option<(Var, Var, Var)>,
}

pub fn register(m: &mut Registrar<UacAuth>) {
    m.param_text("credential", |s, v| {
        s.credentials.push(Credential::parse(v)?);
        Ok(())
    });
    m.param_text("auth_realm_avp", |s, v| Ok(s.realm_text = v.into()));
    m.param_text("auth_username_avp", |s, v| Ok(s.user_text = v.into()));
    m.param_text("auth_password_avp", |s, v| Ok(s.password_text = v.into()));
    m.accepts(Accepts::AVP, &["auth_password_avp", "auth_realm_avp", "auth_username_avp"]);
    m.init(init);
}

fn init(s: &mut UacAuth, loader: &mut Loader) -> Result<(), String> {
    let texts = [&s.realm_text, &s.user_text, &s.password_text];
    if texts.iter().all(|t| t.is_empty()) {
        return Ok(());
    }
    if texts.iter().any(|t| t.is_empty()) {
        return Err("auth_realm_avp, auth_username_avp and auth_password_avp come together".into());
    }
    let mut variable = |text: &str| -> Result<Var, String> {
        let spec = script::parse_variable(&text.to_string().into(), script::Loc::default());
        spec.and_then(|spec| loader.var(&spec)).map_err(|d| d.message)
    };
    s.avps = Some((variable(&s.realm_text)?, variable(&s.user_text)?, variable(&s.password_text)?));
    Ok(())
}

impl UacAuth {
    /// The credential for a realm: that of the message's AVPs, else a configured one.
    pub fn lookup(&self, ctx: &mut Ctx, realm: &[u8]) -> Option<Credential> {
        if let Some((realm_var, user, password)) = &self.avps
            && let Some(found) = realm_var.get(ctx).text().filter(|r| &r[..] == realm)
            && let (Some(user), Some(password)) = (user.get(ctx).text(), password.get(ctx).text())
        {
            return Some(Credential { user, realm: found, password });
        }
        self.credentials.iter().find(|c| &c.realm[..] == realm).cloned()
    }
}

/// A challenge that can be answered.
pub struct Challenged {
    /// Authorization or Proxy-Authorization.
    pub header: &'static str,
    pub challenge: Challenge,
    pub credential: Credential,
    ha1: String,
}

/// The first challenge of a 401 or 407 whose algorithm is known (and one of `algorithms`, unless that is empty) and
/// whose realm has a credential.
pub fn choose(
    reply: &Message,
    algorithms: &[Algorithm],
    mut lookup: impl FnMut(&[u8]) -> Option<Credential>,
) -> Option<Challenged> {
    let (name, header) = match reply.status() {
        401 => (HeaderName::WwwAuthenticate, "Authorization"),
        407 => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
        _ => return None,
    };
    for line in reply.headers_of(name) {
        let challenge = match Challenge::parse(&reply.text(line.value())) {
            Ok(challenge) => challenge,
            Err(DigestError::Malformed(why)) => {
                host::info!("uac_auth", "a challenge is passed over: {why}");
                continue;
            }
            Err(_) => continue,
        };
        let algorithm = challenge.algorithm.unwrap_or(Algorithm::Md5);
        if !algorithms.is_empty() && !algorithms.contains(&algorithm) {
            continue;
        }
        if let Some(credential) = lookup(&challenge.realm)
            && let Some(ha1) = credential.ha1(algorithm, &challenge.realm)
        {
            return Some(Challenged { header, challenge, credential, ha1 });
        }
    }
    None
}

impl Challenged {
    /// The header line that answers, for a request of this method, URI and body.
    pub fn line(&self, ctx: &mut Ctx, method: &[u8], uri: &[u8], body: &[u8], nonce_count: u32) -> Bytes {
        let cnonce = format!("{:016x}", ctx.core.rng.next_u64());
        let answer = Answer {
            user: &self.credential.user,
            ha1: &self.ha1,
            method,
            uri,
            body,
            cnonce: cnonce.as_bytes(),
            nonce_count,
        };
        [self.header.as_bytes(), b": ", &self.challenge.answer(&answer), b"\r\n"].concat().into()
    }

    /// The answer covers the body.
    pub fn is_over_body(&self) -> bool {
        self.challenge.qop == [Qop::AuthInt]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_written_with_colons() {
        let credential = Credential::parse("alice:example.com:se:cret").expect("a credential");
        assert_eq!((&credential.realm[..], &credential.password[..]), (&b"example.com"[..], &b"se:cret"[..]));
        assert!(Credential::parse("alice:example.com").is_err());
        assert!(Credential::parse(":r:p").is_err());
    }

    #[test]
    fn a_hash_answers_only_its_own_algorithm() {
        let plain = Credential::parse("bob:biloxi.com:zanzibar").expect("a credential");
        let md5 = plain.ha1(Algorithm::Md5, b"biloxi.com").expect("a hash");
        let hashed = Credential { password: format!("0x{md5}").into(), ..plain };
        assert_eq!(hashed.ha1(Algorithm::Md5, b"biloxi.com"), Some(md5));
        assert_eq!(hashed.ha1(Algorithm::Sha256, b"biloxi.com"), None);
    }

    #[test]
    fn the_first_challenge_that_can_be_answered_is_taken() {
        let reply = "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP a\r\nWWW-Authenticate: Basic realm=\"r\"\r\n\
            WWW-Authenticate: Digest realm=\"other\", nonce=\"1\"\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"2\", \
            algorithm=SHA-999\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"3\", algorithm=SHA-256, qop=\"auth\"\r\n\
            WWW-Authenticate: Digest realm=\"r\", nonce=\"4\"\r\nContent-Length: 0\r\n\r\n";
        let reply = Message::parse(reply.into()).expect("a reply");
        let lookup =
            |realm: &[u8]| (realm == b"r").then(|| Credential::parse("u:r:p").expect("a credential"));
        let chosen = |list: &[Algorithm]| choose(&reply, list, lookup).map(|c| c.challenge.nonce);
        assert_eq!(chosen(&[]).as_deref(), Some(&b"3"[..]));
        assert_eq!(chosen(&[Algorithm::Md5]).as_deref(), Some(&b"4"[..]));
        assert_eq!(chosen(&[Algorithm::Sha512_256]), None);
    }
}
