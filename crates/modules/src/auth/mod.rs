//! auth: digest challenges and checks (RFC 3261 §22, RFC 7616, RFC 8760).

mod nonce;

use bytes::Bytes;
use host::Accepts;
use host::load::Loader;
use host::registrar::ParamFn;
use host::vars::auth::Offered as Shown;
use host::{Call, Ctx, Head, Registrar, Routes, Text, Var};
use nonce::{Nonces, Offer, Worth};
use sip::digest::{Algorithm, Challenge, Credentials, DigestError, Outline, Qop, Stale, ha1};
use sip::{HeaderName, Method, Uri};
use std::sync::Arc;

/// Results of an authorization, as scripts see them.
pub mod rc {
    pub const OK: i32 = 1;
    pub const INVALID_USER: i32 = -1;
    pub const INVALID_PASSWORD: i32 = -2;
    pub const STALE: i32 = -3;
    pub const NO_CREDENTIALS: i32 = -4;
    pub const ERROR: i32 = -5;
    /// A reply went out: the script ends.
    pub const REPLIED: i32 = 0;
}

/// Who asks: a registrar or user agent server (401), or a proxy (407).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChallengeKind {
    Www,
    Proxy,
}

impl ChallengeKind {
    fn credentials(self) -> HeaderName {
        match self {
            ChallengeKind::Www => HeaderName::Authorization,
            ChallengeKind::Proxy => HeaderName::ProxyAuthorization,
        }
    }
}

pub struct Auth {
    secret: Option<String>,
    lifetime: u32,
    once: bool,
    calculate_ha1: bool,
    realm_prefix: String,
    username_text: String,
    password_text: String,
    username: Option<Var>,
    password: Option<Var>,
    rpid_text: String,
    rpid: Option<Var>,
    rpid_prefix: String,
    rpid_suffix: String,
    nonces: Option<Nonces>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            secret: None,
            lifetime: 30,
            once: true,
            calculate_ha1: false,
            realm_prefix: String::new(),
            username_text: String::new(),
            password_text: String::new(),
            username: None,
            password: None,
            rpid_text: "$avp(rpid)".into(),
            rpid: None,
            rpid_prefix: String::new(),
            rpid_suffix: ";party=calling;id-type=subscriber;screen=yes".into(),
            nonces: None,
        }
    }
}

pub fn register(m: &mut Registrar<Auth>) {
    m.param_text("secret", |s, v| Ok(s.secret = Some(v.into())));
    m.param_int("nonce_expire", |s, v| Ok(s.lifetime = v.clamp(1, 86_400) as u32));
    m.param_int("disable_nonce_check", |s, v| Ok(s.once = v == 0));
    m.param_int("calculate_ha1", |s, v| Ok(s.calculate_ha1 = v != 0));
    m.param_text("realm_prefix", |s, v| Ok(s.realm_prefix = v.into()));
    m.param_text("username_spec", |s, v| Ok(s.username_text = v.into()));
    m.param_text("password_spec", |s, v| Ok(s.password_text = v.into()));
    m.param_text("rpid_avp", |s, v| Ok(s.rpid_text = v.into()));
    m.param_text("rpid_prefix", |s, v| Ok(s.rpid_prefix = v.into()));
    m.param_text("rpid_suffix", |s, v| Ok(s.rpid_suffix = v.into()));
    m.accepts(Accepts::seconds(0), &["nonce_expire"]);
    m.accepts(Accepts::VARIABLE, &["password_spec", "rpid_avp", "username_spec"]);
    m.param("opt", ParamFn::Ignored("not a parameter of any version with a meaning"));
    m.function("www_challenge", Routes::REQUEST, www_challenge);
    m.function("proxy_challenge", Routes::REQUEST, proxy_challenge);
    m.function("pv_www_authorize", Routes::REQUEST, |call: &mut Call<Auth>, realm: Text| {
        pv_authorize(call, realm, ChallengeKind::Www)
    });
    m.function("pv_proxy_authorize", Routes::REQUEST, |call: &mut Call<Auth>, realm: Text| {
        pv_authorize(call, realm, ChallengeKind::Proxy)
    });
    m.function("consume_credentials", Routes::REQUEST, consume_credentials);
    m.function("is_rpid_user_e164", Routes::REQUEST, is_rpid_user_e164);
    let anywhere = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("append_rpid_hf", anywhere, append_rpid_hf);
    m.needs(&["signaling"]);
    m.init(init);
}

fn init(s: &mut Auth, loader: &mut Loader) -> Result<(), String> {
    let mut variable = |text: &str| -> Result<Option<Var>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let spec = script::parse_variable(&Bytes::copy_from_slice(text.as_bytes()), script::Loc::default());
        spec.and_then(|spec| loader.var(&spec)).map(Some).map_err(|d| d.message)
    };
    s.username = variable(&s.username_text)?;
    s.password = variable(&s.password_text)?;
    s.rpid = variable(&s.rpid_text)?;
    let secret = s.secret.clone().unwrap_or_else(|| loader.random_secret());
    s.nonces = Some(Nonces::new(secret, s.lifetime, s.once));
    Ok(())
}

/// What came with the request for this realm.
pub enum Offered {
    /// The script gets this return code.
    Verdict(i32),
    Credentials(Box<Credentials>),
}

impl Auth {
    fn nonces(&self) -> &Nonces {
        self.nonces.as_ref().expect("made by init")
    }

    /// The realm to use: given, or the domain of To (REGISTER) or From without `realm_prefix`.
    pub fn realm(&self, ctx: &Ctx, given: &Bytes) -> Option<Bytes> {
        if !given.is_empty() {
            return Some(given.clone());
        }
        let msg = &ctx.state.msg;
        let address = if msg.method() == Method::Register { msg.to() } else { msg.from() };
        let host = Uri::parse(&address?.uri).ok()?.host;
        let prefix = self.realm_prefix.as_bytes();
        let cut = !prefix.is_empty() && host.len() > prefix.len() && host.starts_with(prefix);
        Some(if cut { host.slice(prefix.len()..) } else { host })
    }

    /// The credentials of the request for a realm. ACK and CANCEL are let through, malformed
    /// credentials are answered with 400. As in the reference, those that name another realm or none
    /// are passed over before their form is looked at, and the nonce is looked at before the rest.
    pub fn offered(&self, ctx: &mut Ctx, kind: ChallengeKind, realm: &Bytes) -> Offered {
        let msg = ctx.state.msg.clone();
        if matches!(msg.method(), Method::Ack | Method::Cancel) {
            return Offered::Verdict(rc::OK);
        }
        for header in msg.headers_of(kind.credentials()) {
            match Credentials::parse(&msg.text(header.value())) {
                Ok(found) if found.realm == *realm => {
                    Shown::offer(&mut ctx.state, *header, &found);
                    return Offered::Credentials(Box::new(found));
                }
                Ok(_) | Err(DigestError::OtherScheme | DigestError::Algorithm | DigestError::Qop) => {}
                Err(DigestError::Malformed(_)) => {
                    let outline = Outline::parse(&msg.text(header.value()));
                    if outline.as_ref().is_some_and(|o| o.realm.as_ref() != Some(realm)) {
                        continue;
                    }
                    return Offered::Verdict(self.malformed(ctx, outline.and_then(|o| o.complete)));
                }
            }
        }
        Offered::Verdict(rc::NO_CREDENTIALS)
    }

    /// Credentials for our realm that cannot be read: 400, or a new challenge when they were made for
    /// a nonce that is none of ours any more.
    fn malformed(&self, ctx: &mut Ctx, nonce: Option<Bytes>) -> i32 {
        let now = (ctx.core.wall_us / 1_000_000) as u32;
        if nonce.is_some_and(|nonce| !self.nonces().is_fresh(&nonce, now)) {
            ctx.state.ext.set(WasStale(true));
            return rc::STALE;
        }
        host::reply::send(ctx, 400, b"Bad Request");
        rc::REPLIED
    }

    /// Checks the digest: `ha1` in hexadecimal, of the algorithm that the credentials name.
    pub fn verify(&self, ctx: &mut Ctx, credentials: &Credentials, ha1: &str) -> i32 {
        if let Err(rc) = self.admissible(ctx, credentials) {
            return rc;
        }
        let msg = ctx.state.msg.clone();
        // A recording may have the digest crossed out: it knows what was found then.
        let question = || {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (name, nonce) = (text(&credentials.username), text(&credentials.nonce));
            format!("{name} {nonce} {} {}", text(&credentials.nc), text(&credentials.cnonce))
        };
        let live = || credentials.verify(ha1, &msg.method_text(), msg.bytes(msg.body()));
        if !host::tape::at_once("digest-known", question, live).unwrap_or(false) {
            return rc::INVALID_PASSWORD;
        }
        self.spend(ctx, credentials)
    }

    /// The nonce is ours and not too old, and its challenge offered this algorithm and qop; else the code for the
    /// script. A digest made for another URI is let through: proxies on the way change Request-URIs (RFC 3261
    /// §22.4), and what protects the request is the response.
    pub fn admissible(&self, ctx: &mut Ctx, credentials: &Credentials) -> Result<(), i32> {
        let now = (ctx.core.wall_us / 1_000_000) as u32;
        let good = self.nonces().is_fresh(&credentials.nonce, now) && self.nonces().was_offered(credentials);
        if !good {
            ctx.state.ext.set(WasStale(true));
            return Err(rc::STALE);
        }
        if !meant_for(ctx, credentials) {
            let msg = &ctx.state.msg;
            host::notice!(
                "auth",
                "{}: the digest of {} was made for {}, the Request-URI is {}",
                String::from_utf8_lossy(&msg.call_id().unwrap_or_default()),
                String::from_utf8_lossy(&credentials.username),
                String::from_utf8_lossy(&credentials.uri),
                String::from_utf8_lossy(&msg.request_uri()),
            );
        }
        Ok(())
    }

    /// Uses the nonce, once the secret is known to be right.
    pub fn spend(&self, ctx: &mut Ctx, credentials: &Credentials) -> i32 {
        let now = (ctx.core.wall_us / 1_000_000) as u32;
        let count = if credentials.qop.is_some() { credentials.nonce_count() } else { 0 };
        let (msg, secret) = (&ctx.state.msg, &ctx.core.shared.tag_secret);
        let branch = msg.via().and_then(|via| via.branch());
        let request = secret.hash_one(&(branch, msg.call_id(), msg.cseq_parts(), ctx.state.source.remote));
        match self.nonces().take(&credentials.nonce, count, request, now) {
            Worth::Good => {
                Shown::verified(&mut ctx.state);
                rc::OK
            }
            Worth::Stale => {
                ctx.state.ext.set(WasStale(true));
                rc::STALE
            }
        }
    }

    /// HA1 from a password, or the given one.
    pub fn ha1_of(credentials: &Credentials, realm: &[u8], password: &[u8], plain: bool) -> String {
        if plain {
            let algorithm = credentials.algorithm.unwrap_or(Algorithm::Md5);
            ha1(algorithm, &credentials.username, realm, password)
        } else {
            String::from_utf8_lossy(password).into_owned()
        }
    }
}

/// The last check found an old nonce: the challenge says so.
#[derive(Clone, Copy, Default)]
struct WasStale(bool);

/// The digest was made for this request, as far as one can tell: same URI, or the same user and host (user agents
/// differ in parameters), or this server's own address (SIPp and others).
fn meant_for(ctx: &Ctx, credentials: &Credentials) -> bool {
    let request_uri = ctx.state.msg.request_uri();
    if credentials.uri == request_uri {
        return true;
    }
    let (Ok(digest), Ok(request)) = (Uri::parse(&credentials.uri), Uri::parse(&request_uri)) else {
        return false;
    };
    let same_user = digest.user == request.user;
    same_user && digest.host.eq_ignore_ascii_case(&request.host)
        || (same_user || digest.user.is_none()) && ctx.shared().is_own(&digest)
}

fn www_challenge(
    call: &mut Call<Auth>,
    realm: Head,
    qop: Option<host::Value>,
    algorithms: Option<AlgorithmsArg>,
) -> i32 {
    challenge(call, &realm.0, qop, algorithms, ChallengeKind::Www)
}

fn proxy_challenge(
    call: &mut Call<Auth>,
    realm: Head,
    qop: Option<host::Value>,
    algorithms: Option<AlgorithmsArg>,
) -> i32 {
    challenge(call, &realm.0, qop, algorithms, ChallengeKind::Proxy)
}

/// Algorithms of a challenge, strongest first; unknown names in a constant are a load error.
pub struct AlgorithmsArg(Vec<Algorithm>);

fn algorithms_in(text: &[u8]) -> Result<Vec<Algorithm>, String> {
    let mut list = Vec::new();
    for word in text.split(|b| *b == b',').map(|w| w.trim_ascii()).filter(|w| !w.is_empty()) {
        let unknown = || format!("unknown digest algorithm {}", String::from_utf8_lossy(word));
        list.push(Algorithm::parse(word).ok_or_else(unknown)?);
    }
    list.sort_by_key(|a: &Algorithm| (std::cmp::Reverse(strength(*a)), !a.is_sess()));
    list.dedup();
    Ok(list)
}

fn strength(algorithm: Algorithm) -> u8 {
    let name = algorithm.as_str();
    if name.starts_with("SHA-512") {
        3
    } else if name.starts_with("SHA-256") {
        2
    } else {
        1
    }
}

impl host::Arg<Auth> for AlgorithmsArg {
    type Prepared = host::Format;
    const WHAT: &'static str = "a list of digest algorithms";

    fn prepare(
        arg: Option<&script::ast::Arg>,
        site: script::Loc,
        loader: &mut Loader,
        module: &Arc<Auth>,
    ) -> Result<host::Format, script::Diagnostic> {
        let format = <Text as host::Arg<Auth>>::prepare(arg, site, loader, module)?;
        if let Some(text) = format.constant() {
            algorithms_in(text).map_err(|e| {
                script::Diagnostic::error(arg.map_or(site, |a| a.loc), e)
                    .hint("MD5, SHA-256, SHA-512-256, each with -sess")
            })?;
        }
        Ok(format)
    }

    fn eval(format: &host::Format, call: &mut Call<'_, Auth>) -> Result<AlgorithmsArg, i32> {
        algorithms_in(&format.text(call.ctx)).map(AlgorithmsArg).map_err(|e| {
            host::error!("auth", "{e}");
            -1
        })
    }
}

/// `qop` is a text; 3.0 took 0 (none) or 1 ("auth").
fn challenge(
    call: &mut Call<Auth>,
    realm: &Bytes,
    qop: Option<host::Value>,
    algorithms: Option<AlgorithmsArg>,
    kind: ChallengeKind,
) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some(realm) = module.realm(ctx, realm) else {
        return if host::reply::send(ctx, 400, b"Bad Request") > 0 { 0 } else { -1 };
    };
    let qop = match qop {
        Some(host::Value::Int(1)) => vec![Qop::Auth],
        // As 2.1 writes that there is none, or left empty.
        Some(value) if value.text().is_some_and(|text| text.is_empty() || text == "0") => Vec::new(),
        Some(value) => {
            let list = qops(&value.text().unwrap_or_default());
            if list.is_empty() {
                host::complain!(ctx, "auth", "a challenge takes a qop of auth, auth-int or both");
                return -1;
            }
            list
        }
        None => Vec::new(),
    };
    let stale = ctx.state.ext.find::<WasStale>().is_some_and(|w| w.0);
    let named = algorithms.map(|a| a.0).unwrap_or_default();
    let list: Vec<Option<Algorithm>> =
        if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() };
    let (label, code, reason): (_, u16, &[u8]) = match kind {
        ChallengeKind::Www => ("WWW-Authenticate", 401, b"Unauthorized"),
        ChallengeKind::Proxy => ("Proxy-Authenticate", 407, b"Proxy Authentication Required"),
    };
    let now = (ctx.core.wall_us / 1_000_000) as u32;
    for algorithm in list {
        // RFC 8760 asks for qop with the newer algorithms.
        let qop = if qop.is_empty() && algorithm.is_some() { vec![Qop::Auth] } else { qop.clone() };
        let nonce = module.nonces().make(now, Offer::new(algorithm, &qop), ctx.core.rng.next_u64());
        let challenge = Challenge {
            realm: realm.clone(),
            nonce: nonce.into(),
            qop,
            algorithm,
            opaque: None,
            stale: if stale { Stale::Yes } else { Stale::No },
        };
        let line = [label.as_bytes(), b": ", &challenge.print(), b"\r\n"].concat();
        ctx.state.reply_headers.push(line.into());
    }
    if host::reply::send(ctx, code, reason) > 0 { 0 } else { -1 }
}

/// As the reference prints them: auth-int before auth.
fn qops(text: &[u8]) -> Vec<Qop> {
    let mut list: Vec<Qop> = text.split(|b| *b == b',').filter_map(|w| Qop::parse(w.trim_ascii())).collect();
    list.sort_by_key(|q| *q == Qop::Auth);
    list.dedup();
    list
}

fn pv_authorize(call: &mut Call<Auth>, realm: Text, kind: ChallengeKind) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some(realm) = module.realm(ctx, &realm.0) else { return rc::ERROR };
    let credentials = match module.offered(ctx, kind, &realm) {
        Offered::Verdict(rc) => return rc,
        Offered::Credentials(found) => found,
    };
    let (Some(username), Some(password)) = (&module.username, &module.password) else {
        host::error!("auth", "pv_*_authorize needs the parameters username_spec and password_spec");
        return rc::ERROR;
    };
    let (Some(user), Some(password)) = (username.get(ctx).text(), password.get(ctx).text()) else {
        return rc::ERROR;
    };
    if credentials.username != user {
        return rc::INVALID_USER;
    }
    let ha1 = Auth::ha1_of(&credentials, &realm, &password, module.calculate_ha1);
    module.verify(ctx, &credentials, &ha1)
}

fn consume_credentials(call: &mut Call<Auth>) -> i32 {
    match Shown::header(call.ctx) {
        Some(header) => {
            call.ctx.state.edits.delete(header.whole());
            1
        }
        None => -1,
    }
}

fn rpid(call: &mut Call<Auth>) -> Option<Bytes> {
    let module = call.module.clone();
    module.rpid.as_ref()?.get(call.ctx).head()
}

fn is_rpid_user_e164(call: &mut Call<Auth>) -> bool {
    let Some(rpid) = rpid(call) else { return false };
    let uri = sip::NameAddr::parse(&rpid).map_or(rpid.clone(), |n| n.uri);
    let user = Uri::parse(&uri).ok().and_then(|u| u.user).unwrap_or(rpid);
    match user.strip_prefix(b"+") {
        Some(digits) => (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        None => false,
    }
}

fn append_rpid_hf(call: &mut Call<Auth>, prefix: Option<Head>, suffix: Option<Head>) -> i32 {
    let Some(rpid) = rpid(call) else { return -1 };
    let module = call.module.clone();
    let prefix = prefix.map_or_else(|| Bytes::copy_from_slice(module.rpid_prefix.as_bytes()), |p| p.0);
    let suffix = suffix.map_or_else(|| Bytes::copy_from_slice(module.rpid_suffix.as_bytes()), |s| s.0);
    let line = [b"Remote-Party-ID: ", &prefix[..], &rpid, &suffix, b"\r\n"].concat();
    call.ctx.state.edits.insert(sip::Anchor::End, line);
    1
}
