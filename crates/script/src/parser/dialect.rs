//! Which dialect a configuration is written in, judged by the parameters it sets and the calls it makes.

use super::Parser;
use crate::ast::{ArgKind, Call, Dialect, Expr, ExprKind, Global};
use crate::diagnostic::Diagnostic;
use crate::walk::{self, Met};

/// Parameters that 3.0 has lost.
const OLD: &[&str] = &[
    "avp_aliases",
    "bin_children",
    "bin_listen",
    "debug",
    "disable_tcp",
    "disable_tls",
    "fork",
    "port",
    "tcp_listen",
    "xlog_default_level",
];
/// Parameters of 2.x that some 3.x still takes: they decide only when nothing else does.
const OLDISH: &[&str] = &["children", "listen", "log_stderror", "tcp_children"];
/// Parameters that came with 3.x.
const NEW: &[&str] = &[
    "auto_scaling_cycle",
    "auto_scaling_profile",
    "log_event_enabled",
    "log_event_level_filter",
    "log_json_buf_size",
    "log_msg_buf_size",
    "log_prefix",
    "log_stdout",
    "pi_framework",
    "pv_print_buf_size",
    "restart_persistency_cache_file",
    "restart_persistency_size",
    "shm_memlog_size",
    "socket",
    "stderror_enabled",
    "stderror_level_filter",
    "stderror_log_format",
    "syslog_enabled",
    "syslog_facility",
    "syslog_level_filter",
    "syslog_log_format",
    "syslog_name",
    "tcp_no_new_conn_rplflag",
    "tcp_socket_backlog",
    "tcp_threads",
    "tcp_workers",
    "timer_workers",
    "udp_workers",
    "worker_reactor_timeout",
    "xlog_level",
    "xlog_print_level",
];
/// Old and new name of one thing; no version knew both.
const RENAMED: &[(&str, &str)] = &[
    ("listen", "socket"),
    ("children", "udp_workers"),
    ("tcp_children", "tcp_workers"),
    ("debug", "log_level"),
];

/// Functions and bare words that 3.x no longer has.
const OLD_CALLS: &[&str] = &[
    "append_branch",
    "issflagset",
    "remove_branch",
    "resetsflag",
    "rewritehost",
    "rewritehostport",
    "rewriteport",
    "rewriteuri",
    "rewriteuser",
    "rewriteuserpass",
    "setdebug",
    "setsflag",
];
const OLD_WORDS: &[&str] = &["method", "uri", "from_uri", "to_uri", "status"];

/// Functions with a number among their first parameters: 2.x quotes it, 3.x does not.
const NUMBERED: &[&str] = &[
    "append_to_reply",
    "ds_select_domain",
    "ds_select_dst",
    "mf_process_maxfwd_header",
    "send_reply",
    "sl_send_reply",
    "t_reply",
];
/// Functions of flags: 2.x writes their names without quotes, 3.x with.
const FLAGS: &[&str] = &["isbflagset", "isflagset", "resetbflag", "resetflag", "setbflag", "setflag"];

fn is(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|l| l.as_bytes() == name)
}

/// Whether the call writes its number as 3.x does (`Some(true)`) or as 2.x does: no version takes the other form.
fn number_form(call: &Call) -> Option<bool> {
    let first = call.args.first().filter(|_| is(&call.name, NUMBERED))?;
    match &first.kind {
        ArgKind::Text(text) if !text.is_empty() && text.iter().all(u8::is_ascii_digit) => Some(false),
        ArgKind::Int(_) => Some(true),
        _ => None,
    }
}

/// What a call says about the dialect: above 0 it is written for 2.x, below 0 for 3.x.
fn vote(call: &Call) -> i32 {
    if is(&call.name, OLD_CALLS) {
        return 1;
    }
    let Some(first) = call.args.first() else { return 0 };
    if is(&call.name, FLAGS) {
        return match first.kind {
            ArgKind::Text(_) => -1,
            ArgKind::Int(_) | ArgKind::Word(_) => 1,
            _ => 0,
        };
    }
    number_form(call).map_or(0, |new| if new { -1 } else { 1 })
}

impl Parser<'_> {
    /// What the routes say: above 0 they are written for 2.x, below 0 for 3.x.
    fn votes(&self) -> i32 {
        let mut votes = 0;
        for route in &self.config.routes {
            walk::body(&route.body, &mut |met| match met {
                Met::Call(call, _) => votes += vote(call),
                Met::Expr(Expr { kind: ExprKind::Word(word), .. }) => votes += i32::from(is(word, OLD_WORDS)),
                _ => {}
            });
        }
        votes
    }

    /// Numbers are written as in 3.x and nowhere as in 2.x. 3.0 kept the rest of 2.x, flags without quotes too.
    fn numbers_are_new(&self) -> bool {
        let (mut new, mut old) = (0, 0);
        for route in &self.config.routes {
            walk::body(&route.body, &mut |met| {
                if let Met::Call(call, _) = met {
                    match number_form(call) {
                        Some(true) => new += 1,
                        Some(false) => old += 1,
                        None => {}
                    }
                }
            });
        }
        new > 0 && old == 0
    }

    /// What was read so far is written for 3.x or later.
    pub(super) fn is_new(&self) -> bool {
        match self.forced {
            Some(dialect) => dialect == Dialect::V4,
            None => self.config.globals.iter().any(|g| is(&g.name, NEW)),
        }
    }

    /// Sets `Config::dialect`, and reports old names that stand beside their successors.
    pub(super) fn judge_dialect(&mut self) {
        let globals = &self.config.globals;
        let sets = |names: &[&str]| globals.iter().any(|g| is(&g.name, names));
        let votes = self.votes();
        let detected = match (sets(OLD), sets(NEW)) {
            (true, false) => Dialect::V21,
            (false, false) if self.numbers_are_new() => Dialect::V4,
            (false, false) if votes > 0 || (votes == 0 && sets(OLDISH)) => Dialect::V21,
            _ => Dialect::V4,
        };
        self.config.dialect = self.forced.unwrap_or(detected);

        let find = |name: &str| -> Option<&Global> { globals.iter().find(|g| g.name == name.as_bytes()) };
        let mut mixed = Vec::new();
        for (old, new) in RENAMED {
            if let (Some(global), Some(_)) = (find(old), find(new)) {
                let bad = Diagnostic::error(
                    global.loc,
                    format!("`{old}` and `{new}` are the old and the new name of one parameter"),
                );
                mixed.push(bad.hint(format!("write `{new}`")));
            }
        }
        mixed.into_iter().for_each(|bad| self.report(bad));
    }
}
