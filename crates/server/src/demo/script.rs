//! The script of the demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where things are, for the script.
pub struct Places {
    pub sip: SocketAddr,
    pub management: u16,
    pub called: SocketAddr,
    pub http: SocketAddr,
    pub database: PathBuf,
}

impl Places {
    /// For `--script`.
    pub fn example() -> Places {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Places {
            sip: at(5060),
            management: 8888,
            called: at(5070),
            http: at(8080),
            database: "routes.sqlite".into(),
        }
    }
}

const START: &str = "# --- what every call does";
const END: &str = "# --- the rest";

/// The whole script.
pub fn text(places: &Places) -> String {
    let Places { sip, management, called, http, database } = places;
    let database = database.display();
    format!(
        r#"log_level = 1
stderror_enabled = yes
syslog_enabled = no
udp_workers = 1
socket = udp:{sip}

loadmodule "proto_udp.so"
loadmodule "signaling.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "db_sqlite.so"
loadmodule "sqlops.so"
loadmodule "rest_client.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"

modparam("sqlops", "db_url", "sqlite://{database}")
modparam("httpd", "ip", "127.0.0.1")
modparam("httpd", "port", {management})

startup_route {{
    sql_query("CREATE TABLE routes (prefix TEXT PRIMARY KEY, gateway TEXT)");
    sql_query("INSERT INTO routes VALUES ('100', '{called}')");
}}

route {{
    if (!mf_process_maxfwd_header(10)) {{
        send_reply(483, "Too Many Hops");
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            t_relay();
        }}
        exit;
    }}
    if (is_method("OPTIONS")) {{
        send_reply(200, "OK");
        exit;
    }}

    {START}
    if (!sql_query("SELECT gateway FROM routes WHERE prefix = '$(rU{{s.substr,0,3}})'", "$avp(gateway)")) {{
        send_reply(404, "No Route");
        exit;
    }}
    if (!rest_get("http://{http}/credit/$fU", $var(answer), $var(type), $var(code))
            || $var(code) != 200) {{
        send_reply(503, "No Answer");
        exit;
    }}
    $ru = "sip:" + $rU + "@" + $avp(gateway);
    record_route();
    t_relay();
    {END}
}}
"#
    )
}

/// The part that a viewer should read, indented less.
pub fn excerpt(text: &str) -> String {
    let part = text.split(START).nth(1).and_then(|rest| rest.split(END).next()).unwrap_or_default();
    let lines: Vec<&str> =
        part.trim_matches('\n').lines().map(|l| l.strip_prefix("    ").unwrap_or(l)).collect();
    format!(
        "Every call runs this script. Both questions are plain calls; one worker does it all.\n\n    {}\n",
        lines.join("\n    ").trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_is_the_waiting_part() {
        let shown = excerpt(&text(&Places::example()));
        assert!(shown.contains("sql_query(") && shown.contains("rest_get(") && shown.contains("t_relay();"));
        assert!(!shown.contains("loadmodule"));
    }
}
