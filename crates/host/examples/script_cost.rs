//! Times routes of a configuration: `script_cost FILE` runs each route named `c0`, `c1` ... three times over one message
//! and prints the least CPU time in nanoseconds, one a line. `benches/script.py` compares that with the reference.
//! It holds the machine, variables and transformations without the modules, so it is built in a minute.
#![allow(clippy::disallowed_methods, reason = "reads its script")]

use host::ctx::{After, MsgState, Spawn, TaskId};
use host::worker::{Clock, dummy_message};
use host::{Finish, ModuleDef, Registrar, Worker};
use script::ast::RouteKind;
use script::{Options, Sources, Task};
use std::any::Any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
struct Core;

fn register(_: &mut Registrar<Core>) {}

static KNOWN: &[ModuleDef] = &[ModuleDef { name: "core", make: || host::registrar::module(register) }];

/// Nothing here waits.
struct Never;

impl Spawn for Never {
    fn spawn(&self, _: TaskId, _: Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any> {
        Box::new(())
    }
}

fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn run(worker: &mut Worker, name: &str) -> Option<u64> {
    let ctx = worker.ctx();
    let program = ctx.shared().program();
    let setup = program.route(RouteKind::Request, Some(b"setup"))?;
    let route = program.route(RouteKind::Request, Some(name.as_bytes()))?;
    let source = transaction::Path {
        socket: 0,
        transport: sip::Transport::Udp,
        remote: ([127, 0, 0, 2], 5060).into(),
        local: 0,
        connection: 0,
    };
    let state = MsgState::new(
        dummy_message(),
        source,
        ctx.core.now,
        RouteKind::Timer,
        Task::new(program.clone(), setup),
    );
    let took = Rc::new(std::cell::Cell::new(0));
    let result = took.clone();
    let mut state = state;
    state.after = After::Then(Box::new(move |ctx, mut state, _| {
        state.task = Task::new(program, route);
        let before = cpu_ns();
        let result = result.clone();
        state.after = After::Then(Box::new(move |_, _, _| result.set(cpu_ns() - before)));
        ctx.run(state);
    }));
    ctx.run(state);
    Some(took.get())
}

fn main() {
    let path = std::env::args().nth(1).expect("a configuration");
    let text = std::fs::read_to_string(&path).expect("a file");
    let mut sources = Sources::default();
    let (config, problems) = script::parse_text(&path, &text, &mut sources, Options::default());
    let fail = |sources: &Sources, list: &[script::Diagnostic]| {
        list.iter().filter(|d| d.is_error()).for_each(|d| eprint!("{}", sources.render(d)));
        std::process::exit(1)
    };
    if problems.iter().any(script::Diagnostic::is_error) {
        fail(&sources, &problems);
    }
    let shared = match host::load(&config, sources, KNOWN, 0, 1) {
        Ok(shared) => Arc::new(shared),
        Err((sources, list)) => fail(&sources, &list),
    };
    let mut worker = Worker::new(shared, 0, 1, 1, Rc::new(Never), Clock::default());
    for case in 0.. {
        let Some(first) = run(&mut worker, &format!("c{case}")) else { break };
        let again = (0..2).filter_map(|_| run(&mut worker, &format!("c{case}")));
        println!("{}", again.fold(first, u64::min));
    }
}
