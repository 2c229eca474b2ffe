//! The route of algorithm 10: run for each active destination, one after the other; any of these runs may wait.

use super::data::Set;
use super::select::route_params;
use host::call::{Finish, Wait};
use host::ctx::{After, MsgState};
use host::events::EventParams;
use host::{Ctx, Outcome, Suspension, TaskId, Value};
use script::{End, RouteId, Task};
use std::cell::RefCell;
use std::rc::Rc;

/// How long all runs together may take.
const LIMIT_MS: u64 = 20_000;

/// What one run is told of its destination.
struct Run {
    place: usize,
    params: [Value; 3],
    named: EventParams,
}

/// The runs, and what came of them.
struct Runs {
    route: RouteId,
    left: Vec<Run>,
    scores: Vec<i64>,
    /// A run ended while the loop that started it looks on.
    looking: bool,
    ended: bool,
    waits: Option<TaskId>,
    done: Option<Box<dyn FnOnce(&mut Ctx, Vec<i64>) -> i32>>,
}

/// Runs `route` for each active destination of a set; `done` gets what it returned for each place.
pub fn score(
    ctx: &mut Ctx,
    route: RouteId,
    set: &Set,
    skip_last: bool,
    done: impl FnOnce(&mut Ctx, Vec<i64>) -> i32 + 'static,
) -> Outcome {
    let ranked = set.entries.len() - usize::from(skip_last);
    let active = (0..ranked).filter(|place| set.entries[*place].to.is_active());
    let run = |place: usize| {
        let params = route_params(set, place);
        // By name an attribute that is not there is empty, by number NULL.
        let text = |value: &Value| if value.is_null() { Value::from("") } else { value.clone() };
        let names = ["dst_uri", "attrs", "script_attrs"];
        let named = names.into_iter().zip(params.iter().map(text)).collect();
        Run { place, params, named }
    };
    let mut left: Vec<Run> = active.map(run).collect();
    left.reverse();
    let runs = Rc::new(RefCell::new(Runs {
        route,
        left,
        scores: vec![-1; set.entries.len()],
        looking: false,
        ended: false,
        waits: None,
        done: Some(Box::new(done)),
    }));
    go_on(ctx, &runs);
    let finished = runs.borrow().left.is_empty() && runs.borrow().ended;
    if finished {
        let (done, scores) = take(&runs);
        return Outcome::Done(done.map_or(-1, |done| done(ctx, scores)));
    }
    Outcome::Suspend(Box::new(Suspension {
        what: "ds_select_dst",
        detail: Default::default(),
        wait: Wait::External(Box::new(move |_, id| runs.borrow_mut().waits = Some(id))),
        limit_ms: LIMIT_MS,
        on_deadline: -1,
    }))
}

type Done = Option<Box<dyn FnOnce(&mut Ctx, Vec<i64>) -> i32>>;

fn take(runs: &Rc<RefCell<Runs>>) -> (Done, Vec<i64>) {
    let mut runs = runs.borrow_mut();
    (runs.done.take(), std::mem::take(&mut runs.scores))
}

/// Runs on until one waits, or all have ended.
fn go_on(ctx: &mut Ctx, runs: &Rc<RefCell<Runs>>) {
    runs.borrow_mut().ended = true;
    loop {
        let Some(run) = runs.borrow_mut().left.pop() else { break };
        runs.borrow_mut().ended = false;
        runs.borrow_mut().looking = true;
        begin(ctx, runs, run);
        runs.borrow_mut().looking = false;
        if !runs.borrow().ended {
            return;
        }
    }
}

fn begin(ctx: &mut Ctx, runs: &Rc<RefCell<Runs>>, run: Run) {
    let task = Task::with_params(ctx.core.shared.program(), runs.borrow().route, run.params.into());
    let mut state: Box<MsgState> = ctx.state.fork(ctx.state.kind, task);
    state.ext.set(run.named);
    let (told, place) = (runs.clone(), run.place);
    state.after = After::Then(Box::new(move |ctx, _, end| {
        let score = if let End::Return(score) = end { score } else { -1 };
        {
            let mut runs = told.borrow_mut();
            runs.scores[place] = score;
            runs.ended = true;
        }
        if told.borrow().looking {
            return;
        }
        // It had waited: nobody looks on.
        go_on(ctx, &told);
        let waits = told.borrow().waits;
        if let (true, Some(id)) = (told.borrow().left.is_empty() && told.borrow().ended, waits)
            && let (Some(done), scores) = take(&told)
        {
            ctx.resume(id, Box::new(move |ctx: &mut Ctx| done(ctx, scores)) as Finish);
        }
    }));
    ctx.run(state);
}
