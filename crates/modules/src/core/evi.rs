//! Events over management: lists, subscriptions of other programs, raising.

use super::Core;
use bytes::Bytes;
use host::events::{EventParams, Subscriber, raise};
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Registrar, Value};
use serde_json::{Map, Value as Json, json};

/// Seconds that a subscription lasts when none are given.
const LIFETIME_S: u64 = 3600;

pub fn register(m: &mut Registrar<Core>) {
    m.command("evi:subscribe event_subscribe", "sends an event to a socket", subscribe)
        .takes("event socket [expire]");
    m.command("evi:list events_list", "names of all events", list).takes("");
    m.command("evi:raise raise_event", "raises an event", raise_event).takes("event [params...]");
    m.command("evi:subscribers subscribers_list", "who gets events", subscribers).takes("[event] [socket]");
}

fn id_of(call: &Call<'_, Core>, event: &[u8]) -> Result<usize, MiError> {
    call.shared().events().id_of(event).ok_or_else(|| MiError::new(404, "Event not published"))
}

fn subscribe(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let event = params.need("event", 0)?;
    let socket = params.need("socket", 1)?;
    let expire = params.int_in("expire", 2, 0..=i32::MAX.into())?;
    id_of(call, event.as_bytes())?;
    let events = call.shared().events();
    let now_ms = call.core.wall_us / 1000;
    let seconds = match expire {
        Some(0) => {
            events.unsubscribe(event.as_bytes(), &socket);
            return Ok(json!("OK"));
        }
        Some(n) => u64::try_from(n).map_err(|_| MiError::params("expire must not be negative"))?,
        None => LIFETIME_S,
    };
    let end = Some(now_ms + seconds * 1000);
    events.subscribe(Bytes::from(event), &socket, end, now_ms).map_err(|why| MiError::new(400, why))?;
    Ok(json!("OK"))
}

fn list(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let names = call.shared().events().list();
    let names = names.iter().enumerate();
    let one = |(id, name): (usize, &Bytes)| json!({"name": String::from_utf8_lossy(name), "id": id});
    Ok(json!({"Events": names.map(one).collect::<Vec<_>>()}))
}

fn value_of(json: &Json) -> Value {
    match json {
        Json::Number(n) if n.as_i64().is_some() => Value::from(n.as_i64().unwrap_or(0)),
        Json::String(text) => Value::from(text.clone()),
        Json::Null => Value::Null,
        other => Value::from(other.to_string()),
    }
}

/// Values in order, or an object (also as a text) of names and values.
fn values_of(params: &MiParams) -> Result<EventParams, MiError> {
    let object = |map: &Map<String, Json>| -> EventParams {
        map.iter().map(|(name, value)| (Bytes::from(name.clone()), value_of(value))).collect()
    };
    match params.find("params", 1) {
        None => Ok(EventParams::default()),
        Some(Json::Object(map)) => Ok(object(map)),
        Some(Json::Array(list)) => Ok(list.iter().map(|v| (Bytes::new(), value_of(v))).collect()),
        Some(Json::String(text)) => match serde_json::from_str::<Json>(text) {
            Ok(Json::Object(map)) => Ok(object(&map)),
            _ if params.named.is_empty() => {
                Ok(params.positional[1..].iter().map(|v| (Bytes::new(), value_of(v))).collect())
            }
            _ => Err(MiError::params("params must be an object or a list")),
        },
        Some(_) => Err(MiError::params("params must be an object or a list")),
    }
}

fn raise_event(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let event = params.need("event", 0)?;
    id_of(call, event.as_bytes()).map_err(|_| MiError::new(404, "Event not registered"))?;
    let values = values_of(params)?;
    raise(call.ctx, event, values);
    Ok(json!("OK"))
}

fn shown(subscriber: &Subscriber, now_ms: u64) -> Json {
    match subscriber.expires_ms {
        None => json!({"socket": subscriber.socket, "expire": "never"}),
        Some(end) => {
            json!({"socket": subscriber.socket, "expire": end / 1000, "ttl": end.saturating_sub(now_ms) / 1000})
        }
    }
}

fn subscribers(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let now_ms = call.core.wall_us / 1000;
    let events = call.shared().events();
    let (event, socket) = (params.text("event", 0), params.text("socket", 1));
    let of = |name: &[u8]| events.subscribers(Some(name), now_ms);
    let entry = |id: usize, name: &str, list: &[Subscriber]| {
        let list: Vec<Json> = list.iter().map(|s| shown(s, now_ms)).collect();
        json!({"name": name, "id": id, "Subscribers": list})
    };
    match (event, socket) {
        (None, _) => {
            let names = events.list();
            let all = names.iter().enumerate().filter_map(|(id, name)| {
                let list = of(name);
                (!list.is_empty()).then(|| entry(id, &String::from_utf8_lossy(name), &list))
            });
            Ok(json!({"Events": all.collect::<Vec<_>>()}))
        }
        (Some(event), None) => {
            let id = id_of(call, event.as_bytes())?;
            Ok(json!({"Event": entry(id, &event, &of(event.as_bytes()))}))
        }
        (Some(event), Some(socket)) => {
            let id = id_of(call, event.as_bytes())?;
            let list = of(event.as_bytes());
            let found = list.iter().find(|s| s.socket == socket);
            let found = found.ok_or_else(|| MiError::new(404, "Subscriber does not exist"))?;
            Ok(json!({"Event": {"name": event, "id": id, "Subscriber": shown(found, now_ms)}}))
        }
    }
}
