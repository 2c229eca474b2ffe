//! How long contacts take to answer pings, and which of it is an event.

use super::table::Table;
use super::{Usrloc, events};
use bytes::Bytes;
use host::Ctx;
use std::sync::Arc;

/// `latency_event_min_us`, `latency_event_min_us_delta`; 0: not set.
#[derive(Default)]
pub struct Filter {
    pub min_us: u32,
    pub min_delta_us: u32,
}

impl Filter {
    /// A latency that follows another is worth an event: either limit is reached, or none is set.
    fn passes(&self, before_us: u32, now_us: u32) -> bool {
        match (self.min_us, self.min_delta_us) {
            (0, 0) => true,
            (min, delta) => min > 0 && now_us >= min || delta > 0 && now_us.abs_diff(before_us) >= delta,
        }
    }
}

impl Usrloc {
    /// A contact with one of some branch flags has answered a ping after some microseconds.
    pub fn answered(
        &self,
        ctx: &mut Ctx,
        table: &Arc<Table>,
        aor: &Bytes,
        id: u64,
        flags: u32,
        latency_us: u32,
    ) {
        let (found, _) = table.with(aor, |record, _| {
            let contact = record.contacts.iter_mut().find(|c| c.id == id && c.flags & flags != 0)?;
            let before_us = std::mem::replace(&mut contact.latency_us, latency_us);
            Some((before_us, contact.clone()))
        });
        if let Some((before_us, contact)) = found
            && self.latencies.passes(before_us, latency_us)
        {
            events::latency(ctx, table, aor, &contact);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_latencies_are_events() {
        for (min_us, min_delta_us, before_us, now_us, passes) in [
            (0, 0, 10, 10, true),
            (100, 0, 500, 99, false),
            (100, 0, 0, 100, true),
            (0, 50, 100, 120, false),
            (0, 50, 100, 50, true),
            (100, 50, 10, 60, true),
            (100, 50, 10, 20, false),
        ] {
            let filter = Filter { min_us, min_delta_us };
            assert_eq!(
                filter.passes(before_us, now_us),
                passes,
                "{min_us} {min_delta_us} {before_us} {now_us}"
            );
        }
    }
}
