//! mi_http: management commands as JSON-RPC over HTTP, `http://host:8888/mi`.

use crate::httpd::{Answer, Httpd, Query};
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

async fn page(shared: Arc<Shared>, query: Query) -> Answer {
    if query.method != "POST" {
        let text = "JSON-RPC 2.0 requests are POSTed here";
        return Answer { status: 405, content_type: "text/plain", body: Bytes::from_static(text.as_bytes()) };
    }
    let body = match mi::answer(&shared, &query.body).await {
        Some(answer) => Bytes::from(answer.to_string()),
        None => Bytes::new(),
    };
    Answer { status: 200, content_type: "application/json", body }
}
