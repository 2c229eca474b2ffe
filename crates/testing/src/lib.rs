//! Runs a piece of script for the tests of modules: the real loader, machine and worker, on a runtime of its own and
//! without a network. A crate of modules says once which modules its scripts may load:
//!
//! ```ignore
//! #[cfg(test)]
//! #[allow(dead_code, unused_imports)]
//! mod testing {
//!     testing::over!(crate::ALL, drivers::ALL);
//! }
//! ```

use host::avp::AvpName;
use host::call::Finish;
use host::ctx::{After, MsgState, Spawn, TaskId};
use host::worker::{Clock, dummy_message};
use host::{Input, ModuleDef, Worker};
use script::ast::{Dialect, RouteKind};
use script::{Options, Severity, Sources, Task};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// The modules that scripts may load.
pub type Known = &'static [ModuleDef];

/// [`run`], [`run_with`], [`refused`] and [`Server`] over these lists of modules.
#[macro_export]
macro_rules! over {
    ($($list:expr),+) => {
        pub use $crate::{Folder, Ran, START_S, Sent};
        use script::ast::Dialect;

        fn known() -> $crate::Known {
            static KNOWN: std::sync::LazyLock<Vec<host::ModuleDef>> =
                std::sync::LazyLock::new(|| [$(&$list[..]),+].concat());
            &KNOWN
        }

        pub fn refused(config: &str, body: &str, dialect: Dialect) -> String {
            $crate::refused(known(), config, body, dialect)
        }

        pub fn run(config: &str, body: &str, dialect: Dialect) -> Ran {
            $crate::run_with(known(), config, body, dialect, |_| ())
        }

        pub fn run_with(
            config: &str,
            body: &str,
            dialect: Dialect,
            prepare: impl FnOnce(&mut host::ctx::MsgState),
        ) -> Ran {
            $crate::run_with(known(), config, body, dialect, prepare)
        }

        pub struct Server($crate::Server);

        impl Server {
            pub fn new(config: &str, dialect: Dialect) -> Server {
                Server($crate::Server::new(known(), config, dialect))
            }
        }

        impl std::ops::Deref for Server {
            type Target = $crate::Server;
            fn deref(&self) -> &$crate::Server {
                &self.0
            }
        }

        impl std::ops::DerefMut for Server {
            fn deref_mut(&mut self) -> &mut $crate::Server {
                &mut self.0
            }
        }
    };
}

/// A folder of its own, removed at the end.
pub struct Folder(pub std::path::PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("fermata-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Spawner(mpsc::UnboundedSender<(TaskId, Finish)>);

impl Spawn for Spawner {
    fn spawn(&self, task: TaskId, future: Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any> {
        let done = self.0.clone();
        Box::new(Guard(spawn_local(async move {
            let finish = future.await;
            let _ = done.send((task, finish));
        })))
    }
}

/// What a script left.
pub struct Ran {
    pub state: Box<MsgState>,
    /// Operations that it waited for.
    pub waits: usize,
}

impl Ran {
    /// Values of an AVP, index 0 first.
    pub fn avps(&self, name: &str) -> Vec<String> {
        let avps = self.state.avps.borrow();
        avps.values(AvpName::new(name.as_bytes()))
            .map(|v| String::from_utf8_lossy(&v.to_text()).into_owned())
            .collect()
    }
}

fn load(known: Known, text: &str, dialect: Dialect) -> Result<host::Shared, String> {
    let mut sources = Sources::default();
    let options = Options { dialect: Some(dialect) };
    let (config, problems) = script::parse_text("test.cfg", text, &mut sources, options);
    let errors = |sources: &Sources, list: &[script::Diagnostic]| -> String {
        list.iter().filter(|d| d.severity == Severity::Error).map(|d| sources.render(d)).collect()
    };
    let found = errors(&sources, &problems);
    if !found.is_empty() {
        return Err(found);
    }
    host::load(&config, sources, known, 0, 1).map_err(|(sources, list)| errors(&sources, &list))
}

/// The diagnostics that a configuration is refused with.
pub fn refused(known: Known, config: &str, body: &str, dialect: Dialect) -> String {
    load(known, &format!("{config}\nroute {{ }}\nroute[test] {{ {body} }}"), dialect)
        .err()
        .unwrap_or_else(|| panic!("this loads: {body}"))
}

/// Runs `body` as a route; `config` is what stands above the routes.
/// `prepare` may change the message's state first.
pub fn run_with(
    known: Known,
    config: &str,
    body: &str,
    dialect: Dialect,
    prepare: impl FnOnce(&mut MsgState),
) -> Ran {
    let shared = load(known, &format!("{config}\nroute {{ }}\nroute[test] {{ {body} }}"), dialect);
    let shared = Arc::new(shared.unwrap_or_else(|error| panic!("{error}")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let (done, mut results) = mpsc::unbounded_channel();
        let clock = Clock::default();
        let mut worker = Worker::new(shared.clone(), 0, 1, 1, Rc::new(Spawner(done)), clock);
        let ran = Rc::new(RefCell::new(None));
        start(&mut worker, prepare, ran.clone());
        let waits = Cell::new(0);
        while ran.borrow().is_none() {
            let (task, finish) = results.recv().await.expect("the worker holds the sender");
            waits.set(waits.get() + 1);
            worker.step(clock, Input::Resume(task, finish));
        }
        let state = ran.borrow_mut().take().expect("it ended");
        Ran { state, waits: waits.get() }
    })
}

fn start(worker: &mut Worker, prepare: impl FnOnce(&mut MsgState), ran: Rc<RefCell<Option<Box<MsgState>>>>) {
    let ctx = worker.ctx();
    let program = ctx.shared().program();
    let route = program.route(RouteKind::Request, Some(b"test")).expect("the route");
    let source = transaction::Path {
        socket: 0,
        transport: sip::Transport::Udp,
        remote: ([127, 0, 0, 2], 5060).into(),
        local: 0,
        connection: 0,
    };
    // Not a request route: no transaction is made when it waits.
    let task = Task::new(program, route);
    let mut state = MsgState::new(dummy_message(), source, ctx.core.now, RouteKind::Timer, task);
    state.after = After::Then(Box::new(move |_, state, _| *ran.borrow_mut() = Some(state)));
    prepare(&mut state);
    ctx.run(state);
}

/// A whole configuration on one worker, without a network: messages and time go in, messages come out.
pub struct Server {
    worker: Worker,
    results: mpsc::UnboundedReceiver<(TaskId, Finish)>,
    runtime: tokio::runtime::Runtime,
    local: LocalSet,
    clock: Clock,
}

/// A message that the server sent.
pub struct Sent {
    pub to: std::net::SocketAddr,
    pub text: String,
}

/// 2023-11-14 22:13:20 UTC, where the clock of a [`Server`] starts.
pub const START_S: u64 = 1_700_000_000;

impl Server {
    pub fn new(known: Known, config: &str, dialect: Dialect) -> Server {
        let shared = Arc::new(load(known, config, dialect).unwrap_or_else(|error| panic!("{error}")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let (done, results) = mpsc::unbounded_channel();
        let clock = Clock { now: transaction::Instant(0), wall_us: START_S * 1_000_000 };
        let spawner: Rc<dyn Spawn> = Rc::new(Spawner(done));
        let worker = local.block_on(&runtime, async { Worker::new(shared.clone(), 0, 1, 1, spawner, clock) });
        let mut server = Server { worker, results, runtime, local, clock };
        server.settle();
        server
    }

    /// Hands in one message and waits for all that it starts. `\n` line ends become CRLF.
    pub fn receive(&mut self, from: &str, text: &str) -> Vec<Sent> {
        self.receive_bytes(from, text.replace('\n', "\r\n").into())
    }

    /// The same with the bytes as they are.
    pub fn receive_bytes(&mut self, from: &str, bytes: bytes::Bytes) -> Vec<Sent> {
        let remote = from.parse().expect("an address");
        let transport = sip::Transport::Udp;
        let source = transaction::Path { socket: 0, transport, remote, local: 0, connection: 0 };
        self.step(Input::Message { source, bytes })
    }

    /// Lets time pass.
    pub fn advance(&mut self, ms: u64) -> Vec<Sent> {
        self.clock.now = self.clock.now.after(ms);
        self.clock.wall_us += ms * 1000;
        self.step(Input::Timer)
    }

    /// Runs a management command.
    pub fn manage(&mut self, name: &str, params: serde_json::Value) -> host::mi::MiResult {
        let command = self.worker.ctx().shared().command(name).expect(name).clone();
        let params = host::mi::MiParams::from_json(Some(params)).expect("parameters");
        let (answer, mut later) = host::mi::MiAnswer::channel();
        let worker = &mut self.worker;
        let now = self.local.block_on(&self.runtime, async {
            match &command.late {
                Some(late) => {
                    late(worker.ctx(), &params, answer);
                    None
                }
                None => Some((command.run)(worker.ctx(), &params)),
            }
        });
        self.settle();
        now.unwrap_or_else(|| later.try_recv().expect("not dropped").expect("an answer"))
    }

    /// Starts a management command whose answer comes later; gives what the server sends for it.
    pub fn command(&mut self, name: &str, params: serde_json::Value) -> Vec<Sent> {
        let command = self.worker.ctx().shared().command(name).expect(name).clone();
        let params = host::mi::MiParams::from_json(Some(params)).expect("parameters");
        let late = command.late.expect("a command that answers later");
        let (answer, _) = host::mi::MiAnswer::channel();
        let worker = &mut self.worker;
        self.local.block_on(&self.runtime, async { late(worker.ctx(), &params, answer) });
        self.sent()
    }

    /// Somebody watches scripts run.
    pub fn is_observed(&mut self) -> bool {
        self.worker.ctx().core.observers.is_some()
    }

    /// Does something on the worker, and waits for all that it starts.
    pub fn run(&mut self, job: impl FnOnce(&mut host::Ctx) + Send + 'static) -> Vec<Sent> {
        self.step(Input::Run(Box::new(job)))
    }

    /// The value of a statistic.
    pub fn statistic(&mut self, name: &str) -> i64 {
        self.worker.ctx().shared().stats.value(name).unwrap_or_else(|| panic!("no statistic {name}"))
    }

    fn step(&mut self, input: Input) -> Vec<Sent> {
        let (worker, clock) = (&mut self.worker, self.clock);
        self.local.block_on(&self.runtime, async { worker.step(clock, input) });
        self.sent()
    }

    /// What was sent since the last look, when everything is settled.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.settle();
        let mut outputs = Vec::new();
        self.worker.take_outputs(&mut outputs);
        let sent = outputs.into_iter().filter_map(|output| match output {
            host::Output::Transmit { path, bytes } => {
                Some(Sent { to: path.remote, text: String::from_utf8_lossy(&bytes).into_owned() })
            }
            host::Output::Shutdown { .. } => None,
        });
        sent.collect()
    }

    /// Waits for operations that are no timers.
    fn settle(&mut self) {
        let (worker, results, clock) = (&mut self.worker, &mut self.results, self.clock);
        self.local.block_on(&self.runtime, async {
            while worker
                .ctx()
                .core
                .tasks
                .iter()
                .any(|task| task.live && task.guard.as_ref().is_some_and(|guard| guard.is::<Guard>()))
            {
                let (task, finish) = results.recv().await.expect("the worker holds the sender");
                worker.step(clock, Input::Resume(task, finish));
            }
        });
    }
}
