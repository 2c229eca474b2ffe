//! The address of a next hop is not known yet: it is looked up, and what needed it is done again.
//!
//! `branch::path_of` says `SendError::NotYet` when DNS must be asked. A script waits with [`when_known`]; what goes on
//! beside a script begins a [`Lookup`] and awaits it. What was found stays with the message ([`FoundHops`]), so that the second
//! try finds it.

use super::branch::{SendError, lookup_of};
use crate::call::{Finish, Outcome, Suspension};
use crate::ctx::{Branch, Ctx, MsgState, Resolved};
use bytes::Bytes;
use sip::names::{Hop, Query};

/// Longest a name may take, milliseconds.
pub(super) const LOOKUP_MS: u64 = 10_000;

/// Addresses that look-ups of this script found.
#[derive(Clone, Default)]
pub struct FoundHops(pub Vec<(Query, Vec<Hop>)>);

impl FoundHops {
    /// What was found for a question of this message.
    pub(super) fn of<'a>(state: &'a MsgState, query: &Query) -> Option<&'a [Hop]> {
        let all = &state.ext.find::<FoundHops>()?.0;
        all.iter().find(|(known, _)| known == query).map(|(_, hops)| &hops[..])
    }
}

/// The answer to a look-up; without addresses when there are none.
pub(super) struct Answer(Query, Vec<Hop>);

impl Answer {
    /// Keeps it with a message.
    pub(super) fn keep(self, state: &mut MsgState) {
        state.ext.entry::<FoundHops>().0.push((self.0, self.1));
    }
}

/// A look-up that has begun.
pub(super) struct Lookup {
    query: Query,
    answer: Resolved,
}

impl Lookup {
    /// Asks what a branch needs. `None`: its host is an address, or it is no URI.
    pub(super) fn of(ctx: &Ctx, target: &Branch, proxy: Option<&Bytes>) -> Option<Lookup> {
        lookup_of(&ctx.core.shared.sockets, target, proxy).map(|query| Lookup::begin(ctx, query))
    }

    fn begin(ctx: &Ctx, query: Query) -> Lookup {
        Lookup { answer: ctx.core.spawner.resolve(query.clone()), query }
    }

    /// The name that is looked up, for lists of what waits.
    pub(super) fn host(&self) -> Bytes {
        self.query.host.clone().into()
    }

    pub(super) async fn answer(self) -> Answer {
        let hops = match self.answer {
            Resolved::Now(hops) => hops,
            Resolved::Later(hops) => hops.await,
        };
        Answer(self.query, hops.unwrap_or_default())
    }
}

/// Goes on with `then` when the questions have their answers; the script waits for them. At once when there are none.
pub(super) fn when_known(
    ctx: &mut Ctx,
    what: &'static str,
    questions: Vec<Query>,
    then: impl FnOnce(&mut Ctx) -> i32 + 'static,
) -> Outcome {
    let mut waiting = Vec::new();
    for query in questions {
        match Lookup::begin(ctx, query) {
            Lookup { query, answer: Resolved::Now(hops) } => {
                Answer(query, hops.unwrap_or_default()).keep(&mut ctx.state);
            }
            lookup => waiting.push(lookup),
        }
    }
    let Some(detail) = waiting.first().map(Lookup::host) else { return Outcome::Done(then(ctx)) };
    Suspension::future(what, async move {
        let mut answers = Vec::with_capacity(waiting.len());
        for lookup in waiting {
            answers.push(lookup.answer().await);
        }
        Box::new(move |ctx: &mut Ctx| {
            answers.into_iter().for_each(|answer| answer.keep(&mut ctx.state));
            then(ctx)
        }) as Finish
    })
    .detail(detail)
    .limit(LOOKUP_MS, SendError::Unresolvable.code())
}
