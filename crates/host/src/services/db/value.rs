//! What databases hold, and what queries give back.

use super::query::Name;
use bytes::Bytes;
use script::Value;

/// A typed value of a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DbValue {
    #[default]
    Null,
    Int(i64),
    Real(f64),
    Text(Bytes),
    Blob(Bytes),
    /// A moment, Unix seconds. Written as local time, as the reference does.
    Time(i64),
}

impl DbValue {
    pub fn is_null(&self) -> bool {
        matches!(self, DbValue::Null)
    }

    /// A number, also one written as text ("5").
    pub fn int(&self) -> Option<i64> {
        match self {
            DbValue::Int(n) | DbValue::Time(n) => Some(*n),
            DbValue::Real(x) => Some(*x as i64),
            DbValue::Text(t) | DbValue::Blob(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
            DbValue::Null => None,
        }
    }

    /// A number with a fraction, also one written as text.
    pub fn real(&self) -> Option<f64> {
        match self {
            DbValue::Int(n) | DbValue::Time(n) => Some(*n as f64),
            DbValue::Real(x) => Some(*x),
            DbValue::Text(t) | DbValue::Blob(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
            DbValue::Null => None,
        }
    }

    /// Text and blobs as they are, numbers printed; `None` for NULL.
    pub fn text(&self) -> Option<Bytes> {
        Some(match self {
            DbValue::Null => return None,
            DbValue::Int(n) | DbValue::Time(n) => Bytes::from(n.to_string()),
            DbValue::Real(x) => Bytes::from(x.to_string()),
            DbValue::Text(t) | DbValue::Blob(t) => t.clone(),
        })
    }

    /// Like `text`, as a string; "" for NULL.
    pub fn string(&self) -> String {
        self.text().map_or_else(String::new, |t| String::from_utf8_lossy(&t).into_owned())
    }

    /// Unix seconds: a time column, a number, or a text "YYYY-MM-DD hh:mm:ss".
    pub fn time(&self) -> Option<i64> {
        match self {
            DbValue::Text(t) | DbValue::Blob(t) => {
                let text = std::str::from_utf8(t).ok()?;
                text.trim().parse().ok().or_else(|| crate::clock::from_sql(text))
            }
            other => other.int(),
        }
    }

    /// What a script sees: NULL, a number (also for times), or a text.
    pub fn script(&self) -> Value {
        match self {
            DbValue::Null => Value::Null,
            DbValue::Int(n) | DbValue::Time(n) => Value::Int(*n),
            DbValue::Real(x) => Value::from(x.to_string()),
            DbValue::Text(t) | DbValue::Blob(t) => Value::Str(t.clone()),
        }
    }
}

impl From<&Value> for DbValue {
    /// A number stays a number; a text that is also a number goes as text.
    fn from(value: &Value) -> DbValue {
        match value {
            Value::Null | Value::Nought | Value::Failed => DbValue::Null,
            Value::Int(n) | Value::Num(_, n) => DbValue::Int(*n),
            Value::Str(t) | Value::Pieced(t, _) | Value::Both(t, _) => DbValue::Text(t.clone()),
        }
    }
}

impl From<i64> for DbValue {
    fn from(n: i64) -> DbValue {
        DbValue::Int(n)
    }
}

impl From<&'static str> for DbValue {
    fn from(text: &'static str) -> DbValue {
        DbValue::Text(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for DbValue {
    fn from(text: String) -> DbValue {
        DbValue::Text(Bytes::from(text))
    }
}

impl<T: Into<DbValue>> From<Option<T>> for DbValue {
    fn from(value: Option<T>) -> DbValue {
        value.map_or(DbValue::Null, Into::into)
    }
}

/// The result of a statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    columns: Vec<Name>,
    /// Row after row, each as wide as `columns`.
    cells: Vec<DbValue>,
    /// Rows that an INSERT, UPDATE or DELETE changed.
    pub affected: u64,
    /// Number that the database gave to the row inserted last; 0: none, or not told.
    pub insert_id: i64,
}

impl Rows {
    /// From columns and their cells, row after row.
    pub fn new(columns: Vec<Name>, mut cells: Vec<DbValue>) -> Rows {
        let width = columns.len().max(1);
        cells.truncate(cells.len() / width * width);
        if columns.is_empty() {
            cells.clear();
        }
        Rows { columns, cells, affected: 0, insert_id: 0 }
    }

    /// The result of a statement that gives no rows.
    pub fn changed(affected: u64, insert_id: i64) -> Rows {
        Rows { affected, insert_id, ..Rows::default() }
    }

    pub fn columns(&self) -> &[Name] {
        &self.columns
    }

    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.columns.len()).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Keeps the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.cells.truncate(rows.saturating_mul(self.columns.len()));
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Row<'_>> + ExactSizeIterator {
        self.cells.chunks_exact(self.columns.len().max(1)).map(|cells| Row { columns: &self.columns, cells })
    }

    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

/// One row; indexes count from 0 in the order of the query's columns.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a [Name],
    pub cells: &'a [DbValue],
}

impl<'a> Row<'a> {
    /// Null past the end.
    pub fn at(&self, index: usize) -> &'a DbValue {
        self.cells.get(index).unwrap_or(&DbValue::Null)
    }

    /// By column name, whatever its case; Null when there is no such column.
    pub fn named(&self, column: &str) -> &'a DbValue {
        let at = self.columns.iter().position(|c| c.eq_ignore_ascii_case(column));
        at.map_or(&DbValue::Null, |i| &self.cells[i])
    }

    pub fn int(&self, index: usize) -> Option<i64> {
        self.at(index).int()
    }

    pub fn text(&self, index: usize) -> Option<Bytes> {
        self.at(index).text()
    }

    /// "" for NULL.
    pub fn string(&self, index: usize) -> String {
        self.at(index).string()
    }

    pub fn time(&self, index: usize) -> Option<i64> {
        self.at(index).time()
    }

    pub fn real(&self, index: usize) -> Option<f64> {
        self.at(index).real()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_what_is_asked_for() {
        let text = |t: &'static str| DbValue::from(t);
        assert_eq!(text(" 5").int(), Some(5));
        assert_eq!(text("x").int(), None);
        assert_eq!(DbValue::Real(2.5).text().as_deref(), Some(&b"2.5"[..]));
        assert_eq!(text("1970-01-02 00:00:00").time(), Some(86_400));
        assert_eq!(text("12").time(), Some(12));
        assert_eq!(DbValue::Null.string(), "");
        assert_eq!(DbValue::Time(7).script(), Value::Int(7));
        assert_eq!(DbValue::from(None::<i64>), DbValue::Null);
    }

    #[test]
    fn rows_are_cut_by_columns() {
        let rows = Rows::new(
            vec!["a".into(), "B".into()],
            vec![1.into(), "x".into(), 2.into(), "y".into(), 3.into()],
        );
        assert_eq!(rows.len(), 2);
        let last = rows.iter().next_back().expect("two rows");
        assert_eq!(last.int(0), Some(2));
        assert_eq!(last.named("b").string(), "y");
        assert!(last.at(9).is_null());
        assert!(Rows::new(Vec::new(), vec![1.into()]).is_empty());
        assert_eq!(Rows::changed(3, 0).len(), 0);
    }
}
