//! AAA servers as modules see them (RADIUS): requests of named attributes, answered without blocking.
//!
//! A protocol is a module (`aaa_radius`) that registers itself in its `init`; others ask the loader for a
//! handle with the URL of their configuration, `radius:/etc/radiusclient/radiusclient.conf`:
//!
//! ```ignore
//! m.param_text("aaa_url", |m, url| { m.aaa_url = url.to_string(); Ok(()) });
//! m.init(|m, loader| {
//!     let aaa = loader.aaa(&m.aaa_url)?;
//!     aaa.attribute("User-Name")?;                        // an error says what the dictionary lacks
//!     m.service_type = aaa.value("Service-Type", "SIP")?;
//!     m.aaa = Some(aaa);
//!     Ok(())
//! });
//!
//! fn aaa_does_uri_exist(call: &mut Call<Uri>) -> Outcome {
//!     let mut request = AaaRequest::new(AaaKind::Auth);
//!     request.add("User-Name", user);
//!     aaa.suspend(call.ctx, "aaa_does_uri_exist", request, |ctx, answer| match answer {
//!         Ok(answer) if answer.accepted => { answer.sip_avps(ctx); 1 }
//!         _ => -1,
//!     })
//! }
//! ```

use crate::avp::AvpName;
use crate::call::{Finish, Outcome, Suspension};
use crate::context::coded::Coded;
use crate::context::tape::awaited;
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use bytes::Bytes;
use script::Value;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// Longest an exchange may take, all servers and retransmissions included, unless its module knows better.
pub const LIMIT_MS: u64 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AaaKind {
    /// May this happen?
    Auth,
    /// This has happened.
    Acct,
}

/// What is asked. Attributes stand in the order they were added in; values that are NULL are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct AaaRequest {
    pub kind: AaaKind,
    pub attributes: Vec<(Arc<str>, Value)>,
}

impl AaaRequest {
    pub fn new(kind: AaaKind) -> AaaRequest {
        AaaRequest { kind, attributes: Vec::new() }
    }

    /// A number goes as a number; a text goes as the attribute's type wants it (an address, a number,
    /// the name of a value).
    pub fn add(&mut self, attribute: impl Into<Arc<str>>, value: impl Into<Value>) {
        self.attributes.push((attribute.into(), value.into()));
    }
}

/// For a tape: passwords are left out.
impl fmt::Display for AaaRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        for (name, value) in &self.attributes {
            match value.text() {
                _ if name.contains("Password") => write!(f, " {name}=***")?,
                Some(text) => write!(f, " {name}={}", String::from_utf8_lossy(&text))?,
                None => write!(f, " {name}")?,
            }
        }
        Ok(())
    }
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AaaAnswer {
    /// False: rejected. Always true for accounting.
    pub accepted: bool,
    /// As they came; those that the dictionary does not know are left out.
    pub attributes: Vec<(Arc<str>, Value)>,
}

impl AaaAnswer {
    /// All values of an attribute.
    pub fn values<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a Value> {
        self.attributes.iter().filter(move |(name, _)| &**name == attribute).map(|(_, value)| value)
    }

    /// Attributes SIP-AVP become AVPs of the message: "name:text" or "name#number".
    pub fn sip_avps(&self, ctx: &mut Ctx) {
        let mut avps = ctx.state.avps.borrow_mut();
        for text in self.values("SIP-AVP").filter_map(Value::text) {
            match sip_avp(&text) {
                Some((name, value)) => avps.add(name, value),
                None => {
                    crate::error!("aaa", "SIP-AVP `{}` is not name:text", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}

fn sip_avp(text: &Bytes) -> Option<(AvpName, Value)> {
    let text = text.strip_prefix(b"#").map_or_else(|| text.clone(), |rest| text.slice_ref(rest));
    let at = text.iter().position(|b| matches!(b, b':' | b'#')).filter(|at| *at > 0)?;
    let value = text.slice(at + 1..);
    if value.is_empty() {
        return None;
    }
    let value = match text[at] {
        b'#' => Value::Int(crate::arg::parse_int(&value)?),
        _ => Value::Str(value),
    };
    Some((AvpName::new(&text[..at]), value))
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum AaaError {
    /// No server answered in time.
    TimedOut,
    /// An answer that cannot be believed or read.
    BadAnswer(String),
    /// The request cannot be sent: an unknown attribute, a value that does not fit.
    BadRequest(String),
    /// The network or the operating system refused.
    Io(String),
}

impl Coded for AaaAnswer {
    fn put(&self, out: &mut Vec<u8>) {
        self.accepted.put(out);
        let list: Vec<(String, Value)> =
            self.attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        list.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<AaaAnswer> {
        let accepted = bool::take(from)?;
        let attributes: Vec<(String, Value)> = Coded::take(from)?;
        let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Some(AaaAnswer { accepted, attributes })
    }
}

impl Coded for AaaError {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, why) = match self {
            AaaError::TimedOut => (0u8, ""),
            AaaError::BadAnswer(why) => (1, why.as_str()),
            AaaError::BadRequest(why) => (2, why.as_str()),
            AaaError::Io(why) => (3, why.as_str()),
        };
        (kind, why.to_string()).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<AaaError> {
        let (kind, why): (u8, String) = Coded::take(from)?;
        Some(match kind {
            0 => AaaError::TimedOut,
            1 => AaaError::BadAnswer(why),
            2 => AaaError::BadRequest(why),
            3 => AaaError::Io(why),
            _ => return None,
        })
    }
}

impl fmt::Display for AaaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AaaError::TimedOut => f.write_str("no server answered in time"),
            AaaError::BadAnswer(why) => write!(f, "bad answer: {why}"),
            AaaError::BadRequest(why) => write!(f, "bad request: {why}"),
            AaaError::Io(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for AaaError {}

pub type AaaFuture = Pin<Box<dyn Future<Output = Result<AaaAnswer, AaaError>>>>;

/// A configured group of servers and its dictionary.
pub trait AaaServers: Send + Sync {
    /// True when the dictionary has an attribute.
    fn has_attribute(&self, name: &str) -> bool;
    /// The number of a named value of an attribute.
    fn value(&self, attribute: &str, value: &str) -> Option<i64>;
    /// Starts an exchange. It runs when the future is polled, on the worker's own runtime.
    fn send(&self, ctx: &mut Ctx, request: AaaRequest) -> AaaFuture;
}

/// A protocol, registered by its module.
pub trait AaaProtocol: Send + Sync {
    /// Opens what stands behind "name:" in a URL. The error is what a user should read.
    fn open(&self, rest: &str) -> Result<Arc<dyn AaaServers>, String>;
}

/// A group of servers that modules hold.
#[derive(Clone)]
pub struct Aaa {
    url: Arc<str>,
    servers: Arc<dyn AaaServers>,
}

impl fmt::Debug for Aaa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aaa({})", self.url)
    }
}

impl Aaa {
    pub fn new(url: &str, servers: Arc<dyn AaaServers>) -> Aaa {
        Aaa { url: url.into(), servers }
    }

    /// Checks at load that the dictionary has an attribute.
    pub fn attribute(&self, name: &str) -> Result<(), String> {
        match self.servers.has_attribute(name) {
            true => Ok(()),
            false => Err(format!("the dictionary of {} has no attribute {name}", self.url)),
        }
    }

    /// The number of a named value ("Service-Type", "SIP").
    pub fn value(&self, attribute: &str, value: &str) -> Result<i64, String> {
        self.servers
            .value(attribute, value)
            .ok_or_else(|| format!("the dictionary of {} has no value {value} of {attribute}", self.url))
    }

    /// Starts an exchange, for futures that do more than this.
    pub fn send(&self, ctx: &mut Ctx, request: AaaRequest) -> AaaFuture {
        self.ask(ctx, request)
    }

    /// What a tape hears of, too.
    fn ask(&self, ctx: &mut Ctx, request: AaaRequest) -> AaaFuture {
        let (url, asked) = (self.url.clone(), request.clone());
        let question = move || format!("{url}: {asked}");
        let live = self.servers.send(ctx, request);
        let absent = || Err(AaaError::Io(crate::services::db::NOT_RECORDED.to_string()));
        Box::pin(async move { awaited("aaa", question, live, absent).await })
    }

    /// Holds the script until there is an answer; `finish` gives the return code.
    pub fn suspend(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        request: AaaRequest,
        finish: impl FnOnce(&mut Ctx, Result<AaaAnswer, AaaError>) -> i32 + 'static,
    ) -> Outcome {
        let answer = self.ask(ctx, request);
        let future = async move {
            let answer = answer.await;
            Box::new(move |ctx: &mut Ctx| finish(ctx, answer)) as Finish
        };
        Suspension::future(what, future).detail(self.url.to_string()).limit(LIMIT_MS, -1)
    }

    /// Runs an exchange beside any script.
    pub fn spawn(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        request: AaaRequest,
        finish: impl FnOnce(&mut Ctx, Result<AaaAnswer, AaaError>) + 'static,
    ) {
        let answer = self.ask(ctx, request);
        ctx.spawn(what, LIMIT_MS, async move {
            let answer = answer.await;
            Box::new(move |ctx: &mut Ctx| {
                finish(ctx, answer);
                1
            }) as Finish
        });
    }
}

/// Protocols and groups of servers while a configuration loads.
#[derive(Clone, Default)]
pub struct AaaTable {
    protocols: Vec<(&'static str, Arc<dyn AaaProtocol>)>,
    open: Vec<Aaa>,
}

impl Loader {
    /// Registers a protocol ("radius"); its module does it in its `init`, which runs before that of all
    /// modules that are no drivers.
    pub fn aaa_protocol(&mut self, name: &'static str, protocol: Arc<dyn AaaProtocol>) {
        self.part::<AaaTable>().protocols.push((name, protocol));
    }

    /// Servers from their URL. The error is what a user should read.
    pub fn aaa(&mut self, url: &str) -> Result<Aaa, String> {
        let url = url.trim();
        if let Some(aaa) = self.part::<AaaTable>().open.iter().find(|aaa| &*aaa.url == url) {
            return Ok(aaa.clone());
        }
        let (name, rest) = url
            .split_once(':')
            .ok_or_else(|| format!("`{url}` is no AAA URL: protocol:path of its configuration"))?;
        let Some((_, protocol)) = self.part::<AaaTable>().protocols.iter().find(|(n, _)| *n == name) else {
            return Err(format!("{url} needs its module: loadmodule \"aaa_{name}.so\""));
        };
        let aaa = Aaa::new(url, protocol.clone().open(rest)?);
        self.part::<AaaTable>().open.push(aaa.clone());
        Ok(aaa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_avps_of_answers() {
        let check = |text: &'static str, expected: Option<(&str, Value)>| {
            let found = sip_avp(&Bytes::from_static(text.as_bytes()));
            assert_eq!(found, expected.map(|(n, v)| (AvpName::new(n.as_bytes()), v)), "{text}");
        };
        check("color:red", Some(("color", "red".into())));
        check("#color:red:dark", Some(("color", "red:dark".into())));
        check("n#5", Some(("n", 5.into())));
        check("n#x", None);
        check(":x", None);
        check("x:", None);
        check("x", None);
    }
}
