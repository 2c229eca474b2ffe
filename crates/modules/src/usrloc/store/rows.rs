//! Contacts as rows that several servers may share: every change reads, changes and writes them.

use super::Place;
use crate::usrloc::Mode;
use crate::usrloc::sql::{Ids, Layout, Schema};
use crate::usrloc::table::{Change, Gone, Record};
use bytes::Bytes;
use host::db::{DbError, Query, Rows};

impl Place {
    /// How rows of the table look: asked once.
    pub(super) async fn schema(&self) -> Result<Schema, DbError> {
        let usrloc = &self.usrloc;
        let schema = |layout| Schema {
            columns: usrloc.columns.clone(),
            layout,
            ids: if usrloc.mode == Mode::SqlOnly { Ids::OfDatabase } else { Ids::Ours },
            use_domain: usrloc.use_domain,
        };
        if let Some(layout) = usrloc.layout.get() {
            return Ok(schema(*layout));
        }
        let ask = Query::select(self.table.name.clone()).column(&usrloc.columns.contact_id).limit(1);
        let layout = match self.pool()?.run(ask).await {
            Ok(_) => Layout::ById,
            Err(DbError::Refused { .. }) => {
                let ask = Query::select(self.table.name.clone()).column("id").limit(1);
                self.pool()?.run(ask).await?;
                Layout::ByKey
            }
            Err(error) => return Err(error),
        };
        Ok(schema(*usrloc.layout.get_or_init(|| layout)))
    }

    pub(super) fn record_of(&self, schema: &Schema, rows: &Rows) -> Record {
        let mut record = Record::default();
        for row in rows.iter() {
            if let Some((_, contact, keys)) = schema.read(&self.shared, row) {
                record.insert(contact, self.usrloc.order);
                if !keys.is_empty() {
                    record.keys = Some(Box::new(keys));
                }
            }
        }
        record
    }

    /// Reads, changes and writes the rows of an address; changes of this server do not overlap.
    pub(super) async fn change_rows<R>(
        &self,
        aor: &Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> Result<(R, Vec<Change>), DbError> {
        let _order = self.table.changing[self.table.shard_of(aor)].lock().await;
        let schema = self.schema().await?;
        let name = &self.table.name;
        let rows = self.pool()?.run(schema.select(name, aor)).await?;
        let mut record = self.record_of(&schema, &rows);
        let mut changes = Vec::new();
        let result = work(&mut record, &mut changes);
        let keys = record.keys_json();
        let mut queries = Vec::new();
        for change in &changes {
            match change {
                Change::Inserted(c) | Change::Updated(c) | Change::Touched(c) => {
                    queries.extend(schema.write(&self.shared, name, aor, c, &keys));
                }
                Change::Deleted(c) => queries.extend(schema.delete(name, &Gone::of(aor, c))),
                Change::Moved { .. } | Change::AorInserted | Change::AorDeleted => {}
            }
        }
        // Before everything else: a contact that moved leaves its old row where that is its key.
        for change in &changes {
            if let Change::Moved { id, uri, call_id } = change {
                let gone = Gone::moved(aor, *id, uri, call_id);
                if let Some(query) = schema.delete(name, &gone) {
                    queries.insert(0, query);
                }
            }
        }
        if !queries.is_empty() {
            self.pool()?.run_all(queries).await?;
        }
        Ok((result, changes))
    }

    pub(super) async fn expire_rows(&self, now: u32) -> Result<(), DbError> {
        let query = self.schema().await?.delete_expired(&self.table.name, now);
        self.pool()?.run(query).await.map(drop)
    }
}
