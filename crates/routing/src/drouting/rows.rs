//! Rows of the tables, page after page, made into what calls are routed by. A row that cannot be used is said with its
//! table and key; the others load.

use super::data::{Carrier, Data, Ends, Gateway, Order, Probing, Traits};
use super::lists::{self, IdBytes, Known};
use super::tree::{Alphabet, Builder, NewRule, Unfit};
use crate::destinations::{Destination, State, kept};
use crate::qrouting::rated::{Rated, Unrated};
use bytes::Bytes;
use host::Shared;
use host::db::{Name, Row, Rows};
use host::shared::socket_named;
use md5::{Digest, Md5};
use modules::timerec::Recurrence;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub const GATEWAYS: [&str; 10] =
    ["id", "gwid", "address", "strip", "pri_prefix", "type", "attrs", "probe_mode", "socket", "state"];
pub const CARRIERS: [&str; 7] = ["id", "carrierid", "flags", "sort_alg", "gwlist", "attrs", "state"];
pub const RULES: [&str; 10] = [
    "ruleid",
    "groupid",
    "prefix",
    "timerec",
    "priority",
    "routeid",
    "gwlist",
    "sort_alg",
    "sort_profile",
    "attrs",
];

/// What is done with the sockets of gateways (`gw_socket_filter_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sockets {
    /// A gateway whose socket is none of ours is used without it.
    Any,
    Ignored,
    /// It is left out.
    Matching,
}

/// How rows are read.
pub struct Reading {
    pub alphabet: Alphabet,
    pub ids: IdBytes,
    pub sockets: Sockets,
    /// A gateway whose name has no address is left out.
    pub force_dns: bool,
    /// The state column counts.
    pub states: bool,
    pub checksum: bool,
}

/// How many rows were taken, and how many were not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub loaded: usize,
    pub discarded: usize,
}

impl Count {
    fn note(&mut self, taken: bool) {
        *(if taken { &mut self.loaded } else { &mut self.discarded }) += 1;
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub gateways: Count,
    pub carriers: Count,
    pub rules: Count,
}

/// Whether states go on from what was loaded before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum States {
    Inherited,
    OfTable,
}

/// Collects a load: gateways, then carriers, then rules.
pub struct Reader {
    shared: Arc<Shared>,
    reading: Arc<Reading>,
    old: Option<Arc<Data>>,
    states: States,
    gateways: BTreeMap<Bytes, Gateway>,
    carriers: BTreeMap<Bytes, Carrier>,
    ends: Ends,
    builder: Builder,
    traits: Vec<Traits>,
    known_traits: HashMap<[Bytes; 3], u32>,
    /// Rules with `Order::Quality`.
    unrated: Vec<Unrated>,
    hash: Option<Md5>,
    pub counts: Counts,
}

/// Bytes of the row alone, so that it does not hold on to its whole page.
fn own(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}

fn own_text(row: &Row<'_>, column: usize) -> Option<Bytes> {
    row.text(column).map(|text| own(&text))
}

/// A text that must be there.
fn needed(row: &Row<'_>, column: usize, names: &[&str]) -> Result<Bytes, String> {
    own_text(row, column).ok_or_else(|| format!("{} is NULL", names[column]))
}

/// A number; NULL is 0.
fn number(row: &Row<'_>, column: usize, names: &[&str]) -> Result<i64, String> {
    let value = row.at(column);
    if value.is_null() {
        return Ok(0);
    }
    value.int().ok_or_else(|| format!("{} is no number: {}", names[column], value.string()))
}

impl Reader {
    pub fn new(shared: Arc<Shared>, reading: Arc<Reading>, old: Option<Arc<Data>>, states: States) -> Reader {
        let builder = Builder::new(reading.alphabet.clone());
        let hash = reading.checksum.then(Md5::new);
        Reader {
            shared,
            reading,
            old,
            states,
            gateways: BTreeMap::new(),
            carriers: BTreeMap::new(),
            ends: Ends::default(),
            builder,
            traits: vec![Traits::default()],
            known_traits: HashMap::new(),
            unrated: Vec::new(),
            hash,
            counts: Counts::default(),
        }
    }

    pub fn read_gateways(&mut self, table: &Name, rows: &Rows) {
        for row in rows.iter() {
            let taken = match self.gateway(&row) {
                Ok(Some(gateway)) => {
                    if let Some(hash) = &mut self.hash {
                        add_gateway(hash, &gateway);
                    }
                    let id = gateway.id.clone();
                    let double = self.gateways.insert(id.clone(), gateway).is_some();
                    if double {
                        let id = String::from_utf8_lossy(&id);
                        host::error!(
                            "drouting",
                            "table {table}: gateway {id} is there twice: the later row counts"
                        );
                    }
                    !double
                }
                // Its socket is another server's.
                Ok(None) => continue,
                Err(why) => {
                    let (key, id) = (row.string(0), row.string(1));
                    host::error!("drouting", "table {table}, id {key}, gateway {id}: {why}: it is left out");
                    false
                }
            };
            self.counts.gateways.note(taken);
        }
    }

    fn gateway(&self, row: &Row<'_>) -> Result<Option<Gateway>, String> {
        let id = needed(row, 1, &GATEWAYS)?;
        if let Some(bad) = id.iter().find(|byte| !self.reading.ids.has(**byte)) {
            return Err(format!("an identifier cannot have `{}` (see extra_id_chars)", char::from(*bad)));
        }
        let written = needed(row, 2, &GATEWAYS)?;
        let (uri, address) = address(&written)?;
        let probing = match number(row, 7, &GATEWAYS)? {
            0 => Probing::Never,
            1 => Probing::WhileDisabled,
            2 => Probing::Always,
            other => return Err(format!("probe_mode goes from 0 to 2, not {other}")),
        };
        let state = if self.reading.states { number(row, 9, &GATEWAYS)? } else { 0 };
        let state = State::of_column(state).ok_or_else(|| format!("state goes from 0 to 2, not {state}"))?;
        let socket = match self.socket(&row.string(8)) {
            Ok(socket) => socket,
            Err(_) if self.reading.sockets == Sockets::Matching => return Ok(None),
            Err(why) => {
                let id = String::from_utf8_lossy(&id);
                host::error!("drouting", "gateway {id}: {why}: it is used without it");
                None
            }
        };
        let destination = Destination::new(&self.shared, &uri, socket, state)?;
        let old = self.old.as_ref().filter(|_| self.states == States::Inherited);
        let destination = match old.and_then(|old| old.ends.gateway(&id)) {
            Some(old) => {
                let kept = kept(Some(&old.destination), destination);
                kept.set_state(old.destination.state());
                kept
            }
            None => Arc::new(destination),
        };
        Ok(Some(Gateway {
            id,
            kind: number(row, 5, &GATEWAYS)?,
            address,
            strip: usize::try_from(number(row, 3, &GATEWAYS)?).unwrap_or(0),
            prefix: own_text(row, 4),
            attrs: own_text(row, 6).unwrap_or_default(),
            probing,
            destination,
        }))
    }

    /// The number of a socket; `None`: none is asked for.
    fn socket(&self, text: &str) -> Result<Option<u16>, String> {
        if text.is_empty() || self.reading.sockets == Sockets::Ignored {
            return Ok(None);
        }
        match socket_named(&self.shared.sockets, text) {
            Some(socket) => Ok(Some(socket)),
            None => Err(format!("this server does not listen on {text}")),
        }
    }

    /// Gateways whose names must be looked up before `settle`.
    pub fn destinations(&self) -> Vec<Arc<Destination>> {
        self.gateways.values().map(|gateway| gateway.destination.clone()).collect()
    }

    /// All gateways are read and looked up.
    pub fn settle(&mut self, table: &Name) {
        for (_, gateway) in std::mem::take(&mut self.gateways) {
            if gateway.destination.is_known() || !self.reading.force_dns {
                self.ends.gateways.push(gateway);
                continue;
            }
            let (id, address) =
                (String::from_utf8_lossy(&gateway.id), String::from_utf8_lossy(&gateway.address));
            host::error!("drouting", "table {table}, gateway {id}: {address} has no address: it is left out");
            self.counts.gateways.loaded -= 1;
            self.counts.gateways.discarded += 1;
        }
    }

    pub fn read_carriers(&mut self, table: &Name, rows: &Rows) {
        for row in rows.iter() {
            let carrier = self.carrier(table, &row);
            self.counts.carriers.note(carrier.is_ok());
            match carrier {
                Ok(carrier) => {
                    if let Some(hash) = &mut self.hash {
                        add_carrier(hash, &carrier, &self.ends);
                    }
                    self.carriers.insert(carrier.id.clone(), carrier);
                }
                Err(why) => {
                    let (key, id) = (row.string(0), row.string(1));
                    host::error!("drouting", "table {table}, id {key}, carrier {id}: {why}: it is left out");
                }
            }
        }
    }

    fn carrier(&self, table: &Name, row: &Row<'_>) -> Result<Carrier, String> {
        let id = needed(row, 1, &CARRIERS)?;
        let list = needed(row, 4, &CARRIERS)?;
        let known = SoFar(&self.ends, &self.carriers);
        let targets = lists::destinations(&list, &self.reading.ids, &known, |unknown| {
            let key = row.string(0);
            host::warn!("drouting", "table {table}, id {key}: there is no gateway {unknown}");
        })?;
        if targets.iter().any(|target| target.is_carrier) {
            return Err("a carrier cannot lead to carriers".into());
        }
        let off = self.reading.states && number(row, 6, &CARRIERS)? != 0;
        let old = self.old.as_ref().filter(|_| self.states == States::Inherited);
        let old = old.and_then(|old| old.ends.carrier(&id)).map(Carrier::is_off);
        let (flags, order) = (number(row, 2, &CARRIERS)?, Order::parse(&row.text(3).unwrap_or_default()));
        let attrs = own_text(row, 5).unwrap_or_default();
        let carrier = Carrier::new(id, targets, flags, order, attrs, off);
        if let Some(off) = old {
            carrier.set_off(off);
        }
        Ok(carrier)
    }

    /// All carriers are read.
    pub fn settle_carriers(&mut self) {
        self.ends.carriers = std::mem::take(&mut self.carriers).into_values().collect();
    }

    /// The error refuses the whole table.
    pub fn read_rules(&mut self, table: &Name, rows: &Rows) -> Result<(), String> {
        for row in rows.iter() {
            // As in the reference, where whoever wants no gateways writes an empty list.
            if row.at(6).is_null() {
                let key = row.string(0);
                return Err(format!("table {table}, ruleid {key}: gwlist is NULL: write '' for none"));
            }
            match self.rule(table, &row) {
                Ok(()) => self.counts.rules.loaded += 1,
                Err(bad) => {
                    let (key, why) = (row.string(0), bad.why);
                    host::error!("drouting", "table {table}, ruleid {key}: {why}: it is left out");
                    self.counts.rules.discarded += usize::from(bad.counts);
                }
            }
        }
        Ok(())
    }

    fn rule(&mut self, table: &Name, row: &Row<'_>) -> Result<(), BadRule> {
        let text = |column: usize| row.text(column).unwrap_or_default();
        let id = row.int(0).ok_or("ruleid is no number")?;
        let times = text(3);
        let traits = self.traits_of([times, text(5), text(7)])?;
        let list = text(6);
        let targets = lists::destinations(&list, &self.reading.ids, &self.ends, |unknown| {
            host::warn!("drouting", "table {table}, ruleid {id}: there is no gateway or carrier {unknown}");
        })
        .map_err(|why| BadRule { why, counts: false })?;
        let groups = lists::groups(&text(1))?;
        let (prefix, attrs) = (text(2), text(9));
        let priority = number(row, 4, &RULES)?;
        let rule = NewRule {
            id: id as i32,
            groups: &groups,
            prefix: &prefix,
            priority: priority as u32,
            destinations: &targets,
            attrs: &attrs,
            traits,
        };
        self.builder.add(&rule).map_err(|unfit| match unfit {
            Unfit::Prefix(byte) => {
                format!("a prefix cannot have `{}` (see extra_prefix_chars)", char::from(byte))
            }
            Unfit::TooLong => "its prefix or its attributes are too long".to_owned(),
            Unfit::TooMany => "there are too many rules".to_owned(),
        })?;
        if self.traits[traits as usize].order == Order::Quality {
            let profile = number(row, 8, &RULES)?;
            self.unrated.push(Unrated { id: id as i32, profile, targets });
        }
        if let Some(hash) = &mut self.hash {
            let priority = (priority as i32).to_le_bytes();
            for part in [&text(1)[..], &prefix, &priority, &attrs, &text(7), &list] {
                hash.update(part);
            }
        }
        Ok(())
    }

    /// The number of these traits: times, route, order.
    fn traits_of(&mut self, key: [Bytes; 3]) -> Result<u32, BadRule> {
        let [times, route, order] = &key;
        if times.is_empty() && route.is_empty() && Order::parse(order) == Order::Given {
            return Ok(0);
        }
        if let Some(known) = self.known_traits.get(&key) {
            return Ok(*known);
        }
        let parsed = match times.is_empty() {
            true => None,
            false => {
                let text = String::from_utf8_lossy(times);
                let parsed = Some(&*text).filter(|text| !text.trim().is_empty()).and_then(Recurrence::parse);
                let why = || BadRule { why: format!("`{text}` is no time recurrence"), counts: false };
                Some(parsed.ok_or_else(why)?)
            }
        };
        let route = Some(own(route)).filter(|route| !route.is_empty());
        self.traits.push(Traits { times: parsed, route, order: Order::parse(order) });
        let number = self.traits.len() as u32 - 1;
        self.known_traits.insert(key.map(|text| own(&text)), number);
        Ok(number)
    }

    /// What was read.
    pub fn finish(self) -> Data {
        let checksum = self.hash.map(|hash| format!("{:x}", hash.finalize()));
        let old = self.old.as_deref();
        let rated = self.unrated.iter().map(|rule| Arc::new(Rated::new(rule, &self.ends, old))).collect();
        Data { ends: self.ends, tree: self.builder.build(), traits: self.traits, rated, checksum }
    }
}

/// Gateways, and the carriers that were read until now.
struct SoFar<'a>(&'a Ends, &'a BTreeMap<Bytes, Carrier>);

impl Known for SoFar<'_> {
    fn number_of_gateway(&self, id: &[u8]) -> Option<u32> {
        self.0.number_of_gateway(id)
    }

    /// They have no numbers yet: what names one is malformed anyway.
    fn number_of_carrier(&self, id: &[u8]) -> Option<u32> {
        self.1.contains_key(id).then_some(0)
    }
}

/// What counts of a gateway and of a carrier, byte for byte as in the reference.
fn add_gateway(hash: &mut Md5, gateway: &Gateway) {
    let (kind, strip) = ((gateway.kind as i32).to_le_bytes(), (gateway.strip as i32).to_le_bytes());
    let prefix = gateway.prefix.as_deref().unwrap_or_default();
    for part in [&gateway.id[..], &kind, &gateway.address, prefix, &strip, &gateway.attrs] {
        hash.update(part);
    }
}

fn add_carrier(hash: &mut Md5, carrier: &Carrier, ends: &Ends) {
    hash.update(&carrier.id);
    hash.update((carrier.order as i32).to_le_bytes());
    for target in &carrier.targets {
        add_gateway(hash, &ends.gateways[target.which as usize]);
        hash.update(target.weight.to_le_bytes());
    }
    hash.update(&carrier.attrs);
}

/// Why a rule is left out.
struct BadRule {
    why: String,
    /// It counts as discarded: the reference does not count those whose time or list is malformed.
    counts: bool,
}

impl From<String> for BadRule {
    fn from(why: String) -> BadRule {
        BadRule { why, counts: true }
    }
}

impl From<&str> for BadRule {
    fn from(why: &str) -> BadRule {
        why.to_owned().into()
    }
}

/// `[sip:][user@]host[:port][;parameters]`: its URI without the user, and what follows the user.
fn address(written: &Bytes) -> Result<(Bytes, Bytes), String> {
    let scheme = |word: &str| {
        written.len() > 5
            && written.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word.as_bytes()))
    };
    let (scheme, rest) = match (scheme("sip:"), scheme("sips:")) {
        (true, _) => ("sip:", &written[4..]),
        (_, true) => ("sips:", &written[5..]),
        _ => ("sip:", &written[..]),
    };
    let uri = Bytes::from([scheme.as_bytes(), rest].concat());
    let uri =
        sip::Uri::parse(&uri).map_err(|error| format!("`{}`: {error}", String::from_utf8_lossy(written)))?;
    let host = uri.host.as_ptr() as usize - uri.text.as_ptr() as usize;
    let address = own(&uri.text[host..]);
    Ok((Bytes::from([scheme.as_bytes(), &address].concat()), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (written, uri, shown) in [
            ("127.0.0.31:5080", "sip:127.0.0.31:5080", "127.0.0.31:5080"),
            ("sip:user@127.0.0.34;transport=tcp", "sip:127.0.0.34;transport=tcp", "127.0.0.34;transport=tcp"),
            ("sips:gw.example.com", "sips:gw.example.com", "gw.example.com"),
            ("[::1]:5080", "sip:[::1]:5080", "[::1]:5080"),
        ] {
            assert_eq!(address(&written.into()), Ok((uri.into(), shown.into())), "{written}");
        }
        assert!(address(&"nonsense address".into()).is_err());
    }
}
