//! page: what the server does now, in a browser: `http://host:8888/page`, on the server of module `httpd`.
//!
//! The page itself is three files that are compiled in; everything it shows it asks for as management commands
//! ([`READABLE`]), so that `opensips-cli` shows the same numbers. Beyond the loopback address it wants a token.

mod access;
mod backends;
mod counting;
mod graph;
mod history;
mod ladder;
mod waits;

use bytes::Bytes;
use host::load::Loader;
use host::mi;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Registrar, warn};
use modules::httpd::{Answer, Httpd, Query};
use serde_json::Value as Json;
use std::sync::Arc;

/// Commands that the page may run, by their first name: they read, and none shows a password. One that is not
/// loaded is not asked for.
const READABLE: [&str; 22] = [
    "async_list",
    "async_stats",
    "core:ps",
    "core:uptime",
    "core:version",
    "core:which",
    "dispatcher:list",
    "drouting:carrier_status",
    "drouting:gw_status",
    "load_balancer:list",
    "page:backends",
    "page:follow",
    "page:history",
    "page:ladder",
    "page:routes",
    "page:threads",
    "page:waits",
    "rtpengine:show",
    "rtpproxy:show",
    "statistics:get",
    "status_report:status",
    "tcp:list",
];

const HTML: &str = include_str!("../../assets/page.html");
const STYLE: &str = include_str!("../../assets/page.css");
const SCRIPT: &str = include_str!("../../assets/page.js");

pub struct Page {
    root: String,
    token: String,
    counts: counting::Counts,
    history: Arc<history::History>,
    ladder: Arc<ladder::Ladder>,
}

impl Default for Page {
    fn default() -> Page {
        Page {
            root: "page".into(),
            token: String::new(),
            counts: Default::default(),
            history: Arc::default(),
            ladder: Arc::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Page>) {
    m.param_text("root", |s, v| Ok(s.root = v.trim_matches('/').into()));
    m.param_text("token", |s, v| match v.len() {
        0 | 16.. => Ok(s.token = v.into()),
        _ => Err("a token has 16 characters at least: `openssl rand -hex 16` makes one".into()),
    });
    backends::register(m);
    graph::register(m);
    history::register(m);
    ladder::register(m);
    waits::register(m);
    m.needs(&["httpd"]);
    m.init(init);
    m.ready(ready);
}

fn init(s: &mut Page, loader: &mut Loader) -> Result<(), String> {
    if s.root.is_empty() || s.root.contains('/') {
        return Err("root is one part of a path".into());
    }
    s.counts = counting::Counts::new(&loader.stats);
    let Some(httpd) = loader.module::<Httpd>() else { return Ok(()) };
    let site = Arc::new(Site {
        token: s.token.clone(),
        html: HTML.replace("{root}", &s.root),
        root: s.root.clone(),
    });
    let page =
        move |shared: Arc<Shared>, query: Query| -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
            let site = site.clone();
            Box::pin(async move { site.answer(shared, query).await })
        };
    httpd.add(&s.root, "page", Arc::new(page));
    Ok(())
}

fn ready(module: &Arc<Page>, hooks: &mut Hooks, _: &Stats) {
    counting::watch(&module.counts, hooks);
    let history = module.history.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(history::keep(history.clone(), shared))));
}

/// What is served below the root.
struct Site {
    root: String,
    token: String,
    html: String,
}

impl Site {
    async fn answer(&self, shared: Arc<Shared>, query: Query) -> Answer {
        let path = query.path.trim_matches('/');
        let below = path.strip_prefix(&self.root).unwrap_or(path).trim_matches('/');
        if let Err(refused) = access::may_enter(&self.token, &query, &shared) {
            return refused.answer();
        }
        match (query.method.as_str(), below) {
            ("GET", "") => asset("text/html; charset=utf-8", self.html.clone()),
            ("GET", "page.css") => asset("text/css; charset=utf-8", STYLE),
            ("GET", "page.js") => asset("text/javascript; charset=utf-8", SCRIPT),
            ("POST", "api") => match access::may_ask(&self.token, &query) {
                Ok(()) => api(&shared, &query.body).await,
                Err(refused) => refused.answer(),
            },
            (_, "" | "page.css" | "page.js" | "api") => text(405, "GET for the page, POST for /api"),
            _ => text(404, "Not Found"),
        }
    }
}

fn asset(content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    Answer { status: 200, content_type, body: text.into() }
}

fn text(status: u16, text: &'static str) -> Answer {
    Answer { status, content_type: "text/plain", body: Bytes::from_static(text.as_bytes()) }
}

/// One JSON-RPC text, when everything in it only reads.
async fn api(shared: &Arc<Shared>, body: &[u8]) -> Answer {
    let Ok(asked) = serde_json::from_slice::<Json>(body) else { return text(400, "this is no JSON") };
    let requests = asked.as_array().map_or(std::slice::from_ref(&asked), Vec::as_slice);
    for request in requests {
        let method = request.get("method").and_then(Json::as_str).unwrap_or_default();
        if !is_readable(shared, method) {
            warn!("page", "a command that the page does not run was asked for: {method}");
            return text(403, "the page only reads: use mi_http or mi_fifo for this command");
        }
    }
    let answer = mi::answer(shared, body).await;
    asset("application/json", answer.unwrap_or(Json::Null).to_string())
}

/// A command that is not loaded may be asked for: the answer says so.
fn is_readable(shared: &Shared, name: &str) -> bool {
    shared.command(name).is_none_or(|command| READABLE.contains(&command.name))
}

#[cfg(test)]
mod tests;
