//! Records of whole calls (`do_accounting(..., "cdr")`): begun by the answer, written when the dialog ends.
//!
//! What a record needs is kept with the dialog, and as a value of it, so that a restart does not lose it.

use super::Acc;
use super::account::{self, Account, Backend, Marks, What};
use super::report::{Call, Ending, Report, ReportKind};
use crate::dialog::api::{self, Event, Told};
use crate::dialog::{Key, Val};
use bytes::Bytes;
use host::Ctx;
use script::ast::RouteKind;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The value of the dialog that holds a record.
const VALUE: &[u8] = b"accX_cdr";

/// The begun record of a call, kept with its dialog.
#[derive(Clone, Default)]
pub struct Record(Option<Rc<RefCell<Begun>>>);

/// What the answer said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Begun {
    method: Bytes,
    from_tag: Bytes,
    to_tag: Bytes,
    code: Bytes,
    reason: Bytes,
    /// Unix milliseconds of the answer.
    answered_ms: u64,
    /// Of the BYE; 0: not yet.
    ended_ms: u64,
}

/// The account of a dialog: that of its INVITE.
#[derive(Clone, Default)]
pub struct OfDialog(pub Option<account::Shared>);

/// Each worker follows its calls.
pub fn start(call: &mut host::Call<Acc>) {
    if !call.module.has_dialog {
        return;
    }
    let module = call.module.clone();
    api::listen(
        call.ctx,
        Rc::new(move |ctx: &mut Ctx, told: &Told| match told.event {
            Event::Confirmed => begin(ctx, told),
            Event::Terminated => over(ctx, &module, told.key),
            // The script of the BYE never came to its end.
            Event::Gone if awaited(ctx, told.key) => end(ctx, &module, told.key),
            Event::Loaded => load(ctx, &module, told.key),
            _ => {}
        }),
    );
}

/// The script asks for a record: the INVITE gets a dialog if it has none.
pub fn asked(ctx: &mut Ctx, account: &account::Shared) -> bool {
    let found = api::current(ctx).map(|(key, _)| key);
    let Some(key) = found.or_else(|| api::create(ctx, Default::default())) else { return false };
    if let Some(dialog) = api::get(ctx, key) {
        dialog.ext.set(OfDialog(Some(account.clone())));
    }
    true
}

/// The account of the dialog that the current message belongs to.
pub fn account_of(ctx: &mut Ctx) -> Option<account::Shared> {
    let (key, _) = api::current(ctx)?;
    api::get(ctx, key)?.ext.find::<OfDialog>()?.0.clone()
}

fn wanted(ctx: &mut Ctx, key: Key) -> Option<account::Shared> {
    let account = api::get(ctx, key)?.ext.find::<OfDialog>()?.0.clone()?;
    let marked = account.borrow().marks.any(What::Cdr);
    if marked { Some(account) } else { None }
}

/// The call was answered.
fn begin(ctx: &mut Ctx, told: &Told) {
    let (Some(reply), Some(_)) = (told.reply, wanted(ctx, told.key)) else { return };
    let begun = Begun {
        method: ctx.state.msg.method_text(),
        from_tag: ctx.state.msg.from_tag().unwrap_or_default(),
        to_tag: reply.to_tag().unwrap_or_default(),
        code: Bytes::from(reply.status().to_string()),
        reason: reply.reason(),
        answered_ms: ctx.core.wall_us / 1000,
        ended_ms: 0,
    };
    // Parts of the reply: copied, so that its buffer does not stay for the call.
    let begun = begun.compact();
    if let Some(dialog) = api::get(ctx, told.key) {
        dialog.ext.set(Record(Some(Rc::new(RefCell::new(begun)))));
    }
    store(ctx, told.key);
}

/// The record becomes a value of the dialog.
fn store(ctx: &mut Ctx, key: Key) {
    let Some(account) = wanted(ctx, key) else { return };
    let record = api::get(ctx, key).and_then(|d| d.ext.find::<Record>().cloned());
    let Some(Record(Some(begun))) = record else { return };
    let text = write(&begun.borrow(), &account.borrow());
    api::set_val(ctx, key, VALUE, Some(Val::Str(text.into())));
}

/// A script changed the account of the current message: a begun record of its call changes with it.
pub fn changed(ctx: &mut Ctx) {
    if let Some((key, _)) = api::current(ctx) {
        store(ctx, key);
    }
}

/// A dialog came back from the database.
fn load(ctx: &mut Ctx, module: &Acc, key: Key) {
    let Some(Val::Str(text)) = api::val(ctx, key, VALUE) else { return };
    let Some((begun, account)) = read(&text, module) else {
        return host::warn!("acc", "the record of a restored call cannot be read: it will not be written");
    };
    if let Some(dialog) = api::get(ctx, key) {
        dialog.ext.set(Record(Some(Rc::new(RefCell::new(begun)))));
        dialog.ext.set(OfDialog(Some(Rc::new(RefCell::new(account)))));
    }
}

/// The call whose record waits for the end of the current script.
#[derive(Clone, Default)]
struct Awaits(Option<Key>);

/// The call has ended. The script of a BYE may still say something for the record.
fn over(ctx: &mut Ctx, module: &Arc<Acc>, key: Key) {
    let is_bye = ctx.state.msg.is_request() && ctx.state.kind == RouteKind::Request;
    if !is_bye || api::current(ctx).is_none_or(|(own, _)| own != key) {
        return end(ctx, module, key);
    }
    let now_ms = ctx.core.wall_us / 1000;
    let record = api::get(ctx, key).and_then(|d| d.ext.find::<Record>()?.0.clone());
    if let Some(record) = record {
        record.borrow_mut().ended_ms = now_ms;
        ctx.state.ext.set(Awaits(Some(key)));
    }
}

fn awaited(ctx: &mut Ctx, key: Key) -> bool {
    let record = api::get(ctx, key).and_then(|d| d.ext.find::<Record>()?.0.clone());
    record.is_some_and(|record| record.borrow().ended_ms != 0)
}

/// A main route has ended.
pub fn script_ended(ctx: &mut Ctx, module: &Arc<Acc>) {
    if let Some(key) = ctx.state.ext.find::<Awaits>().and_then(|awaits| awaits.0) {
        ctx.state.ext.remove::<Awaits>();
        end(ctx, module, key);
    }
}

/// The record of a call is written, once.
fn end(ctx: &mut Ctx, module: &Arc<Acc>, key: Key) {
    let Some(account) = wanted(ctx, key) else { return };
    let Some(dialog) = api::get(ctx, key) else { return };
    let call_id = Bytes::copy_from_slice(&dialog.call_id);
    let Some(begun) = dialog.ext.find::<Record>().and_then(|r| r.0.clone()) else { return };
    dialog.ext.remove::<Record>();
    let begun = begun.borrow().clone();
    let account = account.borrow().clone();
    let ended_ms = if begun.ended_ms == 0 { ctx.core.wall_us / 1000 } else { begun.ended_ms };
    let ms = ended_ms.saturating_sub(begun.answered_ms);
    let call = Call {
        started: begun.answered_ms / 1000,
        duration: ms.div_ceil(1000),
        duration_ms: ms,
        setup: (begun.answered_ms / 1000).saturating_sub(account.created),
        created: account.created,
    };
    let kind = ReportKind::Ended(call);
    let marks = account.marks;
    let table = account.table.clone();
    let ending = Ending { code: begun.code, reason: begun.reason, to_tag: Some(begun.to_tag) };
    let report = Report::of_call(begun.method, begun.from_tag, call_id, ending, call.started, account);
    let table = table.map_or_else(|| module.table.clone(), |t| String::from_utf8_lossy(&t).into_owned());
    for backend in Backend::ALL {
        if marks.has(backend, What::Cdr) {
            report.deliver(ctx, module, backend, &kind, &table);
        }
    }
}

impl Begun {
    fn compact(self) -> Begun {
        let copy = |b: Bytes| Bytes::copy_from_slice(&b);
        Begun {
            method: copy(self.method),
            from_tag: copy(self.from_tag),
            to_tag: copy(self.to_tag),
            code: copy(self.code),
            reason: copy(self.reason),
            answered_ms: self.answered_ms,
            ended_ms: self.ended_ms,
        }
    }
}

/// Parts with their lengths before them, so that any byte may stand in them.
fn write(begun: &Begun, account: &Account) -> Vec<u8> {
    let mut out = Vec::new();
    let mut part = |text: &[u8]| {
        out.extend_from_slice(itoa::Buffer::new().format(text.len()).as_bytes());
        out.push(b':');
        out.extend_from_slice(text);
    };
    let number = |n: u64| itoa::Buffer::new().format(n).to_string();
    for text in [&begun.method, &begun.from_tag, &begun.to_tag, &begun.code, &begun.reason] {
        part(text);
    }
    for n in [begun.answered_ms, account.created, account.marks.bits().into()] {
        part(number(n).as_bytes());
    }
    part(account.table.as_deref().unwrap_or_default());
    part(number(account.extra.len() as u64).as_bytes());
    let sets = std::iter::once(&account.extra).chain(&account.legs);
    for value in sets.flatten() {
        // A value that is not there differs from an empty one.
        match value {
            Some(value) => part(&[b"+", &value[..]].concat()),
            None => part(b"-"),
        }
    }
    out
}

/// What `write` wrote, as far as the tags of the configuration are the same.
fn read(text: &[u8], module: &Acc) -> Option<(Begun, Account)> {
    let mut left = text;
    let mut parts = Vec::new();
    while !left.is_empty() {
        let colon = left.iter().position(|b| *b == b':')?;
        let len: usize = std::str::from_utf8(&left[..colon]).ok()?.parse().ok()?;
        let body = left.get(colon + 1..colon + 1 + len)?;
        parts.push(Bytes::copy_from_slice(body));
        left = &left[colon + 1 + len..];
    }
    let mut parts = parts.into_iter();
    let begun = Begun {
        method: parts.next()?,
        from_tag: parts.next()?,
        to_tag: parts.next()?,
        code: parts.next()?,
        reason: parts.next()?,
        answered_ms: number(parts.next()?)?,
        ended_ms: 0,
    };
    let created = number(parts.next()?)?;
    let marks = Marks::of_bits(number(parts.next()?)? as u16);
    let table = parts.next().filter(|t| !t.is_empty());
    let tags = number(parts.next()?)? as usize;
    let mut values = parts.map(|value| value.strip_prefix(b"+").map(Bytes::copy_from_slice));
    let mut extra: Vec<_> = values.by_ref().take(tags).collect();
    extra.resize(module.extra.tags.len(), None);
    let width = module.legs.tags.len();
    let mut legs = Vec::new();
    let rest: Vec<_> = values.collect();
    if width > 0 {
        legs.extend(rest.chunks_exact(width).map(<[_]>::to_vec));
    }
    Some((begun, Account { marks, table, created, extra, legs }))
}

fn number(text: Bytes) -> Option<u64> {
    std::str::from_utf8(&text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_a_restart() {
        let mut module = Acc::default();
        for text in ["db: a; b", "log: c"] {
            module.extra.add(text).expect(text);
        }
        module.legs.add("db: l; m").expect("legs");
        let value = |text: &str| Some(Bytes::from(text.to_string()));
        let begun = Begun {
            method: "INVITE".into(),
            from_tag: "1:2".into(),
            to_tag: "".into(),
            code: "200".into(),
            reason: "OK then".into(),
            answered_ms: 1_700_000_000_123,
            ended_ms: 0,
        };
        let account = Account {
            marks: Marks::of(Backend::Db, What::Cdr),
            table: value("other"),
            created: 1_700_000_000,
            extra: vec![value("x|y"), None, value("")],
            legs: vec![vec![value("0"), None], vec![value("1"), value("-")]],
        };
        let (back, found) = read(&write(&begun, &account), &module).expect("readable");
        assert_eq!((&back, found.marks, &found.table), (&begun, account.marks, &account.table));
        assert_eq!((found.extra, found.legs, found.created), (account.extra, account.legs, account.created));
        for broken in ["5:INV", "x:1", "6:INVITE"] {
            assert!(read(broken.as_bytes(), &module).is_none(), "{broken}");
        }
    }
}
