//! What the transactions of a worker count, as the statistics of module tm.

use crate::stats::{Counter, Stats as Table};
use transaction::Stats;

/// Makes the names and what reads their values from one list.
macro_rules! published {
    ($($name:literal $field:ident $([$at:literal])?;)*) => {
        /// Names of OpenSIPS tm.
        const NAMES: [&str; [$($name),*].len()] = [$($name),*];

        fn values(stats: &Stats) -> [u64; NAMES.len()] {
            [$(stats.$field$([$at])?),*]
        }
    };
}

published! {
    "received_replies" replies_in;
    "relayed_replies" replies_relayed;
    "local_replies" replies_local;
    "UAS_transactions" created_server;
    "UAC_transactions" created_local;
    "2xx_transactions" finals[2];
    "3xx_transactions" finals[3];
    "4xx_transactions" finals[4];
    "5xx_transactions" finals[5];
    "6xx_transactions" finals[6];
    "retransmission_req_T1_1" requests_again[0];
    "retransmission_req_T1_2" requests_again[1];
    "retransmission_req_T1_3" requests_again[2];
    "retransmission_req_T2" requests_again[3];
    "retransmission_rpl_T2" replies_again;
    "timeout_finalresponse" timeouts;
    "timeout_finalresponse_inv" timeouts_ringing;
}

/// What the shared counters know of this worker.
pub(super) struct Published {
    counters: [(Counter, u64); NAMES.len()],
    in_use: (Counter, usize),
}

impl Published {
    pub(super) fn new(table: &Table) -> Published {
        Published {
            counters: NAMES.map(|name| (table.counter("tm", name), 0)),
            in_use: (table.counter("tm", "inuse_transactions"), 0),
        }
    }

    /// Adds what happened since the last time.
    pub(super) fn update(&mut self, stats: &Stats, in_use: usize) {
        for ((counter, known), value) in self.counters.iter_mut().zip(values(stats)) {
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
