//! What a NOTIFY says: read from the database and put together as the package wants it.

use super::Presence;
use super::documents::{Policy, Reader, Watcher};
use super::mix;
use super::packages::{Bodies, Extent, Package};
use super::sql::Owner;
use super::table::Key;
use bytes::Bytes;
use host::db::{DbError, Pool};
use host::{Ctx, Shared};
use sip::Uri;
use std::rc::Rc;
use std::sync::Arc;

/// What futures of one operation read from, on one worker.
#[derive(Clone)]
pub struct Sources {
    pub module: Arc<Presence>,
    pub pool: Rc<dyn Pool>,
    pub shared: Arc<Shared>,
    readers: Rc<[(u8, Rc<dyn Reader>)]>,
    /// Unix seconds when the operation began.
    pub now: i64,
}

/// Where presence made of dialogs comes from.
#[derive(Clone, Debug)]
pub enum Calls {
    /// What is published for dialogs.
    Look,
    Is(Bytes),
}

/// What is asked for.
pub struct Ask<'a> {
    /// The tag of the state that ends.
    pub ending: Option<&'a Bytes>,
    /// Body of the PUBLISH that is the reason.
    pub published: Option<&'a Bytes>,
    /// A PUBLISH is the reason.
    pub extent: Extent,
    pub calls: Calls,
}

impl Ask<'_> {
    /// All there is.
    pub const ALL: Ask<'static> =
        Ask { ending: None, published: None, extent: Extent::Full, calls: Calls::Look };
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct FoundBody {
    pub body: Option<Bytes>,
    /// Whole lines that the PUBLISH brought for NOTIFY.
    pub headers: Bytes,
}

/// User and domain of a "sip:user@domain".
pub fn parts(uri: &Bytes) -> Option<(Bytes, Bytes)> {
    let uri = Uri::parse(uri).ok()?;
    Some((uri.user.unwrap_or_default(), uri.host))
}

impl Sources {
    /// `None`: there is no database.
    pub fn open(module: &Arc<Presence>, ctx: &mut Ctx) -> Option<Sources> {
        let pool = module.db.as_ref()?.on(ctx);
        let with = module.packages.with_documents();
        let readers = with.into_iter().map(|(number, documents)| (number, documents.open(ctx))).collect();
        let now = super::now_s(ctx);
        Some(Sources { module: module.clone(), pool, shared: ctx.shared().clone(), readers, now })
    }

    fn reader(&self, package: u8) -> Option<&Rc<dyn Reader>> {
        self.readers.iter().find(|(number, _)| *number == package).map(|(_, reader)| reader)
    }

    /// What the watched user says about who may watch.
    pub async fn policy(&self, key: &Key) -> Result<Policy, String> {
        let Some(reader) = self.reader(key.package) else { return Ok(Policy::Everybody) };
        let (user, domain) = parts(&key.uri).ok_or("the URI cannot be read")?;
        reader.policy(&user, &domain).await
    }

    /// A watcher as rules see it.
    pub fn watcher(&self, key: &Key, user: &Bytes, domain: &Bytes) -> Watcher {
        let sphere = self.module.sphere_check.then(|| self.module.presentities.sphere(key)).flatten();
        Watcher { user: user.clone(), domain: domain.clone(), sphere, now: self.now }
    }

    /// The body for all watchers, before rules are applied.
    pub async fn body(&self, key: &Key, package: &Package, ask: Ask<'_>) -> Result<FoundBody, DbError> {
        let Some((user, domain)) = parts(&key.uri) else { return Ok(FoundBody::default()) };
        let mixes = self.module.mix_dialog_presence && package.is_presence() && package.aggregate.is_some();
        let calls = match ask.calls {
            _ if !mixes => None,
            Calls::Is(ref body) => Some(body.clone()),
            Calls::Look => self.calls(key, &user, &domain).await?,
        };
        let known = ask.ending.is_some() || self.module.fallback || self.module.presentities.has(key);
        let owner = Owner { user: &user, domain: &domain, event: package.name };
        let mut states = Vec::new();
        let mut found = FoundBody::default();
        let mut ending = None;
        if known {
            let rows = self.pool.run(self.module.tables.published(&owner)).await?;
            for row in rows.iter() {
                if found.headers.is_empty() {
                    found.headers = row.text(1).unwrap_or_default();
                }
                // Of a package without an aggregate the newest counts, also when it is empty.
                let body = row.text(0).unwrap_or_default();
                if body.is_empty() && package.aggregate.is_some() {
                    continue;
                }
                if ask.ending.is_some() && row.text(3).as_ref() == ask.ending {
                    ending = Some(states.len());
                }
                states.push(body);
            }
            if package.aggregate.is_none() && !states.is_empty() {
                found.headers = rows.iter().next_back().and_then(|row| row.text(1)).unwrap_or_default();
            }
        }
        let Some(aggregate) = &package.aggregate else {
            if found.headers.is_empty()
                && let Some(lines) = &package.empty_headers
            {
                found.headers = lines(&key.uri);
            }
            // What ends is told no more.
            let ends = ending.is_some() && ending == states.len().checked_sub(1);
            found.body = match states.pop() {
                Some(newest) => Some(newest).filter(|body| !body.is_empty() && !ends),
                None => package.empty.map(|empty| empty(&String::from_utf8_lossy(&key.uri))),
            };
            return Ok(found);
        };
        let extent = match ask.published {
            Some(body) if ask.extent == Extent::Partial && package.is_dialog() && !states.is_empty() => {
                states = vec![body.clone()];
                ending = None;
                Extent::Partial
            }
            Some(body) if ending.is_some() => {
                // A state may end with a last word.
                if let Some(at) = ending.take() {
                    states[at] = body.clone();
                }
                Extent::Full
            }
            _ => Extent::Full,
        };
        let nothing = states.is_empty();
        states.extend(calls);
        let uri = String::from_utf8_lossy(&key.uri);
        let wants_offline = self.module.mix_dialog_presence || self.module.notify_offline_body;
        if states.is_empty() && wants_offline && package.is_presence() {
            states.push(mix::offline(&uri));
        }
        let permanent = match self.reader(key.package) {
            Some(reader) if states.is_empty() => {
                reader.permanent(&user, &domain).await.unwrap_or_else(|why| {
                    host::error!("presence", "the permanent state of {uri} was not read: {why}");
                    None
                })
            }
            _ => None,
        };
        found.body = aggregate(Bodies { uri: &uri, published: states, ending, extent, permanent });
        if found.body.is_none() && nothing {
            found.body = package.empty.map(|empty| empty(&uri));
        }
        Ok(found)
    }

    /// Presence that the calls of a user mean.
    async fn calls(&self, key: &Key, user: &Bytes, domain: &Bytes) -> Result<Option<Bytes>, DbError> {
        let Some((number, package)) = self.module.packages.named("dialog") else { return Ok(None) };
        let dialogs = Key { uri: key.uri.clone(), package: number };
        if !self.module.fallback && !self.module.presentities.has(&dialogs) {
            return Ok(None);
        }
        let owner = Owner { user, domain, event: package.name };
        let rows = self.pool.run(self.module.tables.published(&owner)).await?;
        let bodies: Vec<Bytes> = rows.iter().filter_map(|row| row.text(0)).collect();
        Ok(mix::state_of(&bodies).and_then(|state| state.presence(&String::from_utf8_lossy(&key.uri))))
    }
}
