//! A database that outlives the workers, for worlds in which the server is killed and comes back. It answers at once.

use drivers::db_sqlite::Memory;
use host::Ctx;
use host::db::{BatchFuture, Db, DbError, DbFuture, Dialect, Driver, Pool, Query, Rows, schema};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// The same database for every clone.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<Memory>>);

impl Kept {
    /// With these standard tables, empty.
    pub fn with_tables(names: &[&str]) -> Kept {
        let kept = Kept(Arc::new(Mutex::new(Memory::new().expect("a database in memory"))));
        for name in names {
            let table = schema::table(name).unwrap_or_else(|| panic!("no standard table {name}"));
            for statement in table.create(Dialect::Sqlite) {
                kept.ask(&Query::raw(statement)).expect("makes a table");
            }
        }
        kept
    }

    pub fn ask(&self, query: &Query) -> Result<Rows, DbError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).run(query)
    }

    /// What stands in place of the driver of any module.
    pub(crate) fn driver(&self, module: &'static str) -> Arc<dyn Driver> {
        Arc::new(KeptDriver { module, kept: self.clone() })
    }
}

struct KeptDriver {
    module: &'static str,
    kept: Kept,
}

impl Driver for KeptDriver {
    fn module(&self) -> &'static str {
        self.module
    }

    fn pool(&self, _: &Db, _: &mut Ctx) -> Rc<dyn Pool> {
        Rc::new(KeptPool(self.kept.clone()))
    }
}

struct KeptPool(Kept);

impl Pool for KeptPool {
    fn run(&self, query: Query) -> DbFuture {
        let kept = self.0.clone();
        Box::pin(async move { kept.ask(&query) })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let kept = self.0.clone();
        Box::pin(async move { queries.iter().map(|query| kept.ask(query)).collect() })
    }
}
