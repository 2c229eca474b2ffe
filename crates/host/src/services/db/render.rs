//! Structured queries as SQL text.

use super::DbError;
use super::query::{Action, Cond, Join, Name, Op, Query, TableQuery};
use super::statement;
use super::value::DbValue;
use crate::clock;
use std::fmt::Write;

/// Whose SQL is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Sqlite,
    MySql,
    Postgres,
}

/// A statement and the values of its placeholders.
#[derive(Clone, Debug, PartialEq)]
pub struct Sql {
    pub text: String,
    pub values: Vec<DbValue>,
}

/// Writes a query with placeholders (`?`, or `$1` for PostgreSQL). In texts of scripts values that came in are
/// escaped between quotes; bytes that are not UTF-8 are replaced.
pub fn render(query: &Query, dialect: Dialect) -> Result<Sql, DbError> {
    write_query(query, dialect, Values::Apart)
}

/// Writes a query with its values inside, quoted.
pub fn literal(query: &Query, dialect: Dialect) -> Result<String, DbError> {
    Ok(write_query(query, dialect, Values::Inside)?.text)
}

fn write_query(query: &Query, dialect: Dialect, values: Values) -> Result<Sql, DbError> {
    let mut sql = Sql { text: String::new(), values: Vec::new() };
    match query {
        Query::Raw(statement) => {
            let filled = statement::fill(&statement.text, dialect);
            if filled.several && !statement.several {
                return Err(DbError::Several);
            }
            sql.text = match String::from_utf8(filled.text) {
                Ok(text) => text,
                Err(bad) => String::from_utf8_lossy(bad.as_bytes()).into_owned(),
            };
        }
        Query::Table(query) => {
            sql.text.reserve(128);
            let mut out = Writer { sql, dialect, values };
            out.query(query)?;
            sql = out.sql;
        }
    }
    Ok(sql)
}

#[derive(Clone, Copy, PartialEq)]
enum Values {
    Apart,
    Inside,
}

struct Writer {
    sql: Sql,
    dialect: Dialect,
    values: Values,
}

impl Writer {
    fn query(&mut self, q: &TableQuery) -> Result<(), DbError> {
        match q.action {
            Action::Select => {
                self.push("select ");
                if q.columns.is_empty() {
                    self.push("*");
                }
                self.names(q.columns.iter());
                self.push(" from ");
                self.push(&q.table);
                self.filter(q);
                if let Some(order) = &q.order {
                    self.push(" order by ");
                    self.push(order);
                }
                if let Some(limit) = q.limit {
                    self.push(&format!(" limit {limit}"));
                }
            }
            Action::Insert => self.insert("insert into ", q, &[]),
            Action::Replace if self.dialect == Dialect::Postgres => {
                return Err(DbError::Unsupported("REPLACE"));
            }
            Action::Replace => self.insert("replace into ", q, &[]),
            Action::Upsert => self.upsert(q),
            Action::Update => {
                self.push("update ");
                self.push(&q.table);
                self.push(" set ");
                for (i, (column, value)) in q.values.iter().enumerate() {
                    self.comma(i);
                    self.push(column);
                    self.push("=");
                    self.value(value);
                }
                self.filter(q);
            }
            Action::Delete => {
                self.push("delete from ");
                self.push(&q.table);
                self.filter(q);
            }
        }
        Ok(())
    }

    fn insert(&mut self, verb: &str, q: &TableQuery, keys: &[Cond]) {
        self.push(verb);
        self.push(&q.table);
        self.push(" (");
        self.names(keys.iter().map(|k| &k.column).chain(q.values.iter().map(|(c, _)| c)));
        self.push(") values (");
        let values = keys.iter().map(|k| &k.value).chain(q.values.iter().map(|(_, v)| v));
        for (i, value) in values.enumerate() {
            self.comma(i);
            self.value(value);
        }
        self.push(")");
        for row in &q.rows {
            self.push(",(");
            for (i, value) in row.iter().enumerate() {
                self.comma(i);
                self.value(value);
            }
            self.push(")");
        }
    }

    fn upsert(&mut self, q: &TableQuery) {
        self.insert("insert into ", q, &q.filter);
        let (open, source) = match self.dialect {
            Dialect::MySql => (" on duplicate key update ", "values("),
            _ => (" do update set ", "excluded."),
        };
        if self.dialect != Dialect::MySql {
            self.push(" on conflict (");
            self.names(q.filter.iter().map(|k| &k.column));
            self.push(")");
        }
        self.push(open);
        for (i, (column, _)) in q.values.iter().enumerate() {
            self.comma(i);
            self.push(column);
            self.push("=");
            self.push(source);
            self.push(column);
            if self.dialect == Dialect::MySql {
                self.push(")");
            }
        }
    }

    fn filter(&mut self, q: &TableQuery) {
        let join = match q.join {
            Join::And => " and ",
            Join::Or => " or ",
        };
        for (i, cond) in q.filter.iter().enumerate() {
            self.push(if i == 0 { " where " } else { join });
            self.push(&cond.column);
            match (&cond.op, cond.value.is_null()) {
                (Op::Eq, true) => self.push(" is null"),
                (Op::Ne, true) => self.push(" is not null"),
                (op, _) => {
                    self.push(match op {
                        Op::Eq => "=",
                        Op::Ne => "!=",
                        Op::Lt => "<",
                        Op::Le => "<=",
                        Op::Gt => ">",
                        Op::Ge => ">=",
                        Op::Other(_) => " ",
                    });
                    if let Op::Other(word) = op {
                        self.push(word);
                        self.push(" ");
                    }
                    self.value(&cond.value);
                }
            }
        }
    }

    fn names<'a>(&mut self, names: impl Iterator<Item = &'a Name>) {
        for (i, name) in names.enumerate() {
            self.comma(i);
            self.push(name);
        }
    }

    fn value(&mut self, value: &DbValue) {
        if value.is_null() {
            return self.push("null");
        }
        if self.values == Values::Inside {
            return push_literal(&mut self.sql.text, value, self.dialect);
        }
        self.sql.values.push(value.clone());
        match self.dialect {
            Dialect::Postgres => {
                let n = self.sql.values.len();
                self.push(&format!("${n}"));
            }
            _ => self.push("?"),
        }
    }

    fn comma(&mut self, i: usize) {
        if i > 0 {
            self.push(",");
        }
    }

    fn push(&mut self, text: &str) {
        self.sql.text.push_str(text);
    }
}

/// A value as a literal of a statement, for drivers and modules that send plain texts.
pub fn quote(value: &DbValue, dialect: Dialect) -> String {
    let mut out = String::new();
    push_literal(&mut out, value, dialect);
    out
}

fn push_literal(out: &mut String, value: &DbValue, dialect: Dialect) {
    // Writing into a string cannot fail.
    let _ = match value {
        DbValue::Null => out.write_str("NULL"),
        DbValue::Int(n) => write!(out, "{n}"),
        DbValue::Real(x) => write!(out, "{x}"),
        DbValue::Time(unix) => write!(out, "'{}'", clock::sql(*unix)),
        DbValue::Text(text) => {
            push_text(out, &String::from_utf8_lossy(text), dialect);
            Ok(())
        }
        DbValue::Blob(bytes) => match dialect {
            Dialect::Postgres => write!(out, "'\\x{}'::bytea", hex::encode(bytes)),
            _ => write!(out, "x'{}'", hex::encode(bytes)),
        },
    };
}

fn push_text(out: &mut String, text: &str, dialect: Dialect) {
    // E'' reads backslashes the same way whatever `standard_conforming_strings` says.
    if dialect == Dialect::Postgres && text.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    for c in text.chars() {
        match (c, dialect) {
            ('\'', _) => out.push_str("''"),
            // PostgreSQL and SQLite texts cannot hold it.
            ('\0', Dialect::MySql) => out.push_str("\\0"),
            ('\0', _) => {}
            ('\\', Dialect::MySql | Dialect::Postgres) => out.push_str("\\\\"),
            _ => out.push(c),
        }
    }
    out.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: Query, dialect: Dialect, text: &str, values: &[DbValue]) {
        let sql = render(&query, dialect).expect("renders");
        assert_eq!(sql.text, text);
        assert_eq!(sql.values, values);
        let mut inside = literal(&query, dialect).expect("renders");
        for (n, value) in values.iter().enumerate().rev() {
            let quoted = quote(value, dialect);
            let at = inside.rfind(&quoted).expect("the value stands there");
            let mark = if dialect == Dialect::Postgres { format!("${}", n + 1) } else { "?".into() };
            inside.replace_range(at..at + quoted.len(), &mark);
        }
        if !matches!(query, Query::Raw(_)) {
            assert_eq!(inside, text);
        }
    }

    #[test]
    fn queries_render() {
        use Dialect::{MySql, Postgres, Sqlite};
        let select = Query::select("subscriber")
            .columns(["ha1", "rpid"])
            .eq("username", "al'ice")
            .filter("domain", Op::Ne, DbValue::Null)
            .order("id");
        check(
            select.clone(),
            Sqlite,
            "select ha1,rpid from subscriber where username=? and domain is not null order by id",
            &["al'ice".into()],
        );
        check(
            Query::select("t").filter("a", Op::Other("like".into()), "x%").eq("b", 2).any().limit(3),
            Postgres,
            "select * from t where a like $1 or b=$2 limit 3",
            &["x%".into(), 2.into()],
        );
        check(
            Query::insert("t").set("a", 1).set("b", DbValue::Null),
            MySql,
            "insert into t (a,b) values (?,null)",
            &[1.into()],
        );
        check(
            Query::update("t").set("a", 1).eq("b", DbValue::Null),
            Sqlite,
            "update t set a=? where b is null",
            &[1.into()],
        );
        check(Query::delete("t"), Sqlite, "delete from t", &[]);
        check(Query::replace("t").set("a", 1), MySql, "replace into t (a) values (?)", &[1.into()]);
        assert!(render(&Query::replace("t").set("a", 1), Postgres).is_err());
        check(Query::raw("SELECT '?'"), MySql, "SELECT '?'", &[]);
    }

    #[test]
    fn upserts_name_their_key_where_the_dialect_wants_it() {
        let query = Query::upsert("t").eq("k", 1).set("a", 2);
        check(
            query.clone(),
            Dialect::Postgres,
            "insert into t (k,a) values ($1,$2) on conflict (k) do update set a=excluded.a",
            &[1.into(), 2.into()],
        );
        check(
            query,
            Dialect::MySql,
            "insert into t (k,a) values (?,?) on duplicate key update a=values(a)",
            &[1.into(), 2.into()],
        );
    }

    #[test]
    fn literals_cannot_break_out() {
        for (text, dialect, expected) in [
            ("it's", Dialect::Sqlite, "'it''s'"),
            ("a\\' or 1=1", Dialect::MySql, "'a\\\\'' or 1=1'"),
            ("a\\'", Dialect::Postgres, "E'a\\\\'''"),
            ("a\0b", Dialect::Postgres, "'ab'"),
            ("a\\", Dialect::Sqlite, "'a\\'"),
        ] {
            assert_eq!(quote(&text.into(), dialect), expected);
        }
        assert_eq!(quote(&DbValue::Blob(bytes::Bytes::from_static(b"\x01'")), Dialect::MySql), "x'0127'");
        assert_eq!(quote(&DbValue::Time(0), Dialect::Sqlite), "'1970-01-01 00:00:00'");
    }
}
