//! exec: commands of the system. A script waits for their output without holding up anything else.

mod env;
mod old;
mod process;
mod shell;

use crate::exec::process::{Done, Undertaker, Want};
use bytes::Bytes;
use host::Accepts;
use host::arg::{AnyVar, HowCalled};
use host::call::Finish;
use host::outside::{Awaited, ProcessAnswer, ProcessRequest};
use host::var::VarKind;
use host::{Call, Ctx, OutVar, Outcome, Registrar, Routes, Suspension, Text, Traced};
use script::Waits;

/// How long a command may hold a script when `time_to_kill` is not set.
const LIMIT_MS: u64 = 120_000;
/// For commands that nobody waits for: the server's own cap applies.
const FOREVER_MS: u64 = u64::MAX;

#[derive(Default)]
pub struct Exec {
    set_vars: bool,
    /// Seconds; 0: not set.
    time_to_kill: u64,
}

pub fn register(m: &mut Registrar<Exec>) {
    m.param_int("setvars", |m, on| {
        m.set_vars = on != 0;
        Ok(())
    });
    m.param_int("time_to_kill", |m, seconds| {
        m.time_to_kill = seconds.max(0) as u64;
        Ok(())
    });
    m.accepts(Accepts::seconds(0), &["time_to_kill"]);
    m.function("exec", Routes::ALL, exec);
    m.function("exec_argv", Routes::ALL, exec_argv);
    old::register(m);
}

impl Exec {
    fn limit(&self, otherwise: u64) -> u64 {
        if self.time_to_kill > 0 { self.time_to_kill.saturating_mul(1000) } else { otherwise }
    }
}

/// A command with the environment that the module's settings give it.
fn command(call: &mut Call<Exec>, text: &[u8]) -> process::Command {
    let mut env = Vec::new();
    if call.module.set_vars {
        env::of_message(call.ctx, &mut env);
    }
    process::Command {
        text: Bytes::copy_from_slice(text),
        args: None,
        stdin: Bytes::new(),
        env,
        want: Want::default(),
    }
}

/// exec(command, [stdin], [stdout], [stderr], [environment]): 1 when all output was read, whatever
/// the exit status; 2 at once when no output is asked for; -1 when it could not be started or took
/// too long. A plain call gives each variable the whole output as one value, `async` and `launch` each line
/// by itself, so that they stack up in an AVP (`exec_sync` and `resume_async_exec` of OpenSIPS).
fn exec(
    call: &mut Call<Exec>,
    text: Traced,
    stdin: Option<Text>,
    stdout: Option<OutVar>,
    stderr: Option<OutVar>,
    env: Option<AnyVar>,
    how: HowCalled,
) -> Outcome {
    let command = command(call, &shell::fill(&text));
    start(call, "exec", command, stdin, Outputs { stdout, stderr, how }, env)
}

/// exec_argv(program, [arguments], [stdin], [stdout], [stderr], [environment]): like `exec`, without a
/// shell. Each value of the AVP `arguments`, in the order in which they were added, is one argument as it
/// is: what a SIP message brings along cannot become shell syntax. Fermata's own.
#[expect(clippy::too_many_arguments, reason = "they are those of the script function")]
fn exec_argv(
    call: &mut Call<Exec>,
    program: Text,
    args: Option<AnyVar>,
    stdin: Option<Text>,
    stdout: Option<OutVar>,
    stderr: Option<OutVar>,
    env: Option<AnyVar>,
    how: HowCalled,
) -> Outcome {
    let mut command = command(call, &program);
    let mut list: Vec<Bytes> = match args.as_ref().map(|AnyVar(var)| (&var.kind, var)) {
        Some((VarKind::Avp(name), _)) => {
            call.state.avps.borrow().values(*name).map(|v| v.to_text()).collect()
        }
        Some((_, var)) => var.get(call.ctx).text().into_iter().collect(),
        None => Vec::new(),
    };
    list.reverse();
    if list.iter().chain([&command.text]).any(|text| text.contains(&0)) {
        host::error!("exec", "exec_argv: an argument holds a NUL");
        return Outcome::Done(-1);
    }
    command.args = Some(list);
    start(call, "exec_argv", command, stdin, Outputs { stdout, stderr, how }, env)
}

fn start(
    call: &mut Call<Exec>,
    what: &'static str,
    mut command: process::Command,
    stdin: Option<Text>,
    outputs: Outputs,
    env: Option<AnyVar>,
) -> Outcome {
    command.stdin = stdin.map_or_else(Bytes::new, |t| t.0);
    if let Some(AnyVar(var)) = &env
        && let VarKind::Avp(name) = var.kind
    {
        let avps = call.state.avps.borrow();
        command
            .env
            .extend(avps.values(name).enumerate().map(|(i, v)| (format!("OSIPS_EXEC_{i}"), v.to_text())));
    }
    command.want = Want { stdout: outputs.stdout.is_some(), stderr: outputs.stderr.is_some(), exit: false };
    if outputs.stdout.is_none() && outputs.stderr.is_none() {
        return launch(call, command);
    }
    wait(call, what, command, move |ctx, done| {
        let Some(done) = done else { return -1 };
        outputs.store(ctx, &done);
        1
    })
}

/// Where output goes, and in what pieces.
struct Outputs {
    stdout: Option<OutVar>,
    stderr: Option<OutVar>,
    how: HowCalled,
}

impl Outputs {
    /// No output leaves a variable as it was.
    fn store(&self, ctx: &mut Ctx, done: &Done) {
        for (var, output) in [(&self.stdout, &done.stdout), (&self.stderr, &done.stderr)] {
            let Some(var) = var else { continue };
            match self.how.waits {
                Waits::Plain if output.is_empty() => {}
                Waits::Plain => {
                    var.set(ctx, output.clone());
                }
                Waits::Async | Waits::Launch => {
                    for line in lines(output) {
                        var.set(ctx, line);
                    }
                }
            }
        }
    }
}

/// Lines that are not empty, in order.
fn lines(output: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    output.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| output.slice_ref(line))
}

/// Holds the script until the command is done. `None`: it could not be started.
fn wait(
    call: &mut Call<Exec>,
    what: &'static str,
    command: process::Command,
    finish: impl FnOnce(&mut Ctx, Option<Done>) -> i32 + 'static,
) -> Outcome {
    let detail = command.text.clone();
    let running = run(call, command);
    let future = async move {
        let done = match running.await {
            Ok(done) => Some(done),
            Err(error) => {
                host::error!("exec", "cannot run a command: {error}");
                None
            }
        };
        Box::new(move |ctx: &mut Ctx| finish(ctx, done)) as Finish
    };
    Suspension::future(what, future).detail(detail).limit(call.module.limit(LIMIT_MS), -1)
}

/// Runs a command of the system, or asks what stands in for it.
fn run(call: &mut Call<Exec>, command: process::Command) -> Awaited<std::io::Result<Done>> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let Some(outside) = call.shared().outside.get() else {
        let undertaker = call.local::<Undertaker>().clone();
        let asked = format!("{} {:?}", text(&command.text), command.args);
        return Box::pin(async move {
            let live = async { process::run(command, &undertaker).await.map_err(|e| e.to_string()) };
            let absent = || Err("the recording does not know it".to_string());
            let done = host::tape::awaited("process", || asked, live, absent).await;
            done.map_err(std::io::Error::other)
        });
    };
    let args = command.args.as_ref().map(|args| args.iter().map(text).collect());
    let asked = ProcessRequest { command: text(&command.text), args, stdin: command.stdin };
    let answer = outside.process(asked);
    Box::pin(async move {
        let done =
            answer.await.map(|ProcessAnswer { stdout, stderr, success }| Done { stdout, stderr, success });
        done.ok_or_else(|| std::io::Error::other("nothing stands in for it"))
    })
}

/// Starts a command that nobody waits for; it ends at `time_to_kill` at the latest.
fn launch(call: &mut Call<Exec>, command: process::Command) -> Outcome {
    let running = run(call, command);
    let limit = call.module.limit(FOREVER_MS);
    call.spawn("exec", limit, async move {
        if let Err(error) = running.await {
            host::error!("exec", "cannot run a command: {error}");
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
    Outcome::Done(2)
}

#[cfg(test)]
mod tests;
