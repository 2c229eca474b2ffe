//! The routes of the script and how they reach each other: `page:routes`.

use super::Page;
use host::mi::{MiParams, MiResult};
use host::{Call, Registrar};
use script::EdgeKind;
use serde_json::{Value as Json, json};

pub fn register(m: &mut Registrar<Page>) {
    m.command("page:routes", "routes of the script and how they reach each other", routes).takes("");
}

fn routes(call: &mut Call<Page>, _: &MiParams) -> MiResult {
    let (sources, graph) = (call.shared().sources(), call.shared().graph.read().clone());
    let Some(graph) = graph else { return Ok(json!({"Routes": [], "Ways": []})) };
    let place = |loc| format!("{}:{}", sources.name(loc), sources.line_col(loc).0);
    let waits = |node: &script::RouteNode| -> Json {
        let shown = |w: &script::Waiting| json!({"Function": String::from_utf8_lossy(&w.function), "Line": place(w.loc)});
        node.waits.iter().map(shown).collect()
    };
    let nodes = graph.nodes.iter().map(|node| {
        json!({"Route": node.title, "Line": place(node.loc), "Reached": node.reached, "Waits": waits(node)})
    });
    let kind = |kind| match kind {
        EdgeKind::Call => "calls",
        EdgeKind::Resume => "resumes in",
        EdgeKind::Report => "reports to",
        EdgeKind::Armed => "arms",
    };
    let ways = graph.edges.iter().map(
        |edge| json!({"From": edge.from, "To": edge.to, "How": kind(edge.kind), "Line": place(edge.loc)}),
    );
    Ok(json!({"Routes": nodes.collect::<Vec<_>>(), "Ways": ways.collect::<Vec<_>>()}))
}
