//! URLs of key-value stores as OpenSIPS writes them.

use std::fmt;

/// One server of a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    pub name: String,
    pub port: Option<u16>,
}

/// `scheme[:group]://[user[:password]@]host[:port][,host[:port]...]/database[?name=value&...]`, and
/// `scheme:group-url` for engines that stand on another kind of database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheUrl {
    /// "redis"
    pub scheme: String,
    /// Empty: the one that scripts name without a group.
    pub group: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub hosts: Vec<Host>,
    /// Database, collection or table.
    pub database: String,
    pub params: Vec<(String, String)>,
    /// What follows the group: "//host/...", or a whole URL ("mysql://...").
    pub rest: String,
}

impl CacheUrl {
    /// The error is what a user should read.
    pub fn parse(url: &str) -> Result<CacheUrl, String> {
        let bad = || format!("`{}` is no store: scheme:group://host:port/database", hide(url));
        let (scheme, rest) = url.split_once(':').ok_or_else(bad)?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(bad());
        }
        let (group, rest) = match rest.strip_prefix("//") {
            Some(_) => ("", rest),
            None => split_group(scheme, rest).ok_or_else(bad)?,
        };
        let mut parsed = CacheUrl {
            scheme: scheme.to_ascii_lowercase(),
            group: group.to_string(),
            user: None,
            password: None,
            hosts: Vec::new(),
            database: String::new(),
            params: Vec::new(),
            rest: rest.to_string(),
        };
        let Some(place) = rest.strip_prefix("//") else { return Ok(parsed) };
        // The path begins at the first slash after the login; a password may hold any character.
        let (place, params) = place.rsplit_once('?').unwrap_or((place, ""));
        let (login, place) = match place.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, place),
        };
        if let Some(login) = login {
            let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
            parsed.user = Some(user.to_string()).filter(|u| !u.is_empty());
            parsed.password = password.map(str::to_string);
        }
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
        parsed.database = database.to_string();
        for host in hosts.split(',').filter(|h| !h.is_empty()) {
            parsed.hosts.push(one_host(host).ok_or_else(bad)?);
        }
        let pairs = params.split('&').filter(|p| !p.is_empty());
        parsed.params = pairs
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Ok(parsed)
    }

    /// What scripts call it: "redis:group1", or "redis" without a group.
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.scheme.clone() } else { format!("{}:{}", self.scheme, self.group) }
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// "group1://host" or "group-mysql://host": the group, and what follows it. A group that stands on
/// another database keeps that scheme in its name, as scripts write it ("sql:1st-mysql").
fn split_group<'a>(scheme: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let at = rest.find("://")?;
    let group = &rest[..at];
    Some(match group.split_once('-') {
        Some((id, _)) if scheme == "sql" => (group, &rest[id.len() + 1..]),
        _ => (group, &rest[at + 1..]),
    })
}

fn one_host(text: &str) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, tail)) => (v6, tail.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(h, p)| (h, Some(p))),
    };
    let port = match port {
        None | Some("") => None,
        Some(digits) => Some(digits.parse().ok()?),
    };
    Some(Host { name: name.to_string(), port })
}

/// Without the password.
impl fmt::Display for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        if !self.rest.starts_with("//") {
            return Ok(());
        }
        f.write_str("://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}", host.name)?;
            if let Some(port) = host.port {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.database)
    }
}

/// For messages about URLs that cannot be read: what could be a password is left out.
fn hide(url: &str) -> String {
    match (url.find("//"), url.rfind('@')) {
        (Some(start), Some(end)) if start + 2 < end => format!("{}...{}", &url[..start + 2], &url[end..]),
        _ => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, user, password, hosts, database, what is shown)
    type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a str, &'a str, &'a str);

    fn check(url: &str, expected: Option<Parts<'_>>) {
        let parsed = CacheUrl::parse(url);
        let Some((name, user, password, hosts, database, shown)) = expected else {
            let error = parsed.expect_err(url);
            assert!(!error.contains("secret"), "{error}");
            return;
        };
        let parsed = parsed.expect(url);
        assert_eq!(parsed.name(), name, "{url}");
        assert_eq!((parsed.user.as_deref(), parsed.password.as_deref()), (user, password), "{url}");
        let list: Vec<String> = parsed
            .hosts
            .iter()
            .map(|h| h.port.map_or(h.name.clone(), |p| format!("{}:{p}", h.name)))
            .collect();
        assert_eq!((list.join(" ").as_str(), &*parsed.database), (hosts, database), "{url}");
        assert_eq!(parsed.to_string(), shown);
    }

    #[test]
    fn urls_of_the_reference() {
        check("local://", Some(("local", None, None, "", "", "local:///")));
        check("local:///collection1", Some(("local", None, None, "", "collection1", "local:///collection1")));
        check("local:g-2:///c2", Some(("local:g-2", None, None, "", "c2", "local:g-2:///c2")));
        check(
            "redis:group1://localhost:6379/",
            Some(("redis:group1", None, None, "localhost:6379", "", "redis:group1://localhost:6379/")),
        );
        check(
            "redis:g://:p@ss@a:1,b:2/3",
            Some(("redis:g", None, Some("p@ss"), "a:1 b:2", "3", "redis:g://a:1,b:2/3")),
        );
        check(
            "mongodb:cluster://u:pw@localhost,10.0.0.10:27017/db.dialog",
            Some((
                "mongodb:cluster",
                Some("u"),
                Some("pw"),
                "localhost 10.0.0.10:27017",
                "db.dialog",
                "mongodb:cluster://u@localhost,10.0.0.10:27017/db.dialog",
            )),
        );
        let sql = CacheUrl::parse("sql:1st-mysql://root:vlad@localhost/opensips_sql").expect("a URL");
        assert_eq!((&*sql.name(), &*sql.rest), ("sql:1st-mysql", "mysql://root:vlad@localhost/opensips_sql"));
        assert_eq!(sql.to_string(), "sql:1st-mysql");
        let socket = CacheUrl::parse("redis:l://:pw@localhost/2?socket=/var/run/r.sock").expect("a URL");
        assert_eq!((socket.param("socket"), &*socket.database), (Some("/var/run/r.sock"), "2"));
        check("redis", None);
        check("redis:g://u:secret@h:port/", None);
    }
}
