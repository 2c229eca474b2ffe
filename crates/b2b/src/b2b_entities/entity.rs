//! One entity: a dialog in which this server is an end.
//!
//! ```text
//!  New ──1xx──► Early ──2xx──► Confirmed ──ACK──► Established ──re-INVITE──► Modified ──2xx──► Confirmed
//!   │  NewAuth: the challenge was answered           │
//!   └──────────── CANCEL, BYE, refusal ──────────────┴──► Terminated
//! ```

use super::owner::Owner;
use super::ua::UaFlags;
use bytes::Bytes;
use host::TimerKey;
use host::avp::Avps;
use host::tm::NewRequest;
use host::tm::ua::Side;
use sip::{Message, Method};
use std::cell::RefCell;
use std::rc::Rc;
use transaction::TxnId;

/// What this server was in the first transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Kind {
    /// It was called.
    #[default]
    Server = 0,
    /// It called.
    Client = 1,
}

impl Kind {
    pub fn of_number(n: i64) -> Kind {
        if n == 0 { Kind::Server } else { Kind::Client }
    }
}

/// Numbers as they stand in the table and in lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Undefined = 0,
    New,
    NewAuth,
    Early,
    Confirmed,
    Established,
    Modified,
    Terminated,
}

impl State {
    pub fn of_number(n: i64) -> State {
        use State::*;
        [Undefined, New, NewAuth, Early, Confirmed, Established, Modified, Terminated]
            .into_iter()
            .find(|state| *state as i64 == n)
            .unwrap_or(Undefined)
    }

    pub fn is_answered(self) -> bool {
        self >= State::Confirmed
    }
}

/// One end that a client entity reached.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    pub id: u32,
    pub tag: Bytes,
    pub cseq: u32,
    pub contact: Bytes,
    pub routes: Vec<Bytes>,
    /// RAck line for the PRACK that its peer will send (`passthru_prack`).
    pub rack: Bytes,
}

/// Whose numbers and tags: the caller's or the callee's.
pub const CALLER: usize = 0;
pub const CALLEE: usize = 1;

/// A 2xx to an INVITE of ours that has no ACK yet.
#[derive(Clone)]
pub struct Unacked {
    pub txn: TxnId,
    pub reply: Rc<Message>,
}

/// What of it the database has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stored {
    /// Nothing, and nothing is to be written.
    #[default]
    No = 0,
    /// It has changed.
    Changed = 1,
    /// It is new.
    New = 2,
    /// Its row is as it is.
    Yes = 3,
}

pub struct Entity {
    pub kind: Kind,
    /// The tag of To (server) or the Call-ID (client) of its messages.
    pub key: Bytes,
    /// The second number of the key.
    pub id: u32,
    pub state: State,
    pub ruri: Bytes,
    pub from_uri: Bytes,
    pub from_dname: Bytes,
    pub to_uri: Bytes,
    pub to_dname: Bytes,
    pub tags: [Bytes; 2],
    pub call_id: Bytes,
    pub cseq: [u32; 2],
    pub last_invite_cseq: u32,
    pub contact: [Bytes; 2],
    /// Way to the caller of a server entity.
    pub routes: Vec<Bytes>,
    /// Outbound proxy of a client entity.
    pub proxy: Option<Bytes>,
    pub last_method: u32,
    pub last_reply: u16,
    /// Index into `Shared::sockets`.
    pub socket: Option<u16>,
    /// The newest first.
    pub legs: Vec<Leg>,
    /// Whoever leads it, and the key that it is known by there.
    pub owner: &'static Owner,
    pub logic: Bytes,
    /// Body of the last ACK that went out.
    pub ack_body: Bytes,
    /// A user agent of the script.
    pub ua: Option<UaFlags>,
    pub ua_timer: TimerKey,
    /// An INVITE of ours that is under way.
    pub uac: Option<TxnId>,
    pub unacked: Option<Unacked>,
    /// The request that came last and is not done.
    pub uas: Option<TxnId>,
    pub update: Option<TxnId>,
    pub pracks: Vec<(u32, TxnId)>,
    pub avps: Option<Rc<RefCell<Avps>>>,
    pub stored: Stored,
}

/// Numbers of methods in lists and rows.
pub fn method_number(method: &[u8]) -> u32 {
    match Method::parse(method) {
        Method::Service | Method::Other => 0,
        known => host::vars::method_number(known) as u32,
    }
}

/// `Alice <sip:a@x>;tag=1`
pub fn party(dname: &[u8], uri: &[u8], tag: &[u8]) -> Bytes {
    let mut text = dname.to_vec();
    if !text.is_empty() {
        text.push(b' ');
    }
    text.push(b'<');
    text.extend_from_slice(uri);
    text.push(b'>');
    if !tag.is_empty() {
        text.extend_from_slice(b";tag=");
        text.extend_from_slice(tag);
    }
    text.into()
}

impl Entity {
    /// One of which nothing is known yet but who it is and who leads it.
    pub fn new(kind: Kind, key: Bytes, id: u32, owner: &'static Owner, logic: Bytes) -> Entity {
        Entity {
            kind,
            key,
            id,
            state: State::New,
            ruri: Bytes::new(),
            from_uri: Bytes::new(),
            from_dname: Bytes::new(),
            to_uri: Bytes::new(),
            to_dname: Bytes::new(),
            tags: Default::default(),
            call_id: Bytes::new(),
            cseq: [0; 2],
            last_invite_cseq: 0,
            contact: Default::default(),
            routes: Vec::new(),
            proxy: None,
            last_method: 0,
            last_reply: 0,
            socket: None,
            legs: Vec::new(),
            owner,
            logic,
            ack_body: Bytes::new(),
            ua: None,
            ua_timer: TimerKey::NONE,
            uac: None,
            unacked: None,
            uas: None,
            update: None,
            pracks: Vec::new(),
            avps: None,
            stored: Stored::No,
        }
    }

    /// The Contact that this server has in the dialog.
    pub fn own_contact(&self) -> &Bytes {
        match self.kind {
            Kind::Server => &self.contact[CALLEE],
            Kind::Client => &self.contact[CALLER],
        }
    }

    fn own(&self) -> usize {
        match self.kind {
            Kind::Server => CALLEE,
            Kind::Client => CALLER,
        }
    }

    pub fn leg(&self, id: Option<u32>) -> Option<&Leg> {
        match id {
            Some(id) => self.legs.iter().find(|leg| leg.id == id),
            None => self.legs.first(),
        }
    }

    /// This server's side of the dialog, towards one of the legs of a client.
    pub fn side(&self, leg: Option<&Leg>) -> Side {
        let (local, remote, target, routes) = match self.kind {
            Kind::Server => (
                party(&self.to_dname, &self.to_uri, &self.key),
                party(&self.from_dname, &self.from_uri, &self.tags[CALLER]),
                self.contact[CALLER].clone(),
                self.routes.clone(),
            ),
            Kind::Client => {
                let tag = leg.map(|leg| leg.tag.clone()).unwrap_or_default();
                let target = leg.map(|leg| leg.contact.clone()).filter(|contact| !contact.is_empty());
                (
                    party(&self.from_dname, &self.from_uri, &self.tags[CALLER]),
                    party(&self.to_dname, &self.to_uri, &tag),
                    target.unwrap_or_else(|| self.to_uri.clone()),
                    leg.map(|leg| leg.routes.clone()).unwrap_or_default(),
                )
            }
        };
        Side {
            call_id: self.call_id.clone(),
            local,
            remote,
            target,
            routes,
            cseq: self.cseq[self.own()],
            socket: self.socket,
        }
    }

    /// The next request inside it. An ACK has the number of its INVITE.
    pub fn request(&mut self, method: &str, leg: Option<u32>) -> NewRequest {
        let mut side = self.side(self.leg(leg));
        let mut request = side.request(method);
        match method {
            "ACK" => request.cseq = self.last_invite_cseq,
            _ => {
                let own = self.own();
                self.cseq[own] = side.cseq;
                if method == "INVITE" {
                    self.last_invite_cseq = side.cseq;
                }
            }
        }
        if self.kind == Kind::Client && self.proxy.is_some() {
            request.next_hop = self.proxy.clone();
        }
        request
    }

    /// After a request of this method was sent or came.
    pub fn moved_by(&mut self, method: &Method) {
        match method {
            Method::Invite if self.state != State::NewAuth => self.state = State::Modified,
            Method::Bye => self.state = State::Terminated,
            // That of a re-INVITE ends no dialog.
            Method::Cancel if !self.state.is_answered() => self.state = State::Terminated,
            Method::Ack if self.state == State::Confirmed => self.state = State::Established,
            _ => {}
        }
    }

    pub fn is_ua(&self) -> bool {
        self.ua.is_some()
    }

    /// The other end's Contact in a request or reply that refreshes the target (RFC 3261 §12.2). At an address that is
    /// known already the old one stays, as in the reference.
    pub fn refresh(&mut self, msg: &Message) {
        let Some(contact) = contact_of(msg) else { return };
        let known = match self.kind {
            Kind::Server => &mut self.contact[CALLER],
            Kind::Client => match self.legs.first_mut() {
                Some(leg) => &mut leg.contact,
                None => return,
            },
        };
        if place(known) != place(&contact) {
            *known = contact;
        }
    }
}

fn place(uri: &Bytes) -> Option<(Bytes, u16, Option<sip::Transport>)> {
    let uri = sip::Uri::parse(uri).ok()?;
    Some((uri.host.clone(), uri.port_or_default(), uri.transport()))
}

/// URI of the first Contact.
pub fn contact_of(msg: &Message) -> Option<Bytes> {
    msg.addresses(sip::HeaderName::Contact).ok()?.into_iter().next().map(|contact| contact.uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_are_written_with_what_there_is() {
        assert_eq!(&party(b"\"A\"", b"sip:a@x", b"1")[..], b"\"A\" <sip:a@x>;tag=1");
        assert_eq!(&party(b"", b"sip:a@x", b"")[..], b"<sip:a@x>");
    }

    #[test]
    fn methods_have_their_numbers() {
        let numbers: Vec<u32> =
            ["INVITE", "ACK", "BYE", "REFER", "ODD"].map(|m| method_number(m.as_bytes())).into();
        assert_eq!(numbers, [1, 4, 8, 4096, 0]);
    }

    #[test]
    fn states_have_their_numbers() {
        assert_eq!(State::of_number(5), State::Established);
        assert_eq!(State::of_number(99), State::Undefined);
        assert!(State::Modified.is_answered() && !State::Early.is_answered());
    }
}
