//! registrar: REGISTER requests, and finding where a user is.

mod agents;
pub mod answer;
pub mod aor;
pub mod flags;
pub mod gruu;
pub mod lookup;
pub mod push;
mod query;
mod reply;
pub mod request;
pub mod save;
mod wake;

use crate::usrloc::{HasTables, Usrloc};
use host::Accepts;
use host::avp::AvpName;
use host::db::DbError;
use host::load::Loader;
use host::registrar::{ParamFn, Since, truth};
use host::stats::{Counter, Stats};
use host::var::VarKind;
use host::{Ctx, Registrar as ModuleRegistrar, Routes, Var};
use script::ast::{Dialect, ParamValue};
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
    /// `None`: as the dialect has it; 2.x takes such a request for a retransmission.
    pub allow_dup_cseq: Option<bool>,
    pub max_contacts: usize,
    pub max_username_len: usize,
    pub max_domain_len: usize,
    pub max_aor_len: usize,
    pub max_contact_len: usize,
    pub retry_after: u32,
    pub sock_hdr_name: String,
    pub received_avp: Setting,
    pub attr_avp: Setting,
    mcontact_avp: Setting,
    /// GRUUs are given out and understood.
    pub gruu: bool,
    pub gruu_secret: String,
    pub push: push::Push,
    waiters: wake::Waiters,
    /// `tcp_persistent_flag`: its name, its mask.
    persistent_name: Option<String>,
    persistent_flag: u32,
    pub counters: Counters,
}

/// A parameter that names a variable.
#[derive(Default)]
pub struct Setting {
    text: String,
    pub var: Option<Var>,
    /// The variable, when it is an AVP.
    pub avp: Option<AvpName>,
}

impl Setting {
    pub fn named(&mut self, text: &str) {
        self.text = text.to_string();
    }

    /// Finds the variable, once all parameters are known.
    pub fn prepare(&mut self, loader: &mut Loader) -> Result<(), String> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = bytes::Bytes::copy_from_slice(self.text.as_bytes());
        let spec = script::parse_variable(&text, script::Loc::default()).map_err(|d| d.message)?;
        let var = loader.target_var(&spec).map_err(|d| d.message)?;
        if let VarKind::Avp(name) = var.kind {
            self.avp = Some(name);
        }
        self.var = Some(var);
        Ok(())
    }

    pub fn value(&self, ctx: &mut Ctx) -> Option<bytes::Bytes> {
        self.var.as_ref().and_then(|var| var.get(ctx).text())
    }
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
            allow_dup_cseq: None,
            max_contacts: 0,
            max_username_len: 64,
            max_domain_len: 64,
            max_aor_len: 256,
            max_contact_len: 255,
            retry_after: 0,
            sock_hdr_name: String::new(),
            received_avp: Setting::default(),
            attr_avp: Setting::default(),
            mcontact_avp: Setting::default(),
            gruu: false,
            gruu_secret: gruu::DEFAULT_SECRET.into(),
            push: push::Push::default(),
            waiters: wake::Waiters::default(),
            persistent_name: None,
            persistent_flag: 0,
            counters: Counters::default(),
        }
    }
}

/// A module with the parameters of a registrar.
pub trait HasRegistration: Default + Send + Sync + 'static {
    fn registration(&mut self) -> &mut Registration;
}

impl HasRegistration for Registration {
    fn registration(&mut self) -> &mut Registration {
        self
    }
}

/// Contacts could not be read or written. An outage is logged by the driver, once; the rest stands here.
fn complain(what: &str, error: &DbError) {
    match error {
        DbError::Down(_) | DbError::Busy | DbError::Unable { .. } => {
            host::debug!("registrar", "{what}: {error}")
        }
        _ => host::error!("registrar", "{what}: {error}"),
    }
}

pub fn register(m: &mut ModuleRegistrar<Registration>) {
    params(m);
    m.param_text("sock_hdr_name", |s, v| {
        s.sock_hdr_name = v.into();
        Ok(())
    });
    m.accepts(Accepts::TOKEN, &["sock_hdr_name"]);
    m.accepts(Accepts::AVP, &["mcontact_avp"]);
    m.param_text("mcontact_avp", |s, v| {
        s.mcontact_avp.named(v);
        Ok(())
    });
    let anywhere =
        Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::LOCAL);
    let looking = Routes::REQUEST.and(Routes::FAILURE).and(Routes::ON_REPLY);
    m.function("save", Routes::REQUEST.and(Routes::ON_REPLY), save::save);
    m.function("lookup", looking, lookup::lookup);
    m.function_of(Since::V4, "remove", Routes::REQUEST.and(Routes::ON_REPLY), query::remove);
    m.function_of(Since::V21, "remove", Routes::REQUEST.and(Routes::ON_REPLY), query::remove_v21);
    m.function("remove_ip_port", Routes::ALL, query::remove_ip_port);
    m.function("is_registered", anywhere, query::is_registered);
    m.function("registered", anywhere, query::registered);
    m.function("is_contact_registered", anywhere, query::is_contact_registered);
    m.function("is_ip_registered", anywhere, query::is_ip_registered);
    m.function("is_other_contact", Routes::REQUEST, query::is_other_contact);
    m.function("add_sock_hdr", anywhere, save::add_sock_hdr);
    m.function("pn_process_purr", Routes::REQUEST, wake::process_purr);
    m.needs(&["usrloc", "signaling"]);
    m.init(init);
    m.ready(|module, _, stats| ready(module, stats));
}

/// Parameters that registrar and mid_registrar share.
pub fn params<M: HasRegistration>(m: &mut ModuleRegistrar<M>) {
    macro_rules! number {
        ($($name:literal $field:ident as $type:ty),* $(,)?) => {
            $(m.param_int($name, |s, v| {
                s.registration().$field = v.max(0) as $type;
                Ok(())
            });
            m.accepts(Accepts::from(0), &[$name]);)*
        };
    }
    number!(
        "default_expires" default_expires as u32, "min_expires" min_expires as u32,
        "max_expires" max_expires as u32, "expires_max_deviation" deviation as u32,
        "max_contacts" max_contacts as usize, "max_username_len" max_username_len as usize,
        "max_domain_len" max_domain_len as usize, "max_aor_len" max_aor_len as usize,
        "max_contact_len" max_contact_len as usize, "retry_after" retry_after as u32,
    );
    m.param_int("default_q", |s, v| {
        s.registration().default_q = v.clamp(-1, 1000) as i16;
        Ok(())
    });
    m.param_text("realm_prefix", |s, v| {
        s.registration().realm_prefix = v.into();
        Ok(())
    });
    m.param_int("case_sensitive", |s, v| {
        s.registration().case_sensitive = v != 0;
        Ok(())
    });
    m.param_text("received_avp", |s, v| {
        s.registration().received_avp.named(v);
        Ok(())
    });
    m.param_text("attr_avp", |s, v| {
        s.registration().attr_avp.named(v);
        Ok(())
    });
    m.param_text("received_param", |s, v| {
        s.registration().received_param = v.into();
        Ok(())
    });
    let yes = ParamFn::Any(|s: &mut M, v: &ParamValue| {
        s.registration().allow_dup_cseq = Some(truth(v));
        Ok(())
    });
    m.param("allow_dup_cseq", yes);
    let persistent = ParamFn::Any(|s: &mut M, v: &ParamValue| {
        s.registration().persistent_name = match v {
            // -1 is none.
            ParamValue::Int(n) => (*n >= 0).then(|| n.to_string()),
            ParamValue::Text(t) => Some(String::from_utf8_lossy(t).into_owned()),
        };
        Ok(())
    });
    m.param("tcp_persistent_flag", persistent);
    m.param_text("gruu_secret", |s, v| {
        s.registration().gruu_secret = v.into();
        Ok(())
    });
    m.param_int("disable_gruu", |s, v| {
        s.registration().gruu = v == 0;
        Ok(())
    });
    m.accepts(Accepts::range(-1, 1000), &["default_q"]);
    m.accepts(Accepts::TOKEN, &["received_param"]);
    m.accepts(Accepts::AVP, &["attr_avp", "received_avp"]);
    push_params(m);
}

fn push_params<M: HasRegistration>(m: &mut ModuleRegistrar<M>) {
    macro_rules! seconds {
        ($($name:literal $field:ident),* $(,)?) => {
            $(m.param_int($name, |s, v| {
                s.registration().push.$field = v.max(0) as u32;
                Ok(())
            });
            m.accepts(Accepts::seconds(0), &[$name]);)*
        };
    }
    seconds!(
        "pn_pnsreg_interval" pnsreg_s, "pn_trigger_interval" trigger_s, "pn_skip_pn_interval" skip_s,
        "pn_refresh_timeout" refresh_s,
    );
    let enable = ParamFn::Any(|s: &mut M, v: &ParamValue| {
        s.registration().push.enabled = truth(v);
        Ok(())
    });
    m.param("pn_enable", enable);
    let purr = ParamFn::Any(|s: &mut M, v: &ParamValue| {
        s.registration().push.purr = truth(v);
        Ok(())
    });
    m.param("pn_enable_purr", purr);
    m.param_text("pn_providers", |s, v| {
        s.registration().push.providers = push::list_of(v).collect();
        Ok(())
    });
    m.param_text("pn_ct_match_params", |s, v| {
        s.registration().push.params = push::list_of(v).map(bytes::Bytes::from).collect();
        if s.registration().push.params.is_empty() {
            Err("pn_ct_match_params needs a parameter".into())
        } else {
            Ok(())
        }
    });
}

fn init(s: &mut Registration, loader: &mut Loader) -> Result<(), String> {
    prepare(s, loader, "registrar")
}

/// Once all parameters are known. `module` is whose parameters they are.
pub fn prepare(s: &mut Registration, loader: &mut Loader, module: &'static str) -> Result<(), String> {
    s.usrloc = loader.module::<Usrloc>();
    if let Some(name) = &s.persistent_name {
        let flag = loader.flag(name.as_bytes(), script::Loc::default());
        s.persistent_flag = flag.map_err(|d| d.message)?;
    }
    s.allow_dup_cseq.get_or_insert(loader.dialect != Dialect::V21);
    for setting in [&mut s.received_avp, &mut s.attr_avp, &mut s.mcontact_avp] {
        setting.prepare(loader)?;
    }
    if s.push.enabled {
        if s.push.providers.is_empty() {
            return Err("pn_enable needs pn_providers (\"apns, fcm, webpush\")".into());
        }
        if !loader.is_loaded("tm") {
            return Err("pn_enable needs module tm".into());
        }
        s.usrloc().wake_before(s.push.trigger_s);
    }
    s.fit();
    s.counters.accepted = loader.stats.counter(module, "accepted_regs");
    s.counters.rejected = loader.stats.counter(module, "rejected_regs");
    Ok(())
}

fn ready(module: &Arc<Registration>, stats: &Stats) {
    type Read = fn(&Registration) -> i64;
    let settings: [(&str, Read); 3] = [
        ("max_expires", |s| i64::from(s.max_expires)),
        ("max_contacts", |s| s.max_contacts as i64),
        ("default_expire", |s| i64::from(s.default_expires)),
    ];
    for (name, read) in settings {
        let module = module.clone();
        stats.computed("registrar", name, move || read(&module));
    }
    watch(module);
}

/// Requests that wait for phones go on when they register.
pub fn watch(module: &Arc<Registration>) {
    if module.push.enabled {
        wake::watch(module);
        if module.push.purr {
            module.usrloc().tables().iter().for_each(|table| table.index_ids());
        }
    }
}

impl Registration {
    /// usrloc is loaded: `needs` says so.
    pub fn usrloc(&self) -> Arc<Usrloc> {
        self.usrloc.clone().unwrap_or_default()
    }

    /// Lifetimes that contradict one another: the longest yields to the shortest, the default to both.
    fn fit(&mut self) {
        if self.max_expires > 0 {
            self.max_expires = self.max_expires.max(self.min_expires);
            self.default_expires = self.default_expires.min(self.max_expires);
        }
        self.default_expires = self.default_expires.max(self.min_expires);
    }
}

impl HasTables for Registration {
    fn usrloc(&self) -> Arc<Usrloc> {
        Registration::usrloc(self)
    }
}
