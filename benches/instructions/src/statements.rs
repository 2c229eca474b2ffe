//! Statements of the script language, on a host that costs next to nothing.

use script::ast::{AssignOp, Dialect, VarSpec};
use script::{
    CallSite, Called, Diagnostic, End, Env, Host, Lang, Loc, Options, RouteId, Sources, Step, Task, Value,
};
use std::sync::Arc;

struct Bench;

impl Lang for Bench {
    type Var = usize;
    type Func = i32;
}

/// `$var(x)` by slot; every function returns 1.
struct Slots(Vec<Vec<u8>>);

impl Env<Bench> for Slots {
    fn variable(&mut self, spec: &VarSpec) -> Result<usize, Diagnostic> {
        let name = spec.inner.as_deref().unwrap_or_default();
        if let Some(at) = self.0.iter().position(|n| n == name) {
            return Ok(at);
        }
        self.0.push(name.to_vec());
        Ok(self.0.len() - 1)
    }
    fn target(&mut self, spec: &VarSpec) -> Result<usize, Diagnostic> {
        self.variable(spec)
    }
    fn function(&mut self, _: &CallSite<'_>) -> Result<i32, Diagnostic> {
        Ok(1)
    }
    fn word(&mut self, _: &[u8], loc: Loc) -> Result<usize, Diagnostic> {
        Err(Diagnostic::error(loc, "no words"))
    }
    fn dialect(&self) -> Dialect {
        Dialect::V4
    }
}

struct World {
    task: Task<Bench>,
    vars: [Value; 16],
}

impl Host for World {
    type Lang = Bench;
    type Op = ();
    fn task(&mut self) -> &mut Task<Bench> {
        &mut self.task
    }
    fn get(&mut self, var: &usize) -> Value {
        self.vars[*var].clone()
    }
    fn get_at(&mut self, _: &usize, _: i32) -> Value {
        Value::Null
    }
    fn set(&mut self, var: &usize, _: AssignOp, value: Value) -> bool {
        self.vars[*var] = value;
        true
    }
    fn call(&mut self, func: &i32) -> Called<()> {
        Called::Done(*func)
    }
    fn launch(&mut self, _: &i32, _: Option<RouteId>, _: Value) -> i32 {
        1
    }
    fn parallel(&mut self, _: script::ParallelSite<Bench>) -> Called<()> {
        Called::Done(1)
    }
    fn limit(&mut self, (): &mut (), _: u64) {}
    fn compare_word(&mut self, _: &Value, _: &usize) -> Option<bool> {
        None
    }
    fn complain(&mut self, _: Loc, text: &str) {
        panic!("{text}");
    }
}

/// An assignment, a comparison, a joined string and a call, in a loop.
const BODY: &str =
    "$var(x) = \"sip:\" + $var(s); if ($var(x) == \"bob\" || $var(i) < 0) { $var(y) = 1; } f(); route(sub);";

/// One round is a loop with all statements of `BODY` in it.
pub fn run(rounds: u64) {
    let text = format!(
        "route {{ $var(s) = \"alice\"; $var(i) = 0; while ($var(i) < {rounds}) {{ {BODY} $var(i) = $var(i) + 1; }} }} \
         route[sub] {{ return(1); }}"
    );
    let mut sources = Sources::default();
    let options = Options { dialect: Some(Dialect::V4) };
    let (config, problems) = script::parse_text("instructions", &text, &mut sources, options);
    assert!(problems.is_empty(), "{problems:?}");
    let (program, problems) = script::compile(&config, &mut Slots(Vec::new()));
    assert!(problems.is_empty(), "{problems:?}");
    let mut world = World { task: Task::new(Arc::new(program), RouteId(0)), vars: Default::default() };
    assert!(matches!(script::run(&mut world, u32::MAX), Step::Done(End::Return(_))));
}
