//! Core parameters of a configuration: which there are, the sockets and the names of this server.

use crate::listen::{ListenHost, ListenSpec};
use crate::shared::{Listen, host_text};
use ahash::AHashMap;
use script::ast::{Config, Global, GlobalValue};
use script::{Diagnostic, nearest};
use sip::{SocketNames, Transport};
use std::net::SocketAddr;

/// A name of this server besides its sockets (`alias=`).
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    pub transport: Option<Transport>,
    pub host: String,
    /// 0: any
    pub port: u16,
}

/// Core parameters, read and checked.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    pub sockets: Vec<Listen>,
    pub aliases: Vec<Alias>,
    /// All others by name; the last one written wins.
    pub values: AHashMap<String, GlobalValue>,
}

/// What a core parameter does here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Works,
    /// Accepted, changes nothing; the text says why.
    None(&'static str),
}

use Effect::{None as No, Works};

const MEMORY: Effect = No("memory is taken from the system as needed");
const BLOCKING: Effect = No("nothing blocks");
const REACTOR: Effect = No("workers wait in the runtime");
const SCALING: Effect = No("the number of workers is fixed");
const TRACE: Effect = No("there is no such report");
const MODULE_TLS: Effect = No("TLS is set up by the tls_mgm module");

/// Every core parameter of 2.1 and 4.x. One list for the check, the warnings and the manual.
pub const PARAMETERS: &[(&str, Effect)] = &[
    ("abort_on_assert", Works),
    ("advertised_address", Works),
    ("advertised_port", Works),
    ("alias", Works),
    ("auto_aliases", No("only names that `alias` gives are this server's")),
    ("auto_scaling_cycle", SCALING),
    ("auto_scaling_profile", SCALING),
    ("avp_aliases", No("AVPs have names")),
    ("bin_children", No("there is no binary interface")),
    ("bin_listen", No("there is no binary interface")),
    ("check_via", Works),
    ("children", Works),
    ("chroot", Works),
    ("db_default_url", Works),
    ("db_max_async_connections", Works),
    ("db_max_connections", Works),
    ("db_max_queue", Works),
    ("db_version_table", Works),
    ("debug", Works),
    ("debug_mode", Works),
    ("disable_503_translation", Works),
    ("disable_core_dump", Works),
    ("disable_dns_blacklist", Works),
    ("disable_dns_failover", Works),
    ("disable_stateless_fwd", Works),
    ("disable_tcp", Works),
    ("disable_tls", Works),
    ("dns", No("the Via check compares addresses only")),
    ("dns_retr_no", Works),
    ("dns_retr_time", Works),
    ("dns_servers_no", Works),
    ("dns_try_ipv6", Works),
    ("dns_try_naptr", Works),
    ("dns_use_search_list", Works),
    ("dst_blacklist", No("static blacklists do not exist yet")),
    ("enable_asserts", Works),
    ("event_pkg_threshold", MEMORY),
    ("event_shm_threshold", MEMORY),
    ("exec_dns_threshold", Works),
    ("exec_msg_threshold", Works),
    ("fork", No("there is one process with worker threads; `--daemon` puts it into the background")),
    ("group", Works),
    ("listen", Works),
    ("log_event_enabled", No("there is no log event")),
    ("log_event_level_filter", No("there is no log event")),
    ("log_facility", Works),
    ("log_json_buf_size", MEMORY),
    ("log_level", Works),
    ("log_msg_buf_size", MEMORY),
    ("log_name", Works),
    ("log_prefix", Works),
    ("log_stderror", Works),
    ("log_stdout", No("standard output is not closed")),
    ("max_while_loops", Works),
    ("maxbuffer", Works),
    ("mcast_loopback", No("there is no multicast")),
    ("mcast_ttl", No("there is no multicast")),
    ("mem-group", MEMORY),
    ("mem_dump", MEMORY),
    ("mem_log", MEMORY),
    ("mem_warming", MEMORY),
    ("mem_warming_pattern_file", MEMORY),
    ("mem_warming_percentage", MEMORY),
    ("memdump", MEMORY),
    ("memlog", MEMORY),
    ("mhomed", Works),
    ("open_files_limit", Works),
    ("pi_framework", No("there is no provisioning interface")),
    ("poll_method", REACTOR),
    ("port", Works),
    ("pv_print_buf_size", MEMORY),
    ("query_buffer_size", Works),
    ("query_flush_time", Works),
    ("restart_persistency_cache_file", No("nothing is kept over a restart outside of databases")),
    ("restart_persistency_size", No("nothing is kept over a restart outside of databases")),
    ("rev_dns", No("the Via check compares addresses only")),
    ("server_header", Works),
    ("server_signature", Works),
    ("shm_hash_split_percentage", MEMORY),
    ("shm_memlog_size", MEMORY),
    ("shm_secondary_hash_size", MEMORY),
    ("sip_warning", Works),
    ("socket", Works),
    ("stderror_enabled", Works),
    ("stderror_level_filter", Works),
    ("stderror_log_format", Works),
    ("syslog_enabled", Works),
    ("syslog_facility", Works),
    ("syslog_level_filter", Works),
    ("syslog_log_format", Works),
    ("syslog_name", Works),
    ("tcp_accept_aliases", Works),
    ("tcp_children", No("each worker serves TCP too")),
    ("tcp_connect_timeout", Works),
    ("tcp_connection_lifetime", Works),
    ("tcp_keepalive", Works),
    ("tcp_keepcount", Works),
    ("tcp_keepidle", Works),
    ("tcp_keepinterval", Works),
    ("tcp_listen_backlog", Works),
    ("tcp_max_connections", Works),
    ("tcp_max_msg_time", Works),
    ("tcp_no_new_conn_bflag", Works),
    ("tcp_no_new_conn_rplflag", Works),
    ("tcp_poll_method", REACTOR),
    ("tcp_send_timeout", BLOCKING),
    ("tcp_socket_backlog", Works),
    ("tcp_threads", No("each worker serves TCP too")),
    ("tcp_threshold", BLOCKING),
    ("tcp_workers", No("each worker serves TCP too")),
    ("timer_partitions", No("each worker keeps its own timers")),
    ("timer_workers", No("each worker keeps its own timers")),
    ("tls_ca_list", MODULE_TLS),
    ("tls_certificate", MODULE_TLS),
    ("tls_ciphers_list", MODULE_TLS),
    ("tls_domain", MODULE_TLS),
    ("tls_handshake_timeout", MODULE_TLS),
    ("tls_log", TRACE),
    ("tls_method", MODULE_TLS),
    ("tls_port_no", MODULE_TLS),
    ("tls_private_key", MODULE_TLS),
    ("tls_require_certificate", MODULE_TLS),
    ("tls_require_client_certificate", MODULE_TLS),
    ("tls_send_timeout", MODULE_TLS),
    ("tls_verify", MODULE_TLS),
    ("tls_verify_client", MODULE_TLS),
    ("tls_verify_server", MODULE_TLS),
    ("tos", Works),
    ("udp_workers", Works),
    ("user", Works),
    ("user_agent_header", Works),
    ("wdir", Works),
    ("worker_reactor_timeout", REACTOR),
    ("xlog_buf_size", MEMORY),
    ("xlog_force_color", No("lines are not coloured")),
    ("xlog_level", Works),
    ("xlog_print_level", Works),
];

impl Globals {
    /// Reads the global part of a configuration. Sockets must name addresses: whoever can look up
    /// interfaces and host names has replaced those.
    pub fn read(config: &Config, diagnostics: &mut Vec<Diagnostic>) -> Globals {
        let mut globals = Globals::default();
        for global in &config.globals {
            let name = String::from_utf8_lossy(&global.name).into_owned();
            match PARAMETERS.iter().find(|(n, _)| *n == name) {
                Some((_, Works)) => {}
                Some((_, No(why))) => {
                    let text = format!("{name} has no effect here: {why}");
                    diagnostics.push(Diagnostic::warning(global.loc, text));
                }
                None => {
                    let error = Diagnostic::error(global.loc, format!("there is no parameter `{name}`"));
                    diagnostics.push(match nearest(&name, PARAMETERS.iter().map(|(n, _)| *n)) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error,
                    });
                }
            }
            globals.values.insert(name, global.value.clone());
        }
        for global in &config.globals {
            let Some(text) = text_of(&global.value) else { continue };
            match &global.name[..] {
                b"socket" | b"listen" => globals.add_socket(&text, global, diagnostics),
                b"alias" => globals.add_aliases(&text, global, diagnostics),
                _ => {}
            }
        }
        globals.advertise();
        globals
    }

    fn add_socket(&mut self, text: &str, global: &Global, diagnostics: &mut Vec<Diagnostic>) {
        let mut refuse = |text: String| diagnostics.push(Diagnostic::error(global.loc, text));
        let spec = match ListenSpec::parse(text) {
            Ok(spec) => spec,
            Err(e) => return refuse(format!("cannot listen on {text}: {e}")),
        };
        let protocol = spec.protocol.as_deref().unwrap_or("udp");
        let Some(transport) = Transport::parse(protocol.as_bytes()) else {
            let text = format!("nothing listens on {text}: there is no {protocol} here");
            return diagnostics.push(Diagnostic::warning(global.loc, text));
        };
        let ListenHost::Ip(ip) = spec.host else {
            return refuse(format!("cannot listen on {text}: this needs an address"));
        };
        if !spec.without_effect.is_empty() {
            let text = format!("has no effect here: {}", spec.without_effect.join(", "));
            diagnostics.push(Diagnostic::warning(global.loc, text));
        }
        let default = self.int(&["port"]).and_then(|p| u16::try_from(p).ok());
        let default = default.filter(|_| transport != Transport::Tls).unwrap_or(transport.default_port());
        let addr = SocketAddr::new(ip, spec.ports.first().copied().unwrap_or(default));
        if self.sockets.iter().any(|s| s.addr == addr && s.transport == transport) {
            return diagnostics
                .push(Diagnostic::warning(global.loc, format!("{text} is listened on already")));
        }
        let (host, port) = match &spec.advertised {
            Some((host, port)) => (host.clone(), port.unwrap_or(addr.port())),
            None => (host_text(addr), addr.port()),
        };
        self.sockets.push(Listen {
            transport,
            addr,
            names: SocketNames { host: host.into(), port, transport: transport.upper() },
            advertised: spec.advertised.is_some(),
            tag: spec.tag,
            text: text.to_owned(),
        });
    }

    /// `alias = udp:host:port`, `alias = "host"`, several in a row in 2.x.
    fn add_aliases(&mut self, text: &str, global: &Global, diagnostics: &mut Vec<Diagnostic>) {
        for word in text.split_whitespace().filter(|w| *w != "accept_subdomain") {
            match ListenSpec::parse(word) {
                Ok(spec) => {
                    let host = match spec.host {
                        ListenHost::Name(name) => name,
                        ListenHost::Ip(ip) => host_text(SocketAddr::new(ip, 0)),
                        ListenHost::All => "*".to_owned(),
                    };
                    let transport = spec.protocol.and_then(|p| Transport::parse(p.as_bytes()));
                    self.aliases.push(Alias {
                        transport,
                        host,
                        port: spec.ports.first().copied().unwrap_or(0),
                    });
                }
                Err(e) => diagnostics.push(Diagnostic::error(global.loc, format!("bad alias {word}: {e}"))),
            }
        }
        if text.contains("accept_subdomain") {
            diagnostics.push(Diagnostic::warning(global.loc, "accept_subdomain has no effect here yet"));
        }
    }

    /// `advertised_address`, `advertised_port`: for sockets without an `as` of their own.
    fn advertise(&mut self) {
        let host = self.text(&["advertised_address"]).filter(|h| !h.is_empty());
        let port = self.int(&["advertised_port"]).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
        for socket in self.sockets.iter_mut().filter(|s| !s.advertised) {
            if let Some(host) = &host {
                socket.names.host = host.clone().into();
                socket.advertised = true;
            }
            if let Some(port) = port {
                socket.names.port = port;
                socket.advertised = true;
            }
        }
    }

    pub fn int(&self, names: &[&str]) -> Option<i64> {
        names.iter().find_map(|n| match self.values.get(*n)? {
            GlobalValue::Int(n) => Some(*n),
            GlobalValue::Bool(b) => Some(i64::from(*b)),
            GlobalValue::Text(t) | GlobalValue::Word(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
        })
    }

    pub fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|n| match self.values.get(*n)? {
            GlobalValue::Text(t) | GlobalValue::Word(t) => Some(String::from_utf8_lossy(t).into_owned()),
            GlobalValue::Int(n) => Some(n.to_string()),
            GlobalValue::Bool(b) => Some(if *b { "yes" } else { "no" }.to_string()),
        })
    }

    pub fn flag(&self, names: &[&str]) -> Option<bool> {
        self.int(names).map(|n| n != 0)
    }
}

fn text_of(value: &GlobalValue) -> Option<String> {
    match value {
        GlobalValue::Text(t) | GlobalValue::Word(t) => Some(String::from_utf8_lossy(t).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::{Options, Sources};

    fn check(text: &str, expected: &str) {
        let (config, _) = script::parse_text("t.cfg", text, &mut Sources::default(), Options::default());
        let mut diagnostics = Vec::new();
        let globals = Globals::read(&config, &mut diagnostics);
        let mut got: Vec<String> = Vec::new();
        for s in &globals.sockets {
            let host = String::from_utf8_lossy(&s.names.host);
            got.push(format!("{} {} as {host}:{}", s.names.transport, s.addr, s.names.port));
        }
        got.extend(globals.aliases.iter().map(|a| format!("alias {:?} {} {}", a.transport, a.host, a.port)));
        got.extend(diagnostics.iter().map(|d| match &d.hint {
            Some(hint) => format!("{} ({hint})", d.message),
            None => d.message.clone(),
        }));
        assert_eq!(got.join("\n"), expected, "{text}");
    }

    #[test]
    fn sockets_and_names() {
        check("socket=udp:127.0.0.1:5070", "UDP 127.0.0.1:5070 as 127.0.0.1:5070");
        check("listen=udp:10.0.0.1\nport=5080", "UDP 10.0.0.1:5080 as 10.0.0.1:5080");
        check("socket=tls:[2001:db8::1]", "TLS [2001:db8::1]:5061 as [2001:db8::1]:5061");
        check("socket=udp:10.0.0.1:5060 as gw.example:5090", "UDP 10.0.0.1:5060 as gw.example:5090");
        check(
            "advertised_address=\"gw.example\"\nadvertised_port=5090\nsocket=udp:10.0.0.1:5060",
            "UDP 10.0.0.1:5060 as gw.example:5090",
        );
        check("socket=udp:nowhere:5060", "cannot listen on udp:nowhere:5060: this needs an address");
        check("socket=bin:127.0.0.1:5555", "nothing listens on bin:127.0.0.1:5555: there is no bin here");
        check("alias=udp:edge.example.net:5060", "alias Some(Udp) edge.example.net 5060");
        check("alias=\"my.alias\"", "alias None my.alias 0");
    }

    #[test]
    fn unknown_and_idle_parameters() {
        check("udp_worker=3", "there is no parameter `udp_worker` (did you mean `udp_workers`?)");
        check("poll_method=epoll", "poll_method has no effect here: workers wait in the runtime");
        assert!(PARAMETERS.is_sorted_by_key(|(name, _)| *name));
    }
}
