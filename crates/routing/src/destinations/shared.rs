//! States of destinations that several servers share: what one of them switches off, the others leave out too.
//!
//! Each second a server writes the states that changed here into a map of the store that dialogs share (`cachedb_url` of
//! `dialog`), and takes those that others wrote. The one that is written last counts.

use super::{Standing, State};
use ahash::AHashMap;
use bytes::Bytes;
use host::cachedb::CacheError;
use host::{Ctx, Finish};
use modules::dialog::api;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long the store may take, milliseconds.
const LIMIT_MS: u64 = 5_000;
/// How long the store keeps states after the last change, seconds.
const KEPT_S: u32 = 86_400;

/// A state, with the name that it has on all servers, and whose it is.
pub struct Member<T> {
    pub name: Bytes,
    pub standing: Arc<Standing>,
    pub of: T,
}

/// What this server and the store agree about.
#[derive(Default)]
pub struct SharedStates {
    known: Mutex<Known>,
    busy: AtomicBool,
    /// What is wrong was said.
    said: AtomicBool,
}

/// States as the store had them last.
#[derive(Default)]
struct Known(AHashMap<Bytes, State>);

impl Known {
    /// What others changed in the store since the last time; `own` is what this server has just written there. Destinations
    /// that `is_here` does not know are forgotten.
    fn foreign(
        &mut self,
        own: &[(Bytes, State)],
        store: &[(Bytes, Bytes)],
        is_here: impl Fn(&Bytes) -> bool,
    ) -> Vec<(Bytes, State)> {
        self.0.extend(own.iter().cloned());
        let mut changed = Vec::new();
        for (name, value) in store.iter().filter(|(name, _)| is_here(name)) {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let Some(state) = number.and_then(State::of_column) else { continue };
            if self.0.insert(name.clone(), state) != Some(state) {
                changed.push((name.clone(), state));
            }
        }
        self.0.retain(|name, _| is_here(name));
        changed
    }
}

impl SharedStates {
    /// Does it once, beside everything else, on one worker. `set` names what belongs together on all servers; `apply`
    /// changes a state that another server changed, if it is not so already.
    pub fn exchange<T: 'static>(
        self: &Arc<Self>,
        ctx: &mut Ctx,
        module: &'static str,
        set: String,
        members: Vec<Member<T>>,
        apply: impl Fn(&mut Ctx, &Member<T>, State) + 'static,
    ) {
        let Some(cache) = api::shared_store(ctx) else {
            if !self.said.swap(true, Ordering::Relaxed) {
                host::warn!(
                    module,
                    "the servers of the cluster do not hear of each other's states: set cachedb_url of module dialog to a store that they share"
                );
            }
            return;
        };
        if members.is_empty() || self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let map = Bytes::from(set);
        let changed: Vec<&Member<T>> =
            members.iter().filter(|member| member.standing.take_untold()).collect();
        let own: Vec<_> = changed.iter().map(|m| (m.name.clone(), m.standing.state())).collect();
        let untold = changed.iter().map(|member| member.standing.clone()).collect();
        let round = Round { shared: self.clone(), untold };
        let store = cache.on(ctx);
        let written: Vec<_> = own.iter().map(|(name, state)| (name.clone(), digit(*state))).collect();
        ctx.spawn("shared states of destinations", LIMIT_MS, async move {
            let mut round = round;
            let found: Result<Vec<(Bytes, Bytes)>, CacheError> = async {
                if !written.is_empty() {
                    store.map_change(map.clone(), written, Vec::new(), KEPT_S).get().await?;
                    round.untold.clear();
                }
                store.map_get(map).get().await
            }
            .await;
            Box::new(move |ctx: &mut Ctx| {
                let store = match found {
                    Ok(store) => store,
                    Err(error) => {
                        if !round.shared.said.swap(true, Ordering::Relaxed) {
                            host::error!(
                                module,
                                "states are not shared with other servers until the store answers: {error}"
                            );
                        }
                        return -1;
                    }
                };
                round.shared.said.store(false, Ordering::Relaxed);
                let here: AHashMap<&Bytes, &Member<T>> = members.iter().map(|m| (&m.name, m)).collect();
                let foreign = round.shared.known.lock().foreign(&own, &store, |name| here.contains_key(name));
                for (name, state) in foreign {
                    // What changed here meanwhile is written the next time.
                    if let Some(member) = here.get(&name).filter(|member| !member.standing.is_untold()) {
                        apply(ctx, member, state);
                        member.standing.take_untold();
                    }
                }
                1
            }) as Finish
        });
    }
}

/// As tables have it.
fn digit(state: State) -> Bytes {
    Bytes::from((state as u8).to_string())
}

/// One exchange, however it ends.
struct Round {
    shared: Arc<SharedStates>,
    /// Others have not heard of these.
    untold: Vec<Arc<Standing>>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.untold.iter().for_each(|standing| standing.note_untold());
        self.shared.busy.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Active, Inactive, Probing};

    fn states(list: &[(&'static str, State)]) -> Vec<(Bytes, State)> {
        list.iter().map(|(name, state)| (Bytes::from_static(name.as_bytes()), *state)).collect()
    }

    fn stored(list: &[(&'static str, State)]) -> Vec<(Bytes, Bytes)> {
        states(list).into_iter().map(|(name, state)| (name, digit(state))).collect()
    }

    #[test]
    fn the_last_change_counts() {
        let mut known = Known::default();
        let here = |name: &Bytes| name != "gone";
        // At the start the store says.
        let found = known.foreign(&[], &stored(&[("b", Inactive), ("gone", Inactive)]), here);
        assert_eq!(found, states(&[("b", Inactive)]));
        assert_eq!(known.foreign(&[], &stored(&[("b", Inactive)]), here), [], "nothing new");
        // This server changes one, another the other.
        let own = states(&[("a", Probing)]);
        let found = known.foreign(&own, &stored(&[("a", Probing), ("b", Active)]), here);
        assert_eq!(found, states(&[("b", Active)]));
        // Another was later with the same one.
        let own = states(&[("a", Active)]);
        assert_eq!(known.foreign(&own, &stored(&[("a", Inactive)]), here), states(&[("a", Inactive)]));
        // Broken values and destinations that a reload took away change nothing.
        let broken = vec![(Bytes::from_static(b"a"), Bytes::from_static(b"x"))];
        assert_eq!(known.foreign(&[], &broken, |name| name == "a"), []);
        assert_eq!(known.0.len(), 1);
    }
}
