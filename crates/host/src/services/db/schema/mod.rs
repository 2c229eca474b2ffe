//! The standard tables: names and columns as OpenSIPS has them, so that a database made by either
//! program serves the other.
//!
//! The lists stand in the `.tables` files beside this:
//!
//! ```text
//! module auth_db                        all tables up to the next `module` belong to it
//! table subscriber 8                    name and version
//!   id        serial                    a number that the database counts up, the primary key
//!   username  text(64) ''               never NULL, with a default
//!   expires   uint                      never NULL, no default
//!   received  text(255)?                may be NULL
//!   unique account_idx (username, domain)
//!   index username_idx (username)
//!   primary (dlg_id)
//! ```
//! Types: serial, bigserial, int, uint, bigint, real, time, text(n), text, blob, longblob.

mod sql;

use std::sync::LazyLock;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// Counted up by the database; the primary key.
    Serial,
    BigSerial,
    Int,
    Uint,
    Bigint,
    Real,
    Time,
    /// At most so many characters.
    Text(u16),
    LongText,
    /// Up to 64 KiB
    Blob,
    /// Up to 4 GiB
    LongBlob,
}

impl Type {
    pub fn is_serial(self) -> bool {
        matches!(self, Type::Serial | Type::BigSerial)
    }

    fn parse(text: &str) -> Option<Type> {
        Some(match text {
            "serial" => Type::Serial,
            "bigserial" => Type::BigSerial,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "bigint" => Type::Bigint,
            "real" => Type::Real,
            "time" => Type::Time,
            "text" => Type::LongText,
            "blob" => Type::Blob,
            "longblob" => Type::LongBlob,
            _ => Type::Text(text.strip_prefix("text(")?.strip_suffix(')')?.parse().ok()?),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Type,
    pub nullable: bool,
    /// As SQL has it: `''`, `0`, `'N'`.
    pub default: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    Primary,
    Unique,
    Index,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    pub kind: KeyKind,
    /// Empty for a primary key.
    pub name: &'static str,
    pub columns: Vec<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    pub name: &'static str,
    /// In the table `version`.
    pub version: u32,
    /// The module that reads it.
    pub module: &'static str,
    pub columns: Vec<Column>,
    pub keys: Vec<Key>,
    /// Made when nothing is said about which.
    pub standard: bool,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let files = [
        (include_str!("standard.tables"), true),
        (include_str!("more.tables"), false),
        (include_str!("presence.tables"), false),
    ];
    files.into_iter().flat_map(|(text, standard)| parse(text, standard).unwrap_or_default()).collect()
});

/// All tables, `version` first.
pub fn tables() -> &'static [Table] {
    &TABLES
}

/// A table by its name.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The error names the line.
fn parse(text: &'static str, standard: bool) -> Result<Vec<Table>, String> {
    let mut tables: Vec<Table> = Vec::new();
    let mut module = "";
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let bad = || line.to_string();
        let mut words = line.split_whitespace();
        match words.next().ok_or_else(bad)? {
            "module" => module = words.next().ok_or_else(bad)?,
            "table" => {
                let name = words.next().ok_or_else(bad)?;
                let version = words.next().and_then(|v| v.parse().ok()).ok_or_else(bad)?;
                let (columns, keys) = (Vec::new(), Vec::new());
                tables.push(Table { name, version, module, columns, keys, standard });
            }
            word @ ("primary" | "unique" | "index") => {
                let (before, list) =
                    line.trim().strip_suffix(')').and_then(|l| l.split_once('(')).ok_or_else(bad)?;
                let name = before.trim().strip_prefix(word).unwrap_or_default().trim();
                let kind = match word {
                    "primary" => KeyKind::Primary,
                    "unique" => KeyKind::Unique,
                    _ => KeyKind::Index,
                };
                let columns = list.split(',').map(str::trim).collect();
                tables.last_mut().ok_or_else(bad)?.keys.push(Key { kind, name, columns });
            }
            name => {
                let written = words.next().ok_or_else(bad)?;
                let nullable = written.ends_with('?');
                let kind = Type::parse(written.trim_end_matches('?')).ok_or_else(bad)?;
                let default = line.trim().splitn(3, char::is_whitespace).nth(2).map(str::trim);
                let default = default.and_then(|rest| rest.strip_prefix(written).or(Some(rest)));
                let default = default.map(str::trim).filter(|d| !d.is_empty());
                let column = Column { name, kind, nullable, default };
                tables.last_mut().ok_or_else(bad)?.columns.push(column);
            }
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_well_formed() {
        for (text, standard) in [
            (include_str!("standard.tables"), true),
            (include_str!("more.tables"), false),
            (include_str!("presence.tables"), false),
        ] {
            parse(text, standard).expect("every line is understood");
        }
        let mut names: Vec<_> = tables().iter().map(|t| t.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), tables().len(), "names are unique");
        for table in tables() {
            assert!(!table.module.is_empty() && !table.columns.is_empty(), "{}", table.name);
            for key in &table.keys {
                for column in &key.columns {
                    assert!(table.column(column).is_some(), "{}: {column}", table.name);
                }
            }
            let serials = table.columns.iter().filter(|c| c.kind.is_serial()).count();
            let primaries = table.keys.iter().filter(|k| k.kind == KeyKind::Primary).count();
            assert!(serials + primaries <= 1, "{}", table.name);
        }
    }

    #[test]
    fn columns_are_read() {
        let location = table("location").expect("it is there");
        assert_eq!((location.module, location.version, location.standard), ("usrloc", 1013, true));
        let check = |name, kind, nullable, default| {
            let found = location.column(name).expect(name);
            assert_eq!((found.kind, found.nullable, found.default), (kind, nullable, default), "{name}");
        };
        check("contact_id", Type::BigSerial, false, None);
        check("username", Type::Text(64), false, Some("''"));
        check("domain", Type::Text(64), true, None);
        check("contact", Type::LongText, false, None);
        check("q", Type::Real, false, Some("1.0"));
        check("last_modified", Type::Time, false, Some("'1900-01-01 00:00:01'"));
    }
}
