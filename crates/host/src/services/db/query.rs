//! Queries: a table's columns, conditions and values, or a text.

use super::value::DbValue;
use crate::ctx::Ctx;
use bytes::Bytes;
use script::Traced;
use std::fmt;
use std::ops::Deref;

/// A table, column or operator. Cheap to copy.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Name(Bytes);

impl Name {
    pub const fn fixed(name: &'static str) -> Name {
        Name(Bytes::from_static(name.as_bytes()))
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        // Only ever made from `str`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Name {
        Name::fixed(name)
    }
}

impl From<String> for Name {
    fn from(name: String) -> Name {
        Name(Bytes::from(name))
    }
}

impl From<&String> for Name {
    fn from(name: &String) -> Name {
        Name(Bytes::copy_from_slice(name.as_bytes()))
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        name.clone()
    }
}

/// How a column is compared. NULL compares with IS NULL and IS NOT NULL.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// As written ("like").
    Other(Name),
}

/// One condition of a WHERE.
#[derive(Clone, Debug, PartialEq)]
pub struct Cond {
    pub column: Name,
    pub op: Op,
    pub value: DbValue,
}

/// What joins the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Join {
    #[default]
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Select,
    Insert,
    /// Deletes the row that has the same key first. PostgreSQL has none.
    Replace,
    /// Inserts, or changes the row that has the same key: the columns of `filter` are the key.
    Upsert,
    Update,
    Delete,
}

/// A query on one table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableQuery {
    pub action: Action,
    pub table: Name,
    /// Selected columns; none is all (`*`).
    pub columns: Vec<Name>,
    /// Columns and values that an insert or update writes.
    pub values: Vec<(Name, DbValue)>,
    /// Further rows of an insert, values in the order of `values`.
    pub rows: Vec<Vec<DbValue>>,
    pub filter: Vec<Cond>,
    pub join: Join,
    /// Ascending.
    pub order: Option<Name>,
    pub limit: Option<u64>,
}

/// What is asked of a database. Names go into the statement as they are; values never do.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Table(Box<TableQuery>),
    Raw(Statement),
}

/// A statement that somebody wrote as a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What did not come from the script is escaped where it stands between quotes, when the statement is written
    /// for its server.
    pub text: Traced,
    /// More than one statement may stand in it.
    pub several: bool,
}

impl Query {
    /// One statement of the server's own.
    pub fn raw(text: impl Into<Bytes>) -> Query {
        Query::Raw(text.into().into())
    }

    /// A statement of a script, several only if the core parameter `db_multi_statements` is set.
    pub fn script(ctx: &Ctx, text: Traced) -> Query {
        let several = ctx.shared().globals.core.db_multi_statements;
        Query::Raw(Statement { text, several })
    }

    pub fn new(action: Action, table: impl Into<Name>) -> Query {
        Query::Table(Box::new(TableQuery {
            action,
            table: table.into(),
            columns: Vec::new(),
            values: Vec::new(),
            rows: Vec::new(),
            filter: Vec::new(),
            join: Join::And,
            order: None,
            limit: None,
        }))
    }

    pub fn select(table: impl Into<Name>) -> Query {
        Query::new(Action::Select, table)
    }

    pub fn insert(table: impl Into<Name>) -> Query {
        Query::new(Action::Insert, table)
    }

    pub fn replace(table: impl Into<Name>) -> Query {
        Query::new(Action::Replace, table)
    }

    pub fn upsert(table: impl Into<Name>) -> Query {
        Query::new(Action::Upsert, table)
    }

    pub fn update(table: impl Into<Name>) -> Query {
        Query::new(Action::Update, table)
    }

    pub fn delete(table: impl Into<Name>) -> Query {
        Query::new(Action::Delete, table)
    }

    fn with(mut self, change: impl FnOnce(&mut TableQuery)) -> Query {
        if let Query::Table(query) = &mut self {
            change(query);
        }
        self
    }

    /// Selects one more column.
    pub fn column(self, name: impl Into<Name>) -> Query {
        self.with(|q| q.columns.push(name.into()))
    }

    pub fn columns(self, names: impl IntoIterator<Item = impl Into<Name>>) -> Query {
        self.with(|q| q.columns.extend(names.into_iter().map(Into::into)))
    }

    /// Writes one more column.
    pub fn set(self, column: impl Into<Name>, value: impl Into<DbValue>) -> Query {
        self.with(|q| q.values.push((column.into(), value.into())))
    }

    /// Adds a condition.
    pub fn filter(self, column: impl Into<Name>, op: Op, value: impl Into<DbValue>) -> Query {
        self.with(|q| q.filter.push(Cond { column: column.into(), op, value: value.into() }))
    }

    /// Adds `column = value`.
    pub fn eq(self, column: impl Into<Name>, value: impl Into<DbValue>) -> Query {
        self.filter(column, Op::Eq, value)
    }

    /// Any condition is enough.
    pub fn any(self) -> Query {
        self.with(|q| q.join = Join::Or)
    }

    pub fn order(self, column: impl Into<Name>) -> Query {
        self.with(|q| q.order = Some(column.into()))
    }

    pub fn limit(self, rows: u64) -> Query {
        self.with(|q| q.limit = Some(rows))
    }

    /// It changes nothing, so it may be sent again when its connection is lost.
    pub fn reads_only(&self) -> bool {
        match self {
            Query::Table(q) => q.action == Action::Select,
            Query::Raw(Statement { text: Traced { text, .. }, .. }) => {
                let word = text.trim_ascii_start();
                let is = |w: &[u8]| {
                    word.len() > w.len()
                        && word[..w.len()].eq_ignore_ascii_case(w)
                        && !word[w.len()].is_ascii_alphanumeric()
                };
                // "SELECT f()" may change things, and so may what follows a semicolon; only the
                // first is worth the risk of running twice.
                (is(b"select") || is(b"show")) && !text.trim_ascii_end()[..].contains(&b';')
            }
        }
    }

    /// Shown in `async_list` and slow-query lines.
    pub fn detail(&self) -> Bytes {
        match self {
            Query::Raw(statement) => statement.text.text.clone(),
            Query::Table(q) => {
                let verb = match q.action {
                    Action::Select => "select from",
                    Action::Insert => "insert into",
                    Action::Replace => "replace into",
                    Action::Upsert => "upsert into",
                    Action::Update => "update",
                    Action::Delete => "delete from",
                };
                Bytes::from(format!("{verb} {}", q.table))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selects_are_sent_again() {
        for (text, safe) in [
            ("SELECT 1", true),
            ("  select a from b", true),
            ("selectx", false),
            ("select", false),
            ("select 1; delete from x", false),
            ("INSERT INTO a VALUES (1)", false),
            ("(select 1)", false),
        ] {
            assert_eq!(Query::raw(text).reads_only(), safe, "{text}");
        }
        assert!(Query::select("t").reads_only());
        assert!(!Query::delete("t").reads_only());
    }
}
