//! One request: its turn, its phases, and how each way to fail is told to the script.

use super::Settings;
use super::client::{Clients, LastSeen, Pair, Turns};
use super::outages::{self, Outages};
use super::phase::{self, Phase};
use bytes::{Bytes, BytesMut};
use host::coded::Coded;
use host::outside::{HttpAnswer, HttpRequest};
use host::worker::ops::{note_queued, note_refused};
use http::{HeaderMap, Method, Version};
use parking_lot::Mutex;
use reqwest::{Client, Url};
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Return codes of the functions.
pub mod rc {
    pub const OK: i32 = 1;
    pub const REFUSED: i32 = -1;
    pub const CONNECT_TIMEOUT: i32 = -2;
    pub const TRANSFER_TIMEOUT: i32 = -3;
    pub const ALREADY_CONNECTING: i32 = -4;
    pub const INTERNAL: i32 = -10;
}

pub struct Request {
    pub method: Method,
    pub url: Bytes,
    pub body: Option<Bytes>,
    pub ctype: Option<Bytes>,
}

/// What the script gets.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub rc: i32,
    /// 0: no answer arrived.
    pub status: u16,
    pub body: Bytes,
    pub ctype: Bytes,
}

impl Request {
    /// The same for what stands in for HTTP servers.
    pub fn told(&self, settings: &Settings) -> HttpRequest {
        let connect = settings.connect.as_millis() as u64;
        HttpRequest {
            method: self.method.to_string(),
            url: with_scheme(&String::from_utf8_lossy(&self.url)),
            body: self.body.clone().unwrap_or_default(),
            connect_ms: (connect > 0).then_some(connect),
        }
    }
}

/// What a stand-in said, as a script hears it.
pub fn told(answer: HttpAnswer) -> Answer {
    match answer {
        HttpAnswer::Answered { status, ctype, body } => Answer { rc: rc::OK, status, body, ctype },
        HttpAnswer::Refused => Answer::failed(rc::REFUSED),
        HttpAnswer::Unreachable => Answer::failed(rc::CONNECT_TIMEOUT),
        HttpAnswer::Broken => Answer::failed(rc::INTERNAL),
    }
}

impl Coded for Answer {
    fn put(&self, out: &mut Vec<u8>) {
        self.rc.put(out);
        self.status.put(out);
        self.body.put(out);
        self.ctype.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Answer> {
        let (rc, status) = (i32::take(from)?, u16::take(from)?);
        Some(Answer { rc, status, body: Bytes::take(from)?, ctype: Bytes::take(from)? })
    }
}

impl Answer {
    /// What a replay says when it was not asked for when it was recorded.
    pub fn unknown() -> Answer {
        Answer::failed(rc::REFUSED)
    }

    fn failed(rc: i32) -> Answer {
        Answer { rc, ..Answer::default() }
    }
}

/// `no_concurrent_connects`: one worker at a time connects to a host.
pub struct Exclusive(Option<Claim>);

struct Claim {
    connecting: Arc<Mutex<Vec<(String, u16)>>>,
    worker: u16,
    last_seen: LastSeen,
    lifetime: std::time::Duration,
}

impl Exclusive {
    pub fn new(
        connecting: &Arc<Mutex<Vec<(String, u16)>>>,
        worker: u16,
        clients: &Clients,
        settings: &Settings,
    ) -> Exclusive {
        Exclusive(settings.one_connects.then(|| Claim {
            connecting: connecting.clone(),
            worker,
            last_seen: clients.last_seen.clone(),
            lifetime: settings.lifetime,
        }))
    }

    /// `Err`: another worker connects there now.
    fn claim(&self, host: &str, now: Instant) -> Result<Option<Held>, ()> {
        let Some(claim) = &self.0 else { return Ok(None) };
        let seen = claim.last_seen.borrow().get(host).copied();
        if seen.is_some_and(|at| now.duration_since(at) < claim.lifetime) {
            return Ok(None);
        }
        let mut list = claim.connecting.lock();
        if list.iter().any(|(h, worker)| h == host && *worker != claim.worker) {
            return Err(());
        }
        list.push((host.to_string(), claim.worker));
        Ok(Some(Held { connecting: claim.connecting.clone(), host: host.to_string(), worker: claim.worker }))
    }

    fn connected(&self, host: &str, now: Instant) {
        if let Some(claim) = &self.0 {
            claim.last_seen.borrow_mut().insert(host.to_string(), now);
        }
    }
}

/// An entry of the list, gone when dropped.
struct Held {
    connecting: Arc<Mutex<Vec<(String, u16)>>>,
    host: String,
    worker: u16,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut list = self.connecting.lock();
        if let Some(at) = list.iter().position(|(h, w)| *h == self.host && *w == self.worker) {
            list.swap_remove(at);
        }
    }
}

/// Where a request goes.
pub struct To<'a> {
    pub clients: Pair,
    pub outages: &'a Outages,
    pub exclusive: Exclusive,
    /// When the script asked.
    pub start: Instant,
}

/// Does one request within `curl_timeout`, the wait for its turn included.
pub async fn run(
    to: To<'_>,
    request: Request,
    headers: HeaderMap,
    settings: &Settings,
    turns: Turns,
) -> Answer {
    let To { clients, outages, exclusive, start } = to;
    let url = match std::str::from_utf8(&request.url).ok().map(with_scheme).map(|u| Url::parse(&u)) {
        Some(Ok(url)) if matches!(url.scheme(), "http" | "https") => url,
        _ => {
            host::error!("rest_client", "this is no URL: {}", String::from_utf8_lossy(&request.url));
            return Answer::failed(rc::INTERNAL);
        }
    };
    let far = start + std::time::Duration::from_secs(86_400);
    let end = if settings.total.is_zero() { far } else { start + settings.total };
    let Ok(place) = turns.places.try_acquire() else {
        host::warn!("rest_client", "too many transfers wait: {} was refused", shown(&url));
        note_refused();
        return Answer::failed(rc::INTERNAL);
    };
    let queued = turns.running.available_permits() == 0;
    if queued {
        note_queued();
    }
    let Ok(Ok(_turn)) = timeout_at(end, turns.running.acquire()).await else {
        return Answer::failed(rc::TRANSFER_TIMEOUT);
    };
    let host = url.host_str().unwrap_or_default().to_string();
    let Ok(held) = exclusive.claim(&host, start) else {
        return Answer::failed(rc::ALREADY_CONNECTING);
    };
    let version = (settings.version == 1).then_some(Version::HTTP_10);
    let response = match send(&clients, &url, request, headers, version, end).await {
        Ok(response) => response,
        // What waited for its turn was late before it could connect.
        Err(lost) if queued && lost.rc == rc::CONNECT_TIMEOUT => return Answer::failed(rc::TRANSFER_TIMEOUT),
        Err(lost) => {
            outages.begins(&url, &lost.why);
            return Answer::failed(lost.rc);
        }
    };
    outages.ends(&url);
    exclusive.connected(&host, start);
    drop((held, place));
    let status = response.status().as_u16();
    let ctype = response.headers().get(http::header::CONTENT_TYPE);
    let ctype = ctype.map_or_else(Bytes::new, |v| Bytes::copy_from_slice(v.as_bytes()));
    let (rc, body) = read(&url, response, end, settings.max_body).await;
    Answer { rc, status, body, ctype }
}

/// No answer came.
struct Lost {
    rc: i32,
    why: String,
}

/// Sends a request; once more, on a new connection, when a kept one was closed before it brought anything: the server has
/// ended it while the request was on its way, as it may (RFC 9112 §9.3.1, as curl does for every method).
async fn send(
    clients: &Pair,
    url: &Url,
    request: Request,
    headers: HeaderMap,
    version: Option<Version>,
    end: Instant,
) -> Result<reqwest::Response, Lost> {
    let attempt = |client: &Client| {
        let mut builder = client.request(request.method.clone(), url.clone()).headers(headers.clone());
        if let Some(version) = version {
            builder = builder.version(version);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        phase::watch(timeout_at(end, builder.send()))
    };
    let first = attempt(&clients.kept).await;
    let (sent, phase) = match &first {
        (Ok(Err(error)), Phase::Kept) if closed_early(error) => attempt(&clients.fresh).await,
        _ => first,
    };
    let lost = |rc: i32, why: &str| Lost { rc, why: why.to_owned() };
    match sent {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) if phase == Phase::Connecting => Err(lost(rc::CONNECT_TIMEOUT, "no connection in time")),
        Err(_) => Err(lost(rc::TRANSFER_TIMEOUT, "nothing came in time")),
    }
}

/// The server ended the connection; nothing of an answer was there.
fn closed_early(error: &reqwest::Error) -> bool {
    let mut at: Option<&dyn Error> = Some(error);
    while let Some(error) = at {
        if let Some(http) = error.downcast_ref::<hyper::Error>()
            && (http.is_incomplete_message() || http.is_canceled())
        {
            return true;
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
            );
        }
        at = error.source();
    }
    false
}

/// A URL without a scheme is HTTP, as curl has it.
fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.trim().to_string() } else { format!("http://{}", url.trim()) }
}

async fn read(url: &Url, mut response: reqwest::Response, end: Instant, max: Option<usize>) -> (i32, Bytes) {
    let mut body = BytesMut::new();
    loop {
        match timeout_at(end, response.chunk()).await {
            Err(_) => return (rc::TRANSFER_TIMEOUT, body.freeze()),
            Ok(Ok(None)) => return (rc::OK, body.freeze()),
            Ok(Ok(Some(chunk))) => {
                if max.is_some_and(|max| body.len() + chunk.len() > max) {
                    host::error!(
                        "rest_client",
                        "{}: the answer is longer than max_transfer_size",
                        shown(url)
                    );
                    return (rc::INTERNAL, Bytes::new());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Err(error)) => {
                host::error!("rest_client", "{}: the answer broke off: {}", shown(url), root(&error));
                return (rc::INTERNAL, Bytes::new());
            }
        }
    }
}

/// Without login and query: those may hold secrets.
fn shown(url: &Url) -> String {
    format!("{}{}", outages::server(url), url.path())
}

fn failure(error: &reqwest::Error) -> Lost {
    let rc = match () {
        () if error.is_dns() => rc::INTERNAL,
        () if error.is_connect() && error.is_timeout() => rc::CONNECT_TIMEOUT,
        () if error.is_connect() && refused(error) => rc::REFUSED,
        () if error.is_timeout() => rc::TRANSFER_TIMEOUT,
        () => rc::INTERNAL,
    };
    Lost { rc, why: root(error) }
}

/// No connection came to be; the alternative is one on which TLS or HTTP failed.
fn refused(error: &reqwest::Error) -> bool {
    let mut at: Option<&dyn Error> = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::PermissionDenied
                    | ErrorKind::TimedOut
            );
        }
        at = error.source();
    }
    false
}

/// The innermost reason, in its own words.
fn root(error: &reqwest::Error) -> String {
    let mut at: &dyn Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
