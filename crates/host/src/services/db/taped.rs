//! A pool that a tape hears of: what was asked of a database, and what it answered.

use super::render::{Dialect, literal};
use super::{BatchFuture, DbError, DbFuture, DbValue, Name, Pool, Query, Rows};
use crate::context::coded::{Coded, put_number, take_number};
use crate::context::tape::awaited;
use bytes::Bytes;
use std::rc::Rc;

/// What a replay answers to a query that was not asked when it was recorded.
pub const NOT_RECORDED: &str = "the recording has no answer to this";

pub(super) struct TapedPool {
    pub(super) inner: Rc<dyn Pool>,
    /// Its URL, without the password.
    pub(super) database: String,
}

fn absent() -> DbError {
    DbError::Down(NOT_RECORDED.to_string())
}

fn written(query: &Query) -> String {
    literal(query, Dialect::Sqlite).unwrap_or_else(|_| String::from_utf8_lossy(&query.detail()).into_owned())
}

impl Pool for TapedPool {
    fn run(&self, query: Query) -> DbFuture {
        let (database, asked) = (self.database.clone(), query.clone());
        let question = move || format!("{database}: {}", written(&asked));
        // Started when it is polled, as every pool does it: what a tape knows is not asked.
        let (inner, live) = (self.inner.clone(), async move |inner: Rc<dyn Pool>| inner.run(query).await);
        Box::pin(async move { awaited("db", question, live(inner), || Err(absent())).await })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let (database, asked) = (self.database.clone(), queries.clone());
        let question = move || {
            let list: Vec<String> = asked.iter().map(written).collect();
            format!("{database}: {}", list.join("; "))
        };
        let (inner, live) =
            (self.inner.clone(), async move |inner: Rc<dyn Pool>| inner.run_all(queries).await);
        Box::pin(async move { awaited("db-batch", question, live(inner), || Err(absent())).await })
    }
}

impl Coded for Name {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Name> {
        String::take(from).map(Name::from)
    }
}

impl Coded for DbValue {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            DbValue::Null => out.push(0),
            DbValue::Int(n) => {
                out.push(1);
                n.put(out);
            }
            DbValue::Real(x) => {
                out.push(2);
                out.extend_from_slice(&x.to_bits().to_le_bytes());
            }
            DbValue::Text(text) => {
                out.push(3);
                text.put(out);
            }
            DbValue::Blob(text) => {
                out.push(4);
                text.put(out);
            }
            DbValue::Time(n) => {
                out.push(5);
                n.put(out);
            }
        }
    }
    fn take(from: &mut &[u8]) -> Option<DbValue> {
        Some(match u8::take(from)? {
            0 => DbValue::Null,
            1 => DbValue::Int(i64::take(from)?),
            2 => {
                let bits = crate::context::coded::take_bytes(from, 8)?.try_into().ok()?;
                DbValue::Real(f64::from_bits(u64::from_le_bytes(bits)))
            }
            3 => DbValue::Text(Bytes::take(from)?),
            4 => DbValue::Blob(Bytes::take(from)?),
            5 => DbValue::Time(i64::take(from)?),
            _ => return None,
        })
    }
}

impl Coded for Rows {
    fn put(&self, out: &mut Vec<u8>) {
        self.columns().to_vec().put(out);
        put_number((self.len() * self.columns().len()) as u64, out);
        self.iter().flat_map(|row| row.cells).for_each(|cell| cell.put(out));
        self.affected.put(out);
        self.insert_id.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Rows> {
        let columns = Vec::<Name>::take(from)?;
        let cells = (0..take_number(from)?).map(|_| DbValue::take(from)).collect::<Option<Vec<_>>>()?;
        let mut rows = Rows::new(columns, cells);
        rows.affected = u64::take(from)?;
        rows.insert_id = i64::take(from)?;
        Some(rows)
    }
}

impl Coded for DbError {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, code, text) = match self {
            DbError::Down(why) => (0u8, "", why.as_str()),
            DbError::Busy => (1, "", ""),
            DbError::TimedOut => (2, "", ""),
            DbError::Refused { code, message } => (3, code.as_str(), message.as_str()),
            DbError::Unable { code, message } => (4, code.as_str(), message.as_str()),
            DbError::Several => (5, "", ""),
            DbError::Unsupported(_) => (6, "", ""),
        };
        out.push(kind);
        code.to_string().put(out);
        text.to_string().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<DbError> {
        let (kind, code, message) = (u8::take(from)?, String::take(from)?, String::take(from)?);
        Some(match kind {
            0 => DbError::Down(message),
            1 => DbError::Busy,
            2 => DbError::TimedOut,
            3 => DbError::Refused { code, message },
            4 => DbError::Unable { code, message },
            5 => DbError::Several,
            _ => DbError::Unsupported("such a function"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_databases_are_kept() {
        let cells = vec![
            DbValue::Null,
            DbValue::Int(-5),
            DbValue::Real(2.5),
            "x".into(),
            DbValue::Time(7),
            DbValue::Blob("b".into()),
        ];
        let mut rows = Rows::new(vec!["a".into(), "b".into()], cells);
        rows.affected = 3;
        let answers: [Result<Rows, DbError>; 4] = [
            Ok(rows),
            Ok(Rows::changed(2, 9)),
            Err(DbError::TimedOut),
            Err(DbError::Refused { code: "1".into(), message: "no".into() }),
        ];
        for answer in answers {
            assert_eq!(Result::take(&mut &answer.coded()[..]), Some(answer));
        }
    }
}
