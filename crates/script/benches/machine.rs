//! Nanoseconds per statement of the machine, on a host that costs next to nothing. Each figure is the
//! time of a loop of 1,000 rounds; the name says how many statements a round has, its test included.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use script::ast::{AssignOp, Dialect, VarSpec};
use script::{
    CallSite, Called, Diagnostic, End, Env, Host, Lang, Loc, Options, Program, RouteId, Sources, Step, Task,
    Value,
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

const ROUNDS: u64 = 1000;

fn program(body: &str) -> Arc<Program<Bench>> {
    let text = format!(
        "route {{ $var(s) = \"alice\"; $var(i) = 0; while ($var(i) < {ROUNDS}) {{ {body} $var(i) = $var(i) + 1; }} }} route[sub] {{ return(1); }}"
    );
    let mut sources = Sources::default();
    let options = Options { dialect: Some(Dialect::V4) };
    let (config, problems) = script::parse_text("bench", &text, &mut sources, options);
    assert!(problems.is_empty(), "{problems:?}");
    let (program, problems) = script::compile(&config, &mut Slots(Vec::new()));
    assert!(problems.is_empty(), "{problems:?}");
    Arc::new(program)
}

fn statements(c: &mut Criterion) {
    let bodies: &[(&str, u64, &str)] = &[
        ("empty loop", 2, ""),
        ("assign a number", 3, "$var(x) = 5;"),
        ("copy a string", 3, "$var(x) = $var(s);"),
        ("if false", 3, "if ($var(x) == 7) $var(y) = 1;"),
        (
            "if else if else",
            5,
            "if ($var(i) == -1) $var(y) = 1; else if ($var(s) == \"bob\") $var(y) = 2; else $var(y) = 3;",
        ),
        ("logic", 3, "if ($var(x) == 7 || ($var(s) == \"alice\" && $var(i) >= 0)) $var(y) = 1;"),
        ("arithmetic", 3, "$var(x) = $var(i) * 2 + 7 & 255;"),
        ("join strings", 3, "$var(x) = \"sip:\" + $var(s) + \"@example.com\";"),
        ("regular expression", 3, "if ($var(s) =~ \"^a[a-z]+e$\") $var(y) = 1;"),
        (
            "switch",
            4,
            "switch ($var(s)) { case \"bob\": break; case \"carol\": break; case \"alice\": $var(y) = 1; break; }",
        ),
        ("call a function", 3, "f();"),
        ("call a route", 4, "route(sub, 1, $var(s));"),
    ];
    let mut group = c.benchmark_group("statements");
    for (name, per_round, body) in bodies {
        let program = program(body);
        group.throughput(Throughput::Elements(ROUNDS * per_round));
        group.bench_function(format!("{name} ({per_round})"), |b| {
            let start = || World { task: Task::new(program.clone(), RouteId(0)), vars: Default::default() };
            b.iter_batched_ref(
                start,
                |world| assert!(matches!(script::run(world, u32::MAX), Step::Done(End::Return(_)))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, statements);
criterion_main!(benches);
