//! mi_script: management commands from scripts.

use bytes::Bytes;
use host::arg::AnyVar;
use host::call::Finish;
use host::mi::{self, MiParams, MiResult, MiScope};
use host::var::VarKind;
use host::{Call, Ctx, OutVar, Outcome, Registrar, Routes, Suspension, Text};
use serde_json::Value as Json;

#[derive(Default)]
pub struct MiScript {
    pretty: bool,
}

const OK: i32 = 1;
const ERROR: i32 = -1;
/// The command answered with an error.
const REFUSED: i32 = -2;

/// Longest a command may take.
const LIMIT_MS: u64 = 60_000;

pub fn register(m: &mut Registrar<MiScript>) {
    m.param_int("pretty_printing", |m, on| Ok(m.pretty = on != 0));
    m.ignored(&["trace_destination", "trace_bwlist"], "management traffic is not traced");
    m.function("mi", Routes::ALL, run);
}

/// mi(command, [variable], [parameters], [values]): 1, -2 when the command says no (its words are in the
/// variable), -1 on errors.
fn run(
    call: &mut Call<MiScript>,
    command: Text,
    out: Option<OutVar>,
    names: Option<AnyVar>,
    values: Option<AnyVar>,
) -> Outcome {
    let text = command.str().into_owned();
    let mut words = text.split_whitespace();
    let Some(name) = words.next().map(str::to_string) else {
        host::error!("mi_script", "the command is empty");
        return Outcome::Done(ERROR);
    };
    let params = match (names, values) {
        (None, _) => MiParams { positional: words.map(Json::from).collect(), ..MiParams::default() },
        (Some(list), None) => MiParams {
            positional: texts(call, &list).into_iter().map(value).collect(),
            ..MiParams::default()
        },
        (Some(names), Some(values)) => {
            let (names, values) = (texts(call, &names), texts(call, &values));
            if names.len() != values.len() {
                host::error!("mi_script", "{name}: {} parameters and {} values", names.len(), values.len());
                return Outcome::Done(ERROR);
            }
            let named = names.into_iter().zip(values.into_iter().map(value)).collect();
            MiParams { named, ..MiParams::default() }
        }
    };
    let pretty = call.module.pretty;
    let shared = call.shared().clone();
    let store = move |ctx: &mut Ctx, result: MiResult| {
        let (rc, text) = match result {
            Ok(json) if pretty => (OK, serde_json::to_string_pretty(&json).unwrap_or_default()),
            Ok(json) => (OK, json.to_string()),
            Err(error) => (REFUSED, error.data.unwrap_or(error.message)),
        };
        match out {
            Some(out) if !out.set(ctx, Bytes::from(text)) => ERROR,
            _ => rc,
        }
    };
    // What one worker can do at once, this one does.
    if let Some(found) = shared.command(&name)
        && matches!(found.scope, MiScope::One)
        && found.late.is_none()
    {
        let result = (found.run)(call.ctx, &params);
        return Outcome::Done(store(call.ctx, result));
    }
    let detail = text.clone();
    let future = async move {
        let result = mi::call(&shared, &name, params).await;
        Box::new(move |ctx: &mut Ctx| store(ctx, result)) as Finish
    };
    Suspension::future("mi", future).detail(detail).limit(LIMIT_MS, ERROR)
}

/// The values of an AVP in the order in which they were added; another variable has one.
fn texts(call: &mut Call<MiScript>, var: &AnyVar) -> Vec<String> {
    let text = |v: &host::Value| String::from_utf8_lossy(&v.to_text()).into_owned();
    match var.0.kind {
        VarKind::Avp(name) => {
            let mut all: Vec<String> = call.state.avps.borrow().values(name).map(text).collect();
            all.reverse();
            all
        }
        _ => Some(var.0.get(call.ctx)).filter(|v| !v.is_null()).iter().map(text).collect(),
    }
}

/// "__array(a b)" is a list.
fn value(text: String) -> Json {
    match text.strip_prefix("__array(").and_then(|t| t.strip_suffix(')')) {
        Some(items) => items.split_whitespace().map(Json::from).collect(),
        None => Json::from(text),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::run;
    use script::ast::Dialect;

    /// What the script leaves in `$avp(r)`, in order.
    #[track_caller]
    fn check(body: &str, expected: &[&str]) {
        let config =
            "socket=udp:127.0.0.1:5060\nloadmodule \"mi_script.so\"\nloadmodule \"cachedb_local.so\"\n";
        let mut found = run(config, body, Dialect::V4).avps("r");
        found.reverse();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn commands() {
        let fill = r#"cache_store("local", "a_1", "x");"#;
        check(
            &format!(r#"{fill} mi("cache_fetch_chunk a_*", $avp(r)); $avp(r) = $rc;"#),
            &[r#"{"keys":[{"name":"a_1","value":"x"}]}"#, "1"],
        );
        check(
            &format!(
                r#"{fill} $avp(p) = "a_*"; $avp(p) = "default"; mi("cache_remove_chunk", $avp(r), $avp(p)); $avp(r) = $rc; cache_fetch("local", "a_1", $var(x)); $avp(r) = $rc;"#
            ),
            &["\"OK\"", "1", "-2"],
        );
        check(
            &format!(
                r#"{fill} $avp(p) = "glob"; $avp(v) = "a_*"; $avp(p) = "collection"; $avp(v) = "none"; mi("cache_fetch_chunk", $avp(r), $avp(p), $avp(v)); $avp(r) = $rc;"#
            ),
            &["there is no such collection", "-2"],
        );
        check(r#"$avp(p) = "a"; mi("uptime", $avp(r), $avp(p), $avp(none)); $avp(r) = $rc;"#, &["-1"]);
        check(r#"mi(""); $avp(r) = $rc;"#, &["-1"]);
    }
}
