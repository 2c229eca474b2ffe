//! From the command line to a checked configuration: reads the script, finds the addresses to listen
//! on, loads the modules. All problems are collected, none stops the search for others.

use crate::cli::Run;
use host::listen::{ListenHost, ListenSpec};
use net::Interface;
use script::ast::{Config, Global, GlobalValue};
use script::{Diagnostic, Loc, Severity, Sources};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Stands in for a file name when `-f` is not given.
pub const BUILT_IN: &str = "(built-in) residential.cfg";
/// The database of the built-in configuration, in the folder that the server works in.
pub const BUILT_IN_DATABASE: &str = "fermata.sqlite";
const BUILT_IN_TEXT: &[u8] = include_bytes!("../../../etc/residential.cfg");

pub fn is_built_in(file: &Path) -> bool {
    file == Path::new(BUILT_IN)
}

/// A script that cannot run: its texts and what is wrong.
pub struct Refused {
    pub sources: Sources,
    pub diagnostics: Vec<Diagnostic>,
}

impl Refused {
    /// For people: each problem with its place.
    pub fn problems(&self) -> String {
        let each = |d: &Diagnostic| format!("{}\n", self.sources.render(d).trim_end());
        self.diagnostics.iter().map(each).collect()
    }

    /// The same, then a line that counts them.
    pub fn render(&self) -> String {
        let mut out = self.problems();
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        let (s, verb) = if errors == 1 { ("", "keeps") } else { ("s", "keep") };
        out.push_str(&format!("{errors} error{s} {verb} this script from running; nothing was started\n"));
        out
    }
}

/// Reads a script and what it includes.
pub fn parse(file: &Path, run: &Run, sources: &mut Sources) -> (Config, Vec<Diagnostic>) {
    let mut loader = |path: &str| read(path, run.preprocessor.as_deref());
    script::parse_file(&file.to_string_lossy(), &mut loader, sources, script::Options::default())
}

/// How closely a script is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// What is needed to run it.
    Load,
    /// Also habits that go wrong.
    Lint,
}

/// Reads and checks a script.
pub fn load(file: &Path, run: &Run, depth: Depth) -> Result<host::Shared, Refused> {
    let mut sources = Sources::default();
    let (config, diagnostics) = parse(file, run, &mut sources);
    load_parsed(config, diagnostics, sources, run, depth)
}

/// Checks a script that was read.
pub fn load_parsed(
    mut config: Config,
    mut diagnostics: Vec<Diagnostic>,
    sources: Sources,
    run: &Run,
    depth: Depth,
) -> Result<host::Shared, Refused> {
    if depth == Depth::Lint && !has_error(&diagnostics) {
        let waiting = crate::commands::waiting_functions();
        diagnostics.extend(script::lint(&config, &|name| waiting.contains(name)));
    }
    let graph = draws(&config).then(|| graph_of(&config));
    let declared = Config { routes: Vec::new(), ..config.clone() };
    listen_on(&mut config, &run.listen, &mut diagnostics);
    alias_by_address(&mut config);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Keyed by the system's random numbers.
    let seed = RandomState::new().hash_one(wall);
    match host::load(&config, sources, catalog::all(), wall.as_millis() as u64, seed) {
        Ok(shared) if !has_error(&diagnostics) => {
            let mut shared = shared;
            diagnostics.append(&mut shared.warnings);
            shared.warnings = diagnostics;
            shared.declared = declared;
            *shared.graph.write() = graph;
            Ok(shared)
        }
        Ok(shared) => Err(Refused { sources: (*shared.sources()).clone(), diagnostics }),
        Err((sources, more)) => {
            diagnostics.extend(more);
            Err(Refused { sources, diagnostics })
        }
    }
}

/// Somebody shows the routes.
fn draws(config: &Config) -> bool {
    config.modules.iter().any(|module| &module.name[..] == b"page")
}

fn graph_of(config: &Config) -> Arc<script::RouteGraph> {
    let waiting = crate::commands::waiting_functions();
    Arc::new(script::explain(config, &|name| waiting.contains(name)))
}

/// The routes for those who show them, where somebody does.
pub fn routes_shown(shared: &host::Shared, config: &Config) -> Option<Arc<script::RouteGraph>> {
    draws(&shared.declared).then(|| graph_of(config))
}

/// What a script that is correct needs and this machine does not have, each an error of this machine. Looks at interfaces and
/// files, and asks databases for a connection.
pub fn missing_here(shared: &host::Shared) -> Vec<Diagnostic> {
    let place = |name: &[&[u8]]| {
        let found = shared.declared.globals.iter().find(|g| name.contains(&&g.name[..]));
        found.map_or(Loc::default(), |g| g.loc)
    };
    let sockets = shared.sockets.iter().filter(|socket| {
        let free = std::net::UdpSocket::bind((socket.addr.ip(), 0));
        free.is_err_and(|e| e.kind() == std::io::ErrorKind::AddrNotAvailable)
    });
    let sockets = sockets.map(|socket| {
        let text = format!("cannot listen on {}: no interface of this machine has this address", socket.text);
        let own = |g: &&Global| {
            matches!(&g.name[..], b"socket" | b"listen") && word_of(g).contains(&host_of(socket))
        };
        let loc = shared.declared.globals.iter().find(own).map_or(place(&[b"socket", b"listen"]), |g| g.loc);
        (loc, text)
    });
    let module = |name: &str| {
        let found = shared.declared.modules.iter().find(|m| m.name == name.as_bytes());
        found.map_or(Loc::default(), |m| m.loc)
    };
    let lacks = shared.hooks.lacks.iter().flat_map(|(name, lacks)| {
        lacks().into_iter().map(move |text| (module(name), format!("module {name}: {text}")))
    });
    let all = sockets.chain(lacks);
    all.map(|(loc, text)| Diagnostic::error(loc, text).of_this_machine()).collect()
}

fn host_of(socket: &host::Listen) -> String {
    socket.addr.ip().to_string()
}

fn word_of(global: &Global) -> String {
    match &global.value {
        GlobalValue::Word(text) | GlobalValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    }
}

fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}

/// The text of a file, through the preprocessor if there is one (OpenSIPS `-p`: included files too).
fn read(path: &str, preprocessor: Option<&str>) -> std::io::Result<Vec<u8>> {
    let text = match path {
        "-" => {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text)?;
            text
        }
        BUILT_IN => BUILT_IN_TEXT.to_vec(),
        path => std::fs::read(path)?,
    };
    match preprocessor {
        None => Ok(text),
        Some(command) => preprocess(command, text),
    }
}

fn preprocess(command: &str, text: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut child =
        Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take();
    // Beside this thread: the command may print before it has read everything.
    let writer = std::thread::spawn(move || input.as_mut().map_or(Ok(()), |input| input.write_all(&text)));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            Err(std::io::Error::other(format!("the preprocessor `{command}` failed: {}", output.status)))
        }
    }
}

/// Replaces each `socket=` and `listen=` by one for each address it stands for, so that what follows
/// sees only numbers. `-l` on the command line takes the place of all of them.
fn listen_on(config: &mut Config, switches: &[String], diagnostics: &mut Vec<Diagnostic>) {
    let interfaces = net::interfaces().unwrap_or_default();
    let is_socket = |g: &Global| matches!(&g.name[..], b"socket" | b"listen");
    let mut written: Vec<(String, Loc)> = switches.iter().map(|s| (s.clone(), Loc::default())).collect();
    let mut kept = Vec::with_capacity(config.globals.len());
    for global in std::mem::take(&mut config.globals) {
        match &global.value {
            GlobalValue::Word(text) | GlobalValue::Text(text) if is_socket(&global) => {
                if switches.is_empty() {
                    written.push((String::from_utf8_lossy(text).into_owned(), global.loc));
                }
            }
            _ => kept.push(global),
        }
    }
    config.globals = kept;
    if written.is_empty() {
        // As the reference: every address of this machine.
        written.push(("udp:*".to_owned(), Loc::default()));
    }
    for (text, loc) in written {
        match expand(&text, &interfaces) {
            Ok(words) => config.globals.extend(words.into_iter().map(|word| Global {
                name: "socket".into(),
                value: GlobalValue::Word(word.into()),
                loc,
            })),
            Err(e) => {
                let problem = Diagnostic::error(loc, format!("cannot listen on {text}: {e}"));
                diagnostics.push(if e.ends_with(NO_ADDRESS) { problem.of_this_machine() } else { problem });
            }
        }
    }
}

/// `auto_aliases`: the names that DNS has for the addresses are this server's too.
fn alias_by_address(config: &mut Config) {
    let wanted = config.globals.iter().rev().find(|g| &g.name[..] == b"auto_aliases");
    if !wanted.is_some_and(|g| matches!(g.value, GlobalValue::Bool(true) | GlobalValue::Int(1..))) {
        return;
    }
    let mut aliases = Vec::new();
    for global in config.globals.iter().filter(|g| &g.name[..] == b"socket") {
        let GlobalValue::Word(text) = &global.value else { continue };
        let Ok(spec) = ListenSpec::parse(&String::from_utf8_lossy(text)) else { continue };
        let ListenHost::Ip(ip) = spec.host else { continue };
        if let Some(name) = net::host_name_of(ip) {
            let port = spec.ports.first().map_or(String::new(), |port| format!(":{port}"));
            let protocol = spec.protocol.as_deref().unwrap_or("udp");
            let value = GlobalValue::Word(format!("{protocol}:{name}{port}").into());
            aliases.push(Global { name: "alias".into(), value, loc: global.loc });
        }
    }
    config.globals.extend(aliases);
}

fn expand(text: &str, interfaces: &[Interface]) -> Result<Vec<String>, String> {
    let spec = ListenSpec::parse(text).map_err(|e| e.to_string())?;
    let addresses = match &spec.host {
        ListenHost::Ip(_) if spec.ports.len() < 2 => return Ok(vec![text.to_owned()]),
        host => addresses(host, interfaces)?,
    };
    let options = text.trim().split_once(char::is_whitespace).map_or("", |(_, options)| options);
    let protocol = spec.protocol.as_deref().unwrap_or("udp");
    let mut words = Vec::new();
    for ip in addresses {
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        match spec.ports.as_slice() {
            [] => words.push(format!("{protocol}:{host} {options}")),
            ports => words.extend(ports.iter().map(|port| format!("{protocol}:{host}:{port} {options}"))),
        }
    }
    Ok(words)
}

/// The addresses to bind. `*` is every address of every interface except IPv6 link-local ones, as in the
/// reference, so that each address is a socket of its own; a name is an interface first, then a host.
fn addresses(host: &ListenHost, interfaces: &[Interface]) -> Result<Vec<IpAddr>, String> {
    let usable = interfaces.iter().filter(|i| !i.link_local);
    Ok(match host {
        ListenHost::Ip(ip) => vec![*ip],
        ListenHost::All => usable.map(|i| i.addr).collect(),
        ListenHost::Name(name) => {
            let list: Vec<IpAddr> = usable.filter(|i| i.name == *name).map(|i| i.addr).collect();
            match list.is_empty() {
                false => list,
                true => vec![address_of(name)?],
            }
        }
    })
}

const NO_ADDRESS: &str = "is no interface, and no host with an address";

/// First address of a host name, by the system's resolver: only at start, where waiting is allowed.
fn address_of(name: &str) -> Result<IpAddr, String> {
    let found = (name, 0).to_socket_addrs().ok().and_then(|mut list| list.next());
    found.map(|addr| addr.ip()).ok_or_else(|| format!("{name} {NO_ADDRESS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let interface = |name: &str, addr: &str| Interface {
            name: name.into(),
            addr: addr.parse().unwrap(),
            loopback: false,
            link_local: false,
        };
        let all =
            [interface("lo", "127.0.0.1"), interface("eth0", "10.0.0.1"), interface("eth0", "2001:db8::1")];
        let words = expand(text, &all).unwrap();
        assert_eq!(words.iter().map(|w| w.trim()).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn sockets_become_addresses() {
        check("udp:127.0.0.1:5060 as 1.2.3.4", &["udp:127.0.0.1:5060 as 1.2.3.4"]);
        check(
            "udp:eth0:5080 as 1.2.3.4",
            &["udp:10.0.0.1:5080 as 1.2.3.4", "udp:[2001:db8::1]:5080 as 1.2.3.4"],
        );
        check("tcp:*", &["tcp:127.0.0.1", "tcp:10.0.0.1", "tcp:[2001:db8::1]"]);
        check("udp:lo:5060-5061", &["udp:127.0.0.1:5060", "udp:127.0.0.1:5061"]);
    }

    #[test]
    fn the_preprocessor_sees_the_text() {
        assert_eq!(preprocess("sed s/A/b/", b"xAx\n".to_vec()).unwrap(), b"xbx\n");
        assert!(preprocess("exit 3", Vec::new()).is_err());
    }
}
