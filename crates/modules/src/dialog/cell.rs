//! One dialog: who talks, by which ways, in what state, and what scripts and modules keep with it.

use super::did::Did;
use super::flags::Flags;
use super::state::State;
use bytes::Bytes;
use host::Value;
use host::ctx::Ext;
use sip::{HeaderName, Message, NameAddr};
use std::ops::{Deref, DerefMut};
use transaction::{Instant, TxnId};

/// A text that is kept as long as the dialog: copied, so that no message's buffer stays for it.
pub type Text = Box<[u8]>;

/// A value of a script (`$dlg_val`).
#[derive(Clone, PartialEq, Debug)]
pub enum Val {
    Int(i64),
    Str(Text),
}

impl Val {
    /// `None`: NULL.
    pub fn of(value: &Value) -> Option<Val> {
        match value.clone().plain() {
            Value::Int(n) => Some(Val::Int(n)),
            other => other.text().map(|t| Val::Str(t[..].into())),
        }
    }

    pub fn value(&self) -> Value {
        match self {
            Val::Int(n) => Value::Int(*n),
            Val::Str(text) => Value::Str(Bytes::copy_from_slice(text)),
        }
    }

    /// Compares as scripts do: a number with a number, a text with a text.
    pub fn equals(&self, value: &Value) -> bool {
        match self {
            Val::Int(n) => value.int() == Some(*n),
            Val::Str(text) => value.text().is_some_and(|t| t[..] == text[..]),
        }
    }
}

/// One end of the dialog as the server sees it: what is sent *to* it uses its contact and route set.
#[derive(Clone, Default, Debug)]
pub struct Leg {
    pub tag: Text,
    /// URI of its Contact.
    pub contact: Text,
    /// Route set towards it: `<sip:a;lr>,<sip:b;lr>`.
    pub routes: Text,
    /// Index of the socket that it is reached by.
    pub socket: u16,
    /// CSeq of the last request that was sent on to it, as it came.
    pub cseq: u32,
    /// The one before, which a new request must exceed.
    pub previous_cseq: Option<u32>,
    /// CSeq of the last INVITE or UPDATE that it sent.
    pub invite_cseq: u32,
    /// CSeq that the server made itself towards it; 0: none yet.
    pub made_cseq: u32,
    /// The last body that it sent.
    pub body_in: Option<Text>,
    pub changed: Rarely<Changed>,
}

/// What a leg was sent that the server had changed: few have any of it.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Changed {
    /// The last INVITE whose number was changed on its way to it: the number it came with, the one it left with.
    pub invite_shift: Option<(u32, u32)>,
    /// The last body that was sent to it, when that is not what the other end sent.
    pub body_out: Option<Text>,
    /// The Contact line that it was shown.
    pub shown_contact: Option<Text>,
}

impl Constant for Changed {
    const NONE: &Changed = &Changed { invite_shift: None, body_out: None, shown_contact: None };
}

impl<T: Constant + PartialEq> Rarely<T> {
    /// Gives the memory back when there is nothing in it.
    pub fn settle(&mut self) {
        if **self == *T::NONE {
            self.0 = None;
        }
    }

    /// It has memory of its own.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// What few dialogs have, in memory of its own: without it, reading gives the constant. Writing makes it.
#[derive(Clone, Debug)]
pub struct Rarely<T>(Option<Box<T>>);

/// What there is where nobody has written.
pub trait Constant: Default + 'static {
    const NONE: &Self;
}

impl<T> Default for Rarely<T> {
    fn default() -> Rarely<T> {
        Rarely(None)
    }
}

impl<T: Constant> Deref for Rarely<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::NONE)
    }
}

impl<T: Constant> DerefMut for Rarely<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl Leg {
    /// The CSeq of the next request that the server makes towards it.
    pub fn next_cseq(&mut self) -> u32 {
        self.made_cseq = if self.made_cseq == 0 { self.cseq } else { self.made_cseq }.wrapping_add(1);
        self.made_cseq
    }

    /// The URIs of its route set.
    pub fn route_uris(&self) -> Vec<Bytes> {
        let text = Bytes::copy_from_slice(&self.routes);
        NameAddr::parse_list(&text).unwrap_or_default().into_iter().map(|addr| addr.uri).collect()
    }

    /// What it was sent last, if that was changed on its way.
    pub fn note_sent(&mut self, body: Option<Text>) {
        if self.changed.body_out != body {
            self.changed.body_out = body;
        }
    }

    /// What was sent to it last.
    pub fn last_sent(&self) -> Option<&Text> {
        self.changed.body_out.as_ref()
    }
}

/// Which end: 0 is the caller, the others are callees in the order they rang.
pub type LegNo = u8;
pub const CALLER: LegNo = 0;

/// Callees of one call; a further one takes the place of the last.
pub const MAX_CALLEES: usize = 32;

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the caller.
    Downstream,
    Upstream,
}

impl Direction {
    pub fn towards(leg: LegNo) -> Direction {
        if leg == CALLER { Direction::Upstream } else { Direction::Downstream }
    }
    pub fn word(self) -> &'static str {
        match self {
            Direction::Downstream => "downstream",
            Direction::Upstream => "upstream",
        }
    }
}

/// Routes of the script that wait for a moment of the call.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Routes {
    pub answer: Option<Text>,
    pub timeout: Option<Text>,
    pub hangup: Option<Text>,
}

/// A dialog belongs to a profile, once for each entry.
#[derive(Clone, PartialEq, Debug)]
pub struct Membership {
    /// Index into the profiles of the module.
    pub profile: u16,
    /// Empty for a profile without values.
    pub value: Text,
}

/// Periodic requests that keep an end under watch.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Ping {
    /// Seconds; 0: none.
    pub interval: u32,
    /// When the next one is due.
    pub next: Option<Instant>,
    /// How the caller and the callee answer.
    pub answering: [super::ping::Answering; 2],
}

/// A dialog on the worker that owns its Call-ID.
pub struct Dialog {
    pub data: Data,
    /// What modules keep with it; not written to the database, not seen by other workers.
    pub ext: Ext,
}

impl Deref for Dialog {
    type Target = Data;
    fn deref(&self) -> &Data {
        &self.data
    }
}

impl DerefMut for Dialog {
    fn deref_mut(&mut self) -> &mut Data {
        &mut self.data
    }
}

/// What a dialog is, without what only its worker can hold.
#[derive(Clone, Debug)]
pub struct Data {
    pub did: Did,
    pub call_id: Text,
    pub from_uri: Text,
    pub to_uri: Text,
    pub state: State,
    pub flags: Flags,
    /// Named flags of the script, a bit for each of the module's names.
    pub user_flags: u64,
    pub caller: Leg,
    pub callees: Vec<Leg>,
    /// The callee that answered, from 1; 0: none.
    pub answered: LegNo,
    /// Seconds that it may last once answered.
    pub lifetime: u32,
    /// Unix seconds of the answer; 0: none.
    pub started: u32,
    /// When its lifetime is over.
    pub ends: Option<Instant>,
    /// When it leaves memory after its end.
    pub forgotten: Option<Instant>,
    pub extras: Rarely<Extras>,
    /// The INVITE's transaction while it lasts.
    pub txn: Option<TxnId>,
    /// It has changed and waits to be written to the database.
    pub unsaved: bool,
    /// There is a row of it in the database.
    pub stored: bool,
    /// It has changed and waits to be told to other nodes.
    pub unshared: bool,
    /// It is in the store of other nodes.
    pub shared: bool,
}

/// What only some dialogs have: pings, values, profiles, routes of the script. Reached as if it stood in [`Data`].
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Extras {
    /// From and To as the callee was shown them, when they were replaced.
    pub shown_from: Option<Text>,
    pub shown_to: Option<Text>,
    /// Seconds that it stays after its end; `None`: as the module says.
    pub delay: Option<u32>,
    pub options: Ping,
    pub reinvites: Ping,
    pub vals: Vec<(Text, Val)>,
    pub memberships: Vec<Membership>,
    pub routes: Routes,
    pub end_reason: Option<Text>,
    /// The sharing tag that says which node acts for it.
    pub tag: Option<Text>,
}

const NO_PING: Ping = Ping { interval: 0, next: None, answering: [super::ping::Answering::Idle; 2] };

impl Constant for Extras {
    const NONE: &Extras = &Extras {
        shown_from: None,
        shown_to: None,
        delay: None,
        options: NO_PING,
        reinvites: NO_PING,
        vals: Vec::new(),
        memberships: Vec::new(),
        routes: Routes { answer: None, timeout: None, hangup: None },
        end_reason: None,
        tag: None,
    };
}

impl Deref for Data {
    type Target = Extras;
    fn deref(&self) -> &Extras {
        &self.extras
    }
}

impl DerefMut for Data {
    fn deref_mut(&mut self) -> &mut Extras {
        &mut self.extras
    }
}

impl From<Data> for Dialog {
    fn from(data: Data) -> Dialog {
        Dialog { data, ext: Ext::default() }
    }
}

impl Data {
    pub fn new(did: Did, call_id: &[u8], from: &NameAddr, to: &NameAddr, tag: &[u8]) -> Data {
        Data {
            did,
            call_id: call_id.into(),
            from_uri: from.uri[..].into(),
            to_uri: to.uri[..].into(),
            state: State::Unconfirmed,
            flags: Flags::default(),
            user_flags: 0,
            caller: Leg { tag: tag.into(), ..Leg::default() },
            callees: Vec::new(),
            answered: 0,
            lifetime: 0,
            started: 0,
            ends: None,
            forgotten: None,
            extras: Rarely::default(),
            txn: None,
            unsaved: false,
            stored: false,
            unshared: false,
            shared: false,
        }
    }

    /// Gives back what writing made and nobody needs.
    pub fn settle(&mut self) {
        self.extras.settle();
        self.caller.changed.settle();
        self.callees.iter_mut().for_each(|leg| leg.changed.settle());
    }

    pub fn leg(&self, no: LegNo) -> Option<&Leg> {
        match no {
            CALLER => Some(&self.caller),
            no => self.callees.get(usize::from(no) - 1),
        }
    }

    pub fn leg_mut(&mut self, no: LegNo) -> Option<&mut Leg> {
        match no {
            CALLER => Some(&mut self.caller),
            no => self.callees.get_mut(usize::from(no) - 1),
        }
    }

    /// The callee that answered, else the first.
    pub fn callee_no(&self) -> LegNo {
        self.answered.max(1)
    }

    pub fn callee(&self) -> Option<&Leg> {
        self.leg(self.callee_no())
    }

    /// The end that a message towards `leg` came from.
    pub fn other(&self, leg: LegNo) -> LegNo {
        if leg == CALLER { self.callee_no() } else { CALLER }
    }

    /// The end that a request with these tags is for; `None`: they are not of this dialog.
    /// Both tags must fit; a callee that has no tag yet takes any (RFC 3261 §12.2.2).
    pub fn towards(&self, from_tag: &[u8], to_tag: &[u8]) -> Option<LegNo> {
        if *self.caller.tag == *from_tag {
            return self.callee_with(to_tag);
        }
        if *self.caller.tag == *to_tag {
            return self.callee_with(from_tag).map(|_| CALLER);
        }
        None
    }

    /// The number of the callee with this tag.
    pub fn callee_with(&self, tag: &[u8]) -> Option<LegNo> {
        let found = self.callees.iter().position(|leg| *leg.tag == *tag);
        found.map(|at| at as LegNo + 1)
    }

    pub fn val(&self, name: &[u8]) -> Option<&Val> {
        self.vals.iter().find(|(n, _)| **n == *name).map(|(_, v)| v)
    }

    /// Sets or, with `None`, removes a value.
    pub fn set_val(&mut self, name: &[u8], value: Option<Val>) {
        let at = self.vals.iter().position(|(n, _)| **n == *name);
        match (at, value) {
            (Some(at), Some(value)) => self.vals[at].1 = value,
            (Some(at), None) => drop(self.vals.remove(at)),
            (None, Some(value)) => {
                // Few dialogs have many: grow by one.
                self.vals.reserve_exact(1);
                self.vals.push((name.into(), value));
            }
            (None, None) => {}
        }
    }

    pub fn is_in(&self, profile: u16, value: Option<&[u8]>) -> bool {
        self.memberships.iter().any(|m| m.profile == profile && value.is_none_or(|v| *m.value == *v))
    }

    /// Sets the reason of its end unless there is one.
    pub fn because(&mut self, reason: &str) {
        if self.end_reason.is_none() {
            self.end_reason = Some(reason.as_bytes().into());
        }
    }
}

/// The URI of the first Contact of the current message, as scripts have changed it.
pub fn current_contact(state: &host::MsgState) -> Option<Bytes> {
    host::contacts::addresses(state).ok()?.first().map(|addr| addr.uri.clone())
}

/// The URI of the first Contact.
pub fn contact_uri(msg: &Message) -> Option<Bytes> {
    msg.addresses(HeaderName::Contact).ok()?.first().map(|addr| addr.uri.clone())
}

/// The first Contact line, whole.
pub fn contact_line(msg: &Message) -> Option<Text> {
    let header = msg.header(HeaderName::Contact)?;
    Some(msg.bytes(header.whole()).into())
}

/// The values of Record-Route, as one list with commas. `reversed`: the way from the one who answers
/// (RFC 3261 §12.1.2). The first `skip` of the resulting list are left out.
pub fn route_set(msg: &Message, reversed: bool, skip: usize) -> Text {
    let mut routes: Vec<Bytes> = Vec::new();
    for header in msg.headers_of(HeaderName::RecordRoute) {
        for addr in NameAddr::parse_list(&msg.text(header.value())).unwrap_or_default() {
            let params = addr.params.text.clone();
            let mut text = [&b"<"[..], &addr.uri, b">"].concat();
            if !params.is_empty() {
                text.push(b';');
                text.extend_from_slice(&params);
            }
            routes.push(text.into());
        }
    }
    if reversed {
        routes.reverse();
    }
    let mut out = Vec::new();
    for route in routes.into_iter().skip(skip) {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(&route);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog() -> Data {
        let addr = |uri: &str| NameAddr::parse(&Bytes::from(uri.to_string())).expect("an address");
        let did = Did { entry: 1, id: 2 };
        Data::new(did, b"c", &addr("<sip:a@x>"), &addr("<sip:b@x>"), b"A")
    }

    #[test]
    fn tags_say_which_end_is_meant() {
        let mut dialog = dialog();
        for tag in ["B", "C"] {
            dialog.callees.push(Leg { tag: tag.as_bytes().into(), ..Leg::default() });
        }
        for (from, to, expected) in [
            ("A", "B", Some(1)),
            ("A", "C", Some(2)),
            ("B", "A", Some(CALLER)),
            ("C", "A", Some(CALLER)),
            ("A", "X", None),
            ("X", "A", None),
            ("B", "C", None),
        ] {
            assert_eq!(dialog.towards(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
        }
    }

    /// What a plain call costs besides its texts; the figure that docs/SPEED.md states comes from it.
    #[test]
    fn a_plain_dialog_is_small() {
        assert!(size_of::<Dialog>() <= 320, "{}", size_of::<Dialog>());
        assert!(size_of::<Leg>() <= 96, "{}", size_of::<Leg>());
        let mut dialog = dialog();
        assert_eq!((dialog.options.interval, &dialog.end_reason), (0, &None));
        assert!(!dialog.extras.is_there());
        dialog.options.interval = 5;
        dialog.caller.note_sent(None);
        assert!(dialog.extras.is_there() && !dialog.caller.changed.is_there());
        dialog.options.interval = 0;
        dialog.settle();
        assert!(!dialog.extras.is_there());
    }

    #[test]
    fn values_are_set_and_removed() {
        let mut dialog = dialog();
        dialog.set_val(b"a", Some(Val::Int(3)));
        dialog.set_val(b"a", Some(Val::Str(b"x"[..].into())));
        dialog.set_val(b"b", Some(Val::Int(1)));
        assert_eq!(dialog.val(b"a"), Some(&Val::Str(b"x"[..].into())));
        dialog.set_val(b"a", None);
        dialog.set_val(b"none", None);
        assert_eq!((dialog.val(b"a"), dialog.vals.len()), (None, 1));
    }

    #[test]
    fn made_numbers_go_on_from_the_ones_that_passed() {
        let mut leg = Leg { cseq: 100, ..Leg::default() };
        assert_eq!((leg.next_cseq(), leg.next_cseq()), (101, 102));
    }

    #[test]
    fn route_sets() {
        let text = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nRecord-Route: <sip:3;lr>, <sip:2;lr>;x=1\r\n\
                    Record-Route: <sip:1;lr>\r\nCall-ID: c\r\n\r\n";
        let msg = Message::parse(Bytes::from_static(text.as_bytes())).expect("a message");
        let check = |reversed, skip, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&route_set(&msg, reversed, skip)), expected);
        };
        check(false, 0, "<sip:3;lr>,<sip:2;lr>;x=1,<sip:1;lr>");
        check(true, 1, "<sip:2;lr>;x=1,<sip:3;lr>");
        check(true, 3, "");
    }
}
