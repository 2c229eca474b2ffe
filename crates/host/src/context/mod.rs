//! The ground floor: the running call, its worker, what all workers share, and the plain data that every other
//! floor passes around. Imports nothing of the floors above.

pub mod avp;
pub mod call;
pub mod chunks;
pub mod clock;
pub mod ctx;
pub mod log;
pub mod outage;
pub mod shared;
pub mod stats;
pub mod status;
