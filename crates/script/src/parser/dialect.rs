//! Which dialect a configuration is written in, judged by the parameters it sets.

use super::Parser;
use crate::ast::{Dialect, Expr, ExprKind, Global};
use crate::diagnostic::Diagnostic;
use crate::walk::{self, Met};

/// Parameters that only 2.x knows.
const OLD: &[&str] = &[
    "avp_aliases",
    "bin_children",
    "bin_listen",
    "children",
    "debug",
    "disable_tcp",
    "disable_tls",
    "fork",
    "listen",
    "log_stderror",
    "port",
    "tcp_children",
    "tcp_listen",
];
/// Parameters that came with 3.x.
const NEW: &[&str] = &[
    "abort_on_assert",
    "auto_scaling_cycle",
    "auto_scaling_profile",
    "log_json_buf_size",
    "log_msg_buf_size",
    "log_prefix",
    "pv_print_buf_size",
    "restart_persistency_cache_file",
    "restart_persistency_size",
    "socket",
    "stderror_enabled",
    "stderror_level_filter",
    "stderror_log_format",
    "syslog_enabled",
    "syslog_facility",
    "syslog_level_filter",
    "syslog_log_format",
    "syslog_name",
    "tcp_workers",
    "timer_workers",
    "udp_workers",
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

impl Parser<'_> {
    /// The routes use what 3.x no longer has.
    fn speaks_old(&self) -> bool {
        let is = |name: &[u8], list: &[&str]| list.iter().any(|l| l.as_bytes() == name);
        let mut old = false;
        for route in &self.config.routes {
            walk::body(&route.body, &mut |met| match met {
                Met::Call(call, _) => old |= is(&call.name, OLD_CALLS),
                Met::Expr(Expr { kind: ExprKind::Word(word), .. }) => old |= is(word, OLD_WORDS),
                _ => {}
            });
        }
        old
    }

    /// What was read so far is written for 3.x or later.
    pub(super) fn is_new(&self) -> bool {
        match self.forced {
            Some(dialect) => dialect == Dialect::V4,
            None => self.config.globals.iter().any(|g| NEW.iter().any(|n| n.as_bytes() == g.name)),
        }
    }

    /// Sets `Config::dialect`, and reports old names that stand beside their successors.
    pub(super) fn judge_dialect(&mut self) {
        let globals = &self.config.globals;
        let sets = |names: &[&str]| globals.iter().any(|g| names.iter().any(|n| n.as_bytes() == g.name));
        let detected = match (sets(OLD), sets(NEW)) {
            (true, false) => Dialect::V21,
            (false, false) if self.speaks_old() => Dialect::V21,
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
