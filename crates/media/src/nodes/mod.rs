//! Engines in sets: how they are written, which one a call gets, and which are out of order. Shared by all workers.

mod choice;
pub mod manage;
mod reporter;
pub mod source;

pub use choice::choose;
pub use reporter::{Reporter, Told, ticks};

use drivers::exchange::{Address, Family, Peer};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// `recheck_ticks` of an engine that an operator has disabled: it is not tried again.
pub const NEVER: u32 = u32::MAX;
/// The set that counts when none is said.
pub const DEFAULT_SET: i64 = 0;
/// The port of an engine that is written without one.
const PORT: u16 = 22_222;

/// An engine.
#[derive(Debug)]
pub struct Node {
    /// As it was written, without its weight.
    pub url: String,
    pub peer: Arc<Peer>,
    pub set: i64,
    /// The address to show in the place of the engine's own.
    pub advertised: Option<String>,
    /// Its number among all engines.
    pub index: u32,
    pub weight: u32,
    disabled: AtomicBool,
    /// Seconds since the start at which one that is disabled is tried again.
    recheck: AtomicU32,
    /// Seconds since the start at which it answered last.
    last_answer: AtomicU32,
    /// What it can do, for whoever asked it.
    pub features: AtomicU32,
}

impl Node {
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    pub fn recheck(&self) -> u32 {
        self.recheck.load(Ordering::Relaxed)
    }

    pub fn last_answer(&self) -> u32 {
        self.last_answer.load(Ordering::Relaxed)
    }

    pub fn answered(&self, now: u32) {
        self.last_answer.store(now, Ordering::Relaxed);
    }

    /// Out of order until `recheck`. True: it was not before.
    pub fn disable(&self, recheck: u32) -> bool {
        // What an operator said stays.
        if !self.is_disabled() || self.recheck() != NEVER {
            self.recheck.store(recheck, Ordering::Relaxed);
        }
        !self.disabled.swap(true, Ordering::Relaxed)
    }

    /// In order. True: it was not before.
    pub fn enable(&self) -> bool {
        self.set(false, 0)
    }

    /// What an operator says. True: that changes something.
    pub fn set(&self, disabled: bool, recheck: u32) -> bool {
        self.recheck.store(recheck, Ordering::Relaxed);
        self.disabled.swap(disabled, Ordering::Relaxed) != disabled
    }

    /// It may be asked whether it is in order again.
    pub fn is_due(&self, now: u32) -> bool {
        self.is_disabled() && self.recheck() != NEVER && self.recheck() <= now
    }
}

/// An engine that is written in a way that this module has no means for.
pub fn refuse_websockets(sets: &Sets) -> Result<(), String> {
    match sets.nodes().find(|node| matches!(node.peer.address, Address::Ws { .. })) {
        Some(node) => Err(format!("{}: engines are not reached over WebSocket; use udp: or tcp:", node.url)),
        None => Ok(()),
    }
}

/// How engines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writing {
    /// One that stands in a set twice is one.
    Rtpengine,
    /// An address to show may follow, `|203.0.113.1`; one that stands in a set twice is two.
    Rtpproxy,
}

/// Engines that share the load.
#[derive(Clone, Debug)]
pub struct Set {
    pub id: i64,
    pub nodes: Vec<Arc<Node>>,
}

impl Set {
    pub fn find(&self, url: &[u8]) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.url.as_bytes() == url)
    }
}

/// All sets, in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    pub list: Vec<Arc<Set>>,
    next_index: u32,
}

impl Sets {
    pub fn get(&self, id: i64) -> Option<&Arc<Set>> {
        self.list.iter().find(|set| set.id == id)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.list.iter().flat_map(|set| &set.nodes)
    }

    /// Adds the engines of a line: `[set ==] address[|advertised][=weight] ...`, to `default` where no set is named. The
    /// error is what a user should read.
    pub fn add_line(&mut self, line: &str, default: i64, writing: Writing) -> Result<(), String> {
        let (id, engines) = match line.split_once("==") {
            Some((id, engines)) => {
                let id = id.trim();
                let id = id.parse::<u32>().map_err(|_| format!("`{id}` is no number of a set"))?;
                (i64::from(id), engines)
            }
            None => (default, line),
        };
        if line.trim().is_empty() {
            return Ok(());
        }
        self.add(id, engines, writing, &Sets::default())
    }

    /// The same with the number of the set beside it, as in a database. Engines that `old` has are taken over.
    pub fn add(&mut self, id: i64, engines: &str, writing: Writing, old: &Sets) -> Result<(), String> {
        if engines.trim().is_empty() {
            return Err("a set without engines".into());
        }
        let mut nodes = self.get(id).map_or_else(Vec::new, |set| set.nodes.clone());
        for word in engines.split_ascii_whitespace() {
            let (url, weight) = match word.split_once('=') {
                Some((url, weight)) => (url, leading_number(weight)),
                None => (word, 1),
            };
            let (url, advertised) = match url.rsplit_once('|') {
                Some((url, advertised)) if writing == Writing::Rtpproxy => {
                    (url, Some(advertised.to_string()))
                }
                _ => (url, None),
            };
            if writing == Writing::Rtpengine && nodes.iter().any(|node| node.url == url) {
                host::notice!("media", "{url} stands in set {id} already");
                continue;
            }
            let known = old.get(id).and_then(|set| set.find(url.as_bytes()));
            nodes.push(match known {
                Some(node) => node.clone(),
                None => Arc::new(self.node(url, weight, advertised, id)?),
            });
        }
        let set = Arc::new(Set { id, nodes });
        match self.list.iter_mut().find(|set| set.id == id) {
            Some(place) => *place = set,
            None => self.list.push(set),
        }
        Ok(())
    }

    fn node(&mut self, url: &str, weight: u32, advertised: Option<String>, set: i64) -> Result<Node, String> {
        let address = address(url)?;
        let index = self.next_index;
        self.next_index += 1;
        Ok(Node {
            url: url.to_string(),
            peer: Arc::new(Peer::new(address, None)),
            set,
            advertised,
            index,
            weight,
            disabled: AtomicBool::new(false),
            recheck: AtomicU32::new(0),
            last_answer: AtomicU32::new(0),
            features: AtomicU32::new(0),
        })
    }

    /// A fresh list of engines whose numbers go on behind these.
    pub fn following(&self) -> Sets {
        Sets { list: Vec::new(), next_index: self.next_index }
    }

    /// Sets that have no engines any more are still listed, and all stand where they stood.
    pub fn keep_empty(&mut self, old: &Sets) {
        let gone: Vec<i64> = old.list.iter().map(|set| set.id).filter(|id| self.get(*id).is_none()).collect();
        self.list.extend(gone.into_iter().map(|id| Arc::new(Set { id, nodes: Vec::new() })));
        self.order_as(old);
    }

    /// Sets stand where they stood, new ones behind them.
    pub fn order_as(&mut self, old: &Sets) {
        let place = |id: i64| old.list.iter().position(|set| set.id == id).unwrap_or(usize::MAX);
        self.list.sort_by_key(|set| place(set.id));
    }
}

/// The digits that a text begins with.
fn leading_number(text: &str) -> u32 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// `udp:host[:port]`, `udp:[v6]:port`, `udp6:...`, `tcp:`, `ws://host:port/path`, `unix:path` or a path.
fn address(url: &str) -> Result<Address, String> {
    let lower = url.to_ascii_lowercase();
    let after = |scheme: &str| lower.starts_with(scheme).then(|| &url[scheme.len()..]);
    if let Some(rest) = after("udp:") {
        let (host, port, family) = place(rest, Family::V4)?;
        return Ok(Address::Udp { host, port, family });
    }
    if let Some(rest) = after("udp6:") {
        let (host, port, family) = place(rest, Family::V6)?;
        return Ok(Address::Udp { host, port, family });
    }
    if let Some(rest) = after("tcp6:") {
        let (host, port, family) = place(rest, Family::V6)?;
        return Ok(Address::Tcp { host, port, family });
    }
    if let Some(rest) = after("tcp:") {
        let (host, port, family) = place(rest, Family::Any)?;
        return Ok(Address::Tcp { host, port, family });
    }
    if let Some(rest) = after("ws://") {
        let (at, resource) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port, family) = place(at, Family::Any)?;
        let resource = format!("/{resource}");
        return Ok(Address::Ws { host, port, family, resource, protocol: "ng.rtpengine.com" });
    }
    let path = after("unix:").or_else(|| after("cunix:")).unwrap_or(url);
    if path == url && !url.contains('/') && !url.is_empty() {
        host::warn!("media", "`{url}` is taken for a Unix socket: udp:HOST:PORT is an address");
    }
    if path.is_empty() || path.contains("://") {
        return Err(format!(
            "`{url}` is no address of an engine: udp:HOST:PORT, tcp:HOST:PORT or unix:/PATH"
        ));
    }
    Ok(Address::Unix(path.into()))
}

fn place(text: &str, family: Family) -> Result<(String, u16, Family), String> {
    let bad = || format!("`{text}` is no address of an engine");
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(bad)?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| bad())?,
            None => PORT,
        };
        return Ok((host.to_string(), port, Family::V6));
    }
    // An address of IPv6 without brackets has no port.
    if family == Family::V6 && text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text.to_string(), PORT, family));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (text, PORT),
    };
    if host.is_empty() { Err(bad()) } else { Ok((host.to_string(), port, family)) }
}

/// The sets of a server, replaced as a whole by a reload.
#[derive(Debug, Default)]
pub struct Shelf(RwLock<Arc<Sets>>);

impl Shelf {
    pub fn get(&self) -> Arc<Sets> {
        self.0.read().clone()
    }

    pub fn set(&self, sets: Sets) {
        *self.0.write() = Arc::new(sets);
    }
}

#[cfg(test)]
mod tests;
