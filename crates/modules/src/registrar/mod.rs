//! registrar: REGISTER requests, and finding where a user is.

mod aor;
mod answer;
mod flags;
mod lookup;
mod query;
mod save;

use crate::usrloc::Usrloc;
use host::arg::parse_int;
use host::load::Loader;
use host::stats::{Counter, Stats};
use host::{Registrar as ModuleRegistrar, Routes, Var};
use script::ast::ParamValue;
use std::sync::Arc;

/// Parameters of the module. Times in seconds.
pub struct Registration {
    pub usrloc: Option<Arc<Usrloc>>,
    pub default_expires: u32,
    pub min_expires: u32,
    pub max_expires: u32,
    /// Random spread of granted lifetimes, ± seconds.
    pub deviation: u32,
    /// q × 1000 for contacts without one; -1 none.
    pub default_q: i16,
    pub realm_prefix: String,
    pub case_sensitive: bool,
    pub received_param: String,
    pub allow_dup_cseq: bool,
    pub max_contacts: usize,
    pub max_username_len: usize,
    pub max_domain_len: usize,
    pub max_aor_len: usize,
    pub max_contact_len: usize,
    pub retry_after: u32,
    pub sock_hdr_name: String,
    received_avp: Setting,
    attr_avp: Setting,
    pub counters: Counters,
}

/// A parameter that names a variable.
#[derive(Default)]
pub struct Setting {
    text: String,
    pub var: Option<Var>,
}

#[derive(Default)]
pub struct Counters {
    pub accepted: Counter,
    pub rejected: Counter,
}

impl Default for Registration {
    fn default() -> Registration {
        Registration {
            usrloc: None,
            default_expires: 3600,
            min_expires: 60,
            max_expires: 0,
            deviation: 0,
            default_q: -1,
            realm_prefix: String::new(),
            case_sensitive: true,
            received_param: "received".into(),
            allow_dup_cseq: true,
            max_contacts: 0,
            max_username_len: 64,
            max_domain_len: 64,
            max_aor_len: 256,
            max_contact_len: 255,
            retry_after: 0,
            sock_hdr_name: String::new(),
            received_avp: Setting::default(),
            attr_avp: Setting::default(),
            counters: Counters::default(),
        }
    }
}

pub fn register(m: &mut ModuleRegistrar<Registration>) {
    m.param_int("default_expires", |s, v| Ok(s.default_expires = v.max(0) as u32));
    m.param_int("min_expires", |s, v| Ok(s.min_expires = v.max(0) as u32));
    m.param_int("max_expires", |s, v| Ok(s.max_expires = v.max(0) as u32));
    m.param_int("expires_max_deviation", |s, v| Ok(s.deviation = v.max(0) as u32));
    m.param_int("default_q", |s, v| Ok(s.default_q = v.clamp(-1, 1000) as i16));
    m.param_text("realm_prefix", |s, v| Ok(s.realm_prefix = v.into()));
    m.param_int("case_sensitive", |s, v| Ok(s.case_sensitive = v != 0));
    m.param_text("received_avp", |s, v| Ok(s.received_avp.text = v.into()));
    m.param_text("attr_avp", |s, v| Ok(s.attr_avp.text = v.into()));
    m.param_text("received_param", |s, v| Ok(s.received_param = v.into()));
    m.param("allow_dup_cseq", host::registrar::ParamFn::Any(|s, v| {
        s.allow_dup_cseq = match v {
            ParamValue::Int(n) => *n != 0,
            ParamValue::Text(t) => &t[..] == b"yes" || &t[..] == b"true" || parse_int(t).is_some_and(|n| n != 0),
        };
        Ok(())
    }));
    m.param_int("max_contacts", |s, v| Ok(s.max_contacts = v.max(0) as usize));
    m.param_int("max_username_len", |s, v| Ok(s.max_username_len = v.max(0) as usize));
    m.param_int("max_domain_len", |s, v| Ok(s.max_domain_len = v.max(0) as usize));
    m.param_int("max_aor_len", |s, v| Ok(s.max_aor_len = v.max(0) as usize));
    m.param_int("max_contact_len", |s, v| Ok(s.max_contact_len = v.max(0) as usize));
    m.param_int("retry_after", |s, v| Ok(s.retry_after = v.max(0) as u32));
    m.param_text("sock_hdr_name", |s, v| Ok(s.sock_hdr_name = v.into()));
    m.ignored(&["tcp_persistent_flag"], "connections of registered clients stay open anyway");
    m.ignored(&["mcontact_avp"], "save() on replies does not exist yet");
    m.ignored(&["gruu_secret", "disable_gruu"], "GRUU does not exist yet");
    for name in [
        "on_enable", "on_providers", "on_ct_match_params", "on_pnsreg_interval", "on_trigger_interval", "on_skip_on_interval",
        "on_refresh_timeout", "on_enable_purr", "pn_enable", "pn_providers", "pn_ct_match_params", "pn_pnsreg_interval",
        "pn_trigger_interval", "pn_skip_pn_interval", "pn_refresh_timeout", "pn_enable_purr",
    ] {
        m.param(name, host::registrar::ParamFn::Ignored("push notification (RFC 8599) does not exist yet"));
    }
    let anywhere = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::LOCAL);
    m.function("save", Routes::REQUEST.and(Routes::ON_REPLY), save::save);
    m.function("lookup", Routes::REQUEST.and(Routes::FAILURE), lookup::lookup);
    m.function("remove", Routes::REQUEST.and(Routes::ON_REPLY), query::remove);
    m.function("remove_ip_port", Routes::ALL, query::remove_ip_port);
    m.function("is_registered", anywhere, query::is_registered);
    m.function("registered", anywhere, query::is_registered);
    m.function("is_contact_registered", anywhere, query::is_contact_registered);
    m.function("is_ip_registered", anywhere, query::is_ip_registered);
    m.function("add_sock_hdr", Routes::REQUEST, save::add_sock_hdr);
    m.needs(&["usrloc", "signaling"]);
    m.init(init);
    m.ready(|module, _, stats| statistics(module, stats));
}

fn init(s: &mut Registration, loader: &mut Loader) -> Result<(), String> {
    s.usrloc = loader.module::<Usrloc>();
    for setting in [&mut s.received_avp, &mut s.attr_avp] {
        if !setting.text.is_empty() {
            let text = bytes::Bytes::copy_from_slice(setting.text.as_bytes());
            let spec = script::parse_variable(&text, script::Loc::default()).map_err(|d| d.message)?;
            setting.var = Some(loader.target_var(&spec).map_err(|d| d.message)?);
        }
    }
    s.counters.accepted = loader.stats.counter("registrar", "accepted_regs");
    s.counters.rejected = loader.stats.counter("registrar", "rejected_regs");
    Ok(())
}

fn statistics(module: &Arc<Registration>, stats: &Stats) {
    type Read = fn(&Registration) -> i64;
    let settings: [(&str, Read); 3] = [
        ("max_expires", |s| i64::from(s.max_expires)),
        ("max_contacts", |s| s.max_contacts as i64),
        ("default_expires", |s| i64::from(s.default_expires)),
    ];
    for (name, read) in settings {
        let module = module.clone();
        stats.computed("registrar", name, move || read(&module));
    }
}

impl Registration {
    /// usrloc is loaded: `needs` says so.
    pub fn usrloc(&self) -> Arc<Usrloc> {
        self.usrloc.clone().unwrap_or_default()
    }
}
