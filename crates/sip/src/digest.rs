//! Digest authentication (RFC 7616, RFC 8760 for SIP): credentials, challenges, responses.

use crate::params::split_value;
use crate::scan::{self, Nesting, starts_with_nocase, trim, unquoted};
use bytes::Bytes;
use md5::Md5;
use sha2::{Sha256, Sha512_256};

/// A digest algorithm (RFC 7616 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
    Sha512_256,
    Sha512_256Sess,
}

/// The one list of algorithms, in the order of the enum.
const ALGORITHMS: [(Algorithm, &str); 6] = [
    (Algorithm::Md5, "MD5"),
    (Algorithm::Md5Sess, "MD5-sess"),
    (Algorithm::Sha256, "SHA-256"),
    (Algorithm::Sha256Sess, "SHA-256-sess"),
    (Algorithm::Sha512_256, "SHA-512-256"),
    (Algorithm::Sha512_256Sess, "SHA-512-256-sess"),
];

impl Algorithm {
    /// Any case; `None` for one that is not ours.
    pub fn parse(text: &[u8]) -> Option<Algorithm> {
        ALGORITHMS.iter().find(|(_, name)| name.as_bytes().eq_ignore_ascii_case(text)).map(|&(a, _)| a)
    }

    /// As challenges name it: "MD5-sess".
    pub fn as_str(self) -> &'static str {
        ALGORITHMS[self as usize].1
    }

    /// The secret is hashed with the nonces of the session (RFC 7616 §3.4.2).
    pub fn is_sess(self) -> bool {
        matches!(self, Algorithm::Md5Sess | Algorithm::Sha256Sess | Algorithm::Sha512_256Sess)
    }

    /// Length of a hash as hexadecimal text: 32 or 64.
    pub fn hex_len(self) -> usize {
        if matches!(self, Algorithm::Md5 | Algorithm::Md5Sess) { 32 } else { 64 }
    }

    /// Lower-case hexadecimal hash of the parts joined with `:`.
    pub fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => hash::<Md5>(parts),
            Algorithm::Sha256 | Algorithm::Sha256Sess => hash::<Sha256>(parts),
            Algorithm::Sha512_256 | Algorithm::Sha512_256Sess => hash::<Sha512_256>(parts),
        }
    }
}

fn hash<D: sha2::Digest>(parts: &[&[u8]]) -> String {
    let mut state = D::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            state.update(b":");
        }
        state.update(part);
    }
    hex::encode(state.finalize())
}

/// Quality of protection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Qop {
    /// `auth`: the method and the URI are protected.
    Auth,
    /// `auth-int`: the body too.
    AuthInt,
}

impl Qop {
    /// One token, any case; `None` for what is not known.
    pub fn parse(text: &[u8]) -> Option<Qop> {
        [Qop::Auth, Qop::AuthInt].into_iter().find(|qop| qop.as_str().as_bytes().eq_ignore_ascii_case(text))
    }

    /// "auth", "auth-int"
    pub fn as_str(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }
}

/// Why credentials or a challenge cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DigestError {
    /// Basic, Bearer or another one.
    #[error("the scheme is not Digest")]
    OtherScheme,
    /// A value is missing or not quoted as it must be: which.
    #[error("malformed digest: {0}")]
    Malformed(&'static str),
    /// Its algorithm is not one of [`Algorithm`].
    #[error("unknown digest algorithm")]
    Algorithm,
    /// Its qop is not one of [`Qop`].
    #[error("unknown quality of protection")]
    Qop,
}

/// Credentials of a client: the value of Authorization or Proxy-Authorization, unquoted.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    /// Who it says it is.
    pub username: Bytes,
    /// The realm of the challenge that it answers.
    pub realm: Bytes,
    /// The nonce of that challenge.
    pub nonce: Bytes,
    /// The URI that the response was computed with; proxies may have changed that of the request since.
    pub uri: Bytes,
    /// Hexadecimal text as sent.
    pub response: Bytes,
    /// `None`: none named, which means MD5.
    pub algorithm: Option<Algorithm>,
    /// `None`: the client follows RFC 2069.
    pub qop: Option<Qop>,
    /// As sent, 8 hexadecimal digits; empty when absent.
    pub nc: Bytes,
    /// The client's own nonce; empty when absent.
    pub cnonce: Bytes,
    /// Text of the challenge that comes back unchanged.
    pub opaque: Option<Bytes>,
}

/// The text after the scheme word, when that is Digest.
fn digest_text(value: &Bytes) -> Result<Bytes, DigestError> {
    let value = scan::trim_bytes(value);
    let scheme_ends = value.get(6).is_none_or(|&b| scan::is_lws(b));
    if !starts_with_nocase(&value, b"Digest") || !scheme_ends {
        return Err(DigestError::OtherScheme);
    }
    Ok(value.slice(6..))
}

/// `name=value` members; one without `=` is malformed.
fn fields(text: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), DigestError>> {
    scan::list(text, Nesting::Quotes).map(move |(start, end)| match split_value(&text[start..end]) {
        (name, Some(value)) if scan::is_token_text(name) => {
            let open = value.first() == Some(&b'"') && scan::quoted_end(value, 0) != Some(value.len());
            if open { Err(DigestError::Malformed("quoted string")) } else { Ok((name, unquoted(value))) }
        }
        _ => Err(DigestError::Malformed("parameter without value")),
    })
}

/// One parameter of Digest credentials, unquoted; `None`: they have none of that name, or cannot be read.
pub fn parameter(value: &Bytes, name: &[u8]) -> Option<Bytes> {
    let text = digest_text(value).ok()?;
    let found = fields(&text).filter_map(Result::ok).find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| text.slice_ref(value))
}

type Named = [Option<Bytes>; 10];

/// The known parameters of credentials, first of several, in the order of `Credentials`.
fn named_fields(value: &Bytes) -> Result<Named, DigestError> {
    const NAMES: [&[u8]; 10] = [
        b"username",
        b"realm",
        b"nonce",
        b"uri",
        b"response",
        b"algorithm",
        b"qop",
        b"nc",
        b"cnonce",
        b"opaque",
    ];
    let text = digest_text(value)?;
    let mut found = Named::default();
    for field in fields(&text) {
        let (name, value) = field?;
        if let Some(n) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            found[n].get_or_insert_with(|| text.slice_ref(value));
        }
    }
    Ok(found)
}

/// What can be told of credentials that `Credentials::parse` refuses as malformed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// `None`: not named.
    pub realm: Option<Bytes>,
    /// The nonce (may be empty) when all mandatory parameters are there and a user is named; then
    /// only the form of one of them is wrong.
    pub complete: Option<Bytes>,
}

impl Outline {
    /// `None` when the header is not a list of `name=value`, or empty.
    pub fn parse(value: &Bytes) -> Option<Outline> {
        let [username, realm, nonce, uri, response, _, qop, nc, cnonce, _] = named_fields(value).ok()?;
        if digest_text(value).is_ok_and(|text| scan::trim(&text).is_empty()) {
            return None;
        }
        let counted = qop.is_none() || nc.is_some() && cnonce.is_some();
        let complete = username.is_some_and(|u| !u.is_empty())
            && realm.is_some()
            && uri.is_some()
            && response.is_some()
            && counted;
        Some(Outline { realm, complete: nonce.filter(|_| complete) })
    }
}

impl Credentials {
    /// Parses a header value; username, realm, nonce, uri and response are mandatory, and with
    /// `qop` also nc and cnonce (RFC 7616 §3.4). Of a repeated parameter the first counts.
    pub fn parse(value: &Bytes) -> Result<Credentials, DigestError> {
        let found = named_fields(value)?;
        let [username, realm, nonce, uri, response, algorithm, qop, nc, cnonce, opaque] = found;
        let algorithm = algorithm.map(|a| Algorithm::parse(&a).ok_or(DigestError::Algorithm)).transpose()?;
        let qop = qop.map(|q| Qop::parse(&q).ok_or(DigestError::Qop)).transpose()?;
        if qop.is_some() && !nc.as_deref().is_some_and(is_nonce_count) {
            return Err(DigestError::Malformed("nc"));
        }
        if qop.is_some() && cnonce.is_none() {
            return Err(DigestError::Malformed("no cnonce"));
        }
        let response = response.ok_or(DigestError::Malformed("no response"))?;
        if response.len() != algorithm.unwrap_or(Algorithm::Md5).hex_len() {
            return Err(DigestError::Malformed("response of wrong length"));
        }
        Ok(Credentials {
            username: username.filter(|u| !u.is_empty()).ok_or(DigestError::Malformed("no username"))?,
            realm: realm.ok_or(DigestError::Malformed("no realm"))?,
            nonce: nonce.filter(|n| !n.is_empty()).ok_or(DigestError::Malformed("no nonce"))?,
            uri: uri.ok_or(DigestError::Malformed("no uri"))?,
            response,
            algorithm,
            qop,
            nc: nc.unwrap_or_default(),
            cnonce: cnonce.unwrap_or_default(),
            opaque,
        })
    }

    /// The nonce count as a number; 0 when absent.
    pub fn nonce_count(&self) -> u32 {
        std::str::from_utf8(&self.nc).ok().and_then(|nc| u32::from_str_radix(nc, 16).ok()).unwrap_or(0)
    }

    /// User and domain of `user@domain` in username.
    pub fn user_and_domain(&self) -> (Bytes, Option<Bytes>) {
        match scan::find(&self.username, [b'@']) {
            Some(at) => (self.username.slice(..at), Some(self.username.slice(at + 1..))),
            None => (self.username.clone(), None),
        }
    }

    /// Is the response right for this `ha1` (hexadecimal, of user, realm and password, see `ha1`)?
    /// Compares in constant time. Whether nonce and uri are acceptable is the caller's to check.
    pub fn verify(&self, ha1: &str, method: &[u8], body: &[u8]) -> bool {
        let want = Response {
            algorithm: self.algorithm.unwrap_or(Algorithm::Md5),
            nonce: &self.nonce,
            qop: self.qop,
            nc: &self.nc,
            cnonce: &self.cnonce,
            method,
            uri: &self.uri,
            body,
        };
        let lower = self.response.to_ascii_lowercase();
        same_secret(want.compute(ha1).as_bytes(), &lower)
    }
}

fn is_nonce_count(text: &[u8]) -> bool {
    text.len() == 8 && text.iter().all(u8::is_ascii_hexdigit)
}

/// Equality in a time that depends only on the lengths.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y))) == 0
}

/// Hash of user, realm and password, hexadecimal: what databases store. For `-sess` algorithms the
/// session's part is added by `Response::compute`.
pub fn ha1(algorithm: Algorithm, user: &[u8], realm: &[u8], password: &[u8]) -> String {
    algorithm.hash(&[user, realm, password])
}

/// What a response is computed from (RFC 7616 §3.4.1).
pub struct Response<'a> {
    /// Whose hash it is.
    pub algorithm: Algorithm,
    /// The nonce of the challenge.
    pub nonce: &'a [u8],
    /// `None`: as RFC 2069 has it, without `nc` and `cnonce`.
    pub qop: Option<Qop>,
    /// Count of uses of the nonce, 8 hexadecimal digits.
    pub nc: &'a [u8],
    /// The client's own nonce.
    pub cnonce: &'a [u8],
    /// The method of the request.
    pub method: &'a [u8],
    /// The `uri` of the credentials.
    pub uri: &'a [u8],
    /// Only looked at for auth-int.
    pub body: &'a [u8],
}

impl Response<'_> {
    /// The response, lower-case hexadecimal.
    pub fn compute(&self, ha1: &str) -> String {
        let algorithm = self.algorithm;
        let session;
        let ha1 = if algorithm.is_sess() {
            session = algorithm.hash(&[ha1.as_bytes(), self.nonce, self.cnonce]);
            session.as_bytes()
        } else {
            ha1.as_bytes()
        };
        let ha2 = match self.qop {
            Some(Qop::AuthInt) => {
                algorithm.hash(&[self.method, self.uri, algorithm.hash(&[self.body]).as_bytes()])
            }
            _ => algorithm.hash(&[self.method, self.uri]),
        };
        match self.qop {
            Some(qop) => algorithm.hash(&[
                ha1,
                self.nonce,
                self.nc,
                self.cnonce,
                qop.as_str().as_bytes(),
                ha2.as_bytes(),
            ]),
            None => algorithm.hash(&[ha1, self.nonce, ha2.as_bytes()]),
        }
    }
}

/// Is the nonce of the credentials out of date while the secret was right?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// It is new, or the secret was wrong.
    No,
    /// The client need not ask its user again.
    Yes,
}

/// A challenge of a server: the value of WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    /// Whose password is asked for.
    pub realm: Bytes,
    /// To be used in the response.
    pub nonce: Bytes,
    /// In the order printed; empty for none.
    pub qop: Vec<Qop>,
    /// `None`: not named, which means MD5.
    pub algorithm: Option<Algorithm>,
    /// To be sent back unchanged; `None`: none.
    pub opaque: Option<Bytes>,
    /// Whether only the nonce was out of date.
    pub stale: Stale,
}

impl Challenge {
    /// The header's value: `Digest realm="..", nonce="..", ..`.
    pub fn print(&self) -> Bytes {
        let mut out = b"Digest realm=\"".to_vec();
        out.extend_from_slice(&self.realm);
        out.extend_from_slice(b"\", nonce=\"");
        out.extend_from_slice(&self.nonce);
        out.push(b'"');
        if !self.qop.is_empty() {
            let list: Vec<&str> = self.qop.iter().map(|qop| qop.as_str()).collect();
            out.extend_from_slice(format!(", qop=\"{}\"", list.join(",")).as_bytes());
        }
        if let Some(algorithm) = self.algorithm {
            out.extend_from_slice(format!(", algorithm={}", algorithm.as_str()).as_bytes());
        }
        if let Some(opaque) = &self.opaque {
            out.extend_from_slice(b", opaque=\"");
            out.extend_from_slice(opaque);
            out.push(b'"');
        }
        if self.stale == Stale::Yes {
            out.extend_from_slice(b", stale=true");
        }
        out.into()
    }

    /// Parses a challenge. Unknown qop values are passed over; when none is left of a list, or the
    /// algorithm is unknown, that is an error (RFC 7616 §3.3: such a challenge is to be ignored).
    pub fn parse(value: &Bytes) -> Result<Challenge, DigestError> {
        let text = digest_text(value)?;
        let (mut realm, mut nonce, mut opaque, mut algorithm) = (None, None, None, None);
        let (mut qop, mut stale) = (Vec::new(), Stale::No);
        for field in fields(&text) {
            let (name, value) = field?;
            let slice = || Some(text.slice_ref(value));
            match name.to_ascii_lowercase().as_slice() {
                b"realm" => realm = slice(),
                b"nonce" => nonce = slice(),
                b"opaque" => opaque = slice(),
                b"algorithm" => algorithm = Some(Algorithm::parse(value).ok_or(DigestError::Algorithm)?),
                b"stale" if value.eq_ignore_ascii_case(b"true") => stale = Stale::Yes,
                b"qop" => {
                    qop = value.split(|&b| b == b',').filter_map(|q| Qop::parse(trim(q))).collect();
                    if qop.is_empty() {
                        return Err(DigestError::Qop);
                    }
                }
                _ => {}
            }
        }
        let realm = realm.ok_or(DigestError::Malformed("no realm"))?;
        let nonce = nonce.ok_or(DigestError::Malformed("no nonce"))?;
        Ok(Challenge { realm, nonce, qop, algorithm, opaque, stale })
    }

    /// The value of the (Proxy-)Authorization that answers this challenge. Takes `auth` when
    /// offered, else `auth-int`. `cnonce` must be fresh and hold no quotes.
    pub fn answer(&self, request: &Answer<'_>) -> Bytes {
        let algorithm = self.algorithm.unwrap_or(Algorithm::Md5);
        let qop = self.qop.iter().copied().find(|q| *q == Qop::Auth).or(self.qop.first().copied());
        let nc = format!("{:08x}", request.nonce_count);
        let response = Response {
            algorithm,
            nonce: &self.nonce,
            qop,
            nc: nc.as_bytes(),
            cnonce: request.cnonce,
            method: request.method,
            uri: request.uri,
            body: request.body,
        };
        let response = response.compute(request.ha1);
        let mut out = b"Digest ".to_vec();
        let mut quoted = |name: &str, value: &[u8], end: &[u8]| {
            for part in [name.as_bytes(), b"=\"", value, b"\"", end] {
                out.extend_from_slice(part);
            }
        };
        quoted("username", request.user, b", ");
        quoted("realm", &self.realm, b", ");
        quoted("nonce", &self.nonce, b", ");
        quoted("uri", request.uri, b", ");
        if let Some(opaque) = &self.opaque {
            quoted("opaque", opaque, b", ");
        }
        if qop.is_some() || algorithm.is_sess() {
            quoted("cnonce", request.cnonce, b", ");
        }
        quoted("response", response.as_bytes(), b"");
        if let Some(qop) = qop {
            out.extend_from_slice(format!(", qop={}, nc={nc}", qop.as_str()).as_bytes());
        }
        out.extend_from_slice(format!(", algorithm={}", algorithm.as_str()).as_bytes());
        out.into()
    }
}

/// What a client knows when it answers a challenge.
pub struct Answer<'a> {
    /// The user name.
    pub user: &'a [u8],
    /// See `ha1`.
    pub ha1: &'a str,
    /// The method of the request.
    pub method: &'a [u8],
    /// Its Request-URI.
    pub uri: &'a [u8],
    /// Its body, for auth-int.
    pub body: &'a [u8],
    /// A nonce of the client's own.
    pub cnonce: &'a [u8],
    /// 1 for the first use of the nonce.
    pub nonce_count: u32,
}

#[cfg(test)]
mod tests;
