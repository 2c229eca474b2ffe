//! Engines from a database, for the modules that have them.

use super::{Sets, Writing};
use host::Ctx;
use host::db::{Db, DbError, Name, Proof, Query, Rows};

/// A table of engines.
#[derive(Clone)]
pub struct Table {
    /// As it was written, for the table of versions.
    pub name: String,
    /// Columns with the engine and the number of its set.
    pub columns: [Name; 2],
    /// What the columns stand for.
    pub version: u32,
    pub writing: Writing,
}

/// What becomes of engines that are there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    /// All are new.
    Hard,
    /// Those that the database still has stay as they are.
    Soft,
}

impl Table {
    /// The version that the table must have before the server listens.
    pub fn proof(&self, module: &'static str, db: &Db) -> Proof {
        Proof::of_version(module, db, &self.name, self.version)
    }

    /// Reads the sets; `done` gets them, or what a user should read.
    pub fn read(
        &self,
        ctx: &mut Ctx,
        db: &Db,
        module: &'static str,
        how: Reload,
        old: std::sync::Arc<Sets>,
        done: impl FnOnce(&mut Ctx, Result<Sets, String>) + 'static,
    ) {
        let [socket, set] = self.columns.clone();
        let query = Query::select(Name::from(self.name.clone())).column(socket).column(set);
        let table = self.clone();
        db.spawn(ctx, module, query, move |ctx, rows| {
            let sets = rows.map_err(|e: DbError| e.to_string());
            done(ctx, sets.map(|rows| table.sets_of(&rows, module, &old, how)));
        });
    }
}

impl Table {
    /// The sets of these rows; those that say no engine are left out, and said.
    fn sets_of(&self, rows: &Rows, module: &'static str, old: &Sets, how: Reload) -> Sets {
        let nothing = Sets::default();
        let (mut sets, known) = match how {
            Reload::Hard => (Sets::default(), &nothing),
            Reload::Soft => (old.following(), old),
        };
        for row in rows.iter() {
            let engine = row.string(0);
            let added = match row.int(1) {
                Some(id) => sets.add(id, &engine, self.writing, known),
                None => Err("it has no number of a set".to_string()),
            };
            if let Err(why) = added {
                host::error!(module, "table {}, `{engine}`: {why}; the row is left out", self.name);
            }
        }
        match how {
            Reload::Hard => sets.keep_empty(old),
            Reload::Soft => sets.order_as(old),
        }
        sets
    }
}

/// Waits for all of them at the same time.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) {
    let mut open: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        open.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if open.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
