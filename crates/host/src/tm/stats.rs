//! What the transactions of a worker count, as the statistics of module tm.

use crate::stats::{Counter, Stats as Table};
use transaction::Stats;

type Read = fn(&Stats) -> u64;

/// Names of OpenSIPS tm.
const NAMES: [(&str, Read); 17] = [
    ("received_replies", |s| s.replies_in),
    ("relayed_replies", |s| s.replies_relayed),
    ("local_replies", |s| s.replies_local),
    ("UAS_transactions", |s| s.created_server),
    ("UAC_transactions", |s| s.created_local),
    ("2xx_transactions", |s| s.finals[2]),
    ("3xx_transactions", |s| s.finals[3]),
    ("4xx_transactions", |s| s.finals[4]),
    ("5xx_transactions", |s| s.finals[5]),
    ("6xx_transactions", |s| s.finals[6]),
    ("retransmission_req_T1_1", |s| s.requests_again[0]),
    ("retransmission_req_T1_2", |s| s.requests_again[1]),
    ("retransmission_req_T1_3", |s| s.requests_again[2]),
    ("retransmission_req_T2", |s| s.requests_again[3]),
    ("retransmission_rpl_T2", |s| s.replies_again),
    ("timeout_finalresponse", |s| s.timeouts),
    ("timeout_finalresponse_inv", |s| s.timeouts_ringing),
];

/// What the shared counters know of this worker.
pub(super) struct Published {
    counters: [(Counter, u64); NAMES.len()],
    in_use: (Counter, usize),
}

impl Published {
    pub(super) fn new(table: &Table) -> Published {
        Published {
            counters: NAMES.map(|(name, _)| (table.counter("tm", name), 0)),
            in_use: (table.counter("tm", "inuse_transactions"), 0),
        }
    }

    /// Adds what happened since the last time.
    pub(super) fn update(&mut self, stats: &Stats, in_use: usize) {
        for ((counter, known), (_, read)) in self.counters.iter_mut().zip(NAMES) {
            let value = read(stats);
            if value != *known {
                counter.add((value - *known) as i64);
                *known = value;
            }
        }
        if in_use != self.in_use.1 {
            self.in_use.0.add(in_use as i64 - self.in_use.1 as i64);
            self.in_use.1 = in_use;
        }
    }
}
