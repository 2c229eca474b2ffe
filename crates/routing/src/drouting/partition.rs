//! Partitions: tables of their own with AVPs of their own. Without `use_partitions` there is one, `Default`.

use super::data::Data;
use super::lists::IdBytes;
use crate::destinations::SharedStates;
use crate::destinations::avp_of_param;
use bytes::Bytes;
use host::avp::AvpName;
use host::call::{Finish, Outcome, Suspension};
use host::db::{Db, Name};
use host::{Ctx, Shared};
use parking_lot::RwLock;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// The name of the only one.
pub const DEFAULT: &str = "Default";
/// The group of status and reports.
pub const GROUP: &str = "drouting";
/// How long a script waits for the first load.
const FIRST_LOAD_MS: u64 = 10_000;

/// Names of tables.
#[derive(Clone)]
pub struct Tables {
    pub gateways: Name,
    pub rules: Name,
    pub groups: Name,
    pub carriers: Name,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            gateways: "dr_gateways".into(),
            rules: "dr_rules".into(),
            groups: "dr_groups".into(),
            carriers: "dr_carriers".into(),
        }
    }
}

/// AVPs as they are written, before the name of the partition is known; `None`: the default.
#[derive(Clone, Default)]
pub struct AvpTexts {
    pub ruri: Option<String>,
    pub gw_id: Option<String>,
    pub gw_priprefix: Option<String>,
    pub gw_sock: Option<String>,
    pub rule_id: Option<String>,
    pub rule_prefix: Option<String>,
    pub carrier_id: Option<String>,
    pub rule_attrs: Option<String>,
}

/// Where a transaction keeps what is left to try.
#[derive(Clone, Copy, Debug)]
pub struct Avps {
    pub ruri: AvpName,
    pub gw_id: AvpName,
    pub gw_sock: AvpName,
    pub gw_attrs: AvpName,
    pub carrier_attrs: AvpName,
    pub rule_attrs: AvpName,
    pub gw_priprefix: Option<AvpName>,
    pub rule_id: Option<AvpName>,
    pub rule_prefix: Option<AvpName>,
    pub carrier_id: Option<AvpName>,
    pub fallback: Fallback,
}

/// What another rule is found by when the destinations of this one have failed.
#[derive(Clone, Copy, Debug)]
pub struct Fallback {
    pub ruri: AvpName,
    pub prefix: AvpName,
    pub index: AvpName,
    pub whitelist: AvpName,
    pub group: AvpName,
    pub flags: AvpName,
}

impl AvpTexts {
    /// The error names a parameter that is no AVP.
    pub fn named(&self, partition: Option<&str>) -> Result<Avps, String> {
        let suffix = partition.unwrap_or_default();
        let or_default = |param: &str, text: &Option<String>, default: &str| match text {
            Some(text) => avp_of_param(param, text),
            None => Ok(AvpName::new(format!("{default}{suffix}").as_bytes())),
        };
        let wanted = |param: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.trim().is_empty());
            text.map(|text| avp_of_param(param, text)).transpose()
        };
        let name = partition.unwrap_or(DEFAULT);
        let fallback = |what: &str| AvpName::new(format!("_dr_fb_{what}_{name}").as_bytes());
        Ok(Avps {
            ruri: or_default("ruri_avp", &self.ruri, "___dr_ruri__")?,
            gw_id: or_default("gw_id_avp", &self.gw_id, "___dr_gw_id__")?,
            gw_sock: or_default("gw_sock_avp", &self.gw_sock, "___dr_sock__")?,
            rule_attrs: or_default("rule_attrs_avp", &self.rule_attrs, "___dr_ru_att__")?,
            gw_attrs: AvpName::new(format!("___dr_gw_att__{suffix}").as_bytes()),
            carrier_attrs: AvpName::new(format!("___dr_cr_att__{suffix}").as_bytes()),
            gw_priprefix: wanted("gw_priprefix_avp", &self.gw_priprefix)?,
            rule_id: wanted("rule_id_avp", &self.rule_id)?,
            rule_prefix: wanted("rule_prefix_avp", &self.rule_prefix)?,
            carrier_id: wanted("carrier_id_avp", &self.carrier_id)?,
            fallback: Fallback {
                ruri: fallback("ruri"),
                prefix: fallback("prefix"),
                index: fallback("index"),
                whitelist: fallback("whitelist"),
                group: fallback("group"),
                flags: fallback("flags"),
            },
        })
    }
}

pub struct Partition {
    pub name: String,
    /// The identifier under which changes of states are reported.
    pub events: String,
    pub db: Db,
    pub tables: Tables,
    pub avps: Avps,
    pub ids: IdBytes,
    /// Where rows are kept over a restart.
    pub kept: Option<PathBuf>,
    data: RwLock<Option<Arc<Data>>>,
    /// True once the first load has ended, well or not.
    tried: watch::Sender<bool>,
    /// Loads under way, when only one may be.
    pub loading: AtomicBool,
    /// The database was not there: to be tried again.
    pub again: AtomicBool,
    /// Unix seconds of the last good load; 0: none.
    loaded_s: AtomicU64,
    /// What other servers know of its gateways.
    pub states: Arc<SharedStates>,
}

impl Partition {
    pub fn new(
        name: &str,
        db: Db,
        tables: Tables,
        avps: Avps,
        ids: IdBytes,
        kept: Option<PathBuf>,
    ) -> Partition {
        Partition {
            name: name.to_owned(),
            events: format!("{name};events"),
            db,
            tables,
            avps,
            ids,
            kept,
            data: RwLock::new(None),
            tried: watch::Sender::new(false),
            loading: AtomicBool::new(false),
            again: AtomicBool::new(false),
            loaded_s: AtomicU64::new(0),
            states: Arc::default(),
        }
    }

    /// `None`: nothing is loaded.
    pub fn data(&self) -> Option<Arc<Data>> {
        self.data.read().clone()
    }

    /// The only moment in which calls see a reload.
    pub fn swap(&self, data: Data, now_s: u64) {
        *self.data.write() = Some(Arc::new(data));
        self.loaded_s.store(now_s, Ordering::Relaxed);
    }

    pub fn loaded_s(&self) -> u64 {
        self.loaded_s.load(Ordering::Relaxed)
    }

    /// A load has ended.
    pub fn note_tried(&self) {
        self.tried.send_replace(true);
    }

    /// The first load has ended, well or not.
    pub fn was_tried(&self) -> bool {
        *self.tried.borrow()
    }

    /// Calls `f` when the first load has ended, which may be now.
    pub fn when_tried(
        self: &Arc<Self>,
        ctx: &mut Ctx,
        what: &'static str,
        f: impl FnOnce(&mut Ctx) -> i32 + 'static,
    ) -> Outcome {
        if self.was_tried() {
            return f(ctx).into();
        }
        let partition = self.clone();
        Suspension::future(what, async move {
            let mut tried = partition.tried.subscribe();
            // The sender lives in `partition`.
            let _ = tried.wait_for(|tried| *tried).await;
            Box::new(f) as Finish
        })
        .limit(FIRST_LOAD_MS, -1)
    }

    /// Tells the board how ready it is.
    pub fn tell(&self, shared: &Shared, level: i32, details: &str) {
        shared.status.set(GROUP, &self.name, level, details);
    }

    pub fn report(&self, ctx: &Ctx, text: impl Into<String>) {
        ctx.shared().status.report(GROUP, &self.name, ctx.core.wall_us / 1_000_000, text);
    }
}

/// The name of a text of a table, without NULL and blanks around.
pub fn table_name(text: Option<Bytes>) -> Option<String> {
    text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()).filter(|text| !text.is_empty())
}
