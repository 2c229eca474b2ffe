//! Databases and stores, and whether they are there: `page:backends`.

use super::Page;
use host::mi::{MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::json;

pub fn register(m: &mut Registrar<Page>) {
    m.command("page:backends", "databases and stores, and whether they are there", backends).takes("");
}

fn backends(call: &mut Call<Page>, _: &MiParams) -> MiResult {
    let all = call.shared().backends().into_iter().map(|backend| {
        let state = match (backend.lost, backend.troubled) {
            (true, _) => "lost",
            (false, true) => "takes no statements",
            (false, false) => "up",
        };
        json!({
            "Module": backend.module, "Name": backend.name, "State": state, "Connections": backend.connections,
        })
    });
    Ok(json!({"Backends": all.collect::<Vec<_>>()}))
}
