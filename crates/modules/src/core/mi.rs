//! Management commands of the core: `which`, `ps`, `uptime`, `get_statistics`, `async_list` ...

use super::Core;
use host::log;
use host::mi::{MiError, MiParams, MiResult, VERSION};
use host::{Call, Output, Registrar, TaskId};
use serde_json::{Map, Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command("which", "names of all commands", which);
    m.command("help", "what a command does: help [mi_cmd]", help);
    m.command("ps", "workers and their sockets", ps);
    m.command("uptime", "since when the server runs", uptime);
    m.command("version", "version of the server", version);
    m.command("pwd", "working directory", pwd);
    m.command("arg", "command line of the server", arg);
    m.command("kill", "ends the server", kill);
    m.command("log_level", "reads or sets the log level: log_level [level]", log_level);
    m.command("xlog_level", "reads or sets the level of xlog: xlog_level [level]", xlog_level);
    for name in ["get_statistics", "statistics:get"] {
        m.command(name, "values of statistics: all, `group:` or names", get_statistics);
    }
    for name in ["list_statistics", "statistics:list"] {
        m.command(name, "names of statistics", list_statistics);
    }
    for name in ["reset_statistics", "statistics:reset"] {
        m.command(name, "sets statistics to zero", reset_statistics);
    }
    for name in ["reset_all_statistics", "statistics:reset_all"] {
        m.command(name, "sets all statistics to zero", reset_all_statistics);
    }
    m.command_each("async_list", "what scripts are waiting for: async_list [filter]", join_lists, async_list);
    m.command_each("async_cancel", "ends one waiting operation: async_cancel id", join_found, async_cancel);
}

fn which(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    Ok(call.shared().commands.iter().map(|c| Json::from(c.name)).collect())
}

fn help(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let Some(name) = params.text("mi_cmd", 0) else {
        return Ok(json!("help mi_cmd - what a command does; `which` lists the commands"));
    };
    let shared = call.shared();
    let command = shared.command(&name).ok_or_else(|| MiError::new(404, "MI command not found"))?;
    Ok(json!({"Help": command.help, "Exported by": command.module}))
}

fn ps(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let sockets: Vec<&str> = call.core.shared.sockets.iter().map(|s| s.text.as_str()).collect();
    let pid = std::process::id();
    let mut list = vec![json!({"ID": 0, "PID": pid, "Type": "attendant"})];
    for worker in 0..call.core.workers {
        list.push(json!({"ID": worker + 1, "PID": pid, "Type": format!("SIP worker {}", sockets.join(" "))}));
    }
    list.push(json!({"ID": call.core.workers + 1, "PID": pid, "Type": "management"}));
    Ok(json!({"Processes": list}))
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
    match params.int("level", 0)? {
        Some(level) => {
            log::set_level(level.clamp(-3, 4) as i8);
            Ok(json!({"New global log level": level}))
        }
        None => {
            let pid = std::process::id();
            let worker = |n| json!({"PID": pid, "Log level": log::level(), "Type": format!("SIP worker {n}")});
            Ok(json!({"Processes": (0..call.core.workers).map(worker).collect::<Vec<_>>()}))
        }
    }
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

/// The names asked for: a list, or one name per positional parameter.
fn wanted(params: &MiParams) -> Vec<String> {
    let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    match params.named.get("statistics") {
        Some(Json::Array(list)) => list.iter().map(text).collect(),
        Some(one) => vec![text(one)],
        None => params
            .positional
            .iter()
            .flat_map(|p| match p {
                Json::Array(list) => list.iter().map(text).collect(),
                one => vec![text(one)],
            })
            .collect(),
    }
}

fn get_statistics(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    if names.is_empty() {
        return Err(MiError::params("missing parameter: statistics"));
    }
    let mut out = Map::new();
    for name in names {
        let all = call.shared().stats.list(None);
        for (group, stat, value) in all {
            let meant = name == "all" || name.strip_suffix(':') == Some(&group) || name == stat || name == format!("{group}:{stat}");
            if meant {
                out.insert(format!("{group}:{stat}"), json!(value));
            }
        }
    }
    if out.is_empty() { Err(MiError::new(404, "Statistics Not Found")) } else { Ok(Json::Object(out)) }
}

fn list_statistics(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    let stats = call.shared().stats.list(None).into_iter();
    let meant = |g: &str, s: &str| names.is_empty() || names.iter().any(|n| n.strip_suffix(':') == Some(g) || n == s);
    let shown = stats.filter(|(g, s, _)| meant(g, s)).map(|(g, s, _)| (format!("{g}:{s}"), json!("incremental")));
    Ok(Json::Object(shown.collect()))
}

fn reset_statistics(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    for name in wanted(params) {
        match call.shared().stats.source(&name) {
            Some(host::stats::Source::Counter(counter)) => counter.set(0),
            Some(_) => {}
            None => return Err(MiError::new(404, "Statistics Not Found")),
        }
    }
    Ok(json!("OK"))
}

fn reset_all_statistics(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    for (_, name, _) in call.shared().stats.list(None) {
        if let Some(host::stats::Source::Counter(counter)) = call.shared().stats.source(&name) {
            counter.set(0);
        }
    }
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
    let &[worker, index, generation] = &parts[..] else { return Err(MiError::params("id as async_list prints it")) };
    if worker != u32::from(call.core.worker) {
        return Ok(json!(false));
    }
    Ok(json!(call.fail_task(TaskId { index, generation })))
}
