//! Runs a piece of script for module tests: the real loader, machine and worker, on a runtime of its
//! own and without a network.

use host::avp::AvpName;
use host::call::Finish;
use host::ctx::{After, MsgState, Spawn, TaskId};
use host::worker::{Clock, dummy_message};
use host::{Input, Worker};
use script::ast::{Dialect, RouteKind};
use script::{Options, Severity, Sources, Task};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

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

fn load(text: &str, dialect: Dialect) -> Result<host::Shared, String> {
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
    host::load(&config, sources, crate::ALL, 0, 1).map_err(|(sources, list)| errors(&sources, &list))
}

/// The diagnostics that a configuration is refused with.
pub fn refused(config: &str, body: &str, dialect: Dialect) -> String {
    load(&format!("{config}\nroute {{ }}\nroute[test] {{ {body} }}"), dialect)
        .err()
        .unwrap_or_else(|| panic!("this loads: {body}"))
}

/// Runs `body` as a route; `config` is what stands above the routes.
pub fn run(config: &str, body: &str, dialect: Dialect) -> Ran {
    run_with(config, body, dialect, |_| ())
}

/// `prepare` may change the message's state first.
pub fn run_with(config: &str, body: &str, dialect: Dialect, prepare: impl FnOnce(&mut MsgState)) -> Ran {
    let shared = load(&format!("{config}\nroute {{ }}\nroute[test] {{ {body} }}"), dialect);
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
        connection: 0,
    };
    // Not a request route: no transaction is made when it waits.
    let task = Task::new(program, route);
    let mut state = MsgState::new(dummy_message(), source, ctx.core.now, RouteKind::Timer, task);
    state.after = After::Then(Box::new(move |_, state, _| *ran.borrow_mut() = Some(state)));
    prepare(&mut state);
    ctx.run(state);
}
