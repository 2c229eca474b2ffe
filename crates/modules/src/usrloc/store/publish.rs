//! A federation: what the other servers must learn of the addresses of this one, and what they say of theirs.

use super::Place;
use crate::usrloc::Usrloc;
use crate::usrloc::contact::Contact;
use crate::usrloc::federation::{Federation, Remote};
use crate::usrloc::table::{SHARDS, Table};
use bytes::Bytes;
use host::cachedb::{CacheError, Store};
use host::call::Finish;
use host::db::LIMIT_MS;
use host::{Ctx, Outcome, Suspension};
use std::rc::Rc;
use std::sync::Arc;

impl Usrloc {
    /// Shows the local contacts of some addresses to `pick`, and gives `finish` what it made of them and
    /// the other servers that have contacts of these addresses.
    pub fn read_everywhere<R: Default + 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aors: Vec<Bytes>,
        mut pick: impl FnMut(&mut R, &Bytes, &[Contact]) + 'static,
        finish: impl FnOnce(&mut Ctx, R, Result<Vec<Remote>, CacheError>) -> i32 + 'static,
    ) -> Outcome {
        let place = self.place(ctx, table);
        let detail = aors.first().cloned().unwrap_or_default();
        let future = async move {
            place.loaded().await;
            let remotes = place.remotes(&aors).await;
            Box::new(move |ctx: &mut Ctx| {
                let mut picked = R::default();
                for aor in &aors {
                    place.table.read(aor, |record| pick(&mut picked, aor, &record.contacts));
                }
                finish(ctx, picked, remotes)
            }) as Finish
        };
        Suspension::future(what, future).detail(detail).limit(LIMIT_MS, -1)
    }

    /// Publishes what is not published yet, beside any script.
    pub(in crate::usrloc) fn publish_beside(self: &Arc<Usrloc>, ctx: &mut Ctx) {
        for table in self.tables() {
            let shards: Vec<usize> = (0..SHARDS).filter(|shard| table.is_unpublished(*shard)).collect();
            if shards.is_empty() {
                continue;
            }
            let place = self.place(ctx, &table);
            ctx.spawn("usrloc publish", LIMIT_MS, async move {
                for shard in shards {
                    if place.publish(shard).await.is_err() {
                        break;
                    }
                }
                Box::new(|_: &mut Ctx| 1) as Finish
            });
        }
    }

    /// Publishes every address again (`ul_cluster_sync`): the store has lost them.
    pub(in crate::usrloc) fn publish_all(self: &Arc<Usrloc>, ctx: &mut Ctx) {
        for table in self.tables() {
            table.forget_published();
        }
        self.publish_beside(ctx);
    }
}

impl Place {
    fn federation(&self) -> Option<(&Federation, &Rc<dyn Store>)> {
        Some((self.usrloc.federation.as_ref()?, self.store.as_ref()?))
    }

    async fn remotes(&self, aors: &[Bytes]) -> Result<Vec<Remote>, CacheError> {
        let mut all = Vec::new();
        if let Some((federation, store)) = self.federation() {
            for aor in aors {
                all.extend(federation.remotes(store, &self.table.name, aor, self.now).await?);
            }
        }
        Ok(all)
    }

    /// Publishes what has changed in a shard. Whoever waits here meanwhile finds its address published by
    /// the one before.
    pub(super) async fn publish(&self, shard: usize) -> Result<(), CacheError> {
        let Some((federation, store)) = self.federation() else { return Ok(()) };
        let _order = self.table.changing[shard].lock().await;
        let mut left = Left { table: &self.table, shard, aors: self.table.unpublished(shard) };
        while let Some(aor) = left.aors.last() {
            let until = self.table.read(aor, |record| {
                let ends = || record.contacts.iter().map(|c| c.expires);
                if ends().any(|end| end == 0) { 0 } else { ends().max().unwrap_or(0) }
            });
            federation.publish(store, &self.table.name, aor, until, self.now).await?;
            left.aors.pop();
        }
        Ok(())
    }
}

/// What is being published; dropped before it is done, it stays unpublished.
struct Left<'a> {
    table: &'a Table,
    shard: usize,
    aors: Vec<Bytes>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.table.not_published(self.shard, std::mem::take(&mut self.aors));
    }
}
