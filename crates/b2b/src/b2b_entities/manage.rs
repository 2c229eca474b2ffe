//! Management commands: lists, and sessions of user agents.

use super::answer::{self, Reply};
use super::entity::Entity;
use super::send::{self, Inside, NewClient};
use super::ua::{self, UaFlags};
use super::{B2be, contact_of_socket, table};
use bytes::Bytes;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Registrar, Shared};
use serde_json::{Value as Json, json};

pub fn register(m: &mut Registrar<B2be>) {
    m.command_each("b2b_entities:list b2be_list", "lists entities", join_lists, |call, _| {
        Ok(list(call, |_| true))
    })
    .takes("");
    m.command(
        "b2b_entities:ua_session_client_start ua_session_client_start",
        "calls somebody; the session is the script's",
        client_start,
    )
    .takes("ruri to from [proxy] [body] [content_type] [extra_headers] [flags] [socket]");
    m.command_each(
        "b2b_entities:ua_session_update ua_session_update",
        "sends a request inside a session",
        join_ok,
        update,
    )
    .takes("key method [body] [extra_headers] [content_type]");
    m.command_each(
        "b2b_entities:ua_session_reply ua_session_reply",
        "answers a request of a session",
        join_ok,
        reply,
    )
    .takes("key method code reason [body] [extra_headers] [content_type]");
    m.command_each(
        "b2b_entities:ua_session_terminate ua_session_terminate",
        "ends a session",
        join_ok,
        terminate,
    )
    .takes("key [extra_headers]");
    m.command_each(
        "b2b_entities:ua_session_list ua_session_list",
        "lists sessions",
        join_lists,
        session_list,
    )
    .takes("[key]");
}

fn join_ok(_: Vec<Json>) -> Json {
    "OK".into()
}

/// Lists of workers one after the other; a single entity is the only answer.
fn join_lists(answers: Vec<Json>) -> Json {
    if let Some(one) = answers.iter().find(|answer| answer.is_object()) {
        return one.clone();
    }
    let lists = answers.into_iter().filter_map(|answer| match answer {
        Json::Array(list) => Some(list),
        _ => None,
    });
    Json::Array(lists.flatten().collect())
}

fn text(bytes: &[u8]) -> Json {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// An entity as lists show it.
pub fn shown(e: &Entity, shared: &Shared) -> Json {
    let mut out = json!({
        "dlg": e.id,
        "logic_key": text(&e.logic),
        "mod_name": e.owner.module,
        "state": e.state as i64,
        "last_invite_cseq": e.last_invite_cseq,
        "last_method": e.last_method,
    });
    if e.last_reply != 0 {
        out["last_reply_code"] = e.last_reply.into();
    }
    out["db_flag"] = (e.stored as i64 % 3).into();
    if !e.ruri.is_empty() {
        out["ruri"] = text(&e.ruri);
    }
    out["callid"] = text(&e.call_id);
    out["from"] = text(&e.from_dname);
    out["from_uri"] = text(&e.from_uri);
    out["from_tag"] = text(&e.tags[0]);
    out["to"] = text(&e.to_dname);
    out["to_uri"] = text(&e.to_uri);
    out["to_tag"] = text(&e.tags[1]);
    out["cseq"] = json!({"caller": e.cseq[0], "callee": e.cseq[1]});
    if !e.routes.is_empty() {
        out["route_set"] = json!({"caller": text(&e.routes.join(&b","[..]))});
    }
    out["contact"] = json!({"caller": text(&e.contact[0]), "callee": text(&e.contact[1])});
    if let Some(socket) = e.socket.and_then(|at| shared.sockets.get(usize::from(at))) {
        out["send_sock"] = text(&socket.names.host);
    }
    for (waits, name) in [(e.uac.is_some(), "uac"), (e.uas.is_some(), "uas"), (e.update.is_some(), "update")]
    {
        if waits {
            out["tm_tran"] = name.into();
        }
    }
    if !e.legs.is_empty() {
        let legs = e.legs.iter().map(|leg| {
            let mut one = json!({
                "id": leg.id,
                "tag": text(&leg.tag),
                "cseq": leg.cseq,
                "contact": text(&leg.contact),
            });
            if !leg.routes.is_empty() {
                one["route_set"] = text(&leg.routes.join(&b","[..]));
            }
            one
        });
        out["LEGS"] = Json::Array(legs.collect());
    }
    out
}

fn list(call: &mut Call<B2be>, wanted: impl Fn(&Entity) -> bool) -> Json {
    let shared = call.ctx.shared().clone();
    let mut all: Vec<&Entity> = table::of(call.ctx).all().filter(|entity| wanted(entity)).collect();
    all.sort_by(|a, b| (a.kind as u8, &a.key).cmp(&(b.kind as u8, &b.key)));
    Json::Array(all.into_iter().map(|entity| shown(entity, &shared)).collect())
}

fn session_list(call: &mut Call<B2be>, params: &MiParams) -> MiResult {
    let Some(key) = params.text("key", 0) else { return Ok(list(call, Entity::is_ua)) };
    if !call.module.keys.is_key(key.as_bytes()) {
        return Err(MiError::new(400, "Bad format for b2b key"));
    }
    let shared = call.ctx.shared().clone();
    match table::of(call.ctx).get(key.as_bytes()) {
        Some(entity) => Ok(shown(entity, &shared)),
        None => Err(MiError::new(404, "Entity not found")),
    }
}

fn some(params: &MiParams, name: &str, at: usize) -> Option<Bytes> {
    params.text(name, at).map(Bytes::from)
}

/// "Display Name,uri" or a URI alone.
fn named(text: &str) -> (Bytes, Bytes) {
    match text.split_once(',') {
        Some((name, uri)) => {
            (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(uri.as_bytes()))
        }
        None => (Bytes::new(), Bytes::copy_from_slice(text.as_bytes())),
    }
}

fn client_start(call: &mut Call<B2be>, params: &MiParams) -> MiResult {
    let failed = || MiError::new(500, "Failed to start session");
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let (to_dname, to_uri) = named(&params.need("to", 1)?);
    let (from_dname, from_uri) = named(&params.need("from", 2)?);
    let (body, headers) = ua::with_content(
        some(params, "body", 4),
        some(params, "content_type", 5),
        some(params, "extra_headers", 6),
    );
    let flags = UaFlags::parse(&some(params, "flags", 7).unwrap_or_default(), module.ua_timeout);
    let socket = match params.text("socket", 8) {
        Some(name) => match ctx.shared().socket_named(&name) {
            Some(socket) => Some(socket),
            None => return Err(MiError::new(500, "Non-local socket specified")),
        },
        None => None,
    };
    let contact = match (&module.advertised, socket) {
        (Some(contact), _) => contact.clone(),
        (None, Some(socket)) => {
            let source = transaction::Path { socket, local: 0, ..ctx.state.source };
            contact_of_socket(ctx, source, b"")
        }
        (None, None) => return Err(failed()),
    };
    let new = NewClient {
        ruri: Some(params.need("ruri", 0)?.into()),
        to_uri,
        to_dname,
        from_uri,
        from_dname,
        proxy: some(params, "proxy", 3),
        headers,
        body,
        contact,
        socket,
        ..NewClient::default()
    };
    ua::start_client(ctx, &module, new, flags).map(|key| text(&key)).ok_or_else(failed)
}

/// Its key, when this worker has it.
fn session(call: &mut Call<B2be>, params: &MiParams, refused: &'static str) -> Result<Bytes, MiError> {
    let key = Bytes::from(params.need("key", 0)?);
    match table::of(call.ctx).get(&key) {
        Some(_) => Ok(key),
        None => Err(MiError::new(500, refused)),
    }
}

fn update(call: &mut Call<B2be>, params: &MiParams) -> MiResult {
    const REFUSED: &str = "Failed to send sequential request";
    let method = Bytes::from(params.need("method", 1)?);
    let key = session(call, params, REFUSED)?;
    let (body, headers) = ua::with_content(
        some(params, "body", 2),
        some(params, "content_type", 4),
        some(params, "extra_headers", 3),
    );
    let module = call.module.clone();
    let what = Inside { method, body, headers, ..Inside::default() };
    match send::inside(call.ctx, &module, &key, what) {
        true => Ok("OK".into()),
        false => Err(MiError::new(500, REFUSED)),
    }
}

fn reply(call: &mut Call<B2be>, params: &MiParams) -> MiResult {
    const REFUSED: &str = "Failed to send reply";
    let method = Bytes::from(params.need("method", 1)?);
    let code = params.int("code", 2)?.and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let reason = Bytes::from(params.need("reason", 3)?);
    let key = session(call, params, REFUSED)?;
    let (body, headers) = ua::with_content(
        some(params, "body", 4),
        some(params, "content_type", 6),
        some(params, "extra_headers", 5),
    );
    let module = call.module.clone();
    let what = Reply { method, code, reason, body, headers, ..Reply::default() };
    match (100..700).contains(&code) && answer::reply(call.ctx, &module, &key, what) {
        true => Ok("OK".into()),
        false => Err(MiError::new(500, REFUSED)),
    }
}

fn terminate(call: &mut Call<B2be>, params: &MiParams) -> MiResult {
    const REFUSED: &str = "Failed to terminate session";
    let key = session(call, params, REFUSED)?;
    let headers = some(params, "extra_headers", 1).map(|lines| ua::whole(&lines)).unwrap_or_default();
    let module = call.module.clone();
    match ua::terminate(call.ctx, &module, &key, headers) {
        true => Ok("OK".into()),
        false => Err(MiError::new(500, REFUSED)),
    }
}
