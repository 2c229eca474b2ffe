//! The file of a Diameter client, in the form of freeDiameter: who we are, and where the peers are.

use super::dictionary::Dictionary;
use host::load::LoadError;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its Diameter identity.
    pub identity: String,
    /// Host or address, and port.
    pub address: String,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub identity: String,
    pub realm: String,
    /// In the order of the file.
    pub peers: Vec<Place>,
    pub dictionary: Dictionary,
}

impl Config {
    /// What stands behind `diameter:` in a URL: the file, and perhaps `;extra-avps-file:` with a dictionary.
    pub fn load(rest: &str) -> Result<Config, LoadError> {
        let mut parts = rest.split(';');
        let path = parts.next().unwrap_or_default().trim();
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|e| LoadError::of_file(Path::new(path).display(), &e))
        };
        let mut config = Config::parse(&read(path)?).map_err(|why| format!("{path}: {why}"))?;
        for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
            let file = part.strip_prefix("extra-avps-file:");
            let file =
                file.ok_or_else(|| format!("`{part}`: after the file only extra-avps-file:FILE is known"))?;
            config.dictionary.parse(&read(file)?).map_err(|why| format!("{file}: {why}"))?;
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config {
            identity: String::new(),
            realm: String::new(),
            peers: Vec::new(),
            dictionary: Dictionary::default(),
        };
        let words = words(text)?;
        let mut rest = &words[..];
        while let Some((key, after)) = rest.split_first() {
            let end = end_of(after).ok_or_else(|| format!("{key}: no `;` ends it"))?;
            let value = after.get(1).filter(|_| after[0] == "=").cloned().unwrap_or_default();
            match key.to_ascii_lowercase().as_str() {
                "identity" => config.identity = value,
                "realm" => config.realm = value,
                "connectpeer" => config.peers.push(peer(value, &after[..end])?),
                _ => {}
            }
            rest = &after[end + 1..];
        }
        if config.identity.is_empty() {
            return Err("it does not say who we are: Identity = \"name.realm\";".into());
        }
        if config.realm.is_empty() {
            let realm = config.identity.split_once('.').map(|(_, realm)| realm.to_string());
            config.realm = realm.ok_or("it does not name our Realm")?;
        }
        if config.peers.is_empty() {
            return Err(
                "it names no peer: ConnectPeer = \"name\" { ConnectTo = \"address\"; No_TLS; };".into()
            );
        }
        Ok(config)
    }
}

/// Where the statement ends: its `;`, outside of braces.
fn end_of(words: &[String]) -> Option<usize> {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.checked_sub(1)?,
            ";" if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn peer(identity: String, words: &[String]) -> Result<Place, String> {
    let value = |key: &str| {
        let at = words.iter().position(|word| word.eq_ignore_ascii_case(key))?;
        words.get(at + 2).filter(|_| words[at + 1] == "=").cloned()
    };
    if !words.iter().any(|word| word.eq_ignore_ascii_case("No_TLS")) {
        return Err(format!("ConnectPeer {identity}: TLS between Diameter peers is not there: No_TLS"));
    }
    let port = value("Port").unwrap_or_else(|| "3868".into());
    let port: u16 = port.parse().map_err(|_| format!("ConnectPeer {identity}: Port {port} is none"))?;
    let host = value("ConnectTo").unwrap_or_else(|| identity.clone());
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Ok(Place { address: format!("{host}:{port}"), identity })
}

/// Words, texts without their quotes, and signs.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(words) };
        let length = match first {
            '#' => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '"' => {
                let end = rest[1..].find('"').ok_or("a text is never closed")?;
                words.push(rest[1..=end].to_string());
                rest = &rest[end + 2..];
                continue;
            }
            '=' | ';' | '{' | '}' | ':' | ',' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "=;{}:,\"#".contains(c)).unwrap_or(rest.len()),
        };
        words.push(rest[..length].to_string());
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let config = Config::parse(
            "# who\nIdentity = \"client.diameter.test\";\nRealm = \"diameter.test\";\nNoRelay;\n\
             LoadExtension = \"dict_sip.fdx\" : \"x\";\nListenOn = \"127.0.0.1\";\n\
             ConnectPeer = \"hss.diameter.test\" { ConnectTo = \"::1\"; No_TLS; Port = 3869; };\n\
             ConnectPeer = \"b.diameter.test\" { No_TLS; };",
        )
        .unwrap();
        assert_eq!((&*config.identity, &*config.realm), ("client.diameter.test", "diameter.test"));
        let places: Vec<&str> = config.peers.iter().map(|place| &*place.address).collect();
        assert_eq!(places, ["[::1]:3869", "b.diameter.test:3868"]);
        for (text, why) in [
            ("", "who we are"),
            ("Identity = \"a.b\";", "no peer"),
            ("Identity = \"a.b", "never closed"),
            ("Identity = \"a.b\"", "no `;`"),
            ("Identity = \"a.b\"; ConnectPeer = \"c\" { };", "No_TLS"),
            ("Identity = \"a.b\"; ConnectPeer = \"c\" { No_TLS; Port = x; };", "Port x"),
        ] {
            assert!(Config::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
