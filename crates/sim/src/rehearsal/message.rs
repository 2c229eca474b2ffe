//! Messages of parties: what a step leaves out is filled in, what comes is compared with what should come.

use super::pattern::Pattern;
use super::steps::{Expected, Start};
use super::yaml::Problem;
pub use capture::teller::first_line;
use sip::Message;

/// What a step wrote of a message.
pub struct Written {
    /// The start line's words.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Written {
    pub fn parse(text: &str) -> Written {
        let text = text.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let start = lines.next().unwrap_or_default().trim().to_string();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.trim().to_string(), value.trim().to_string())).collect();
        Written { start, headers, body: body.trim_end_matches('\n').replace('\n', "\r\n") }
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// Takes a header away.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.headers.remove(at).1)
    }

    /// The body with its line end.
    pub fn body_text(&self) -> String {
        if self.body.is_empty() { String::new() } else { format!("{}\r\n", self.body) }
    }
}

/// What is not as it should be; empty when it fits.
pub fn differences(
    expected: &Expected,
    msg: &Message,
    line: usize,
    fill: &dyn Fn(&str) -> Result<String, Problem>,
) -> Result<Vec<String>, Problem> {
    let mut found = Vec::new();
    let came = first_line(msg.buf());
    match &expected.start {
        Start::Request { method, uri } => {
            if !msg.is_request() || *msg.method_text() != *method.as_bytes() {
                return Ok(vec![format!("{came} came, {method} was expected")]);
            }
            if let Some(uri) = uri {
                let wanted = Pattern::parse(&fill(uri)?, line)?;
                let uri = String::from_utf8_lossy(&msg.request_uri()).into_owned();
                if !wanted.matches(&uri) {
                    found.push(format!("the Request-URI is {uri}, expected {wanted}"));
                }
            }
        }
        Start::Reply { status, reason } => {
            let number = format!("{:03}", msg.status());
            let same = status.chars().zip(number.chars()).all(|(wanted, is)| wanted == 'x' || wanted == is);
            if msg.is_request() || !same {
                return Ok(vec![format!("{came} came, {status} was expected")]);
            }
            if let Some(reason) = reason {
                let wanted = Pattern::parse(&fill(reason)?, line)?;
                let is = String::from_utf8_lossy(&msg.reason()).into_owned();
                if !wanted.matches(&is) {
                    found.push(format!("the reason is `{is}`, expected {wanted}"));
                }
            }
        }
    }
    for (name, value) in &expected.headers {
        let wanted = Pattern::parse(&fill(value)?, line)?;
        let values = headers(msg, name);
        if !wanted.matches_any(values.iter().map(String::as_str)) {
            found.push(match values.as_slice() {
                [] => format!("there is no {name}, expected {wanted}"),
                values => format!("{name} is {}, expected {wanted}", values.join(" | ")),
            });
        }
    }
    let body = String::from_utf8_lossy(msg.bytes(msg.body())).into_owned();
    for text in &expected.body {
        let wanted = Pattern::parse(&fill(text)?, line)?;
        if !body.lines().any(|line| wanted.matches(line)) {
            found.push(format!("no line of the body is {wanted}"));
        }
    }
    Ok(found)
}

/// Values of a header, by its long or compact name.
pub fn headers(msg: &Message, name: &str) -> Vec<String> {
    let value = |h: &sip::Header| String::from_utf8_lossy(msg.bytes(h.value())).trim().to_string();
    msg.headers_named(name.as_bytes()).map(value).collect()
}

/// A text with `{name}`s filled in. What is no name between braces stays.
pub fn filled(text: &str, line: usize, known: &dyn Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        let end = after.find('}').unwrap_or(0);
        let name = &after[..end];
        let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !is_name {
            out.push('{');
            rest = after;
            continue;
        }
        let value = known(name).ok_or_else(|| {
            Problem::new(
                line,
                format!("nothing is known as {{{name}}}: parties, server, sdp, or what `save` kept"),
            )
        })?;
        out.push_str(&value);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn check(expected: &str, words: &[&str]) {
        let text =
            "SIP/2.0 486 Busy Here\r\nVia: a\r\nX-A: one\r\nX-A: two\r\nv: b\r\n\r\nv=0\r\nm=audio 1\r\n";
        let msg = Message::parse(Bytes::from_static(text.as_bytes())).unwrap();
        let expected = Expected::parse(expected, 1).unwrap();
        let found = differences(&expected, &msg, 1, &|text| Ok(text.to_string())).unwrap();
        assert_eq!(found.len(), words.len(), "{found:?}");
        assert!(found.iter().zip(words).all(|(f, w)| f.contains(w)), "{found:?}");
    }

    #[test]
    fn what_differs_is_named() {
        check("486", &[]);
        check("4xx Busy Here\nX-A: two\nX-A: /on/\nX-B: (none)\n\nv=0\n/audio/", &[]);
        check("480", &["486 Busy Here came, 480"]);
        check("INVITE", &["INVITE was expected"]);
        check("486\nX-A: three\nX-B: x\n\nm=video", &["X-A is one | two", "no X-B", "m=video"]);
    }

    #[test]
    fn names_are_filled_in() {
        let known = |name: &str| (name == "bob").then(|| "10.0.0.3:5060".to_string());
        assert_eq!(filled("sip:{bob}/{\"a\": {}}", 1, &known).unwrap(), "sip:10.0.0.3:5060/{\"a\": {}}");
        assert!(filled("{carol}", 3, &known).unwrap_err().text.contains("{carol}"));
    }
}
