//! msilo: messages for users that are away: stored, delivered when they register, sent at a time (reminders).

mod send;
mod store;

use host::Accepts;
use host::db::{Db, Name};
use host::load::Loader;
use host::{Format, Registrar, Routes, Var};
use parking_lot::Mutex;

/// Columns of the table.
struct Columns {
    id: Name,
    from: Name,
    to: Name,
    user: Name,
    host: Name,
    body: Name,
    content_type: Name,
    expires: Name,
    came: Name,
    send: Name,
}

/// What a sender is told when a message is stored.
struct Notice {
    from: Format,
    body: Format,
    content_type: Format,
    contact: Option<Format>,
}

pub struct Msilo {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    columns: Columns,
    from_text: Option<String>,
    body_text: Option<String>,
    content_type_text: Option<String>,
    contact_text: Option<String>,
    notice: Option<Notice>,
    reminder: Option<String>,
    proxy: Option<String>,
    /// Seconds.
    expire_time: u32,
    check_time: u32,
    send_time: u32,
    clean_period: u32,
    use_contact: bool,
    send_time_text: String,
    send_time_var: Option<Var>,
    add_date: bool,
    /// Of one user; 0: no bound.
    max_messages: usize,
    /// Messages on their way.
    sent: Mutex<ahash::AHashSet<i64>>,
}

impl Default for Msilo {
    fn default() -> Msilo {
        Msilo {
            url: None,
            db: None,
            table: "silo".into(),
            columns: Columns {
                id: "id".into(),
                from: "src_addr".into(),
                to: "dst_addr".into(),
                user: "username".into(),
                host: "domain".into(),
                body: "body".into(),
                content_type: "ctype".into(),
                expires: "exp_time".into(),
                came: "inc_time".into(),
                send: "snd_time".into(),
            },
            from_text: None,
            body_text: None,
            content_type_text: None,
            contact_text: None,
            notice: None,
            reminder: None,
            proxy: None,
            expire_time: 259_200,
            check_time: 30,
            send_time: 0,
            clean_period: 5,
            use_contact: true,
            send_time_text: String::new(),
            send_time_var: None,
            add_date: true,
            max_messages: 0,
            sent: Mutex::default(),
        }
    }
}

fn seconds(value: i64) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| "this is a number of seconds".into())
}

pub fn register(m: &mut Registrar<Msilo>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("from_address", |s, v| Ok(s.from_text = Some(v.into())));
    m.param_text("contact_hdr", |s, v| Ok(s.contact_text = Some(v.into())));
    m.param_text("offline_message", |s, v| Ok(s.body_text = Some(v.into())));
    m.param_text("content_type_hdr", |s, v| Ok(s.content_type_text = Some(v.into())));
    m.param_text("reminder", |s, v| Ok(s.reminder = Some(v.into())));
    m.param_text("outbound_proxy", |s, v| Ok(s.proxy = Some(v.into())));
    m.param_int("expire_time", |s, v| Ok(s.expire_time = seconds(v)?));
    m.param_int("check_time", |s, v| Ok(s.check_time = seconds(v)?.max(1)));
    m.param_int("send_time", |s, v| Ok(s.send_time = seconds(v)?));
    m.param_int("clean_period", |s, v| Ok(s.clean_period = seconds(v)?.max(1)));
    m.param_int("use_contact", |s, v| Ok(s.use_contact = v != 0));
    m.param_int("add_date", |s, v| Ok(s.add_date = v != 0));
    m.param_int("max_messages", |s, v| Ok(s.max_messages = usize::try_from(v).unwrap_or(0)));
    m.param_text("snd_time_avp", |s, v| Ok(s.send_time_text = v.into()));
    m.param_text("sc_mid", |s, v| Ok(s.columns.id = v.to_string().into()));
    m.param_text("sc_from", |s, v| Ok(s.columns.from = v.to_string().into()));
    m.param_text("sc_to", |s, v| Ok(s.columns.to = v.to_string().into()));
    m.param_text("sc_uri_user", |s, v| Ok(s.columns.user = v.to_string().into()));
    m.param_text("sc_uri_host", |s, v| Ok(s.columns.host = v.to_string().into()));
    m.param_text("sc_body", |s, v| Ok(s.columns.body = v.to_string().into()));
    m.param_text("sc_ctype", |s, v| Ok(s.columns.content_type = v.to_string().into()));
    m.param_text("sc_exp_time", |s, v| Ok(s.columns.expires = v.to_string().into()));
    m.param_text("sc_inc_time", |s, v| Ok(s.columns.came = v.to_string().into()));
    m.param_text("sc_snd_time", |s, v| Ok(s.columns.send = v.to_string().into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::AVP, &["snd_time_avp"]);
    m.accepts(Accepts::SIP_URI, &["outbound_proxy", "reminder"]);
    m.accepts(Accepts::FORMAT, &["contact_hdr", "content_type_hdr", "from_address", "offline_message"]);
    m.accepts(Accepts::seconds(0), &["check_time", "clean_period", "expire_time", "send_time"]);
    m.accepts(Accepts::from(0), &["max_messages"]);
    m.function("m_store", Routes::REQUEST.and(Routes::FAILURE), store::store);
    let dumps = Routes::REQUEST.and(Routes::STARTUP).and(Routes::TIMER).and(Routes::EVENT);
    m.function("m_dump", dumps, send::dump);
    m.needs(&["tm"]);
    m.init(init);
    m.ready(|_, _, stats| {
        for name in send::COUNTERS {
            stats.counter("msilo", name);
        }
    });
    m.timer(1000, send::tick);
}

fn init(s: &mut Msilo, loader: &mut Loader) -> Result<(), String> {
    s.db = loader.db_or_default(s.url.as_deref())?;
    if s.db.is_none() {
        return Err("db_url is not set".into());
    }
    if !s.send_time_text.is_empty() {
        let spec = script::parse_variable(&s.send_time_text.clone().into(), script::Loc::default());
        s.send_time_var = Some(spec.and_then(|spec| loader.var(&spec)).map_err(|d| d.message)?);
    }
    if s.send_time > 0 && s.reminder.is_none() {
        return Err("send_time is set, but the address `reminder` is not".into());
    }
    let mut format = |text: &str| -> Result<Format, String> {
        Format::new(&text.to_string().into(), script::Loc::default(), loader).map_err(|d| d.message)
    };
    if let Some(line) = s.contact_text.as_deref().filter(|line| !is_header(line)) {
        host::warn!("msilo", "contact_hdr is left out: `{line}` is no header line, \"Contact: ...\\r\\n\"");
    }
    if let (Some(from), Some(body)) = (&s.from_text, &s.body_text) {
        s.notice = Some(Notice {
            from: format(from)?,
            body: format(body)?,
            content_type: format(s.content_type_text.as_deref().unwrap_or("Content-Type: text/plain"))?,
            contact: s.contact_text.as_deref().filter(|line| is_header(line)).map(&mut format).transpose()?,
        });
    }
    Ok(())
}

/// A name, a colon and something after it.
fn is_header(line: &str) -> bool {
    let name = line.split_once(':').map_or("", |(name, _)| name);
    !name.is_empty() && name.trim_end().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests;
