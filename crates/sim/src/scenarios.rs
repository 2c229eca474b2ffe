//! Scripts that are simulated.

/// One script and who calls whom.
pub struct Scenario {
    pub name: &'static str,
    /// Module parameters.
    pub params: &'static str,
    pub routes: &'static str,
    /// R-URIs of calls.
    pub targets: &'static [&'static str],
    /// Percent of OPTIONS among the calls.
    pub others: u64,
    /// The server is told to end at some time.
    pub drains: bool,
    /// ... and its time to end is over before all calls are (`drains` as well).
    pub ends: bool,
    /// Everything goes wrong that can: see `chaos`.
    pub chaos: bool,
}

const PLAIN: &[&str] = &["sip:a@10.0.0.3", "sip:b@10.0.0.4"];

impl Scenario {
    pub(crate) fn script(&self) -> String {
        let modules = ["proto_udp", "sl", "tm", "rr", "maxfwd", "signaling", "sipmsgops", "cfgutils", "sim"];
        let streams = if self.chaos { "socket=tcp:10.0.0.1:5060\nloadmodule \"proto_tcp.so\"\n" } else { "" };
        let modules: String = modules.iter().map(|m| format!("loadmodule \"{m}.so\"\n")).collect();
        format!(
            "log_level=0\nsocket=udp:10.0.0.1:5060\n{streams}{modules}\
             modparam(\"tm\", \"wt_timer\", 32)\nmodparam(\"tm\", \"fr_timeout\", 20)\nmodparam(\"tm\", \"fr_inv_timeout\", 25)\n{}\n{}",
            self.params, self.routes
        )
    }
}

const B2B: &str = "loadmodule \"b2b_entities.so\"\nloadmodule \"b2b_logic.so\"\nmodparam(\"b2b_logic\", \"cleanup_period\", 5)";

const BASE: Scenario = Scenario {
    name: "",
    params: "",
    routes: "",
    targets: PLAIN,
    others: 20,
    drains: false,
    ends: false,
    chaos: false,
};

/// What every script begins with: CANCEL, requests inside a dialog, Record-Route.
macro_rules! main_route {
    ($body:literal) => {
        concat!(
            "route { if (is_method(\"CANCEL\")) { if (t_check_trans()) t_relay(); exit; }\n",
            "if (has_totag()) { loose_route(); t_relay(); exit; }\n",
            "if (!is_method(\"OPTIONS\")) record_route();\n",
            $body,
            "}\n"
        )
    };
}

/// Dialogs, forks one after the other and at once, a callee on a stream, waits in every route, panics on purpose.
const EVERYTHING: Scenario = Scenario {
    name: "everything",
    params: "loadmodule \"dialog.so\"\nmodparam(\"dialog\", \"default_timeout\", 60)\nmodparam(\"dialog\", \"delete_delay\", 1)",
    routes: concat!(
        main_route!(
            "create_dialog(); slow(); defect(40); t_on_branch(\"b\"); t_on_reply(\"r\"); t_on_failure(\"f\"); \
             $msg.branch = \"sip:c@10.0.0.5;transport=tcp\"; if (slow()) async(slow(), more); else route(more);"
        ),
        "route[more] { defect(40); launch(slow(), report); if (!t_relay()) sl_reply_error(); }\n",
        "route[report] { slow(); defect(10); }\n",
        "branch_route[b] { if ($(ru{uri.host}) == \"10.0.0.4\") slow(); defect(60); t_on_reply(\"b\"); }\n",
        "onreply_route { usleep(20000); }\n",
        "onreply_route[b] { slow(); defect(60); }\n",
        "onreply_route[r] { if ($rs == 183) async(slow(), back); defect(60); }\n",
        "route[back] { append_hf(\"X-Back: 1\\r\\n\"); }\n",
        "failure_route[f] { slow(); if (t_was_cancelled()) exit; defect(30); $du = \"sip:10.0.0.4\"; t_on_branch(\"b\"); \
         t_on_failure(\"g\"); t_relay(); }\n",
        "failure_route[g] { parallel { slow(); slow(); } if (t_was_cancelled()) exit; t_reply(480, \"Nobody\"); }\n",
        "timer_route[t, 7] { slow(); defect(20); }\n"
    ),
    targets: &["sip:a@10.0.0.3", "sip:b@10.0.0.4", "sip:c@10.0.0.5;transport=tcp", "sip:a@flaky.sim"],
    others: 20,
    drains: false,
    ends: false,
    chaos: true,
};

pub const ALL: &[Scenario] = &[
    EVERYTHING,
    Scenario { name: "everything-drains", drains: true, ..EVERYTHING },
    Scenario { name: "everything-ends", drains: true, ends: true, ..EVERYTHING },
    Scenario { name: "relay", routes: "route { t_check_trans(); t_relay(); }", ..BASE },
    Scenario { name: "record-route", routes: main_route!("t_relay();"), ..BASE },
    Scenario { name: "drain", routes: main_route!("slow(); t_relay();"), drains: true, ..BASE },
    Scenario {
        name: "fork",
        routes: main_route!("$msg.branch = \"sip:c@10.0.0.5\"; $msg.branch = \"sip:d@10.0.0.4\"; t_relay();"),
        targets: &["sip:a@10.0.0.3"],
        ..BASE
    },
    Scenario {
        name: "serial",
        routes: concat!(
            main_route!("t_on_failure(\"next\"); t_relay();"),
            "failure_route[next] { if (t_was_cancelled()) exit; $du = \"sip:10.0.0.5\"; t_on_failure(\"last\"); t_relay(); }\n",
            "failure_route[last] { if (t_was_cancelled()) exit; slow(); t_reply(480, \"Nobody\"); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "plain-wait",
        routes: main_route!(
            "slow(); if (!slow() || slow()) { slow(); } route(more); } route[more] { slow(); t_relay();"
        ),
        ..BASE
    },
    Scenario {
        name: "sleep",
        routes: main_route!("usleep(300000); if (is_method(\"INVITE\")) sleep(2); t_relay();"),
        ..BASE
    },
    Scenario {
        name: "async",
        routes: concat!(
            main_route!("async(slow(), more);"),
            "route[more] { async(usleep(200000), relay); }\n",
            "route[relay] { t_on_reply(\"r\"); t_relay(); }\n",
            "onreply_route[r] { if ($rs == 183) async(slow(), back); }\n",
            "route[back] { append_hf(\"X-Back: 1\\r\\n\"); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "launch",
        routes: concat!(
            main_route!("launch(slow(), report, \"x\"); launch(slow()); t_relay();"),
            "route[report] { slow(); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "wait-everywhere",
        routes: concat!(
            main_route!(
                "t_newtran(); slow(); t_on_branch(\"b\"); t_on_reply(\"t\"); t_on_failure(\"f\"); $msg.branch = \"sip:c@10.0.0.5\"; t_relay();"
            ),
            "branch_route[b] { slow(); t_on_reply(\"b\"); }\n",
            "onreply_route { usleep(20000); }\n",
            "onreply_route[b] { usleep(300000); usleep(1000); }\n",
            "onreply_route[t] { slow(); }\n",
            "failure_route[f] { slow(); if (t_was_cancelled()) exit; $du = \"sip:10.0.0.4\"; t_on_branch(\"b\"); t_on_failure(\"g\"); t_relay(); }\n",
            "failure_route[g] { slow(); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "hooks",
        params: "loadmodule \"sim_watch.so\"\nmodparam(\"sim_watch\", \"always\", 1)",
        routes: concat!(
            main_route!(
                "if (is_method(\"OPTIONS\")) { t_reply(200, \"OK\"); exit; } t_on_failure(\"f\"); $msg.branch = \"sip:c@10.0.0.5\"; t_relay();"
            ),
            "failure_route[f] { if (t_was_cancelled()) exit; $du = \"sip:10.0.0.4\"; t_relay(); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "never-answers",
        routes: concat!(
            main_route!("if (is_method(\"INVITE\")) async(slow(), lost); else t_relay();"),
            "route[lost] { slow(); t_on_failure(\"f\"); t_relay(); }\nfailure_route[f] { sleep(1); }\n"
        ),
        ..BASE
    },
    Scenario {
        name: "names",
        routes: main_route!("t_relay();"),
        targets: &["sip:a@one.sim", "sip:a@two.sim", "sip:a@flaky.sim", "sip:a@none.sim"],
        ..BASE
    },
    Scenario {
        name: "names-branch",
        routes: concat!(
            main_route!("t_on_branch(\"b\"); $msg.branch = \"sip:z@two.sim\"; t_relay();"),
            "branch_route[b] { slow(); }\n"
        ),
        targets: &["sip:a@one.sim", "sip:a@flaky.sim", "sip:a@none.sim"],
        ..BASE
    },
    Scenario {
        name: "replies",
        routes: main_route!(
            "slow(); if (is_method(\"INVITE\")) { t_reply(183, \"Wait\"); slow(); t_reply(486, \"Busy\"); } else sl_send_reply(200, \"OK\");"
        ),
        ..BASE
    },
    Scenario {
        name: "stateless",
        routes: main_route!(
            "if (is_method(\"INVITE\")) { sl_send_reply(404, \"None\"); exit; } slow(); t_relay();"
        ),
        ..BASE
    },
    Scenario {
        name: "two-dialogs",
        params: B2B,
        routes: "route { if (!is_method(\"INVITE\")) { sl_send_reply(405, \"No\"); exit; } b2b_init_request(\"top hiding\"); }",
        ..BASE
    },
    Scenario {
        name: "two-dialogs-wait",
        params: B2B,
        routes: concat!(
            "route { if (!is_method(\"INVITE\")) { sl_send_reply(405, \"No\"); exit; }\n",
            "slow(); b2b_server_new(\"a\"); b2b_client_new(\"b\", $ru); b2b_init_request(\"two\", , \"req\", \"rep\"); }\n",
            "route[req] { slow(); b2b_pass_request(); }\n",
            "route[rep] { slow(); b2b_handle_reply(); }\n"
        ),
        ..BASE
    },
];

pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|s| s.name == name)
}
