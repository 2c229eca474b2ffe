//! The file that names the directory servers: sections of `key = value`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// One section: a directory and its servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    /// "ldap://host:port", tried in order.
    pub servers: Vec<String>,
    pub bind_dn: String,
    pub password: String,
    pub connect_timeout: Duration,
    pub bind_timeout: Duration,
    pub search_timeout: Duration,
    pub tls: Option<Tls>,
}

/// StartTLS, or what is checked of an `ldaps://` server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The server's certificate must be good (`DEMAND`, `HARD`, `TRY`).
    pub checked: bool,
}

/// The shortest time a search gets, as in the reference.
const SHORTEST_SEARCH_MS: u64 = 2000;

/// Reads a file's text; an error names what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Settings>, String> {
    let mut all: Vec<Settings> = Vec::new();
    for (key, value) in entries(text)? {
        let Some(key) = key else {
            if all.iter().any(|s| s.name == value) {
                return Err(format!("section [{value}] is there twice"));
            }
            all.push(Settings::new(value));
            continue;
        };
        let section = all.last_mut().ok_or_else(|| format!("`{key}` stands before any [section]"))?;
        section.set(&key, value).map_err(|why| format!("[{}] {key}: {why}", section.name))?;
    }
    match all.iter().find(|section| section.servers.is_empty()) {
        Some(section) => Err(format!("[{}] has no ldap_server_url", section.name)),
        None if all.is_empty() => Err("it has no [section]".to_string()),
        None => Ok(all),
    }
}

/// Sections (`None`, name) and assignments, in order. A quoted value may go over several lines.
fn entries(text: &str) -> Result<Vec<(Option<String>, String)>, String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let (name, _) = name.split_once(']').ok_or_else(|| format!("`{line}` has no `]`"))?;
            found.push((None, name.trim().to_string()));
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}` is no `key = value`"))?;
        let key = key.trim().to_ascii_lowercase();
        let value = value.trim();
        let value = match value.strip_prefix('"') {
            None => value.split(';').next().unwrap_or_default().trim().to_string(),
            Some(first) => {
                let mut value = first.to_string();
                while !value.contains('"') {
                    let next = lines.next().ok_or_else(|| format!("the quotes of `{key}` stay open"))?;
                    value.push_str(next.trim());
                }
                value.split('"').next().unwrap_or_default().to_string()
            }
        };
        found.push((Some(key), value));
    }
    Ok(found)
}

impl Settings {
    fn new(name: String) -> Settings {
        Settings {
            name,
            servers: Vec::new(),
            bind_dn: String::new(),
            password: String::new(),
            connect_timeout: Duration::from_millis(1000),
            bind_timeout: Duration::from_millis(2000),
            search_timeout: Duration::from_millis(5000),
            tls: None,
        }
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        let ms = || value.parse::<u64>().map_err(|_| format!("`{value}` is no number of milliseconds"));
        let file = || match Path::new(&value) {
            path if path.is_file() => Ok(Some(path.to_path_buf())),
            _ => Err(format!("{value}: there is no such file")),
        };
        match key {
            "ldap_server_url" => {
                for server in value.split([',', ' ']).map(str::trim).filter(|s| !s.is_empty()) {
                    let known = ["ldap://", "ldaps://", "ldapi://"].iter().any(|p| server.starts_with(p));
                    if !known {
                        return Err(format!("`{server}` is no ldap:// URL"));
                    }
                    self.servers.push(server.to_string());
                }
            }
            "ldap_bind_dn" => self.bind_dn = value,
            "ldap_bind_password" => self.password = value,
            "ldap_network_timeout" => self.connect_timeout = Duration::from_millis(ms()?.max(1)),
            "ldap_client_bind_timeout" => self.bind_timeout = Duration::from_millis(ms()?.max(1)),
            "ldap_client_search_timeout" => {
                self.search_timeout = Duration::from_millis(ms()?.max(SHORTEST_SEARCH_MS));
            }
            "ldap_ca_cert_file" => self.tls.get_or_insert_default().ca = file()?,
            "ldap_cert_file" => self.tls.get_or_insert_default().cert = file()?,
            "ldap_key_file" => self.tls.get_or_insert_default().key = file()?,
            "ldap_require_certificate" => match &*value.to_ascii_uppercase() {
                "NEVER" | "ALLOW" => {}
                "TRY" | "DEMAND" | "HARD" => self.tls.get_or_insert_default().checked = true,
                _ => return Err(format!("`{value}` is none of NEVER, ALLOW, TRY, DEMAND, HARD")),
            },
            "ldap_version" if value == "2" || value == "3" => {}
            "ldap_version" => return Err("versions are 2 and 3".to_string()),
            "calculate_ha1" | "ldap_server_search_timeout" => {}
            _ => return Err("there is no such setting".to_string()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_reference() {
        let text = "# two\n[sip]\nldap_server_url = \"ldap://a:389,\n   ldap://b\"\nldap_bind_dn= \"cn=x,dc=y\" ; who\n\
                    LDAP_BIND_PASSWORD = pw ; secret\nldap_network_timeout=500\n\n[campus]\nldap_version = 2\n\
                    ldap_server_url = ldap://c\nldap_client_search_timeout = 10\n";
        let all = parse(text).expect("a file");
        assert_eq!(all.len(), 2);
        assert_eq!(
            (&*all[0].name, &all[0].servers[..]),
            ("sip", &["ldap://a:389".into(), "ldap://b".into()][..])
        );
        assert_eq!((&*all[0].bind_dn, &*all[0].password), ("cn=x,dc=y", "pw"));
        assert_eq!(all[0].connect_timeout, Duration::from_millis(500));
        assert_eq!(all[1].search_timeout, Duration::from_millis(2000));
        for (text, says) in [
            ("ldap_version=3", "before any [section]"),
            ("[a]\nldap_version = 3", "no ldap_server_url"),
            ("[a]\nldap_server_url = http://x", "no ldap:// URL"),
            ("[a]\nldap_server_url = \"ldap://x", "stay open"),
            ("[a]\ncolor = red", "no such setting"),
            ("[a]\nldap_ca_cert_file = /absent", "no such file"),
            ("", "no [section]"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
