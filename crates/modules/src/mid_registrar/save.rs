//! `mid_registrar_save()`: is this registration news to the main registrar?

use super::forward::{self, Passing};
use super::{MidRegistrar, Mode};
use crate::registrar::answer::{Problem, Shown};
use crate::registrar::aor::{self, AorError};
use crate::registrar::flags::{Flags, SaveFlags};
use crate::registrar::request::{self, Asked, Contacts};
use crate::registrar::save;
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::table::{Change, Record, Table};
use crate::usrloc::{TableArg, now_s};
use bytes::Bytes;
use host::{Call, Ctx, Int, Outcome, Text};
use sip::{HeaderName, Method};
use std::sync::Arc;

/// mid_registrar_save(domain, [flags], [aor], [outgoing_expires], [ownership_tag]): 1 send it on to the
/// main registrar, 2 answered here, -1 error (answered).
pub fn save(
    call: &mut Call<MidRegistrar>,
    table: TableArg,
    flags: Option<Flags<SaveFlags>>,
    aor: Option<Text>,
    outgoing: Option<Int>,
    tag: Option<Text>,
) -> Outcome {
    let module = call.module.clone();
    let flags = flags.map(|f| (*f.0).clone()).unwrap_or_default();
    let outgoing = outgoing.map_or(module.outgoing_expires, |n| n.0.max(0) as u32);
    let tag = tag.map(|t| t.0).unwrap_or_default();
    match decide(call.ctx, &module, &table.0, &flags, aor.map(|a| a.0), outgoing, tag) {
        Ok(outcome) => outcome,
        Err(problem) => {
            save::refused(call.ctx, &module.reg, &flags, problem);
            Outcome::Done(-1)
        }
    }
}

fn decide(
    ctx: &mut Ctx,
    module: &Arc<MidRegistrar>,
    table: &Arc<Table>,
    flags: &SaveFlags,
    aor: Option<Bytes>,
    outgoing: u32,
    tag: Bytes,
) -> Result<Outcome, Problem> {
    let msg = ctx.state.msg.clone();
    if msg.method() != Method::Register {
        host::error!("mid_registrar", "mid_registrar_save() is for REGISTER only");
        return Ok(Outcome::Done(-1));
    }
    let reg = &module.reg;
    let usrloc = reg.usrloc();
    let contacts = request::contacts_of(&msg, reg)?;
    let address = aor.map_or_else(|| msg.to().map(|to| to.uri), Some).ok_or(Problem::ToMissing)?;
    let key = aor::aor(&address, usrloc.use_domain, reg).map_err(|e| match e {
        AorError::Parse => Problem::AorParse,
        AorError::TooLong => Problem::AorTooLong,
    })?;
    let mut passing = Passing {
        table: table.clone(),
        key: key.clone(),
        flags: flags.clone(),
        matching: flags.matching.clone().unwrap_or_else(|| usrloc.matching.clone()),
        outgoing,
        ..Passing::new(table)
    };
    let list = match contacts {
        Contacts::Star => {
            passing.star = true;
            ctx.state.ext.set(Some(passing));
            return Ok(Outcome::Done(1));
        }
        // The main registrar need not be asked what is registered here.
        Contacts::Query if module.mode == Mode::Mirror => {
            ctx.state.ext.set(Some(passing));
            return Ok(Outcome::Done(1));
        }
        Contacts::Query => return Ok(absorb(ctx, module, passing, Vec::new())),
        Contacts::List(list) => list,
    };
    passing.push = reg.push.inspect(&msg, &list, flags)?;
    if let Some(matching) = reg.push.matching(&passing.push) {
        passing.matching = matching;
    }
    passing.asked = request::asked_of(ctx, &msg, &list, reg, flags, &passing.push, tag)?;
    let now = now_s(ctx);
    // A contact of here is all that the main registrar sees: the way behind it is ours.
    for path in msg.headers_of(HeaderName::Path) {
        ctx.state.edits.delete(path.whole());
    }
    let known = |record: &Record| judge(record, &passing, module.mode, now);
    let verdict = match module.mode {
        Mode::Mirror => Verdict::Forward,
        _ => table.read(&key, known).unwrap_or(Verdict::Forward),
    };
    match verdict {
        Verdict::Forward => {
            forward::edit(ctx, module, &mut passing);
            ctx.state.ext.set(Some(passing));
            Ok(Outcome::Done(1))
        }
        Verdict::Old => Err(Problem::CSeq),
        Verdict::Absorb => {
            let asked = std::mem::take(&mut passing.asked);
            Ok(absorb(ctx, module, passing, asked))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    Forward,
    Absorb,
    /// CSeq went backwards.
    Old,
}

/// Does the main registrar have to know?
fn judge(record: &Record, passing: &Passing, mode: Mode, now: u32) -> Verdict {
    let live = record.contacts.iter().filter(|c| !c.expired(now)).count();
    // The main registrar remembers an address for as long as it was told last.
    let address_out = record.contacts.iter().map(|c| c.expires_out).max().unwrap_or(0);
    let mut left = live;
    for asked in &passing.asked {
        let found =
            record.find(asked.binding.wanted(), &passing.matching, now).map(|at| &record.contacts[at]);
        if let Some(stored) = found
            && stored.text(Field::CallId) == &asked.binding.call_id[..]
            && asked.binding.cseq < stored.cseq
        {
            return Verdict::Old;
        }
        let out = match mode {
            Mode::ByAor => address_out,
            _ => found.map_or(0, |c| c.expires_out),
        };
        match (mode, found, asked.expires) {
            (Mode::ByAor, Some(_), 0) if left == 1 => return Verdict::Forward,
            (Mode::ByAor, Some(_), 0) => left -= 1,
            (Mode::ByAor, None, 0) => {}
            (_, _, 0) => return Verdict::Forward,
            // It would forget the contact before its time here is over.
            (_, _, expires) if out <= now.saturating_add(expires) => return Verdict::Forward,
            _ => {}
        }
    }
    if live == 0 && mode == Mode::ByAor { Verdict::Forward } else { Verdict::Absorb }
}

/// Changes what is known here, and answers.
fn absorb(ctx: &mut Ctx, module: &Arc<MidRegistrar>, passing: Passing, asked: Vec<Asked>) -> Outcome {
    let reg = module.reg.clone();
    let msg = ctx.state.msg.clone();
    let Passing { table, key, flags, matching, push, .. } = passing;
    let rules = save::Rules {
        matching,
        order: reg.usrloc().order,
        max: flags.max_contacts.unwrap_or(reg.max_contacts),
        force: flags.force,
        dup_cseq: reg.allow_dup_cseq.unwrap_or(true),
        only_request: flags.only_request_contacts,
        now: now_s(ctx),
    };
    let shown = shown(ctx, module, &msg);
    let (ids, aor) = (table.clone(), key.clone());
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        // What the main registrar was told stays true.
        let out = record.contacts.iter().max_by_key(|c| c.expires_out);
        let out = out.map(|c| (c.expires_out, Bytes::copy_from_slice(c.text(Field::Keys))));
        let mut asked = asked;
        for a in &mut asked {
            let found =
                record.find(a.binding.wanted(), &rules.matching, rules.now).map(|at| &record.contacts[at]);
            let own = found.map(|c| (c.expires_out, Bytes::copy_from_slice(c.text(Field::Keys))));
            (a.binding.expires_out, a.binding.keys) = own.or_else(|| out.clone()).unwrap_or_default();
        }
        let outcome = save::apply(record, changes, &asked, &rules, &ids);
        let named = |c: &&Contact| {
            let meant = |a: &Asked| record.find(a.binding.wanted(), &rules.matching, rules.now);
            asked.iter().filter_map(meant).any(|at| record.contacts[at].id == c.id)
        };
        let contacts = if rules.only_request {
            shown.header(&aor, record.contacts.iter().filter(named))
        } else {
            shown.header(&aor, &record.contacts)
        };
        let id = asked.first().and_then(|a| record.find(a.binding.wanted(), &rules.matching, rules.now));
        (outcome, contacts, id.map(|at| record.contacts[at].id))
    };
    let usrloc = reg.usrloc();
    usrloc.change(ctx, "mid_registrar_save", &table, key, work, move |ctx, done| {
        let (outcome, contacts, id) = done.unwrap_or((Err(Problem::Database), None, None));
        if !flags.no_reply {
            ctx.state.reply_headers.extend(contacts);
        }
        match outcome {
            Ok(()) => {
                save::accepted(ctx, &reg, &flags, &msg, &push, id);
                2
            }
            Err(problem) => {
                save::refused(ctx, &reg, &flags, problem);
                -1
            }
        }
    })
}

pub fn shown(ctx: &Ctx, module: &MidRegistrar, msg: &sip::Message) -> Shown {
    let reg = &module.reg;
    Shown {
        now: now_s(ctx),
        received_param: reg.received_param.clone(),
        gruu: (reg.gruu && request::supports(msg, b"gruu")).then(|| reg.gruu_secret.clone()),
        use_domain: reg.usrloc().use_domain,
        shared: ctx.shared().clone(),
        socket: ctx.state.source.socket,
        local: ctx.core.shared.local_address(ctx.state.source.local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usrloc::contact::Binding;
    use crate::usrloc::table::Order;

    fn binding(uri: &'static str, out: u32) -> Binding {
        Binding {
            uri: uri.into(),
            call_id: "c".into(),
            cseq: 1,
            expires: 200,
            expires_out: out,
            ..Binding::default()
        }
    }

    #[test]
    fn what_the_main_registrar_must_know() {
        // Two contacts at second 100; the main registrar was told of them until 500 and 300.
        let mut record = Record::default();
        for (id, b) in [(1, binding("sip:a@1", 500)), (2, binding("sip:b@2", 300))] {
            record.insert(Contact::new(id, &b, 100), Order::Q);
        }
        let table = Arc::new(Table::new("location"));
        for (mode, uri, expires, expected) in [
            (Mode::ByContact, "sip:a@1", 60, Verdict::Absorb),
            (Mode::ByContact, "sip:b@2", 60, Verdict::Absorb),
            (Mode::ByContact, "sip:b@2", 300, Verdict::Forward),
            (Mode::ByContact, "sip:new@3", 60, Verdict::Forward),
            (Mode::ByContact, "sip:a@1", 0, Verdict::Forward),
            (Mode::ByAor, "sip:new@3", 60, Verdict::Absorb),
            (Mode::ByAor, "sip:new@3", 600, Verdict::Forward),
            (Mode::ByAor, "sip:a@1", 0, Verdict::Absorb),
        ] {
            let b = Binding { cseq: 2, ..binding(uri, 0) };
            let passing = Passing { asked: vec![Asked { binding: b, expires }], ..Passing::new(&table) };
            assert_eq!(judge(&record, &passing, mode, 100), expected, "{mode:?} {uri} {expires}");
        }
        record.contacts.truncate(1);
        let b = Binding { cseq: 2, ..binding("sip:a@1", 0) };
        let passing = Passing { asked: vec![Asked { binding: b, expires: 0 }], ..Passing::new(&table) };
        assert_eq!(judge(&record, &passing, Mode::ByAor, 100), Verdict::Forward, "the last one leaves");
    }
}
