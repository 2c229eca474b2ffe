//! Management commands.

use super::bridge::{self, Plan};
use super::init::{self, Triggered};
use super::session::{self, BridgeFlags, End, EndState, Scenario, Session};
use super::{B2bl, acts, join, sql, upkeep};
use crate::b2b_entities::answer::Reply;
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::hold;
use bytes::Bytes;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Ctx, Registrar};
use serde_json::{Value as Json, json};
use sip::Uri;
use std::sync::Arc;

pub fn register(m: &mut Registrar<B2bl>) {
    m.command_each("b2b_logic:list b2b_list", "lists sessions", join_lists, list).takes("");
    m.command_each(
        "b2b_logic:bridge b2b_bridge",
        "connects an end of a session with somebody else",
        join_ok,
        bridge,
    )
    .takes("dialog_id new_uri [flag] [prov_media_uri]");
    m.command_each("b2b_logic:terminate_call b2b_terminate_call", "ends a session", join_ok, terminate)
        .takes("key");
    m.command(
        "b2b_logic:trigger_scenario b2b_trigger_scenario",
        "calls two parties and connects them",
        trigger,
    )
    .takes("scenario_id entity1 entity2 [context]");
}

fn join_ok(_: Vec<Json>) -> Json {
    "OK".into()
}

fn join_lists(answers: Vec<Json>) -> Json {
    let lists = answers.into_iter().filter_map(|mut answer| match answer["Tuples"].take() {
        Json::Array(list) => Some(list),
        _ => None,
    });
    json!({"Tuples": lists.flatten().collect::<Vec<Json>>()})
}

fn text(bytes: &[u8]) -> Json {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn shown_end(s: &Session, index: usize, end: &End) -> Json {
    let mut out = json!({"index": index});
    if !end.name.is_empty() {
        out["scenario_id"] = text(&end.name);
    }
    if !end.key.is_empty() {
        out["key"] = text(&end.key);
    }
    out["disconnected"] = i32::from(end.disconnected).into();
    out["state"] = (end.state as i64).into();
    out["no"] = end.no.into();
    out["type"] = (end.kind as i64).into();
    if let Some(peer) = end.peer.and_then(|peer| s.end(peer)).filter(|peer| !peer.key.is_empty()) {
        out["peer"] = text(&peer.key);
    }
    for (name, value) in
        [("to_uri", &end.to_uri), ("from_uri", &end.from_uri), ("from_dname", &end.from_dname)]
    {
        if !value.is_empty() {
            out[name] = text(value);
        }
    }
    out
}

fn shown(s: &Session, now: u64) -> Json {
    let mut out = json!({
        "id": s.id,
        "key": text(&s.key),
        "state": s.state as i64,
        "lifetime": s.ends_at.map_or(0, |at| at.saturating_sub(now) / 1000),
        "db_flag": if s.stored { 0 } else { 2 },
    });
    if s.scenario != Scenario::Internal {
        out["scenario"] = text(&s.scenario.name());
    }
    let list = |ids: Vec<Option<u32>>| -> Json {
        let ends = ids.into_iter().enumerate().filter_map(|(at, id)| Some(shown_end(s, at, s.end(id?)?)));
        ends.collect::<Vec<Json>>().into()
    };
    out["SERVERS"] = list(s.servers.iter().copied().map(Some).collect());
    out["CLIENTS"] = list(s.clients.iter().copied().map(Some).collect());
    out["BRIDGE_ENTITIES"] = list(s.bridge.into());
    out
}

fn list(call: &mut Call<B2bl>, _: &MiParams) -> MiResult {
    let now = acts::later(call.ctx, 0);
    let mut all: Vec<&Session> = session::table(call.ctx).all().collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(json!({"Tuples": all.into_iter().map(|s| shown(s, now)).collect::<Vec<Json>>()}))
}

/// What the reference says when a command cannot be done.
fn failed() -> MiError {
    MiError { data: Some("Command handler returned null".into()), ..MiError::new(-32000, "Server error") }
}

fn uri(text: String) -> Option<Bytes> {
    let uri = Bytes::from(text);
    (Uri::parse(&uri).is_ok() && !has_control(&uri)).then_some(uri)
}

fn bridge(call: &mut Call<B2bl>, params: &MiParams) -> MiResult {
    let key = Bytes::from(params.need("dialog_id", 0)?);
    let new_uri = params.need("new_uri", 1)?;
    let Some(new) = uri(new_uri) else {
        return Err(MiError::new(404, "Invalid uri for the new destination"));
    };
    let place = match params.int("flag", 2)? {
        None => None,
        Some(n @ (0 | 1)) => Some(n as usize),
        Some(_) => return Err(MiError::new(404, "Invalid 'flag' parameter")),
    };
    let media = match params.text("prov_media_uri", 3) {
        None => None,
        Some(text) => Some(uri(text).ok_or_else(|| MiError::new(404, "Bad 'prov_media_uri' parameter"))?),
    };
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some((key, other)) = join::resolve(ctx, &key) else { return Err(failed()) };
    let place = place.or(other).unwrap_or(0);
    let Some(turn) = hold(ctx, &key) else { return Err(failed()) };
    let done = replace(ctx, &module, &key, place, new, media);
    turn.end(ctx);
    if done { Ok("OK".into()) } else { Err(failed()) }
}

/// The end at a place speaks with somebody else.
fn replace(
    ctx: &mut Ctx,
    module: &Arc<B2bl>,
    key: &Bytes,
    place: usize,
    new: Bytes,
    media: Option<Bytes>,
) -> bool {
    let ends = acts::read(ctx, key, |s| {
        let (stays, goes) = (s.bridged(place)?, s.bridged(1 - place)?);
        let fits = !stays.disconnected && stays.state == EndState::Confirmed && s.rivals.is_empty();
        fits.then(|| (stays.id, goes.clone()))
    });
    let Some((stays, goes)) = ends.flatten() else {
        acts::close(ctx, key);
        return false;
    };
    if goes.disconnected {
        acts::answer(ctx, key, goes.id, Reply::new("BYE", 200, "OK"));
    } else {
        acts::hang_up(ctx, key, Some(goes.id));
    }
    if let Some(s) = session::of(ctx, key) {
        s.disconnect(goes.id);
        s.bridging = BridgeFlags::default();
    }
    let end = End { kind: Kind::Client, to_uri: new, ..End::default() };
    let plan = Plan { old: Some(stays), new: vec![end], media, flags: BridgeFlags::default() };
    let lifetime = acts::read(ctx, key, |s| s.ends_at).flatten();
    let done = bridge::begin(ctx, module, key, plan);
    match session::of(ctx, key) {
        Some(s) if done => s.ends_at = lifetime,
        _ => acts::close(ctx, key),
    }
    sql::changed(ctx, module, key);
    done
}

fn terminate(call: &mut Call<B2bl>, params: &MiParams) -> MiResult {
    let key = Bytes::from(params.need("key", 0)?);
    let ctx = &mut *call.ctx;
    let Some((key, _)) = join::resolve(ctx, &key) else {
        return Err(MiError::new(404, "B2B session not found"));
    };
    upkeep::terminate(ctx, &key);
    acts::close(ctx, &key);
    Ok("OK".into())
}

/// Line ends and their like stand in no header.
fn has_control(text: &[u8]) -> bool {
    text.iter().any(|b| b.is_ascii_control())
}

/// `id,uri[,display name]`
fn party(text: &str, name: &str) -> Result<End, MiError> {
    if has_control(text.as_bytes()) {
        return Err(MiError::new(400, format!("Bad format for {name}")));
    }
    let mut parts = text.split(',').map(|part| Bytes::copy_from_slice(part.trim().as_bytes()));
    let id = parts.next().unwrap_or_default();
    if id.is_empty() {
        return Err(MiError::new(400, format!("Missing ID for {name}")));
    }
    let uri = parts.next().filter(|uri| !uri.is_empty());
    let Some(to_uri) = uri else {
        return Err(MiError::new(400, format!("Missing destination URI for {name}")));
    };
    let from_dname = parts.next().unwrap_or_default();
    Ok(End { kind: Kind::Client, name: id, to_uri, from_dname, ..End::default() })
}

fn trigger(call: &mut Call<B2bl>, params: &MiParams) -> MiResult {
    let scenario = Bytes::from(params.need("scenario_id", 0)?);
    let (first, second) = (params.need("entity1", 1)?, params.need("entity2", 2)?);
    let ends = [party(&first, "entity1")?, party(&second, "entity2")?];
    let mut values = Vec::new();
    let context = match params.find("context", 3) {
        None => Vec::new(),
        Some(Json::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
    };
    for item in &context {
        let Some((name, value)) = item.as_str().and_then(|text| text.split_once('=')) else {
            return Err(MiError::new(400, "Bad format for context value"));
        };
        let (name, value) =
            (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        session::set_value(&mut values, &name, Some(value));
    }
    let module = call.module.clone();
    let what = Triggered { scenario, ends, values, initiator: None };
    match init::trigger(call.ctx, &module, what) {
        Some(_) => Ok("OK".into()),
        None => Err(MiError::new(500, "Failed to initialize scenario")),
    }
}
