//! One dialog as a row of the table, both ways.

use super::{Column, Store, text};
use crate::dialog::api;
use crate::dialog::cell::{Data, Leg, Membership, Text, Val};
use crate::dialog::moment::Moment;
use crate::dialog::profile::{Profiles, Sharing};
use crate::dialog::{Did, Dlg, Flags, State};
use bytes::Bytes;
use host::db::{DbValue, Query, Row};
use host::{Ctx, Shared};
use std::sync::Arc;

/// The bits that the reference gives to flags in the column.
const FLAG_BITS: [(u32, Flags); 9] = [
    (2, Flags::SAID_BYE),
    (3, Flags::BYE_ON_TIMEOUT),
    (5, Flags::OPTIONS_CALLER),
    (6, Flags::OPTIONS_CALLEE),
    (11, Flags::REINVITE_CALLER),
    (12, Flags::REINVITE_CALLEE),
    (15, Flags::END_ON_RACE),
    (16, Flags::CANCELLED),
    (20, Flags::AUTO_PRACK),
];

/// The same for the column of modules: topology hiding.
const HIDING_BITS: [(u32, Flags); 6] = [
    (1, Flags::HIDDEN),
    (2, Flags::KEEP_USER),
    (3, Flags::MASK_CALL_ID),
    (4, Flags::DID_IN_USER),
    (5, Flags::KEEP_TO_CALLER),
    (6, Flags::KEEP_TO_CALLEE),
];

fn bits_of(flags: Flags, list: &[(u32, Flags)]) -> i64 {
    list.iter().filter(|(_, flag)| flags.has(*flag)).map(|(bit, _)| 1 << bit).sum()
}

fn set_bits(flags: &mut Flags, bits: i64, list: &[(u32, Flags)]) {
    list.iter().filter(|(bit, _)| bits & (1 << bit) != 0).for_each(|(_, flag)| flags.set(*flag));
}

/// What rows need of the server.
pub struct Rows {
    pub module: Arc<Dlg>,
    shared: Arc<Shared>,
    moment: Moment,
}

impl Rows {
    pub fn new(ctx: &Ctx, module: &Arc<Dlg>) -> Rows {
        Rows { module: module.clone(), shared: ctx.shared().clone(), moment: Moment::of(ctx) }
    }

    fn store(&self) -> &Store {
        &self.module.store
    }

    /// Writes a dialog over what there is of it. `values`: with what scripts keep with it.
    pub fn write(&self, d: &Data, values: bool) -> Query {
        let store = self.store();
        let mut query = Query::upsert(store.table.clone()).eq(store.id.clone(), d.did.number());
        for (name, value) in store.columns.iter().zip(self.cells(d, values)) {
            query = query.set(name.clone(), value);
        }
        query
    }

    pub fn delete(&self, did: Did) -> Query {
        Query::delete(self.store().table.clone()).eq(self.store().id.clone(), did.number())
    }

    /// Values of the columns, in their order.
    pub fn cells(&self, d: &Data, values: bool) -> Vec<DbValue> {
        let none = Leg::default();
        let callee = d.callee().unwrap_or(&none);
        let ends = d.ends.map_or(0, |at| self.moment.unix_of(at));
        let (vars, profiles, flags) = match values {
            true => (self.vars(d), self.profiles(d), self.module.flag_text(d.user_flags).into_bytes()),
            false => Default::default(),
        };
        vec![
            text_of(&d.call_id),
            text_of(&d.from_uri),
            text_of(&d.caller.tag),
            text_of(&d.to_uri),
            text_of(&callee.tag),
            optional(d.shown_from.as_deref()),
            optional(d.shown_to.as_deref()),
            text_of(d.caller.cseq.to_string().as_bytes()),
            text_of(callee.cseq.to_string().as_bytes()),
            DbValue::Int(d.caller.made_cseq.into()),
            DbValue::Int(callee.made_cseq.into()),
            optional(Some(&d.caller.routes)),
            optional(Some(&callee.routes)),
            optional(Some(&d.caller.contact)),
            optional(Some(&callee.contact)),
            text_of(self.shared.socket_text(d.caller.socket).as_bytes()),
            text_of(self.shared.socket_text(callee.socket).as_bytes()),
            DbValue::Int(d.state as i64),
            DbValue::Int(d.started.into()),
            DbValue::Int(ends as i64),
            optional(Some(&vars)),
            optional(Some(&profiles)),
            optional(Some(&flags)),
            DbValue::Int(bits_of(d.flags, &HIDING_BITS)),
            DbValue::Int(bits_of(d.flags, &FLAG_BITS)),
            optional(d.routes.answer.as_deref()),
            optional(d.routes.timeout.as_deref()),
            optional(d.routes.hangup.as_deref()),
        ]
    }

    fn vars(&self, d: &Data) -> Vec<u8> {
        let mut out = Vec::new();
        d.vals.iter().for_each(|(name, value)| text::push(&mut out, name, value));
        out
    }

    fn profiles(&self, d: &Data) -> Vec<u8> {
        let mut out = Vec::new();
        for membership in &d.memberships {
            let Some(profile) = self.module.profiles.at(membership.profile) else { continue };
            let mark = match profile.sharing {
                Sharing::Own => "",
                Sharing::Store => "/s",
                Sharing::Cluster => "/b",
            };
            let name = format!("{}{mark}", profile.name);
            text::push(&mut out, name.as_bytes(), &Val::Str(membership.value.clone()));
        }
        out
    }

    /// The same of cells in the order in which rows are read, the identity first.
    pub fn read_cells(&self, cells: Vec<DbValue>) -> Option<Data> {
        let names = std::iter::once(&self.store().id).chain(&self.store().columns).cloned().collect();
        host::db::Rows::new(names, cells).first().and_then(|row| self.read(&row))
    }

    /// A dialog of a row; `None`: the row has no living one.
    pub fn read(&self, row: &Row<'_>) -> Option<Data> {
        let store = self.store();
        let at = |column: Column| row.at(1 + column as usize);
        let text = |column: Column| at(column).text().unwrap_or_default();
        let boxed = |column: Column| -> Text { text(column)[..].into() };
        let some = |column: Column| Some(boxed(column)).filter(|t| !t.is_empty());
        let number = |column: Column| u32::try_from(at(column).int().unwrap_or(0)).unwrap_or(0);
        let digits = |column: Column| at(column).string().trim().parse().unwrap_or(0);
        let state = State::of_number(at(Column::State).int()?).filter(|s| s.is_answered())?;
        let did = Did::of_number(row.int(0)?);
        let uri =
            |column: Column| sip::NameAddr::parse(&Bytes::from([&b"<"[..], &text(column), b">"].concat()));
        let (from, to) = (uri(Column::FromUri)?, uri(Column::ToUri)?);
        let mut d = Data::new(did, &text(Column::CallId), &from, &to, &text(Column::FromTag));
        d.state = state;
        d.started = number(Column::Start);
        (d.shown_from, d.shown_to) = (some(Column::MangledFrom), some(Column::MangledTo));
        d.caller = Leg {
            tag: boxed(Column::FromTag),
            contact: boxed(Column::CallerContact),
            routes: boxed(Column::CallerRoutes),
            socket: self.shared.socket_named(&at(Column::CallerSock).string()).unwrap_or(0),
            cseq: digits(Column::CallerCseq),
            made_cseq: number(Column::CallerPing),
            ..Leg::default()
        };
        d.callees = vec![Leg {
            tag: boxed(Column::ToTag),
            contact: boxed(Column::CalleeContact),
            routes: boxed(Column::CalleeRoutes),
            socket: self.shared.socket_named(&at(Column::CalleeSock).string()).unwrap_or(0),
            cseq: digits(Column::CalleeCseq),
            made_cseq: number(Column::CalleePing),
            ..Leg::default()
        }];
        d.answered = 1;
        set_bits(&mut d.flags, at(Column::Flags).int().unwrap_or(0), &FLAG_BITS);
        set_bits(&mut d.flags, at(Column::ModuleFlags).int().unwrap_or(0), &HIDING_BITS);
        d.vals = text::parse(&text(Column::Vars));
        d.memberships = memberships(&self.module.profiles, &text(Column::Profiles));
        for name in text(Column::ScriptFlags).split(|b| b.is_ascii_whitespace()).filter(|n| !n.is_empty()) {
            if let Some(bit) = self.module.flag_bit(name) {
                d.user_flags |= 1 << bit;
            }
        }
        d.routes.answer = some(Column::OnAnswer);
        d.routes.timeout = some(Column::OnTimeout);
        d.routes.hangup = some(Column::OnHangup);
        let ends = self.moment.instant_of(number(Column::Timeout).into());
        d.lifetime = (ends.0.saturating_sub(self.moment.now.0) / 1000) as u32;
        d.ends = Some(ends);
        if d.flags.options() {
            d.options.interval = self.module.options_interval;
        }
        if d.flags.reinvites() {
            d.reinvites.interval = self.module.reinvite_interval;
        }
        d.stored = store.mode != super::Mode::Shutdown;
        d.settle();
        Some(d)
    }
}

fn text_of(text: &[u8]) -> DbValue {
    DbValue::Text(Bytes::copy_from_slice(text))
}

/// Nothing is NULL.
fn optional(text: Option<&[u8]>) -> DbValue {
    text.filter(|t| !t.is_empty()).map_or(DbValue::Null, text_of)
}

fn memberships(profiles: &Profiles, list: &[u8]) -> Vec<Membership> {
    let mut found = Vec::new();
    for (name, value) in text::parse(list) {
        let plain = name.strip_suffix(b"/s").or(name.strip_suffix(b"/b")).unwrap_or(&name);
        // Whoever counts load has not read its table yet.
        if plain.starts_with(api::LOAD_PREFIX.as_bytes()) {
            let sharing = if name.ends_with(b"/s") { Sharing::Store } else { Sharing::Own };
            profiles.find_or_add(&String::from_utf8_lossy(plain), sharing);
        }
        let Some((profile, kind)) = profiles.find(plain) else {
            host::warn!(
                "dialog",
                "a stored dialog is in profile {}, which is no more",
                String::from_utf8_lossy(plain)
            );
            continue;
        };
        let value = match value {
            Val::Str(text) if kind.has_value => text,
            _ => Box::default(),
        };
        found.push(Membership { profile, value });
    }
    found
}
