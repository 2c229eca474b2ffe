//! States that other modules of this server publish here, without a PUBLISH: who is registered, what a line does.

use super::body::Sources;
use super::notify::{self, Telling};
use super::publish::{self, Publication, Stored};
use super::sql::{Owner, PublishedState};
use super::table::{Key, Published};
use super::{Presence, subscription};
use bytes::Bytes;
use host::db::{DbError, LIMIT_MS};
use host::{Ctx, Finish};
use std::sync::Arc;

/// A state of a user; the one before it from the same module gives way.
pub struct Own {
    pub user: Bytes,
    pub domain: Bytes,
    /// Name of the package, which says also whose it is.
    pub event: &'static str,
    pub body: Option<Bytes>,
    /// Whole lines for NOTIFYs.
    pub headers: Option<Bytes>,
    /// Seconds; 0: it ends.
    pub expires: u32,
}

/// Stores a state beside everything else and tells its watchers, in the order of the calls. Without a database or the
/// package nothing happens.
pub fn publish(ctx: &mut Ctx, module: &Arc<Presence>, own: Own) {
    let Some(sources) = Sources::open(module, ctx) else { return };
    let Some((number, package)) = module.packages.named(own.event) else { return };
    let key = Key { uri: subscription::uri_of(&own.user, &own.domain).into(), package: number };
    let publication = Publication {
        key: Arc::new(key),
        package,
        user: own.user,
        domain: own.domain,
        expires: own.expires,
        etag: None,
        body: own.body,
        headers: own.headers,
        sender: Bytes::new(),
        sphere: None,
    };
    let tag = Bytes::from(format!("own.{}", own.event));
    let mut loaded = module.loaded.subscribe();
    ctx.spawn("presence", LIMIT_MS, async move {
        let turn = sources.module.turns.take(&publication.key).await;
        // The sender lives in the module.
        let _ = loaded.wait_for(|loaded| *loaded).await;
        let stored = store(&sources, &publication, &tag).await;
        Box::new(move |ctx: &mut Ctx| {
            match stored {
                Ok(tellings) => {
                    tellings.into_iter().for_each(|telling| notify::tell(ctx, &sources.module, telling));
                }
                Err(error) => {
                    let uri = String::from_utf8_lossy(&publication.key.uri);
                    host::error!("presence", "a state of {uri} of this server was not stored: {error}");
                }
            }
            drop(turn);
            1
        }) as Finish
    });
}

async fn store(sources: &Sources, p: &Publication, tag: &Bytes) -> Result<Vec<Telling>, DbError> {
    let module = &sources.module;
    let owner = Owner { user: &p.user, domain: &p.domain, event: p.package.name };
    let mut is_known = module.presentities.find(&p.key, tag).is_some();
    if !is_known {
        // One of before a restart.
        let rows = sources.pool.run(module.tables.published(&owner)).await?;
        is_known = rows.iter().any(|row| row.text(3).as_ref() == Some(tag));
        if is_known || p.expires > 0 {
            let published = Published { etag: tag.clone(), count: 0, sphere: None };
            module.presentities.insert(&p.key, published);
        }
    }
    if p.expires == 0 {
        return match is_known {
            true => match publish::ended(sources, p, &owner, tag).await? {
                Stored::Done(_, tellings) => Ok(tellings),
                Stored::Refused(_) => Ok(Vec::new()),
            },
            false => Ok(Vec::new()),
        };
    }
    let state = PublishedState {
        etag: tag,
        expires: sources.now + i64::from(p.expires),
        received: sources.now,
        sender: &p.sender,
        body: p.body.as_ref(),
        headers: p.headers.as_ref(),
    };
    let query = match is_known {
        true => module.tables.update_state(&owner, tag, &state),
        false => module.tables.insert_state(&owner, &state),
    };
    sources.pool.run(query).await?;
    publish::changed(sources, p, p.body.as_ref()).await
}
