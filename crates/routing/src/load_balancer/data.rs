//! Destinations and their capacities as the table has them.

use super::resources;
use crate::destinations::{Destination, Place, State, Table, kept};
use ahash::AHashMap;
use bytes::Bytes;
use host::Shared;
use host::db::{Query, Row, Rows};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// When a destination is probed (`probe_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeMode {
    Never,
    WhenDisabled,
    Always,
}

/// How much of a resource a destination has.
pub struct Capacity {
    /// Index into `Data::resources`.
    pub resource: usize,
    pub max: AtomicU32,
}

pub struct Dst {
    pub id: i64,
    pub group: i64,
    pub to: Arc<Destination>,
    pub attrs: Bytes,
    pub probe: ProbeMode,
    pub capacities: Vec<Capacity>,
    /// How dialogs name it: the id in hexadecimal.
    pub value: Box<[u8]>,
}

impl Dst {
    pub fn capacity(&self, resource: usize) -> Option<&Capacity> {
        self.capacities.iter().find(|capacity| capacity.resource == resource)
    }

    pub fn has_all(&self, resources: &[usize]) -> bool {
        resources.iter().all(|resource| self.capacity(*resource).is_some())
    }
}

pub struct Resource {
    pub name: Bytes,
    /// The profile of dialogs that counts its calls.
    pub profile: u16,
}

#[derive(Default)]
pub struct Data {
    /// In the order of the table.
    pub dsts: Vec<Dst>,
    /// In the order in which the reference goes through them.
    pub resources: Vec<Resource>,
    /// Left out until their names have an address.
    pub pending: Vec<Arc<Destination>>,
}

impl Data {
    pub fn by_id(&self, id: i64) -> Option<&Dst> {
        self.dsts.iter().find(|dst| dst.id == id)
    }

    pub fn resource(&self, name: &[u8]) -> Option<usize> {
        self.resources.iter().position(|resource| resource.name == name)
    }

    /// The first destination of a group (-1: any) at an address.
    pub fn at(&self, place: &Place, group: i64, active_only: bool) -> Option<&Dst> {
        let fits = |dst: &&Dst| {
            (group == -1 || dst.group == group) && (!active_only || dst.to.is_active()) && dst.to.is_at(place)
        };
        self.dsts.iter().find(fits)
    }
}

/// A row that was read; resources by name.
pub struct Draft {
    pub id: i64,
    pub group: i64,
    pub to: Arc<Destination>,
    pub attrs: Bytes,
    pub probe: ProbeMode,
    pub capacities: Vec<(Bytes, u32)>,
}

/// (id, group, URI in lower case)
type Before = AHashMap<(i64, i64, Vec<u8>), Arc<Destination>>;

const COLUMNS: [&str; 6] = ["id", "group_id", "dst_uri", "resources", "probe_mode", "attrs"];
/// 2.1 has no attributes.
const OLD_COLUMNS: usize = 5;

pub fn query(table: &str, old: bool) -> Query {
    let count = if old { OLD_COLUMNS } else { COLUMNS.len() };
    Query::select(table.to_string()).columns(COLUMNS[..count].iter().copied())
}

/// What refuses a whole table: NULL where a value is needed, as in the reference.
pub fn check(table: &str, rows: &Rows) -> Result<(), String> {
    for row in rows.iter() {
        let numbers = [0, 1, 4].into_iter().find(|at| row.int(*at).is_none());
        let texts = [2, 3].into_iter().find(|at| row.at(*at).is_null());
        if let Some(at) = numbers.or(texts) {
            let id = row.string(0);
            return Err(format!(
                "table {table}: the row with id {id} has no value in column {}",
                COLUMNS[at]
            ));
        }
    }
    Ok(())
}

/// A row that makes no sense is left out and said.
pub fn read(
    shared: &Shared,
    table: &str,
    rows: &Rows,
    old: Option<&Data>,
) -> Result<Table<Vec<Draft>>, String> {
    check(table, rows)?;
    let mut before = Before::new();
    for dst in old.iter().flat_map(|data| &data.dsts) {
        before.insert((dst.id, dst.group, dst.to.uri.to_ascii_lowercase()), dst.to.clone());
    }
    let mut drafts = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        match draft(shared, &row, &before) {
            Ok(draft) => drafts.push(draft),
            Err(why) => host::warn!(
                "load_balancer",
                "table {table}: the row with id {} (`{}`) is left out: {why}",
                row.string(0),
                row.string(2)
            ),
        }
    }
    let destinations = drafts.iter().map(|draft| draft.to.clone()).collect();
    Ok(Table { value: drafts, destinations })
}

fn draft(shared: &Shared, row: &Row<'_>, before: &Before) -> Result<Draft, String> {
    let (id, group) = (row.int(0).unwrap_or(0), row.int(1).unwrap_or(0));
    let uri = row.text(2).unwrap_or_default();
    let new = Destination::new(shared, &uri, None, State::Active)?;
    let capacities = resources::capacities(&row.text(3).unwrap_or_default())?;
    let probe = match row.int(4).unwrap_or(0) {
        0 => ProbeMode::Never,
        2.. => ProbeMode::Always,
        _ => ProbeMode::WhenDisabled,
    };
    let old = before.get(&(id, group, uri.to_ascii_lowercase()));
    if let Some(old) = old {
        new.load_state(old.state());
    }
    let to = kept(old, new);
    Ok(Draft { id, group, to, attrs: row.text(5).unwrap_or_default(), probe, capacities })
}

/// The table of drafts whose names have an address. `profile`: makes the profile of a resource.
pub fn build(drafts: Vec<Draft>, profile: impl Fn(&[u8]) -> Option<u16>) -> Data {
    let mut data = Data::default();
    let (known, unknown): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|draft| draft.to.is_known());
    for draft in &unknown {
        let uri = String::from_utf8_lossy(&draft.to.uri);
        host::warn!(
            "load_balancer",
            "destination {} ({uri}) is left out until its name has an address",
            draft.id
        );
    }
    data.pending = unknown.iter().map(|draft| draft.to.clone()).collect();
    for (name, _) in known.iter().chain(&unknown).flat_map(|draft| &draft.capacities) {
        if data.resource(name).is_none()
            && let Some(profile) = profile(name)
        {
            let at = data.resources.iter().position(|r| comes_before(name, &r.name));
            let at = at.unwrap_or(data.resources.len());
            data.resources.insert(at, Resource { name: name.clone(), profile });
        }
    }
    for draft in known {
        let capacity = |(name, max): &(Bytes, u32)| {
            Some(Capacity { resource: data.resource(name)?, max: AtomicU32::new(*max) })
        };
        let capacities = draft.capacities.iter().filter_map(capacity).collect();
        data.dsts.push(Dst {
            id: draft.id,
            group: draft.group,
            to: draft.to,
            attrs: draft.attrs,
            probe: draft.probe,
            capacities,
            value: format!("{:X}", draft.id as u32).into_bytes().into(),
        });
    }
    data
}

/// The reference keeps resources in falling order, as far as the shorter of two names goes.
fn comes_before(new: &[u8], there: &[u8]) -> bool {
    let shorter = new.len().min(there.len());
    new[..shorter] > there[..shorter]
}

impl Capacity {
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_resources() {
        let mut names: Vec<&[u8]> = Vec::new();
        for name in [&b"pstn"[..], b"vm", b"aa", b"pst"] {
            let at = names.iter().position(|there| comes_before(name, there)).unwrap_or(names.len());
            names.insert(at, name);
        }
        assert_eq!(names, [&b"vm"[..], b"pstn", b"pst", b"aa"]);
    }
}
