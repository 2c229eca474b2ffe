//! The standard tables as SQL of each server.

use super::{Column, KeyKind, Table, Type};
use crate::db::Dialect;

impl Type {
    fn sql(self, dialect: Dialect) -> String {
        use Dialect::{MySql, Postgres, Sqlite};
        let text = match (self, dialect) {
            // Its primary key comes with it.
            (Type::Serial, MySql) => "INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY",
            (Type::BigSerial, MySql) => "BIGINT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY",
            (Type::Serial, Postgres) => "SERIAL PRIMARY KEY",
            (Type::BigSerial, Postgres) => "BIGSERIAL PRIMARY KEY",
            (Type::Serial | Type::BigSerial, Sqlite) => "INTEGER PRIMARY KEY AUTOINCREMENT",
            (Type::Uint, MySql) => "INT UNSIGNED",
            (Type::Int, MySql) => "INT",
            (Type::Int | Type::Uint, _) => "INTEGER",
            (Type::Bigint, MySql) => "BIGINT UNSIGNED",
            (Type::Bigint, _) => "BIGINT",
            (Type::Real, Postgres) => "DOUBLE PRECISION",
            (Type::Real, _) => "DOUBLE",
            (Type::Time, Postgres) => "TIMESTAMP WITHOUT TIME ZONE",
            (Type::Time, _) => "DATETIME",
            (Type::Text(n), Postgres) => return format!("VARCHAR({n})"),
            // As long as a CHAR can be there.
            (Type::Text(n @ 256..), MySql) => return format!("VARCHAR({n})"),
            (Type::Text(n), _) => return format!("CHAR({n})"),
            (Type::LongText, _) => "TEXT",
            (Type::Blob | Type::LongBlob, Postgres) => "BYTEA",
            (Type::LongBlob, MySql) => "LONGBLOB",
            (Type::Blob | Type::LongBlob, _) => "BLOB",
        };
        text.to_string()
    }

    /// What stands in rows that were there before the column was.
    fn filler(self) -> &'static str {
        match self {
            Type::Text(_) | Type::LongText | Type::Blob | Type::LongBlob => "''",
            Type::Time => "'1900-01-01 00:00:01'",
            _ => "0",
        }
    }
}

fn column(column: &Column, dialect: Dialect) -> String {
    let mut out = format!("{} {}", column.name, column.kind.sql(dialect));
    // MySQL has no defaults for long texts.
    let long = matches!(column.kind, Type::LongText | Type::Blob | Type::LongBlob);
    match column.default {
        Some(default) if !(long && dialect == Dialect::MySql) => out += &format!(" DEFAULT {default}"),
        None if column.nullable => out += " DEFAULT NULL",
        _ => {}
    }
    if !column.nullable {
        out += " NOT NULL";
    }
    out
}

impl Table {
    /// The statements that make the table, its indexes too.
    pub fn create(&self, dialect: Dialect) -> Vec<String> {
        let mut lines: Vec<String> = self.columns.iter().map(|c| column(c, dialect)).collect();
        for key in &self.keys {
            let columns = key.columns.join(", ");
            match key.kind {
                KeyKind::Primary => lines.push(format!("PRIMARY KEY ({columns})")),
                KeyKind::Unique => {
                    lines.push(format!("CONSTRAINT {} UNIQUE ({columns})", self.key_name(key.name, dialect)));
                }
                KeyKind::Index => {}
            }
        }
        let engine = if dialect == Dialect::MySql { " ENGINE=InnoDB" } else { "" };
        let mut statements =
            vec![format!("CREATE TABLE {} (\n    {}\n){engine}", self.name, lines.join(",\n    "))];
        statements.extend(self.indexes(dialect));
        statements
    }

    fn indexes(&self, dialect: Dialect) -> impl Iterator<Item = String> + '_ {
        self.keys.iter().filter(|key| key.kind == KeyKind::Index).map(move |key| {
            let (name, columns) = (self.key_name(key.name, dialect), key.columns.join(", "));
            format!("CREATE INDEX {name} ON {} ({columns})", self.name)
        })
    }

    /// Adds a column to a table that is there.
    pub fn add(&self, new: &Column, dialect: Dialect) -> String {
        let mut new = *new;
        if !new.nullable && new.default.is_none() {
            new.default = Some(new.kind.filler());
        }
        format!("ALTER TABLE {} ADD COLUMN {}", self.name, column(&new, dialect))
    }

    /// Writes the table's version, whatever was there.
    pub fn set_version(&self) -> [String; 2] {
        [
            format!("DELETE FROM version WHERE table_name='{}'", self.name),
            format!(
                "INSERT INTO version (table_name, table_version) VALUES ('{}',{})",
                self.name, self.version
            ),
        ]
    }

    /// Names of keys are the table's own in MySQL, the database's elsewhere.
    fn key_name(&self, name: &str, dialect: Dialect) -> String {
        if dialect == Dialect::MySql { name.to_string() } else { format!("{}_{name}", self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn statements_of_each_server() {
        let version = table("version").expect("it is there");
        assert_eq!(
            version.create(Dialect::MySql),
            [
                "CREATE TABLE version (\n    table_name CHAR(32) NOT NULL,\n    table_version INT UNSIGNED DEFAULT 0 \
              NOT NULL,\n    CONSTRAINT t_name_idx UNIQUE (table_name)\n) ENGINE=InnoDB"
            ]
        );
        let postgres = version.create(Dialect::Postgres).concat();
        assert!(postgres.contains("CONSTRAINT version_t_name_idx UNIQUE (table_name)\n)"), "{postgres}");
        let subscriber = table("subscriber").expect("it is there");
        assert_eq!(
            subscriber.create(Dialect::Sqlite)[1],
            "CREATE INDEX subscriber_username_idx ON subscriber (username)"
        );
        let location = table("location").expect("it is there");
        assert_eq!(
            location.add(location.column("expires").expect("a column"), Dialect::Sqlite),
            "ALTER TABLE location ADD COLUMN expires INTEGER DEFAULT 0 NOT NULL"
        );
    }
}
