//! Collections over a restart: one JSON text a line, written when the server ends.

use super::table::Table;
use bytes::Bytes;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

type Line = (String, String, String, u64);

/// Writes what is alive; `wall_s` is Unix time.
pub fn write(path: &Path, list: &[(String, Table)], now: u64, wall_s: u64) {
    let fresh = path.with_extension("new");
    if let Err(error) = write_to(&fresh, list, now, wall_s).and_then(|()| fs::rename(&fresh, path)) {
        host::error!("cachedb_local", "cannot keep the collections in {}: {error}", path.display());
    }
}

fn write_to(path: &Path, list: &[(String, Table)], now: u64, wall_s: u64) -> io::Result<()> {
    let mut out = BufWriter::new(crate::own_file::private(path)?);
    for (name, table) in list {
        for (key, value, left) in table.list(now, |_| true) {
            let expires = if left == 0 { 0 } else { wall_s + u64::from(left) };
            let line: (&str, String, String, u64) = (name, hex::encode(&key), hex::encode(&value), expires);
            serde_json::to_writer(&mut out, &serde_json::json!([line.0, line.1, line.2, line.3]))?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

/// Reads what has not expired meanwhile, into collections that still exist.
pub fn read(path: &Path, list: &[(String, Table)], now: u64, wall_s: u64) {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            return host::error!("cachedb_local", "cannot read {}: {error}", path.display());
        }
    };
    let mut lost = 0;
    for line in BufReader::new(file).lines() {
        let Some((name, key, value, expires)) = line.ok().and_then(|l| parse(&l)) else {
            lost += 1;
            continue;
        };
        let Some((_, table)) = list.iter().find(|(n, _)| *n == name) else { continue };
        let left = match expires {
            0 => 0,
            at if at <= wall_s => continue,
            at => (at - wall_s).min(u64::from(u32::MAX)) as u32,
        };
        if table.store(now, key, value, left).is_err() {
            lost += 1;
        }
    }
    if lost > 0 {
        host::warn!("cachedb_local", "{}: {lost} lines could not be read", path.display());
    }
}

fn parse(line: &str) -> Option<(String, Bytes, Bytes, u64)> {
    let (name, key, value, expires): Line = serde_json::from_str(line).ok()?;
    Some((name, hex::decode(key).ok()?.into(), hex::decode(value).ok()?.into(), expires))
}
