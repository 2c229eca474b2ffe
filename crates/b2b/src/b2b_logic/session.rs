//! One session: the ends that are, were or will be connected, and how far the connecting is.
//!
//! ```text
//!  Init ──2xx──► Bridged ◄───────────── 2xx of both ──┐
//!                  │ b2b_bridge, b2b_logic:bridge     │
//!                  ├─ hold ──────► Hold ──┐           │
//!                  ├─ no-late-sdp ► InitSdp ─► Bridging
//!                  └─────────────────────────► Bridging
//!  any of them ── BYE, CANCEL, refusal, time ──► Cancel (to be deleted)
//! ```
//! `bridge[0]` and `bridge[1]` are connected or about to be; while a media server fills in, it is `bridge[1]` and
//! `bridge[2]` the one that will take its place.

use ahash::AHashMap;
use bytes::Bytes;
use host::{Ctx, TimerKey};
use script::RouteId;

use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::DialogInfo;
use crate::b2b_logic::wait::Watching;

/// Sessions of one worker; further calls are refused.
const MAX_SESSIONS: usize = 500_000;
/// Ends of each kind in a session.
pub const MAX_ENDS: usize = 3;
/// Values that scripts keep with one session.
const MAX_VALUES: usize = 1_000;

pub type EndId = u32;

/// Numbers as they stand in the table and in lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Init = 0,
    Hold,
    InitSdp,
    Bridging,
    Bridged,
    Cancel,
}

impl State {
    pub fn of_number(n: i64) -> State {
        use State::*;
        [Init, Hold, InitSdp, Bridging, Bridged, Cancel]
            .into_iter()
            .find(|state| *state as i64 == n)
            .unwrap_or(Cancel)
    }

    pub fn is_bridging(self) -> bool {
        matches!(self, State::Hold | State::InitSdp | State::Bridging)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EndState {
    #[default]
    New = 0,
    Confirmed = 1,
    Canceling = 2,
}

/// Whether an INVITE brings an offer, or asks for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sdp {
    #[default]
    Normal,
    Late,
}

/// One end of a session.
#[derive(Clone, Debug, Default)]
pub struct End {
    pub id: EndId,
    pub kind: Kind,
    /// Of its entity; empty: it is not called yet.
    pub key: Bytes,
    /// The name that the script gave it.
    pub name: Bytes,
    pub to_uri: Bytes,
    pub from_uri: Bytes,
    pub from_dname: Bytes,
    pub proxy: Option<Bytes>,
    /// Whole lines of the script.
    pub headers: Bytes,
    pub contact: Option<Bytes>,
    pub no: u8,
    pub state: EndState,
    pub sdp: Sdp,
    pub peer: Option<EndId>,
    pub disconnected: bool,
    pub rejected: bool,
    pub in_sdp: Option<Bytes>,
    pub out_sdp: Option<Bytes>,
    pub dialog: Option<DialogInfo>,
    /// A BYE ended the request that it had under way.
    pub said_bye: bool,
    /// Nothing that was asked of it waits for its final reply.
    pub replied: bool,
    pub last_code: u16,
    pub hops: Option<u32>,
    /// `pass-legs-upstream`
    pub pass_legs: bool,
    /// Parameters of its Contact that pass to the other end.
    pub contact_params: Option<Bytes>,
}

/// What `b2b_init_request` was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InitFlags {
    pub transparent_auth: bool,
    pub preserve_to: bool,
    pub pass_legs: bool,
    /// Seconds.
    pub setup_timeout: u32,
}

/// What `b2b_bridge` and its like were told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BridgeFlags {
    pub notify: bool,
    pub rollback: bool,
    pub hold: bool,
    pub no_late_sdp: bool,
    pub propagate_avps: bool,
    pub media_headers: bool,
    pub keep_initiator: bool,
    pub pending_sdp: bool,
    pub late_bye: bool,
    /// Seconds; 0: the module's.
    pub max_duration: u32,
    pub own_lifetime: bool,
}

/// Who asked for a transfer, and hears how it goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Initiator {
    End(EndId),
    /// An end of another session.
    Elsewhere {
        session: Bytes,
        entity: Bytes,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scenario {
    TopHiding,
    /// Without a name.
    Internal,
    Named(Bytes),
}

pub const TOP_HIDING: &[u8] = b"top hiding";

impl Scenario {
    pub fn of(name: &Bytes) -> Scenario {
        match &name[..] {
            TOP_HIDING => Scenario::TopHiding,
            b"" => Scenario::Internal,
            _ => Scenario::Named(name.clone()),
        }
    }

    pub fn name(&self) -> Bytes {
        match self {
            Scenario::TopHiding => Bytes::from_static(TOP_HIDING),
            Scenario::Internal => Bytes::new(),
            Scenario::Named(name) => name.clone(),
        }
    }
}

pub struct Session {
    pub key: Bytes,
    /// The second number of the key.
    pub id: u32,
    pub scenario: Scenario,
    pub state: State,
    pub to_delete: bool,
    /// Milliseconds of the worker's clock; `None`: for ever.
    pub ends_at: Option<u64>,
    pub ends: Vec<End>,
    next_end: EndId,
    pub servers: Vec<EndId>,
    /// In the place of the first one there may be several that ring (`rivals`).
    pub clients: Vec<EndId>,
    pub rivals: Vec<EndId>,
    pub bridge: [Option<EndId>; 3],
    pub initiator: Option<Initiator>,
    pub bridging: BridgeFlags,
    pub refer_id: u32,
    pub init: InitFlags,
    /// Lines of the first INVITE that go to everybody.
    pub headers: Bytes,
    pub contact: Bytes,
    pub values: Vec<(Bytes, Bytes)>,
    pub req_route: Option<RouteId>,
    pub reply_route: Option<RouteId>,
    /// A bridge is tried again.
    pub retry: TimerKey,
    pub stored: bool,
    /// Scripts that wait for something of it.
    pub watching: Vec<Watching>,
}

impl Session {
    pub fn new(key: Bytes, id: u32, scenario: Scenario) -> Session {
        Session {
            key,
            id,
            scenario,
            state: State::Init,
            to_delete: false,
            ends_at: None,
            ends: Vec::new(),
            next_end: 0,
            servers: Vec::new(),
            clients: Vec::new(),
            rivals: Vec::new(),
            bridge: [None; 3],
            initiator: None,
            bridging: BridgeFlags::default(),
            refer_id: 0,
            init: InitFlags::default(),
            headers: Bytes::new(),
            contact: Bytes::new(),
            values: Vec::new(),
            req_route: None,
            reply_route: None,
            retry: TimerKey::NONE,
            stored: false,
            watching: Vec::new(),
        }
    }

    /// An end that is in no list yet.
    pub fn add(&mut self, mut end: End) -> EndId {
        self.next_end += 1;
        end.id = self.next_end;
        end.replied |= end.kind == Kind::Server;
        let id = end.id;
        self.ends.push(end);
        id
    }

    pub fn end(&self, id: EndId) -> Option<&End> {
        self.ends.iter().find(|end| end.id == id)
    }

    pub fn end_mut(&mut self, id: EndId) -> Option<&mut End> {
        self.ends.iter_mut().find(|end| end.id == id)
    }

    pub fn bridged(&self, at: usize) -> Option<&End> {
        self.bridge[at].and_then(|id| self.end(id))
    }

    /// It is called: it stands among the servers or clients. False: there are too many.
    pub fn enlist(&mut self, id: EndId) -> bool {
        let list = match self.end(id).map(|end| end.kind) {
            Some(Kind::Server) => &mut self.servers,
            Some(Kind::Client) => &mut self.clients,
            None => return false,
        };
        if list.len() >= MAX_ENDS {
            host::error!("b2b_logic", "a session has {MAX_ENDS} ends of a kind already");
            return false;
        }
        list.push(id);
        true
    }

    /// It is in no list any more, but still there.
    pub fn unlist(&mut self, id: EndId) -> bool {
        let before = self.servers.len() + self.clients.len();
        self.servers.retain(|own| *own != id);
        self.clients.retain(|own| *own != id);
        before > self.servers.len() + self.clients.len()
    }

    /// Forgets an end everywhere.
    pub fn remove(&mut self, id: EndId) -> Option<End> {
        self.unlist(id);
        self.rivals.retain(|own| *own != id);
        for slot in &mut self.bridge {
            *slot = slot.filter(|own| *own != id);
        }
        if self.initiator == Some(Initiator::End(id)) {
            self.initiator = None;
        }
        for end in &mut self.ends {
            end.peer = end.peer.filter(|peer| *peer != id);
        }
        let at = self.ends.iter().position(|end| end.id == id)?;
        Some(self.ends.remove(at))
    }

    /// The end of an entity among those that are called.
    pub fn of_entity(&self, key: &[u8], kind: Kind) -> Option<&End> {
        let listed =
            |id: &EndId| self.servers.contains(id) || self.clients.contains(id) || self.rivals.contains(id);
        self.ends.iter().find(|end| end.kind == kind && end.key == key && listed(&end.id))
    }

    /// One by the name that the script gave it.
    pub fn named(&self, name: &[u8]) -> Option<&End> {
        let listed = |id: &EndId| self.servers.contains(id) || self.clients.contains(id);
        self.ends.iter().find(|end| end.name == name && listed(&end.id))
    }

    /// 0, 1 or 2.
    pub fn place_of(&self, id: EndId) -> Option<usize> {
        self.bridge.iter().position(|own| *own == Some(id))
    }

    /// The place of the other one.
    pub fn other_place(&self, key: &[u8]) -> Option<usize> {
        let of = self.ends.iter().find(|end| end.key == key)?.id;
        match self.place_of(of) {
            Some(0) => Some(1),
            Some(1) => Some(0),
            _ => None,
        }
    }

    pub fn connect(&mut self, a: EndId, b: EndId) {
        if let Some(end) = self.end_mut(a) {
            end.peer = Some(b);
        }
        if let Some(end) = self.end_mut(b) {
            end.peer = Some(a);
        }
    }

    pub fn disconnect(&mut self, id: EndId) {
        let peer = self.end_mut(id).and_then(|end| end.peer.take());
        if let Some(other) = peer.and_then(|peer| self.end_mut(peer)) {
            other.peer = None;
        }
    }

    pub fn value(&self, name: &[u8]) -> Option<&Bytes> {
        self.values.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

/// Sets, or with `None` forgets, a value. False: there are too many.
pub fn set_value(values: &mut Vec<(Bytes, Bytes)>, name: &Bytes, value: Option<Bytes>) -> bool {
    let at = values.iter().position(|(own, _)| own == name);
    match (at, value) {
        (Some(at), Some(value)) => values[at].1 = value,
        (Some(at), None) => drop(values.remove(at)),
        (None, Some(_)) if values.len() >= MAX_VALUES => return false,
        (None, Some(value)) => values.push((name.clone(), value)),
        (None, None) => {}
    }
    true
}

/// The sessions of a worker.
#[derive(Default)]
pub struct Table {
    sessions: AHashMap<Bytes, Session>,
    /// Somebody looks for those whose time is over.
    pub watched: bool,
    next: AHashMap<u32, u32>,
}

pub fn table(ctx: &mut Ctx) -> &mut Table {
    ctx.local::<Table>()
}

/// A session of this worker.
pub fn of<'a>(ctx: &'a mut Ctx, key: &[u8]) -> Option<&'a mut Session> {
    ctx.local::<Table>().sessions.get_mut(key)
}

impl Table {
    /// A new key of this worker: `hash.number`, where the hash says which worker leads it.
    pub fn make_key(&mut self, worker: u16, workers: u16, size: u32, random: u64) -> (Bytes, u32) {
        let workers = u32::from(workers.max(1));
        let rows = (size / workers).max(1);
        let hash = (random % u64::from(rows)) as u32 * workers + u32::from(worker);
        let next = self.next.entry(hash).or_default();
        let id = *next;
        *next = next.wrapping_add(1);
        (format!("{hash}.{id}").into(), id)
    }

    /// False: there are too many.
    pub fn insert(&mut self, session: Session) -> bool {
        if self.sessions.len() >= MAX_SESSIONS {
            host::error!("b2b_logic", "a call was refused: there are {MAX_SESSIONS} sessions");
            return false;
        }
        let hash =
            session.key.split(|b| *b == b'.').next().and_then(|h| std::str::from_utf8(h).ok()?.parse().ok());
        if let Some(hash) = hash {
            let next = self.next.entry(hash).or_default();
            *next = (*next).max(session.id.wrapping_add(1));
        }
        self.sessions.insert(session.key.clone(), session);
        true
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Session> {
        self.sessions.remove(key)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Session> {
        self.sessions.get(key)
    }

    pub fn all(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_who_leads() {
        let mut table = Table::default();
        for random in [0, 77, 12_345] {
            let (key, id) = table.make_key(1, 4, 512, random);
            assert_eq!(crate::b2b_entities::worker_of_logic(&key, 4), Some(1));
            assert_eq!(id, 0);
        }
        assert_eq!(table.make_key(1, 4, 512, 77).1, 1);
    }

    #[test]
    fn an_end_that_is_removed_leaves_nothing() {
        let mut s = Session::new("1.0".into(), 0, Scenario::Internal);
        let a = s.add(End { key: "a".into(), ..End::default() });
        let b = s.add(End { key: "b".into(), kind: Kind::Client, ..End::default() });
        assert!(s.enlist(a) && s.enlist(b));
        s.bridge = [Some(a), Some(b), None];
        s.connect(a, b);
        s.initiator = Some(Initiator::End(b));
        assert_eq!(s.other_place(b"a"), Some(1));
        assert_eq!(s.of_entity(b"b", Kind::Client).map(|end| end.id), Some(b));
        s.remove(b);
        assert_eq!((s.bridge[1], s.initiator.clone(), s.end(a).and_then(|end| end.peer)), (None, None, None));
        assert!(s.of_entity(b"b", Kind::Client).is_none() && s.clients.is_empty());
    }

    #[test]
    fn values_are_set_and_forgotten() {
        let mut values = Vec::new();
        let name = Bytes::from_static(b"a");
        assert!(
            set_value(&mut values, &name, Some("1".into()))
                && set_value(&mut values, &name, Some("2".into()))
        );
        assert_eq!(values, [(name.clone(), Bytes::from_static(b"2"))]);
        assert!(set_value(&mut values, &name, None) && values.is_empty());
    }
}
