//! JSON-RPC in frames with a Content-Length, as the protocol's base layer has it.

use serde_json::Value as Json;
use std::io::{BufRead, Write};

/// A longer frame ends the connection.
const LONGEST: usize = 64 << 20;

/// A request (with an id) or a notification.
pub struct Incoming {
    pub id: Option<Json>,
    pub method: String,
    pub params: Json,
}

/// An error as JSON-RPC carries it: code and text.
#[derive(Debug)]
pub struct Failure(pub i64, pub String);

impl Failure {
    pub fn params(why: &str) -> Failure {
        Failure(-32602, why.to_owned())
    }

    pub fn unknown(method: &str) -> Failure {
        Failure(-32601, format!("there is no {method} here"))
    }
}

/// Reads messages to the end of the input, or until `take` wants no more.
pub fn read_all(mut input: impl BufRead, mut take: impl FnMut(Incoming) -> bool) {
    while let Some(mut message) = read(&mut input) {
        let Some(method) = message["method"].as_str().map(str::to_owned) else { continue };
        let id = message.get("id").cloned().filter(|id| !id.is_null());
        if !take(Incoming { id, method, params: message["params"].take() }) {
            return;
        }
    }
}

fn read(input: &mut impl BufRead) -> Option<Json> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((_, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse::<usize>().ok().filter(|n| *n <= LONGEST);
        }
    }
    let mut body = vec![0; length?];
    input.read_exact(&mut body).ok()?;
    // What is no JSON is passed over: its frame is known.
    Some(serde_json::from_slice(&body).unwrap_or(Json::Null))
}

pub fn write(message: &Json) {
    let text = message.to_string();
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "Content-Length: {}\r\n\r\n{text}", text.len());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let one = r#"{"id":1,"method":"a","params":[7]}"#;
        let two = r#"{"method":"b"}"#;
        let frame = |text: &str| format!("Content-Type: x\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        let input = [frame(one), frame("no json"), frame(two)].concat();
        let mut seen = Vec::new();
        read_all(input.as_bytes(), |m| {
            seen.push((m.method, m.id.is_some(), m.params.to_string()));
            true
        });
        assert_eq!(seen, [("a".into(), true, "[7]".into()), ("b".into(), false, "null".into())]);
    }
}
