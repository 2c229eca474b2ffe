//! Notifications of engines (`notification_sock`): JSON datagrams, each of which raises an event.
#![expect(clippy::disallowed_methods, reason = "a socket of its own, no part of any call")]

use super::{NOTIFICATION, Rtpengine};
use host::events::{EventParams, raise};
use host::shared::{Hooks, Shared};
use host::{Ctx, Value};
use serde_json::Value as Json;
use std::sync::Arc;
use tokio::net::UdpSocket;

pub fn hooks(module: &Arc<Rtpengine>, hooks: &mut Hooks) {
    let Some(address) = module.notify else { return };
    let opening = module.clone();
    hooks.openings.push(Arc::new(move || {
        let socket = std::net::UdpSocket::bind(address)
            .map_err(|e| format!("rtpengine: cannot listen on notification_sock {address}: {e}"))?;
        *opening.bound.lock() = Some(socket);
        Ok(())
    }));
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

async fn serve(module: Arc<Rtpengine>, shared: Arc<Shared>) {
    let Some(socket) = module.bound.lock().take() else { return };
    let socket = match socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket)) {
        Ok(socket) => socket,
        Err(e) => return host::error!("rtpengine", "notification_sock: {e}"),
    };
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => take(&shared, &buffer[..length]),
            Err(e) => {
                host::error!("rtpengine", "notification_sock: {e}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

fn take(shared: &Shared, text: &[u8]) {
    if !shared.events().wanted(NOTIFICATION.as_bytes()) {
        return;
    }
    let Some(params) = read(text) else {
        return host::error!(
            "rtpengine",
            "a notification is no JSON object: {}",
            String::from_utf8_lossy(text)
        );
    };
    let Some(dispatch) = shared.dispatch.get() else { return };
    // The calls of one engine are told in order where their worker is.
    let call_id = params.find(b"callid").and_then(|id| id.text()).unwrap_or_default();
    let worker = host::context::detached::owner(&call_id, dispatch.workers());
    dispatch.run_on(worker, Box::new(move |ctx: &mut Ctx| raise(ctx, NOTIFICATION, params)));
}

/// The members of an object: numbers and texts as they are, anything else as JSON.
fn read(text: &[u8]) -> Option<EventParams> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let Ok(Json::Object(members)) = serde_json::from_slice(text) else { return None };
    let value = |json: Json| match json {
        Json::String(text) => Value::from(text),
        Json::Number(n) => Value::Int(n.as_i64().unwrap_or_else(|| n.as_f64().unwrap_or_default() as i64)),
        other => Value::from(other.to_string()),
    };
    Some(members.into_iter().map(|(name, json)| (name, value(json))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications() {
        let params = read(br#"{"type":"DTMF","event":5,"tags":["a"],"x":1.9,"y":true}"#).unwrap();
        let shown: Vec<_> = params
            .0
            .iter()
            .map(|(name, v)| (String::from_utf8_lossy(name).into_owned(), v.clone()))
            .collect();
        let want = [
            ("type", Value::from("DTMF")),
            ("event", Value::Int(5)),
            ("tags", Value::from(r#"["a"]"#)),
            ("x", Value::Int(1)),
            ("y", Value::from("true")),
        ];
        assert_eq!(shown, want.map(|(name, v)| (name.to_string(), v)));
        assert!(read(b"not json").is_none() && read(b"[1]").is_none());
    }
}
