//! Every core parameter of 2.1 to 4.x: one list for the check, the warnings and the manual.

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
pub const PARAMETERS: &[(&str, Effect)] = &[
    ("abort_on_assert", Works),
    ("advertised_address", Works),
    ("advertised_port", Works),
    ("alias", Works),
    ("auto_aliases", Works),
    ("auto_scaling_cycle", SCALING),
    ("auto_scaling_profile", SCALING),
    ("avp_aliases", No("AVPs have names")),
    ("bin_children", No("there is no binary interface")),
    ("bin_listen", No("there is no binary interface")),
    ("check_via", Works),
    ("children", Old("udp_workers")),
    ("chroot", Works),
    ("db_default_url", Works),
    ("db_max_async_connections", Works),
    ("db_max_connections", Works),
    ("db_max_queue", Works),
    ("db_multi_statements", Works),
    ("db_version_table", No("`fermata db` looks after the layout of tables")),
    ("debug", Old("log_level")),
    ("debug_mode", Works),
    ("disable_503_translation", Works),
    ("disable_core_dump", Works),
    ("disable_dns_blacklist", No("destinations that failed are not remembered")),
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
    ("dst_blacklist", Works),
    ("enable_asserts", Works),
    ("event_pkg_threshold", MEMORY),
    ("event_shm_threshold", MEMORY),
    ("exec_dns_threshold", Works),
    ("exec_msg_threshold", Works),
    ("execdnsthreshold", Same("exec_dns_threshold")),
    ("execmsgthreshold", Same("exec_msg_threshold")),
    ("fork", No("there is one process with worker threads; `--daemon` puts it into the background")),
    ("gid", Same("group")),
    ("group", Works),
    ("listen", Old("socket")),
    ("log_event_enabled", No("there is no log event")),
    ("log_event_level_filter", No("there is no log event")),
    ("log_facility", Old("syslog_facility")),
    ("log_json_buf_size", MEMORY),
    ("log_level", Works),
    ("log_msg_buf_size", MEMORY),
    ("log_name", Old("syslog_name")),
    ("log_prefix", Works),
    ("log_stderror", Old("stderror_enabled")),
    ("log_stdout", No("standard output is not closed")),
    ("max_while_loops", Works),
    ("maxbuffer", Works),
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
    ("mhomed", Works),
    ("open_files_limit", Works),
    ("pi_framework", No("there is no provisioning interface")),
    ("poll_method", REACTOR),
    ("port", Works),
    ("pv_print_buf_size", MEMORY),
    ("query_buffer_size", Works),
    ("query_flush_time", Works),
    ("reply_to_via", Works),
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
    ("tcp_children", ALL_SERVE),
    ("tcp_connect_timeout", Works),
    ("tcp_connection_lifetime", Works),
    ("tcp_keepalive", Works),
    ("tcp_keepcount", Works),
    ("tcp_keepidle", Works),
    ("tcp_keepinterval", Works),
    ("tcp_listen", No("write socket=tcp:...")),
    ("tcp_listen_backlog", Same("tcp_socket_backlog")),
    ("tcp_max_connections", Works),
    ("tcp_max_msg_time", Works),
    ("tcp_no_new_conn_bflag", Works),
    ("tcp_no_new_conn_rplflag", Works),
    ("tcp_parallel_read_on_workers", ALL_SERVE),
    ("tcp_poll_method", REACTOR),
    ("tcp_send_timeout", BLOCKING),
    ("tcp_socket_backlog", Works),
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
    ("tos", Works),
    ("udp_workers", Works),
    ("uid", Same("user")),
    ("user", Works),
    ("user_agent_header", Works),
    ("wdir", Works),
    ("workdir", Same("wdir")),
    ("worker_reactor_timeout", REACTOR),
    ("workerreactortimeout", Same("worker_reactor_timeout")),
    ("xlog_buf_size", MEMORY),
    ("xlog_default_level", Same("xlog_level")),
    ("xlog_force_color", No("lines are not coloured")),
    ("xlog_level", Works),
    ("xlog_print_level", Works),
];

/// What a parameter does here; `None`: there is none of that name.
pub fn effect(name: &str) -> Option<Effect> {
    PARAMETERS.binary_search_by(|(n, _)| (*n).cmp(name)).ok().map(|i| PARAMETERS[i].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_names_what_exists() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, found) in PARAMETERS {
            if let Same(other) | Old(other) = found {
                assert!(effect(other).is_some(), "{name} names {other}");
            }
        }
    }
}
