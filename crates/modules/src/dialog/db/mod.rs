//! Dialogs in a database: what the parameters say, when rows are written, what comes back at start.

mod restore;
mod row;
mod text;
mod write;

pub use restore::{distribute, restore, sync, take_in};
pub use row::Rows;
pub use write::{at_end, rewrite, soon, tick};

use super::Dlg;
use host::Registrar;
use host::db::{Db, Name};
use host::load::Loader;
use host::{InParam, LoadError};

/// When memory goes to the database (`db_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    #[default]
    None,
    /// Each change, as soon as the write before it is done.
    Realtime,
    /// What has changed, every `db_update_period`.
    Delayed,
    /// Everything, when the server ends.
    Shutdown,
}

impl Mode {
    /// Changes are written while the server runs.
    pub fn collects(self) -> bool {
        matches!(self, Mode::Realtime | Mode::Delayed)
    }
}

/// The columns of the table, in the order in which rows are written and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    CallId,
    FromUri,
    FromTag,
    ToUri,
    ToTag,
    MangledFrom,
    MangledTo,
    CallerCseq,
    CalleeCseq,
    CallerPing,
    CalleePing,
    CallerRoutes,
    CalleeRoutes,
    CallerContact,
    CalleeContact,
    CallerSock,
    CalleeSock,
    State,
    Start,
    Timeout,
    Vars,
    Profiles,
    ScriptFlags,
    ModuleFlags,
    Flags,
    OnAnswer,
    OnTimeout,
    OnHangup,
}

const COLUMNS: [&str; 28] = [
    "callid",
    "from_uri",
    "from_tag",
    "to_uri",
    "to_tag",
    "mangled_from_uri",
    "mangled_to_uri",
    "caller_cseq",
    "callee_cseq",
    "caller_ping_cseq",
    "callee_ping_cseq",
    "caller_route_set",
    "callee_route_set",
    "caller_contact",
    "callee_contact",
    "caller_sock",
    "callee_sock",
    "state",
    "start_time",
    "timeout",
    "vars",
    "profiles",
    "script_flags",
    "module_flags",
    "flags",
    "rt_on_answer",
    "rt_on_timeout",
    "rt_on_hangup",
];

/// The parameters.
pub struct Store {
    url: Option<String>,
    pub db: Option<Db>,
    pub mode: Mode,
    pub period: u32,
    pub table: Name,
    pub id: Name,
    pub columns: Vec<Name>,
    /// Values, profiles and flags are written with each change, not only at the end.
    pub with_values: bool,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            url: None,
            db: None,
            mode: Mode::None,
            period: 60,
            table: "dialog".into(),
            id: "dlg_id".into(),
            columns: COLUMNS.iter().map(|name| Name::from(*name)).collect(),
            with_values: false,
        }
    }
}

macro_rules! column_params {
    ($m:ident, $($param:literal => $column:ident),*) => {
        $($m.param_text($param, |s, v| {
            s.store.columns[Column::$column as usize] = v.to_string().into();
            Ok(())
        });)*
    };
}

pub fn register(m: &mut Registrar<Dlg>) {
    m.param_text("db_url", |s, v| Ok(s.store.url = Some(v.into())));
    m.param_int("db_mode", |s, v| {
        s.store.mode = match v {
            0 => Mode::None,
            1 => Mode::Realtime,
            2 => Mode::Delayed,
            3 => Mode::Shutdown,
            _ => return Err("db_mode is 0 (none), 1 (realtime), 2 (delayed) or 3 (shutdown)".into()),
        };
        Ok(())
    });
    m.param_int("db_update_period", |s, v| match u32::try_from(v) {
        Ok(n) if n > 0 => Ok(s.store.period = n),
        _ => Err("db_update_period is a number of seconds".into()),
    });
    m.param_text("table_name", |s, v| Ok(s.store.table = v.to_string().into()));
    m.param_text("dlg_id_column", |s, v| Ok(s.store.id = v.to_string().into()));
    m.param_int("db_flush_vals_profiles", |s, v| Ok(s.store.with_values = v != 0));
    m.ignored(&["timer_bulk_del_no"], "rows that are to go are deleted together");
    column_params!(m,
        "call_id_column" => CallId, "from_uri_column" => FromUri, "from_tag_column" => FromTag,
        "to_uri_column" => ToUri, "to_tag_column" => ToTag, "from_cseq_column" => CallerCseq,
        "to_cseq_column" => CalleeCseq, "from_route_column" => CallerRoutes, "to_route_column" => CalleeRoutes,
        "from_contact_column" => CallerContact, "to_contact_column" => CalleeContact,
        "from_sock_column" => CallerSock, "to_sock_column" => CalleeSock, "state_column" => State,
        "start_time_column" => Start, "timeout_column" => Timeout, "profiles_column" => Profiles,
        "vars_column" => Vars, "sflags_column" => ScriptFlags, "mflags_column" => ModuleFlags,
        "flags_column" => Flags
    );
}

pub fn init(s: &mut Dlg, loader: &mut Loader) -> Result<(), LoadError> {
    if s.store.mode == Mode::None {
        return Ok(());
    }
    s.store.db = loader.db_or_default(s.store.url.as_deref()).in_param("db_url")?;
    if s.store.db.is_none() {
        return Err(LoadError::from("it is set, but db_url is not").in_param("db_mode"));
    }
    Ok(())
}
