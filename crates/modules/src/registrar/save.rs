//! `save()`: what a REGISTER does to the location table.

use super::Registration;
use super::answer::{self, Problem, Shown};
use super::aor::{self, AorError};
use super::flags::{Flags, SaveFlags};
use super::push::Action;
use super::request::{self, Asked, Contacts};
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::table::{Change, Matching, Order, Record, Table, same_uri};
use crate::usrloc::{TableArg, now_s};
use bytes::Bytes;
use host::{Call, Ctx, Head, Outcome, Text};
use script::ast::RouteKind;
use sip::{HeaderName, Message, NameAddr};
use std::cmp::Reverse;
use std::rc::Rc;
use std::sync::Arc;

/// save(domain, [flags], [aor], [ownership_tag]): 1 saved; -2 refused, and answered.
pub fn save(
    call: &mut Call<Registration>,
    table: TableArg,
    flags: Option<Flags<SaveFlags>>,
    aor: Option<Text>,
    tag: Option<Text>,
) -> Outcome {
    let module = call.module.clone();
    let mut flags = flags.map(|f| (*f.0).clone()).unwrap_or_default();
    let (aor, tag) = (aor.map(|a| a.0), tag.map(|t| t.0).unwrap_or_default());
    if call.ctx.state.kind == RouteKind::OnReply {
        flags.no_reply = true;
        return super::reply::save(call.ctx, &module, &table.0, flags, aor, tag);
    }
    let msg = call.ctx.state.msg.clone();
    match prepare(call.ctx, &module, msg, &flags, aor, tag, None) {
        Ok(job) => job.run(call.ctx, &module, &table.0, flags),
        Err(problem) => Outcome::Done(refused(call.ctx, &module, &flags, problem)),
    }
}

/// A registration that passed its checks.
pub struct Job {
    pub msg: Rc<Message>,
    pub key: Bytes,
    what: What,
    rules: Rules,
    shown: Shown,
    push: Action,
}

enum What {
    Query,
    RemoveAll,
    Change(Vec<Asked>),
}

/// How contacts are put into the table.
pub struct Rules {
    pub matching: Matching,
    pub order: Order,
    /// 0: no limit
    pub max: usize,
    pub force: bool,
    pub dup_cseq: bool,
    pub only_request: bool,
    pub now: u32,
}

/// Checks a REGISTER. `forced` replaces its contacts (`save` on a reply).
pub fn prepare(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    msg: Rc<Message>,
    flags: &SaveFlags,
    aor: Option<Bytes>,
    tag: Bytes,
    forced: Option<Vec<NameAddr>>,
) -> Result<Job, Problem> {
    let usrloc = module.usrloc();
    let contacts = match forced {
        Some(list) => Contacts::List(list),
        None => match request::contacts_of(&msg, module)? {
            // As a script left them (`fix_nated_contact`).
            Contacts::List(mut list) => {
                let fixed = host::contacts::addresses(&ctx.state).unwrap_or_default();
                list.iter_mut().zip(fixed).for_each(|(contact, fixed)| contact.uri = fixed.uri);
                Contacts::List(list)
            }
            other => other,
        },
    };
    let address = match aor {
        Some(aor) => aor,
        None => msg.to().ok_or(Problem::ToMissing)?.uri,
    };
    let key = aor::aor(&address, usrloc.use_domain, module).map_err(|e| match e {
        AorError::Parse => Problem::AorParse,
        AorError::TooLong => Problem::AorTooLong,
    })?;
    let mut push = Action::None;
    let mut matching = flags.matching.clone().unwrap_or_else(|| usrloc.matching.clone());
    let what = match contacts {
        Contacts::Query => What::Query,
        Contacts::Star => What::RemoveAll,
        Contacts::List(list) => {
            push = module.push.inspect(&msg, &list, flags)?;
            matching = module.push.matching(&push).unwrap_or(matching);
            What::Change(request::asked_of(ctx, &msg, &list, module, flags, &push, tag)?)
        }
    };
    let now = now_s(ctx);
    if let What::Change(asked) = &what {
        keep_connection(ctx, module, asked);
    }
    let rules = Rules {
        matching,
        order: usrloc.order,
        max: flags.max_contacts.unwrap_or(module.max_contacts),
        force: flags.force,
        dup_cseq: module.allow_dup_cseq.unwrap_or(true),
        only_request: flags.only_request_contacts,
        now,
    };
    let gruu = (module.gruu && request::supports(&msg, b"gruu")).then(|| module.gruu_secret.clone());
    let shown = Shown {
        now,
        received_param: module.received_param.clone(),
        gruu,
        use_domain: usrloc.use_domain,
        shared: ctx.shared().clone(),
        socket: ctx.state.source.socket,
        local: ctx.core.shared.local_address(ctx.state.source.local),
    };
    Ok(Job { msg, key, what, rules, shown, push })
}

/// `tcp_persistent_flag`: the connection stays as long as its contacts.
fn keep_connection(ctx: &Ctx, module: &Registration, asked: &[Asked]) {
    let source = ctx.state.source;
    if ctx.state.flags & module.persistent_flag == 0 || !source.is_reliable() {
        return;
    }
    let seconds = asked.iter().map(|a| a.expires).max().unwrap_or(0);
    if let Some(all) = ctx.core.shared.connections() {
        all.keep(source.connection_id(), u64::from(seconds) * 1000);
    }
}

/// What is told to the client.
struct Told {
    outcome: Result<(), Problem>,
    contacts: Option<Bytes>,
    /// The contact that was saved.
    id: Option<u64>,
}

impl Job {
    /// Changes the table, answers, and returns 1 or -2.
    pub fn run(
        self,
        ctx: &mut Ctx,
        module: &Arc<Registration>,
        table: &Arc<Table>,
        flags: SaveFlags,
    ) -> Outcome {
        let Job { msg, key, what, rules, shown, push } = self;
        let ids = table.clone();
        let aor = key.clone();
        let work = move |record: &mut Record, changes: &mut Vec<Change>| {
            let outcome = match &what {
                What::Query => Ok(()),
                What::RemoveAll => {
                    record.remove(|_| true, changes);
                    Ok(())
                }
                What::Change(asked) => apply(record, changes, asked, &rules, &ids),
            };
            let asked = if let What::Change(asked) = &what { &asked[..] } else { &[] };
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
            Told { outcome, contacts, id: id.map(|at| record.contacts[at].id) }
        };
        let (module, usrloc) = (module.clone(), module.usrloc());
        usrloc.change(ctx, "save", table, key, work, move |ctx, told| {
            let told = match told {
                Ok(told) => told,
                Err(error) => {
                    super::complain("save", &error);
                    Told { outcome: Err(Problem::Database), contacts: None, id: None }
                }
            };
            if !flags.no_reply {
                ctx.state.reply_headers.extend(told.contacts);
            }
            match told.outcome {
                Ok(()) => accepted(ctx, &module, &flags, &msg, &push, told.id),
                Err(problem) => refused(ctx, &module, &flags, problem),
            }
        })
    }
}

/// The reply to a registration that succeeded; 1, or -1 when it could not be sent.
pub fn accepted(
    ctx: &mut Ctx,
    module: &Registration,
    flags: &SaveFlags,
    msg: &Message,
    push: &Action,
    id: Option<u64>,
) -> i32 {
    module.counters.accepted.up();
    if flags.no_reply {
        return 1;
    }
    let headers = &mut ctx.state.reply_headers;
    headers.extend(request::path_header(msg, flags));
    headers.extend(module.push.headers(push, id));
    if is_outbound(msg) {
        headers.push(Bytes::from_static(b"Require: outbound\r\n"));
    }
    if answer::accept(ctx) > 0 { 1 } else { -1 }
}

/// The reply to a registration that failed; -2.
pub fn refused(ctx: &mut Ctx, module: &Registration, flags: &SaveFlags, problem: Problem) -> i32 {
    module.counters.rejected.up();
    host::complain!(ctx, "registrar", "a registration is refused: {}", problem.text());
    if !flags.no_reply {
        if problem == Problem::NoPathSupport {
            let path = [b"Path: ", &request::path_text(&ctx.state.msg)[..], b"\r\n"].concat();
            ctx.state.reply_headers.push(path.into());
        }
        answer::refuse(ctx, problem, module);
    }
    -2
}

/// The registration used a flow of RFC 5626: the client asked for it, and its first hop knows how
/// (§6: the client itself, or a proxy that put `ob` into its Path).
fn is_outbound(msg: &Message) -> bool {
    let named = || msg.addresses(HeaderName::Contact).unwrap_or_default();
    let flow = |c: &NameAddr| c.params.has(b"reg-id") && c.params.has(b"+sip.instance");
    if !request::supports(msg, b"outbound") || !named().iter().any(flow) {
        return false;
    }
    let path = NameAddr::parse_list(&request::path_text(msg)).unwrap_or_default();
    match path.last() {
        Some(edge) => sip::Uri::parse(&edge.uri).is_ok_and(|u| u.params.has(b"ob")),
        None => msg.vias().len() == 1,
    }
}

/// Checks everything first, then changes the record: a refused REGISTER changes nothing.
pub fn apply(
    record: &mut Record,
    changes: &mut Vec<Change>,
    asked: &[Asked],
    rules: &Rules,
    table: &Table,
) -> Result<(), Problem> {
    let now = rules.now;
    record.remove(|c| c.expired(now), changes);
    let find = |record: &Record, a: &Asked| record.find(a.binding.wanted(), &rules.matching, now);
    let same_call = |c: &Contact, a: &Asked| c.text(Field::CallId) == &a.binding.call_id[..];
    let mut new = 0;
    let mut gone = 0;
    for a in asked {
        match find(record, a) {
            Some(at) => {
                let stored = &record.contacts[at];
                if same_call(stored, a) && a.binding.cseq < stored.cseq {
                    return Err(Problem::CSeq);
                }
                gone += usize::from(a.expires == 0);
            }
            None if a.expires > 0 => {
                sip::Uri::parse(&a.binding.uri).map_err(|_| Problem::Insert)?;
                new += 1;
            }
            None => {}
        }
    }
    let after = record.contacts.len() + new - gone;
    let excess = if rules.max > 0 { after.saturating_sub(rules.max) } else { 0 };
    if excess > 0 && new > 0 {
        if !rules.force || new > rules.max {
            return Err(Problem::TooMany);
        }
        make_room(record, changes, asked, excess, rules);
    }
    for a in asked {
        match find(record, a) {
            Some(at) if a.expires == 0 => changes.push(Change::Deleted(record.contacts.remove(at))),
            // A retransmission changes nothing.
            Some(at)
                if !rules.dup_cseq
                    && same_call(&record.contacts[at], a)
                    && record.contacts[at].cseq == a.binding.cseq => {}
            Some(at) => {
                // A URI that means the same leaves the stored one as it is written.
                let stored = record.contacts[at].uri();
                let mut binding = a.binding.clone();
                if same_uri(&record.contacts[at], &binding.uri) {
                    binding.uri = Bytes::copy_from_slice(stored);
                }
                record.update(at, &binding, now, rules.order, changes);
            }
            None if a.expires > 0 => record.add(table.next_id(), &a.binding, now, rules.order, changes),
            None => {}
        }
    }
    Ok(())
}

/// Removes the contacts that registered longest ago and are not in this request.
fn make_room(record: &mut Record, changes: &mut Vec<Change>, asked: &[Asked], excess: usize, rules: &Rules) {
    let found = asked.iter().filter_map(|a| record.find(a.binding.wanted(), &rules.matching, rules.now));
    let kept: Vec<u64> = found.map(|at| record.contacts[at].id).collect();
    for _ in 0..excess {
        let candidates = record.contacts.iter().enumerate().filter(|(_, c)| !kept.contains(&c.id));
        // Of those of one second the one at the end.
        let Some((at, _)) = candidates.min_by_key(|(at, c)| (c.modified, Reverse(*at))) else { return };
        changes.push(Change::Deleted(record.contacts.remove(at)));
    }
}

/// add_sock_hdr(name): adds a header with the socket the request came in by.
pub fn add_sock_hdr(call: &mut Call<Registration>, name: Head) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(socket) = crate::usrloc::sql::socket_text(ctx.shared(), ctx.state.source.socket) else {
        return -1;
    };
    ctx.state.edits.insert(sip::Anchor::End, format!("{}: {socket}\r\n", String::from_utf8_lossy(&name.0)));
    1
}
