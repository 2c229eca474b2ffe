//! What became of operations that scripts waited for: `async_stats`.

use super::Core;
use host::mi::{MiParams, MiResult};
use host::worker::ops::{OpStats, STEPS_MS};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command_each("async_stats", "counters and histograms of waiting operations", join, stats)
        .takes("[operation]");
    m.command_each("async_reset", "sets the counters of async_stats to zero", |_| json!("OK"), reset);
}

/// The counters of one worker, by operation.
fn stats(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let wanted = params.text("operation", 0);
    let all = call.core.ops.all().iter();
    let shown = all.filter(|(name, _)| wanted.as_deref().is_none_or(|w| w == *name));
    Ok(Json::Object(shown.map(|(name, stats)| (name.to_string(), of(stats))).collect()))
}

fn reset(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    call.core.ops.reset();
    Ok(Json::Null)
}

fn of(s: &OpStats) -> Json {
    let mut object = Map::new();
    for (name, n) in [
        ("Started", s.started),
        ("Done", s.done),
        ("Failed", s.failed),
        ("Timed out", s.timed_out),
        ("Cancelled", s.cancelled),
        ("Queued", s.queued),
        ("Refused", s.refused),
        ("In flight", s.in_flight),
        ("Longest ms", s.longest_ms),
        ("Total ms", s.total_ms),
    ] {
        object.insert(name.to_string(), json!(n));
    }
    let ends =
        STEPS_MS.iter().map(|ms| format!("<= {ms}")).chain([format!("> {}", STEPS_MS[STEPS_MS.len() - 1])]);
    let steps = ends.zip(s.steps).filter(|(_, n)| *n > 0).map(|(end, n)| (end, json!(n)));
    object.insert("Histogram ms".to_string(), Json::Object(steps.collect()));
    Json::Object(object)
}

/// Sums over the workers; of the longest times, the longest.
fn join(workers: Vec<Json>) -> Json {
    let mut sum = Json::Object(Map::new());
    for worker in workers {
        add(&mut sum, worker, "");
    }
    json!({"Operations": in_order(sum)})
}

fn add(sum: &mut Json, more: Json, name: &str) {
    match (sum, more) {
        (Json::Object(sum), Json::Object(more)) => {
            for (key, value) in more {
                match sum.get_mut(&key) {
                    Some(old) => add(old, value, &key),
                    None => {
                        sum.insert(key, value);
                    }
                }
            }
        }
        (sum, more) => {
            let (a, b) = (sum.as_u64().unwrap_or(0), more.as_u64().unwrap_or(0));
            *sum = json!(if name == "Longest ms" { a.max(b) } else { a + b });
        }
    }
}

/// The histogram's steps in ascending order: workers may have met them in any.
fn in_order(mut operations: Json) -> Json {
    let step = |text: &String| {
        let n: u64 = text.trim_start_matches(['<', '>', '=', ' ']).parse().unwrap_or(0);
        (text.starts_with('>'), n)
    };
    for operation in operations.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        if let Some(Json::Object(steps)) = operation.get_mut("Histogram ms") {
            let mut list: Vec<_> = std::mem::take(steps).into_iter().collect();
            list.sort_by_key(|(text, _)| step(text));
            steps.extend(list);
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Server;
    use script::ast::Dialect;

    /// A server whose main route is `body`; `$var(rc)` and what else is wanted goes into the reason.
    fn server(body: &str) -> Server {
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"signaling.so\"\nloadmodule \"cfgutils.so\"\nroute {{ {body} $var(rc) = $rc; send_reply(200, \"got $var(rc) $var(a) $var(b)\"); exit; }}"
        );
        Server::new(&config, Dialect::V4)
    }

    fn request(method: &str) -> String {
        format!(
            "{method} sip:b@127.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bKa\nFrom: <sip:a@b>;tag=1\nTo: <sip:b@c>\nCall-ID: the-call\nCSeq: 1 {method}\nMax-Forwards: 9\nContent-Length: 0\n\n"
        )
    }

    fn first_line(sent: &[crate::testing::Sent]) -> Vec<&str> {
        sent.iter().map(|s| s.text.lines().next().unwrap_or_default().trim()).collect()
    }

    /// The answer comes after `ms` milliseconds, not before, and nothing waits after it.
    #[track_caller]
    fn check(body: &str, ms: u64, reason: &str) {
        let mut server = server(body);
        let mut sent = server.receive("127.0.0.2:5060", &request("OPTIONS"));
        if ms > 0 {
            assert!(sent.is_empty(), "{body}: {:?}", first_line(&sent));
            for _ in 1..ms {
                sent = server.advance(1);
                assert!(sent.is_empty(), "{body}: {:?}", first_line(&sent));
            }
            sent = server.advance(1);
        }
        assert_eq!(first_line(&sent), [format!("SIP/2.0 200 got {reason}")], "{body}");
        assert_eq!(server.manage("async_list", json!({})).expect("a list"), json!([]), "{body}");
    }

    #[test]
    fn all_are_waited_for() {
        check("parallel { $var(a) = usleep(30000); $var(b) = usleep(50000); }", 50, "1 1 1");
        check("parallel { $var(a) = usleep(50000); $var(b) = usleep(30000); }", 50, "1 1 1");
        // What need not wait does not.
        check("parallel { $var(a) = xlog(\"x\"); $var(b) = usleep(20000); }", 20, "1 1 1");
        check("parallel { $var(a) = xlog(\"x\"); $var(b) = xlog(\"y\"); }", 0, "1 1 1");
        check(
            "parallel { $var(a) = cache_fetch(\"none\", \"k\", $var(x)); $var(b) = usleep(20000); }",
            20,
            "-1 -1 1",
        );
        // It stands wherever statements stand, and another one may follow.
        check(
            "$var(i) = 0; while ($var(i) < 3) { parallel { usleep(10000); usleep(20000); } $var(i) = $var(i) + 1; } $var(a) = $var(i); parallel { $var(b) = usleep(5000); }",
            65,
            "1 3 1",
        );
    }

    #[test]
    fn the_first_success_is_enough() {
        check("parallel any { $var(a) = usleep(90000); $var(b) = usleep(20000); }", 20, "2 <null> 1");
        check("parallel any { $var(a) = usleep(20000); usleep(90000); }", 20, "1 1 <null>");
        check(
            "parallel any { $var(a) = cache_fetch(\"none\", \"k\", $var(x)); $var(b) = usleep(20000); }",
            20,
            "2 -1 1",
        );
        check("parallel any { $var(a) = cache_fetch(\"none\", \"k\", $var(x)); }", 0, "-1 -1 <null>");
    }

    #[test]
    fn the_limit_ends_all() {
        check("parallel (1) { $var(a) = sleep(5); $var(b) = usleep(20000); }", 1000, "-1 -1 1");
        check("parallel any (1) { $var(a) = sleep(5); $var(b) = sleep(6); }", 1000, "-1 -1 -1");
        check("parallel (2) { $var(a) = sleep(1); $var(b) = usleep(20000); }", 1000, "1 1 1");
    }

    #[test]
    fn a_cancelled_call_takes_all_along() {
        let mut server = server("parallel { sleep(5); sleep(6); }");
        server.receive("127.0.0.2:5060", &request("INVITE"));
        let list = server.manage("async_list", json!({})).expect("a list");
        let shown: Vec<String> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|o| {
                format!("{} {}", o["Operation"].as_str().unwrap_or(""), o["Call-ID"].as_str().unwrap_or(""))
            })
            .collect();
        assert_eq!(shown, ["parallel the-call", "sleep the-call", "sleep the-call"]);
        let sent = server.receive("127.0.0.2:5060", &request("CANCEL"));
        assert!(first_line(&sent).iter().any(|l| l.starts_with("SIP/2.0 487")), "{:?}", first_line(&sent));
        assert_eq!(server.manage("async_list", json!({})).expect("a list"), json!([]));
        let stats = server.manage("async_stats", json!({"operation": "sleep"})).expect("counters");
        assert_eq!((&stats["sleep"]["Started"], &stats["sleep"]["Cancelled"]), (&json!(2), &json!(2)));
    }

    #[test]
    fn only_calls_stand_in_it() {
        let refused = |body: &str| {
            crate::testing::refused(
                "socket=udp:127.0.0.1:5060\nloadmodule \"cfgutils.so\"",
                body,
                Dialect::V4,
            )
        };
        assert!(refused("parallel { sleep(1); $var(a) = 5; }").contains("this cannot run beside others"));
        assert!(refused("parallel { if (sleep(1)) exit; }").contains("this cannot run beside others"));
        assert!(refused("parallel { }").contains("nothing stands in this"));
        assert!(refused("parallel (soon) { sleep(1); }").contains("a time limit in seconds"));
    }

    #[test]
    fn workers_are_summed() {
        let mut one = OpStats { started: 2, longest_ms: 7, ..OpStats::default() };
        one.steps[3] = 1;
        let mut two = OpStats { started: 3, longest_ms: 9, ..OpStats::default() };
        (two.steps[0], two.steps[14]) = (4, 1);
        let joined = join(vec![json!({"f": of(&one)}), json!({"f": of(&two), "g": of(&one)})]);
        let f = &joined["Operations"]["f"];
        assert_eq!((f["Started"].as_u64(), f["Longest ms"].as_u64()), (Some(5), Some(9)));
        assert_eq!(f["Histogram ms"].to_string(), r#"{"<= 1":4,"<= 10":1,"> 20000":1}"#);
        assert_eq!(joined["Operations"]["g"]["Started"], 2);
    }
}
