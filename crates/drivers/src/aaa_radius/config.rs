//! The configuration of radiusclient: where the servers are and what secrets they share with us.

use host::load::LoadError;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub secret: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub auth: Vec<Server>,
    pub acct: Vec<Server>,
    pub dictionary: PathBuf,
    /// How long each try waits for its answer.
    pub timeout: Duration,
    /// Tries at each server.
    pub tries: u32,
    /// A server that did not answer is left out for this long.
    pub dead_time: Duration,
    /// NAS-Identifier, instead of NAS-IP-Address.
    pub identifier: Option<String>,
    pub bind: Option<std::net::IpAddr>,
}

impl Config {
    /// The error is what a user should read.
    pub fn load(path: &Path) -> Result<Config, LoadError> {
        let shown = path.display();
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|e| LoadError::of_file(path.display(), &e));
        let mut config = Config {
            auth: Vec::new(),
            acct: Vec::new(),
            dictionary: "/etc/radiusclient/dictionary".into(),
            timeout: Duration::from_secs(10),
            tries: 3,
            dead_time: Duration::ZERO,
            identifier: None,
            bind: None,
        };
        let (mut auth, mut acct, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in pairs(&read(path)?) {
            let number =
                || value.parse::<u64>().map_err(|_| format!("{shown}: {key} takes a number, not `{value}`"));
            match &*key {
                "authserver" => auth.extend(value.split(',').map(|s| s.trim().to_string())),
                "acctserver" => acct.extend(value.split(',').map(|s| s.trim().to_string())),
                "servers" => secrets = pairs(&read(Path::new(&value))?),
                "dictionary" => config.dictionary = value.into(),
                "radius_timeout" => config.timeout = Duration::from_secs(number()?.clamp(1, 60)),
                "radius_retries" => config.tries = number()?.clamp(1, 10) as u32,
                "radius_deadtime" => config.dead_time = Duration::from_secs(number()?),
                "nas-identifier" => config.identifier = Some(value),
                "bindaddr" if value != "*" => {
                    let bind =
                        value.parse().map_err(|_| format!("{shown}: bindaddr `{value}` is no address"))?;
                    config.bind = Some(bind);
                }
                // Of use for programs that log users in.
                _ => {}
            }
        }
        let place =
            |text: &String, port| place(text, port, &secrets).map_err(|why| format!("{shown}: {why}"));
        config.auth = auth.iter().map(|text| place(text, 1812)).collect::<Result<_, _>>()?;
        config.acct = acct.iter().map(|text| place(text, 1813)).collect::<Result<_, _>>()?;
        if config.auth.is_empty() && config.acct.is_empty() {
            return Err(format!("{shown}: there is neither authserver nor acctserver").into());
        }
        Ok(config)
    }
}

/// "key value" lines without comments.
fn pairs(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (key, value) = line.split_once(char::is_whitespace)?;
        Some((key.to_string(), value.trim().to_string()))
    };
    lines.filter_map(pair).collect()
}

/// "host[:port[:secret]]", "[v6]:port"; without a secret the file `servers` has it.
fn place(text: &str, default_port: u16, secrets: &[(String, String)]) -> Result<Server, String> {
    let (host, rest) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, rest)| (host, Some(rest))),
    };
    let (port, secret) = match rest {
        None => ("", None),
        Some(rest) => rest.split_once(':').map_or((rest, None), |(port, secret)| (port, Some(secret))),
    };
    let port = match port {
        "" => default_port,
        port => port.parse().map_err(|_| format!("`{text}`: {port} is no port"))?,
    };
    let listed = || {
        // "a/b": two names of one pair of machines.
        let named =
            |(names, _): &&(String, String)| names.split('/').any(|name| name.eq_ignore_ascii_case(host));
        secrets.iter().find(named).map(|(_, secret)| secret.as_str())
    };
    let secret =
        secret.or_else(listed).ok_or_else(|| format!("{host} has no secret in the file `servers`"))?;
    Ok(Server { host: host.to_string(), port, secret: secret.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn files_of_radiusclient() {
        let folder = Folder::new("radius-config");
        let (path, servers) = (folder.0.join("client.conf"), folder.0.join("servers"));
        std::fs::write(&servers, "# secrets\nradius.example  shared secret\n[::1] x\na/b two\n::1 six\n")
            .expect("written");
        let write = |text: &str| {
            let text = format!("{text}\nservers {}\n", servers.display());
            std::fs::write(&path, text).expect("written");
            Config::load(&path)
        };
        let config = write(
            "auth_order radius,local\nauthserver radius.example:1645, b\nauthserver 10.0.0.1:18:pw\nacctserver [::1]\n\
             radius_timeout 2\nradius_retries\t2\nbindaddr *\ndictionary /d\nlogin_tries 4",
        )
        .expect("a configuration");
        let server =
            |host: &str, port, secret: &str| Server { host: host.into(), port, secret: secret.into() };
        assert_eq!(
            config.auth,
            [
                server("radius.example", 1645, "shared secret"),
                server("b", 1812, "two"),
                server("10.0.0.1", 18, "pw")
            ]
        );
        assert_eq!(config.acct, [server("::1", 1813, "six")]);
        assert_eq!((config.timeout, config.tries), (Duration::from_secs(2), 2));
        for (text, says) in [
            ("login_tries 4", "neither authserver"),
            ("authserver other", "no secret"),
            ("authserver b:x", "no port"),
            ("authserver b\nradius_timeout soon", "takes a number"),
        ] {
            assert!(write(text).is_err_and(|e| e.to_string().contains(says)), "{text}");
        }
    }
}
