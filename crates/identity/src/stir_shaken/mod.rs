//! stir_shaken: signs who calls, and checks what others signed (RFC 8224, RFC 8225, RFC 8226, RFC 8588).

mod passport;
#[cfg(test)]
mod tests;
pub(crate) mod trust;
mod verify;

use bytes::Bytes;
use host::load::{LoadError, Loader};
use host::mi::{MiAnswer, MiError, MiParams};
use host::var::{At, VarKind, Variable};
use host::{Arg, Call, Ctx, Finish, Head, OutVar, Registrar, Routes, Text, Value};
use parking_lot::RwLock;
use passport::{Identity, New};
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use serde_json::json;
use sip::{Anchor, HeaderName, Message};
use std::sync::Arc;
use trust::{Chain, Trust};
use verify::number;

/// Reading authorities and lists again takes at most this long, milliseconds.
const RELOAD_MS: u64 = 30_000;

pub struct StirShaken {
    /// Seconds.
    auth_freshness: i64,
    verify_freshness: i64,
    numbers: Numbers,
    require_date: bool,
    ca_list: Option<String>,
    ca_dir: Option<String>,
    crl_list: Option<String>,
    crl_dir: Option<String>,
    trust: RwLock<Arc<Trust>>,
}

/// What counts as a telephone number.
#[derive(Clone, Copy)]
struct Numbers {
    /// `+` is there, and the URI says that its user is one.
    strict: bool,
    /// Digits.
    longest: usize,
}

impl Default for StirShaken {
    fn default() -> StirShaken {
        StirShaken {
            auth_freshness: 60,
            verify_freshness: 60,
            numbers: Numbers { strict: false, longest: 15 },
            require_date: true,
            ca_list: None,
            ca_dir: None,
            crl_list: None,
            crl_dir: None,
            trust: RwLock::default(),
        }
    }
}

pub fn register(m: &mut Registrar<StirShaken>) {
    m.param_int("auth_date_freshness", |s, n| Ok(s.auth_freshness = n));
    m.param_int("verify_date_freshness", |s, n| Ok(s.verify_freshness = n));
    m.param_text("ca_list", |s, path| Ok(s.ca_list = Some(path.into())));
    m.param_text("ca_dir", |s, path| Ok(s.ca_dir = Some(path.into())));
    m.param_text("crl_list", |s, path| Ok(s.crl_list = Some(path.into())));
    m.param_text("crl_dir", |s, path| Ok(s.crl_dir = Some(path.into())));
    m.param_int("e164_strict_mode", |s, n| Ok(s.numbers.strict = n != 0));
    m.param_int("e164_max_length", |s, n| {
        s.numbers.longest = usize::try_from(n).map_err(|_| "e164_max_length is a number of digits")?;
        Ok(())
    });
    m.param_int("require_date_hdr", |s, n| Ok(s.require_date = n != 0));
    m.init_with_files(|s, _| Ok(*s.trust.write() = Arc::new(s.read()?)));
    m.function("stir_shaken_auth", Routes::REQUEST, auth);
    m.function("stir_shaken_verify", Routes::REQUEST, verify::verify);
    m.function("stir_shaken_check", Routes::REQUEST, verify::check);
    m.function("stir_shaken_check_cert", Routes::REQUEST, check_cert);
    m.function("stir_shaken_disengagement", Routes::REQUEST, disengagement);
    m.variable_class("identity", identity_variable);
    m.command_late("stir_shaken:ca_reload stir_shaken_ca_reload", "reads the authorities again", ca_reload)
        .takes("");
    m.command_late(
        "stir_shaken:crl_reload stir_shaken_crl_reload",
        "reads the revocation lists again",
        crl_reload,
    )
    .takes("");
}

impl StirShaken {
    fn read(&self) -> Result<Trust, LoadError> {
        let text = |setting: &'_ Option<String>| setting.clone();
        let (ca, ca_dir, crl, crl_dir) =
            (text(&self.ca_list), text(&self.ca_dir), text(&self.crl_list), text(&self.crl_dir));
        Trust::read([ca.as_deref(), ca_dir.as_deref()], [crl.as_deref(), crl_dir.as_deref()])
    }
}

fn now(ctx: &Ctx) -> i64 {
    (ctx.core.wall_us / 1_000_000) as i64
}

/// How much a number counts for: `A` for the caller and the number, `B` for the caller, `C` for neither.
struct Attest(&'static str);

impl Attest {
    fn read(text: &[u8]) -> Option<Attest> {
        let words = [("A", "full"), ("B", "partial"), ("C", "gateway")];
        let same = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
        words.into_iter().find(|(letter, word)| same(letter) || same(word)).map(|(letter, _)| Attest(letter))
    }
}

impl Arg<StirShaken> for Attest {
    type Prepared = host::Format;
    const WHAT: &'static str = "an attestation: A, B or C";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<StirShaken>,
    ) -> Result<host::Format, Diagnostic> {
        let format = <Text as Arg<StirShaken>>::prepare(arg, site, loader, module)?;
        match format.constant() {
            Some(text) if Attest::read(text).is_none() => {
                Err(Diagnostic::error(arg.map_or(site, |arg| arg.loc), "this must be A, B or C".to_owned())
                    .hint("or full, partial, gateway".to_owned()))
            }
            _ => Ok(format),
        }
    }

    fn eval(format: &host::Format, call: &mut Call<'_, StirShaken>) -> Result<Attest, i32> {
        Attest::read(&<Text as Arg<StirShaken>>::eval(format, call)?).ok_or(-1)
    }
}

/// Where an Identity header goes.
#[derive(Clone, Default)]
enum Target {
    #[default]
    Request,
    Replies,
    Variable(OutVar),
}

impl Arg<StirShaken> for Target {
    type Prepared = Target;
    const WHAT: &'static str = "req, rpl or the name of a variable";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<StirShaken>,
    ) -> Result<Target, Diagnostic> {
        match arg.map(|arg| &arg.kind) {
            Some(ArgKind::Text(text) | ArgKind::Word(text)) if &text[..] == b"req" => Ok(Target::Request),
            Some(ArgKind::Text(text) | ArgKind::Word(text)) if &text[..] == b"rpl" => Ok(Target::Replies),
            _ => {
                let var = <OutVar as Arg<StirShaken>>::prepare(arg, site, loader, module)?;
                Ok(Target::Variable(OutVar(var)))
            }
        }
    }

    fn eval(target: &Target, _: &mut Call<'_, StirShaken>) -> Result<Target, i32> {
        Ok(target.clone())
    }
}

/// stir_shaken_auth(attest, origid, cert, pkey, x5u, [orig], [dest], [out])
#[expect(clippy::too_many_arguments, reason = "the signature is that of the script function")]
fn auth(
    call: &mut Call<StirShaken>,
    attest: Attest,
    origid: Text,
    cert: Text,
    pkey: Text,
    x5u: Head,
    orig: Option<Text>,
    dest: Option<Text>,
    out: Option<Target>,
) -> i32 {
    let (module, moment) = (call.module.clone(), now(call.ctx));
    let msg = call.state.msg.clone();
    let (orig, dest) = match (|| {
        Ok((
            number(orig.as_ref(), || verify::caller(&msg), module.numbers)?,
            number(dest.as_ref(), || verify::called(&msg), module.numbers)?,
        ))
    })() {
        Ok(numbers) => numbers,
        Err(rc) => return rc,
    };
    let dated = match date(&msg) {
        Dated::Absent => None,
        Dated::Unreadable => return failed("the Date header cannot be read"),
        Dated::At(date) if (moment - date).abs() > module.auth_freshness => {
            host::notice!("stir_shaken", "the Date header is {} seconds off", moment - date);
            return -4;
        }
        Dated::At(date) => Some(date),
    };
    let Some(chain) = Chain::read(&cert) else { return failed("there is no certificate in the text") };
    if ![moment, dated.unwrap_or(moment)].into_iter().all(|moment| chain.is_valid_at(moment)) {
        host::notice!("stir_shaken", "the certificate is not valid now, or was not at the time of Date");
        return -5;
    }
    let (origid, x5u) = (origid.str(), String::from_utf8_lossy(&x5u));
    let iat = dated.unwrap_or(moment);
    let new = New { attest: attest.0, orig: &orig, dest: &dest, iat, origid: &origid, x5u: &x5u };
    let unsigned = new.unsigned();
    let line = match trust::sign(&pkey, unsigned.as_bytes()) {
        Ok(signature) => new.line(&unsigned, &signature),
        Err(why) => return failed(why),
    };
    let state = &mut call.ctx.state;
    if dated.is_none() {
        state.edits.insert(Anchor::End, format!("Date: {}\r\n", host::clock::rfc1123(moment)));
    }
    match out.unwrap_or_default() {
        Target::Request => state.edits.insert(Anchor::End, line),
        Target::Replies => state.reply_headers.push(line.into()),
        Target::Variable(var) if var.set(call.ctx, Value::from(line)) => (),
        Target::Variable(_) => return -1,
    }
    1
}

fn failed(why: &str) -> i32 {
    host::error!("stir_shaken", "{why}");
    -1
}

/// The Date header of a message.
enum Dated {
    Absent,
    Unreadable,
    /// Unix seconds.
    At(i64),
}

fn date(msg: &Message) -> Dated {
    match msg.value(HeaderName::Date) {
        None => Dated::Absent,
        Some(value) => std::str::from_utf8(&value)
            .ok()
            .and_then(host::clock::from_rfc1123)
            .map_or(Dated::Unreadable, Dated::At),
    }
}

/// stir_shaken_check_cert(cert)
fn check_cert(call: &mut Call<StirShaken>, cert: Text) -> i32 {
    match Chain::read(&cert) {
        None => failed("there is no certificate in the text"),
        Some(chain) if chain.is_valid_at(now(call.ctx)) => 1,
        Some(_) => -2,
    }
}

/// stir_shaken_disengagement(token)
fn disengagement(call: &mut Call<StirShaken>, token: Head) -> i32 {
    let line = [b"P-Identity-Bypass: ", &token[..], b"\r\n"].concat();
    call.ctx.state.edits.insert(Anchor::End, line);
    1
}

/// The Identity header that counts: the first of our extension.
enum Found {
    One(Box<Identity>),
    None,
    /// All are of other extensions.
    Unsupported,
    /// The last of them cannot be read.
    Broken,
}

fn identity(msg: &Message) -> Found {
    let mut found = Found::None;
    for header in msg.headers_of(HeaderName::Identity) {
        found = match Identity::parse(&msg.text(header.value())) {
            Ok(identity) if identity.is_shaken() => return Found::One(Box::new(identity)),
            Ok(_) => Found::Unsupported,
            Err(why) => {
                host::info!("stir_shaken", "an Identity header cannot be read: {why}");
                Found::Broken
            }
        };
    }
    found
}

/// What `$identity(...)` reads.
#[derive(Clone, Copy)]
enum Field {
    Header,
    X5u,
    Payload,
    Attest,
    Dest,
    Iat,
    Orig,
    Origid,
}

fn identity_variable(
    spec: &ast::VarSpec,
    _: &mut Loader,
    _: &Arc<StirShaken>,
) -> Result<VarKind, Diagnostic> {
    let field = match spec.inner.as_deref() {
        Some(b"header") => Field::Header,
        Some(b"x5u") => Field::X5u,
        Some(b"payload") => Field::Payload,
        Some(b"attest") => Field::Attest,
        Some(b"dest") => Field::Dest,
        Some(b"iat") => Field::Iat,
        Some(b"orig") => Field::Orig,
        Some(b"origid") => Field::Origid,
        _ => {
            return Err(Diagnostic::error(spec.loc, "$identity has no such field".to_owned())
                .hint("header, x5u, payload, attest, dest, iat, orig, origid".to_owned()));
        }
    };
    Ok(VarKind::Other(Box::new(field)))
}

impl Variable for Field {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Found::One(identity) = identity(&ctx.state.msg) else { return Value::Null };
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| Bytes::from(text.to_owned()).into());
        match self {
            Field::Header => identity.header_text.into(),
            Field::Payload => identity.payload_text.into(),
            Field::X5u => text(identity.x5u()),
            Field::Attest => text(identity.attest()),
            Field::Dest => text(identity.dest()),
            Field::Iat => identity.iat().map_or(Value::Null, Value::Int),
            Field::Orig => text(identity.orig()),
            Field::Origid => text(identity.origid()),
        }
    }
}

fn ca_reload(call: &mut Call<StirShaken>, _: &MiParams, answer: MiAnswer) {
    let set = call.module.ca_list.is_some() || call.module.ca_dir.is_some();
    reload(call, answer, set, "neither ca_list nor ca_dir is set");
}

fn crl_reload(call: &mut Call<StirShaken>, _: &MiParams, answer: MiAnswer) {
    let set = call.module.crl_list.is_some() || call.module.crl_dir.is_some();
    reload(call, answer, set, "neither crl_list nor crl_dir is set");
}

/// Reads all of it on a thread of its own; after a failure the old ones stay.
fn reload(call: &mut Call<StirShaken>, answer: MiAnswer, set: bool, unset: &str) {
    if !set {
        return answer.give(Err(MiError::internal(unset)));
    }
    let module = call.module.clone();
    call.ctx.spawn("stir_shaken reload", RELOAD_MS, async move {
        let reader = module.clone();
        let read = tokio::task::spawn_blocking(move || reader.read()).await;
        let read = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(String::from));
        Box::new(move |_: &mut Ctx| {
            answer.give(match read {
                Ok(trust) => {
                    *module.trust.write() = Arc::new(trust);
                    Ok(json!("OK"))
                }
                Err(why) => {
                    host::error!("stir_shaken", "the old authorities and lists stay: {why}");
                    Err(MiError::internal(why))
                }
            });
            1
        }) as Finish
    });
}
