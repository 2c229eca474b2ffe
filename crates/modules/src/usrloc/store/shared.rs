//! Contacts in a key-value store that several servers share.

use super::Place;
use crate::usrloc::cdb;
use crate::usrloc::table::{Change, Record};
use bytes::Bytes;
use host::cachedb::{CacheError, Store};
use host::db::DbError;
use std::rc::Rc;

impl Place {
    /// The contacts of an address in the store.
    pub(super) async fn shared_record(&self, aor: &[u8]) -> Result<Record, DbError> {
        let fields = cdb::read(self.store()?, cdb::key(&self.table.name, aor)).await.map_err(of_store)?;
        let mut record = Record::default();
        for (contact, keys) in cdb::unpack(&self.shared, aor, &fields) {
            record.insert(contact, self.usrloc.order);
            if !keys.is_empty() {
                record.keys = Some(Box::new(keys));
            }
        }
        Ok(record)
    }

    /// Reads, changes and writes an address in the store; changes of this server do not overlap, those
    /// of others touch other contacts.
    pub(super) async fn change_shared<R>(
        &self,
        aor: &Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> Result<(R, Vec<Change>), DbError> {
        let _order = self.table.changing[self.table.shard_of(aor)].lock().await;
        let mut record = self.shared_record(aor).await?;
        let mut changes = Vec::new();
        let result = work(&mut record, &mut changes);
        let (set, unset) = cdb::fields(&self.shared, &record, &changes, &self.usrloc.matching);
        if self.usrloc.remembers()
            && changes.iter().any(|c| matches!(c, Change::Inserted(_) | Change::Updated(_)))
        {
            self.table.note_seen(aor);
        }
        if !set.is_empty() || !unset.is_empty() {
            let key = cdb::key(&self.table.name, aor);
            let life = cdb::lifetime(&record, self.now);
            cdb::write(self.store()?, key, set, unset, life).await.map_err(of_store)?;
        }
        Ok((result, changes))
    }

    fn store(&self) -> Result<&Rc<dyn Store>, DbError> {
        self.store.as_ref().ok_or(DbError::Unsupported("connection"))
    }
}

fn of_store(error: CacheError) -> DbError {
    match error {
        CacheError::Busy => DbError::Busy,
        CacheError::TimedOut => DbError::TimedOut,
        CacheError::Unsupported(what) => DbError::Unsupported(what),
        other => DbError::Down(other.to_string()),
    }
}
