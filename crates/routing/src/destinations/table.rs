//! Tables of destinations: asked, read beside the calls, their names looked up, handed over.

use super::{Destination, resolve};
use host::db::{Db, DbError, Query, Rows};
use host::worker::Hold;
use host::{Ctx, Finish, Shared};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// How long a load may take, the look-up of names included.
const LOAD_MS: u64 = 120_000;
/// More rows than this are read on a thread of their own, so that no call waits meanwhile.
const MANY_ROWS: usize = 1000;

/// Longest that messages wait for a first load: a database that is down holds nobody longer.
const HOLD_MS: u64 = 5_000;

/// Messages wait for a first load while it is there, or `HOLD_MS`.
#[derive(Clone)]
pub struct FirstLoad(Rc<RefCell<Option<Hold>>>);

impl FirstLoad {
    /// In the `start` of a module.
    pub fn begin(ctx: &mut Ctx) -> FirstLoad {
        let first = FirstLoad(Rc::new(RefCell::new(ctx.hold_start())));
        let late = first.clone();
        ctx.after(HOLD_MS, move |_| late.done());
        first
    }

    /// It is loaded, or failed.
    pub fn done(&self) {
        self.0.borrow_mut().take();
    }
}

/// What was read.
pub struct Table<T> {
    pub value: T,
    /// Its destinations, whose names are to be looked up before it is used.
    pub destinations: Vec<Arc<Destination>>,
}

/// Runs `queries` one after the other and reads all their rows; `done` gets what came out once the names among the
/// destinations are looked up, those that have no address without one (`Destination::is_known`). The error is what
/// the operator should read, and the old table stays.
pub fn load<T: Send + 'static>(
    ctx: &mut Ctx,
    db: &Db,
    queries: Vec<Query>,
    read: impl FnOnce(&Shared, &[Rows]) -> Result<Table<T>, String> + Send + 'static,
    done: impl FnOnce(&mut Ctx, Result<T, String>) + 'static,
) {
    let (pool, spawner, shared) = (db.on(ctx), ctx.core.spawner.clone(), ctx.shared().clone());
    ctx.spawn_aside("load of destinations", LOAD_MS, async move {
        let loaded = async {
            let mut all = Vec::with_capacity(queries.len());
            for query in queries {
                all.push(pool.run(query).await.map_err(|error: DbError| error.to_string())?);
            }
            let table = if all.iter().map(Rows::len).sum::<usize>() > MANY_ROWS {
                let read = move || read(&shared, &all);
                crate::aside(read).await??
            } else {
                read(&shared, &all)?
            };
            resolve::look_up(&spawner, table.destinations).await;
            Ok(table.value)
        };
        let loaded = loaded.await;
        Box::new(move |ctx: &mut Ctx| {
            done(ctx, loaded);
            1
        }) as Finish
    });
}
