//! Names of destinations, looked up beside all calls.

use super::Destination;
use futures_util::stream::{FuturesUnordered, StreamExt};
use host::ctx::{Resolved, Spawn};
use host::{Ctx, Finish};
use std::rc::Rc;
use std::sync::Arc;

/// Names that are looked up at a time.
const AT_ONCE: usize = 32;
/// How long all look-ups of a table may take.
const ALL_MS: u64 = 60_000;

/// Looks up the names among them again, those without an address too; what is found replaces what was known. `done`
/// runs at once when there are no names.
pub fn refresh(ctx: &mut Ctx, list: Vec<Arc<Destination>>, done: impl FnOnce(&mut Ctx) + 'static) {
    let names: Vec<_> = list.into_iter().filter(|d| d.query.is_some()).collect();
    if names.is_empty() {
        return done(ctx);
    }
    let spawner = ctx.core.spawner.clone();
    ctx.spawn_aside("names of destinations", ALL_MS, async move {
        look_up(&spawner, names).await;
        Box::new(move |ctx: &mut Ctx| {
            done(ctx);
            1
        }) as Finish
    });
}

/// A name that has no answer keeps what was known of it.
pub async fn look_up(spawner: &Rc<dyn Spawn>, names: Vec<Arc<Destination>>) {
    let mut waiting = FuturesUnordered::new();
    for destination in names {
        let Some(query) = destination.query.clone() else { continue };
        match spawner.resolve(query) {
            Resolved::Now(answer) => note(&destination, answer),
            Resolved::Later(later) => waiting.push(async move {
                let answer = later.await;
                note(&destination, answer);
            }),
        }
        if waiting.len() >= AT_ONCE {
            waiting.next().await;
        }
    }
    while waiting.next().await.is_some() {}
}

fn note(destination: &Destination, answer: Result<Vec<sip::names::Hop>, sip::names::ResolveError>) {
    if let Ok(hops) = answer
        && !hops.is_empty()
    {
        destination.set_hops(hops);
    }
}
