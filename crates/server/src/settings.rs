//! Core parameters and switches that concern the process: logging, workers, sockets' options.

use crate::cli::Run;
use crate::log::{self, Format};
use host::Shared;
use host::load::Globals;
use host::log::Consumer;
use host::params::{facility, type_of_service};
use net::UdpOptions;
use net::dns::{DnsOptions, Families, Naptr, SearchList};
use sip::Transport;
use std::path::PathBuf;
use std::time::Duration;

/// More threads than this help nobody, whoever asks for them.
const MAX_WORKERS: u16 = 256;

/// How many worker threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workers {
    pub count: u16,
    /// What the script asks for, where that is more.
    pub asked: Option<i64>,
}

/// The switch, whatever it says; else what the script asks for, and no more than there are cores: a script that was
/// written for processes asks for as many as may wait at the same time, and workers never wait.
pub fn workers(run: &Run, globals: &Globals, cores: u16) -> Workers {
    if let Some(count) = run.workers {
        return Workers { count: count.clamp(1, MAX_WORKERS), asked: None };
    }
    let cores = cores.clamp(1, MAX_WORKERS);
    let asked = globals.core.udp_workers;
    let count = asked.map_or(cores, |n| n.clamp(1, cores.into()) as u16);
    Workers { count, asked: asked.filter(|n| *n > i64::from(count)) }
}

/// Processors that this process may use.
pub fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(usize::from(MAX_WORKERS)) as u16)
}

/// `log_level` / `debug`, the number of `-d`, `debug_mode`.
pub fn log_level(run: &Run, globals: &Globals) -> i8 {
    let level = globals.core.log_level.clamp(-3, 4) as i8;
    if debug_mode(run, globals) {
        return 4;
    }
    level.saturating_add(run.debug.min(8) as i8).min(4)
}

/// `xlog_level`; since 3.0 it does not follow `log_level`. `None`: it does.
pub fn xlog_level(shared: &Shared) -> Option<i8> {
    let own = (shared.dialect == script::ast::Dialect::V4).then_some(host::log::Level::Notice as i64);
    let level = shared.globals.core.xlog_level.or(own)?;
    Some(level.clamp(-3, 4) as i8)
}

pub fn debug_mode(run: &Run, globals: &Globals) -> bool {
    run.debug_mode || globals.core.debug_mode
}

/// Where log lines go, and how they look. What the script does not decide goes to stderr: an operator at a terminal should
/// not have to ask for it.
pub fn logging(run: &Run, globals: &Globals) -> log::Settings {
    let core = &globals.core;
    let format = |name: &str| Format::parse(name).unwrap_or_default();
    // In 2.x there is one switch: stderr or syslog.
    let one = core.log_stderror;
    let to_stderr = core.stderror_enabled.or(one).unwrap_or(true);
    let to_syslog = core.syslog_enabled.unwrap_or(one == Some(false));
    let forced = run.stderr || debug_mode(run, globals);
    for (consumer, wanted, filter) in [
        (Consumer::Stderr, to_stderr || forced, core.stderror_level_filter),
        (Consumer::Syslog, to_syslog && !forced, core.syslog_level_filter),
    ] {
        consumer.set_muted(!wanted);
        consumer.set_filter(filter.clamp(-3, 4) as i8);
    }
    let prefix = core.log_prefix.clone().filter(|p| !p.is_empty());
    log::Settings {
        stderr: format(&core.stderror_log_format),
        syslog: format(&core.syslog_log_format),
        facility: facility(&core.syslog_facility).unwrap_or(24),
        name: core.syslog_name.clone(),
        prefix: prefix.map(|p| p + ":").unwrap_or_default(),
    }
}

/// How UDP sockets are opened.
pub fn udp_options(run: &Run, globals: &Globals) -> UdpOptions {
    let mut options = UdpOptions::default();
    let wanted = run.receive_buffer.or_else(|| globals.core.maxbuffer.and_then(|n| n.try_into().ok()));
    options.receive_buffer = wanted.unwrap_or(options.receive_buffer);
    options.tos = type_of_service(&globals.core.tos).filter(|tos| *tos != 0);
    options
}

/// How names are looked up (`dns_*`).
pub fn dns_options(shared: &Shared) -> DnsOptions {
    let core = &shared.globals.core;
    let count = |n: i64| usize::try_from(n).ok();
    let has = |v6: bool| shared.sockets.iter().any(|s| s.addr.is_ipv6() == v6);
    let order = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
    let listens = |t: &Transport| shared.sockets.iter().any(|s| s.transport == *t);
    DnsOptions {
        naptr: if core.dns_try_naptr { Naptr::Try } else { Naptr::Skip },
        families: match (has(false), has(true) && core.dns_try_ipv6) {
            (false, _) => Families::V6,
            (true, false) => Families::V4,
            (true, true) => Families::V4ThenV6,
        },
        transports: order.into_iter().filter(listens).collect(),
        retry_after: core.dns_retr_time.and_then(count).map(|s| Duration::from_secs(s as u64)),
        retries: core.dns_retr_no.and_then(count),
        servers: count(core.dns_servers_no).filter(|n| *n > 0),
        search: if core.dns_use_search_list { SearchList::Use } else { SearchList::Ignore },
    }
}

/// Where to work, whom to become: the switch, else the script.
pub struct Place {
    pub directory: Option<PathBuf>,
    pub chroot: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
}

pub fn place(run: &Run, globals: &Globals) -> Place {
    let core = &globals.core;
    Place {
        directory: run.directory.clone().or_else(|| core.wdir.as_ref().map(Into::into)),
        chroot: run.chroot.clone().or_else(|| core.chroot.as_ref().map(Into::into)),
        user: run.user.clone().or_else(|| core.user.clone()),
        group: run.group.clone().or_else(|| core.group.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::{Options, Sources};

    fn globals(text: &str) -> Globals {
        let (config, _) = script::parse_text("t.cfg", text, &mut Sources::default(), Options::default());
        Globals::read(&config, &mut Vec::new())
    }

    #[test]
    fn where_lines_go() {
        for (text, stderr, syslog) in [
            ("", true, false),
            ("log_stderror=no", false, true),
            ("log_stderror=yes", true, false),
            ("stderror_enabled=no\nsyslog_enabled=yes", false, true),
            ("stderror_enabled=yes\nsyslog_enabled=yes", true, true),
        ] {
            logging(&Run::default(), &globals(text));
            let written = |consumer: Consumer| !consumer.is_muted();
            assert_eq!((written(Consumer::Stderr), written(Consumer::Syslog)), (stderr, syslog), "{text}");
        }
    }

    #[test]
    fn numbers() {
        let run = |debug, workers| Run { debug, workers, ..Run::default() };
        assert_eq!(log_level(&run(0, None), &globals("")), 2);
        assert_eq!(log_level(&run(1, None), &globals("debug=3")), 4);
        assert_eq!(log_level(&run(0, None), &globals("log_level=-1")), -1);
        assert_eq!(log_level(&run(0, None), &globals("debug_mode=yes")), 4);
        let started = |switch, script: &str| {
            let Workers { count, asked } = workers(&run(0, switch), &globals(script), 4);
            (count, asked)
        };
        assert_eq!(started(None, ""), (4, None));
        assert_eq!(started(None, "children=8"), (4, Some(8)), "no more than cores");
        assert_eq!(started(None, "udp_workers=3"), (3, None));
        assert_eq!(started(None, "udp_workers=0"), (1, None));
        assert_eq!(started(Some(9), "udp_workers=2"), (9, None), "the switch means what it says");
    }
}
