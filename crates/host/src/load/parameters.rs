//! Every core parameter of 2.1 to 4.x: those that stand in `context/params.rs`, and here those that are read by others, have
//! another name today, or change nothing.

use crate::context::params::{DECLARED, declared};

/// What a core parameter does here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Works,
    /// Accepted, changes nothing; the text says why.
    None(&'static str),
    /// Another spelling of this one.
    Same(&'static str),
    /// Works; 3.x calls it so.
    Old(&'static str),
}

use Effect::{None as No, Old, Same, Works};

const MEMORY: Effect = No("memory is taken from the system as needed");
const BLOCKING: Effect = No("nothing blocks");
const REACTOR: Effect = No("workers wait in the runtime");
const SCALING: Effect = No("the number of workers is fixed");
const TRACE: Effect = No("there is no such report");
const ALL_SERVE: Effect = No("each worker serves streams too");
const MODULE_TLS: Effect = No("TLS is set up by the tls_mgm module");

/// By name.
const PARAMETERS: &[(&str, Effect)] = &[
    ("alias", Works),
    ("auto_scaling_cycle", SCALING),
    ("auto_scaling_profile", SCALING),
    ("avp_aliases", No("AVPs have names")),
    ("bin_children", No("there is no binary interface")),
    ("bin_listen", No("there is no binary interface")),
    ("children", Old("udp_workers")),
    ("db_version_table", No("`fermata db` looks after the layout of tables")),
    ("debug", Old("log_level")),
    ("dns", No("the Via check compares addresses only")),
    ("dst_blacklist", Works),
    ("event_pkg_threshold", MEMORY),
    ("event_shm_threshold", MEMORY),
    ("execdnsthreshold", Same("exec_dns_threshold")),
    ("execmsgthreshold", Same("exec_msg_threshold")),
    ("fork", No("there is one process with worker threads; `--daemon` puts it into the background")),
    ("gid", Same("group")),
    ("listen", Old("socket")),
    ("log_event_enabled", No("there is no log event")),
    ("log_event_level_filter", No("there is no log event")),
    ("log_facility", Old("syslog_facility")),
    ("log_json_buf_size", MEMORY),
    ("log_msg_buf_size", MEMORY),
    ("log_name", Old("syslog_name")),
    ("log_stdout", No("standard output is not closed")),
    ("mcast_loopback", No("there is no multicast")),
    ("mcast_ttl", No("there is no multicast")),
    ("mem-group", MEMORY),
    ("mem_dump", MEMORY),
    ("mem_log", MEMORY),
    ("mem_warming", MEMORY),
    ("mem_warming_enabled", Same("mem_warming")),
    ("mem_warming_pattern_file", MEMORY),
    ("mem_warming_percentage", MEMORY),
    ("memdump", MEMORY),
    ("memlog", MEMORY),
    ("pi_framework", No("there is no provisioning interface")),
    ("poll_method", REACTOR),
    ("pv_print_buf_size", MEMORY),
    ("restart_persistency_size", No("nothing is kept over a restart outside of databases")),
    ("rev_dns", No("the Via check compares addresses only")),
    ("shm_hash_split_percentage", MEMORY),
    ("shm_memlog_size", MEMORY),
    ("shm_secondary_hash_size", MEMORY),
    ("socket", Works),
    ("tcp_children", ALL_SERVE),
    ("tcp_listen", No("write socket=tcp:...")),
    ("tcp_listen_backlog", Same("tcp_socket_backlog")),
    ("tcp_parallel_read_on_workers", ALL_SERVE),
    ("tcp_poll_method", REACTOR),
    ("tcp_send_timeout", BLOCKING),
    ("tcp_threads", ALL_SERVE),
    ("tcp_threshold", BLOCKING),
    ("tcp_workers", ALL_SERVE),
    ("tcpthreshold", Same("tcp_threshold")),
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
    ("uid", Same("user")),
    ("workdir", Same("wdir")),
    ("worker_reactor_timeout", REACTOR),
    ("workerreactortimeout", Same("worker_reactor_timeout")),
    ("xlog_buf_size", MEMORY),
    ("xlog_default_level", Same("xlog_level")),
];

/// What a parameter does here; `None`: there is none of that name.
pub fn effect(name: &str) -> Option<Effect> {
    let other = PARAMETERS.binary_search_by(|(n, _)| (*n).cmp(name)).ok().map(|i| PARAMETERS[i].1);
    other.or_else(|| declared(name).map(|_| Works))
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().map(|(name, _)| *name).chain(DECLARED.iter().map(|one| one.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_names_what_exists() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, found) in PARAMETERS {
            assert!(declared(name).is_none(), "{name} stands in both lists");
            if let Same(other) | Old(other) = found {
                assert!(effect(other).is_some(), "{name} names {other}");
            }
        }
    }
}
