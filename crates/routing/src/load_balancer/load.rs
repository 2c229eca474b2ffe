//! Loads of the table.

use super::count::PREFIX;
use super::data;
use super::{LoadBalancer, TABLE_VERSION, probing};
use crate::destinations::{self, FirstLoad};
use host::Ctx;
use host::db::{Proof, Rows};
use host::shared::Hooks;
use modules::dialog::api::{self, Counted};
use std::sync::Arc;

/// What must be in the table so that the server starts.
pub fn prove(module: &Arc<LoadBalancer>, hooks: &mut Hooks) {
    let Some(db) = &module.db else { return };
    if !module.old_table {
        hooks.proves(Proof::of_version("load_balancer", db, &module.table, TABLE_VERSION));
    }
    let (query, table) = (data::query(&module.table, module.old_table), module.table.clone());
    hooks.proves(Proof::new("load_balancer", db, query, move |rows| data::check(&table, rows)));
}

impl LoadBalancer {
    /// The first load. Messages wait for it.
    pub fn begin(self: &Arc<Self>, ctx: &mut Ctx) {
        let first = FirstLoad::begin(ctx);
        self.load(ctx, move |_, _| first.done());
    }

    /// `done` hears whether it was loaded; if not, the old table stays.
    pub fn load(self: &Arc<Self>, ctx: &mut Ctx, done: impl FnOnce(&mut Ctx, bool) + 'static) {
        let Some(db) = self.db.clone() else { return done(ctx, false) };
        let (module, queries) = (self.clone(), vec![data::query(&self.table, self.old_table)]);
        let read = move |shared: &host::Shared, rows: &[Rows]| {
            let old = module.data.get();
            data::read(shared, &module.table, &rows[0], old.as_deref())
        };
        let module = self.clone();
        destinations::load(ctx, &db, queries, read, move |ctx, loaded| {
            let done_well = match loaded {
                Ok(drafts) => {
                    let counted = if module.cluster_id > 0 { Counted::Shared } else { Counted::AsDeclared };
                    let profile = |name: &[u8]| {
                        let name = format!("{PREFIX}{}", String::from_utf8_lossy(name));
                        api::load_profile(ctx, &name, counted)
                    };
                    let table = data::build(drafts, profile);
                    module.data.set(table);
                    probing::fill_blacklists(ctx, &module);
                    true
                }
                Err(why) => {
                    host::error!("load_balancer", "the table was not loaded: {why}");
                    false
                }
            };
            done(ctx, done_well);
        });
    }
}
