//! Core parameters that have an effect: one list of their types, units, ranges, defaults and meanings. The checks, the
//! fields that other code reads and the manual come from it; names without effect stand in `load/parameters.rs`.

use script::ast::GlobalValue;

/// What a value may be besides its type.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    Any,
    /// From the first to the last.
    Range(i64, i64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// What this function takes; the text says what that is.
    Such(fn(&str) -> bool, &'static str),
}

/// A type of core parameters.
pub trait ParamType: Sized {
    /// For messages: "an integer".
    const WHAT: &'static str;
    fn read(value: &GlobalValue) -> Option<Self>;
    /// The number and the text that `Allowed` is about.
    fn shown(&self) -> (Option<i64>, Option<&str>) {
        (None, None)
    }
}

impl ParamType for bool {
    const WHAT: &'static str = "yes or no";
    fn read(value: &GlobalValue) -> Option<bool> {
        i64::read(value).map(|n| n != 0)
    }
}

impl ParamType for i64 {
    const WHAT: &'static str = "an integer";
    fn read(value: &GlobalValue) -> Option<i64> {
        match value {
            GlobalValue::Int(n) => Some(*n),
            GlobalValue::Bool(b) => Some(i64::from(*b)),
            GlobalValue::Text(t) | GlobalValue::Word(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
        }
    }
    fn shown(&self) -> (Option<i64>, Option<&str>) {
        (Some(*self), None)
    }
}

impl ParamType for String {
    const WHAT: &'static str = "a text";
    fn read(value: &GlobalValue) -> Option<String> {
        Some(match value {
            GlobalValue::Text(t) | GlobalValue::Word(t) => String::from_utf8_lossy(t).into_owned(),
            GlobalValue::Int(n) => n.to_string(),
            GlobalValue::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
        })
    }
    fn shown(&self) -> (Option<i64>, Option<&str>) {
        (None, Some(self))
    }
}

impl<T: ParamType> ParamType for Option<T> {
    const WHAT: &'static str = T::WHAT;
    fn read(value: &GlobalValue) -> Option<Option<T>> {
        T::read(value).map(Some)
    }
    fn shown(&self) -> (Option<i64>, Option<&str>) {
        self.as_ref().map_or((None, None), T::shown)
    }
}

/// One core parameter.
pub struct Declared {
    pub name: &'static str,
    /// "yes or no", "an integer", "a text"
    pub what: &'static str,
    pub allowed: Allowed,
    /// "s", "ms", "µs"; empty: none.
    pub unit: &'static str,
    /// As a configuration would write it.
    pub default: &'static str,
    pub help: &'static str,
    set: fn(&mut CoreParams, &GlobalValue) -> bool,
}

impl Declared {
    /// What the parameter takes, for messages: "an integer from 1 to 65535 (ms)".
    pub fn takes(&self) -> String {
        let mut takes = match self.allowed {
            Allowed::Any => self.what.to_owned(),
            Allowed::Range(first, i64::MAX) => format!("{} from {first}", self.what),
            Allowed::Range(first, last) => format!("{} from {first} to {last}", self.what),
            Allowed::Words(words) => format!("one of {}", words.join(", ")),
            Allowed::Such(_, what) => what.to_owned(),
        };
        if !self.unit.is_empty() {
            takes += &format!(" ({})", self.unit);
        }
        takes
    }

    /// Sets the field; the error is what a user should read.
    pub fn set(&self, params: &mut CoreParams, value: &GlobalValue) -> Result<(), String> {
        if (self.set)(params, value) { Ok(()) } else { Err(format!("{} takes {}", self.name, self.takes())) }
    }
}

fn fits<T: ParamType>(value: &T, allowed: Allowed) -> bool {
    let (number, text) = value.shown();
    match allowed {
        Allowed::Any => true,
        Allowed::Range(first, last) => number.is_none_or(|n| (first..=last).contains(&n)),
        Allowed::Words(words) => text.is_none_or(|text| words.contains(&text)),
        Allowed::Such(check, _) => text.is_none_or(check),
    }
}

macro_rules! declare {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr, $shown:literal, $allowed:expr, $unit:literal;)*) => {
        /// Values of the core parameters that have an effect, checked.
        #[derive(Clone, Debug)]
        pub struct CoreParams {
            $($(#[doc = $help])+ pub $name: $type,)*
        }

        impl Default for CoreParams {
            fn default() -> CoreParams {
                CoreParams { $($name: $default,)* }
            }
        }

        /// By name.
        pub const DECLARED: &[Declared] = &[$(Declared {
            name: stringify!($name),
            what: <$type as ParamType>::WHAT,
            allowed: $allowed,
            unit: $unit,
            default: $shown,
            help: concat!($($help),+),
            set: |params, value| match <$type as ParamType>::read(value).filter(|value| fits(value, $allowed)) {
                Some(value) => {
                    params.$name = value;
                    true
                }
                None => false,
            },
        },)*];
    };
}

use Allowed::{Any, Range, Such, Words};

const COUNT: Allowed = Range(0, i64::MAX);
const PORT: Allowed = Range(0, 65_535);
const FORMATS: Allowed = Words(&["plain_text", "json", "json_cee"]);
/// Beyond -3 to 4 they are taken as the nearest.
const LEVEL: Allowed = Range(-1000, 1000);

declare! {
    /// An assert() that fails ends the server.
    abort_on_assert: bool = false, "no", Any, "";
    /// Host that sockets without an `as` of their own write into messages.
    advertised_address: Option<String> = None, "", Any, "";
    /// The same for the port; 0: its own.
    advertised_port: i64 = 0, "0", PORT, "";
    /// The names of the machine's addresses are names of this server.
    auto_aliases: bool = false, "no", Any, "";
    /// A reply is sent on only when the topmost Via is this server's by its address.
    check_via: bool = false, "no", Any, "";
    /// Folder that becomes the root of the file system.
    chroot: Option<String> = None, "", Any, "";
    /// Database of modules that name none.
    db_default_url: Option<String> = None, "", Any, "";
    /// Connections of a worker to one database; without it they grow with need.
    db_max_async_connections: Option<i64> = None, "", COUNT, "";
    /// Connections of all workers to one database; each worker may have one whatever this says.
    db_max_connections: Option<i64> = None, "", COUNT, "";
    /// Queries that may wait for a connection.
    db_max_queue: i64 = 5000, "5000", COUNT, "";
    /// One query of a script may hold several statements.
    db_multi_statements: bool = false, "no", Any, "";
    /// Everything is logged, to stderr.
    debug_mode: bool = false, "no", Any, "";
    /// A 503 from downstream goes upstream as it is, not as 500.
    disable_503_translation: bool = false, "no", Any, "";
    /// A crash leaves no core file.
    disable_core_dump: bool = false, "no", Any, "";
    /// Destinations that gave no answer or said 503 are not remembered; with `no` the blacklist `dns` keeps them for 4
    /// minutes, and no request goes there.
    disable_dns_blacklist: bool = true, "yes", Any, "";
    /// A branch tries one address only.
    disable_dns_failover: bool = false, "no", Any, "";
    /// Replies of no transaction are dropped; without it the use of forward() decides.
    disable_stateless_fwd: Option<bool> = None, "", Any, "";
    /// Sockets of TCP, TLS and WebSocket do not listen.
    disable_tcp: bool = false, "no", Any, "";
    /// Sockets of TLS do not listen.
    disable_tls: bool = false, "no", Any, "";
    /// Times that a question to a name server is repeated.
    dns_retr_no: Option<i64> = None, "", COUNT, "";
    /// Time until a question to a name server is repeated.
    dns_retr_time: Option<i64> = None, "", COUNT, "s";
    /// Name servers that are used; 0: all of resolv.conf.
    dns_servers_no: i64 = 0, "0", COUNT, "";
    /// AAAA records are asked for where the server listens on IPv6.
    dns_try_ipv6: bool = false, "no", Any, "";
    /// NAPTR records choose the transport.
    dns_try_naptr: bool = true, "yes", Any, "";
    /// Short names are tried with the domains of resolv.conf.
    dns_use_search_list: bool = true, "yes", Any, "";
    /// assert() is checked.
    enable_asserts: bool = false, "no", Any, "";
    /// Look-ups of names that take longer are logged; 0: none.
    exec_dns_threshold: i64 = 0, "0", COUNT, "µs";
    /// Operations and messages that take longer are logged; 0: none.
    exec_msg_threshold: i64 = 0, "0", COUNT, "µs";
    /// Group to become.
    group: Option<String> = None, "", Any, "";
    /// How much is logged: -3 (alerts) to 4 (everything).
    log_level: i64 = 2, "2", LEVEL, "";
    /// Stands before every log line.
    log_prefix: Option<String> = None, "", Any, "";
    /// 2.x: lines go to stderr, else to syslog.
    log_stderror: Option<bool> = None, "", Any, "";
    /// Turns after which a loop of a script ends.
    max_while_loops: Option<i64> = None, "", COUNT, "";
    /// Receive buffer of a UDP socket.
    maxbuffer: Option<i64> = None, "", COUNT, "bytes";
    /// The route to the destination chooses the socket.
    mhomed: bool = false, "no", Any, "";
    /// Files that the process may have open; 0: as it is.
    open_files_limit: i64 = 0, "0", COUNT, "";
    /// New requests that waited longer for their turn are refused (503) while a worker has more to do than it can; 0: never.
    overload_delay: i64 = 100, "100", Range(0, 60_000), "ms";
    /// So long messages have to be that late, without a break, before a worker counts as overloaded.
    overload_time: i64 = 300, "300", Range(0, 60_000), "ms";
    /// Port of sockets without one, but for TLS.
    port: Option<i64> = None, "", PORT, "";
    /// Rows of one table that are inserted together; 0: each on its own.
    query_buffer_size: i64 = 0, "0", COUNT, "";
    /// Longest that such a row waits; 0: the default.
    query_flush_time: i64 = 0, "0", COUNT, "s";
    /// Replies go to the address in the Via.
    reply_to_via: bool = false, "no", Any, "";
    /// Where modules keep what outlives a restart.
    restart_persistency_cache_file: String = ".restart_persistency.cache".into(), ".restart_persistency.cache", Any, "";
    /// Server header of replies made here.
    server_header: Option<String> = None, "", Any, "";
    /// Messages made here name the server.
    server_signature: bool = true, "yes", Any, "";
    /// Replies made here explain themselves in a Warning header.
    sip_warning: bool = false, "no", Any, "";
    /// Lines go to stderr.
    stderror_enabled: Option<bool> = None, "", Any, "";
    /// Lines of higher levels do not go to stderr; 0: no filter.
    stderror_level_filter: i64 = 0, "0", LEVEL, "";
    /// How lines to stderr look.
    stderror_log_format: String = "plain_text".into(), "plain_text", FORMATS, "";
    /// Lines go to syslog.
    syslog_enabled: Option<bool> = None, "", Any, "";
    /// The facility of syslog.
    syslog_facility: String = "LOG_DAEMON".into(), "LOG_DAEMON", Such(|name| facility(name).is_some(), "a facility of syslog (LOG_DAEMON, LOG_LOCAL0 ...)"), "";
    /// Lines of higher levels do not go to syslog; 0: no filter.
    syslog_level_filter: i64 = 0, "0", LEVEL, "";
    /// How lines to syslog look.
    syslog_log_format: String = "plain_text".into(), "plain_text", FORMATS, "";
    /// The name in lines to syslog.
    syslog_name: String = "fermata".into(), "fermata", Any, "";
    /// `;alias` in a Via is believed (RFC 5923).
    tcp_accept_aliases: bool = false, "no", Any, "";
    /// Longest that a connection may take to be made.
    tcp_connect_timeout: Option<i64> = None, "", COUNT, "ms";
    /// Time until an idle connection ends.
    tcp_connection_lifetime: Option<i64> = None, "", COUNT, "s";
    /// Idle connections are probed.
    tcp_keepalive: bool = true, "yes", Any, "";
    /// Probes without an answer after which a connection ends; 0: as the system says.
    tcp_keepcount: i64 = 0, "0", COUNT, "";
    /// Time until the first probe; 0: as the system says.
    tcp_keepidle: i64 = 0, "0", COUNT, "s";
    /// Time between probes; 0: as the system says.
    tcp_keepinterval: i64 = 0, "0", COUNT, "s";
    /// Connections of clients; further ones are refused.
    tcp_max_connections: Option<i64> = None, "", COUNT, "";
    /// Longest that a message may take to arrive whole.
    tcp_max_msg_time: Option<i64> = None, "", COUNT, "s";
    /// Branch flag: the branch takes a connection that exists, or fails.
    tcp_no_new_conn_bflag: Option<String> = None, "", Any, "";
    /// Message flag: its replies take a connection that exists, or fail.
    tcp_no_new_conn_rplflag: Option<String> = None, "", Any, "";
    /// Connections that may wait to be accepted.
    tcp_socket_backlog: Option<i64> = None, "", COUNT, "";
    /// Type of service of packets: a number or IPTOS_LOWDELAY, IPTOS_THROUGHPUT, IPTOS_RELIABILITY, IPTOS_MINCOST.
    tos: String = "IPTOS_LOWDELAY".into(), "IPTOS_LOWDELAY", Such(|text| type_of_service(text).is_some(), "a number from 0 to 255 or IPTOS_LOWDELAY, IPTOS_THROUGHPUT, IPTOS_RELIABILITY, IPTOS_MINCOST"), "";
    /// Requests that t_relay() would send over UDP go over TCP when they are longer (RFC 3261 §18.1.1 says 1300) and there is
    /// a TCP socket; over UDP when the next hop takes no TCP. 0: never. Fermata's own.
    udp_mtu: i64 = 0, "0", COUNT, "bytes";
    /// Worker threads; without it as many as there are cores.
    udp_workers: Option<i64> = None, "", COUNT, "";
    /// User to become.
    user: Option<String> = None, "", Any, "";
    /// User-Agent header of requests made here.
    user_agent_header: Option<String> = None, "", Any, "";
    /// Folder to work in.
    wdir: Option<String> = None, "", Any, "";
    /// xlog() prints in colours.
    xlog_force_color: bool = false, "no", Any, "";
    /// Level up to which xlog() writes lines.
    xlog_level: Option<i64> = None, "", LEVEL, "";
    /// Level of an xlog() that names none.
    xlog_print_level: Option<i64> = None, "", LEVEL, "";
}

/// The parameter of a name.
pub fn declared(name: &str) -> Option<&'static Declared> {
    DECLARED.binary_search_by(|one| one.name.cmp(name)).ok().map(|at| &DECLARED[at])
}

/// The number of a facility of syslog (RFC 5424 §6.2.1, times 8), by its name in `syslog.h`.
pub fn facility(name: &str) -> Option<u8> {
    let name = name.strip_prefix("LOG_").unwrap_or(name);
    let number = match name {
        "KERN" => 0,
        "USER" => 1,
        "MAIL" => 2,
        "DAEMON" => 3,
        "AUTH" => 4,
        "SYSLOG" => 5,
        "LPR" => 6,
        "NEWS" => 7,
        "UUCP" => 8,
        "CRON" => 9,
        "AUTHPRIV" => 10,
        "FTP" => 11,
        local => 16 + local.strip_prefix("LOCAL")?.parse::<u8>().ok().filter(|n| *n < 8)?,
    };
    Some(number << 3)
}

/// The byte that `tos` means.
pub fn type_of_service(text: &str) -> Option<u8> {
    match text.trim() {
        "IPTOS_LOWDELAY" => Some(0x10),
        "IPTOS_THROUGHPUT" => Some(0x08),
        "IPTOS_RELIABILITY" => Some(0x04),
        "IPTOS_MINCOST" | "IPTOS_LOWCOST" => Some(0x02),
        number => match number.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_its_defaults_are_what_it_says() {
        assert!(DECLARED.is_sorted_by(|a, b| a.name < b.name));
        for one in DECLARED.iter().filter(|one| !one.default.is_empty()) {
            let value = match one.default {
                "yes" => GlobalValue::Bool(true),
                "no" => GlobalValue::Bool(false),
                text => GlobalValue::Text(text.to_owned().into()),
            };
            let mut params = CoreParams::default();
            assert_eq!(one.set(&mut params, &value), Ok(()), "{}", one.name);
            assert_eq!(format!("{params:?}"), format!("{:?}", CoreParams::default()), "{}", one.name);
        }
    }

    #[test]
    fn values_are_checked() {
        let check = |name: &str, value: GlobalValue, expected: Result<(), &str>| {
            let found = declared(name).expect(name).set(&mut CoreParams::default(), &value);
            assert_eq!(found, expected.map_err(str::to_owned), "{name} = {value:?}");
        };
        let text = |text: &'static str| GlobalValue::Text(text.into());
        check("port", GlobalValue::Int(5060), Ok(()));
        check("port", GlobalValue::Int(70_000), Err("port takes an integer from 0 to 65535"));
        check("port", text("5060"), Ok(()));
        check("dns_retr_time", GlobalValue::Int(-1), Err("dns_retr_time takes an integer from 0 (s)"));
        check("mhomed", GlobalValue::Bool(true), Ok(()));
        check("mhomed", text("maybe"), Err("mhomed takes yes or no"));
        check("tos", GlobalValue::Int(0xb8), Ok(()));
        check("syslog_facility", text("LOG_LOCAL7"), Ok(()));
        let formats = Err("stderror_log_format takes one of plain_text, json, json_cee");
        check("stderror_log_format", text("xml"), formats);
    }

    #[test]
    fn types_of_service() {
        for (text, byte) in [("IPTOS_LOWDELAY", Some(16)), ("0xb8", Some(184)), ("9", Some(9)), ("x", None)] {
            assert_eq!(type_of_service(text), byte, "{text}");
        }
    }
}
