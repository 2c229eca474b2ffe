//! Loads of the tables: at the start, by command, and again for what could not be read or resolved.

use super::data::{self, Data, States};
use super::partition::Partition;
use super::{Columns, Dispatcher, GROUP, TABLE_VERSION, probing};
use crate::destinations::{self, FirstLoad};
use host::Ctx;
use host::db::{Proof, Query};
use host::shared::Hooks;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// How often a table that could not be read at the start is tried again.
const RETRY_S: u64 = 5;

impl Columns {
    /// The first seven in this order, the others by name.
    fn query(&self, partition: &Partition) -> Query {
        let fixed = [
            &self.set,
            &self.destination,
            &self.socket,
            &self.weight,
            &self.attrs,
            &self.priority,
            &self.description,
        ];
        let state = partition.persistent.then_some(&self.state);
        let probe_mode = Some(&self.probe_mode).filter(|name| !name.is_empty());
        Query::select(&partition.table).columns(fixed.into_iter().chain(state).chain(probe_mode))
    }
}

/// What must be in the tables so that the server starts.
pub fn prove(module: &Arc<Dispatcher>, hooks: &mut Hooks) {
    for partition in &module.partitions {
        // Tables of 2.1 lack columns that nobody asks for then.
        if !module.columns.probe_mode.is_empty() {
            hooks.proves(Proof::of_version("dispatcher", &partition.db, &partition.table, TABLE_VERSION));
        }
        let (query, table) = (module.columns.query(partition), partition.table.clone());
        hooks.proves(Proof::new("dispatcher", &partition.db, query, move |rows| data::check(&table, rows)));
    }
}

/// Status of a partition, as the reference numbers it.
fn set_status(ctx: &Ctx, partition: &Partition, level: i32, words: &str) {
    ctx.shared().status.set(GROUP, &partition.name, level, words);
}

fn report(ctx: &Ctx, partition: &Partition, text: impl Into<String>) {
    ctx.shared().status.report(GROUP, &partition.name, ctx.core.wall_us / 1_000_000, text);
}

impl Dispatcher {
    /// The first load. Messages wait for it.
    pub fn begin(self: &Arc<Self>, ctx: &mut Ctx) {
        let status = &ctx.shared().status;
        status.group(GROUP);
        for partition in &self.partitions {
            status.identifier(GROUP, &partition.events);
            status.set(GROUP, &partition.name, -2, "no data");
        }
        let (first, left) = (FirstLoad::begin(ctx), Rc::new(Cell::new(self.partitions.len())));
        for partition in &self.partitions {
            let (first, left) = (first.clone(), left.clone());
            self.load(ctx, partition.clone(), States::OfTable, move |_, _| {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    first.done();
                }
            });
        }
    }

    /// Loads what was never loaded again, from time to time.
    pub fn load_missing(self: &Arc<Self>, ctx: &mut Ctx) {
        let missing = self.partitions.iter().filter(|p| p.data.get().is_none());
        let missing: Vec<_> = missing.cloned().collect();
        if !missing.is_empty() && self.retries.due(ctx, RETRY_S) {
            for partition in missing {
                self.load(ctx, partition, States::OfTable, |_, _| ());
            }
        }
    }

    /// Looks up names again that had no address; a table is read again when one has.
    pub fn load_unresolved(self: &Arc<Self>, ctx: &mut Ctx) {
        for partition in &self.partitions {
            let Some(data) = partition.data.get().filter(|data| !data.pending.is_empty()) else { continue };
            let (module, partition) = (self.clone(), partition.clone());
            destinations::refresh(ctx, data.pending.clone(), move |ctx| {
                if data.pending.iter().any(|destination| destination.is_known()) {
                    module.load(ctx, partition, States::AsIs, |_, _| ());
                }
            });
        }
    }

    /// One after the other; `done` hears whether all were loaded. The first that is not ends it.
    pub fn load_each(
        self: &Arc<Self>,
        ctx: &mut Ctx,
        mut partitions: Vec<Arc<Partition>>,
        states: States,
        done: impl FnOnce(&mut Ctx, bool) + 'static,
    ) {
        if partitions.is_empty() {
            return done(ctx, true);
        }
        let partition = partitions.remove(0);
        let module = self.clone();
        self.load(ctx, partition, states, move |ctx, loaded| match loaded {
            true => module.load_each(ctx, partitions, states, done),
            false => done(ctx, false),
        });
    }

    fn load(
        self: &Arc<Self>,
        ctx: &mut Ctx,
        partition: Arc<Partition>,
        states: States,
        done: impl FnOnce(&mut Ctx, bool) + 'static,
    ) {
        let first = partition.data.get().is_none();
        match first {
            true => set_status(ctx, &partition, -1, "startup data loading"),
            false => set_status(ctx, &partition, 2, "data re-loading"),
        }
        report(ctx, &partition, "starting DB data loading");
        let (module, part) = (self.clone(), partition.clone());
        let read = move |shared: &host::Shared, rows: &[host::db::Rows]| {
            let old = part.data.get();
            data::read(shared, &part.table, &rows[0], &module.columns, old.as_deref())
        };
        let query = self.columns.query(&partition);
        let db = partition.db.clone();
        destinations::load(ctx, &db, vec![query], read, move |ctx, loaded| match loaded {
            Ok((drafts, discarded)) => {
                let states = if first { States::OfTable } else { states };
                let old = partition.data.get();
                let data = Data::build(drafts, discarded, states, old.as_deref());
                let count: usize = data.sets.iter().map(|set| set.entries.len()).sum();
                let discarded = data.discarded;
                partition.data.set(data);
                probing::fill_blacklists(ctx, &partition);
                report(ctx, &partition, "DB data loading successfully completed");
                report(ctx, &partition, format!("{count} destinations loaded ({discarded} discarded)"));
                set_status(ctx, &partition, 1, "data available");
                done(ctx, true);
            }
            Err(why) => {
                host::error!("dispatcher", "partition {} was not loaded: {why}", partition.name);
                report(ctx, &partition, "DB data loading failed, discarding");
                match first {
                    true => set_status(ctx, &partition, -2, "no data loaded"),
                    false => set_status(ctx, &partition, 1, "data available"),
                }
                done(ctx, false);
            }
        });
    }
}
