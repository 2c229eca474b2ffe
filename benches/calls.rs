//! Open-loop calls for benches/overload.py: as many a second as it is told, whether they are answered or not, with the
//! retransmissions of RFC 3261. Caller and callee in one program, a thread each; the standard library only, so that
//! `rustc -O` builds it in a moment.
//!
//!     calls SERVER WINDOW RATE:SECONDS... < caller's socket > callee's socket
//!
//! The sockets are bound by whoever starts it, with large buffers. WINDOW > 0: instead of a rate, so many calls are kept
//! going. At the end one line on stderr for each tenth of a second: when, and of the calls that began then how many there
//! were, were completed, were refused, failed, retransmissions; and of REGISTERs that are sent beside (20 a second): sent,
//! answered 200, their slowest answer in ms. A call is completed when its BYE is answered within 4 s of its INVITE, else
//! failed.
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const T1: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(4);
/// What is still going on at the end is waited for.
const REST: Duration = Duration::from_millis(4200);

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Answers everything: INVITE with 180 and 200, which it repeats until the ACK comes; anything else with 200.
fn callee(socket: UdpSocket) {
    let own = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 65536];
    let mut open: HashMap<String, (Vec<u8>, SocketAddr)> = HashMap::new();
    let mut again: VecDeque<(Instant, String, Duration)> = VecDeque::new();
    loop {
        let received = socket.recv_from(&mut buffer);
        let now = Instant::now();
        while again.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, call, pause)) = again.pop_front() else { break };
            let Some((bytes, to)) = open.get(&call) else { continue };
            let _ = socket.send_to(bytes, to);
            if pause < Duration::from_secs(4) {
                again.push_back((now + pause * 2, call, pause * 2));
                again.make_contiguous().sort_by_key(|(at, ..)| *at);
            } else {
                open.remove(&call);
            }
        }
        let Ok((n, from)) = received else { continue };
        let Ok(text) = std::str::from_utf8(&buffer[..n]) else { continue };
        let Some(call) = header(text, "Call-ID") else { continue };
        if text.starts_with("ACK ") {
            open.remove(call);
            continue;
        }
        let answer = |status: &str| {
            let mut out = format!("SIP/2.0 {status}\r\n");
            for line in text.split("\r\n") {
                if ["Via: ", "Record-Route: ", "From: ", "Call-ID: ", "CSeq: "]
                    .iter()
                    .any(|n| line.starts_with(n))
                {
                    out += line;
                    out += "\r\n";
                } else if line.starts_with("To: ") {
                    out += line;
                    out += if line.contains(";tag=") { "\r\n" } else { ";tag=callee\r\n" };
                }
            }
            out + &format!("Contact: <sip:bob@{own}>\r\nContent-Length: 0\r\n\r\n")
        };
        if !text.starts_with("INVITE ") {
            let _ = socket.send_to(answer("200 OK").as_bytes(), from);
            continue;
        }
        let known = open.contains_key(call);
        let _ = socket.send_to(answer("180 Ringing").as_bytes(), from);
        let good = answer("200 OK").into_bytes();
        let _ = socket.send_to(&good, from);
        if !known {
            open.insert(call.to_owned(), (good, from));
            again.push_back((now + T1, call.to_owned(), T1));
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Inviting,
    Ringing,
    Ending,
    Over,
}

struct Call {
    began: Instant,
    state: State,
    invite: Vec<u8>,
    bye: Vec<u8>,
    ack: Vec<u8>,
    pause: Duration,
    due: Instant,
}

#[derive(Default)]
struct Tenth {
    offered: u32,
    completed: u32,
    refused: u32,
    failed: u32,
    again: u32,
    asked: u32,
    answered: u32,
    slowest_ms: f64,
}

struct Caller {
    socket: UdpSocket,
    own: SocketAddr,
    server: SocketAddr,
    calls: Vec<Call>,
    /// Calls by when they are to be looked at.
    timers: std::collections::BinaryHeap<std::cmp::Reverse<(Instant, usize)>>,
    registers: Vec<Instant>,
    open: usize,
    start: Instant,
    /// By when they began.
    tenths: Vec<Tenth>,
}

impl Caller {
    fn send(&self, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, self.server);
    }

    fn request(&self, method: &str, uri: &str, n: usize, cseq: u32, to: &str, more: &str) -> Vec<u8> {
        let own = self.own;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{n};rport\r\nMax-Forwards: 70\r\n\
             {more}From: <sip:caller@{own}>;tag=c{n}\r\nTo: {to}\r\nCall-ID: {n}-{port}@{own}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:caller@{own}>\r\nUser-Agent: benches/calls.rs\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\n\
             Supported: replaces, timer\r\nContent-Length: 0\r\n\r\n",
            port = own.port()
        )
        .into_bytes()
    }

    fn begin(&mut self, now: Instant) {
        let n = self.calls.len();
        let uri = format!("sip:bob@{}", self.server);
        let invite = self.request("INVITE", &uri, n, 1, &format!("<{uri}>"), "");
        self.send(&invite);
        self.calls.push(Call {
            began: now,
            state: State::Inviting,
            invite,
            bye: Vec::new(),
            ack: Vec::new(),
            pause: T1,
            due: now + T1,
        });
        self.timers.push(std::cmp::Reverse((now + T1, n)));
        self.open += 1;
        self.tenth(now).offered += 1;
    }

    fn register(&mut self, now: Instant) {
        let n = 1_000_000_000 + self.registers.len();
        let uri = format!("sip:{}", self.server);
        self.send(&self.request("REGISTER", &uri, n, 1, &format!("<sip:caller@{}>", self.server), ""));
        self.registers.push(now);
        self.tenth(now).asked += 1;
    }

    fn tenth(&mut self, began: Instant) -> &mut Tenth {
        let at = ((began - self.start).as_secs_f64() * 10.0) as usize;
        if self.tenths.len() <= at {
            self.tenths.resize_with(at + 1, Tenth::default);
        }
        &mut self.tenths[at]
    }

    fn over(&mut self, n: usize) {
        let call = &mut self.calls[n];
        (call.state, call.invite, call.bye) = (State::Over, Vec::new(), Vec::new());
        self.open -= 1;
    }

    fn look(&mut self, now: Instant, n: usize) {
        let call = &mut self.calls[n];
        if call.state == State::Over || now < call.due {
            return;
        }
        if now >= call.began + PATIENCE {
            let began = call.began;
            self.tenth(began).failed += 1;
            return self.over(n);
        }
        let (mut again, began) = (false, call.began);
        if call.state != State::Ringing {
            let bytes = if call.state == State::Inviting { &call.invite } else { &call.bye };
            let _ = self.socket.send_to(bytes, self.server);
            again = true;
        }
        call.pause *= 2;
        call.due = (now + call.pause).min(call.began + PATIENCE);
        self.timers.push(std::cmp::Reverse((call.due, n)));
        self.tenth(began).again += u32::from(again);
    }

    fn heard(&mut self, now: Instant, text: &str) {
        let number = |id: &str| id.split('-').next()?.parse::<usize>().ok();
        let Some(n) = header(text, "Call-ID").and_then(number) else { return };
        let Some(status) = text.get(8..11).and_then(|code| code.trim().parse::<u16>().ok()) else { return };
        let Some(cseq) = header(text, "CSeq") else { return };
        if cseq.ends_with("REGISTER") {
            let began = self.registers[n - 1_000_000_000];
            let tenth = self.tenth(began);
            tenth.slowest_ms = tenth.slowest_ms.max((now - began).as_secs_f64() * 1000.0);
            tenth.answered += u32::from(status == 200);
            return;
        }
        let Some(to) = header(text, "To") else { return };
        let (state, began) = (self.calls[n].state, self.calls[n].began);
        if cseq.ends_with("INVITE") {
            match (status, state) {
                (..200, State::Inviting) => self.calls[n].state = State::Ringing,
                (200..300, State::Inviting | State::Ringing) => {
                    let routes: Vec<&str> =
                        text.split("\r\n").filter_map(|l| l.strip_prefix("Record-Route: ")).collect();
                    let routes: String = routes.iter().rev().map(|r| format!("Route: {r}\r\n")).collect();
                    let target = header(text, "Contact").unwrap_or("").trim_matches(['<', '>']).to_owned();
                    let ack = self.request("ACK", &target, n, 1, to, &routes);
                    let bye = self.request("BYE", &target, n, 2, to, &routes);
                    self.send(&ack);
                    self.send(&bye);
                    let call = &mut self.calls[n];
                    (call.state, call.bye, call.ack) = (State::Ending, bye, ack);
                    (call.pause, call.due) = (T1, now + T1);
                    self.timers.push(std::cmp::Reverse((now + T1, n)));
                }
                (200..300, _) => self.send(&self.calls[n].ack),
                (300.., _) => {
                    let uri = format!("sip:bob@{}", self.server);
                    let ack = self.request("ACK", &uri, n, 1, to, "");
                    let own_branch = String::from_utf8_lossy(&ack).replace("z9hG4bKACK", "z9hG4bKINVITE");
                    self.send(own_branch.as_bytes());
                    if state != State::Over {
                        self.tenth(began).refused += 1;
                        self.over(n);
                    }
                }
                _ => {}
            }
        } else if cseq.ends_with("BYE") && status >= 200 && state == State::Ending {
            match status {
                200 => self.tenth(began).completed += 1,
                _ => self.tenth(began).failed += 1,
            }
            self.over(n);
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let server: SocketAddr = words[0].parse().expect("SERVER");
    let window: usize = words[1].parse().expect("WINDOW");
    let phases: Vec<(f64, f64)> = words[2..]
        .iter()
        .map(|w| {
            w.split_once(':').map(|(r, s)| (r.parse().unwrap(), s.parse().unwrap())).expect("RATE:SECONDS")
        })
        .collect();
    let socket = UdpSocket::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let other = UdpSocket::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    socket.set_nonblocking(true).unwrap();
    std::thread::spawn(move || callee(other));
    let own = socket.local_addr().unwrap();
    let start = Instant::now();
    let mut caller = Caller {
        socket,
        own,
        server,
        calls: Vec::new(),
        timers: Default::default(),
        registers: Vec::new(),
        open: 0,
        start,
        tenths: Vec::new(),
    };
    let total: f64 = phases.iter().map(|(_, s)| s).sum();
    let (mut due, mut last) = (0.0, start);
    let mut buffer = [0; 65536];
    loop {
        let now = Instant::now();
        let at = (now - start).as_secs_f64();
        if at >= total + REST.as_secs_f64() {
            break;
        }
        let mut idle = true;
        let mut left = at;
        let phase = phases.iter().find(|(_, seconds)| {
            let here = left < *seconds;
            left -= seconds;
            here
        });
        let rate = phase.map_or(0.0, |(rate, _)| *rate);
        due += rate * (now - last).as_secs_f64();
        last = now;
        if window > 0 {
            due = if phase.is_some() { window.saturating_sub(caller.open) as f64 } else { 0.0 };
        }
        for _ in 0..(due as usize).min(64) {
            caller.begin(now);
            due -= 1.0;
            idle = false;
        }
        if phase.is_some() && caller.registers.len() < (at * 20.0) as usize {
            caller.register(now);
        }
        for _ in 0..64 {
            match caller.socket.recv(&mut buffer) {
                Ok(n) => {
                    idle = false;
                    if let Ok(text) = std::str::from_utf8(&buffer[..n]) {
                        caller.heard(now, text);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        while caller.timers.peek().is_some_and(|std::cmp::Reverse((at, _))| *at <= now) {
            let Some(std::cmp::Reverse((_, n))) = caller.timers.pop() else { break };
            caller.look(now, n);
        }
        if idle {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    for (n, t) in caller.tenths.iter().enumerate() {
        let _ = writeln!(
            std::io::stderr(),
            "{:.1} {} {} {} {} {} {} {} {:.1}",
            n as f64 / 10.0,
            t.offered,
            t.completed,
            t.refused,
            t.failed,
            t.again,
            t.asked,
            t.answered,
            t.slowest_ms
        );
    }
}
