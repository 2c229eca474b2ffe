//! What a database must hold so that the server may start: asked before anything listens.

use super::{Db, Op, Query, Rows};
use crate::context::shared::{Hooks, Shared};
use std::sync::Arc;

type Check = Arc<dyn Fn(&Rows) -> Result<(), String> + Send + Sync>;

/// A question to a database, and which answers will do. A database that is not reached now proves nothing: the server
/// starts, and the module asks again later. A refusal (no such table) and an answer that will not do end the start.
#[derive(Clone)]
pub struct Proof {
    pub module: &'static str,
    pub db: Db,
    pub query: Query,
    /// The error is what a user should read.
    pub check: Check,
}

/// All of a configuration.
#[derive(Clone, Default)]
pub struct Proofs(pub Vec<Proof>);

impl Proof {
    pub fn new(
        module: &'static str,
        db: &Db,
        query: Query,
        check: impl Fn(&Rows) -> Result<(), String> + Send + Sync + 'static,
    ) -> Proof {
        Proof { module, db: db.clone(), query, check: Arc::new(check) }
    }

    /// The table `version` says that `table` is of this version (`db_check_table_version` there).
    pub fn of_version(module: &'static str, db: &Db, table: &str, wanted: u32) -> Proof {
        let query =
            Query::select("version").column("table_version").filter("table_name", Op::Eq, table.to_string());
        let name = table.to_string();
        Proof::new(module, db, query, move |rows| {
            let found = rows.first().and_then(|row| row.int(0));
            if found == Some(i64::from(wanted)) {
                return Ok(());
            }
            let found = found.map_or("not listed".to_string(), |found| format!("version {found}"));
            Err(format!(
                "table {name} is {found} in the table `version`, and must be version {wanted}: `fermata db migrate` \
                 brings it up to date"
            ))
        })
    }
}

impl Hooks {
    /// The module does not start without it.
    pub fn proves(&mut self, proof: Proof) {
        self.list().push(proof);
    }
}

impl Shared {
    pub fn proofs(&self) -> &Arc<Proofs> {
        self.part()
    }
}
