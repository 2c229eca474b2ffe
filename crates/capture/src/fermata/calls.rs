//! Open transactions and what they wait for: `fermata top`.

use super::Watching;
use host::Call;
use host::ctx::Ctx;
use host::mi::{MiParams, MiResult};
use serde_json::{Value as Json, json};
use sip::HeaderName;

/// Listed when nothing else is asked for.
const DEFAULT_COUNT: usize = 50;
/// Listed at most.
const MAX_LISTED: usize = 10_000;

fn count(params: &MiParams) -> Result<usize, host::mi::MiError> {
    let asked = params.int("count", 0)?.and_then(|n| usize::try_from(n).ok());
    Ok(asked.unwrap_or(DEFAULT_COUNT).min(MAX_LISTED))
}

/// fermata:calls [count]: the oldest first.
pub fn list(call: &mut Call<Watching>, params: &MiParams) -> MiResult {
    let count = count(params)?;
    let ctx = &*call.ctx;
    let now = ctx.core.now;
    let mut ids: Vec<_> = ctx
        .txn_ids()
        .filter_map(|id| {
            let txn = ctx.txn(id);
            txn.is_open().then(|| Some((txn.created()?, id))).flatten()
        })
        .collect();
    let open = ids.len();
    let waiting = ctx.core.tasks.iter().filter(|task| task.live && !task.call_id.is_empty()).count();
    ids.sort_by_key(|(created, id)| (*created, id.index));
    ids.truncate(count);
    let calls: Vec<Json> = ids
        .into_iter()
        .filter_map(|(created, id)| {
            let txn = ctx.txn(id);
            let msg = txn.data()?.msg.clone();
            let header = |name| msg.header(name).map(|h| uri_of(msg.bytes(h.value())));
            let pending = txn.branches().filter(|branch| branch.is_pending).count();
            let waits: Vec<Json> = ctx
                .core
                .tasks_of
                .get(&id)
                .into_iter()
                .flatten()
                .filter_map(|task| wait(ctx, *task))
                .collect();
            Some(json!({
                "worker": ctx.core.worker,
                "call_id": String::from_utf8_lossy(&msg.call_id().unwrap_or_default()),
                "method": String::from_utf8_lossy(&msg.method_text()),
                "from": header(HeaderName::From),
                "to": header(HeaderName::To),
                "ms": now.0.saturating_sub(created.0),
                "status": txn.status(),
                "branches": pending,
                "waits": waits,
            }))
        })
        .collect();
    Ok(json!({"open": open, "waiting": waiting, "calls": calls}))
}

fn wait(ctx: &Ctx, task: host::TaskId) -> Option<Json> {
    let parked =
        ctx.core.tasks.get(task.index as usize).filter(|t| t.live && t.generation == task.generation)?;
    let sources = ctx.shared().sources();
    Some(json!({
        "what": parked.what,
        "detail": String::from_utf8_lossy(&parked.detail),
        "ms": ctx.core.now.0.saturating_sub(parked.since.0),
        "left_ms": parked.deadline.0.saturating_sub(ctx.core.now.0),
        "file": sources.name(parked.loc),
        "line": sources.line_col(parked.loc).0,
    }))
}

/// "sip:bob@x" of a From or To.
fn uri_of(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let inner =
        text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(uri, _)| uri.to_string());
    inner.unwrap_or_else(|| text.split(';').next().unwrap_or_default().trim().to_string())
}

/// All workers together.
pub fn join(lists: Vec<Json>) -> Json {
    let sum = |name: &str| lists.iter().filter_map(|list| list[name].as_u64()).sum::<u64>();
    let (open, waiting) = (sum("open"), sum("waiting"));
    let mut calls: Vec<Json> =
        lists.iter().flat_map(|list| list["calls"].as_array().cloned().unwrap_or_default()).collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call["ms"].as_u64()));
    json!({"open": open, "waiting": waiting, "calls": calls})
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[test]
    fn a_call_that_waits_is_listed() {
        let mut server = Server::new(
            "loadmodule \"tm.so\"\nloadmodule \"cfgutils.so\"\nroute {\n  t_newtran();\n  sleep(5);\n}",
            script::ast::Dialect::V4,
        );
        server.receive(
            "10.0.0.2:5060",
            "INVITE sip:bob@x SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\nFrom: \"A\" <sip:a@x>;tag=1\n\
             To: sip:b@x\nCall-ID: one\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
        );
        let list = server.manage("fermata:calls", serde_json::json!([])).unwrap();
        assert_eq!((&list["open"], &list["waiting"]), (&1.into(), &1.into()));
        let call = &list["calls"][0];
        assert_eq!(
            (&call["from"], &call["to"], &call["method"]),
            (&"sip:a@x".into(), &"sip:b@x".into(), &"INVITE".into())
        );
        assert_eq!((&call["waits"][0]["what"], &call["waits"][0]["line"]), (&"sleep".into(), &5.into()));
    }
}
