//! Database URLs as OpenSIPS writes them.

use std::fmt;

/// `scheme://[user[:password]@]host[:port]/database[?name=value&...]`, or `sqlite:///path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DbUrl {
    /// "mysql"
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Empty: the driver's default.
    pub host: String,
    pub port: Option<u16>,
    /// Database name, or the path of a file.
    pub database: String,
    pub params: Vec<(String, String)>,
    /// What follows "scheme://", for drivers with a syntax of their own.
    pub rest: String,
}

impl DbUrl {
    /// The error is what a user should read.
    pub fn parse(url: &str) -> Result<DbUrl, String> {
        let bad = || format!("`{}` is no database URL: scheme://user:password@host/database", hide(url));
        // Files are also named with a colon alone: flatstore:/var/log/acc.
        let file = || url.split_once(':').filter(|(scheme, _)| matches!(*scheme, "flatstore" | "text"));
        let (scheme, rest) = url.split_once("://").or_else(file).ok_or_else(bad)?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(bad());
        }
        let mut parsed = DbUrl {
            scheme: scheme.to_ascii_lowercase(),
            user: None,
            password: None,
            host: String::new(),
            port: None,
            database: String::new(),
            params: Vec::new(),
            rest: rest.to_string(),
        };
        if rest.starts_with('/')
            || matches!(&*parsed.scheme, "sqlite" | "text" | "flatstore" | "berkeley" | "virtual")
        {
            parsed.database = rest.to_string();
            return Ok(parsed);
        }
        // A password may hold any character, '/' and '@' too: the last '@' ends it.
        let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(l, p)| (Some(l), p));
        if let Some(login) = login {
            let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
            parsed.user = Some(user.to_string());
            parsed.password = password.map(str::to_string);
        }
        let (place, params) = place.split_once('?').unwrap_or((place, ""));
        let (host, database) = place.split_once('/').unwrap_or((place, ""));
        parsed.params = params
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        parsed.database = database.to_string();
        let (host, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
            Some((v6, tail)) => (v6, tail.strip_prefix(':')),
            None => host.rsplit_once(':').map_or((host, None), |(h, p)| (h, Some(p))),
        };
        parsed.host = host.to_string();
        parsed.port = match port {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| bad())?),
        };
        Ok(parsed)
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// Without the password.
impl fmt::Display for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if self.host.is_empty() && self.user.is_none() {
            return f.write_str(&self.rest);
        }
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.database)
    }
}

/// For messages about URLs that cannot be read: what could be a password is left out.
fn hide(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start + 3 < end => format!("{}...{}", &url[..start + 3], &url[end..]),
        _ => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a str, Option<u16>, &'a str);

    fn check(url: &str, expected: Option<Parts<'_>>, shown: &str) {
        let parsed = DbUrl::parse(url);
        let Some((scheme, user, password, host, port, database)) = expected else {
            let error = parsed.expect_err(url);
            assert!(!error.contains("secret"), "{error}");
            return;
        };
        let parsed = parsed.expect(url);
        assert_eq!(parsed.scheme, scheme, "{url}");
        assert_eq!(parsed.user.as_deref(), user, "{url}");
        assert_eq!(parsed.password.as_deref(), password, "{url}");
        assert_eq!((&*parsed.host, parsed.port, &*parsed.database), (host, port, database), "{url}");
        assert_eq!(parsed.to_string(), shown);
    }

    #[test]
    fn urls_of_the_reference() {
        check(
            "mysql://opensips:opensipsrw@localhost/opensips",
            Some(("mysql", Some("opensips"), Some("opensipsrw"), "localhost", None, "opensips")),
            "mysql://opensips@localhost/opensips",
        );
        check(
            "postgres://u:p@ss/w:rd@10.0.0.1:5433/db?tls_domain=x",
            Some(("postgres", Some("u"), Some("p@ss/w:rd"), "10.0.0.1", Some(5433), "db")),
            "postgres://u@10.0.0.1:5433/db",
        );
        check(
            "mysql://u@[::1]:3307/db",
            Some(("mysql", Some("u"), None, "::1", Some(3307), "db")),
            "mysql://u@::1:3307/db",
        );
        check(
            "sqlite:///var/db/o.sqlite",
            Some(("sqlite", None, None, "", None, "/var/db/o.sqlite")),
            "sqlite:///var/db/o.sqlite",
        );
        check(
            "flatstore:/var/log/acc",
            Some(("flatstore", None, None, "", None, "/var/log/acc")),
            "flatstore:///var/log/acc",
        );
        check("mysql://host/db", Some(("mysql", None, None, "host", None, "db")), "mysql://host/db");
        check("opensips", None, "");
        check("mysql://u:secret@h:port/db", None, "");
        assert_eq!(DbUrl::parse("postgres://a@h/d?x=1&y").expect("a URL").param("x"), Some("1"));
    }
}
