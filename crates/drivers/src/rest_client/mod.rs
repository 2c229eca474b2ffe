//! rest_client: HTTP requests of scripts. A script waits for the answer, its worker does not.

pub(crate) mod client;
mod escape;
mod names;
mod outages;
mod phase;
mod transfer;

use crate::tls_mgm::TlsMgm;
use bytes::Bytes;
use client::Clients;
use host::arg::HowCalled;
use host::call::Finish;
use host::outside::{Awaited, HttpAnswer};
use host::{Call, Ctx, Head, OutVar, Outcome, Registrar, Routes, Suspension, Text, Traced};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outages::Outages;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use transfer::{Answer, Request, rc};

/// What `modparam` sets; the names are the reference's.
#[derive(Clone, Debug)]
pub struct Settings {
    connect: Duration,
    total: Duration,
    /// Transfers of one worker at one time; further ones wait for their turn.
    transfers: usize,
    /// Bytes; `None`: any.
    max_body: Option<usize>,
    verify_peer: bool,
    verify_host: bool,
    authorities: Option<PathBuf>,
    /// 0..=5, as `curl_http_version`.
    version: i64,
    expect_100: bool,
    one_connects: bool,
    lifetime: Duration,
    /// Redirects followed; the reference follows none.
    redirects: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect: Duration::from_secs(20),
            total: Duration::from_secs(20),
            transfers: 100,
            max_body: Some(10240 * 1024),
            verify_peer: true,
            verify_host: true,
            authorities: None,
            version: 0,
            expect_100: false,
            one_connects: false,
            lifetime: Duration::ZERO,
            redirects: 0,
        }
    }
}

#[derive(Default)]
pub struct RestClient {
    settings: Settings,
    tls: Option<Arc<TlsMgm>>,
    /// Hosts that a worker connects to right now (`no_concurrent_connects`).
    connecting: Arc<Mutex<Vec<(String, u16)>>>,
    outages: Arc<Outages>,
}

/// What the next request of this message gets besides its own parameters.
#[derive(Clone, Default)]
struct Prepared {
    headers: Vec<Bytes>,
    domain: Option<String>,
}

/// By how much a transfer ends before the timeout of `async(...)`.
const MOMENT_MS: u64 = 100;
/// More header lines than this are refused.
const MAX_HEADERS: usize = 100;

fn seconds(n: i64) -> Result<Duration, String> {
    u64::try_from(n).map(Duration::from_secs).map_err(|_| "a time is not negative".to_string())
}

pub fn register(m: &mut Registrar<RestClient>) {
    m.param_int("curl_timeout", |m, n| Ok(m.settings.total = seconds(n)?));
    m.param_int("connection_timeout", |m, n| Ok(m.settings.connect = seconds(n)?));
    m.param_int("max_async_transfers", |m, n| Ok(m.settings.transfers = n.clamp(1, 100_000) as usize));
    m.param_int("max_transfer_size", |m, kb| {
        m.settings.max_body = usize::try_from(kb).ok().filter(|kb| *kb > 0).map(|kb| kb.saturating_mul(1024));
        Ok(())
    });
    m.param_int("ssl_verifypeer", |m, on| Ok(m.settings.verify_peer = on != 0));
    m.param_int("ssl_verifyhost", |m, on| Ok(m.settings.verify_host = on != 0));
    m.param_text("ssl_capath", |m, path| Ok(m.settings.authorities = Some(path.into())));
    m.param_int("curl_http_version", |m, n| match n {
        0..=5 => Ok(m.settings.version = n),
        _ => Err("curl_http_version is 0 to 5".to_string()),
    });
    m.param_int("enable_expect_100", |m, on| Ok(m.settings.expect_100 = on != 0));
    m.param_int("no_concurrent_connects", |m, on| Ok(m.settings.one_connects = on != 0));
    m.param_int("curl_conn_lifetime", |m, n| Ok(m.settings.lifetime = seconds(n)?));
    m.param_int("max_redirects", |m, n| Ok(m.settings.redirects = n.clamp(0, 50) as usize));
    m.ignored(&["connect_poll_interval"], "connections are not polled, they report");
    m.ignored(&["trace_on", "trace_id"], "HTTP requests are not traced");
    m.init(init);
    m.function("rest_get", Routes::ALL, get);
    m.function("rest_post", Routes::ALL, post);
    m.function("rest_put", Routes::ALL, put);
    m.function("rest_append_hf", Routes::ALL, append_hf);
    m.function("rest_init_client_tls", Routes::ALL, init_client_tls);
    m.transformation("rest", escape::prepare);
}

fn init(m: &mut RestClient, loader: &mut host::Loader) -> Result<(), String> {
    let s = &m.settings;
    if !s.total.is_zero() && s.total < s.connect {
        host::warn!("rest_client", "curl_timeout is shorter than connection_timeout, and ends that too");
    }
    m.tls = loader.module::<TlsMgm>();
    // Certificates that cannot be read are an error of the configuration, not of the first call.
    client::tls(&m.settings, None).map(drop)
}

/// rest_get(url, body, [content type], [status])
fn get(
    call: &mut Call<RestClient>,
    url: Traced,
    body: OutVar,
    ctype: Option<OutVar>,
    status: Option<OutVar>,
    how: HowCalled,
) -> Outcome {
    let request = Request { method: Method::GET, url: escape::filled(&url), body: None, ctype: None };
    run(call, "rest_get", request, Outputs { body, ctype, status }, how)
}

/// rest_post(url, body, [content type], body, [content type], [status])
#[expect(clippy::too_many_arguments, reason = "they are those of the script function")]
fn post(
    call: &mut Call<RestClient>,
    url: Traced,
    send: Text,
    send_ctype: Option<Head>,
    body: OutVar,
    ctype: Option<OutVar>,
    status: Option<OutVar>,
    how: HowCalled,
) -> Outcome {
    let ctype_out = ctype;
    let request = Request {
        method: Method::POST,
        url: escape::filled(&url),
        body: Some(send.0),
        ctype: send_ctype.map(|t| t.0),
    };
    run(call, "rest_post", request, Outputs { body, ctype: ctype_out, status }, how)
}

/// rest_put(url, body, [content type], body, [content type], [status])
#[expect(clippy::too_many_arguments, reason = "they are those of the script function")]
fn put(
    call: &mut Call<RestClient>,
    url: Traced,
    send: Text,
    send_ctype: Option<Head>,
    body: OutVar,
    ctype: Option<OutVar>,
    status: Option<OutVar>,
    how: HowCalled,
) -> Outcome {
    let request = Request {
        method: Method::PUT,
        url: escape::filled(&url),
        body: Some(send.0),
        ctype: send_ctype.map(|t| t.0),
    };
    run(call, "rest_put", request, Outputs { body, ctype, status }, how)
}

/// rest_append_hf(line): one header of the next request of this message.
fn append_hf(call: &mut Call<RestClient>, line: Head) -> bool {
    let prepared = call.state.ext.entry::<Prepared>();
    let room = prepared.headers.len() < MAX_HEADERS;
    if room {
        prepared.headers.push(line.0);
    }
    room
}

/// rest_init_client_tls(domain): the next request of this message shows that domain's certificate.
fn init_client_tls(call: &mut Call<RestClient>, domain: Text) -> bool {
    let name = domain.str().into_owned();
    let known = call.module.tls.as_ref().is_some_and(|tls| tls.client_now(&name).is_some());
    if known {
        call.state.ext.entry::<Prepared>().domain = Some(name);
    } else {
        host::error!("rest_client", "there is no client_domain `{name}` of module tls_mgm");
    }
    known
}

struct Outputs {
    body: OutVar,
    ctype: Option<OutVar>,
    status: Option<OutVar>,
}

impl Outputs {
    /// Writes what has arrived and gives the return code.
    fn store(self, ctx: &mut Ctx, answer: Answer) -> i32 {
        if let Some(status) = &self.status {
            status.set(ctx, i64::from(answer.status));
        }
        if answer.rc == rc::OK || answer.rc == rc::TRANSFER_TIMEOUT {
            let body = answer.body.slice_ref(answer.body.trim_ascii());
            self.body.set(ctx, body);
            if let Some(ctype) = &self.ctype {
                ctype.set(ctx, answer.ctype.slice_ref(answer.ctype.trim_ascii()));
            }
        }
        answer.rc
    }
}

fn run(
    call: &mut Call<RestClient>,
    what: &'static str,
    request: Request,
    outputs: Outputs,
    how: HowCalled,
) -> Outcome {
    // No clock of the worker: this is the time on the wire.
    #[allow(clippy::disallowed_methods)]
    let start = tokio::time::Instant::now();
    let prepared = std::mem::take(call.state.ext.entry::<Prepared>());
    call.state.ext.remove::<Prepared>();
    let settings = call.module.settings.clone();
    let headers = match headers(&prepared.headers, &request, &settings) {
        Ok(headers) => headers,
        Err(line) => {
            host::error!("rest_client", "{what}: this is no header: {line}");
            return Outcome::Done(rc::INTERNAL);
        }
    };
    if let Some(outside) = call.shared().outside.get() {
        let settings = with_script_limit(settings, &how);
        let answer = outside.http(request.told(&settings));
        return stand_in(what, request, outputs, &settings, answer);
    }
    let domain = prepared.domain.and_then(|name| call.module.tls.as_ref()?.client_now(&name));
    let worker = call.core.worker;
    let names = names::of(call.ctx);
    let clients = match call.local::<Clients>().client(&settings, domain.as_ref(), names) {
        Ok(clients) => clients,
        Err(error) => {
            host::error!("rest_client", "{what}: {error}");
            return Outcome::Done(rc::INTERNAL);
        }
    };
    let detail = request.url.clone();
    let turn = call.local::<Clients>().turn(&settings);
    let exclusive =
        transfer::Exclusive::new(&call.module.connecting, worker, call.local::<Clients>(), &settings);
    let limit = settings.total.as_millis() as u64;
    let settings = with_script_limit(settings, &how);
    let outages = call.module.outages.clone();
    let asked = request.told(&settings);
    let question = move || format!("{} {} {}", asked.method, asked.url, String::from_utf8_lossy(&asked.body));
    let future = async move {
        let live = async {
            let to = transfer::To { clients, outages: &outages, exclusive, start };
            transfer::run(to, request, headers, &settings, turn).await
        };
        let answer = host::tape::awaited("http", question, live, transfer::Answer::unknown).await;
        Box::new(move |ctx: &mut Ctx| outputs.store(ctx, answer)) as Finish
    };
    // The transfer ends itself in time and tells what has arrived; the deadline is a second line.
    let limit = if limit == 0 { u64::MAX } else { limit + 1000 };
    Suspension::future(what, future).detail(detail).limit(limit, rc::TRANSFER_TIMEOUT)
}

/// A transfer ends a moment before the script's own deadline, which cannot say what was late.
fn with_script_limit(mut settings: Settings, how: &HowCalled) -> Settings {
    if let Some(ms) = how.timeout_ms {
        let script = Duration::from_millis(ms.saturating_sub(MOMENT_MS).max(1));
        settings.total = if settings.total.is_zero() { script } else { settings.total.min(script) };
    }
    settings
}

/// Holds the script for the answer of what stands in for HTTP servers.
fn stand_in(
    what: &'static str,
    request: Request,
    outputs: Outputs,
    settings: &Settings,
    answer: Awaited<HttpAnswer>,
) -> Outcome {
    let total = settings.total.as_millis() as u64;
    let future = async move {
        let answer = transfer::told(answer.await);
        Box::new(move |ctx: &mut Ctx| outputs.store(ctx, answer)) as Finish
    };
    let limit = if total == 0 { u64::MAX } else { total };
    Suspension::future(what, future).detail(request.url).limit(limit, rc::TRANSFER_TIMEOUT)
}

/// The header lines of a request. `Err`: a line that is none.
fn headers(lines: &[Bytes], request: &Request, settings: &Settings) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for line in lines {
        let text = || String::from_utf8_lossy(line).into_owned();
        let line = line.trim_ascii();
        let at = line.iter().position(|b| matches!(b, b':' | b';')).ok_or_else(text)?;
        let (name, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        // As curl has it: "Name:" takes a header away, "Name;" sends it empty.
        if value.is_empty() && line[at] == b':' {
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| text())?;
        map.append(name, HeaderValue::from_bytes(value).map_err(|_| text())?);
    }
    if let Some(body) = &request.body {
        if body.is_empty() {
            // Servers ask for it (411) where a body could be (RFC 9110 §8.6).
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        match &request.ctype {
            Some(ctype) => {
                let value = HeaderValue::from_bytes(ctype)
                    .map_err(|_| String::from_utf8_lossy(ctype).into_owned())?;
                map.insert(http::header::CONTENT_TYPE, value);
            }
            None if !map.contains_key(http::header::CONTENT_TYPE) => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                map.insert(http::header::CONTENT_TYPE, form);
            }
            None => {}
        }
        if settings.expect_100 && body.len() > 1024 {
            map.insert(http::header::EXPECT, HeaderValue::from_static("100-continue"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
