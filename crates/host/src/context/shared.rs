//! What all workers share: the loaded configuration. Immutable after load, except where it says so.

use crate::context::ctx::{Ctx, Program};
use crate::context::globals::{FlagNames, Globals};
pub use crate::context::sockets::{Listen, bracketed, host_text};
use crate::mi::MiCommand;
use crate::stats::Stats;
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
    /// Names of the events that a module raises, for lists.
    pub event_names: Vec<&'static str>,
    /// Modules that carry events to other programs.
    pub event_transports: Vec<Arc<dyn crate::events::EventTransport>>,
    /// Choose how TLS is begun with the next hop of a message: what `Path::hint` carries. The first that does not
    /// say 0 counts.
    pub tls_hints: Vec<TlsHint>,
    /// The server ends: last writes.
    pub stop: Vec<Hook>,
    /// Take addresses and files before anything runs. An error, what the operator should read, ends the start.
    pub openings: Vec<Opening>,
    /// (module, what this machine lacks for it): folders, addresses, databases. For `check`; may take a moment.
    pub lacks: Vec<(&'static str, Lacks)>,
    /// Run once beside the workers, on the management thread (listeners of mi_fifo, httpd ...).
    pub services: Vec<Service>,
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

/// What `reload_routes` calls; it must not block.
pub type Reload = Box<dyn Fn(&Arc<Shared>, crate::mi::MiAnswer) + Send + Sync>;

pub struct Shared {
    pub program: RwLock<Arc<Program>>,
    /// What the configuration said besides routes, as it was written; empty where nobody asks.
    pub declared: script::ast::Config,
    /// Texts of the configuration, for places in it; a reload adds files.
    pub sources: RwLock<Arc<Sources>>,
    pub globals: Globals,
    pub sockets: Vec<Listen>,
    /// Addresses of this machine; used only by sockets that are bound to all of them. The driver of the workers sets
    /// those that there are at the start, messages that come to others add them.
    pub local_addresses: RwLock<Vec<std::net::IpAddr>>,
    pub stats: Stats,
    pub commands: Vec<MiCommand>,
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
    pub warnings: Vec<Diagnostic>,
    pub dialect: script::ast::Dialect,
    /// Events, their routes and who subscribed to them.
    pub events: crate::events::Events,
    pub signature: crate::reply::Signature,
    /// Replies of no transaction are sent on: the script uses `forward()`, or `disable_stateless_fwd=no`.
    pub forwards: bool,
    /// `disable_503_translation`: a 503 goes upstream as it is.
    pub keeps_503: bool,
    /// `sip_warning`: replies made here explain themselves in a Warning header.
    pub warns: bool,
    /// `mhomed`: the route to the destination chooses the socket.
    pub mhomed: bool,
    /// `reply_to_via`: replies go to the address in the Via.
    pub reply_to_via: bool,
    /// Which connections messages may take.
    pub stream_rules: crate::streams::Rules,
    /// Stream connections of all workers. Set by the driver of the workers.
    pub connections: OnceLock<Arc<dyn crate::streams::Connections>>,
    /// Settings of module tm; workers read them when they start.
    pub tm: parking_lot::Mutex<crate::tm::Settings>,
    /// Makes tags of To that no one outside can guess.
    pub tag_secret: ahash::RandomState,
    pub tag_prefix: u16,
    pub dispatch: OnceLock<Arc<dyn Dispatch>>,
    /// Prepares texts with variables while the server runs.
    pub late: OnceLock<crate::late::Late>,
    /// `$var`s as startup_route left them, by slot.
    pub first_vars: OnceLock<Vec<script::Value>>,
    /// What they are before startup_route, and without one.
    pub initial_vars: Vec<script::Value>,
    /// The command line, for `arg`.
    pub arguments: OnceLock<Vec<String>>,
    /// Reads the routes of the configuration again; answers when they are in place.
    pub reload: OnceLock<Reload>,
    /// Key-value stores by the names that scripts use.
    pub caches: crate::cachedb::Named,
}

impl Shared {
    pub fn program(&self) -> Arc<Program> {
        self.program.read().clone()
    }

    /// The stream connections, when a driver has some.
    pub fn connections(&self) -> Option<&Arc<dyn crate::streams::Connections>> {
        self.connections.get()
    }

    pub fn sources(&self) -> Arc<Sources> {
        self.sources.read().clone()
    }

    /// State of a loaded module.
    pub fn module<M: Send + Sync + 'static>(&self) -> Option<Arc<M>> {
        self.modules.get(&TypeId::of::<M>()).cloned().and_then(|m| m.downcast().ok())
    }

    /// A management command: `name`, or `module:name` as 4.x writes it, where `name` is that of before or what
    /// follows its first word (`domain:reload` is `domain_reload`).
    pub fn command(&self, name: &str) -> Option<&MiCommand> {
        let found = self.commands.iter().find(|c| c.names().any(|own| own == name));
        found.or_else(|| {
            let (module, name) = name.split_once(':')?;
            let mut mine = self.commands.iter().filter(|c| c.module == module);
            let tail = |c: &&MiCommand| {
                c.names().any(|own| own.split_once('_').is_some_and(|(_, tail)| tail == name))
            };
            mine.clone().find(|c| c.names().any(|own| own == name)).or_else(|| mine.find(tail))
        })
    }
}
