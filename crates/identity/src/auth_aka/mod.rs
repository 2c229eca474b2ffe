//! auth_aka: digest authentication with vectors of a mobile network (RFC 3310, 3GPP TS 24.229 §5.4.1).

pub mod vectors;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use host::vars::auth::Offered as Shown;
use host::{Accepts, Call, Ctx, Finish, OutVar, Outcome, Registrar, Routes, Suspension, Text, Value};
use modules::auth::{Auth, ChallengeKind};
use parking_lot::Mutex;
use sip::digest::{Algorithm, Credentials, Qop, ha1, parameter};
use sip::{HeaderName, Uri};
use std::pin::Pin;
use std::sync::Arc;
use vectors::{User, Vector, Vectors};

mod rc {
    pub const OK: i32 = 1;
    pub const INVALID_USER: i32 = -1;
    pub const INVALID_PASSWORD: i32 = -2;
    pub const UNKNOWN_NONCE: i32 = -3;
    pub const NO_CREDENTIALS: i32 = -4;
    pub const ERROR: i32 = -5;
    pub const RESYNC: i32 = -6;
}

/// RAND and AUTS, bytes (TS 29.229 §6.3.11).
const RAND: usize = 16;
const AUTS: usize = 14;

/// What a manager of vectors is asked for.
#[derive(Clone)]
pub struct Wanted {
    pub realm: Bytes,
    pub user: User,
    pub algorithm: Algorithm,
    /// RAND and AUTS of a phone whose counter is ahead.
    pub resync: Option<Vec<u8>>,
}

/// Vectors that are on their way; the error says why there are none.
pub type Coming = Pin<Box<dyn Future<Output = Result<Vec<Vector>, String>>>>;

/// Where vectors come from.
pub trait Manager: Send + Sync {
    /// Asks for vectors of one algorithm. The error says why that is not possible.
    fn fetch(&self, ctx: &mut Ctx, wanted: &Wanted) -> Result<Coming, String>;
}

pub struct AuthAka {
    auth: Option<Arc<Auth>>,
    manager: String,
    qop: String,
    algorithms: String,
    /// Milliseconds.
    timeout: u64,
    /// Seconds.
    unused: u64,
    pending: u64,
    vectors: Vectors,
    managers: Mutex<Vec<(&'static str, Arc<dyn Manager>)>>,
}

impl Default for AuthAka {
    fn default() -> AuthAka {
        AuthAka {
            auth: None,
            manager: String::new(),
            qop: "auth-int".into(),
            algorithms: "AKAv1-MD5".into(),
            timeout: 1000,
            unused: 60,
            pending: 30,
            vectors: Vectors::default(),
            managers: Mutex::default(),
        }
    }
}

pub fn register(m: &mut Registrar<AuthAka>) {
    m.param_text("default_av_mgm", |s, v| Ok(s.manager = v.into()));
    m.param_text("default_qop", |s, v| Ok(s.qop = v.into()));
    m.param_text("default_algorithm", |s, v| algorithms(v.as_bytes()).map(|_| s.algorithms = v.into()));
    m.param_int("async_timeout", |s, v| Ok(s.timeout = v as u64));
    m.param_int("unused_timeout", |s, v| Ok(s.unused = v as u64));
    m.param_int("pending_timeout", |s, v| Ok(s.pending = v as u64));
    m.accepts(Accepts::from(1).unit("ms"), &["async_timeout"]);
    m.accepts(Accepts::seconds(1), &["unused_timeout", "pending_timeout"]);
    m.ignored(&["hash_size"], "the table grows with its users");
    m.ignored(&["sync_timeout"], "no call blocks: async_timeout counts for all of them");
    m.function("aka_www_authorize", Routes::REQUEST, |call: &mut Call<AuthAka>, realm: Option<Text>| {
        authorize(call, realm, ChallengeKind::Www)
    });
    m.function("aka_proxy_authorize", Routes::REQUEST, |call: &mut Call<AuthAka>, realm: Option<Text>| {
        authorize(call, realm, ChallengeKind::Proxy)
    });
    m.function(
        "aka_www_challenge",
        Routes::REQUEST,
        |call: &mut Call<AuthAka>,
         mgm: Option<Text>,
         realm: Option<Text>,
         qop: Option<Text>,
         alg: Option<Text>| { challenge(call, [mgm, realm, qop, alg], ChallengeKind::Www) },
    );
    m.function(
        "aka_proxy_challenge",
        Routes::REQUEST,
        |call: &mut Call<AuthAka>,
         mgm: Option<Text>,
         realm: Option<Text>,
         qop: Option<Text>,
         alg: Option<Text>| { challenge(call, [mgm, realm, qop, alg], ChallengeKind::Proxy) },
    );
    m.function("aka_av_add", Routes::ALL, add);
    m.function(
        "aka_av_drop",
        Routes::ALL,
        |call: &mut Call<AuthAka>, public: Text, private: Text, nonce: Text| {
            call.module.vectors.forget(&(public.0, private.0), &nonce)
        },
    );
    m.function(
        "aka_av_drop_all",
        Routes::ALL,
        |call: &mut Call<AuthAka>, public: Text, private: Text, count: Option<OutVar>| {
            let dropped = call.module.vectors.forget_all(&(public.0, private.0));
            count.is_none_or(|count| count.set(call.ctx, Value::Int(dropped as i64)))
        },
    );
    m.needs(&["auth"]);
    m.init(|s, loader| {
        s.auth = loader.module::<Auth>();
        Ok(())
    });
    m.timer(1000, |call| call.module.vectors.expire(now(call.ctx), call.module.unused, call.module.pending));
}

impl AuthAka {
    /// Another module offers vectors under this name.
    pub fn offers(&self, name: &'static str, manager: Arc<dyn Manager>) {
        self.managers.lock().push((name, manager));
    }
}

fn now(ctx: &Ctx) -> u64 {
    ctx.core.wall_us / 1_000_000
}

/// `AKAv1-MD5,AKAv1-SHA-256`: the algorithms that hash the answer.
fn algorithms(text: &[u8]) -> Result<Vec<Algorithm>, String> {
    let known = |word: &[u8]| {
        let hash = word.strip_prefix(b"AKAv1-").and_then(Algorithm::parse);
        hash.ok_or_else(|| {
            format!("{} is none of AKAv1-MD5, AKAv1-SHA-256 ...", String::from_utf8_lossy(word))
        })
    };
    text.split(|b| *b == b',').map(|word| known(word.trim_ascii())).collect()
}

fn credentials(ctx: &Ctx, kind: ChallengeKind, realm: &[u8]) -> Option<(sip::Header, Bytes)> {
    let name = match kind {
        ChallengeKind::Www => HeaderName::Authorization,
        ChallengeKind::Proxy => HeaderName::ProxyAuthorization,
    };
    let msg = &ctx.state.msg;
    let mut all = msg.headers_of(name).map(|header| (*header, msg.text(header.value())));
    all.find(|(_, value)| parameter(value, b"realm").is_some_and(|found| found == realm))
}

/// Public and private identity: of To (From for a proxy), and the name in the credentials.
fn identities(ctx: &Ctx, kind: ChallengeKind, username: Option<Bytes>) -> Option<User> {
    let msg = &ctx.state.msg;
    let uri = match kind {
        ChallengeKind::Www => msg.to()?.uri,
        ChallengeKind::Proxy => msg.from()?.uri,
    };
    Uri::parse(&uri).ok()?;
    let end = uri.iter().position(|b| matches!(b, b';' | b'?')).unwrap_or(uri.len());
    let public = uri.slice(..end);
    let plain = public.iter().position(|b| *b == b':').map_or(public.clone(), |at| public.slice(at + 1..));
    Some((public, username.unwrap_or(plain)))
}

/// aka_www_authorize([realm])
fn authorize(call: &mut Call<AuthAka>, realm: Option<Text>, kind: ChallengeKind) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let realm =
        module.auth.as_ref().and_then(|auth| auth.realm(ctx, &realm.map(|r| r.0).unwrap_or_default()));
    let Some(realm) = realm else { return rc::ERROR };
    let Some((header, value)) = credentials(ctx, kind, &realm) else { return rc::NO_CREDENTIALS };
    let field = |name: &str| parameter(&value, name.as_bytes()).filter(|text| !text.is_empty());
    let Some(username) = field("username") else { return rc::INVALID_USER };
    let Some(user) = identities(ctx, kind, Some(username.clone())) else { return rc::ERROR };
    let Some(nonce) = field("nonce") else { return rc::UNKNOWN_NONCE };
    let named = field("algorithm").and_then(|name| algorithms(&name).ok());
    let Some(algorithm) = named.and_then(|list| list.first().copied()) else { return rc::UNKNOWN_NONCE };
    let Some(vector) = module.vectors.of_nonce(&user, &nonce, algorithm) else { return rc::UNKNOWN_NONCE };
    if field("auts").is_some() {
        return rc::RESYNC;
    }
    let (Some(uri), Some(response)) = (field("uri"), field("response")) else { return rc::ERROR };
    let offered = Credentials {
        username,
        realm: realm.clone(),
        nonce: nonce.clone(),
        uri,
        response,
        algorithm: Some(algorithm),
        qop: field("qop").and_then(|qop| Qop::parse(&qop)),
        nc: field("nc").unwrap_or_default(),
        cnonce: field("cnonce").unwrap_or_default(),
        opaque: field("opaque"),
    };
    // One answer for each challenge: nobody guesses.
    module.vectors.forget(&user, &nonce);
    let secret = ha1(algorithm, &offered.username, &realm, &vector.expected);
    let msg = ctx.state.msg.clone();
    if !offered.verify(&secret, &msg.method_text(), msg.bytes(msg.body())) {
        return rc::INVALID_PASSWORD;
    }
    Shown::offer(&mut ctx.state, header, &offered);
    Shown::verified(&mut ctx.state);
    rc::OK
}

/// A challenge that may still wait for vectors.
struct Challenge {
    realm: Bytes,
    user: User,
    qop: Bytes,
    kind: ChallengeKind,
    algorithms: Vec<Algorithm>,
}

/// aka_www_challenge([av_mgm], [realm], [qop], [algorithms])
fn challenge(call: &mut Call<AuthAka>, texts: [Option<Text>; 4], kind: ChallengeKind) -> Outcome {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let [manager, realm, qop, wanted] =
        texts.map(|text| text.map(|text| text.0).filter(|text| !text.is_empty()));
    let realm = module.auth.as_ref().and_then(|auth| auth.realm(ctx, &realm.unwrap_or_default()));
    let Some(realm) = realm else { return (-1).into() };
    let algorithms = match algorithms(&wanted.unwrap_or_else(|| module.algorithms.clone().into())) {
        Ok(list) => list,
        Err(why) => {
            host::error!("auth_aka", "no challenge: {why}");
            return (-1).into();
        }
    };
    let value = credentials(ctx, kind, &realm).map(|(_, value)| value);
    let field = |name: &str| {
        value.as_ref().and_then(|value| parameter(value, name.as_bytes())).filter(|text| !text.is_empty())
    };
    let Some(user) = identities(ctx, kind, field("username")) else { return (-1).into() };
    let resync = match (field("auts"), field("nonce")) {
        (Some(auts), Some(nonce)) => {
            module.vectors.forget_all(&user);
            let Some(resync) = resync(&nonce, &auts) else {
                host::notice!(
                    "auth_aka",
                    "auts or nonce of a phone that asks for another counter are broken"
                );
                return (-1).into();
            };
            Some(resync)
        }
        _ => None,
    };
    let qop = qop.unwrap_or_else(|| module.qop.clone().into());
    let at = now(ctx);
    let mut ready = Vec::new();
    let mut missing = Vec::new();
    for algorithm in &algorithms {
        match module.vectors.take(&user, *algorithm, at) {
            Some(vector) => ready.push((*algorithm, vector)),
            None => missing.push(*algorithm),
        }
    }
    let name = manager.unwrap_or_else(|| module.manager.clone().into());
    let found = module.managers.lock().iter().find(|(known, _)| known.as_bytes() == name).cloned();
    let asked = Challenge { realm, user, qop, kind, algorithms };
    let Some((_, manager)) = found.filter(|_| !missing.is_empty()) else {
        if !missing.is_empty() && ready.is_empty() {
            host::complain!(
                ctx,
                "auth_aka",
                "there is no vector, and no manager `{}`",
                String::from_utf8_lossy(&name)
            );
        }
        return reply(ctx, &asked, ready).into();
    };
    let mut coming = Vec::new();
    for algorithm in missing {
        let (realm, user) = (asked.realm.clone(), asked.user.clone());
        match manager.fetch(ctx, &Wanted { realm, user, algorithm, resync: resync.clone() }) {
            Ok(future) => coming.push(future),
            Err(why) => host::complain!(ctx, "auth_aka", "no vector: {why}"),
        }
    }
    let limit = module.timeout;
    Suspension::future("aka_challenge", async move {
        let mut found = Vec::new();
        for future in coming {
            found.push(future.await);
        }
        Box::new(move |ctx: &mut Ctx| {
            for vectors in found {
                match vectors {
                    Ok(list) => list.into_iter().for_each(|vector| {
                        if !module.vectors.add(&asked.user, vector, now(ctx)) {
                            host::warn!("auth_aka", "too many users have vectors: further ones are not kept");
                        }
                    }),
                    Err(why) => host::complain!(ctx, "auth_aka", "no vector: {why}"),
                }
            }
            let mut all = ready;
            for algorithm in &asked.algorithms {
                if all.iter().all(|(known, _)| known != algorithm) {
                    let vector = module.vectors.take(&asked.user, *algorithm, now(ctx));
                    all.extend(vector.map(|vector| (*algorithm, vector)));
                }
            }
            reply(ctx, &asked, all)
        }) as Finish
    })
    .limit(limit, -2)
}

/// RAND of the nonce that a phone refused, and its AUTS.
fn resync(nonce: &[u8], auts: &[u8]) -> Option<Vec<u8>> {
    let (nonce, auts) = (STANDARD.decode(nonce).ok()?, STANDARD.decode(auts).ok()?);
    Some([nonce.get(..RAND)?, auts.get(..AUTS)?].concat())
}

/// Sends the challenge, and says how many vectors it holds.
fn reply(ctx: &mut Ctx, asked: &Challenge, vectors: Vec<(Algorithm, Vector)>) -> i32 {
    if vectors.is_empty() {
        return -2;
    }
    let (label, code, reason): (_, u16, &[u8]) = match asked.kind {
        ChallengeKind::Www => ("WWW-Authenticate", 401, b"Unauthorized"),
        ChallengeKind::Proxy => ("Proxy-Authenticate", 407, b"Proxy Authentication Required"),
    };
    let count = vectors.len() as i32;
    for (algorithm, vector) in vectors {
        let Vector { nonce, ck, ik, .. } = vector;
        let algorithm = algorithm.as_str();
        let rest = format!("\", nonce=\"{nonce}\", algorithm=AKAv1-{algorithm}, ck=\"{ck}\", ik=\"{ik}\"");
        let mut line = [label.as_bytes(), b": Digest realm=\"", &asked.realm, rest.as_bytes()].concat();
        if !asked.qop.is_empty() {
            line.extend([b", qop=\"", &asked.qop[..], b"\""].concat());
        }
        line.extend(b"\r\n");
        ctx.state.reply_headers.push(line.into());
    }
    if host::reply::send(ctx, code, reason) > 0 { count } else { -5 }
}

/// aka_av_add(public, private, authenticate, authorize, ck, ik, [algorithms])
#[expect(clippy::too_many_arguments, reason = "they are those of the script function")]
fn add(
    call: &mut Call<AuthAka>,
    public: Text,
    private: Text,
    authenticate: Text,
    authorize: Text,
    ck: Text,
    ik: Text,
    wanted: Option<Text>,
) -> i32 {
    let Some(vector) = Vector::read(&authenticate, &authorize, &ck, &ik) else {
        host::error!("auth_aka", "aka_av_add: challenge, answer and keys are hexadecimal");
        return -1;
    };
    let algorithm = match wanted.map(|text| algorithms(&text)).transpose() {
        // One algorithm binds the vector to it, several leave it open.
        Ok(list) => list.filter(|list| list.len() == 1).map(|list| list[0]),
        Err(why) => {
            host::error!("auth_aka", "aka_av_add: {why}");
            return -1;
        }
    };
    let vector = Vector { algorithm, ..vector };
    let at = now(call.ctx);
    if call.module.vectors.add(&(public.0, private.0), vector, at) { 1 } else { -1 }
}
