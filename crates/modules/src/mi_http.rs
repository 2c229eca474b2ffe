//! mi_http: management commands as JSON-RPC over HTTP, `http://host:8888/mi`.

use crate::httpd::{Answer, Httpd, Query, is_own_name};
use bytes::Bytes;
use host::Registrar;
use host::load::Loader;
use host::mi;
use host::shared::Shared;
use std::sync::Arc;

pub struct MiHttp {
    root: String,
}

impl Default for MiHttp {
    fn default() -> MiHttp {
        MiHttp { root: "mi".into() }
    }
}

pub fn register(m: &mut Registrar<MiHttp>) {
    m.param_text("root", |s, v| Ok(s.root = v.into()));
    m.param_text("mi_http_root", |s, v| Ok(s.root = v.into()));
    m.ignored(&["mi_http_method"], "GET and POST are both taken");
    m.ignored(&["trace_destination", "trace_bwlist"], "management traffic is not traced");
    m.needs(&["httpd"]);
    m.init(init);
}

fn init(module: &mut MiHttp, loader: &mut Loader) -> Result<(), String> {
    if let Some(httpd) = loader.module::<Httpd>() {
        httpd.add(&module.root, "mi_http", Arc::new(|shared, query| Box::pin(page(shared, query))));
    }
    Ok(())
}

fn refused(status: u16, text: &'static str) -> Answer {
    Answer { status, content_type: "text/plain", body: Bytes::from_static(text.as_bytes()) }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.eq_ignore_ascii_case("application/json-rpc")
}

/// The page came from this server.
fn is_own(origin: &str, host: &str, shared: &Shared) -> bool {
    let Some((_, place)) = origin.split_once("://") else { return false };
    is_own_name(place, shared) && place.eq_ignore_ascii_case(host)
}

async fn page(shared: Arc<Shared>, query: Query) -> Answer {
    if query.method != "POST" {
        let text = "JSON-RPC 2.0 requests are POSTed here";
        return refused(405, text);
    }
    // A page of somebody else's in an administrator's browser may send forms and texts anywhere, but JSON only
    // where it is asked for first, which is never answered here.
    if !is_json(&query.content_type) {
        return refused(415, "the Content-Type must be application/json");
    }
    if query.origin.as_ref().is_some_and(|origin| !is_own(origin, &query.host, &shared)) {
        return refused(403, "requests of other web pages are not taken");
    }
    let body = match mi::answer(&shared, &query.body).await {
        Some(answer) => Bytes::from(answer.to_string()),
        None => Bytes::new(),
    };
    Answer { status: 200, content_type: "application/json", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken() {
        for (kind, good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json-rpc", true),
            ("text/plain", false),
            ("text/plain; application/json", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=application/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind), good, "{kind}");
        }
    }
}
