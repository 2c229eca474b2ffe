//! The text of `cache_table`, and what stands in `$sql_cached_value(...)`.

use bytes::Bytes;

/// One `cache_table`, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub id: String,
    pub db_url: String,
    pub cachedb_url: String,
    pub table: String,
    pub key: String,
    pub key_type: KeyType,
    /// Empty: all columns.
    pub columns: Vec<String>,
    pub mode: Mode,
    /// Seconds that a value is kept, on demand.
    pub expire_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Text,
    Int,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The whole table, at start and again before it expires.
    Full,
    /// Rows as they are asked for.
    OnDemand,
}

/// One hour.
const EXPIRE_S: u32 = 3600;

impl Spec {
    /// `name=value` pairs between delimiters. The error is what a user should read.
    pub fn parse(text: &str, delimiter: char, columns_delimiter: char) -> Result<Spec, String> {
        let mut spec = Spec {
            id: String::new(),
            db_url: String::new(),
            cachedb_url: String::new(),
            table: String::new(),
            key: String::new(),
            key_type: KeyType::Text,
            columns: Vec::new(),
            mode: Mode::Full,
            expire_s: EXPIRE_S,
        };
        for part in text.split(delimiter).map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=value"))?;
            let value = value.trim();
            match name.trim() {
                "id" => spec.id = value.to_string(),
                "db_url" => spec.db_url = value.to_string(),
                "cachedb_url" => spec.cachedb_url = value.to_string(),
                "table" => spec.table = value.to_string(),
                "key" => spec.key = value.to_string(),
                "key_type" => {
                    spec.key_type = match value {
                        "string" => KeyType::Text,
                        "int" => KeyType::Int,
                        other => return Err(format!("key_type is string or int, not {other}")),
                    };
                }
                "columns" => {
                    let names = value.split(columns_delimiter).map(str::trim).filter(|name| !name.is_empty());
                    spec.columns = names.map(str::to_string).collect();
                }
                "on_demand" => {
                    spec.mode = match value {
                        "0" => Mode::Full,
                        "1" => Mode::OnDemand,
                        other => return Err(format!("on_demand is 0 or 1, not {other}")),
                    };
                }
                "expire" => {
                    spec.expire_s =
                        value.parse().map_err(|_| format!("expire is a number of seconds, not {value}"))?;
                }
                other => return Err(format!("there is no `{other}` in it")),
            }
        }
        let needed = [
            ("id", &spec.id),
            ("db_url", &spec.db_url),
            ("cachedb_url", &spec.cachedb_url),
            ("table", &spec.table),
            ("key", &spec.key),
        ];
        match needed.iter().find(|(_, value)| value.is_empty()) {
            Some((name, _)) => Err(format!("{name} is missing")),
            None => Ok(spec),
        }
    }
}

/// Cache, column and key of "id:column:key"; the key may hold the delimiter.
pub fn split(text: &Bytes, delimiter: u8) -> Option<(Bytes, Bytes, Bytes)> {
    let first = memchr::memchr(delimiter, text)?;
    let second = first + 1 + memchr::memchr(delimiter, &text[first + 1..])?;
    Some((text.slice(..first), text.slice(first + 1..second), text.slice(second + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "id=fr\ndb_url=mysql://u:p@h/d\n cachedb_url = local://\ntable=t\nkey=k\n";

    #[test]
    fn specs() {
        let spec = Spec::parse(FULL, '\n', ' ').expect("complete");
        assert_eq!((spec.db_url.as_str(), spec.cachedb_url.as_str()), ("mysql://u:p@h/d", "local://"));
        assert_eq!(
            (spec.key_type, spec.mode, spec.expire_s, spec.columns.len()),
            (KeyType::Text, Mode::Full, 3600, 0)
        );
        let more = format!("{FULL}key_type=int\ncolumns=a b\non_demand=1\nexpire=5");
        let spec = Spec::parse(&more, '\n', ' ').expect("complete");
        assert_eq!((spec.key_type, spec.mode, spec.expire_s), (KeyType::Int, Mode::OnDemand, 5));
        assert_eq!(spec.columns, ["a", "b"]);
        let spec =
            Spec::parse("id=x;db_url=text:///d;cachedb_url=local://;table=t;key=k;columns=a,b", ';', ',');
        assert_eq!(spec.expect("complete").columns, ["a", "b"]);
        for (text, why) in [
            ("id=x\ntable=t", "db_url is missing"),
            ("id", "not name=value"),
            ("id=x\nkey_type=float", "key_type"),
            ("id=x\nsize=3", "no `size`"),
            ("id=x\nexpire=soon", "expire"),
        ] {
            let error = Spec::parse(text, '\n', ' ').expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn places() {
        let at = |text: &'static str| split(&Bytes::from_static(text.as_bytes()), b':');
        let parts = at("fr:col:a:b").expect("three parts");
        assert_eq!((&parts.0[..], &parts.1[..], &parts.2[..]), (&b"fr"[..], &b"col"[..], &b"a:b"[..]));
        assert_eq!(at("fr:col"), None);
    }
}
