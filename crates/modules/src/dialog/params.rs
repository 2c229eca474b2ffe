//! The parameters of the module.

use super::{Dlg, MatchMode};
use host::Accepts;
use host::Registrar;

/// Seconds that fit.
fn seconds(value: i64, what: &str) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{what} is a number of seconds"))
}

pub fn register(m: &mut Registrar<Dlg>) {
    m.param_int("enable_stats", |s, v| Ok(s.stats = v != 0));
    m.param_int("hash_size", |s, v| match u32::try_from(v) {
        Ok(n) if n.is_power_of_two() && n <= 1 << 24 => Ok(s.entries = n),
        // The reference takes the next lower power as well.
        Ok(n) if n > 0 => Ok(s.entries = (1 << n.min(1 << 24).ilog2()).max(1)),
        _ => Err("hash_size is a power of two".into()),
    });
    m.ignored(&["log_profile_hash_size"], "profiles grow with their values");
    m.param_text("rr_param", |s, v| {
        if v.is_empty() {
            return Err("rr_param is the name of a parameter of Record-Route".into());
        }
        Ok(s.rr_param = v.into())
    });
    m.param_int("default_timeout", |s, v| match seconds(v, "default_timeout")? {
        0 => Err("default_timeout is at least one second".into()),
        n => Ok(s.default_timeout = n),
    });
    m.param_text("dlg_extra_hdrs", |s, v| Ok(s.extra_headers = v.into()));
    m.accepts(Accepts::TOKEN, &["rr_param"]);
    m.param_int("dlg_match_mode", |s, v| {
        s.mode = match v {
            0 => MatchMode::DidOnly,
            1 => MatchMode::DidFallback,
            2 => MatchMode::DidNone,
            _ => return Err("dlg_match_mode is 0 (DID_ONLY), 1 (DID_FALLBACK) or 2 (DID_NONE)".into()),
        };
        Ok(())
    });
    m.param_int("delete_delay", |s, v| Ok(s.delete_delay = seconds(v, "delete_delay")?));
    m.param_int(
        "options_ping_interval",
        |s, v| Ok(s.options_interval = seconds(v, "options_ping_interval")?),
    );
    m.param_int("ping_interval", |s, v| Ok(s.options_interval = seconds(v, "ping_interval")?));
    m.param_int("reinvite_ping_interval", |s, v| {
        Ok(s.reinvite_interval = seconds(v, "reinvite_ping_interval")?)
    });
    m.param_int("race_condition_timeout", |s, v| Ok(s.race_timeout = seconds(v, "race_condition_timeout")?));
    m.param_int("auto_prack_hangup_on_failure", |s, v| Ok(s.prack_hangup = v != 0));
    m.param_int("auto_prack_fr_timeout", |s, v| Ok(s.prack_timeout = seconds(v, "auto_prack_fr_timeout")?));
    m.param_text("profiles_with_value", |s, v| s.profiles.declare(v, true));
    m.param_text("profiles_no_value", |s, v| s.profiles.declare(v, false));
    m.ignored(&["own_timer_proc"], "timers run in the workers");
    let nodes = "nodes do not speak to one another here: dialogs are shared through a key-value store. Set `cachedb_url`, and \
                 mark dialogs with set_dlg_sharing_tag()";
    m.ignored(
        &[
            "dialog_replication_cluster",
            "profile_replication_cluster",
            "replicate_profiles_buffer",
            "replicate_profiles_check",
            "replicate_profiles_timer",
            "replicate_profiles_expire",
            "cluster_auto_sync",
            "accept_replicated_dialogs",
            "replicate_dialogs_to",
            "dlg_sharing_tag",
        ],
        nodes,
    );
}
