//! `fermata manual`: the reference of the modules, from what they register and the words about it.

mod language;
pub mod lists;
#[cfg(test)]
mod tests;
mod words;

use crate::BAD_SCRIPT;
use host::load::CommandWords;
use host::registrar::{FunctionInfo, Module, ModuleDef, ParamKind, Routes, Since};
use script::ast::RouteKind;
use std::fmt::Write;
use std::process::ExitCode;
use words::{About, Entry};

/// Prints the whole manual, the help of one name, or the frame of a new module's words.
pub fn run(name: Option<&str>, skeleton: bool) -> ExitCode {
    let text = match (name, skeleton) {
        (None, _) => Ok(page()),
        (Some(name), true) => frame(name),
        (Some(name), false) => topic(name),
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("fermata: {why}");
            ExitCode::from(BAD_SCRIPT)
        }
    }
}

/// `docs/MODULES.md`.
fn page() -> String {
    let mut page = String::from(
        "# Modules\n\nMade by `fermata manual > docs/MODULES.md`; the words are in `crates/*/manual/`. \
         `fermata manual NAME` prints what stands here about one module, function, parameter, variable, command, \
         event or statistic. A function marked *waits* may hold the script, never the worker.\n\n",
    );
    let modules: Vec<_> = built().collect();
    let links = modules.iter().map(|(def, _)| format!("[{0}](#{0})", def.name)).collect::<Vec<_>>();
    page.push_str(&links.join(" · "));
    let of_core = language::CHAPTERS.map(|name| format!("[{name}](#{})", name.replace(' ', "-")));
    page.push_str(&format!("\n\nOf the core: {}", of_core.join(" · ")));
    page.push('\n');
    for (def, module) in &modules {
        page.push('\n');
        page.push_str(&chapter(def.name, &**module));
    }
    for name in language::CHAPTERS {
        page.push('\n');
        page.push_str(&language::chapter(name));
    }
    page
}

/// The modules of this build, by name.
fn built() -> impl Iterator<Item = (&'static ModuleDef, Box<dyn Module>)> {
    let mut defs: Vec<&ModuleDef> = catalog::all().iter().collect();
    defs.sort_by_key(|def| def.name);
    defs.into_iter().map(|def| (def, (def.make)())).filter(|(_, module)| module.left_out().is_none())
}

fn chapter(name: &str, module: &dyn Module) -> String {
    let mut text = format!("## {name}\n");
    let words = words::of(name);
    if let Some(words) = words {
        let _ = write!(text, "\n{}\n", words.intro);
    }
    let (ignored, params): (Vec<_>, Vec<_>) =
        module.params().into_iter().partition(|(_, kind)| matches!(kind, ParamKind::Ignored(_)));
    let params = params.iter().map(|(param, kind)| parameter(&*module, name, param, *kind)).collect();
    section(&mut text, "Parameters", params);
    let ignored = ignored.iter().map(|(param, kind)| parameter(&*module, name, param, *kind)).collect();
    section(&mut text, "Parameters without effect here", ignored);
    section(&mut text, "Functions", functions(name, module));
    let variables = variables(module).into_iter().map(|variable| entry_line(name, About::Variable, variable));
    section(&mut text, "Variables", variables.collect());
    section(&mut text, "Commands", module.command_words().iter().map(command).collect());
    for (about, title) in [(About::Event, "Events"), (About::Statistic, "Statistics")] {
        let own = words.into_iter().flat_map(|words| words.entries.keys()).filter(|(a, _)| *a == about);
        section(&mut text, title, own.map(|(_, n)| entry_line(name, about, n)).collect());
    }
    text
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        let _ = write!(text, "\n### {title}\n\n{}\n", lines.join("\n"));
    }
}

/// Names of variables, each once.
fn variables(module: &dyn Module) -> Vec<&'static str> {
    let mut names = module.variable_names();
    names.sort_unstable();
    names.dedup();
    names
}

fn parameter(made: &dyn Module, module: &str, name: &str, kind: ParamKind) -> String {
    let entry = words::entry(module, About::Param, name);
    let takes = match kind {
        ParamKind::Int => "integer",
        ParamKind::Text => "string",
        ParamKind::Any => "integer or string",
        ParamKind::Ignored(why) => return format!("- `{name}`: {why}"),
    };
    let takes = match made.accepts(name) {
        Some(accepts) if !accepts.is_column() => accepts.to_string(),
        _ => takes.to_owned(),
    };
    let default = entry.and_then(|e| e.default).map(|d| format!(", default {d}")).unwrap_or_default();
    format!("- `{name}` ({takes}{default}): {}", text_of(entry))
}

fn text_of(entry: Option<&Entry>) -> &str {
    entry.map_or("", |entry| &entry.text)
}

/// One entry a name; a name may have several forms.
fn functions(module: &str, made: &dyn Module) -> Vec<String> {
    let mut all = made.functions();
    all.sort_by_key(|f| f.name);
    all.chunk_by(|a, b| a.name == b.name).map(|forms| function(module, forms)).collect()
}

fn function(module: &str, forms: &[FunctionInfo]) -> String {
    let name = forms[0].name;
    let entry = words::entry(module, About::Function, name);
    let mut text = format!("- `{}`", call(name, entry, forms));
    let waits = if forms.iter().any(|f| f.may_wait) { "**waits**; " } else { "" };
    let _ = write!(text, " ({waits}{}): {}", routes(forms), text_of(entry));
    for (code, what) in entry.into_iter().flat_map(|entry| &entry.returns) {
        let _ = write!(text, "\n  - {code}: {what}");
    }
    for form in forms {
        let types: Vec<_> = (form.takes)().iter().map(|(what, _)| *what).collect();
        let since = match form.since {
            Since::Both => "",
            Since::V21 => " in 2.1",
            Since::V4 => " since 3.0",
        };
        if !types.is_empty() {
            let _ = write!(text, "\n  - takes{since}: {}", types.join(", "));
        }
    }
    text
}

/// Longest form, with the names that the words give its arguments.
fn call(name: &str, entry: Option<&Entry>, forms: &[FunctionInfo]) -> String {
    let longest = forms.iter().max_by_key(|f| f.arity.1).expect("a form");
    let args = (longest.takes)().into_iter().enumerate().map(|(i, (what, optional))| {
        let arg = entry.and_then(|entry| entry.args.get(i).copied()).unwrap_or(what);
        if optional { format!("[{arg}]") } else { arg.to_owned() }
    });
    format!("{name}({})", args.collect::<Vec<_>>().join(", "))
}

fn routes(forms: &[FunctionInfo]) -> String {
    let of_any = Routes(forms.iter().fold(0, |all, form| all | form.routes.0));
    let kinds = [
        (RouteKind::Request, "request"),
        (RouteKind::Branch, "branch"),
        (RouteKind::Failure, "failure"),
        (RouteKind::OnReply, "reply"),
        (RouteKind::Local, "local"),
        (RouteKind::Error, "error"),
        (RouteKind::Startup, "startup"),
        (RouteKind::Timer, "timer"),
        (RouteKind::Event, "event"),
    ];
    if kinds.iter().all(|(kind, _)| of_any.has(*kind)) {
        return "any route".to_owned();
    }
    let names: Vec<_> = kinds.iter().filter(|(kind, _)| of_any.has(*kind)).map(|(_, name)| *name).collect();
    format!("{} route{}", names.join(", "), if names.len() == 1 { "" } else { "s" })
}

fn command(words: &CommandWords) -> String {
    let mut names = words.names.split(' ');
    let name = names.next().unwrap_or_default();
    let before: Vec<_> = names.map(|n| format!("`{n}`")).collect();
    let before = if before.is_empty() { String::new() } else { format!(" (before: {})", before.join(", ")) };
    format!("- `{name}`{before}: {}", words.usage_line())
}

fn entry_line(module: &str, about: About, name: &str) -> String {
    let entry = words::entry(module, about, name);
    let shown = match (about, entry) {
        (About::Variable, _) => format!("${name}"),
        (About::Event, Some(entry)) if !entry.args.is_empty() => format!("{name}({})", entry.args.join(", ")),
        _ => name.to_owned(),
    };
    format!("- `{shown}`: {}", text_of(entry))
}

/// Everything of that name: `sql_query`, `tm`, `tm:fr_timeout`, `$avp`, `E_PIKE_BLOCKED`, `usrloc:dump`.
pub fn topic(name: &str) -> Result<String, String> {
    let bare = name.trim_start_matches('$').trim_end_matches("()");
    let mut found: Vec<String> = Vec::new();
    for (def, module) in built() {
        if def.name == bare {
            return Ok(chapter(def.name, &*module));
        }
        let lines = lines_of(def.name, &*module, bare);
        found.extend(lines.into_iter().map(|line| format!("module {}\n{line}\n", def.name)));
    }
    if let Some(chapter) = language::CHAPTERS.into_iter().find(|chapter| *chapter == name) {
        return Ok(language::chapter(chapter));
    }
    found.extend(language::lines_of(name));
    match found.is_empty() {
        false => Ok(found.join("\n")),
        true => Err(match script::nearest(bare, every_name().iter().map(String::as_str)) {
            Some(near) => format!("nothing is called {name}; did you mean {near}?"),
            None => format!("nothing is called {name}"),
        }),
    }
}

fn lines_of(owner: &str, module: &dyn Module, name: &str) -> Vec<String> {
    let is =
        |n: &str| n == name || name.strip_prefix(owner).is_some_and(|rest| rest.strip_prefix(':') == Some(n));
    let mut lines = Vec::new();
    let forms: Vec<_> = module.functions().into_iter().filter(|f| is(f.name)).collect();
    if !forms.is_empty() {
        lines.push(function(owner, &forms));
    }
    let params = module.params().into_iter().filter(|(n, _)| is(n));
    lines.extend(params.map(|(n, kind)| parameter(&*module, owner, n, kind)));
    let variables = variables(module).into_iter().filter(|n| is(n));
    lines.extend(variables.map(|n| entry_line(owner, About::Variable, n)));
    let commands = module.command_words().into_iter().filter(|words| words.names.split(' ').any(is));
    lines.extend(commands.map(|words| command(&words)));
    let own = words::of(owner).into_iter().flat_map(|words| words.entries.keys());
    let own = own.filter(|(about, n)| matches!(about, About::Event | About::Statistic) && is(n));
    lines.extend(own.map(|(about, n)| entry_line(owner, *about, n)));
    lines
}

fn every_name() -> Vec<String> {
    let mut names = Vec::new();
    for (def, module) in built() {
        names.push(def.name.to_owned());
        names.extend(module.functions().iter().map(|f| f.name.to_owned()));
        names.extend(module.param_names().iter().map(|n| (*n).to_owned()));
        names.extend(module.variable_names().iter().map(|n| (*n).to_owned()));
    }
    names.extend(language::names());
    names
}

/// A file of words in which only the words are missing.
fn frame(name: &str) -> Result<String, String> {
    let (_, module) = built().find(|(def, _)| def.name == name).ok_or_else(|| format!("no module {name}"))?;
    let mut text = String::from("TODO: what the module is for, in one paragraph.\n\n");
    let params = module.params().into_iter().filter(|(_, kind)| !matches!(kind, ParamKind::Ignored(_)));
    for (param, _) in params.filter(|(n, _)| words::entry(name, About::Param, n).is_none()) {
        let _ = writeln!(text, "param {param} = TODO: TODO");
    }
    let mut functions = module.functions();
    functions.sort_by_key(|f| f.name);
    for forms in functions.chunk_by(|a, b| a.name == b.name) {
        let function = forms[0].name;
        if words::entry(name, About::Function, function).is_none() {
            let call = call(function, None, forms).replace(['[', ']'], "");
            let _ = writeln!(text, "function {call}: TODO\n  1: TODO | -1: TODO");
        }
    }
    for variable in variables(&*module) {
        if words::entry(name, About::Variable, variable).is_none() {
            let _ = writeln!(text, "variable {variable}: TODO");
        }
    }
    Ok(text)
}
