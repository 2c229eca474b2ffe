//! rtpengine: media through engines that speak the NG protocol. Every command waits for its engine; an engine that is
//! silent holds the calls that need it, and nobody else.

mod ask;
pub mod bencode;
mod brackets;
pub mod command;
mod flags;
mod functions;
mod manage;
mod notify;
pub mod relay;
mod sets;
mod statistics;

use crate::nodes::source::Table;
use crate::nodes::{Shelf, Told, Writing};
use drivers::exchange::Patience;
use host::avp::AvpName;
use host::db::Db;
use host::format::Format;
use host::registrar::ParamFn;
use host::registrar::truth;
use host::var::{Var, VarKind};
use host::{Loader, Registrar};
use script::posix::{self, Case};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

pub const NOTIFICATION: &str = "E_RTPENGINE_NOTIFICATION";
const TOLD: Told = Told { module: "rtpengine", event: "E_RTPENGINE_STATUS", with_set: true, inverted: false };

pub struct Rtpengine {
    /// Lines of `rtpengine_sock`.
    lines: Vec<String>,
    sets: Shelf,
    /// The sets are there: with a database, once it was read.
    ready: watch::Sender<bool>,
    patience: Patience,
    /// Seconds for which an engine that does not answer is left out.
    disable_s: u32,
    /// Seconds between two looks at engines that are out of order.
    interval_s: u32,
    ping_enabled: bool,
    notify: Option<SocketAddr>,
    bound: parking_lot::Mutex<Option<std::net::UdpSocket>>,
    extra_id_text: String,
    extra_id: Option<Format>,
    set_text: String,
    set_avp: Option<AvpName>,
    error_text: String,
    error: Option<Var>,
    /// Errors besides those of the protocol at which another engine is asked.
    failover: Vec<posix::Pattern>,
    url: Option<String>,
    db: Option<Db>,
    table: Table,
}

impl Default for Rtpengine {
    fn default() -> Rtpengine {
        Rtpengine {
            lines: Vec::new(),
            sets: Shelf::default(),
            ready: watch::Sender::new(false),
            patience: Patience { tries: 5, each: Duration::from_secs(1) },
            disable_s: 60,
            interval_s: 5,
            ping_enabled: false,
            notify: None,
            bound: parking_lot::Mutex::default(),
            extra_id_text: String::new(),
            extra_id: None,
            set_text: String::new(),
            set_avp: None,
            error_text: String::new(),
            error: None,
            failover: Vec::new(),
            url: None,
            db: None,
            table: Table {
                name: "rtpengine".into(),
                columns: ["socket".into(), "set_id".into()],
                version: 1,
                writing: Writing::Rtpengine,
            },
        }
    }
}

fn seconds(n: i64) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| "it is a number of seconds".to_string())
}

pub fn register(m: &mut Registrar<Rtpengine>) {
    m.param_text("rtpengine_sock", |m, line| Ok(m.lines.push(line.to_string())));
    m.param_int("rtpengine_disable_tout", |m, n| Ok(m.disable_s = seconds(n)?));
    m.param_int("rtpengine_tout", |m, n| {
        m.patience.each = Duration::from_secs(u64::from(seconds(n)?));
        Ok(())
    });
    m.param_int("rtpengine_retr", |m, n| {
        m.patience.tries = u32::try_from(n).ok().filter(|n| *n > 0).ok_or("at least one try is needed")?;
        Ok(())
    });
    m.param_int("rtpengine_timer_interval", |m, n| {
        m.interval_s = seconds(n)?.max(1);
        Ok(())
    });
    m.param("ping_enabled", ParamFn::Any(|m, value| Ok(m.ping_enabled = truth(value))));
    m.param_text("notification_sock", |m, text| {
        m.notify = Some(text.trim().parse().map_err(|_| format!("`{text}` is no IP address with a port"))?);
        Ok(())
    });
    m.param_text("extra_id_pv", |m, text| Ok(m.extra_id_text = text.to_string()));
    m.param_text("setid_avp", |m, text| Ok(m.set_text = text.to_string()));
    m.param_text("error_pv", |m, text| Ok(m.error_text = text.to_string()));
    m.param_text("extra_failover_error", |m, text| {
        let pattern = posix::compile(text.as_bytes(), Case::Ignore);
        m.failover.push(pattern.map_err(|e| format!("`{text}` is no regular expression: {e}"))?);
        Ok(())
    });
    m.param_text("db_url", |m, url| Ok(m.url = Some(url.to_string())));
    m.param_text("db_table", |m, name| Ok(m.table.name = name.to_string()));
    m.param_text("socket_column", |m, name| Ok(m.table.columns[0] = name.to_string().into()));
    m.param_text("set_column", |m, name| Ok(m.table.columns[1] = name.to_string().into()));
    m.init(init);
    m.ready(|module, hooks, _| {
        hooks.raises([NOTIFICATION, TOLD.event]);
        notify::hooks(module, hooks);
        sets::hooks(module, hooks);
    });
    m.start(sets::start);
    functions::register(m);
    statistics::register(m);
    manage::register(m);
}

fn init(m: &mut Rtpengine, loader: &mut Loader) -> Result<(), String> {
    let loc = script::Loc::default();
    match &m.url {
        Some(url) => m.db = Some(loader.db(url)?),
        None => {
            m.sets.set(sets::of_lines(&m.lines)?);
            m.ready.send_replace(true);
        }
    }
    if !m.extra_id_text.is_empty() {
        let text = m.extra_id_text.clone().into();
        m.extra_id =
            Some(Format::new(&text, loc, loader).map_err(|d| format!("extra_id_pv: {}", d.message))?);
    }
    if !m.set_text.is_empty() {
        let spec = script::parse_variable(&m.set_text.clone().into(), loc);
        let var = spec.and_then(|spec| loader.var(&spec)).map_err(|d| format!("setid_avp: {}", d.message))?;
        let VarKind::Avp(name) = var.kind else { return Err(format!("setid_avp: {} is no AVP", m.set_text)) };
        m.set_avp = Some(name);
    }
    if !m.error_text.is_empty() {
        let spec = script::parse_variable(&m.error_text.clone().into(), loc);
        let var = spec.and_then(|spec| loader.target_var(&spec));
        m.error = Some(var.map_err(|d| format!("error_pv: {}", d.message))?);
    }
    Ok(())
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
