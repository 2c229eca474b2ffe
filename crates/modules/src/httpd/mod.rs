//! httpd: the HTTP server that other modules hang their pages on.

mod activity;
mod secure;

use activity::{Activity, Watched};
use bytes::Bytes;
use host::Accepts;
use host::mi::{MiParams, MiResult};
use host::outage::Outage;
use host::shared::{Hooks, Shared};
use host::stats::{Counter, Stats};
use host::{Call, Registrar, error, info, notice, warn};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use parking_lot::{Mutex, RwLock};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The least time that the body of a request may take.
const BODY_TIME: Duration = Duration::from_secs(10);

pub use secure::same;

/// What a page gets and answers.
pub struct Query {
    pub method: String,
    pub path: String,
    pub query: String,
    pub content_type: String,
    /// The page that a browser sent the request for; `None`: no browser, or no page of another server.
    pub origin: Option<String>,
    /// The header Host.
    pub host: String,
    /// Who asks.
    pub peer: IpAddr,
    /// The header X-Fermata-Token; empty: none.
    pub token: String,
    pub body: Bytes,
}

pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
}

pub type Page = Arc<dyn Fn(Arc<Shared>, Query) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

pub struct Httpd {
    ip: String,
    port: u16,
    post_limit: usize,
    /// `conn_timeout`: nothing comes or goes.
    idle: Duration,
    max_connections: usize,
    keys: secure::Keys,
    tls: Option<tokio_rustls::TlsAcceptor>,
    guard: secure::Guard,
    /// Bound at the start, until the service takes it.
    listener: Mutex<Option<TcpListener>>,
    /// (root path, module, page), shared so that modules add theirs before the server starts.
    pages: RwLock<Vec<(String, &'static str, Page)>>,
}

impl Default for Httpd {
    fn default() -> Httpd {
        Httpd {
            ip: "127.0.0.1".into(),
            port: 8888,
            post_limit: 1 << 20,
            idle: Duration::from_secs(30),
            max_connections: 256,
            keys: Default::default(),
            tls: None,
            guard: Default::default(),
            listener: Mutex::default(),
            pages: RwLock::default(),
        }
    }
}

impl Httpd {
    /// Serves everything under `/root`.
    pub fn add(&self, root: &str, module: &'static str, page: Page) {
        self.pages.write().push((root.trim_matches('/').to_string(), module, page));
    }

    fn page(&self, path: &str) -> Option<Page> {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
        self.pages.read().iter().find(|(root, _, _)| root == first).map(|(_, _, page)| page.clone())
    }
}

pub fn register(m: &mut Registrar<Httpd>) {
    m.param_text("ip", |s, v| Ok(s.ip = if v == "*" { "0.0.0.0".into() } else { v.into() }));
    m.param_int("port", |s, v| {
        u16::try_from(v).map(|p| s.port = p).map_err(|_| "port must be 0 to 65535".into())
    });
    m.param_int("post_buf_size", |s, v| Ok(s.post_limit = (v.max(256) as usize).max(1 << 20)));
    m.ignored(&["buf_size", "receive_buf_size"], "buffers grow as needed");
    m.param_int("conn_timeout", |s, v| Ok(s.idle = Duration::from_secs(v.clamp(1, 86_400) as u64)));
    m.param_int("max_connections", |s, v| Ok(s.max_connections = v.clamp(1, 65_535) as usize));
    m.accepts(Accepts::range(1, 65_535), &["max_connections"]);
    m.accepts(Accepts::seconds(1), &["conn_timeout"]);
    m.accepts(Accepts::from(1).unit("bytes"), &["post_buf_size"]);
    m.param_text("tls_cert_file", |s, v| Ok(s.keys.certificate = v.into()));
    m.param_text("tls_key_file", |s, v| Ok(s.keys.key = v.into()));
    m.ignored(&["tls_ciphers"], "TLS 1.2 and 1.3 with forward secrecy, always");
    m.param_text("auth_realm", |s, v| Ok(s.guard.realm = v.into()));
    m.param_text("auth_username", |s, v| Ok(s.guard.user = v.into()));
    m.param_text("auth_password", |s, v| Ok(s.guard.password = v.into()));
    m.init_with_files(|s, _| {
        s.guard.check()?;
        s.tls = s.keys.build()?;
        Ok(())
    });
    m.command(
        "httpd:list_root_path httpd_list_root_path",
        "root paths and the modules behind them",
        list_roots,
    );
    m.ready(ready);
}

fn list_roots(call: &mut Call<Httpd>, _: &MiParams) -> MiResult {
    let pages = call.module.pages.read();
    let list = pages.iter().map(|(root, module, _)| serde_json::json!({"http_root": root, "module": module}));
    Ok(list.collect())
}

fn ready(module: &Arc<Httpd>, hooks: &mut Hooks, stats: &Stats) {
    let opening = module.clone();
    hooks.openings.push(Arc::new(move || open(&opening)));
    let lacking = module.clone();
    hooks.lacks.push(("httpd", Arc::new(move || lacks(&lacking))));
    let (module, refused) = (module.clone(), stats.counter("httpd", "refused_connections"));
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared, refused.clone()))));
}

fn address(module: &Httpd, port: u16) -> String {
    let ip = &module.ip;
    if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Whether another server has the port now says nothing about this machine.
fn lacks(module: &Httpd) -> Vec<String> {
    let free = TcpListener::bind(address(module, 0));
    free.err().map(|e| format!("cannot listen on {}: {e}", module.ip)).into_iter().collect()
}

fn open(module: &Httpd) -> Result<(), String> {
    let address = address(module, module.port);
    let listener = TcpListener::bind(&address).map_err(|e| {
        let hint = if e.kind() == ErrorKind::AddrInUse { " (is another server running there?)" } else { "" };
        format!("httpd: cannot listen on {address}: {e}{hint}")
    })?;
    *module.listener.lock() = Some(listener);
    Ok(())
}

async fn serve(module: Arc<Httpd>, shared: Arc<Shared>, refused: Counter) {
    let Some(listener) = module.listener.lock().take() else { return };
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(e) => return error!("httpd", "cannot listen: {e}"),
    };
    let places = Arc::new(Semaphore::new(module.max_connections));
    let (outage, crowd) = (Outage::default(), Outage::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, mostly: a connection that waits is no reason to try in haste.
                if outage.begins() {
                    error!("httpd", "cannot accept connections on port {}: {e}", module.port);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if outage.ends() {
            notice!("httpd", "connections on port {} are accepted again", module.port);
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            refused.add(1);
            if crowd.begins() {
                let max = module.max_connections;
                warn!("httpd", "connections on port {} are refused: there are {max}", module.port);
            }
            continue;
        };
        crowd.ends();
        let (module, shared) = (module.clone(), shared.clone());
        tokio::spawn(async move {
            connection(module, shared, stream, peer.ip()).await;
            drop(place);
        });
    }
}

/// How long a client may take to begin TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

async fn connection(module: Arc<Httpd>, shared: Arc<Shared>, stream: tokio::net::TcpStream, peer: IpAddr) {
    let activity = Arc::new(Activity::default());
    let stream = Watched { stream, activity: activity.clone() };
    let Some(tls) = module.tls.clone() else {
        return conversation(module, shared, stream, activity, peer).await;
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => conversation(module, shared, stream, activity, peer).await,
        Ok(Err(e)) => info!("httpd", "no TLS with {peer}: {e}"),
        Err(_) => info!("httpd", "no TLS with {peer}: it took too long"),
    }
}

/// One connection to its end: the client's, or ours when nothing moves while no page is being made.
async fn conversation<S>(
    module: Arc<Httpd>,
    shared: Arc<Shared>,
    stream: S,
    activity: Arc<Activity>,
    peer: IpAddr,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (limit, watched) = (module.idle, activity.clone());
    let io = hyper_util::rt::TokioIo::new(stream);
    let service = hyper::service::service_fn(move |request| {
        handle(module.clone(), shared.clone(), watched.clone(), peer, request)
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    tokio::select! {
        result = served => if let Err(e) = result {
            info!("httpd", "connection ended: {e}");
        },
        () = activity.idle_for(limit) => {
            info!("httpd", "connection ended: nothing came or went for {} s", limit.as_secs());
        }
    }
}

async fn handle(
    module: Arc<Httpd>,
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_string();
    let Some(page) = module.page(&path) else { return Ok(plain(StatusCode::NOT_FOUND, "Not Found")) };
    let query = request.uri().query().unwrap_or("").to_string();
    let method = request.method().to_string();
    let header =
        |name: &str| request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let content_type = header("content-type").unwrap_or_default();
    let (origin, host) = (header("origin"), header("host").unwrap_or_default());
    let token = header("x-fermata-token").unwrap_or_default();
    if !module.guard.lets_in(&header("authorization").unwrap_or_default()) {
        return Ok(module.guard.challenge());
    }
    let body = Limited::new(request.into_body(), module.post_limit).collect();
    // As a whole: a byte now and then keeps no connection.
    let body = match tokio::time::timeout(module.idle.max(BODY_TIME), body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Err(_) => return Ok(plain(StatusCode::REQUEST_TIMEOUT, "too slow")),
        Ok(Err(_)) => return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "too large")),
    };
    let _busy = activity.busy();
    let asked = Query { method, path, query, content_type, origin, host, peer, token, body };
    let answer = page(shared, asked).await;
    let response = Response::builder().status(answer.status).header("Content-Type", answer.content_type);
    Ok(response.body(Full::new(answer.body)).unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "")))
}

/// Host, or what stands behind `://` in an origin, is this server: its address, or a name that is known to be ours. Any
/// other name may have been made to point here by whoever owns it.
pub fn is_own_name(authority: &str, shared: &Shared) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || shared.is_myself(name.as_bytes(), 0, None)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
