//! Spans as OTLP/JSON has them (opentelemetry-proto, trace.proto; the JSON form writes numbers of traces in hexadecimal).

use serde_json::{Value as Json, json};

/// A trace and its root span, by the Call-ID.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    id: u128,
    root: u64,
}

/// FNV-1a: the same on every worker and after every start.
fn fold(bytes: &[u8], from: u64) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Trace {
    pub fn of(call_id: &[u8]) -> Trace {
        let (high, low) = (fold(call_id, 0xcbf2_9ce4_8422_2325), fold(call_id, 0x9e37_79b9_7f4a_7c15));
        // 0 is no number of a trace or span.
        Trace { id: u128::from(high) << 64 | u128::from(low | 1), root: fold(b"root", high) | 1 }
    }
}

/// SpanKind of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    Server = 2,
    Client = 3,
}

#[derive(Clone, Debug)]
pub struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    name: String,
    kind: SpanKind,
    from_us: u64,
    to_us: u64,
    attributes: Vec<Json>,
    error: Option<String>,
}

impl Span {
    /// The root of a trace.
    pub fn new(trace: &Trace, name: String, kind: SpanKind, from_us: u64, to_us: u64) -> Span {
        Span {
            trace: trace.id,
            id: trace.root,
            parent: None,
            name,
            kind,
            from_us,
            to_us: to_us.max(from_us),
            attributes: Vec::new(),
            error: None,
        }
    }

    /// It is no root, but stands below it.
    pub fn under_root(&mut self, trace: &Trace, own: u64) {
        self.id = own | 1;
        self.parent = Some(trace.root);
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.attributes.push(json!({"key": key, "value": {"stringValue": value}}));
    }

    pub fn number(&mut self, key: &str, value: i64) {
        self.attributes.push(json!({"key": key, "value": {"intValue": value.to_string()}}));
    }

    pub fn failed(&mut self, why: &str) {
        self.error = Some(why.to_string());
    }

    pub fn to_json(&self) -> Json {
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": (self.from_us * 1000).to_string(),
            "endTimeUnixNano": (self.to_us * 1000).to_string(),
            "attributes": self.attributes,
            "status": {},
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        if let Some(why) = &self.error {
            span["status"] = json!({"code": 2, "message": why});
        }
        span
    }
}

/// What is posted.
pub fn request(service: &str, spans: &[Span]) -> Json {
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]});
    let spans: Vec<Json> = spans.iter().map(Span::to_json).collect();
    let scope = json!({"scope": {"name": "fermata", "version": env!("CARGO_PKG_VERSION")}, "spans": spans});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})
}
