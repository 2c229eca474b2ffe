//! A table in pages, in the order of its key, so that a million rows never stand in memory at once.

use super::load::Failure;
use host::db::{DbValue, Name, Op, Pool, Query, Rows};
use std::rc::Rc;

/// Rows of a page. A worker takes them in between messages: some milliseconds.
const PAGE: u64 = 4000;

pub struct Pages {
    pool: Rc<dyn Pool>,
    table: Name,
    /// The first is the key.
    columns: Vec<&'static str>,
    /// Where the next page begins.
    after: Option<DbValue>,
    size: u64,
    ended: bool,
}

impl Pages {
    pub fn new(pool: &Rc<dyn Pool>, table: &Name, columns: &[&'static str]) -> Pages {
        let (pool, table, columns) = (pool.clone(), table.clone(), columns.to_vec());
        Pages { pool, table, columns, after: None, size: PAGE, ended: false }
    }

    /// The next page; `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<Rows>, Failure> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let key = self.columns[0];
            let mut query =
                Query::select(&self.table).columns(self.columns.iter().copied()).order(key).limit(self.size);
            if let Some(after) = &self.after {
                query = query.filter(key, Op::Gt, after.clone());
            }
            let rows = self.pool.run(query).await;
            let mut rows = rows.map_err(|error| Failure::of(&error, &format!("table {}", self.table)))?;
            if (rows.len() as u64) < self.size {
                self.ended = true;
                return Ok(Some(rows).filter(|rows| !rows.is_empty()));
            }
            // Rows that have the key of the last one may go on behind the page: they come with the next one.
            let last = rows.iter().next_back().map(|row| row.at(0).clone());
            let whole = rows.iter().rposition(|row| Some(row.at(0)) != last.as_ref());
            let Some(whole) = whole else {
                self.size *= 2;
                continue;
            };
            self.after = rows.iter().nth(whole).map(|row| row.at(0).clone());
            rows.truncate(whole + 1);
            return Ok(Some(rows));
        }
    }
}
