//! Puts a result together from what a server sends.

use super::Failure;
use host::db::{DbValue, Name, Rows};

/// A result larger than this is an error, in bytes.
const MAX_RESULT: usize = 256 << 20;

/// The first result set of a statement; of the later ones only the counts.
#[derive(Default)]
pub struct Collect {
    columns: Vec<Name>,
    cells: Vec<DbValue>,
    size: usize,
    /// The first set is complete.
    complete: bool,
    affected: u64,
    insert_id: i64,
}

impl Collect {
    /// The next row is the first.
    pub fn starts(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn columns<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.columns = names.map(|n| Name::from(n.to_string())).collect();
    }

    pub fn row(&mut self, width: usize, cell: impl Fn(usize) -> DbValue) -> Result<(), Failure> {
        if self.complete || width != self.columns.len() {
            return Ok(());
        }
        for i in 0..width {
            let cell = cell(i);
            self.size += 32
                + match &cell {
                    DbValue::Text(t) | DbValue::Blob(t) => t.len(),
                    _ => 0,
                };
            self.cells.push(cell);
        }
        if self.size > MAX_RESULT {
            // The rest is still on its way: this connection is of no more use.
            return Err(Failure::Lost("the result is too large".to_string()));
        }
        Ok(())
    }

    /// A statement of the text is done.
    pub fn done(&mut self, affected: u64, insert_id: i64) {
        self.affected += affected;
        if insert_id != 0 {
            self.insert_id = insert_id;
        }
        self.complete |= !self.columns.is_empty();
    }

    pub fn rows(self) -> Rows {
        let mut rows = Rows::new(self.columns, self.cells);
        rows.affected = self.affected;
        rows.insert_id = self.insert_id;
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_result_set_counts() {
        let mut out = Collect::default();
        out.columns(["a", "b"].into_iter());
        out.row(2, |i| DbValue::Int(i as i64)).expect("fits");
        out.done(0, 0);
        out.row(2, |_| DbValue::Null).expect("is left out");
        out.done(3, 9);
        let rows = out.rows();
        assert_eq!((rows.len(), rows.affected, rows.insert_id), (1, 3, 9));
    }
}
