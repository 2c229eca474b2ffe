//! Asking engines: the one that a call belongs to, and another one when that fails.

use super::Rtpengine;
use super::bencode::{self, Dict};
use super::command::{Command, Op};
use crate::cookies::{Cookies, with_cookie, without_cookie};
use crate::nodes::{NEVER, Node, Reporter, Set, choose};
use bytes::Bytes;
use drivers::exchange::{
    Address, Exchange, Patience, Trouble, Verdict, ask_tcp, ask_unix, first_of, fresh_name, taped,
};
use host::Ctx;
use std::cell::RefCell;
use std::sync::Arc;

/// Errors of an engine that another engine may not have, compared without case.
const ELSEWHERE: [&str; 5] = [
    "Parallel session limit reached",
    "Ran out of ports",
    "CPU usage limit exceeded",
    "Load limit exceeded",
    "Bandwidth limit exceeded",
];

/// What an engine said, `result: error` too.
pub struct Answered {
    pub node: Arc<Node>,
    pub dict: Dict,
}

/// Which engines a command may go to.
#[derive(Clone, Default)]
pub struct Target {
    /// `None`: none is configured.
    pub set: Option<Arc<Set>>,
    /// The script names an engine: an offer falls back on others, no other command does.
    pub forced: Option<Bytes>,
    /// The engine that had the call until now: others are asked when it is gone, for an offer.
    pub known: Option<Bytes>,
}

/// The means of a worker to ask. It owns what it needs.
pub struct Asking {
    module: Arc<Rtpengine>,
    exchange: Exchange<Cookies>,
    reporter: Reporter,
}

impl Asking {
    pub fn new(ctx: &mut Ctx, module: &Arc<Rtpengine>) -> Asking {
        let (exchange, reporter) = (Exchange::on(ctx), Reporter::new(ctx, super::TOLD));
        Asking { module: module.clone(), exchange, reporter }
    }

    /// The error is what `error_pv` gets.
    pub async fn run(&self, command: &Command, target: Target) -> Result<Answered, String> {
        let Some(set) = &target.set else { return Err(NONE.into()) };
        let payload = command.dict.encode();
        let refused: RefCell<Vec<u32>> = RefCell::default();
        let failed = RefCell::new(None);
        let reason: RefCell<Option<String>> = RefCell::default();
        let mut first = true;
        let next = || {
            let passed = |node: &Node| refused.borrow().contains(&node.index);
            let by_hash = || choose(set, &command.call_id, passed);
            let named = |url: &Bytes| set.find(url).filter(|node| !passed(node)).cloned();
            let may_fall_back = command.op == Op::Offer;
            match (std::mem::take(&mut first), &target.forced, &target.known) {
                (true, Some(url), _) => named(url).or_else(|| may_fall_back.then(by_hash).flatten()),
                (false, Some(_), _) if !may_fall_back => None,
                (true, None, Some(url)) => {
                    let known = named(url).filter(|node| !node.is_disabled());
                    known.or_else(|| may_fall_back.then(by_hash).flatten())
                }
                _ => by_hash(),
            }
        };
        let asked = first_of(next, async |node: Arc<Node>| {
            if !self.is_usable(&node).await {
                refused.borrow_mut().push(node.index);
                return Verdict::Next(());
            }
            let Some(answer) = self.send(&node, &payload).await else {
                refused.borrow_mut().push(node.index);
                return Verdict::Next(());
            };
            let Some(dict) = bencode::decode(&answer) else {
                host::error!("rtpengine", "{}: an answer that cannot be read", node.url);
                if failed.replace(Some(node.index)) == Some(node.index) {
                    refused.borrow_mut().push(node.index);
                }
                reason.replace(Some("failed to decode bencoded reply".to_string()));
                return Verdict::Next(());
            };
            match self.elsewhere(&node, &dict) {
                Some(why) => {
                    refused.borrow_mut().push(node.index);
                    reason.replace(Some(why));
                    Verdict::Next(())
                }
                None => Verdict::Final(Ok(Answered { node, dict })),
            }
        });
        match asked.await {
            Some(Ok(answered)) => Ok(answered),
            _ => Err(reason.into_inner().unwrap_or_else(|| NONE.into())),
        }
    }

    /// Why another engine is to be asked.
    fn elsewhere(&self, node: &Node, dict: &Dict) -> Option<String> {
        if dict.text("result").is_none_or(|result| result != "error") {
            return None;
        }
        let reason = dict.text("error-reason").map(|r| String::from_utf8_lossy(r).into_owned());
        match &reason {
            Some(reason) => host::error!("rtpengine", "{}: {reason}", node.url),
            None => host::error!("rtpengine", "{}: an error without a reason", node.url),
        }
        let reason = reason.unwrap_or_default();
        let known = ELSEWHERE.iter().any(|one| one.eq_ignore_ascii_case(&reason));
        let wanted = self.module.failover.iter().any(|pattern| pattern.is_match(reason.as_bytes()));
        (known || wanted).then_some(reason)
    }

    /// One that is out of order is asked whether it is back, when it is time for that.
    async fn is_usable(&self, node: &Arc<Node>) -> bool {
        if !node.is_disabled() {
            return true;
        }
        node.recheck() <= self.reporter.now() && self.ping(node).await
    }

    /// Asks an engine whether it is there.
    pub async fn ping(&self, node: &Arc<Node>) -> bool {
        if node.is_disabled() && node.recheck() == NEVER {
            return false;
        }
        let mut dict = Dict::default();
        dict.set_text("command", "ping");
        let Some(answer) = self.send(node, &dict.encode()).await else { return false };
        let pong = bencode::decode(&answer).is_some_and(|d| d.text("result").is_some_and(|r| r == "pong"));
        if pong {
            self.reporter.found(node);
        } else {
            self.reporter.lost(node, "it answers something else than pong", self.module.disable_s);
        }
        pong
    }

    /// The answer of one engine; one that does not answer is out of order from then on.
    async fn send(&self, node: &Arc<Node>, payload: &Bytes) -> Option<Bytes> {
        let patience = &self.module.patience;
        let question = || format!("{}: {}", node.url, String::from_utf8_lossy(payload));
        let why = match taped("rtpengine", question, self.over_wire(node, payload, patience)).await {
            Ok(answer) => {
                node.answered(self.reporter.now());
                return Some(answer);
            }
            Err(Trouble::Full) => {
                host::error!("rtpengine", "{}: too many commands wait for it", node.url);
                return None;
            }
            Err(Trouble::Io(why)) => why,
            Err(Trouble::Silent(_)) => "it does not answer".to_string(),
        };
        self.exchange.forget(&node.peer);
        self.reporter.lost(node, &why, self.module.disable_s);
        None
    }

    async fn over_wire(
        &self,
        node: &Node,
        payload: &Bytes,
        patience: &Patience,
    ) -> Result<Bytes, Trouble<String>> {
        match &node.peer.address {
            Address::Unix(path) => {
                let whole = |text: &[u8]| bencode::decode(&Bytes::copy_from_slice(text)).is_some();
                ask_unix(path, payload, patience, whole).await.map(Bytes::from)
            }
            Address::Tcp { .. } => {
                // One connection a question; a cookie that the engine saw before gets the answer of that time.
                let whole = |text: &[u8]| bencode::decode(&without_cookie(text.to_vec())).is_some();
                let packet = with_cookie(fresh_name::<Cookies>(), payload);
                let asked = ask_tcp(&node.peer, &packet, patience, whole).await;
                asked.map(without_cookie)
            }
            _ => self.over_socket(node, payload, patience).await,
        }
    }

    async fn over_socket(
        &self,
        node: &Node,
        payload: &Bytes,
        patience: &Patience,
    ) -> Result<Bytes, Trouble<String>> {
        let mut question = self.exchange.open(&node.peer).await?;
        let packet = with_cookie(question.name(), payload);
        question.ask(&packet, patience, |answer| Ok::<_, String>(without_cookie(answer))).await
    }
}

const NONE: &str = "no available proxies";
