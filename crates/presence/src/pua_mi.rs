//! pua_mi: states and subscriptions by management.

use crate::pua::record::{Publication, Source, event_named};
use crate::pua::{Pua, Refused, Wish, publish, subscribe};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::tm::Answer;
use host::{Call, Ctx, Registrar};
use parking_lot::Mutex;
use serde_json::json;
use sip::{HeaderName, Uri};
use std::sync::Arc;

#[derive(Default)]
pub struct PuaMi {
    server: Option<Bytes>,
    pua: Option<Arc<Pua>>,
}

pub fn register(m: &mut Registrar<PuaMi>) {
    m.param_text("presence_server", |s, v| Ok(s.server = Some(v.to_string().into())));
    m.command_late("pua_mi:publish pua_publish", "publishes a state", mi_publish)
        .takes("presentity_uri expires event_package [content_type] [etag] [extra_headers] [body]");
    m.command("pua_mi:subscribe pua_subscribe", "subscribes to a state", mi_subscribe)
        .takes("presentity_uri watcher_uri event_package expires");
    m.needs(&["pua"]);
    m.init(|s, loader| {
        s.pua = loader.module::<Pua>();
        Ok(())
    });
}

fn uri(params: &MiParams, name: &str, at: usize, error: fn() -> MiError) -> Result<Bytes, MiError> {
    let uri = Bytes::from(params.need(name, at)?);
    Uri::parse(&uri).map(|_| uri).map_err(|_| error())
}

/// A text that is there must not be empty.
fn optional(params: &MiParams, name: &str, at: usize, empty: &str) -> Result<Option<Bytes>, MiError> {
    match params.text(name, at) {
        Some(text) if text.is_empty() => Err(MiError::new(400, empty)),
        text => Ok(text.map(Bytes::from)),
    }
}

fn expires_of(params: &MiParams, at: usize) -> Result<i64, MiError> {
    params.int("expires", at)?.ok_or_else(|| MiError::params("missing parameter: expires"))
}

fn read(params: &MiParams) -> Result<Publication, MiError> {
    let uri = uri(params, "presentity_uri", 0, || MiError::new(404, "Bad presentity URI"))?;
    let expires = expires_of(params, 1)?;
    let event = params.need("event_package", 2)?;
    if event.is_empty() {
        return Err(MiError::new(400, "Empty event parameter"));
    }
    let event = event_named(&event).ok_or_else(|| MiError::new(400, "Unknown event"))?;
    let content_type = optional(params, "content_type", 3, "Empty content type parameter")?;
    let etag = optional(params, "etag", 4, "Empty etag parameter")?;
    let headers = optional(params, "extra_headers", 5, "Empty extra_headers")?;
    let body = optional(params, "body", 6, "Empty body parameter")?;
    if content_type.is_some() != body.is_some() {
        return Err(MiError::params("content_type and body come together"));
    }
    Ok(Publication {
        uri,
        id: Bytes::new(),
        event,
        source: Source::Publish,
        expires,
        body,
        content_type: content_type.unwrap_or_default(),
        etag,
        headers: headers.map(|h| lines(&h)).unwrap_or_default(),
        proxy: None,
        is_new: false,
        done: None,
    })
}

/// Lines with the line ends that SIP has.
fn lines(text: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(text);
    text.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect::<String>().into()
}

fn mi_publish(call: &mut Call<PuaMi>, params: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    let (mut publication, pua) = match (read(params), &module.pua) {
        (Ok(publication), Some(pua)) => (publication, pua.clone()),
        (Err(error), _) => return answer.give(Err(error)),
        (_, None) => return answer.give(Err(MiError::internal("module pua is not loaded"))),
    };
    publication.proxy = module.server.clone();
    // Whoever is refused hears of it here, the others with the reply.
    let answer = Arc::new(Mutex::new(Some(answer)));
    let late = answer.clone();
    publication.done = Some(Box::new(move |_: &mut Ctx, reply: &Answer| {
        if let Some(answer) = late.lock().take() {
            answer.give(Ok(told(reply)));
        }
    }));
    let refused = match publish(call.ctx, &pua, publication) {
        Ok(()) => return,
        Err(Refused::WrongTag) => MiError::new(418, "Wrong ETag"),
        Err(_) => MiError::new(500, "MI/PUBLISH failed"),
    };
    if let Some(answer) = answer.lock().take() {
        answer.give(Err(refused));
    }
}

fn told(reply: &Answer) -> serde_json::Value {
    let mut told = json!({"reply": format!("{} {}", reply.status, String::from_utf8_lossy(&reply.reason))});
    if let Some(message) = reply.reply.as_ref().filter(|_| reply.status == 200) {
        if let Some(etag) = message.value(HeaderName::SipEtag) {
            told["ETag"] = json!(String::from_utf8_lossy(&etag));
        }
        told["Expires"] = json!(message.expires().unwrap_or(0));
    }
    told
}

fn mi_subscribe(call: &mut Call<PuaMi>, params: &MiParams) -> MiResult {
    let bad = || MiError::new(400, "Bad uri");
    let target = uri(params, "presentity_uri", 0, bad)?;
    let watcher = uri(params, "watcher_uri", 1, bad)?;
    let event = params.need("event_package", 2)?;
    if event.is_empty() {
        return Err(MiError::new(400, "Empty event parameter"));
    }
    let expires = expires_of(params, 3)?;
    let event = event_named(&event).ok_or_else(|| MiError::new(400, "Unknown event"))?;
    let pua = call.module.pua.clone().ok_or_else(|| MiError::internal("module pua is not loaded"))?;
    let contact = watcher.clone();
    let wish = Wish {
        uri: target,
        watcher,
        contact,
        event,
        source: Source::Subscribe,
        expires,
        id: Bytes::new(),
        proxy: None,
        headers: Bytes::new(),
    };
    match subscribe(call.ctx, &pua, wish) {
        true => Ok(json!("accepted")),
        false => Err(MiError::internal("the SUBSCRIBE cannot be sent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published() {
        let named = |more: serde_json::Value| {
            let mut all = json!({"presentity_uri": "sip:a@x", "expires": 60, "event_package": "presence"});
            more.as_object().into_iter().flatten().for_each(|(k, v)| all[k] = v.clone());
            read(&MiParams::from_json(Some(all)).unwrap()).map(|p| p.headers).map_err(|e| e.code)
        };
        assert_eq!(
            named(json!({"extra_headers": "A: b\nC: d"})),
            Ok(Bytes::from_static(b"A: b\r\nC: d\r\n"))
        );
        assert_eq!(named(json!({"presentity_uri": "what"})), Err(404));
        assert_eq!(named(json!({"event_package": "odd"})), Err(400));
        assert_eq!(named(json!({"etag": ""})), Err(400));
        assert_eq!(named(json!({"body": "x"})), Err(-32602));
    }
}
