//! Management commands of the core: `which`, `help`, `ps`, `uptime`, `log_level`, `async_list` ...

use super::Core;
use host::load::CommandWords;
use host::log::{self, Consumer};
use host::mi::{MiAnswer, MiCommand, MiError, MiParams, MiResult, VERSION};
use host::{Call, Output, Registrar, TaskId};
use serde_json::{Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command("core:which which", "names of all commands, or parameters of one", which).takes("[command]");
    m.command("core:help help", "what a command does", help).takes("[mi_cmd]");
    m.command("core:ps ps", "workers and their sockets", ps).takes("");
    m.command("core:uptime uptime", "since when the server runs", uptime).takes("");
    m.command("core:version version", "version of the server", version).takes("[revision]");
    m.command("core:pwd pwd", "working directory", pwd).takes("");
    m.command("core:arg arg", "command line of the server", arg).takes("");
    m.command("core:kill kill", "ends the server", kill).takes("");
    m.command("core:log_level log_level", "reads or sets the log level", log_level).takes("[level] [pid]");
    m.command("core:xlog_level xlog_level", "reads or sets the level of xlog", xlog_level).takes("[level]");
    m.command(
        "core:log_level_filter log_level_filter",
        "reads or sets the level of one log (stderror, syslog)",
        log_level_filter,
    )
    .takes("consumer [level_filter]");
    m.command(
        "core:log_mute_state log_mute_state",
        "reads or sets whether a log (stderror, syslog) is silent",
        log_mute_state,
    )
    .takes("consumer [mute_state]");
    m.command("core:profiling_proc profiling_proc", "there is no profiler here", |_, _| {
        Err(MiError::new(405, "There is no profiler; async_stats and async_list show where time goes"))
    });
    m.command_late(
        "core:reload_routes reload_routes",
        "reads the routes of the script again; what runs or waits ends with the old ones",
        reload_routes,
    )
    .takes("");
    for name in ["core:pi_list pi_list", "core:pi_reload pi_reload"] {
        m.command(name, "there is no provisioning interface", |_, _| {
            Err(MiError::new(503, "No PI transport is available"))
        });
    }
    m.command_each("async_list", "what scripts are waiting for", join_lists, async_list).takes("[filter]");
    m.command_each("async_cancel", "ends one waiting operation", join_found, async_cancel).takes("id");
}

fn unknown() -> MiError {
    MiError::new(404, "unknown MI command")
}

fn which(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let commands = call.shared().commands();
    let names = || commands.iter().flat_map(MiCommand::names);
    let Some(name) = params.text("command", 0) else { return Ok(names().collect()) };
    if name.ends_with(':') {
        let group: Vec<&str> = names().filter(|n| n.starts_with(&name)).collect();
        return if group.is_empty() { Err(unknown()) } else { Ok(json!(group)) };
    }
    let usage = call.shared().command(&name).ok_or_else(unknown)?.usage().unwrap_or_default();
    Ok(json!(usage.recipes()))
}

fn help(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let Some(name) = params.text("mi_cmd", 0) else {
        return Ok(json!("Usage: help mi_cmd - says what 'mi_cmd' does; `which` lists the commands"));
    };
    let command = call.shared().command(&name).ok_or_else(unknown)?;
    let words = CommandWords { names: command.name, help: command.help, takes: command.takes };
    Ok(json!({"Help": words.usage_line(), "Exported by": command.module}))
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

fn reload_routes(call: &mut Call<Core>, _: &MiParams, answer: MiAnswer) {
    let shared = call.shared().clone();
    match shared.reload() {
        Some(reload) => reload(&shared, answer),
        None => answer.give(Err(MiError::internal("there is no file to read"))),
    }
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
        return Err(MiError::params("Bad PID"));
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

fn consumer(params: &MiParams) -> Result<Consumer, MiError> {
    let name = params.need("consumer", 0)?;
    Consumer::parse(&name).ok_or_else(|| MiError::new(404, "Unknown log consumer"))
}

fn log_level_filter(_: &mut Call<Core>, params: &MiParams) -> MiResult {
    let consumer = consumer(params)?;
    let Some(level) = params.int("level_filter", 1)? else {
        return Ok(json!({"Log level filter": consumer.filter()}));
    };
    consumer.set_filter(level.clamp(-3, 4) as i8);
    Ok(json!("OK"))
}

fn log_mute_state(_: &mut Call<Core>, params: &MiParams) -> MiResult {
    let consumer = consumer(params)?;
    let Some(muted) = params.int("mute_state", 1)? else {
        return Ok(json!({"mute state": i32::from(consumer.is_muted())}));
    };
    consumer.set_muted(muted != 0);
    Ok(json!("OK"))
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
    let sources = core.shared.sources();
    let mut list = Vec::new();
    for (index, task) in core.tasks.iter().enumerate().filter(|(_, t)| t.live) {
        let ((line, _), file) = (sources.line_col(task.loc), sources.name(task.loc));
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
