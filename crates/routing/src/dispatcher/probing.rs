//! Probes of destinations, and what follows from their answers; what is done each second.

use super::data::{Data, Set};
use super::partition::Partition;
use super::state::Place;
use super::{Dispatcher, data::Entry};
use crate::destinations::{Destination, Heard, Member, Save, State, refresh, save};
use host::db::Query;
use host::{Call, Ctx};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which destinations are probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Those that are suspected to be down.
    #[default]
    Suspects,
    /// All but those that were switched off.
    All,
}

/// Probes that are sent in one step; the next follow some milliseconds later.
const AT_ONCE: usize = 500;
const PAUSE_MS: u64 = 10;
/// How often names are looked up again.
const REFRESH_S: u64 = 60;
/// How often names are looked up again that have no address.
const UNRESOLVED_S: u64 = 30;

/// Each second, on worker 0.
pub fn tick(call: &mut Call<Dispatcher>) {
    let module = call.module.clone();
    module.load_missing(call.ctx);
    for partition in &module.partitions {
        flush(call.ctx, partition);
    }
    if module.cluster.id > 0 {
        share(call.ctx, &module);
    }
    if module.refreshes.due(call.ctx, REFRESH_S) {
        let all = module.partitions.iter().filter_map(|partition| partition.data.get());
        let all =
            all.flat_map(|data| data.entries(-1).map(|(_, e)| e.to.clone()).collect::<Vec<_>>()).collect();
        let module = module.clone();
        refresh(call.ctx, all, move |ctx| module.partitions.iter().for_each(|p| fill_blacklists(ctx, p)));
    }
    if module.unresolved.due(call.ctx, UNRESOLVED_S) {
        module.load_unresolved(call.ctx);
    }
    if module.probes.due(call.ctx, module.ping_interval) {
        let due = module.due(call.ctx);
        send(call.ctx, &module, due);
    }
}

/// A probe to be sent.
pub struct Due {
    partition: usize,
    set: i64,
    to: Arc<Destination>,
    always: bool,
}

impl Dispatcher {
    fn due(&self, ctx: &Ctx) -> Vec<Due> {
        if !self.cluster.probes_here(ctx) {
            return Vec::new();
        }
        let wanted = |set: &Set, entry: &Entry| {
            let listed = self.probing_list.is_empty() || self.probing_list.contains(&set.id);
            let state = entry.to.state();
            let asked = self.mode == Mode::All || entry.always_probed || state == State::Probing;
            listed && state != State::Inactive && asked
        };
        let mut due = Vec::new();
        for (at, partition) in self.partitions.iter().enumerate() {
            let Some(data) = partition.data.get() else { continue };
            due.extend(data.entries(-1).filter(|(set, entry)| wanted(set, entry)).map(|(set, entry)| Due {
                partition: at,
                set: set.id,
                to: entry.to.clone(),
                always: entry.always_probed,
            }));
        }
        due
    }

    /// An answer to a probe.
    fn heard(&self, ctx: &mut Ctx, due: &Due, to: &Destination, heard: Heard) {
        let partition = &self.partitions[due.partition];
        let place = Place { partition, set: due.set, address: to.uri.clone() };
        let allowed = self.good_codes.has(heard.status);
        if !heard.sent {
            return self.suspect(ctx, &place, to, "failed to send probe");
        }
        if heard.status == 200 || allowed {
            to.failures.store(0, Ordering::Relaxed);
            self.change(ctx, &place, to, State::Active, "200 OK probing reply");
        }
        let bad = heard.status != 200 && (heard.status == 408 || !allowed);
        if bad && (self.mode == Mode::All || due.always) {
            self.suspect(ctx, &place, to, "negative probing reply");
        }
    }
}

fn send(ctx: &mut Ctx, module: &Arc<Dispatcher>, mut due: Vec<Due>) {
    let later = due.split_off(due.len().min(AT_ONCE));
    for due in due {
        let (module, to) = (module.clone(), due.to.clone());
        let probe = module.partitions[due.partition].probe.clone();
        probe.send(ctx, &to, move |ctx, to, heard| module.heard(ctx, &due, to, heard));
    }
    if !later.is_empty() {
        let module = module.clone();
        ctx.after(PAUSE_MS, move |ctx| send(ctx, &module, later));
    }
}

/// Tells the other servers of the cluster of states that changed here, and hears of theirs.
fn share(ctx: &mut Ctx, module: &Arc<Dispatcher>) {
    for (partition, states) in module.partitions.iter().zip(&module.cluster.states) {
        let Some(data) = partition.data.get() else { continue };
        let member = |set: i64, to: &Arc<Destination>| Member {
            name: [set.to_string().as_bytes(), b" ", &to.uri].concat().into(),
            standing: to.standing.clone(),
            of: to.clone(),
        };
        let members: Vec<_> = data.entries(-1).map(|(set, entry)| member(set.id, &entry.to)).collect();
        let (module, partition) = (module.clone(), partition.clone());
        let name = format!("ds_states_{}_{}", module.cluster.id, partition.name);
        states.exchange(ctx, "dispatcher", name, members, move |ctx, member, state| {
            let set =
                String::from_utf8_lossy(&member.name).split(' ').next().and_then(|set| set.parse().ok());
            let place =
                Place { partition: &partition, set: set.unwrap_or(-1), address: member.of.uri.clone() };
            module.change(ctx, &place, &member.of, state, "cluster replication");
        });
    }
}

/// Writes states that changed.
pub fn flush(ctx: &mut Ctx, partition: &Partition) {
    if !partition.persistent {
        return;
    }
    let Some(data) = partition.data.get() else { return };
    let columns = super::module(ctx).map(|module| module.columns.clone()).unwrap_or_default();
    let unsaved = data.entries(-1).filter(|(_, entry)| entry.to.standing.take_unsaved());
    let list = unsaved.map(|(set, entry)| Save {
        query: Query::update(&partition.table)
            .set(&columns.state, entry.to.state() as i64)
            .eq(&columns.set, set.id)
            .eq(&columns.destination, entry.to.uri.clone()),
        standing: entry.to.standing.clone(),
    });
    let list = list.collect();
    save(ctx, "dispatcher", &partition.db, list);
}

/// The lists of a partition get the addresses that its sets have now.
pub fn fill_blacklists(ctx: &Ctx, partition: &Partition) {
    let Some(data) = partition.data.get() else { return };
    for list in &partition.blacklists {
        let sets = list.sets.iter().filter_map(|id| data.set(*id));
        list.fill(ctx, sets.flat_map(|set| set.entries.iter().map(|entry| &entry.to)));
    }
}

/// How many of a set are in each state: active, inactive, probing.
pub fn count(data: &Data, set: i64) -> Option<[i64; 3]> {
    let mut counts = [0; 3];
    for entry in &data.set(set)?.entries {
        counts[entry.to.state() as usize] += 1;
    }
    Some(counts)
}
