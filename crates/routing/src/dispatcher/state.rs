//! States of destinations: who changes them, and who hears of it.

use super::partition::Partition;
use super::{Dispatcher, EVENT, GROUP};
use crate::destinations::{Destination, State};
use bytes::Bytes;
use host::events::{self, EventParams};
use host::{Ctx, Value};
use std::sync::Arc;

/// What somebody wants of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Active,
    Inactive,
    Probing,
}

impl Wanted {
    /// The first letter counts: `a`, `1`, `i`, `0`, `p`, `2`.
    pub fn parse(text: &[u8]) -> Option<Wanted> {
        match text.first()?.to_ascii_lowercase() {
            b'a' | b'1' => Some(Wanted::Active),
            b'i' | b'0' => Some(Wanted::Inactive),
            b'p' | b'2' => Some(Wanted::Probing),
            _ => None,
        }
    }
}

/// Where a destination stands, as those see it who hear of its state.
pub struct Place<'a> {
    pub partition: &'a Partition,
    pub set: i64,
    /// The URI as it was named.
    pub address: Bytes,
}

impl Dispatcher {
    /// The destination of a set with this URI, in any case.
    pub fn find(&self, partition: &Partition, set: i64, address: &[u8]) -> Option<Arc<Destination>> {
        let data = partition.data.get()?;
        let entries = &data.set(set)?.entries;
        entries.iter().find(|e| e.to.uri.eq_ignore_ascii_case(address)).map(|e| e.to.clone())
    }

    /// Changes a state by hand (`ds_mark_dst`, `ds_set_state`). False: there is no such destination.
    pub fn set_state(&self, ctx: &mut Ctx, place: &Place<'_>, wanted: Wanted, why: &str) -> bool {
        let Some(to) = self.find(place.partition, place.set, &place.address) else { return false };
        match (wanted, to.state()) {
            (Wanted::Active, _) => self.change(ctx, place, &to, State::Active, why),
            (Wanted::Inactive, _) => self.change(ctx, place, &to, State::Inactive, why),
            // It is not probed, so whoever wants to have it probed has it back.
            (Wanted::Probing, State::Inactive) => self.change(ctx, place, &to, State::Active, why),
            (Wanted::Probing, _) => self.suspect(ctx, place, &to, why),
        }
        true
    }

    /// One sign more that it is down: after `ds_probing_threshold` of them it is probed. One that is inactive stays so.
    pub fn suspect(&self, ctx: &mut Ctx, place: &Place<'_>, to: &Destination, why: &str) {
        if to.state() != State::Inactive && to.failed(self.threshold) {
            self.change(ctx, place, to, State::Probing, why);
        }
    }

    pub fn change(&self, ctx: &mut Ctx, place: &Place<'_>, to: &Destination, state: State, why: &str) {
        let was = to.state();
        if !to.set_state(state) {
            return;
        }
        let down = state != State::Active;
        self.tell(ctx, place, if down { "inactive" } else { "active" }, why);
        if (was, state) == (State::Probing, State::Inactive) {
            // The reference tells of the end of the probing, too.
            self.tell(ctx, place, "active", why);
        }
    }

    fn tell(&self, ctx: &mut Ctx, place: &Place<'_>, status: &'static str, why: &str) {
        let Place { partition, set, address } = place;
        let uri = String::from_utf8_lossy(address);
        let report = format!("DESTINATION <{uri}>, set {set} switched to [{status}] due to {why}\n");
        let now_s = ctx.core.wall_us / 1_000_000;
        ctx.shared().status.report(GROUP, &partition.events, now_s, report);
        let mut params: Vec<(&'static str, Value)> = Vec::with_capacity(5);
        if !partition.is_default {
            params.push(("partition", Value::from(partition.name.clone())));
        }
        params.push(("group", Value::Int(*set)));
        params.push(("address", Value::Str(address.clone())));
        params.push(("status", Value::from(status)));
        params.push(("reason", Value::from(why.to_owned())));
        events::raise(ctx, EVENT, params.into_iter().collect::<EventParams>());
    }
}
