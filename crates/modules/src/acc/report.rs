//! Reports: what happened to a request, written to the log, a table, an event or an AAA server.

use super::Acc;
use super::account::{Account, Backend};
use bytes::Bytes;
use host::aaa::{Aaa, AaaKind, AaaRequest};
use host::db::{DbValue, Query};
use host::events::EventParams;
use host::{Ctx, Value, Var};
use sip::Message;
use std::fmt::Write;

/// What is said of a request.
pub enum ReportKind {
    /// `acc_log_request` and its like.
    Request,
    Answered,
    Missed,
    /// A whole call.
    Ended(Call),
}

/// What is said of a whole call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Unix seconds of the answer.
    pub started: u64,
    /// Seconds, begun ones count.
    pub duration: u64,
    pub duration_ms: u64,
    /// Seconds from the INVITE to the answer.
    pub setup: u64,
    /// Unix seconds of the INVITE.
    pub created: u64,
}

impl ReportKind {
    fn words(&self) -> &'static str {
        match self {
            ReportKind::Request => "ACC: request accounted: ",
            ReportKind::Missed => "ACC: call missed: ",
            ReportKind::Answered => "ACC: transaction answered: ",
            ReportKind::Ended(_) => "ACC: call ended: ",
        }
    }
}

/// How the request ended.
pub struct Ending {
    /// Three digits, or nothing.
    pub code: Bytes,
    pub reason: Bytes,
    /// Tag of To of the reply.
    pub to_tag: Option<Bytes>,
}

impl Ending {
    pub fn of_reply(reply: &Message) -> Ending {
        Ending {
            code: Bytes::from(reply.status().to_string()),
            reason: reply.reason(),
            to_tag: Some(reply.to_tag().unwrap_or_default()),
        }
    }
}

/// A report in the making: the request is the current message.
pub struct Report {
    method: Bytes,
    from_tag: Bytes,
    to_tag: Bytes,
    call_id: Bytes,
    code: Bytes,
    reason: Bytes,
    /// Unix seconds now: the transaction is complete, its answer goes upstream.
    time: u64,
    account: Option<Account>,
}

/// Extra values and, for each leg, its values.
struct Values {
    extra: Vec<(String, Option<Bytes>)>,
    legs: Vec<Vec<(String, Option<Bytes>)>>,
}

impl Report {
    pub fn new(ctx: &mut Ctx, module: &Acc, account: Option<Account>, ending: Ending) -> Report {
        let msg = ctx.state.msg.clone();
        let (mut from_tag, mut to_tag) = (msg.from_tag(), ending.to_tag.or_else(|| msg.to_tag()));
        if module.detect_direction && msg.to_tag().is_some() && !crate::rr::is_downstream(ctx) {
            std::mem::swap(&mut from_tag, &mut to_tag);
        }
        Report {
            method: msg.method_text(),
            from_tag: from_tag.unwrap_or_default(),
            to_tag: to_tag.unwrap_or_default(),
            call_id: msg.call_id().unwrap_or_default(),
            code: ending.code,
            reason: ending.reason,
            time: ctx.core.wall_us / 1_000_000,
            account,
        }
    }

    /// The report of a whole call, which has no message.
    pub fn of_call(
        method: Bytes,
        from_tag: Bytes,
        call_id: Bytes,
        ending: Ending,
        time: u64,
        account: Account,
    ) -> Report {
        let to_tag = ending.to_tag.unwrap_or_default();
        let (code, reason) = (ending.code, ending.reason);
        Report { method, from_tag, to_tag, call_id, code, reason, time, account: Some(account) }
    }

    /// Seconds from the request to now.
    fn setup_time(&self) -> Option<(u64, u64)> {
        self.account.as_ref().map(|a| (a.created, self.time.saturating_sub(a.created)))
    }

    fn core(&self) -> [(&'static str, &Bytes); 6] {
        [
            ("method", &self.method),
            ("from_tag", &self.from_tag),
            ("to_tag", &self.to_tag),
            ("call_id", &self.call_id),
            ("code", &self.code),
            ("reason", &self.reason),
        ]
    }

    fn values(&self, ctx: &mut Ctx, module: &Acc, backend: Backend) -> Values {
        let mut values = Values { extra: Vec::new(), legs: Vec::new() };
        if let Some(account) = &self.account {
            let of =
                |set: &[Option<Bytes>], fields: &super::fields::Fields| -> Vec<(String, Option<Bytes>)> {
                    fields.of(backend).map(|(i, n)| (n.to_string(), set.get(i).cloned().flatten())).collect()
                };
            values.extra = of(&account.extra, &module.extra);
            values.legs = account.legs.iter().map(|leg| of(leg, &module.legs)).collect();
        }
        let old = module.old_extra.iter().filter(|(b, ..)| *b == backend);
        values.extra.extend(old.map(|(_, name, var)| (name.clone(), var.get(ctx).text())));
        values.legs.extend(old_legs(ctx, &module.old_legs));
        values
    }

    pub fn to_log(&self, ctx: &mut Ctx, module: &Acc, kind: &ReportKind) {
        if !host::log::enabled(module.log_level) {
            return;
        }
        let mut line = kind.words().to_string();
        if let ReportKind::Ended(call) = kind {
            let Call { started, duration, duration_ms, setup, created } = call;
            let _ = write!(
                line,
                "created={created};call_start_time={started};duration={duration};ms_duration={duration_ms};\
                 setuptime={setup}"
            );
        } else {
            let _ = write!(line, "timestamp={}", self.time);
            if let Some((created, setup)) = self.setup_time() {
                let _ = write!(line, ";created={created};setuptime={setup}");
            }
        }
        let mut add = |name: &str, value: &[u8]| {
            // A value may come from a message: it does not begin lines of its own.
            let value = String::from_utf8_lossy(value).replace(['\r', '\n'], " ");
            let _ = write!(line, ";{name}={value}");
        };
        for (name, value) in self.core() {
            add(name, value);
        }
        let values = self.values(ctx, module, Backend::Log);
        for (name, value) in values.extra.iter().chain(values.legs.iter().flatten()) {
            add(name, value.as_deref().unwrap_or_default());
        }
        host::log::emit(module.log_level, "", &script::traced::printable(&line));
    }

    /// The rows for a table: one, or one for each leg.
    pub fn rows(&self, ctx: &mut Ctx, module: &Acc, kind: &ReportKind, table: &str) -> Vec<Query> {
        let columns = &module.columns;
        let names = [
            &columns.method,
            &columns.from_tag,
            &columns.to_tag,
            &columns.call_id,
            &columns.code,
            &columns.reason,
        ];
        let mut row = Query::insert(table.to_string());
        for (name, (_, value)) in names.into_iter().zip(self.core()) {
            row = row.set(name, value.clone());
        }
        row = row.set(&columns.time, DbValue::Time(self.time as i64));
        let values = self.values(ctx, module, Backend::Db);
        let set = |mut row: Query, values: &[(String, Option<Bytes>)]| {
            for (name, value) in values {
                // The reference writes an empty text for a value that is not there.
                row = row.set(name, value.clone().unwrap_or_default());
            }
            row
        };
        row = set(row, &values.extra);
        if let ReportKind::Ended(call) = kind {
            row = row
                .set("setuptime", call.setup as i64)
                .set("created", DbValue::Time(call.created as i64))
                .set("duration", call.duration as i64)
                .set("ms_duration", call.duration_ms as i64);
        } else if let Some((created, setup)) = self.setup_time() {
            row = row.set("setuptime", setup as i64).set("created", DbValue::Time(created as i64));
            if !matches!(kind, ReportKind::Missed) {
                row = row.set("duration", 0).set("ms_duration", 0);
            }
        }
        match values.legs.is_empty() {
            true => vec![row],
            false => values.legs.iter().map(|leg| set(row.clone(), leg)).collect(),
        }
    }

    /// Hands the report to one backend. `table` is for `Backend::Db`.
    pub fn deliver(&self, ctx: &mut Ctx, module: &Acc, backend: Backend, kind: &ReportKind, table: &str) {
        match backend {
            Backend::Evi => self.to_event(ctx, module, kind),
            Backend::Log => self.to_log(ctx, module, kind),
            Backend::Db => self.to_table(ctx, module, kind, table),
            Backend::Aaa => self.to_aaa(ctx, module, kind),
        }
    }

    fn to_table(&self, ctx: &mut Ctx, module: &Acc, kind: &ReportKind, table: &str) {
        let Some(db) = module.db.clone() else { return };
        for row in self.rows(ctx, module, kind, table) {
            let call_id = self.call_id.clone();
            let table = table.to_string();
            db.insert_later(ctx, "acc", row, move |error| {
                let call = String::from_utf8_lossy(&call_id).into_owned();
                host::error!("acc", "call {call} is missing from table {table}: {error}");
            });
        }
    }

    pub fn to_event(&self, ctx: &mut Ctx, module: &Acc, kind: &ReportKind) {
        let name = match kind {
            ReportKind::Missed => super::MISSED_EVENT,
            ReportKind::Ended(_) => super::CDR_EVENT,
            _ => super::EVENT,
        };
        if !ctx.shared().events().wanted(name.as_bytes()) {
            return;
        }
        let names = ["method", "from_tag", "to_tag", "callid", "sip_code", "sip_reason"];
        let mut head: Vec<(String, Value)> =
            names.iter().zip(self.core()).map(|(n, (_, v))| (n.to_string(), v.clone().into())).collect();
        // No reply has named the other end yet.
        if let Some((_, tag)) = head.get_mut(2).filter(|_| self.to_tag.is_empty()) {
            *tag = Value::Null;
        }
        head.push(("time".into(), Value::Int(self.time as i64)));
        let values = self.values(ctx, module, Backend::Evi);
        let pair = |(name, value): &(String, Option<Bytes>)| {
            (name.clone(), Value::Str(value.clone().unwrap_or_default()))
        };
        head.extend(values.extra.iter().map(pair));
        let mut tail = Vec::new();
        if let ReportKind::Ended(call) = kind {
            for (name, value) in [
                ("duration", call.duration),
                ("ms_duration", call.duration_ms),
                ("setuptime", call.setup),
                ("created", call.created),
            ] {
                tail.push((name.to_string(), Value::Int(value as i64)));
            }
        }
        if let ReportKind::Missed = kind {
            // What is reported outside of accounts began with time itself, as in the reference.
            let (created, setup) = self.setup_time().unwrap_or((0, self.time));
            tail.push(("setuptime".to_string(), Value::Int(setup as i64)));
            tail.push(("created".to_string(), Value::Int(created as i64)));
        }
        let legs = if values.legs.is_empty() { vec![Vec::new()] } else { values.legs };
        for leg in legs {
            let all = head.iter().cloned().chain(leg.iter().map(pair)).chain(tail.iter().cloned());
            host::events::raise(ctx, name, all.collect::<EventParams>());
        }
    }
}

/// Attributes of every accounting request.
pub const AAA_ATTRIBUTES: [&str; 8] = [
    "Acct-Status-Type",
    "Service-Type",
    "Sip-Response-Code",
    "Sip-Method",
    "Event-Timestamp",
    "Sip-From-Tag",
    "Sip-To-Tag",
    "Acct-Session-Id",
];

/// Those that a dictionary need not have; without them records go out all the same.
pub const OPTIONAL_ATTRIBUTES: [&str; 4] =
    ["Sip-Call-Setuptime", "Sip-Call-Created", "Sip-Call-Duration", "Sip-Call-MSDuration"];

impl Report {
    /// The request for an AAA server; NULLs are left out.
    pub fn aaa_request(&self, ctx: &mut Ctx, module: &Acc, aaa: &Aaa, kind: &ReportKind) -> AaaRequest {
        let code = std::str::from_utf8(&self.code).ok().and_then(|c| c.parse().ok()).unwrap_or(0i64);
        let method = sip::Method::parse(&self.method);
        let status = match method {
            _ if matches!(kind, ReportKind::Ended(_)) => "Stop",
            sip::Method::Invite if (200..300).contains(&code) => "Start",
            sip::Method::Bye | sip::Method::Cancel => "Stop",
            sip::Method::Update => "Alive",
            _ => "Failed",
        };
        let status = aaa.value("Acct-Status-Type", status).ok().map(Value::Int);
        let mut request = AaaRequest::new(AaaKind::Acct);
        let heads = [
            status.unwrap_or_default(),
            Value::Int(module.service_type.unwrap_or_default()),
            Value::Int(code),
            Value::Int(method_number(method)),
            Value::Int(self.time as i64),
            self.from_tag.clone().into(),
            self.to_tag.clone().into(),
            self.call_id.clone().into(),
        ];
        for (name, value) in AAA_ATTRIBUTES.into_iter().zip(heads) {
            request.add(name, value);
        }
        let values = self.values(ctx, module, Backend::Aaa);
        for (name, value) in values.extra.into_iter().chain(values.legs.into_iter().flatten()) {
            request.add(name, value);
        }
        let times = match (kind, self.setup_time()) {
            (ReportKind::Ended(call), _) => vec![call.setup, call.created, call.duration, call.duration_ms],
            (_, Some((created, setup))) => vec![setup, created],
            _ => Vec::new(),
        };
        for (name, value) in OPTIONAL_ATTRIBUTES.into_iter().zip(times) {
            if aaa.attribute(name).is_ok() {
                request.add(name, value as i64);
            }
        }
        request
    }

    fn to_aaa(&self, ctx: &mut Ctx, module: &Acc, kind: &ReportKind) {
        let Some(aaa) = &module.aaa else { return };
        let request = self.aaa_request(ctx, module, aaa, kind);
        let call_id = self.call_id.clone();
        aaa.spawn(ctx, "acc", request, move |_, answer| {
            if let Err(error) = answer {
                let call = String::from_utf8_lossy(&call_id).into_owned();
                host::error!("acc", "call {call} is not accounted at the AAA server: {error}");
            }
        });
    }
}

/// Methods as numbers, as servers of the reference's users know them.
fn method_number(method: sip::Method) -> i64 {
    use sip::Method::*;
    const ORDER: [sip::Method; 14] = [
        Invite, Cancel, Ack, Bye, Info, Options, Update, Register, Message, Subscribe, Notify, Prack, Refer,
        Publish,
    ];
    1 << ORDER.iter().position(|m| *m == method).unwrap_or(ORDER.len())
}

/// Values of `multi_leg_info`: the i-th value of each AVP belongs to leg i; one leg at least.
fn old_legs(ctx: &mut Ctx, info: &[(String, Var)]) -> Vec<Vec<(String, Option<Bytes>)>> {
    let mut legs = Vec::new();
    while !info.is_empty() && legs.len() < super::account::MAX_LEGS {
        let at = legs.len() as i32;
        let leg: Vec<_> = info.iter().map(|(name, var)| (name.clone(), var.get_at(ctx, at).text())).collect();
        if at > 0 && leg.iter().all(|(_, value)| value.is_none()) {
            break;
        }
        legs.push(leg);
    }
    legs
}

/// A comment of a script ("480 Nobody Home") as an ending.
pub fn comment(text: &Bytes) -> Ending {
    let has_code = text.len() >= 3 && text[..3].iter().all(u8::is_ascii_digit);
    let (code, rest) =
        if has_code { (text.slice(..3), text.slice(3..)) } else { (Bytes::new(), text.clone()) };
    let mut reason = rest.slice_ref(rest.trim_ascii_start());
    if reason.is_empty() {
        reason = Bytes::from_static(default_reason(&code));
    }
    Ending { code, reason, to_tag: None }
}

/// Words for a code that came without (RFC 3261 §21).
fn default_reason(code: &[u8]) -> &'static [u8] {
    match code {
        b"200" => b"OK",
        b"302" => b"Moved Temporarily",
        b"400" => b"Bad Request",
        b"401" => b"Unauthorized",
        b"403" => b"Forbidden",
        b"404" => b"Not Found",
        b"407" => b"Proxy Authentication Required",
        b"408" => b"Request Timeout",
        b"480" => b"Temporarily Unavailable",
        b"486" => b"Busy Here",
        b"487" => b"Request Terminated",
        b"500" => b"Server Internal Error",
        b"503" => b"Service Unavailable",
        b"603" => b"Decline",
        _ => match code.first() {
            Some(b'1') => b"Trying",
            Some(b'2') => b"OK",
            Some(b'3') => b"Redirect",
            Some(b'4') => b"Request Failure",
            Some(b'6') => b"Global Failure",
            _ => b"Server Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_hold_code_and_reason() {
        for (text, code, reason) in [
            ("480 Nobody Home", "480", "Nobody Home"),
            ("404", "404", "Not Found"),
            ("Some comment", "", "Some comment"),
            ("12 x", "", "12 x"),
            ("200   fine ", "200", "fine "),
        ] {
            let ending = comment(&Bytes::from(text));
            assert_eq!(
                (&ending.code[..], &ending.reason[..]),
                (code.as_bytes(), reason.as_bytes()),
                "{text}"
            );
        }
    }
}
