//! Asking rtpproxy: one command, one line as the answer; what an engine can do; which engine a call belongs to.

use super::Rtpproxy;
use crate::cookies::{Cookies, with_cookie, without_cookie};
use crate::nodes::{NEVER, Node, Reporter, Set, choose};
use bytes::Bytes;
use drivers::exchange::{Address, Exchange, Trouble, ask_tcp, ask_unix, taped};
use host::Ctx;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The version of the protocol.
const VERSION: &[u8] = b"20040107";
/// What an engine must be able to do.
const NEEDED: &str = "20050322";

/// What an engine may be able to do besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    Repacketize,
    /// Payload types of the streams, and playing.
    Codecs,
    Autobridge,
    Notify,
    Stats,
    /// A notification socket may have a name of any kind.
    NotifyWild,
    AllStats,
    Ttl,
    Record,
    /// Several commands in one.
    Subcommand,
}

const FEATURES: [(Feature, &str); 10] = [
    (Feature::Repacketize, "20071116"),
    (Feature::Codecs, "20081102"),
    (Feature::Autobridge, "20090810"),
    (Feature::Notify, "20081224"),
    (Feature::Stats, "20080403"),
    (Feature::NotifyWild, "20150617"),
    (Feature::AllStats, "20150420"),
    (Feature::Ttl, "20170313"),
    (Feature::Record, "20071218"),
    (Feature::Subcommand, "20191015"),
];

/// Bit of an engine that was asked what it can do.
const KNOWN: u32 = 1 << 31;

pub fn has(node: &Node, feature: Feature) -> bool {
    node.features.load(Ordering::Relaxed) & (1 << feature as u32) != 0
}

/// The number of an error, `E7`; `None`: the answer is none.
pub fn error_in(answer: &[u8]) -> Option<i64> {
    let number = answer.strip_prefix(b"E")?.trim_ascii();
    Some(std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()).unwrap_or(-1))
}

/// The means of a worker to ask. It owns what it needs.
pub struct Asking {
    pub module: Arc<Rtpproxy>,
    exchange: Exchange<Cookies>,
    reporter: Reporter,
}

impl Asking {
    pub fn new(ctx: &mut Ctx, module: &Arc<Rtpproxy>) -> Asking {
        let (exchange, reporter) = (Exchange::on(ctx), Reporter::new(ctx, super::TOLD));
        Asking { module: module.clone(), exchange, reporter }
    }

    /// The engine of a set for a Call-ID. When none is in order, all are asked whether they are back. `refused`: those
    /// that have refused this command.
    pub async fn choose(&self, set: &Set, call_id: &[u8], refused: &[u32]) -> Option<Arc<Node>> {
        let due = set.nodes.iter().filter(|n| n.is_due(self.reporter.now()) && !refused.contains(&n.index));
        crate::nodes::source::all(due.map(|node| self.probe(node))).await;
        let passed = |node: &Node| refused.contains(&node.index);
        while let Some(node) = choose(set, call_id, passed) {
            if node.features.load(Ordering::Relaxed) & KNOWN != 0 || self.probe(&node).await {
                return Some(node);
            }
            if !node.is_disabled() {
                return None;
            }
        }
        if set.nodes.len() > 1 {
            let again = set.nodes.iter().filter(|n| !refused.contains(&n.index));
            crate::nodes::source::all(again.map(|node| self.probe(node))).await;
        }
        choose(set, call_id, passed)
    }

    /// The engine with this name, when it is in order.
    pub async fn named(&self, url: &[u8]) -> Option<Arc<Node>> {
        let sets = self.module.sets.get();
        let node = sets.nodes().find(|node| node.url.as_bytes() == url)?.clone();
        let usable = !node.is_disabled() || node.is_due(self.reporter.now()) && self.probe(&node).await;
        usable.then_some(node)
    }

    /// Asks an engine for its version and what it can do.
    pub async fn probe(&self, node: &Arc<Node>) -> bool {
        if node.is_disabled() && node.recheck() == NEVER {
            return false;
        }
        let Some(version) = self.send(node, b"V").await else { return false };
        if version.trim_ascii() != VERSION {
            let version = String::from_utf8_lossy(&version).trim().to_string();
            self.out_of_order(node, &format!("it speaks version {version} of the protocol"));
            return false;
        }
        match self.can(node, NEEDED).await {
            None => return false,
            Some(false) => {
                self.out_of_order(node, "it lacks what every command needs");
                return false;
            }
            Some(true) => {}
        }
        let mut features = KNOWN;
        for (feature, version) in FEATURES {
            if self.can(node, version).await == Some(true) {
                features |= 1 << feature as u32;
            }
        }
        node.features.store(features, Ordering::Relaxed);
        self.reporter.found(node);
        true
    }

    async fn can(&self, node: &Arc<Node>, version: &str) -> Option<bool> {
        let answer = self.send(node, format!("VF {version}").as_bytes()).await?;
        Some(answer.trim_ascii() == b"1")
    }

    /// The engine does not do what it should: other calls go to other engines.
    pub fn out_of_order(&self, node: &Arc<Node>, why: &str) {
        self.reporter.lost(node, why, self.module.disable_s);
    }

    /// The answer of one engine, without its cookie; one that does not answer is out of order from then on.
    pub async fn send(&self, node: &Arc<Node>, command: &[u8]) -> Option<Bytes> {
        let question = || format!("{}: {}", node.url, String::from_utf8_lossy(command));
        match taped("rtpproxy", question, self.over_wire(node, command)).await {
            Ok(answer) => {
                node.answered(self.reporter.now());
                Some(answer)
            }
            Err(Trouble::Full) => {
                host::error!("rtpproxy", "{}: too many commands wait for it", node.url);
                None
            }
            Err(Trouble::Io(why)) => {
                self.exchange.forget(&node.peer);
                self.out_of_order(node, &why);
                None
            }
            Err(Trouble::Silent(_)) => {
                self.exchange.forget(&node.peer);
                self.out_of_order(node, "it does not answer");
                None
            }
        }
    }

    async fn over_wire(&self, node: &Node, command: &[u8]) -> Result<Bytes, Trouble<String>> {
        let patience = &self.module.patience;
        let whole = |text: &[u8]| text.ends_with(b"\n");
        let line = || [command, b"\n"].concat();
        match &node.peer.address {
            Address::Unix(path) => ask_unix(path, &line(), patience, whole).await.map(Bytes::from),
            Address::Tcp { .. } => ask_tcp(&node.peer, &line(), patience, whole).await.map(Bytes::from),
            _ => self.over_socket(node, command).await,
        }
    }

    async fn over_socket(&self, node: &Node, command: &[u8]) -> Result<Bytes, Trouble<String>> {
        let mut question = self.exchange.open(&node.peer).await?;
        let packet = with_cookie(question.name(), command);
        let patience = &self.module.patience;
        question.ask(&packet, patience, |answer| Ok::<_, String>(without_cookie(answer))).await
    }
}
