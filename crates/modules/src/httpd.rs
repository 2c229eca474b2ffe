//! httpd: the HTTP server that other modules hang their pages on.

use bytes::Bytes;
use host::mi::{MiParams, MiResult};
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Call, Registrar, error, info};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use parking_lot::RwLock;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

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
    /// (root path, module, page), shared so that modules add theirs before the server starts.
    pages: RwLock<Vec<(String, &'static str, Page)>>,
}

impl Default for Httpd {
    fn default() -> Httpd {
        Httpd { ip: "127.0.0.1".into(), port: 8888, post_limit: 1 << 20, pages: RwLock::default() }
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
    m.ignored(&["conn_timeout"], "idle connections cost next to nothing");
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

fn ready(module: &Arc<Httpd>, hooks: &mut Hooks, _: &Stats) {
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

async fn serve(module: Arc<Httpd>, shared: Arc<Shared>) {
    let address = format!("{}:{}", module.ip, module.port);
    let listener = match tokio::net::TcpListener::bind(&address).await {
        Ok(listener) => listener,
        Err(e) => return error!("httpd", "cannot listen on {address}: {e}"),
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (module, shared) = (module.clone(), shared.clone());
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |request| handle(module.clone(), shared.clone(), request));
            let io = hyper_util::rt::TokioIo::new(stream);
            if let Err(e) = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await {
                info!("httpd", "connection ended: {e}");
            }
        });
    }
}

async fn handle(
    module: Arc<Httpd>,
    shared: Arc<Shared>,
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
    let body = match Limited::new(request.into_body(), module.post_limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "too large")),
    };
    let answer = page(shared, Query { method, path, query, content_type, origin, host, body }).await;
    let response = Response::builder().status(answer.status).header("Content-Type", answer.content_type);
    Ok(response.body(Full::new(answer.body)).unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "")))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
