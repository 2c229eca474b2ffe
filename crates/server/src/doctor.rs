//! `fermata doctor`: what of this machine keeps a script from running well, and the command that mends it.

use crate::cli::Run;
use crate::config::{self, Depth};
use crate::{proofs, settings};
use drivers::tls_mgm::TlsMgm;
use host::Shared;
use net::{BoundUdp, Sharing, UdpOptions, process};
use sip::Transport;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const AFTER: &str = "\
Looks at what the script needs and this machine gives: the script itself, addresses, receive buffers, open files,
name servers, databases and their tables, certificates, the clock. Nothing is changed; each fault comes with what
mends it.

  fermata doctor -f /etc/fermata/fermata.cfg

Exit codes: 0 nothing is wrong, 1 something is.";

#[derive(clap::Args, Debug, Default)]
#[command(after_help = AFTER)]
pub struct Options {
    /// The script; without it the built-in one
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// How one thing was found.
#[derive(Clone, Debug, PartialEq)]
enum Finding {
    Good(String),
    /// It works, and not as well as it could.
    Warning {
        what: String,
        mend: String,
    },
    Fault {
        what: String,
        mend: String,
    },
}

use Finding::{Fault, Good, Warning};

fn warning(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Warning { what: what.into(), mend: mend.into() }
}

fn fault(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Fault { what: what.into(), mend: mend.into() }
}

pub fn run(options: &Options) -> ExitCode {
    let run = Run { file: options.file.clone(), ..Run::default() };
    let file = options.file.clone().unwrap_or_else(|| config::BUILT_IN.into());
    let mut findings = vec![clock(process::clock_is_kept())];
    match config::load(&file, &run, Depth::Load) {
        Err(refused) => {
            let errors = refused.diagnostics.iter().filter(|d| d.is_error()).count();
            let s = if errors == 1 { "" } else { "s" };
            findings.push(fault(
                format!("the script has {errors} error{s}"),
                format!("fermata check {}", file.display()),
            ));
        }
        Ok(shared) => {
            findings.push(Good(format!("the script {} is correct", file.display())));
            findings.extend(sockets(&shared, &settings::udp_options(&run, &shared.globals)));
            findings.push(open_files(needed_files(&shared), process::open_files().ok()));
            findings.extend(lacking(&shared));
            findings.extend(databases(&shared));
            findings.extend(certificates(&shared, now_s()));
        }
    }
    findings.extend(name_servers(Path::new("/etc/resolv.conf")));
    report(&findings)
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

fn report(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        match finding {
            Good(what) => println!("ok       {what}"),
            Warning { what, mend } => println!("warning  {what}\n         mend: {mend}"),
            Fault { what, mend } => println!("fault    {what}\n         mend: {mend}"),
        }
    }
    let count = |wanted: fn(&Finding) -> bool| findings.iter().filter(|f| wanted(f)).count();
    let (faults, warnings) = (count(|f| matches!(f, Fault { .. })), count(|f| matches!(f, Warning { .. })));
    if faults + warnings == 0 {
        println!("nothing is wrong");
        return ExitCode::SUCCESS;
    }
    println!("{faults} fault(s), {warnings} warning(s)");
    ExitCode::FAILURE
}

fn clock(kept: Option<bool>) -> Finding {
    match kept {
        Some(false) => warning(
            "nothing keeps the clock in step: nonces, registrations and accounts depend on it",
            "apt-get install chrony, or timedatectl set-ntp true",
        ),
        Some(true) => Good("the clock is kept in step".into()),
        None => Good("the system does not say whether its clock is kept in step".into()),
    }
}

/// Addresses can be bound, and their receive buffers are as large as asked.
fn sockets(shared: &Shared, options: &UdpOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut granted = None;
    for listen in shared.sockets.iter().filter(|s| s.transport == Transport::Udp) {
        let alone = UdpOptions { sharing: Sharing::Exclusive, ..options.clone() };
        match BoundUdp::bind(listen.addr, &alone) {
            Ok(bound) => granted = granted.or(bound.receive_buffer_clamped()),
            Err(e) => findings.push(cannot_listen(&listen.text, listen.addr, &e)),
        }
    }
    for listen in shared.sockets.iter().filter(|s| s.transport != Transport::Udp) {
        if let Err(e) = std::net::TcpListener::bind(listen.addr) {
            findings.push(cannot_listen(&listen.text, listen.addr, &e));
        }
    }
    if findings.is_empty() {
        findings.push(Good(format!("the script's {} addresses can be bound", shared.sockets.len())));
    }
    findings.push(buffers(options.receive_buffer, granted));
    findings
}

fn buffers(wanted: usize, granted: Option<usize>) -> Finding {
    match granted {
        Some(granted) => warning(
            format!("receive buffers get {granted} of {wanted} bytes: bursts are lost"),
            format!("sysctl -w net.core.rmem_max={wanted}    (kept by a line in /etc/sysctl.d/fermata.conf)"),
        ),
        None => Good(format!("receive buffers of {wanted} bytes are granted")),
    }
}

fn cannot_listen(text: &str, addr: SocketAddr, error: &std::io::Error) -> Finding {
    let mend = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("ss -lnp 'sport = :{}' shows who has it (this server itself, when it runs)", addr.port())
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "ip -brief address shows the addresses of this machine: socket= in the script must name one"
                .into()
        }
        std::io::ErrorKind::PermissionDenied => {
            "setcap cap_net_bind_service=+ep /usr/bin/fermata, or a port above 1023".into()
        }
        _ => "see socket= in the script".into(),
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => warning(format!("{text} is in use"), mend),
        _ => fault(format!("cannot listen on {text}: {error}"), mend),
    }
}

/// What a busy server opens: connections of clients and of pools, and its own files.
fn needed_files(shared: &Shared) -> u64 {
    let core = &shared.globals.core;
    let streams = shared.sockets.iter().any(|s| s.transport != Transport::Udp);
    let connections = if streams { core.tcp_max_connections.unwrap_or(2048).max(0) as u64 } else { 0 };
    connections + 512
}

fn open_files(needed: u64, limit: Option<(u64, u64)>) -> Finding {
    match limit {
        // The server raises its own limit as far as it may.
        Some((_, most)) if most < needed => warning(
            format!("{most} files may be open, a full server has {needed}: connections are refused then"),
            format!(
                "LimitNOFILE={} in the unit, or ulimit -Hn {needed} before the start",
                needed.max(65_536)
            ),
        ),
        Some((_, most)) => Good(format!("{most} files may be open, {needed} are needed at most")),
        None => Good("the limit of open files is not known".into()),
    }
}

/// Folders, certificates, servers that modules miss.
fn lacking(shared: &Shared) -> Vec<Finding> {
    let missing = config::missing_here(shared).into_iter();
    // Addresses were looked at before.
    let missing = missing.filter(|d| !d.message.starts_with("cannot listen on"));
    let found: Vec<Finding> = missing.map(|d| fault(d.message.clone(), mend_for(&d.message))).collect();
    if found.is_empty() { vec![Good("what modules need is there".into())] } else { found }
}

/// The command that mends what a module misses, by what it said.
fn mend_for(text: &str) -> String {
    let between = |from: &str, to: &str| {
        let rest = text.split_once(from)?.1;
        Some(rest.split_once(to)?.0.trim().to_owned())
    };
    // Some say it themselves.
    if let Some(command) = between("`", "`") {
        return command;
    }
    if let Some(folder) = between("the folder ", " ") {
        return format!("mkdir -p {folder}");
    }
    if let Some(file) = between("cannot make ", ": its folder is missing") {
        let folder = Path::new(&file).parent().map(|folder| folder.display().to_string());
        return format!("mkdir -p {}", folder.unwrap_or(file));
    }
    if let Some(url) = text.split_whitespace().find(|word| word.contains("://")) {
        let url = url.trim_matches([':', '`', ',', ';']);
        return format!(
            "see that the server of {url} runs and takes this login: fermata db migrate -n {url}"
        );
    }
    "see the parameters of this module: fermata manual MODULE".into()
}

/// Tables that must be there with the right version.
fn databases(shared: &Shared) -> Option<Finding> {
    match proofs::hold(shared) {
        Ok(()) if shared.backends().is_empty() => None,
        Ok(()) => Some(Good("no table with another version was found".into())),
        Err(why) => {
            let url = why
                .split_whitespace()
                .find(|word| word.contains("://"))
                .unwrap_or("URL")
                .trim_end_matches([':', ';']);
            let mend = format!("fermata db create {url}, or fermata db migrate {url} when they are old");
            Some(fault(why.clone(), mend))
        }
    }
}

const DAY: i64 = 86_400;

fn certificates(shared: &Shared, now: i64) -> Vec<Finding> {
    let all = shared.module::<TlsMgm>().map(|tls| tls.certificates()).unwrap_or_default();
    all.iter().map(|c| certificate(&c.domain, &c.file, c.ends, now)).collect()
}

fn certificate(domain: &str, file: &Path, ends: Option<i64>, now: i64) -> Finding {
    let file = file.display();
    let mend = format!("put a new certificate into {file}, then fermata mi tls_reload");
    match ends.map(|ends| (ends - now).div_euclid(DAY)) {
        None => fault(
            format!("the certificate {file} of domain {domain} cannot be read"),
            format!("openssl x509 -in {file} -noout -text"),
        ),
        Some(days) if days < 0 => {
            fault(format!("the certificate {file} of domain {domain} ended {} days ago", -days), mend)
        }
        Some(days) if days < 14 => {
            warning(format!("the certificate {file} of domain {domain} ends in {days} days"), mend)
        }
        Some(days) => Good(format!("the certificate of domain {domain} is good for {days} days")),
    }
}

/// How long a name server gets.
const DNS_TIME: Duration = Duration::from_secs(2);

fn name_servers(file: &Path) -> Vec<Finding> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().split('%').next()?.parse().ok())
        .collect();
    if servers.is_empty() {
        return vec![warning(
            format!("{} names no name server: names of next hops are not found", file.display()),
            format!("echo 'nameserver 9.9.9.9' >> {}", file.display()),
        )];
    }
    let silent =
        "getent hosts example.com; systemctl restart systemd-resolved, or another nameserver line in";
    servers
        .iter()
        .map(|server| match asks(SocketAddr::new(*server, 53)) {
            Some(took) if took < Duration::from_millis(200) => {
                Good(format!("the name server {server} answers"))
            }
            Some(took) => warning(
                format!("the name server {server} took {} ms: calls to names wait as long", took.as_millis()),
                format!("a nearer name server in {}, or a cache (unbound) on this machine", file.display()),
            ),
            None => fault(
                format!("the name server {server} does not answer"),
                format!("{silent} {}", file.display()),
            ),
        })
        .collect()
}

/// Asks for the name servers of the root, which every name server knows; how long it took.
fn asks(server: SocketAddr) -> Option<Duration> {
    // RFC 1035 §4.1: a header with one question, the root, type NS, class IN.
    const QUESTION: [u8; 17] = [0x46, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let socket = UdpSocket::bind((if server.is_ipv6() { "::" } else { "0.0.0.0" }, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(DNS_TIME)).ok()?;
    let since = Instant::now();
    socket.send(&QUESTION).ok()?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).ok()?;
    (length >= 12 && answer[..2] == QUESTION[..2] && answer[2] & 0x80 != 0).then(|| since.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(finding: Finding) -> String {
        match finding {
            Good(what) => format!("good: {what}"),
            Warning { mend, .. } => format!("warning: {mend}"),
            Fault { mend, .. } => format!("fault: {mend}"),
        }
    }

    #[test]
    fn each_fault_has_a_command() {
        assert!(mend(buffers(4096, Some(2048))).contains("sysctl -w net.core.rmem_max=4096"));
        assert!(mend(buffers(4096, None)).starts_with("good"));
        assert!(mend(open_files(70_000, Some((1024, 4096)))).contains("LimitNOFILE=70000"));
        assert!(mend(open_files(700, Some((1024, 4096)))).starts_with("good"));
        assert!(mend(clock(Some(false))).contains("timedatectl"));
        let file = Path::new("/etc/c.pem");
        assert!(mend(certificate("a", file, Some(0), DAY * 3)).starts_with("fault: put a new certificate"));
        assert!(mend(certificate("a", file, Some(DAY * 10), DAY * 3)).starts_with("warning"));
        assert!(mend(certificate("a", file, Some(DAY * 90), DAY * 3)).starts_with("good"));
        assert!(mend(certificate("a", file, None, 0)).contains("openssl x509"));
        for (said, command) in [
            ("module mi_fifo: the folder /run/x (reply_dir) is missing", "mkdir -p /run/x"),
            ("module mi_fifo: cannot make /run/x/fifo: its folder is missing", "mkdir -p /run/x"),
            (
                "the database is missing: make it with `fermata db create sqlite:///x`",
                "fermata db create sqlite:///x",
            ),
        ] {
            assert_eq!(mend_for(said), command);
        }
        let none = std::env::temp_dir().join("fermata-no-resolv");
        assert!(mend(name_servers(&none).remove(0)).contains("nameserver"));
    }
}
