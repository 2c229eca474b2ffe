//! Management commands of the core: `which`, `help`, `ps`, `uptime`, `log_level`, `async_list` ...

use super::Core;
use host::log;
use host::mi::{MiCommand, MiError, MiParams, MiResult, VERSION};
use host::{Call, Output, Registrar, TaskId};
use serde_json::{Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command("which", "names of all commands, or parameters of one: which [command]", which);
    m.command("help", "what a command does: help [mi_cmd]", help);
    m.command("ps", "workers and their sockets", ps);
    m.command("uptime", "since when the server runs", uptime);
    m.command("version", "version of the server: version [revision]", version);
    m.command("pwd", "working directory", pwd);
    m.command("arg", "command line of the server", arg);
    m.command("kill", "ends the server", kill);
    m.command("log_level", "reads or sets the log level: log_level [level] [pid]", log_level);
    m.command("xlog_level", "reads or sets the level of xlog: xlog_level [level]", xlog_level);
    m.command_each("async_list", "what scripts are waiting for: async_list [filter]", join_lists, async_list);
    m.command_each("async_cancel", "ends one waiting operation: async_cancel id", join_found, async_cancel);
}

fn unknown() -> MiError {
    MiError::new(404, "unknown MI command")
}

fn which(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let commands = &call.shared().commands;
    let Some(name) = params.text("command", 0) else {
        return Ok(commands.iter().map(|c| Json::from(c.name)).collect());
    };
    if name.ends_with(':') {
        let group: Vec<&str> = commands.iter().map(|c| c.name).filter(|n| n.starts_with(&name)).collect();
        return if group.is_empty() { Err(unknown()) } else { Ok(json!(group)) };
    }
    Ok(json!(recipes(call.shared().command(&name).ok_or_else(unknown)?)))
}

/// The lists of parameters that a command takes, from the last part of its help text
/// ("removes a contact: ul_rm_contact table_name aor [contact]").
fn recipes(command: &MiCommand) -> Vec<Vec<&str>> {
    let usage = command.help.rsplit_once(": ").map_or("", |(_, usage)| usage);
    let mut list = Vec::new();
    let mut all = Vec::new();
    for word in usage.split(' ').skip(1) {
        match word.strip_prefix('[') {
            Some(optional) => {
                list.push(all.clone());
                all.push(optional.trim_end_matches(']'));
            }
            None => all.push(word.trim_end_matches(']')),
        }
    }
    list.push(all);
    list
}

fn help(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let Some(name) = params.text("mi_cmd", 0) else {
        return Ok(json!("help mi_cmd - what a command does; `which` lists the commands"));
    };
    let command = call.shared().command(&name).ok_or_else(unknown)?;
    Ok(json!({"Help": command.help, "Exported by": command.module}))
}

/// (description of each part of the server) in the order of `ps`: all are threads of one process.
fn parts(call: &Call<'_, Core>) -> Vec<String> {
    let sockets: Vec<&str> = call.core.shared.sockets.iter().map(|s| s.text.as_str()).collect();
    let worker = |_| format!("SIP receiver {}", sockets.join(" "));
    let mut list = vec!["attendant".to_string()];
    list.extend((0..call.core.workers).map(worker));
    list.push("management".to_string());
    list
}

fn ps(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let pid = std::process::id();
    let part = |(id, kind): (usize, &String)| json!({"ID": id, "PID": pid, "Type": kind});
    Ok(json!({"Processes": parts(call).iter().enumerate().map(part).collect::<Vec<_>>()}))
}

fn uptime(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let now = (call.core.wall_us / 1_000_000) as i64;
    let since = (call.shared().started_ms / 1000) as i64;
    Ok(json!({
        "Now": host::clock::ctime(now),
        "Up since": host::clock::ctime(since),
        "Up time": format!("{} [sec]", now - since),
    }))
}

fn version(_: &mut Call<Core>, _: &MiParams) -> MiResult {
    Ok(json!({"Server": VERSION}))
}

fn pwd(_: &mut Call<Core>, _: &MiParams) -> MiResult {
    let dir = std::env::current_dir().map_err(|e| MiError::new(500, e.to_string()))?;
    Ok(json!({"WD": dir.to_string_lossy()}))
}

fn arg(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    Ok(json!(call.shared().arguments.get().cloned().unwrap_or_default()))
}

fn kill(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    call.core.outputs.push(Output::Shutdown { code: 0 });
    Ok(json!("OK"))
}

fn log_level(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let pid = std::process::id();
    let Some(level) = params.int("level", 0)? else {
        let part = |kind: &String| json!({"PID": pid, "Log level": log::level(), "Type": kind});
        return Ok(json!({"Processes": parts(call).iter().map(part).collect::<Vec<_>>()}));
    };
    let level = level.clamp(-3, 4);
    let only = params.int("pid", 1)?;
    if only.is_some_and(|p| p != i64::from(pid)) {
        return Err(MiError::params("Invalid params: Bad PID"));
    }
    log::set_level(level as i8);
    // One process: its level is that of all.
    Ok(if only.is_some() { json!({"Log level": level}) } else { json!({"New global log level": level}) })
}

fn xlog_level(_: &mut Call<Core>, params: &MiParams) -> MiResult {
    match params.int("level", 0)? {
        Some(level) => {
            log::set_xlog_level(level.clamp(-3, 4) as i8);
            Ok(json!({"New xLog level": level}))
        }
        None => Ok(json!({"xLog Level": log::xlog_level()})),
    }
}

fn join_lists(lists: Vec<Json>) -> Json {
    let items = lists.into_iter().flat_map(|l| match l {
        Json::Array(items) => items,
        other => vec![other],
    });
    json!({"Operations": items.collect::<Vec<_>>()})
}

/// What is waiting on this worker: id, since when, for what, where in the script, for which call.
fn async_list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let filter = params.text("filter", 0);
    let (core, now) = (&call.core, call.core.now);
    let shared = &core.shared;
    let mut list = Vec::new();
    for (index, task) in core.tasks.iter().enumerate().filter(|(_, t)| t.live) {
        let (line, _) = shared.sources.line_col(task.loc);
        let file = shared.sources.files.get(task.loc.file as usize).map_or("", |f| f.name.as_str());
        let call_id = String::from_utf8_lossy(&task.call_id).into_owned();
        let detail = String::from_utf8_lossy(&task.detail).into_owned();
        let hit = |f: &str| task.what.contains(f) || detail.contains(f) || call_id.contains(f);
        if filter.as_deref().is_some_and(|f| !hit(f)) {
            continue;
        }
        list.push(json!({
            "ID": format!("{}-{index}-{}", core.worker, task.generation),
            "Operation": task.what,
            "For": detail,
            "Waiting ms": now.0.saturating_sub(task.since.0),
            "Deadline in ms": task.deadline.0.saturating_sub(now.0),
            "Line": format!("{file}:{line}"),
            "Call-ID": call_id,
        }));
    }
    Ok(Json::Array(list))
}

fn join_found(answers: Vec<Json>) -> Json {
    let found = answers.iter().any(|a| a == &json!(true));
    json!(if found { "OK" } else { "no such operation" })
}

fn async_cancel(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let id = params.need("id", 0)?;
    let parts: Vec<u32> = id.split('-').filter_map(|p| p.parse().ok()).collect();
    let &[worker, index, generation] = &parts[..] else {
        return Err(MiError::params("id as async_list prints it"));
    };
    if worker != u32::from(call.core.worker) {
        return Ok(json!(false));
    }
    Ok(json!(call.fail_task(TaskId { index, generation })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::mi::MiScope;
    use std::sync::Arc;

    #[test]
    fn parameters_of_commands() {
        let check = |help: &'static str, expected: &[&[&str]]| {
            let run = Arc::new(|_: &mut host::Ctx, _: &MiParams| Ok(Json::Null));
            let command =
                MiCommand { name: "x", module: "core", help, scope: MiScope::One, run, late: None };
            assert_eq!(recipes(&command), expected, "{help}");
        };
        check("ends the server", &[&[]]);
        check("does it: x a b", &[&["a", "b"]]);
        check("does it: x a [b] [c]", &[&["a"], &["a", "b"], &["a", "b", "c"]]);
    }
}
