//! rtpproxy: media through engines that speak the protocol of RTPProxy. Functions wait for their engine without
//! holding a worker.

mod ask;
mod commands;
mod describe;
mod engage;
mod functions;
mod manage;
mod notify;
mod options;
pub mod relay;
mod sets;

use crate::nodes::source::Table;
use crate::nodes::{DEFAULT_SET, Shelf, Told, Writing};
use drivers::exchange::Patience;
use host::db::Db;
use host::registrar::ParamFn;
use host::registrar::truth;
use host::{Loader, Registrar};
use std::time::Duration;
use tokio::sync::watch;

pub use ask::Asking;
pub use describe::{At, Failed, Kind, Made, Notified, Task};
pub use options::Options;

const TOLD: Told = Told { module: "rtpproxy", event: "E_RTPPROXY_STATUS", with_set: false, inverted: false };
pub const DTMF: &str = "E_RTPPROXY_DTMF";

pub struct Rtpproxy {
    /// Lines of `rtpproxy_sock`.
    lines: Vec<String>,
    sets: Shelf,
    /// The sets are there: with a database, once it was read.
    ready: watch::Sender<bool>,
    patience: Patience,
    /// Seconds for which an engine that does not answer is left out.
    disable_s: u32,
    /// Engines bridge between the addresses that messages come from and go to.
    autobridge: bool,
    default_set: i64,
    /// The line that says that a description was relayed already; empty: none is added.
    mark: String,
    notify: Option<notify::Place>,
    bound: parking_lot::Mutex<Option<notify::Bound>>,
    url: Option<String>,
    db: Option<Db>,
    table: Table,
}

impl Default for Rtpproxy {
    fn default() -> Rtpproxy {
        Rtpproxy {
            lines: Vec::new(),
            sets: Shelf::default(),
            ready: watch::Sender::new(false),
            patience: Patience { tries: 5, each: Duration::from_secs(1) },
            disable_s: 60,
            autobridge: false,
            default_set: DEFAULT_SET,
            mark: "a=nortpproxy:yes".into(),
            notify: None,
            bound: parking_lot::Mutex::default(),
            url: None,
            db: None,
            table: Table {
                name: "rtpproxy_sockets".into(),
                columns: ["rtpproxy_sock".into(), "set_id".into()],
                version: 0,
                writing: Writing::Rtpproxy,
            },
        }
    }
}

fn seconds(n: i64) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| "it is a number of seconds".to_string())
}

pub fn register(m: &mut Registrar<Rtpproxy>) {
    m.param_text("rtpproxy_sock", |m, line| Ok(m.lines.push(line.to_string())));
    m.param_int("rtpproxy_disable_tout", |m, n| Ok(m.disable_s = seconds(n)?));
    m.param_text("rtpproxy_timeout", |m, text| {
        let each = text.trim().parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        m.patience.each = each.ok_or_else(|| format!("`{text}` is no number of seconds"))?;
        Ok(())
    });
    // Whole seconds, as 2.x called it.
    m.param_int("rtpproxy_tout", |m, n| Ok(m.patience.each = Duration::from_secs(u64::from(seconds(n)?))));
    m.param("rtpproxy_autobridge", ParamFn::Any(|m, value| Ok(m.autobridge = truth(value))));
    m.param_int("rtpproxy_retr", |m, n| {
        m.patience.tries = u32::try_from(n).ok().filter(|n| *n > 0).ok_or("at least one try is needed")?;
        Ok(())
    });
    m.param_int("default_set", |m, n| Ok(m.default_set = n));
    m.param_text("nortpproxy_str", |m, text| Ok(m.mark = text.trim_end_matches(['\r', '\n']).to_string()));
    m.param_text("db_url", |m, url| Ok(m.url = Some(url.to_string())));
    m.param_text("db_table", |m, name| Ok(m.table.name = name.to_string()));
    m.param_text("rtpp_socket_col", |m, name| Ok(m.table.columns[0] = name.to_string().into()));
    m.param_text("set_id_col", |m, name| Ok(m.table.columns[1] = name.to_string().into()));
    m.param_text("rtpp_notify_socket", |m, text| {
        m.notify = Some(notify::Place::parse(text)?);
        Ok(())
    });
    // Descriptions are never made up here: those that siprec would need come with it.
    m.ignored(
        &["generated_sdp_port_min", "generated_sdp_port_max", "generated_sdp_media_ip"],
        "no description is made up here: it is asked for when a message has one",
    );
    m.init(init);
    m.ready(|module, hooks, _| {
        hooks.raises([DTMF, TOLD.event]);
        functions::hooks(module, hooks);
        engage::hooks(module, hooks);
        notify::hooks(module, hooks);
        sets::hooks(module, hooks);
    });
    m.start(|call| {
        engage::start(call);
        sets::start(call);
    });
    functions::register(m);
    commands::register(m);
    manage::register(m);
}

fn init(m: &mut Rtpproxy, loader: &mut Loader) -> Result<(), String> {
    if m.notify.is_some() && !loader.is_loaded("dialog") {
        return Err("rtpp_notify_socket ends calls: load the module dialog".into());
    }
    match &m.url {
        Some(url) => m.db = Some(loader.db(url)?),
        None if m.lines.is_empty() => return Err("no rtpproxy set specified".into()),
        None => {
            m.sets.set(sets::of_lines(&m.lines, m.default_set)?);
            m.ready.send_replace(true);
        }
    }
    Ok(())
}
