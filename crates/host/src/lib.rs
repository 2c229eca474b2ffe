//! What a module sees: the running call, the registrar, variables, statistics, management.
//!
//! Everything here is driven by [`Worker::step`](worker::Worker::step): time, randomness and
//! datagrams come in, outputs are drained. No sockets, no clock, no threads.

pub mod context;
pub mod language;
pub mod load;
pub mod services;
pub mod tm;
pub mod tran;
pub mod vars;
pub mod worker;

pub use context::{
    avp, call, chunks, clock, coded, ctx, log, observe, outage, outside, owner, params, shared, stats,
    status, tape, taped, timers, var, watch,
};
pub use language::{arg, format, late, subst};
pub use load::{globals, listen, parameters, reference, registrar, reload};
pub use services::{aaa, backends, cachedb, db, events, mi, streams};
pub use tm::{blacklist, branches, contacts, reply};

pub use arg::{Arg, Head, HeadLines, Int, OutVar, OutVars, ReplyCode, Text, Word};
pub use call::{Call, Finish, Outcome, Suspension, Wait};
pub use ctx::{After, Branch, Core, Ctx, MsgState, Output, Program, Sip, TaskId};
pub use format::Format;
pub use language::checked::{Checked, Named};
pub use load::{Accepts, InParam, LoadError, Loader, load, load_with};
pub use registrar::{ModuleDef, Registrar, Routes};
pub use script::{Traced, Value};
pub use shared::{Listen, Shared};
pub use timers::TimerKey;
pub use var::{At, Var, Variable};
pub use worker::{Input, Worker};
