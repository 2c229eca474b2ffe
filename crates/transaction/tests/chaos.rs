//! Random callers, callees and networks: what must hold whatever happens.

mod driver;

use driver::{answer, path, request};
use proptest::prelude::*;
use sip::{Message, Method, Transport};
use std::collections::HashMap;
use transaction::*;

/// What one call or request looks like.
#[derive(Clone, Debug)]
struct Plan {
    invite: bool,
    reliable: bool,
    /// Of each branch, by number: (milliseconds until it answers, its status, rings before, sent again).
    callees: Vec<(u64, u16, bool, bool)>,
    /// Branches in parallel at first; the others one by one after failures.
    parallel: usize,
    cancel_at: Option<u64>,
    /// The caller never acknowledges.
    silent: bool,
    /// Every n-th datagram gets lost, every m-th comes twice.
    lost: u64,
    twice: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    let status = prop_oneof![
        Just(200u16),
        Just(202),
        Just(302),
        Just(404),
        Just(408),
        Just(486),
        Just(503),
        Just(603),
        Just(0)
    ];
    let callee = (0u64..200_000, status, any::<bool>(), any::<bool>());
    let cancel = proptest::option::of(0u64..150_000);
    (
        (any::<bool>(), any::<bool>()),
        proptest::collection::vec(callee, 0..5),
        0usize..4,
        cancel,
        any::<bool>(),
        2u64..20,
        2u64..20,
    )
        .prop_map(|((invite, reliable), callees, parallel, cancel_at, silent, lost, twice)| Plan {
            invite,
            reliable,
            callees,
            parallel,
            cancel_at,
            silent,
            lost,
            twice,
        })
}

struct World {
    txns: Transactions<(), ()>,
    plan: Plan,
    id: TxnId,
    now: Instant,
    opened: usize,
    /// Things that happen at a moment, in order.
    events: std::collections::BTreeMap<(u64, u64), Happening>,
    order: u64,
    datagrams: u64,
    finals: Vec<u16>,
    provisional_after_final: bool,
    acks: HashMap<u16, usize>,
    cancels: HashMap<u16, usize>,
    rang: HashMap<u16, bool>,
    ended: bool,
}

enum Happening {
    ToCallee(u16, Message),
    Answer(u16, Message, u16),
    Ack,
    Cancel,
    Invite,
}

impl World {
    fn new(plan: Plan) -> World {
        let mut txns = Transactions::new(Config { fr_inv: 60_000, ..Config::default() }, 0, 5);
        let transport = if plan.reliable { Transport::Tcp } else { Transport::Udp };
        let method = if plan.invite { "INVITE" } else { "MESSAGE" };
        let request = request(method, "z9hG4bKone", 1);
        let id = txns.create(Instant(0), &request, path(5060, transport), ()).expect("room");
        World {
            txns,
            plan,
            id,
            now: Instant(0),
            opened: 0,
            events: Default::default(),
            order: 0,
            datagrams: 0,
            finals: Vec::new(),
            provisional_after_final: false,
            acks: HashMap::new(),
            cancels: HashMap::new(),
            rang: HashMap::new(),
            ended: false,
        }
    }

    fn method(&self) -> &'static str {
        if self.plan.invite { "INVITE" } else { "MESSAGE" }
    }

    fn later(&mut self, ms: u64, what: Happening) {
        self.order += 1;
        self.events.insert((self.now.0 + ms, self.order), what);
    }

    /// A datagram on its way: lost, once, or twice.
    fn copies(&mut self) -> u64 {
        self.datagrams += 1;
        match self.datagrams {
            n if n % self.plan.lost == 0 && !self.plan.reliable => 0,
            n if n % self.plan.twice == 0 && !self.plan.reliable => 2,
            _ => 1,
        }
    }

    fn open(&mut self) -> bool {
        let Ok(branch) = self.txns.open_branch(self.id, ()) else { return false };
        self.opened += 1;
        let cookie = self.txns.via_branch(self.id, branch);
        let sent = request(self.method(), std::str::from_utf8(&cookie).expect("ASCII"), 1);
        let transport = if self.plan.reliable { Transport::Tcp } else { Transport::Udp };
        self.txns.send(self.now, self.id, branch, sent.buf().clone(), path(6000 + branch, transport))
    }

    fn verdict(&mut self, verdict: Verdict, status: u16) {
        let send = |txns: &mut Transactions<(), ()>, now, id, status: u16, origin| {
            txns.reply(now, id, status, format!("SIP/2.0 {status} R\r\n\r\n").into(), origin)
        };
        match verdict {
            Verdict::Absorb => {}
            Verdict::Provisional | Verdict::Success => {
                send(&mut self.txns, self.now, self.id, status, Origin::Relayed);
            }
            Verdict::Failed { winner } => {
                if self.opened < self.plan.callees.len() && self.open() {
                    return;
                }
                let status = winner.and_then(|w| self.txns.branch(self.id, w)).map_or(487, |b| b.status);
                let sent = send(&mut self.txns, self.now, self.id, status, Origin::Relayed);
                assert_eq!(sent, Replied::Sent, "told once that all have failed");
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.txns.poll_output() {
            match output {
                Output::Event(Event::Timeout { txn, branch, .. }) => {
                    let verdict = self.txns.fail_branch(self.now, txn, branch, 408);
                    self.verdict(verdict, 408);
                }
                Output::Event(Event::Unanswered { txn }) => self.txns.release(self.now, txn),
                Output::Event(Event::Ended { .. }) => {
                    assert!(!self.ended, "ends once");
                    self.ended = true;
                }
                Output::Transmit { path, bytes, .. } => {
                    self.sent(path, Message::parse(bytes).expect("a message"))
                }
            }
        }
    }

    fn sent(&mut self, path: Path, message: Message) {
        let copies = self.copies();
        if path.remote.port() == 5060 {
            let status = message.status();
            if status >= 200 {
                if !self.finals.contains(&status) || status < 300 {
                    self.finals.push(status);
                }
                if self.plan.invite && !self.plan.silent && status >= 300 && copies > 0 {
                    self.later(20, Happening::Ack);
                }
            } else if !self.finals.is_empty() {
                self.provisional_after_final = true;
            }
            return;
        }
        let branch = path.remote.port() - 6000;
        match message.method() {
            Method::Ack => *self.acks.entry(branch).or_default() += 1,
            Method::Cancel => {
                assert!(self.rang.contains_key(&branch), "CANCEL of branch {branch} before it rang");
                *self.cancels.entry(branch).or_default() += 1;
            }
            _ => {}
        }
        for n in 0..copies {
            self.later(10 + n, Happening::ToCallee(branch, message.clone()));
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToCallee(branch, message) => self.callee(branch, message),
            Happening::Answer(branch, sent, status) => {
                let cancel = sent.method() == Method::Cancel;
                let reply = answer(&sent, status, cancel);
                if !cancel && status < 200 {
                    self.rang.insert(branch, true);
                }
                for _ in 0..self.copies() {
                    let Some((id, found)) = self.txns.match_reply(&reply) else { continue };
                    assert_eq!(found, branch);
                    if self.txns.receive(self.now, id, found, &reply) == Received::New {
                        let verdict = self.txns.decide(self.now, id, found, status);
                        self.verdict(verdict, status);
                    }
                }
            }
            Happening::Ack => {
                let found = self.txns.find(&request("ACK", "z9hG4bKone", 1));
                if let Some((id, Relation::Ack)) = found {
                    assert_eq!(self.txns.on_ack(self.now, id), Acked::Absorbed);
                }
            }
            Happening::Cancel => {
                if let Some((id, Relation::Cancel)) = self.txns.find(&request("CANCEL", "z9hG4bKone", 1)) {
                    let verdict = self.txns.cancel(self.now, id, "".into());
                    self.verdict(verdict, 487);
                }
            }
            Happening::Invite => {
                if let Some((id, _)) = self.txns.find(&request(self.method(), "z9hG4bKone", 1)) {
                    self.txns.retransmission(id);
                }
            }
        }
    }

    fn callee(&mut self, branch: u16, message: Message) {
        let (ms, status, rings, again) =
            self.plan.callees.get(usize::from(branch)).copied().unwrap_or((1, 404, false, false));
        match message.method() {
            Method::Ack => {}
            Method::Cancel => self.later(5, Happening::Answer(branch, message, 200)),
            _ => {
                if rings {
                    self.later(1, Happening::Answer(branch, message.clone(), 180));
                }
                if status >= 200 {
                    self.later(ms, Happening::Answer(branch, message.clone(), status));
                }
                if status >= 200 && again {
                    self.later(ms + 700, Happening::Answer(branch, message, status));
                }
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..self.plan.parallel.min(self.plan.callees.len()) {
            self.open();
        }
        for ms in [500, 1500, 3500] {
            self.later(ms, Happening::Invite);
        }
        if let Some(ms) = self.plan.cancel_at {
            self.later(ms, Happening::Cancel);
        }
        self.drain();
        for _ in 0..100_000 {
            let due = self.txns.next_deadline().map(|at| at.0);
            let event = self.events.first_key_value().map(|(key, _)| *key);
            match (due, event) {
                (None, None) => return,
                (due, Some(key)) if due.is_none_or(|at| key.0 <= at) => {
                    self.now = Instant(key.0);
                    let what = self.events.remove(&key).expect("just seen");
                    self.happen(what);
                }
                (Some(at), _) => {
                    self.now = self.now.max(Instant(at));
                    self.txns.on_timer(self.now, usize::MAX);
                }
                (None, Some(_)) => unreachable!(),
            }
            self.drain();
        }
        panic!("it never ends");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn invariants(plan in plan()) {
        let mut world = World::new(plan.clone());
        world.run();
        world.txns.on_timer(world.now, usize::MAX);
        // Everything ends, and leaves nothing behind.
        prop_assert!(world.ended);
        prop_assert_eq!((world.txns.len(), world.txns.timers()), (0, 0));
        prop_assert!(world.txns.get(world.id).is_none());
        prop_assert!(world.txns.find(&request(world.method(), "z9hG4bKone", 1)).is_none());
        // At most one negative final reply, and first; 2xx after another final reply only for an INVITE (a callee
        // may take the call after it was given up).
        let negative = world.finals.iter().skip(1).filter(|s| **s >= 300).count();
        prop_assert!(negative == 0, "{:?}", world.finals);
        // A repeated request gets the same answer again.
        let same = world.finals.windows(2).all(|pair| pair[0] == pair[1]);
        prop_assert!(plan.invite || same, "{:?}", world.finals);
        prop_assert!(!world.provisional_after_final);
        // Who was called gets an answer for the caller.
        if world.opened > 0 {
            prop_assert!(!world.finals.is_empty());
        }
        if !plan.invite {
            prop_assert!(world.acks.is_empty() && world.cancels.is_empty());
        }
        // A CANCEL is repeated for 64·T1 at most, and not at all over a reliable transport.
        let most = if plan.reliable { 1 } else { 11 };
        prop_assert!(world.cancels.values().all(|n| *n <= most), "{:?}", world.cancels);
    }
}
