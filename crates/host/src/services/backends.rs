//! The servers that this one depends on, databases and stores, and whether they are there.

use crate::context::shared::Shared;
use crate::language::late::Late;
use crate::outage::Outage;
use crate::services::db::Databases;
use std::sync::atomic::Ordering;

/// A server that drivers told of.
#[derive(Clone)]
pub struct Backend {
    /// The module of its driver.
    pub module: &'static str,
    /// Its URL, without passwords.
    pub name: String,
    /// Workers cannot reach it.
    pub lost: bool,
    /// It is there and takes no statements.
    pub troubled: bool,
    /// Connections of all workers; `None`: nobody counts them.
    pub connections: Option<usize>,
}

impl Shared {
    /// A driver speaks to a server that is no database; its name has no password. Each is kept once.
    pub fn tell_backend(&self, module: &'static str, name: String, outage: Outage) {
        let mut told = self.told_backends.write();
        if !told.iter().any(|(m, n, _)| *m == module && *n == name) {
            told.push((module, name, outage));
        }
    }

    /// All servers that were named so far: databases in the configuration or in a table that it reads, stores that a
    /// worker has used.
    pub fn backends(&self) -> Vec<Backend> {
        let databases = self.part::<Late>().with(|loader| loader.part::<Databases>().open());
        let told = self.told_backends.read().clone();
        let databases = databases.iter().map(|db| Backend {
            module: db.module(),
            name: db.url().to_string(),
            lost: db.outage().lasts(),
            troubled: db.trouble().lasts(),
            connections: Some(db.connections().load(Ordering::Relaxed)),
        });
        let told = told.into_iter().map(|(module, name, outage)| Backend {
            module,
            name,
            lost: outage.lasts(),
            troubled: false,
            connections: None,
        });
        databases.chain(told).collect()
    }
}
