//! The functions that 2.1 has besides `exec`. A command that fails (status other than 0) is -1.

use super::process::Want;
use super::{Exec, command, lines, shell, wait};
use bytes::Bytes;
use host::avp::AvpName;
use host::registrar::Since;
use host::var::VarKind;
use host::{Branch, Call, OutVar, OutVars, Outcome, Registrar, Routes, Text, Traced, Value};
use script::ast::AssignOp;

pub fn register(m: &mut Registrar<Exec>) {
    m.function_of(Since::V21, "exec_msg", Routes::ALL, exec_msg);
    m.function_of(Since::V21, "exec_dset", Routes::REQUEST.and(Routes::FAILURE), exec_dset);
    m.function_of(Since::V21, "exec_avp", Routes::ALL, exec_avp);
    m.function_of(Since::V21, "exec_getenv", Routes::ALL, exec_getenv);
}

/// exec_msg(command): the message is its input, its output is ignored.
fn exec_msg(call: &mut Call<Exec>, text: Traced) -> Outcome {
    let mut command = command(call, &shell::fill(&text));
    command.stdin = call.state.msg.buf().clone();
    command.want = Want { exit: true, ..Want::default() };
    wait(call, "exec_msg", command, |_, done| if done.is_some_and(|d| d.success) { 1 } else { -1 })
}

/// exec_dset(command): gets the R-URI as its last argument; each line of output is a destination, the
/// first one the new R-URI.
fn exec_dset(call: &mut Call<Exec>, text: Traced) -> Outcome {
    let uri = call.state.current_uri();
    let quoted = String::from_utf8_lossy(&uri).replace('\'', "'\\''");
    let mut command = command(call, &[&shell::fill(&text)[..], b" '", quoted.as_bytes(), b"'"].concat());
    command.want = Want { stdout: true, exit: true, ..Want::default() };
    wait(call, "exec_dset", command, |ctx, done| {
        let Some(done) = done.filter(|d| d.success) else { return -1 };
        for (i, line) in lines(&done.stdout).enumerate() {
            let line = script::traced::on_one_line(&line);
            if i == 0 {
                ctx.state.ruri = Some(line);
            } else {
                ctx.state.branches.push(Branch { uri: line, q: -1, ..Branch::default() });
            }
        }
        1
    })
}

/// exec_avp(command, [AVPs]): each line of output goes into the next AVP; past the list they are
/// named by their number.
fn exec_avp(call: &mut Call<Exec>, text: Traced, vars: Option<OutVars>) -> Outcome {
    let mut command = command(call, &shell::fill(&text));
    command.want = Want { stdout: true, exit: true, ..Want::default() };
    wait(call, "exec_avp", command, move |ctx, done| {
        let Some(done) = done else { return -1 };
        let vars = vars.as_ref().map_or(&[][..], |v| &v.0[..]);
        for (i, line) in lines(&done.stdout).enumerate() {
            match vars.get(i) {
                Some(var) => match var.kind {
                    VarKind::Avp(name) => ctx.state.avps.borrow_mut().add(name, Value::Str(line)),
                    _ => drop(var.set(ctx, AssignOp::Set, Value::Str(line))),
                },
                None => {
                    let name = AvpName::new((i + 1).to_string().as_bytes());
                    ctx.state.avps.borrow_mut().add(name, Value::Str(line));
                }
            }
        }
        if done.success { 1 } else { -1 }
    })
}

/// exec_getenv(name, [AVP]): a variable of the server's own environment, into `$avp(1)` by default.
fn exec_getenv(call: &mut Call<Exec>, name: Text, var: Option<OutVar>) -> i32 {
    use std::os::unix::ffi::OsStringExt;
    let name = name.str();
    if name.is_empty() || name.contains(['=', '\0']) {
        return -1;
    }
    let Some(value) = std::env::var_os(&*name) else { return -1 };
    let value = Bytes::from(value.into_vec());
    match var {
        Some(var) => drop(var.set(call.ctx, value)),
        None => call.state.avps.borrow_mut().add(AvpName::new(b"1"), Value::Str(value)),
    }
    1
}
