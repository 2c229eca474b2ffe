//! mi_json: management commands of 2.x over HTTP, `http://host:8888/json/get_statistics?params=net%3A,uri%3A`.

use crate::httpd::{Answer, Httpd, Query};
use bytes::Bytes;
use host::Registrar;
use host::load::Loader;
use host::mi::{self, MiParams};
use host::shared::Shared;
use serde_json::{Value as Json, json};
use std::sync::Arc;

pub struct MiJson {
    root: String,
}

impl Default for MiJson {
    fn default() -> MiJson {
        MiJson { root: "json".into() }
    }
}

pub fn register(m: &mut Registrar<MiJson>) {
    m.param_text("mi_json_root", |s, v| Ok(s.root = v.into()));
    m.ignored(&["trace_destination", "trace_bwlist"], "management traffic is not traced");
    m.needs(&["httpd"]);
    m.init(init);
}

fn init(module: &mut MiJson, loader: &mut Loader) -> Result<(), String> {
    if let Some(httpd) = loader.module::<Httpd>() {
        httpd.add(&module.root, "mi_json", Arc::new(|shared, query| Box::pin(page(shared, query))));
    }
    Ok(())
}

fn answer(status: u16, body: &Json) -> Answer {
    Answer { status, content_type: "application/json", body: Bytes::from(body.to_string()) }
}

fn failure(status: u16, message: &str) -> Answer {
    answer(status, &json!({"error": {"code": status, "message": message}}))
}

async fn page(shared: Arc<Shared>, query: Query) -> Answer {
    // A page of somebody else's makes a browser send GET anywhere: then it names that page.
    if query.origin.is_some() {
        return failure(403, "requests of web pages are not taken");
    }
    if query.method != "GET" {
        return failure(405, "GET /root/command?params=a,b");
    }
    let Some((command, params)) = asked(&query.path, &query.query) else {
        return failure(400, "GET /root/command?params=a,b");
    };
    let params = MiParams { named: Default::default(), positional: params };
    match mi::call(&shared, &command, params).await {
        Ok(result) => answer(200, &result),
        Err(error) => {
            let status = match error.code {
                code @ 400..=599 => code as u16,
                -32601 => 404,
                -32602 => 400,
                _ => 500,
            };
            let message = error.data.as_deref().unwrap_or(&error.message);
            failure(status, message)
        }
    }
}

/// The command and its parameters, which commas part.
fn asked(path: &str, query: &str) -> Option<(String, Vec<Json>)> {
    let command = path.trim_matches('/').split('/').nth(1).filter(|command| !command.is_empty())?;
    let list = query.split('&').find_map(|pair| pair.strip_prefix("params="));
    let params = list.filter(|list| !list.is_empty()).map(plain);
    let params = params.iter().flat_map(|list| list.split(',')).map(Json::from).collect();
    Some((plain(command), params))
}

/// `a+b%2C` as `a b,`.
fn plain(text: &str) -> String {
    let text = Bytes::from(text.replace('+', " "));
    String::from_utf8_lossy(&sip::unescape(&text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        for (path, query, want) in [
            ("/json/which", "", Some(("which", vec![]))),
            (
                "/json/get_statistics",
                "params=net%3A%2Curi%3A",
                Some(("get_statistics", vec!["net:", "uri:"])),
            ),
            (
                "/json/ul_show_contact/",
                "x=1&params=location,a+b",
                Some(("ul_show_contact", vec!["location", "a b"])),
            ),
            ("/json", "", None),
            ("/json/", "params=a", None),
        ] {
            let want = want.map(|(command, params): (&str, Vec<&str>)| {
                (command.to_owned(), params.into_iter().map(Json::from).collect::<Vec<_>>())
            });
            assert_eq!(asked(path, query), want, "{path}?{query}");
        }
    }
}
