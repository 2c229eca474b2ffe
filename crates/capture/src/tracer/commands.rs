//! tracer:trace, tracer:start and tracer:stop.

use super::{Dynamic, Filter, Scope, Target, TraceId, Tracer};
use crate::proto_hep::Destination;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Traces that management has started; more are refused.
const MAX_DYNAMIC: usize = 100;

pub fn register(m: &mut Registrar<Tracer>) {
    m.command("tracer:trace trace", "says what is traced, or turns it on and off", state)
        .takes("[id] [mode]");
    m.command("tracer:start trace_start", "traces requests that fit, from now on", start)
        .takes("id uri [filter] [scope] [type]");
    m.command("tracer:stop trace_stop", "ends a trace that trace_start began", stop).takes("id");
}

fn word(on: &AtomicBool) -> &'static str {
    if on.load(Ordering::Relaxed) { "on" } else { "off" }
}

fn bad(detail: &str) -> MiError {
    MiError { data: Some(detail.to_string()), ..MiError::new(500, "Bad parameter value") }
}

fn mode(params: &MiParams) -> Result<Option<bool>, MiError> {
    match params.text("mode", 1).as_deref() {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(_) => Err(bad("trace mode should be 'on' or 'off'")),
    }
}

fn shown(id: &TraceId) -> Vec<Json> {
    let one = |target: &Target| {
        let (kind, uri) = target.shown();
        json!({"name": id.name, "type": kind, "uri": uri, "state": word(&id.on)})
    };
    id.targets.iter().map(one).collect()
}

fn dynamic(trace: &Dynamic) -> Vec<Json> {
    let filter = |filter: &Filter| match filter {
        Filter::Caller(user) => json!({"caller": user}),
        Filter::Callee(user) => json!({"callee": user}),
        Filter::Ip(ip) => json!({"ip": ip.to_string()}),
    };
    let filters: Vec<Json> = trace.filters.iter().map(filter).collect();
    let mut all = shown(&trace.id);
    for one in &mut all {
        one["state"] = "dynamic".into();
        one["filters"] = filters.clone().into();
    }
    all
}

fn state(call: &mut Call<Tracer>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    // The mode alone, by position or name, is the whole tracer's.
    let alone = params.named.is_empty() && params.positional.len() == 1;
    let first = params.text("id", 0);
    let (name, mode) = match (alone, first.as_deref()) {
        (true, Some("on")) => (None, Some(true)),
        (true, Some("off")) => (None, Some(false)),
        _ => (first, mode(params)?),
    };
    let Some(name) = name else {
        return Ok(match mode {
            Some(on) => {
                module.on.store(on, Ordering::Relaxed);
                json!("OK")
            }
            None => {
                let mut all: Vec<Json> = module.ids.iter().flat_map(|id| shown(id)).collect();
                all.extend(module.dynamic.read().iter().flat_map(|trace| dynamic(trace)));
                json!({"global": word(&module.on), "trace destinations": all})
            }
        });
    };
    let id = module.ids.iter().find(|id| id.name == name);
    let id = id.ok_or_else(|| MiError::new(400, "Bad trace id value"))?;
    Ok(match mode {
        Some(on) => {
            id.on.store(on, Ordering::Relaxed);
            json!("OK")
        }
        None => json!({"trace destinations": shown(id)}),
    })
}

/// `condition=value`, one or a list.
fn filters(value: Option<&Json>) -> Result<Vec<Filter>, MiError> {
    let list: Vec<&Json> = match value {
        None => Vec::new(),
        Some(Json::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    let one = |text: &Json| {
        let wrong = || bad("a filter is caller=, callee= or ip=");
        let (key, value) = text.as_str().and_then(|text| text.split_once('=')).ok_or_else(wrong)?;
        match key.trim().to_ascii_lowercase().as_str() {
            "caller" => Ok(Filter::Caller(value.to_string())),
            "callee" => Ok(Filter::Callee(value.to_string())),
            "ip" => value.parse().map(Filter::Ip).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    };
    list.into_iter().map(one).collect()
}

fn start(call: &mut Call<Tracer>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    let (name, uri) = (params.need("id", 0)?, params.need("uri", 1)?);
    let filters = filters(params.find("filter", 2))?;
    let scope = match params.text("scope", 3).as_deref() {
        None => module.widest(),
        Some("m" | "M") => Scope::Message,
        Some("t" | "T") => Scope::Transaction,
        Some("d" | "D") => Scope::Dialog,
        Some(_) => return Err(bad("the scope is m, t or d")),
    };
    let sip = module.copies_sip(params.text("type", 4).map(|kinds| kinds.to_ascii_lowercase()).as_deref());
    if module.ids.iter().any(|id| id.name == name) {
        return Err(bad("trace id already used"));
    }
    // A HEP address is given here, not a name.
    let target = match uri.strip_prefix("hep:") {
        Some(_) if module.hep.is_none() => {
            let data = Some("HEP module was not loaded".to_string());
            return Err(MiError { data, ..MiError::new(500, "No transport protocol") });
        }
        Some(address) => Target::Hep(Arc::new(Destination::parse(address).map_err(|why| bad(&why))?)),
        None => match Target::address(&uri, None).map_err(|why| bad(&why))? {
            Some(target) => target,
            None => {
                let data = Some("dynamic DB tracing is not yet available".to_string());
                return Err(MiError { data, ..MiError::new(406, "DB not acceptable") });
            }
        },
    };
    let mut all = module.dynamic.write();
    if all.iter().any(|trace| trace.id.name == name) {
        return Err(bad("dynamic trace id already used"));
    }
    if all.len() >= MAX_DYNAMIC {
        return Err(bad("too many dynamic traces"));
    }
    let id = Arc::new(TraceId { name, on: AtomicBool::new(true), targets: vec![target] });
    all.push(Arc::new(Dynamic { id, filters, scope, sip }));
    Ok(json!("OK"))
}

fn stop(call: &mut Call<Tracer>, params: &MiParams) -> MiResult {
    let name = params.need("id", 0)?;
    let mut all = call.module.dynamic.write();
    let at = all.iter().position(|trace| trace.id.name == name);
    let at = at.ok_or_else(|| MiError::new(400, "Bad parameter value"))?;
    // Calls that it follows already are followed no further.
    all.remove(at).id.on.store(false, Ordering::Relaxed);
    Ok(json!("OK"))
}
