//! Single calls, live: who asks gets what happened since it asked last.

use super::Watching;
use crate::story::{Entry, What};
use crate::teller::{Teller, Wanted};
use host::mi::{MiError, MiParams, MiResult};
use host::observe::Observer;
use host::{Call, Ctx};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::rc::Rc;
use transaction::Instant;

/// Traces that run at one time on a worker.
const MAX_TRACES: usize = 20;
/// Nobody asks any more: the trace ends.
const FORGOTTEN_MS: u64 = 30_000;

/// Traces of this worker, by who asked for what.
#[derive(Default)]
struct Traces(HashMap<(String, String), Running>);

struct Running {
    teller: Rc<Teller>,
    asked: Instant,
}

fn key(params: &MiParams) -> Result<(String, String), MiError> {
    Ok((params.need("filter", 0)?, params.text("client", 1).unwrap_or_default()))
}

/// fermata:trace filter [client]: begins when it is asked first.
pub fn read(call: &mut Call<Watching>, params: &MiParams) -> MiResult {
    let key = key(params)?;
    let now = call.core.now;
    if let Some(running) = call.local::<Traces>().0.get_mut(&key) {
        running.asked = now;
        let teller = running.teller.clone();
        let record = teller.take();
        let missed = teller.missed.take();
        let mut shown: Vec<Json> =
            record.entries.iter().map(|entry| told(call.ctx, &record.columns, entry)).collect();
        if missed > 0 {
            let text = format!("{missed} entries before these were lost: ask more often, or for less");
            shown.insert(0, json!({"time_us": call.core.wall_us, "type": "note", "text": text}));
        }
        return Ok(shown.into());
    }
    if call.local::<Traces>().0.len() >= MAX_TRACES {
        return Err(MiError::internal(format!("{MAX_TRACES} traces run already")));
    }
    let teller = Rc::new(Teller::live(Wanted::guess(&key.0)));
    call.ctx.observe(teller.clone() as Rc<dyn Observer>);
    call.local::<Traces>().0.insert(key.clone(), Running { teller, asked: now });
    watch(call.ctx, key);
    Ok(json!([]))
}

/// Ends a trace that is forgotten.
fn watch(ctx: &mut Ctx, key: (String, String)) {
    ctx.after(FORGOTTEN_MS, move |ctx| {
        let now = ctx.core.now;
        match ctx.local::<Traces>().0.get(&key) {
            Some(running) if running.asked.after(FORGOTTEN_MS) > now => watch(ctx, key),
            Some(_) => drop(end(ctx, &key)),
            None => {}
        }
    });
}

fn end(ctx: &mut Ctx, key: &(String, String)) -> bool {
    let Some(running) = ctx.local::<Traces>().0.remove(key) else { return false };
    ctx.unobserve(&(running.teller as Rc<dyn Observer>));
    true
}

/// fermata:trace_stop filter [client]
pub fn stop(call: &mut Call<Watching>, params: &MiParams) -> MiResult {
    match end(call.ctx, &key(params)?) {
        true => Ok(json!("OK")),
        false => Err(MiError::new(404, "No such trace")),
    }
}

/// One entry for programs. Times are microseconds since 1970; a line comes with its text.
fn told(ctx: &Ctx, columns: &[String], entry: &Entry) -> Json {
    let name = |end: &Option<usize>| end.and_then(|at| columns.get(at)).cloned();
    let mut out = match &entry.what {
        What::Message { from, to, text, full, .. } => json!({
            "type": "message", "from": name(from), "to": name(to), "text": text,
            "message": String::from_utf8_lossy(full),
        }),
        What::Line { file, line } => {
            json!({"type": "line", "file": file, "line": line, "text": source(ctx, file, *line)})
        }
        What::Detail(text) => json!({"type": "detail", "text": text}),
        What::Log(text) => json!({"type": "log", "text": text}),
        What::Note(text) => json!({"type": "wait", "text": text}),
        What::Step { text, .. } => json!({"type": "note", "text": text}),
    };
    out["time_us"] = (entry.at * 1000).into();
    out["call_id"] = String::from_utf8_lossy(&entry.call).into();
    out
}

/// A line of the script.
pub fn source(ctx: &Ctx, file: &str, line: u32) -> String {
    let sources = ctx.shared().sources();
    let text = sources.files.iter().find(|source| source.name == file).map(|source| source.text.clone());
    let text = text.unwrap_or_default();
    let found = text.split(|b| *b == b'\n').nth((line as usize).saturating_sub(1));
    String::from_utf8_lossy(found.unwrap_or_default()).trim().to_string()
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[test]
    fn a_call_is_told_of() {
        let mut server = Server::new(
            "loadmodule \"sl.so\"\nloadmodule \"cfgutils.so\"\nroute {\n  $avp(x) = \"one\";\n  if ($rm == \"OPTIONS\")\n    sl_send_reply(200, \"Fine\");\n}",
            script::ast::Dialect::V4,
        );
        assert_eq!(
            server.manage("fermata:trace", serde_json::json!(["sip:bob@x"])).unwrap(),
            serde_json::json!([])
        );
        let options = |to: &str, id: &str| {
            format!(
                "OPTIONS sip:{to}@x SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{id}\nFrom: <sip:a@x>;tag=1\n\
                 To: <sip:{to}@x>\nCall-ID: {id}\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n"
            )
        };
        server.receive("10.0.0.2:5060", &options("bob", "one"));
        server.receive("10.0.0.2:5060", &options("carol", "two"));
        let told = server.manage("fermata:trace", serde_json::json!(["sip:bob@x"])).unwrap();
        let told: Vec<String> = told
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                assert_eq!(entry["call_id"], "one");
                format!("{} {}", entry["type"].as_str().unwrap(), entry["text"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            told,
            [
                "message OPTIONS sip:bob@x",
                "line $avp(x) = \"one\";",
                "detail $avp(x) = \"one\"",
                "line sl_send_reply(200, \"Fine\");",
                "message 200 Fine",
                "detail sl_send_reply() = 1",
            ]
        );
        assert_eq!(server.manage("fermata:trace_stop", serde_json::json!(["sip:bob@x"])).unwrap(), "OK");
        assert!(server.manage("fermata:trace_stop", serde_json::json!(["sip:bob@x"])).is_err());
        assert!(!server.is_observed(), "nothing is left of it");
    }
}
