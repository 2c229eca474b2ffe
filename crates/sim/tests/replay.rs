//! A recording that is played again sends what was sent, message for message: calls that fork, fail, wait and are
//! cancelled, over a network that loses and delays, on one to three workers.

use capture::recorder::format::Recording;
use capture::teller::Wanted;
use sim::replay::{Script, replay};
use sim::scenarios::{self, Scenario};

/// Calls that are recorded and replayed; `REPLAY_CALLS=10000` for the long form.
const CALLS: usize = 400;

/// A scenario with a recorder.
fn recorded(scenario: &Scenario) -> Scenario {
    let params =
        format!("loadmodule \"recorder.so\"\nmodparam(\"recorder\", \"enabled\", 1)\n{}", scenario.params);
    Scenario { params: params.leak(), ..*scenario }
}

fn check(scenario: &Scenario, seed: u64) -> usize {
    let about = format!("{} {seed}", scenario.name);
    let (report, file) = sim::record(scenario, seed).unwrap_or_else(|e| panic!("{about}: {e}"));
    let recording = Recording::parse(&file).unwrap_or_else(|e| panic!("{about}: {e}"));
    assert!(!recording.has_gaps, "{about}");
    let sent: usize = recording.events.iter().map(|event| event.sent.len()).sum();
    let replayed = replay(&recording, Wanted::All, &Script::Recorded, sim::module::all())
        .unwrap_or_else(|e| panic!("{about}: {e}"));
    assert!(replayed.differences.is_empty(), "{about}: {:#?}", replayed.differences);
    assert_eq!((replayed.same, replayed.sent), (sent, sent), "{about}");
    assert!(sent > 0, "{about}: nothing happened");
    report.calls
}

#[test]
fn a_replay_sends_what_was_sent() {
    let wanted = std::env::var("REPLAY_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(CALLS);
    let all: Vec<Scenario> = scenarios::ALL.iter().map(recorded).collect();
    let mut calls = 0;
    for seed in 1.. {
        for scenario in &all {
            calls += check(scenario, seed);
        }
        if calls >= wanted {
            break;
        }
    }
    println!("{calls} calls were replayed");
}

/// A panic in a script happens again by itself; one in what a script waited for is on the tape.
#[test]
fn panics_are_replayed() {
    let routes = "route { if (is_method(\"CANCEL\")) { if (t_check_trans()) t_relay(); exit; }
        if (has_totag()) { loose_route(); t_relay(); exit; }
        if (!is_method(\"OPTIONS\")) record_route();
        if (!slow()) late_defect(100); else if (!slow()) async(late_defect(50), on);
        else if (!slow()) parallel { slow(); late_defect(30); } else if (!slow()) slow_defect(20);
        else if (!slow()) launch(late_defect(20)); t_on_failure(\"f\"); t_relay(); }
        route[on] { t_relay(); }
        failure_route[f] { if (t_was_cancelled()) exit; broken(4); if (!slow()) late_defect(10); $du = \"sip:10.0.0.4\"; t_relay(); }";
    let scenario = Scenario { name: "panics", routes, ..*scenarios::find("relay").unwrap() };
    for seed in 1..60 {
        check(&recorded(&scenario), seed);
    }
}

/// Other routes come into place in the midst of calls: each call runs those that it ran.
#[test]
fn reloads_are_replayed() {
    let everything = recorded(scenarios::find("everything").unwrap());
    let mut reloads = 0;
    for seed in 1..40 {
        let (_, file) = sim::record(&everything, seed).unwrap();
        reloads += Recording::parse(&file).unwrap().reloads().len();
        check(&everything, seed);
    }
    assert!(reloads > 10, "{reloads}");
}

/// For `valgrind --tool=callgrind` (docs/SPEED.md): COST_CALLS relayed calls, recorded when COST_RECORDS is set, watched
/// by nobody or by a profile when COST_PROFILES is set.
#[test]
#[ignore = "it measures, with a tool around it"]
fn the_cost_of_recording() {
    let count = std::env::var("COST_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let recorder = match std::env::var_os("COST_RECORDS") {
        Some(_) => "loadmodule \"recorder.so\"\nmodparam(\"recorder\", \"enabled\", 1)\n",
        None => "",
    };
    let script = format!(
        "log_level=0\nsocket=udp:10.0.0.1:5060\nloadmodule \"proto_udp.so\"\nloadmodule \"sl.so\"\nloadmodule \"tm.so\"\n\
         loadmodule \"rr.so\"\nloadmodule \"maxfwd.so\"\nloadmodule \"sipmsgops.so\"\n{recorder}\
         route {{ if (!mf_process_maxfwd_header(10)) exit; if (has_totag()) {{ loose_route(); t_relay(); exit; }} record_route(); t_relay(); }}"
    );
    let mut desk = sim::desk::Desk::new(&script);
    if std::env::var_os("COST_PROFILES").is_some() {
        desk.worker().ctx().tell_spot(Some(host::observe::Spot::default()));
    }
    for number in 0..count {
        let request = |method: &str, cseq: u32, to: &str| {
            format!(
                "{method} sip:bob@10.0.0.3:5060 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{number}x{cseq}{method}\n\
                 Max-Forwards: 70\nFrom: \"Alice\" <sip:alice@a.example>;tag=f{number}\nTo: <sip:bob@b.example>{to}\n\
                 Call-ID: call{number}@a.example\nCSeq: {cseq} {method}\nContact: <sip:alice@10.0.0.2:5060>\n\
                 User-Agent: measured\nContent-Length: 0\n\n"
            )
        };
        for (method, cseq, to) in [("INVITE", 1, ""), ("ACK", 1, ";tag=t"), ("BYE", 2, ";tag=t")] {
            desk.receive(2, &request(method, cseq, to));
            let sent = desk.sent();
            let Some(out) = sent.iter().find(|sent| sent.to.ip() == std::net::IpAddr::from([10, 0, 0, 3]))
            else {
                continue;
            };
            if method == "ACK" {
                continue;
            }
            let text = String::from_utf8_lossy(&out.bytes).into_owned();
            let kept = text.lines().filter(|line| {
                ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"]
                    .iter()
                    .any(|name| line.starts_with(&format!("{name}:")))
            });
            let head: Vec<String> = kept
                .map(|line| {
                    if line.starts_with("To:") && !line.contains("tag=") {
                        format!("{line};tag=t")
                    } else {
                        line.to_string()
                    }
                })
                .collect();
            let reply = format!(
                "SIP/2.0 200 OK\n{}\nContact: <sip:bob@10.0.0.3:5060>\nContent-Length: 0\n\n",
                head.join("\n")
            );
            desk.receive(3, &reply);
            desk.sent();
        }
        desk.advance(20);
    }
}
