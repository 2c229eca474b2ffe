//! What a module sees: the running call, the registrar, variables, statistics, management.
//!
//! Everything here is driven by [`Worker::step`](worker::Worker::step): time, randomness and
//! datagrams come in, outputs are drained. No sockets, no clock, no threads.

pub mod aaa;
pub mod arg;
pub mod avp;
pub mod blacklist;
pub mod branches;
pub mod cachedb;
pub mod call;
pub mod chunks;
pub mod clock;
pub mod contacts;
pub mod ctx;
pub mod db;
pub mod events;
pub mod format;
pub mod globals;
pub mod late;
pub mod listen;
pub mod load;
pub mod log;
pub mod mi;
pub mod outage;
pub mod parameters;
pub mod reference;
pub mod registrar;
pub mod reload;
pub mod reply;
pub mod shared;
pub mod stats;
pub mod status;
pub mod streams;
pub mod subst;
pub mod tm;
pub mod tran;
pub(crate) mod unknown;
pub mod var;
pub mod vars;
pub mod worker;

pub use arg::{Arg, Int, OutVar, OutVars, ReplyCode, Text, Word};
pub use call::{Call, Finish, Outcome, Suspension, Wait};
pub use ctx::{After, Branch, Core, Ctx, MsgState, Output, Sip, TaskId};
pub use format::Format;
pub use load::{Loader, load};
pub use registrar::{ModuleDef, Registrar, Routes};
pub use script::Value;
pub use shared::{Listen, Shared};
pub use var::{At, Var, Variable};
pub use worker::{Input, Worker};

/// Compiled routes of a configuration.
pub type Program = script::Program<Sip>;
