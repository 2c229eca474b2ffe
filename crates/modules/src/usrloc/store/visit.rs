//! Going over all contacts, a part at a time, wherever they live (for pings).

use super::Place;
use crate::usrloc::contact::Contact;
use crate::usrloc::table::{SHARDS, Table};
use crate::usrloc::{Mode, Usrloc};
use bytes::Bytes;
use host::Ctx;
use host::call::Finish;
use host::db::{DbError, LIMIT_MS};
use std::sync::Arc;

impl Usrloc {
    /// Gives `take` the contacts of one of `SHARDS` parts of a table that this server looks after: those in
    /// its memory, or where servers share them, those that registered through one of its sockets. Later when
    /// a database or store must be asked; not at all when that is away.
    pub fn visit(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        table: &Arc<Table>,
        part: usize,
        take: impl FnOnce(&mut Ctx, Vec<(Bytes, Contact)>) + 'static,
    ) {
        if self.mode.in_memory() {
            let mut all = Vec::new();
            table.each_in(part, |aor, record| {
                let aor = Bytes::copy_from_slice(aor);
                all.extend(record.contacts.iter().map(|contact| (aor.clone(), contact.clone())));
            });
            return take(ctx, all);
        }
        let place = self.place(ctx, table);
        ctx.spawn_aside("usrloc visit", LIMIT_MS, async move {
            let found = place.part(part).await.unwrap_or_default();
            Box::new(move |ctx: &mut Ctx| {
                take(ctx, found);
                1
            }) as Finish
        });
    }
}

impl Place {
    /// The contacts of a part that came through a socket of this server.
    async fn part(&self, part: usize) -> Result<Vec<(Bytes, Contact)>, DbError> {
        let mut all = Vec::new();
        match self.usrloc.mode {
            Mode::SqlOnly => {
                let schema = self.schema().await?;
                let rows = self.pool()?.run(schema.part(&self.table.name, part, SHARDS)).await?;
                let read = rows.iter().filter_map(|row| schema.read(&self.shared, row));
                all.extend(read.map(|(aor, contact, _)| (aor, contact)));
            }
            _ => {
                for aor in self.table.seen(part) {
                    let contacts = self.shared_record(&aor).await?.contacts;
                    let ours = contacts.into_iter().filter(|c| c.socket().is_some());
                    let before = all.len();
                    all.extend(ours.map(|contact| (aor.clone(), contact)));
                    if all.len() == before {
                        self.table.forget_seen(part, &aor);
                    }
                }
            }
        }
        all.retain(|(_, contact)| contact.socket().is_some());
        Ok(all)
    }
}
