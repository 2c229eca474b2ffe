//! A row in the key-value store: a JSON object that a person can read there. Besides its columns it holds the
//! moment it was read from the database ("@", microseconds of Unix time).

use bytes::Bytes;
use host::Value;
use host::db::DbValue;
use serde_json::{Map, Value as Json};

/// The member with the moment.
const READ_AT: &str = "@";

/// A row, as it goes into the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept(Map<String, Json>);

/// What a script sees of numbers above 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BigInts {
    Numbers,
    Texts,
}

impl Kept {
    pub fn of<'a>(columns: impl Iterator<Item = &'a str>, cells: &[DbValue], read_at_us: u64) -> Kept {
        let mut map: Map<String, Json> =
            columns.zip(cells).map(|(name, cell)| (name.to_string(), json(cell))).collect();
        map.insert(READ_AT.to_string(), Json::from(read_at_us));
        Kept(map)
    }

    /// `None`: somebody else's value.
    pub fn parse(text: &[u8]) -> Option<Kept> {
        serde_json::from_slice(text).ok().map(Kept)
    }

    pub fn text(&self) -> Bytes {
        Bytes::from(Json::Object(self.0.clone()).to_string())
    }

    pub fn read_at_us(&self) -> u64 {
        self.0.get(READ_AT).and_then(Json::as_u64).unwrap_or(0)
    }

    pub fn has(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }

    /// NULL also when there is no such column.
    pub fn value(&self, column: &str, big: BigInts) -> Value {
        match self.0.get(column) {
            Some(Json::Number(n)) => match n.as_i64() {
                Some(n) if big == BigInts::Numbers || i32::try_from(n).is_ok() => Value::Int(n),
                _ => Value::from(n.to_string()),
            },
            Some(Json::String(text)) => Value::from(text.clone()),
            _ => Value::Null,
        }
    }
}

fn json(cell: &DbValue) -> Json {
    match cell {
        DbValue::Null => Json::Null,
        DbValue::Int(n) | DbValue::Time(n) => Json::from(*n),
        other => Json::from(other.string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_store() {
        let cells = [
            DbValue::from("gw1"),
            DbValue::Int(16),
            DbValue::Null,
            DbValue::Int(1 << 40),
            DbValue::Real(1.5),
        ];
        let kept = Kept::of(["host", "flags", "none", "big", "real"].into_iter(), &cells, 7);
        let back = Kept::parse(&kept.text()).expect("our own");
        assert_eq!(back, kept);
        assert_eq!(back.read_at_us(), 7);
        let value = |name: &str| back.value(name, BigInts::Numbers);
        assert_eq!(value("host"), Value::from("gw1"));
        assert_eq!(value("flags"), Value::Int(16));
        assert_eq!(value("big"), Value::Int(1 << 40));
        assert_eq!(back.value("big", BigInts::Texts), Value::from((1_i64 << 40).to_string()));
        assert_eq!(back.value("flags", BigInts::Texts), Value::Int(16));
        assert_eq!(value("real"), Value::from("1.5"));
        assert_eq!((value("none"), value("absent")), (Value::Null, Value::Null));
        assert!(back.has("none") && !back.has("absent"));
        assert_eq!(Kept::parse(b"something else"), None);
    }
}
