//! What all modules here share: destinations of tables, in sets that a reload swaps as a whole.
//!
//! ```text
//!  table.rs    rows ──► read ──► names looked up ──► the module builds its sets and swaps them (`modules::cached`)
//!  destination.rs   one destination: URI, addresses, socket, state, counters. A reload keeps those that stay (`kept`),
//!              and with them state, failures, hits and the probe that is on its way
//!  standing.rs its state, and who has still to hear of it
//!  probe.rs    requests that ask whether a destination is there, paced on worker 0
//!  save.rs     states go back into the module's table, a little later
//!  shared.rs   states that several servers share through a store
//!  blacklist.rs     sets whose addresses nothing may be sent to
//! ```
//! The state of a destination is the same for all three modules:
//!
//! ```text
//!             fails often enough, script             command, script
//!   Active ─────────────────────────► Probing      ─────────────────► Inactive
//!     ▲                                  │                               │
//!     └──────── a probe succeeds ────────┘        (never probed)         │
//!     └───────────────────────── command, script ────────────────────────┘
//! ```

mod avps;
mod blacklist;
mod destination;
mod probe;
mod resolve;
mod save;
mod shared;
mod standing;
mod table;

pub use avps::avp_of_param;
pub use blacklist::BlacklistedSets;
pub use destination::{Destination, Place, State, kept};
pub use probe::{CSEQ_FIRST, CSEQ_WITHIN, Codes, Heard, Pace, Probe};
pub use resolve::{look_up, refresh};
pub use save::{Save, save};
pub use shared::{Member, SharedStates};
pub use standing::Standing;
pub use table::{FirstLoad, Table, load};
