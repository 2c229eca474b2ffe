//! Core parameters of a configuration: which there are, the sockets and the names of this server.

pub use crate::context::globals::{Alias, Globals};
use crate::context::params::declared;
use crate::listen::{ListenHost, ListenSpec};
use crate::parameters::{self, Effect, effect};
use crate::shared::{Listen, bracketed, host_text};
use crate::tm::blacklist::{Blacklist, Blacklists};
use script::ast::{Config, Global, GlobalValue};
use script::{Diagnostic, Loc, nearest};
use sip::{SocketNames, Transport};
use std::net::SocketAddr;

impl Globals {
    /// Reads the global part of a configuration. Sockets must name addresses: whoever can look up
    /// interfaces and host names has replaced those.
    pub fn read(config: &Config, diagnostics: &mut Vec<Diagnostic>) -> Globals {
        let mut globals = Globals::default();
        for global in &config.globals {
            let name = String::from_utf8_lossy(&global.name).into_owned();
            let again = !globals.written.insert(name.clone());
            match effect(&name) {
                Some(Effect::Works) => globals.set(&name, global, diagnostics),
                Some(Effect::None(_)) if again => {}
                Some(Effect::None(why)) => {
                    let text = format!("{name} has no effect here: {why}");
                    diagnostics.push(Diagnostic::warning(global.loc, text));
                }
                // Of two spellings that are both written, that of today counts.
                Some(Effect::Same(of_today) | Effect::Old(of_today)) => {
                    if !config.globals.iter().any(|other| other.name == of_today.as_bytes()) {
                        globals.set(of_today, global, diagnostics);
                    }
                }
                None => {
                    let error = Diagnostic::error(global.loc, format!("there is no parameter `{name}`"));
                    diagnostics.push(match nearest(&name, parameters::names()) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error,
                    });
                }
            }
        }
        for global in &config.globals {
            let Some(text) = text_of(&global.value) else { continue };
            match &global.name[..] {
                b"socket" | b"listen" if globals.add_other(&text, config) => {}
                b"socket" | b"listen" => globals.add_socket(&text, global, diagnostics),
                b"alias" => globals.add_aliases(&text, global, diagnostics),
                _ => {}
            }
        }
        globals.without_disabled();
        globals.advertise();
        globals
    }

    /// `disable_tcp`, `disable_tls`: sockets that are written all the same do not listen.
    fn without_disabled(&mut self) {
        let (tcp, tls) = (self.core.disable_tcp, self.core.disable_tls);
        self.sockets.retain(|socket| match socket.transport {
            sip::Transport::Udp => true,
            sip::Transport::Tls => !tcp && !tls,
            _ => !tcp,
        });
    }

    /// Sets the field of a parameter; what has none is read by others.
    fn set(&mut self, name: &str, global: &Global, diagnostics: &mut Vec<Diagnostic>) {
        let Some(declared) = declared(name) else { return };
        if let Err(error) = declared.set(&mut self.core, &global.value) {
            let error = Diagnostic::error(global.loc, error);
            diagnostics.push(match declared.default {
                "" => error.hint("without it nothing is set"),
                default => error.hint(format!("the default is {default}")),
            });
        }
    }

    /// A socket that a module listens on itself, if the configuration loads it.
    fn add_other(&mut self, text: &str, config: &Config) -> bool {
        let Ok(spec) = ListenSpec::parse(text) else { return false };
        let (Some(protocol), ListenHost::Ip(ip)) = (spec.protocol, spec.host) else { return false };
        let module = match protocol.as_str() {
            "hep_udp" | "hep_tcp" => "proto_hep",
            _ => return false,
        };
        if !config.modules.iter().any(|load| load.name == module.as_bytes()) {
            return false;
        }
        let port = spec.ports.first().copied().unwrap_or(0);
        self.other_sockets.push((protocol, SocketAddr::new(ip, port)));
        true
    }

    fn add_socket(&mut self, text: &str, global: &Global, diagnostics: &mut Vec<Diagnostic>) {
        let mut refuse = |text: String| diagnostics.push(Diagnostic::error(global.loc, text));
        let spec = match ListenSpec::parse(text) {
            Ok(spec) => spec,
            Err(e) => return refuse(format!("cannot listen on {text}: {e}")),
        };
        let protocol = spec.protocol.as_deref().unwrap_or("udp");
        let transport = Transport::parse(protocol.as_bytes()).filter(|t| *t != Transport::Sctp);
        let Some(transport) = transport else {
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
        let default = self.core.port.and_then(|p| u16::try_from(p).ok());
        let default = default.filter(|_| transport != Transport::Tls).unwrap_or(transport.default_port());
        let addr = SocketAddr::new(ip, spec.ports.first().copied().unwrap_or(default));
        if self.sockets.iter().any(|s| s.addr == addr && s.transport == transport) {
            return diagnostics
                .push(Diagnostic::warning(global.loc, format!("{text} is listened on already")));
        }
        let (host, port) = match &spec.advertised {
            Some((host, port)) => (bracketed(host), port.unwrap_or(addr.port())),
            None => (host_text(addr), addr.port()),
        };
        if spec.accept_subdomain {
            let (host, port) = (host.clone(), port);
            self.aliases.push(Alias { transport: Some(transport), host, port, subdomains: true });
        }
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
        let subdomains = text.split_whitespace().any(|w| w == "accept_subdomain");
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
                        subdomains,
                    });
                }
                Err(e) => diagnostics.push(Diagnostic::error(global.loc, format!("bad alias {word}: {e}"))),
            }
        }
    }

    /// `advertised_address`, `advertised_port`: for sockets without an `as` of their own.
    fn advertise(&mut self) {
        let host = self.core.advertised_address.clone().filter(|host| !host.is_empty());
        let port = u16::try_from(self.core.advertised_port).ok().filter(|port| *port != 0);
        for socket in self.sockets.iter_mut().filter(|s| !s.advertised) {
            if let Some(host) = &host {
                socket.names.host = bracketed(host).into();
                socket.advertised = true;
            }
            if let Some(port) = port {
                socket.names.port = port;
                socket.advertised = true;
            }
        }
    }
}

/// The lists of `dst_blacklist`, and that of destinations that failed if they are to be remembered.
pub(super) fn blacklists(config: &Config, remembers: bool, diagnostics: &mut Vec<Diagnostic>) -> Blacklists {
    let mut blacklists = Blacklists::default();
    for global in config.globals.iter().filter(|g| &g.name[..] == b"dst_blacklist") {
        let Some(text) = text_of(&global.value) else { continue };
        match Blacklist::parse(&text) {
            Ok(list) => {
                if !blacklists.push(list) {
                    let text = "this blacklist exists already, or there are more than 64";
                    diagnostics.push(Diagnostic::error(global.loc, text));
                }
            }
            Err(e) => diagnostics.push(Diagnostic::error(global.loc, format!("bad blacklist: {e}"))),
        }
    }
    if remembers && !blacklists.push(Blacklist::of_failed()) {
        let text =
            "disable_dns_blacklist = no makes the blacklist dns: there is one already, or there are 64";
        diagnostics
            .push(Diagnostic::error(config.globals.first().map_or_else(Loc::default, |g| g.loc), text));
    }
    blacklists
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
        check("socket=udp:[::1]:5060 as [2001:db8::5]:5090", "UDP [::1]:5060 as [2001:db8::5]:5090");
        check("socket=udp:[::1]:5060 as 2001:db8::5", "UDP [::1]:5060 as [2001:db8::5]:5060");
        check(
            "advertised_address=2001:db8::5\nsocket=udp:[::1]:5060",
            "UDP [::1]:5060 as [2001:db8::5]:5060",
        );
        check("socket=udp:nowhere:5060", "cannot listen on udp:nowhere:5060: this needs an address");
        check("socket=bin:127.0.0.1:5555", "nothing listens on bin:127.0.0.1:5555: there is no bin here");
        check("alias=udp:edge.example.net:5060", "alias Some(Udp) edge.example.net 5060");
        check("alias=\"my.alias\"", "alias None my.alias 0");
    }

    #[test]
    fn unknown_and_idle_parameters() {
        check("udp_worker=3", "there is no parameter `udp_worker` (did you mean `udp_workers`?)");
        check("port=70000", "port takes an integer from 0 to 65535 (without it nothing is set)");
        check("debug=\"loud\"", "log_level takes an integer from -1000 to 1000 (the default is 2)");
        check("poll_method=epoll", "poll_method has no effect here: workers wait in the runtime");
    }
}
