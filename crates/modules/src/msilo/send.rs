//! Delivery: m_dump for a user that is back, reminders when their time has come; what is delivered is deleted.

use super::Msilo;
use crate::subjects::Subject;
use bytes::Bytes;
use host::db::{Op, Query, Row, Rows};
use host::tm::{Answer, NewRequest};
use host::{Call, Ctx, Int, Outcome, Text};
use sip::{HeaderName, Method};
use std::sync::Arc;

pub const COUNTERS: [&str; 5] =
    ["stored_messages", "dumped_messages", "failed_messages", "dumped_reminders", "failed_reminders"];

/// Why a message is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Dump,
    Reminder,
}

impl Why {
    fn counter(self, delivered: bool) -> &'static str {
        match (self, delivered) {
            (Why::Dump, true) => "dumped_messages",
            (Why::Dump, false) => "failed_messages",
            (Why::Reminder, true) => "dumped_reminders",
            (Why::Reminder, false) => "failed_reminders",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Why::Dump => "Offline",
            Why::Reminder => "Reminder",
        }
    }
}

/// Messages of one m_dump, or of one look for reminders.
const MAX_AT_ONCE: u64 = 1000;

fn query(module: &Msilo) -> Query {
    let c = &module.columns;
    Query::select(&module.table)
        .columns([&c.id, &c.from, &c.to, &c.body, &c.content_type, &c.came, &c.user, &c.host, &c.send])
        .order(&c.id)
}

/// m_dump([owner], [most]): sends what waits for a user; -1 when he goes away or takes no messages.
pub fn dump(call: &mut Call<Msilo>, owner: Option<Text>, most: Option<Int>) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else { return (-1).into() };
    let msg = call.state.msg.clone();
    let owner = owner.map(|o| o.0).or_else(|| msg.to().map(|t| t.uri));
    let Some(owner) = owner.and_then(|uri| Subject::of_uri(&uri)) else { return (-1).into() };
    if msg.is_request() && msg.method() == Method::Register {
        let leaves = msg.value(HeaderName::Expires).is_some() && msg.expires().is_none_or(|e| e == 0);
        let mut methods = msg.list(HeaderName::Allow).peekable();
        let deaf = methods.peek().is_some() && !methods.any(|m| m.eq_ignore_ascii_case(b"MESSAGE"));
        if leaves || deaf {
            return (-1).into();
        }
    }
    let most = most.and_then(|n| u64::try_from(n.0).ok()).filter(|n| *n > 0).unwrap_or(MAX_AT_ONCE);
    let c = &module.columns;
    let query = query(&module)
        .eq(&c.user, owner.user)
        .eq(&c.host, owner.domain)
        .eq(&c.send, 0)
        .limit(most.min(MAX_AT_ONCE));
    let kept = module.clone();
    db.suspend(call.ctx, "m_dump", query, move |ctx, rows| {
        match rows {
            Ok(rows) => send_all(ctx, &kept, &rows, Why::Dump),
            Err(_) => return -1,
        }
        1
    })
}

fn send_all(ctx: &mut Ctx, module: &Arc<Msilo>, rows: &Rows, why: Why) {
    for row in rows.iter() {
        let Some(id) = row.int(0) else { continue };
        // One that is on its way already is not sent twice.
        if module.sent.lock().insert(id) {
            send(ctx, module, id, &row, why);
        }
    }
}

fn send(ctx: &mut Ctx, module: &Arc<Msilo>, id: i64, row: &Row<'_>, why: Why) {
    let came = row.int(5).unwrap_or(0);
    let content_type = row.string(4);
    let stored = row.text(3).unwrap_or_default();
    let uri = match why {
        Why::Dump => row.text(2).unwrap_or_default(),
        Why::Reminder => Bytes::from(format!("sip:{}@{}", row.string(6), row.string(7))),
    };
    let from = match why {
        Why::Dump => row.string(1),
        Why::Reminder => module.reminder.clone().unwrap_or_default(),
    };
    let moment = if why == Why::Reminder { row.int(8).unwrap_or(came) } else { came };
    let mut headers = format!("Date: {}\r\n", host::clock::rfc1123(moment));
    if !content_type.is_empty() {
        headers += &format!("Content-Type: {}\r\n", content_type.replace(['\r', '\n'], " "));
    }
    headers += &format!("Contact: <{}>;msilo=yes\r\n", from.replace(['\r', '\n', '>'], ""));
    let plain = content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("text/plain"));
    let body = match module.add_date && plain && !stored.is_empty() {
        true => {
            let head = format!("[{} message - {}] ", why.label(), host::clock::ctime(moment).trim_end());
            [head.as_bytes(), &stored].concat().into()
        }
        false => stored,
    };
    let to = format!("<{}>", String::from_utf8_lossy(&uri));
    let mut request = NewRequest::new("MESSAGE", uri, &format!("<{from}>"), &to);
    request.headers = headers.into();
    request.body = body;
    request.next_hop = module.proxy.clone().map(Bytes::from);
    let module = module.clone();
    host::tm::send_new(
        ctx,
        request,
        Some(Box::new(move |ctx, answer| answered(ctx, &module, id, why, &answer))),
    );
}

/// Delivered messages are deleted, the others wait for the next time.
fn answered(ctx: &mut Ctx, module: &Arc<Msilo>, id: i64, why: Why, answer: &Answer) {
    let delivered = (200..300).contains(&answer.status);
    ctx.shared().stats.counter("msilo", why.counter(delivered)).up();
    let Some(db) = module.db.as_ref().filter(|_| delivered) else {
        module.sent.lock().remove(&id);
        return;
    };
    let query = Query::delete(&module.table).eq(&module.columns.id, id);
    let module = module.clone();
    db.spawn(ctx, "msilo", query, move |_, result| match result {
        Ok(_) => {
            module.sent.lock().remove(&id);
        }
        // It stays among those on their way: the user has it.
        Err(error) => host::error!("msilo", "a delivered message stays in the table: {error}"),
    });
}

/// Seconds since worker 0 started.
#[derive(Default)]
struct Ticks(u64);

/// Once a second on worker 0: reminders every `send_time`, expired messages every `check_time` × `clean_period`.
pub fn tick(call: &mut Call<Msilo>) {
    let module = call.module.clone();
    let ticks = call.ctx.local::<Ticks>();
    ticks.0 += 1;
    let ticks = ticks.0;
    let Some(db) = &module.db else { return };
    let now = (call.core.wall_us / 1_000_000) as i64;
    let c = &module.columns;
    if ticks.is_multiple_of(u64::from(module.check_time) * u64::from(module.clean_period)) {
        let query = Query::delete(&module.table).filter(&c.expires, Op::Lt, now);
        db.spawn(call.ctx, "msilo", query, |_, result| {
            if let Err(error) = result {
                host::error!("msilo", "expired messages were not deleted: {error}");
            }
        });
    }
    if module.send_time > 0 && ticks.is_multiple_of(u64::from(module.send_time)) {
        let query = query(&module)
            .filter(&c.send, Op::Gt, 0)
            .filter(&c.send, Op::Le, now)
            .filter(&c.expires, Op::Gt, now)
            .limit(MAX_AT_ONCE);
        let kept = module.clone();
        db.spawn(call.ctx, "msilo", query, move |ctx, rows| match rows {
            Ok(rows) => send_all(ctx, &kept, &rows, Why::Reminder),
            Err(error) => host::error!("msilo", "reminders were not read: {error}"),
        });
    }
}
