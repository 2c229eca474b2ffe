//! What the server remembers of names: `dns_cache_list`, `dns_cache_flush`. Fermata's own.

use super::Core;
use host::mi::{MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Value as Json, json};
use sip::names::KnownName;

pub fn register(m: &mut Registrar<Core>) {
    m.command("dns_cache_list", "names that were looked up, and what is remembered", list).takes("[name]");
    m.command_each("dns_cache_flush", "forgets all names", |_| json!("OK"), flush);
}

fn list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let wanted = params.text("name", 0);
    let known = call.core.spawner.known_names();
    let shown =
        known.iter().filter(|name| wanted.as_deref().is_none_or(|w| name.query.host.eq_ignore_ascii_case(w)));
    Ok(json!({"Names": shown.map(of).collect::<Vec<_>>()}))
}

fn of(name: &KnownName) -> Json {
    let query = &name.query;
    let mut object = json!({
        "Name": query.host,
        "Port": query.port,
        "Transport": query.transport.map_or("any", |t| t.as_str()),
        "Seconds left": name.left_ms.div_ceil(1000),
    });
    match &name.answer {
        Ok(hops) => {
            object["Addresses"] =
                hops.iter().map(|hop| format!("{}:{}", hop.transport.as_str(), hop.addr)).collect();
        }
        Err(error) => object["Error"] = json!(error.to_string()),
    }
    object
}

fn flush(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    call.core.spawner.forget_names();
    Ok(Json::Null)
}
