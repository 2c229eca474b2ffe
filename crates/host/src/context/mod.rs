//! The ground floor: the running call, its worker, what all workers share, and the plain data that every other
//! floor passes around. Imports nothing of the floors above.

pub mod avp;
pub mod awaited;
pub mod call;
pub mod chunks;
pub mod clock;
mod complain;
pub mod ctx;
pub mod current;
pub mod detached;
pub mod full;
pub mod func;
pub mod globals;
pub mod held;
pub mod list;
pub mod log;
pub mod message;
pub mod net;
pub mod ops;
pub mod outage;
pub mod owner;
pub mod params;
pub mod parked;
pub mod parts;
pub mod shared;
pub mod sockets;
pub mod stats;
pub mod status;
pub mod tasks;
pub mod timers;
pub mod transform;
pub mod uri;
pub mod var;
pub mod watch;
