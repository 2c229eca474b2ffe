//! Sets of destinations as the table has them.

use super::Columns;
use crate::destinations::{Destination, State, Table, kept};
use ahash::AHashMap;
use bytes::Bytes;
use host::Shared;
use host::db::{Row, Rows};
use host::shared::socket_named;
use parking_lot::{Mutex, RwLock};
use sip::Uri;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One destination in a set.
pub struct Entry {
    pub to: Arc<Destination>,
    /// What `$du` becomes: the URI without user and headers.
    pub next_hop: Bytes,
    pub weight: u32,
    pub priority: i64,
    /// It is probed whatever its state (`probe_mode` 1).
    pub always_probed: bool,
    pub attrs: Bytes,
    pub description: Bytes,
    /// What a script or command gave it; a reload forgets it.
    pub script_attrs: RwLock<Option<Bytes>>,
}

/// Whose turn it is.
#[derive(Default)]
pub struct Turn {
    /// Where the last selection ended.
    pub last: usize,
    /// How often each destination was taken in its turn (weighted round robin).
    pub taken: Vec<u32>,
}

pub struct Set {
    pub id: i64,
    /// By priority, the highest first, then as in the table.
    pub entries: Vec<Entry>,
    pub turn: Mutex<Turn>,
}

/// All sets of a partition, the one that the table names last first.
#[derive(Default)]
pub struct Data {
    pub sets: Vec<Set>,
    /// Rows that are not used, said in the log.
    pub discarded: usize,
    /// Those of them that are left out only because their names have no address now.
    pub pending: Vec<Arc<Destination>>,
}

/// What a reload does with states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum States {
    /// Those of the destinations in memory stay.
    Kept,
    /// The table says.
    OfTable,
    /// All that is known stays: nobody asked for the reload.
    AsIs,
}

/// A row that was read.
pub struct Draft {
    set: i64,
    entry: Entry,
    /// What the table says.
    state: State,
}

impl Data {
    pub fn set(&self, id: i64) -> Option<&Set> {
        // Sets below 0 are listed, and found by no question for one set.
        self.sets.iter().find(|set| set.id == id && id >= 0)
    }

    /// Entries of one set, or of all (-1), with their sets.
    pub fn entries(&self, set: i64) -> impl Iterator<Item = (&Set, &Entry)> {
        let wanted = move |s: &&Set| set == -1 || s.id == set;
        self.sets.iter().filter(wanted).flat_map(|set| set.entries.iter().map(move |entry| (set, entry)))
    }

    /// The sets of what was read, once names are looked up.
    pub fn build(drafts: Vec<Draft>, mut discarded: usize, states: States, old: Option<&Data>) -> Data {
        let mut data = Data::default();
        let before = old.filter(|_| states == States::AsIs).map(known).unwrap_or_default();
        for draft in drafts {
            let Draft { set, entry, state } = draft;
            if !entry.to.is_known() {
                let uri = String::from_utf8_lossy(&entry.to.uri);
                host::warn!(
                    "dispatcher",
                    "destination {uri} of set {set} is left out until its name has an address"
                );
                discarded += 1;
                data.pending.push(entry.to);
                continue;
            }
            if states == States::OfTable {
                entry.to.load_state(state);
            }
            if states == States::AsIs {
                let attrs =
                    before.get(&Arc::as_ptr(&entry.to)).and_then(|old| old.script_attrs.read().clone());
                *entry.script_attrs.write() = attrs;
            } else {
                entry.to.hits.store(0, Ordering::Relaxed);
                entry.to.failures.store(0, Ordering::Relaxed);
            }
            let at = match data.sets.iter().position(|s| s.id == set) {
                Some(at) => at,
                None => {
                    data.sets.push(Set { id: set, entries: Vec::new(), turn: Mutex::default() });
                    data.sets.len() - 1
                }
            };
            data.sets[at].entries.push(entry);
        }
        data.sets.reverse();
        for set in &mut data.sets {
            set.entries.sort_by_key(|entry| std::cmp::Reverse(entry.priority));
            set.turn.get_mut().taken = vec![0; set.entries.len()];
        }
        data.discarded = discarded;
        data
    }
}

/// The entries of a table by their destinations.
fn known(data: &Data) -> AHashMap<*const Destination, &Entry> {
    data.entries(-1).map(|(_, entry)| (Arc::as_ptr(&entry.to), entry)).collect()
}

/// Destinations of before, by set and URI in lower case, those of a kind in their order.
type Before = AHashMap<(i64, Vec<u8>), Vec<Arc<Destination>>>;

fn before(old: Option<&Data>) -> Before {
    let mut all = Before::new();
    for set in old.iter().flat_map(|data| &data.sets) {
        for entry in set.entries.iter().rev() {
            all.entry((set.id, entry.to.uri.to_ascii_lowercase())).or_default().push(entry.to.clone());
        }
    }
    all
}

/// Reads rows as `Columns::query` asks for them. A row that makes no sense is left out and said; a weight or URI that
/// is none refuses the whole table, as in the reference.
pub fn read(
    shared: &Shared,
    table: &str,
    rows: &Rows,
    columns: &Columns,
    old: Option<&Data>,
) -> Result<Table<(Vec<Draft>, usize)>, String> {
    check(table, rows)?;
    let mut before = before(old);
    let (mut drafts, mut discarded) = (Vec::with_capacity(rows.len()), 0);
    for row in rows.iter() {
        match draft(shared, table, &row, columns, &mut before) {
            Ok(draft) => drafts.push(draft),
            Err(why) => {
                discarded += 1;
                host::warn!("dispatcher", "table {table}: {} is left out: {why}", named(&row));
            }
        }
    }
    let destinations = drafts.iter().map(|draft| draft.entry.to.clone()).collect();
    Ok(Table { value: (drafts, discarded), destinations })
}

/// What refuses a whole table.
pub fn check(table: &str, rows: &Rows) -> Result<(), String> {
    for row in rows.iter().filter(|row| row.int(0).is_some()) {
        if row.string(1).is_empty() {
            return Err(format!("table {table}: {} has no URI", named(&row)));
        }
        if weight(&row).is_none() {
            let text = row.string(3);
            return Err(format!("table {table}: {}: its weight `{text}` is no number", named(&row)));
        }
    }
    Ok(())
}

fn named(row: &Row<'_>) -> String {
    format!("the row of set {}, destination `{}`", row.string(0), row.string(1))
}

/// `None`: it is no weight. URLs of FreeSWITCH, whose load would be the weight, count 1.
fn weight(row: &Row<'_>) -> Option<u32> {
    let text = row.string(3);
    if text.starts_with("fs:") { Some(1) } else { text.trim().parse().ok() }
}

fn draft(
    shared: &Shared,
    table: &str,
    row: &Row<'_>,
    columns: &Columns,
    before: &mut Before,
) -> Result<Draft, String> {
    let set = row.int(0).ok_or("its set is NULL")?;
    let uri = row.text(1).unwrap_or_default();
    let socket = match row.string(2) {
        text if text.is_empty() => None,
        text => {
            let socket = socket_named(&shared.sockets, &text);
            if socket.is_none() {
                host::warn!(
                    "dispatcher",
                    "table {table}: {}: {text} is no socket of this server, any is used",
                    named(row)
                );
            }
            socket
        }
    };
    // Not asked for when states are not kept in the table.
    let state = row.named(&columns.state).int().unwrap_or(0);
    let state = State::of_column(state).unwrap_or_else(|| {
        host::warn!("dispatcher", "table {table}: {}: state {state} is none, it is active", named(row));
        State::Active
    });
    let parsed = Uri::parse(&uri).map_err(|e| e.to_string())?;
    let new = Destination::new(shared, &uri, socket, state)?;
    let old = before.get_mut(&(set, uri.to_ascii_lowercase())).and_then(Vec::pop);
    if let Some(old) = &old {
        new.load_state(old.state());
    }
    Ok(Draft {
        set,
        state,
        entry: Entry {
            to: kept(old.as_ref(), new),
            next_hop: next_hop(&uri, &parsed),
            weight: weight(row).unwrap_or(1),
            priority: row.int(5).unwrap_or(0),
            always_probed: row.named(&columns.probe_mode).int() == Some(1),
            attrs: row.text(4).unwrap_or_default(),
            description: row.text(6).unwrap_or_default(),
            script_attrs: RwLock::default(),
        },
    })
}

/// What a request is sent to: a URI that names no user is used as it is, of another one scheme, host, port and
/// parameters stay.
fn next_hop(uri: &Bytes, parsed: &Uri) -> Bytes {
    if parsed.user.is_none() && parsed.password.is_none() && parsed.headers.is_empty() {
        return uri.clone();
    }
    let scheme: &[u8] = if parsed.is_sips() { b"sips:" } else { b"sip:" };
    let port = if parsed.port == 0 { String::new() } else { format!(":{}", parsed.port) };
    let params = parsed.params.text.strip_prefix(b";").unwrap_or(&parsed.params.text);
    let semicolon: &[u8] = if params.is_empty() { b"" } else { b";" };
    [scheme, &parsed.host, port.as_bytes(), semicolon, params].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops() {
        for (uri, expected) in [
            ("sip:10.0.0.1:5070;transport=tcp", "sip:10.0.0.1:5070;transport=tcp"),
            ("sip:gw@10.0.0.1:5070", "sip:10.0.0.1:5070"),
            ("sips:gw:pw@a.example", "sips:a.example"),
            ("sip:gw@10.0.0.1;transport=udp", "sip:10.0.0.1;transport=udp"),
        ] {
            let uri = Bytes::from(uri);
            let parsed = Uri::parse(&uri).expect("a URI");
            assert_eq!(next_hop(&uri, &parsed), expected);
        }
    }
}
