//! jsonrpc: calls of JSON-RPC 2.0 servers over TCP, one connection each.

use crate::rpc::{self, Stream};
use host::{Call, Ctx, Finish, OutVar, Outcome, Registrar, Routes, Suspension, Text, Value};
use serde_json::Value as Json;
use std::time::Duration;
use tokio::time::timeout;

/// Milliseconds.
pub struct Jsonrpc {
    connect: u64,
    write: u64,
    read: u64,
}

impl Default for Jsonrpc {
    fn default() -> Jsonrpc {
        Jsonrpc { connect: 500, write: 500, read: 500 }
    }
}

/// There was a failure on the way.
const UNREACHED: i32 = -2;
/// The server says that it failed.
const REFUSED: i32 = -3;

pub fn register(m: &mut Registrar<Jsonrpc>) {
    fn above_0(ms: i64) -> Result<u64, String> {
        u64::try_from(ms).ok().filter(|ms| *ms > 0).ok_or_else(|| "this is above 0 milliseconds".into())
    }
    m.param_int("connect_timeout", |s, ms| Ok(s.connect = above_0(ms)?));
    m.param_int("write_timeout", |s, ms| Ok(s.write = above_0(ms)?));
    m.param_int("read_timeout", |s, ms| Ok(s.read = above_0(ms)?));
    m.function(
        "jsonrpc_request",
        Routes::ALL,
        |call: &mut Call<Jsonrpc>, to: Text, method: Text, params: Text, out: OutVar| {
            run(call, "jsonrpc_request", &to, &method, &params, Some(out))
        },
    );
    m.function(
        "jsonrpc_notification",
        Routes::ALL,
        |call: &mut Call<Jsonrpc>, to: Text, method: Text, params: Text| {
            run(call, "jsonrpc_notification", &to, &method, &params, None)
        },
    );
}

/// With a variable for the result it waits for an answer.
fn run(
    call: &mut Call<Jsonrpc>,
    what: &'static str,
    to: &Text,
    method: &Text,
    params: &Text,
    out: Option<OutVar>,
) -> Outcome {
    let params = match serde_json::from_slice::<Json>(params) {
        Ok(params) if params.is_object() || params.is_array() => params,
        _ => {
            host::complain!(call.ctx, "jsonrpc", "{what}: the parameters are no JSON object or array");
            return (-1).into();
        }
    };
    let (connect, write, read) = (call.module.connect, call.module.write, call.module.read);
    let to = to.str().trim().to_owned();
    let id = out.is_some().then(|| call.ctx.core.rng.next_u64() >> 33);
    let text = rpc::command(&method.str(), params, id);
    let detail = format!("{to} {}", method.str());
    Suspension::future(what, async move {
        let limited = |ms| Duration::from_millis(ms);
        let asked = async {
            let mut stream = timeout(limited(connect), Stream::connect(&to))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            timeout(limited(write), stream.send(&text))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            let Some(id) = id else { return Ok(None) };
            let answer = timeout(limited(read), stream.answer_to(id)).await.map_err(|e| e.to_string())?;
            answer.map(Some).map_err(|e| e.to_string())
        };
        let answer: Result<Option<Json>, String> = asked.await;
        Box::new(move |ctx: &mut Ctx| match answer {
            Err(why) => {
                host::complain!(ctx, "jsonrpc", "{what} of {to}: {why}");
                UNREACHED
            }
            Ok(answer) => {
                let (rc, value) = judged(answer.as_ref());
                let written = out.is_none_or(|out| out.set(ctx, value));
                if written { rc } else { -1 }
            }
        }) as Finish
    })
    .detail(detail)
    .limit(connect + write + read + 1000, UNREACHED)
}

/// The return code, and what the variable is told. Numbers stay numbers, all else is JSON.
fn judged(answer: Option<&Json>) -> (i32, Value) {
    let Some(answer) = answer else { return (1, Value::Null) };
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        return (REFUSED, error.to_string().into());
    }
    match answer.get("result") {
        None => (REFUSED, Value::Null),
        Some(result) => (1, result.as_i64().map_or_else(|| result.to_string().into(), Value::Int)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::run;
    use script::ast::Dialect;
    use serde_json::{Value as Json, json};
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LOAD: &str = "loadmodule \"jsonrpc.so\"\nmodparam(\"jsonrpc\", \"read_timeout\", 300)\n";

    /// What a script leaves that asks a server which answers so.
    fn ask(function: &str, answer: fn(Json) -> Option<String>) -> (Vec<String>, Vec<String>, Json) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request =
                serde_json::Deserializer::from_reader(&stream).into_iter::<Json>().next().unwrap().unwrap();
            if let Some(text) = answer(request.clone()) {
                stream.write_all(text.as_bytes()).unwrap();
            }
            // Until the other side ends it.
            let _ = stream.read(&mut [0; 1]);
            request
        });
        let body = format!("{}; $avp(rc) = $rc;", function.replace("ADDR", &address.to_string()));
        let ran = run(LOAD, &body, Dialect::V4);
        (ran.avps("rc"), ran.avps("out"), server.join().unwrap())
    }

    #[test]
    fn requests_and_their_answers() {
        let add = "jsonrpc_request(\"ADDR\", \"add\", \"[1,2]\", $avp(out))";
        let (rc, out, request) = ask(add, |r| Some(json!({"id": r["id"], "result": 3}).to_string()));
        assert_eq!((rc, out), (vec!["1".into()], vec!["3".into()]));
        assert_eq!((&request["method"], &request["params"]), (&json!("add"), &json!([1, 2])));
        let (rc, out, _) = ask(add, |r| Some(json!({"id": r["id"], "result": {"a": "b"}}).to_string()));
        assert_eq!((rc, out), (vec!["1".into()], vec!["{\"a\":\"b\"}".into()]));
        let (rc, out, _) = ask(add, |r| Some(json!({"id": r["id"], "error": {"code": 5}}).to_string()));
        assert_eq!((rc, out), (vec!["-3".into()], vec!["{\"code\":5}".into()]));
        let (rc, out, _) = ask(add, |_| Some("no json".into()));
        assert_eq!((rc, out), (vec!["-2".into()], vec![]));
        let (rc, _, _) = ask(add, |_| None);
        assert_eq!(rc, ["-2"]);
    }

    #[test]
    fn notifications_wait_for_nothing() {
        let (rc, _, request) =
            ask("jsonrpc_notification(\"ADDR\", \"block\", \"{\\\"ip\\\": 1}\")", |_| None);
        assert_eq!(rc, ["1"]);
        assert_eq!(request, json!({"jsonrpc": "2.0", "method": "block", "params": {"ip": 1}}));
        let ran =
            run(LOAD, "jsonrpc_notification(\"127.0.0.1:1\", \"m\", \"[\"); $avp(rc) = $rc;", Dialect::V4);
        assert_eq!(ran.avps("rc"), ["-1"]);
        let ran =
            run(LOAD, "jsonrpc_notification(\"127.0.0.1:1\", \"m\", \"[]\"); $avp(rc) = $rc;", Dialect::V4);
        assert_eq!(ran.avps("rc"), ["-2"]);
    }
}
