//! Rows that are kept over a restart (`enable_restart_persistency`): the server that starts reads them instead of the
//! tables, until a reload.
//!
//! ```text
//! file: "fermata drouting 1\n", pages
//! page: kind (G, C, R), table, count of columns, count of rows, cells       texts: length (u32), bytes
//! cell: 0 | 1 i64 | 2 f64 | 3 text | 4 text | 5 i64
//! ```
//! States stand beside it, in a file of their own that the end writes.

use super::data::Data;
use crate::destinations::State;
use bytes::Bytes;
use host::db::{DbValue, Name, Rows};
use modules::own_file;
use std::fs::File;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Read, Result, Write};
use std::path::{Path, PathBuf};

const HEAD: &[u8] = b"fermata drouting 1\n";
/// A longer text in such a file is a damage.
const MAX_TEXT: u32 = 1 << 20;

/// Which table a page is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Gateways = b'G' as isize,
    Carriers = b'C' as isize,
    Rules = b'R' as isize,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes pages; nothing is in place before `finish`.
pub struct Recorder {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Recorder {
    pub fn new(path: &Path) -> Result<Recorder> {
        let mut out = BufWriter::new(own_file::private(&beside(path, ".new"))?);
        out.write_all(HEAD)?;
        Ok(Recorder { path: path.to_owned(), out })
    }

    pub fn page(&mut self, kind: Kind, table: &Name, rows: &Rows) -> Result<()> {
        self.out.write_all(&[kind as u8])?;
        self.text(table.as_bytes())?;
        let columns = rows.columns().len() as u32;
        self.out.write_all(&columns.to_le_bytes())?;
        self.out.write_all(&(rows.len() as u32).to_le_bytes())?;
        for cell in rows.iter().flat_map(|row| row.cells) {
            match cell {
                DbValue::Null => self.out.write_all(&[0])?,
                DbValue::Int(n) => self.number(1, n.to_le_bytes())?,
                DbValue::Real(x) => self.number(2, x.to_le_bytes())?,
                DbValue::Text(text) => {
                    self.out.write_all(&[3])?;
                    self.text(text)?;
                }
                DbValue::Blob(text) => {
                    self.out.write_all(&[4])?;
                    self.text(text)?;
                }
                DbValue::Time(n) => self.number(5, n.to_le_bytes())?,
            }
        }
        Ok(())
    }

    fn number(&mut self, tag: u8, bytes: [u8; 8]) -> Result<()> {
        self.out.write_all(&[tag])?;
        self.out.write_all(&bytes)
    }

    fn text(&mut self, text: &[u8]) -> Result<()> {
        self.out.write_all(&(text.len() as u32).to_le_bytes())?;
        self.out.write_all(text)
    }

    /// Puts the file in place.
    pub fn finish(mut self) -> Result<()> {
        self.out.flush()?;
        std::fs::rename(beside(&self.path, ".new"), &self.path)
    }
}

/// Reads what a [`Recorder`] wrote.
pub struct Player(BufReader<File>);

impl Player {
    pub fn open(path: &Path) -> Result<Player> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = [0; HEAD.len()];
        file.read_exact(&mut head)?;
        if head == *HEAD { Ok(Player(file)) } else { Err(damaged()) }
    }

    /// `None`: the end.
    pub fn page(&mut self) -> Result<Option<(Kind, Name, Rows)>> {
        let mut kind = [0];
        if self.0.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let kind = [Kind::Gateways, Kind::Carriers, Kind::Rules].into_iter().find(|k| *k as u8 == kind[0]);
        let kind = kind.ok_or_else(damaged)?;
        let table = String::from_utf8(self.text()?.to_vec()).map_err(|_| damaged())?;
        let (columns, rows) = (self.count()?, self.count()?);
        let cells = columns.checked_mul(rows).filter(|cells| *cells <= MAX_TEXT).ok_or_else(damaged)?;
        let cells = (0..cells).map(|_| self.cell()).collect::<Result<Vec<_>>>()?;
        let columns = (0..columns).map(|_| Name::fixed("")).collect();
        Ok(Some((kind, table.into(), Rows::new(columns, cells))))
    }

    fn cell(&mut self) -> Result<DbValue> {
        let mut tag = [0];
        self.0.read_exact(&mut tag)?;
        Ok(match tag[0] {
            0 => DbValue::Null,
            1 => DbValue::Int(i64::from_le_bytes(self.eight()?)),
            2 => DbValue::Real(f64::from_le_bytes(self.eight()?)),
            3 => DbValue::Text(self.text()?),
            4 => DbValue::Blob(self.text()?),
            5 => DbValue::Time(i64::from_le_bytes(self.eight()?)),
            _ => return Err(damaged()),
        })
    }

    fn eight(&mut self) -> Result<[u8; 8]> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn count(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.0.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<Bytes> {
        let length = self.count()?;
        if length > MAX_TEXT {
            return Err(damaged());
        }
        let mut text = vec![0; length as usize];
        self.0.read_exact(&mut text)?;
        Ok(text.into())
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::InvalidData, "it is damaged, or of another version")
}

/// Writes the states of gateways and carriers beside the rows.
pub fn write_states(path: &Path, data: &Data) -> Result<()> {
    let (states, fresh) = (beside(path, ".states"), beside(path, ".states.new"));
    let mut out = BufWriter::new(own_file::private(&fresh)?);
    for gateway in &data.ends.gateways {
        writeln!(out, "G {} {}", gateway.destination.state() as u8, String::from_utf8_lossy(&gateway.id))?;
    }
    for carrier in &data.ends.carriers {
        writeln!(out, "C {} {}", u8::from(carrier.is_off()), String::from_utf8_lossy(&carrier.id))?;
    }
    out.flush()?;
    std::fs::rename(fresh, states)
}

/// Takes up the states that were written; without such a file those of the rows stay.
pub fn read_states(path: &Path, data: &Data) {
    let Ok(text) = std::fs::read_to_string(beside(path, ".states")) else { return };
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (kind, state, id) = (words.next(), words.next(), words.next().unwrap_or_default());
        let state = state.and_then(|state| state.parse().ok()).unwrap_or(0);
        match kind {
            Some("G") => {
                if let (Some(gateway), Some(state)) =
                    (data.ends.gateway(id.as_bytes()), State::of_column(state))
                {
                    gateway.destination.load_state(state);
                }
            }
            _ => {
                if let Some(carrier) = data.ends.carrier(id.as_bytes()) {
                    carrier.set_off(state != 0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back() {
        let folder = crate::testing::Folder::new("drouting-kept");
        let path = folder.0.join("kept");
        let cells = vec![
            DbValue::Int(-5),
            DbValue::Null,
            DbValue::Text("abc".into()),
            DbValue::Real(0.5),
            DbValue::Blob("".into()),
            DbValue::Time(7),
        ];
        let columns = vec!["a".into(), "b".into(), "c".into()];
        let rows = Rows::new(columns, cells);
        let mut recorder = Recorder::new(&path).expect("a file");
        recorder.page(Kind::Rules, &"dr_rules".into(), &rows).expect("a page");
        assert!(Player::open(&path).is_err(), "nothing is in place yet");
        recorder.finish().expect("in place");
        let mut player = Player::open(&path).expect("a file");
        let (kind, table, back) = player.page().expect("sound").expect("a page");
        assert_eq!((kind, &*table, back.len()), (Kind::Rules, "dr_rules", 2));
        assert!(back.iter().zip(rows.iter()).all(|(a, b)| a.cells == b.cells));
        assert!(player.page().expect("sound").is_none());
        let whole = std::fs::read(&path).expect("the file");
        std::fs::write(&path, &whole[..whole.len() - 3]).expect("cut");
        assert!(Player::open(&path).expect("its head").page().is_err());
    }
}
