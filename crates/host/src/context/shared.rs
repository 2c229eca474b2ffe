//! What all workers share: the loaded configuration. Immutable after load, except where it says so.

use crate::context::ctx::{Ctx, Program};
use crate::context::globals::{FlagNames, Globals};
use crate::context::parts::Parts;
pub use crate::context::sockets::{Listen, bracketed, host_text, socket_named};
use crate::context::stats::Stats;
use ahash::AHashMap;
use parking_lot::RwLock;
use script::{Diagnostic, Sources};
use std::any::{Any, TypeId};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

pub type Hook = Arc<dyn Fn(&mut Ctx) + Send + Sync>;
/// The last argument: the name of the next hop, unless it is an address.
pub type TlsHint = Arc<dyn Fn(&Ctx, &crate::ctx::MsgState, Option<&[u8]>) -> u32 + Send + Sync>;

/// Places where modules join in.
#[derive(Default)]
pub struct Hooks {
    /// Each worker, when it starts.
    pub start: Vec<Hook>,
    /// (milliseconds, what): periodically on worker 0.
    pub timers: Vec<(u64, Hook)>,
    /// The same on every worker.
    pub worker_timers: Vec<(u64, Hook)>,
    /// Moments of messages on their way.
    pub watch: crate::watch::Watch,
    /// Choose how TLS is begun with the next hop of a message: what `Path::hint` carries. The first that does not
    /// say 0 counts.
    pub tls_hints: Vec<TlsHint>,
    /// What is behind Call-IDs that modules masked: both are of one worker.
    pub plain_call_ids: Vec<crate::owner::PlainCallId>,
    /// The server ends: last writes.
    pub stop: Vec<Hook>,
    /// Take addresses and files before anything runs. An error, what the operator should read, ends the start.
    pub openings: Vec<Opening>,
    /// (module, what this machine lacks for it): folders, addresses, databases. For `check`; may take a moment.
    pub lacks: Vec<(&'static str, Lacks)>,
    /// Run once beside the workers, on the management thread (listeners of mi_fifo, httpd ...).
    pub services: Vec<Service>,
    /// Hooks of the floors above.
    lists: Parts,
}

impl Hooks {
    /// The hooks of one type.
    pub fn list<T: Clone + Send + Sync + 'static>(&mut self) -> &mut Vec<T> {
        self.lists.entry()
    }

    /// The hooks of one type, once they are complete.
    pub fn listed<T: Clone + Send + Sync + 'static>(&self) -> &[T] {
        self.lists.find::<Vec<T>>().map_or(&[], |list| list)
    }
}

pub type Lacks = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
pub type Opening = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// A long-lived task of a module that is no part of any call.
pub type Service = Arc<dyn Fn(Arc<Shared>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How code outside the workers gets something done inside one. Set by the driver of the workers.
pub trait Dispatch: Send + Sync {
    fn workers(&self) -> usize;
    /// Queues a job for a worker; false when it is gone.
    fn run_on(&self, worker: usize, job: Box<dyn FnOnce(&mut Ctx) + Send>) -> bool;
    /// Drains and ends the server.
    fn shut_down(&self);
}

pub struct Shared {
    pub program: RwLock<Arc<Program>>,
    /// What the configuration said besides routes, as it was written; empty where nobody asks.
    pub declared: script::ast::Config,
    /// Its routes and how they reach each other, for those who draw them; set by whoever reads the configuration.
    pub graph: RwLock<Option<Arc<script::RouteGraph>>>,
    /// Texts of the configuration, for places in it; a reload adds files.
    pub sources: RwLock<Arc<Sources>>,
    pub globals: Globals,
    pub sockets: Vec<Listen>,
    /// Addresses of this machine; used only by sockets that are bound to all of them. The driver of the workers sets
    /// those that there are at the start, messages that come to others add them.
    pub local_addresses: RwLock<Vec<std::net::IpAddr>>,
    pub stats: Stats,
    pub hooks: Hooks,
    pub modules: AHashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub module_names: Vec<&'static str>,
    /// Names of message flags by bit, in declaration order.
    pub flag_names: RwLock<FlagNames>,
    /// The same of branch flags.
    pub branch_flag_names: RwLock<FlagNames>,
    /// How ready the parts of the server are.
    pub status: crate::status::Board,
    /// Unix milliseconds at start.
    pub started_ms: u64,
    /// What it was loaded with: a secret.
    pub seed: u64,
    /// The sockets of the configuration, as they were given to the loader ("udp:10.0.0.1:5060").
    pub listen_words: Vec<String>,
    pub warnings: Vec<Diagnostic>,
    pub dialect: script::ast::Dialect,
    /// Makes tags of To that no one outside can guess.
    pub tag_secret: ahash::RandomState,
    pub tag_prefix: u16,
    pub dispatch: OnceLock<Arc<dyn Dispatch>>,
    /// What stands in for the world outside, where a script is tested.
    pub outside: OnceLock<Arc<dyn crate::context::outside::Outside>>,
    /// `$var`s as startup_route left them, by slot.
    pub first_vars: OnceLock<Vec<script::Value>>,
    /// Large messages that wait, of all workers.
    pub held: crate::context::held::Held,
    /// What they are before startup_route, and without one.
    pub initial_vars: Vec<script::Value>,
    /// Servers that drivers told of (`Shared::tell_backend`).
    pub(crate) told_backends: RwLock<Vec<(&'static str, String, crate::outage::Outage)>>,
    /// The command line, for `arg`.
    pub arguments: OnceLock<Vec<String>>,
    /// What the floors above keep here, set when the configuration was loaded.
    pub(crate) parts: Parts,
}

impl Shared {
    pub fn program(&self) -> Arc<Program> {
        self.program.read().clone()
    }

    /// What one of the floors above keeps here. A look-up: what every message needs is taken once, when a worker
    /// starts. Panics when the procedure that loads has not set it.
    pub fn part<T: Send + Sync + 'static>(&self) -> &Arc<T> {
        self.parts.find().unwrap_or_else(|| panic!("{} is set at load", std::any::type_name::<T>()))
    }

    pub(crate) fn set_part<T: Send + Sync + 'static>(&mut self, part: T) {
        self.parts.set(Arc::new(part));
    }

    pub fn sources(&self) -> Arc<Sources> {
        self.sources.read().clone()
    }

    /// State of a loaded module.
    pub fn module<M: Send + Sync + 'static>(&self) -> Option<Arc<M>> {
        self.modules.get(&TypeId::of::<M>()).cloned().and_then(|m| m.downcast().ok())
    }
}
