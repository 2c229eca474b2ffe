use super::span::{Span, SpanKind, Trace, request};
use crate::testing::Server;
use script::ast::Dialect;

#[test]
fn a_span_as_otlp_has_it() {
    let trace = Trace::of(b"one@x");
    assert_eq!(trace, Trace::of(b"one@x"));
    assert_ne!(trace, Trace::of(b"two@x"));
    let mut span = Span::new(&trace, "INVITE request".to_string(), SpanKind::Server, 1_000, 3_500);
    span.text("sip.call_id", "one@x");
    span.number("sip.response.status_code", 503);
    span.failed("503");
    let root = span.to_json();
    let mut wait = Span::new(&trace, "sql_query".to_string(), SpanKind::Client, 9, 5);
    wait.under_root(&trace, 8);
    let below = wait.to_json();
    assert_eq!((&root["traceId"], &root["spanId"]), (&below["traceId"], &below["parentSpanId"]));
    assert_eq!(
        (root["traceId"].as_str().map(str::len), root["spanId"].as_str().map(str::len)),
        (Some(32), Some(16))
    );
    assert_eq!(
        (&root["startTimeUnixNano"], &root["endTimeUnixNano"]),
        (&"1000000".into(), &"3500000".into())
    );
    assert_eq!((&root["status"]["code"], &below["endTimeUnixNano"]), (&2.into(), &"9000".into()));
    let all = request("edge", &[span, wait]);
    assert_eq!(all["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(Vec::len), Some(2));
    assert_eq!(all["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "edge");
}

#[test]
fn it_is_turned_on_and_off() {
    let mut server =
        Server::new("loadmodule \"tm.so\"\nloadmodule \"opentelemetry.so\"\nroute { exit; }", Dialect::V4);
    assert!(!server.is_observed());
    assert_eq!(server.manage("opentelemetry:enable", serde_json::json!([1])).unwrap(), "OK");
    assert!(server.is_observed());
    assert_eq!(server.manage("opentelemetry:enable", serde_json::json!({"enable": 0})).unwrap(), "OK");
    assert!(!server.is_observed());
    assert!(server.manage("opentelemetry:enable", serde_json::json!(["x"])).is_err());
}
