//! Timers and limits; what happened, in numbers.

/// Durations in milliseconds. Names and defaults of OpenSIPS tm.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `T1_timer`: first retransmission interval (RFC 3261 timers A, E, G).
    pub t1: u32,
    /// `T2_timer`: longest retransmission interval.
    pub t2: u32,
    /// `fr_timeout`: no reply at all (B, F), or no ACK for a negative reply (H).
    pub fr: u32,
    /// `fr_inv_timeout`: no final reply to an INVITE after a provisional one (C).
    pub fr_inv: u32,
    /// `wt_timer`: how long a finished transaction absorbs what comes late (D, I, J, K, L, M).
    pub wait: u32,
    /// How long a transaction without branches may stay unanswered before its owner is asked.
    pub unanswered: u32,
    /// `restart_fr_on_each_reply`: every provisional reply, not only the first, starts `fr_inv` anew.
    pub restart_on_each_reply: bool,
    /// `ruri_matching`: requests without an RFC 3261 branch are matched by their URI too.
    pub match_uri: bool,
    /// `via1_matching`: so is the topmost Via.
    pub match_via: bool,
    /// `disable_6xx_block`: further branches are allowed after a 6xx.
    pub fork_after_6xx: bool,
    /// Branches of one transaction, over its whole life.
    pub max_branches: u16,
    /// Transactions at once.
    pub max_transactions: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            t1: 500,
            t2: 4000,
            fr: 30_000,
            fr_inv: 120_000,
            wait: 5_000,
            unanswered: 30_000,
            restart_on_each_reply: true,
            match_uri: true,
            match_via: true,
            fork_after_6xx: false,
            max_branches: 32,
            max_transactions: 1 << 20,
        }
    }
}

/// Counted since the start; what OpenSIPS tm exports as statistics is among it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Made for received requests.
    pub created_server: u64,
    /// Made for requests of this server.
    pub created_local: u64,
    /// Not made because there are `max_transactions` already.
    pub refused: u64,
    /// Branches not made because there are `max_branches` already.
    pub branches_refused: u64,
    /// Final status class sent upstream: 2xx (index 2) to 6xx.
    pub finals: [u64; 7],
    /// Requests that were seen before.
    pub retransmissions_in: u64,
    /// Requests sent again after T1, 2·T1, 4·T1 and T2 (the last interval).
    pub requests_again: [u64; 4],
    /// Final replies sent again, until their ACK came.
    pub replies_again: u64,
    /// Branches without any reply in time.
    pub timeouts: u64,
    /// INVITE branches that rang and had no final reply in time.
    pub timeouts_ringing: u64,
    /// Replies that matched a branch.
    pub replies_in: u64,
    /// Those among them that changed nothing.
    pub replies_absorbed: u64,
    /// Replies of a callee that went upstream.
    pub replies_relayed: u64,
    /// Replies that were made here.
    pub replies_local: u64,
    /// No ACK came for a negative reply to an INVITE.
    pub no_ack: u64,
}
