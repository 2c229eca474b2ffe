//! A folder of tables as a database in memory.

use super::file::{self, Column, Table};
use crate::db_sqlite::thread::{Store, private_file, read};
use ahash::AHashMap;
use host::db::{DbValue, Dialect, quote};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// When the folder is first used.
    Once,
    /// Also when a file has changed.
    WhenChanged,
}

/// A file as it was read or written last.
struct Known {
    stamp: Option<(SystemTime, u64)>,
    columns: Vec<Column>,
    text: Vec<u8>,
    /// Read it whatever its time says.
    stale: bool,
}

pub struct Tables {
    folder: PathBuf,
    reading: Reading,
    known: Mutex<AHashMap<String, Known>>,
}

impl Tables {
    pub fn new(folder: &str, reading: Reading) -> Tables {
        Tables { folder: folder.into(), reading, known: Mutex::default() }
    }

    /// Before the next statement all tables, or this one, are read again.
    pub fn read_again(&self, table: Option<&str>) {
        for (name, known) in self.known.lock().iter_mut() {
            known.stale |= table.is_none_or(|table| table == name);
        }
    }

    fn files(&self) -> Result<Vec<(String, PathBuf)>, String> {
        let shown = self.folder.display();
        let list = std::fs::read_dir(&self.folder).map_err(|e| format!("{shown}: {e}"))?;
        let named = list.flatten().filter(|entry| entry.path().is_file()).filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            plain.then(|| (name, entry.path()))
        });
        Ok(named.collect())
    }

    /// Reads files that are new, stale or changed. A bad one leaves its table as it was.
    fn refresh(&self, connection: &Connection) -> Result<(), String> {
        for (name, path) in self.files()? {
            let stamp = stamp(&path);
            let fresh =
                |known: &Known| !known.stale && (self.reading == Reading::Once || known.stamp == stamp);
            if self.known.lock().get(&name).is_some_and(fresh) {
                continue;
            }
            let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let table = match file::parse(&String::from_utf8_lossy(&text)) {
                Ok(table) => table,
                Err(why) => {
                    host::error!("db_text", "{}: {why}", path.display());
                    if let Some(known) = self.known.lock().get_mut(&name) {
                        (known.stamp, known.stale) = (stamp, false);
                    }
                    continue;
                }
            };
            fill(connection, &name, &table).map_err(|e| format!("{}: {e}", path.display()))?;
            let known = Known { stamp, columns: table.columns, text, stale: false };
            self.known.lock().insert(name, known);
        }
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let data = path.metadata().ok()?;
    Some((data.modified().ok()?, data.len()))
}

/// Makes a table and puts its rows in.
fn fill(connection: &Connection, name: &str, table: &Table) -> rusqlite::Result<()> {
    let columns = table.columns.iter().map(|column| {
        let key = if column.auto { " primary key autoincrement" } else { "" };
        let bound = if column.nullable || column.auto { "" } else { " not null" };
        format!("\"{}\" {}{key}{bound}", column.name, column.kind.sql())
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    connection.execute_batch(&format!(
        "begin; drop table if exists \"{name}\"; create table \"{name}\" ({columns})"
    ))?;
    for row in &table.rows {
        let values: Vec<String> = row.iter().map(|value| quote(value, Dialect::Sqlite)).collect();
        if let Err(error) =
            connection.execute_batch(&format!("insert into \"{name}\" values ({})", values.join(",")))
        {
            connection.execute_batch("rollback")?;
            return Err(error);
        }
    }
    connection.execute_batch("commit")
}

impl Store for Tables {
    fn opened(&self, connection: &Connection) -> Result<(), String> {
        self.known.lock().clear();
        self.refresh(connection)
    }

    fn before(&self, connection: &Connection) {
        let stale = self.known.lock().values().any(|known| known.stale);
        if !stale && self.reading == Reading::Once {
            return;
        }
        if let Err(why) = self.refresh(connection) {
            host::error!("db_text", "{why}");
        }
    }

    fn save(&self, connection: &Connection) -> Result<(), String> {
        for (name, known) in self.known.lock().iter_mut() {
            let rows = rows(connection, name, &known.columns).map_err(|e| format!("{name}: {e}"))?;
            let text = file::write(&Table { columns: known.columns.clone(), rows });
            if text == known.text {
                continue;
            }
            let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
            // A file is there whole or not at all.
            let written = private_file(&new)
                .and_then(|mut out| out.write_all(&text))
                .and_then(|()| std::fs::rename(&new, &path));
            written.map_err(|e| format!("{}: {e}", path.display()))?;
            (known.stamp, known.text) = (stamp(&path), text);
        }
        Ok(())
    }
}

fn rows(connection: &Connection, name: &str, columns: &[Column]) -> rusqlite::Result<Vec<Vec<DbValue>>> {
    let names = columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ");
    let mut statement = connection.prepare(&format!("select {names} from \"{name}\" order by rowid"))?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let cells = (0..columns.len()).map(|i| row.get_ref(i).map(read));
        rows.push(cells.collect::<rusqlite::Result<_>>()?);
    }
    Ok(rows)
}
