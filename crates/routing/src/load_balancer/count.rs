//! How many calls a destination has: dialogs count themselves, for each resource in a profile of its own with the
//! destination as value. Profiles that several servers share are asked for in their store.

use super::data::Data;
use ahash::AHashMap;
use host::{Ctx, Finish, Outcome, Suspension};
use modules::dialog::api;

/// The name of a resource's profile begins with this.
pub const PREFIX: &str = api::LOAD_PREFIX;
/// How long the store of shared profiles may take.
const LIMIT_MS: u64 = 5_000;

/// Numbers of calls by resource and destination.
#[derive(Default)]
pub struct Counts(AHashMap<(usize, Box<[u8]>), i64>);

impl Counts {
    pub fn of(&self, resource: usize, value: &[u8]) -> i64 {
        self.0.get(&(resource, value.into())).copied().unwrap_or(0)
    }
}

/// Finds out the numbers that are asked for, at once where this server counts alone.
pub fn counts(
    ctx: &mut Ctx,
    data: &Data,
    asked: Vec<(usize, Box<[u8]>)>,
    finish: impl FnOnce(&mut Ctx, Counts) -> i32 + 'static,
) -> Outcome {
    let (counts, shared) = split(ctx, data, asked);
    if shared.is_empty() {
        return finish(ctx, counts).into();
    }
    let sizes = api::shared_sizes(ctx, shared.iter().map(|(_, ask)| ask.clone()).collect());
    Suspension::future("load of destinations", async move {
        let sizes = sizes.await;
        Box::new(move |ctx: &mut Ctx| {
            let counts = joined(ctx, counts, shared, sizes);
            finish(ctx, counts)
        }) as Finish
    })
    .limit(LIMIT_MS, -1)
}

/// The same beside any script.
pub fn spawn_counts(
    ctx: &mut Ctx,
    data: &Data,
    asked: Vec<(usize, Box<[u8]>)>,
    finish: impl FnOnce(&mut Ctx, Counts) + 'static,
) {
    let (counts, shared) = split(ctx, data, asked);
    if shared.is_empty() {
        return finish(ctx, counts);
    }
    let sizes = api::shared_sizes(ctx, shared.iter().map(|(_, ask)| ask.clone()).collect());
    ctx.spawn("load of destinations", LIMIT_MS, async move {
        let sizes = sizes.await;
        Box::new(move |ctx: &mut Ctx| {
            let counts = joined(ctx, counts, shared, sizes);
            finish(ctx, counts);
            1
        }) as Finish
    });
}

/// A number that is shared: what it is for, and what the store is asked.
type Shared = ((usize, Box<[u8]>), (u16, Box<[u8]>));

/// The numbers that are known here, and those that the store has.
fn split(ctx: &Ctx, data: &Data, asked: Vec<(usize, Box<[u8]>)>) -> (Counts, Vec<Shared>) {
    let (mut counts, mut shared) = (Counts::default(), Vec::new());
    for (resource, value) in asked {
        let profile = data.resources[resource].profile;
        if api::is_shared(ctx, profile) {
            shared.push(((resource, value.clone()), (profile, value)));
        } else {
            let size = api::profile_size(ctx, profile, &value);
            counts.0.insert((resource, value), size);
        }
    }
    (counts, shared)
}

/// A number that the store does not give is what this server counts alone.
fn joined(ctx: &mut Ctx, mut counts: Counts, shared: Vec<Shared>, sizes: Vec<Option<i64>>) -> Counts {
    for ((what, (profile, value)), size) in shared.into_iter().zip(sizes) {
        let size = size.unwrap_or_else(|| {
            host::complain!(ctx, "load_balancer", "the shared store does not say how many calls there are");
            api::profile_size(ctx, profile, &value)
        });
        counts.0.insert(what, size.max(0));
    }
    counts
}
