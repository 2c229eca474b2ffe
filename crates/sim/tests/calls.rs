//! Whole calls in simulated worlds: forks, loss, late CANCELs, both sides hanging up at once, ends that fall silent.
//! In the end no dialog is left, and each answered call has exactly one record.

use bytes::Bytes;
use host::db::Query;
use sim::desk::Desk;
use sim::kept::Kept;
use sip::{HeaderName, Message, Method};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

const CONFIG: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "statistics.so"
loadmodule "event_route.so"
loadmodule "dialog.so"
loadmodule "acc.so"
modparam("tm", "fr_inv_timeout", 40)
modparam("statistics", "variable", "answered")
modparam("statistics", "variable", "records")
route {
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (has_totag()) { loose_route(); t_relay(); exit; }
    t_check_trans();
    create_dialog("bye-on-timeout,end-on-race-condition");
    do_accounting("evi", "cdr");
    dlg_on_answer("answered");
    $DLG_timeout = 90;
    record_route();
    if ($rU == "fork") append_msg_branch("sip:b@10.0.0.4");
    t_relay();
}
route[answered] { update_stat("answered", 1); }
event_route[E_ACC_CDR] { update_stat("records", 1); }
"#;

const CALLER: u8 = 2;
const CALLS: usize = 40;
const LIMIT: u64 = 400_000;

/// Numbers of a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

enum Event {
    /// Bytes on their way to the server.
    ToServer(u8, Bytes),
    /// Bytes on their way to an end.
    ToEnd(u8, Bytes),
    /// An end sends it, and again with twice the pause, until the word is told to it.
    Send { from: u8, bytes: Bytes, pause: u64, until: String },
    /// A callee answers its INVITE.
    Answer { at: u8, invite: Box<Message>, status: u16 },
    /// An end hangs up.
    HangUp { from: u8, leg: Leg },
}

/// What an end needs to hang up.
#[derive(Clone)]
struct Leg {
    own: String,
    other: String,
    call_id: String,
    target: String,
    routes: Vec<String>,
}

struct World {
    desk: Desk,
    now: u64,
    events: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: HashMap<u64, Event>,
    rng: Rng,
    /// What ends have heard: nothing is sent again that was answered.
    heard: HashSet<String>,
    acks: HashMap<String, Bytes>,
    seen: HashSet<String>,
}

fn line(msg: &Message, name: HeaderName) -> String {
    let header = msg.header(name).map(|header| msg.text(header.value()));
    String::from_utf8_lossy(&header.unwrap_or_default()).into_owned()
}

fn routes(msg: &Message) -> Vec<String> {
    let all = msg.headers_of(HeaderName::RecordRoute);
    all.map(|header| String::from_utf8_lossy(msg.bytes(header.value())).into_owned()).collect()
}

fn target(msg: &Message) -> String {
    let list = msg.addresses(HeaderName::Contact).unwrap_or_default();
    list.first().map_or_else(String::new, |contact| String::from_utf8_lossy(&contact.uri).into_owned())
}

/// What names the transaction of a message and its method.
fn word(msg: &Message) -> String {
    let branch = msg.via().and_then(|via| via.branch()).unwrap_or_default();
    format!("{} {}", String::from_utf8_lossy(&branch), line(msg, HeaderName::CSeq))
}

/// The same with its dialogs in a database.
fn config_with_database() -> String {
    CONFIG.replace(
        "modparam(\"tm\",",
        "loadmodule \"db_sqlite.so\"\nmodparam(\"dialog\", \"db_url\", \"sqlite:///dialogs\")\n\
         modparam(\"dialog\", \"db_mode\", 1)\nmodparam(\"dialog\", \"db_flush_vals_profiles\", 1)\nmodparam(\"tm\",",
    )
}

impl World {
    fn new(seed: u64) -> World {
        World::at_desk(seed, Desk::with_workers(CONFIG, 3))
    }

    fn at_desk(seed: u64, desk: Desk) -> World {
        World {
            desk,
            now: 0,
            events: 0,
            queue: BinaryHeap::new(),
            waiting: HashMap::new(),
            rng: Rng(seed),
            heard: HashSet::new(),
            acks: HashMap::new(),
            seen: HashSet::new(),
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events)));
        self.waiting.insert(self.events, event);
    }

    /// The network: one of ten is lost, some come twice, all late.
    fn carry(&mut self, event: impl Fn() -> Event) {
        if self.rng.below(10) == 0 {
            return;
        }
        for _ in 0..1 + u64::from(self.rng.below(20) == 0) {
            let delay = 1 + self.rng.below(150);
            self.at(self.now + delay, event());
        }
    }

    fn send(&mut self, from: u8, bytes: Bytes) {
        self.carry(|| Event::ToServer(from, bytes.clone()));
    }

    fn play(&mut self) {
        self.begin_calls(20_000);
        self.go_on(LIMIT);
        self.pass(LIMIT + 200_000);
    }

    /// Every call begins within so many milliseconds.
    fn begin_calls(&mut self, within: u64) {
        for n in 0..CALLS {
            let at = self.rng.below(within);
            let user = if n.is_multiple_of(3) { "fork" } else { "b" };
            let text = format!(
                "INVITE sip:{user}@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKi{n}\nMax-Forwards: 70\n\
                 From: <sip:a@x>;tag=a{n}\nTo: <sip:b@x>\nCall-ID: call{n}@x\nCSeq: 1 INVITE\n\
                 Contact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n"
            );
            let bytes = Bytes::from(text.replace('\n', "\r\n"));
            self.at(
                at,
                Event::Send {
                    from: CALLER,
                    bytes: bytes.clone(),
                    pause: 500,
                    until: format!("call{n}@x rings"),
                },
            );
            if self.rng.below(5) == 0 {
                let cancel = sip::build_cancel(&Message::parse(bytes).expect("an INVITE"), b"");
                let at = at + 300 + self.rng.below(6_000);
                let until = format!("call{n}@x cancelled");
                self.at(at, Event::Send { from: CALLER, bytes: cancel, pause: 500, until });
            }
        }
    }

    /// What happens until then.
    fn go_on(&mut self, until: u64) {
        while let Some(Reverse((at, number))) = self.queue.pop() {
            if at > until {
                self.queue.push(Reverse((at, number)));
                break;
            }
            self.pass(at);
            if let Some(event) = self.waiting.remove(&number) {
                self.happen(event);
            }
            self.collect();
        }
        self.pass(until);
    }

    /// Time passes; what the server sends meanwhile is carried.
    fn pass(&mut self, until: u64) {
        while self.now < until {
            let step = (until - self.now).min(100);
            self.desk.advance(step);
            self.now += step;
            self.collect();
        }
    }

    fn collect(&mut self) {
        for sent in self.desk.sent() {
            let std::net::IpAddr::V4(ip) = sent.to.ip() else { continue };
            let to = ip.octets()[3];
            self.carry(|| Event::ToEnd(to, sent.bytes.clone()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToServer(from, bytes) => self.desk.receive_bytes(from, bytes),
            Event::ToEnd(to, bytes) => {
                let msg = Message::parse(bytes).expect("a message");
                if msg.is_request() { self.asked(to, msg) } else { self.told(to, &msg) }
            }
            Event::Send { from, bytes, pause, until } => {
                if self.heard.contains(&until) || pause > 40_000 {
                    return;
                }
                self.send(from, bytes.clone());
                self.at(self.now + pause, Event::Send { from, bytes, pause: pause * 2, until });
            }
            Event::Answer { at, invite, status } => self.answer(at, &invite, status),
            Event::HangUp { from, leg } => self.hang_up(from, &leg),
        }
    }

    fn reply(&mut self, at: u8, request: &Message, status: u16, tag: &str) -> Bytes {
        let extra = format!("Contact: <sip:b@10.0.0.{at}>\r\n");
        let parts = sip::ReplyParts {
            code: status,
            reason: b"R",
            to_tag: (!tag.is_empty()).then_some(tag.as_bytes()),
            extra: extra.as_bytes(),
            ..Default::default()
        };
        let bytes = sip::build_reply(request, &parts);
        self.send(at, bytes.clone());
        bytes
    }

    /// An end got a request.
    fn asked(&mut self, at: u8, msg: Message) {
        let call = line(&msg, HeaderName::CallId);
        match msg.method() {
            Method::Invite if self.seen.insert(word(&msg)) => {
                self.reply(at, &msg, 180, &format!("t{at}"));
                let status = [200, 200, 200, 486][self.rng.below(4) as usize];
                let delay = self.rng.below(7_000);
                self.at(self.now + delay, Event::Answer { at, invite: Box::new(msg), status });
            }
            Method::Ack => drop(self.heard.insert(format!("{call} acked {at}"))),
            Method::Cancel => {
                self.reply(at, &msg, 200, &format!("t{at}"));
                self.heard.insert(format!("{call} cancelled {at}"));
            }
            Method::Invite => {}
            _ => drop(self.reply(at, &msg, 200, "")),
        }
    }

    fn answer(&mut self, at: u8, invite: &Message, status: u16) {
        let call = line(invite, HeaderName::CallId);
        let status = if self.heard.contains(&format!("{call} cancelled {at}")) { 487 } else { status };
        let bytes = self.reply(at, invite, status, &format!("t{at}"));
        let until = format!("{call} acked {at}");
        self.at(self.now + 500, Event::Send { from: at, bytes, pause: 500, until });
        if status == 200 && self.rng.below(3) > 0 {
            let leg = Leg {
                own: format!("{};tag=t{at}", line(invite, HeaderName::To)),
                other: line(invite, HeaderName::From),
                call_id: call,
                target: target(invite),
                routes: routes(invite),
            };
            let delay = 8_000 + self.rng.below(3) * 1_000;
            self.at(self.now + delay, Event::HangUp { from: at, leg });
        }
    }

    /// An end got a reply.
    fn told(&mut self, at: u8, msg: &Message) {
        let call = line(msg, HeaderName::CallId);
        let Some((_, method)) = msg.cseq_parts() else { return };
        match (Method::parse(&method), msg.status()) {
            (Method::Invite, 100..200) => drop(self.heard.insert(format!("{call} rings"))),
            (Method::Invite, 200..300) => {
                self.heard.insert(format!("{call} rings"));
                self.established(at, msg, &call);
            }
            (Method::Invite, _) => {
                self.heard.insert(format!("{call} rings"));
                let text = format!(
                    "ACK sip:b@10.0.0.3 SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {call}\r\n\
                     CSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
                    line(msg, HeaderName::Via),
                    line(msg, HeaderName::From),
                    line(msg, HeaderName::To)
                );
                self.send(at, text.into());
            }
            (Method::Cancel, _) => drop(self.heard.insert(format!("{call} cancelled"))),
            (_, 200..) => drop(self.heard.insert(word(msg))),
            _ => {}
        }
    }

    /// A 2xx for the caller: its ACK, and the thought of hanging up.
    fn established(&mut self, at: u8, msg: &Message, call: &str) {
        let key = format!("{call} {}", line(msg, HeaderName::To));
        if let Some(ack) = self.acks.get(&key).cloned() {
            return self.send(at, ack);
        }
        let leg = Leg {
            own: line(msg, HeaderName::From),
            other: line(msg, HeaderName::To),
            call_id: call.to_string(),
            target: target(msg),
            routes: routes(msg).into_iter().rev().collect(),
        };
        let ack = self.request("ACK", at, &leg, 1);
        self.acks.insert(key, ack.clone());
        self.send(at, ack);
        if self.rng.below(3) > 0 {
            let delay = 8_000 + self.rng.below(3) * 1_000;
            self.at(self.now + delay, Event::HangUp { from: at, leg });
        }
    }

    fn request(&mut self, method: &str, from: u8, leg: &Leg, cseq: u32) -> Bytes {
        let branch = self.rng.below(u64::MAX);
        let routes: String = leg.routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.{from};branch=z9hG4bK{branch:x}\r\n{routes}Max-Forwards: 70\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            leg.target, leg.own, leg.other, leg.call_id
        )
        .into()
    }

    fn hang_up(&mut self, from: u8, leg: &Leg) {
        let bye = self.request("BYE", from, leg, 2);
        let until = word(&Message::parse(bye.clone()).expect("a BYE"));
        self.at(self.now, Event::Send { from, bytes: bye, pause: 500, until });
    }

    fn statistic(&mut self, name: &str) -> i64 {
        self.desk.worker().ctx().shared().stats.value(name).unwrap_or_default()
    }
}

#[test]
fn each_answered_call_has_one_record_and_no_dialog_stays() {
    let given = std::env::var("SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|text| {
        let (first, last) = text.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    });
    let mut answered = 0;
    for seed in range.unwrap_or(1..9u64) {
        let mut world = World::new(seed);
        world.play();
        let all = |world: &mut World| {
            ["answered", "records", "active_dialogs", "early_dialogs"].map(|name| world.statistic(name))
        };
        let [calls, records, active, early] = all(&mut world);
        assert_eq!((records, active, early), (calls, 0, 0), "seed {seed}: {calls} calls were answered");
        assert_eq!(world.statistic("processed_dialogs"), CALLS as i64, "seed {seed}");
        let open: usize = world.desk.workers().iter_mut().map(|w| w.ctx().core.txns.counts().0).sum();
        assert_eq!(open, 0, "seed {seed}: transactions are left");
        answered += calls;
    }
    assert!(answered > 50, "{answered} calls were answered");
}

/// The server is killed in the middle, once or twice, and comes back with what stands in its database: each call that is
/// there goes on, by BYEs of either side, of both at once, or by its timeout, and has exactly one record.
#[test]
fn calls_outlive_the_server() {
    let mut restored = 0;
    for seed in 1..7u64 {
        let kept = Kept::with_tables(&["dialog"]);
        let count = |kept: &Kept| {
            let rows = kept.ask(&Query::raw("select count(*) from dialog")).expect("counts");
            rows.first().and_then(|row| row.int(0)).expect("a number")
        };
        let desk = Desk::with_database(&config_with_database(), 3, kept.clone());
        let mut world = World::at_desk(seed, desk);
        world.begin_calls(2_000);
        // What was recorded before, and by whom nobody knows any more.
        let mut living = 0;
        for end in [9_000 + seed * 500, 13_000 + seed * 500] {
            world.go_on(end);
            let (answered, records) = (world.statistic("answered"), world.statistic("records"));
            let rows = count(&kept);
            // One that was answered in the last moment may not be there yet.
            assert!((0..=1).contains(&(living + answered - records - rows)), "seed {seed}: {rows} rows");
            living = rows;
            world.desk.restart();
            assert_eq!(world.statistic("active_dialogs"), rows, "seed {seed}: dialogs that came back");
            restored += rows;
        }
        world.go_on(LIMIT);
        world.pass(LIMIT + 200_000);
        let records = world.statistic("records") - world.statistic("answered");
        assert_eq!(records, living, "seed {seed}: records after the last restart");
        assert_eq!((world.statistic("active_dialogs"), count(&kept)), (0, 0), "seed {seed}: what is left");
    }
    assert!(restored > 50, "{restored} dialogs came back");
}
