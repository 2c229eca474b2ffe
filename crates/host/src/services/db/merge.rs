//! Statements of one transaction put together, so that a server far away is asked less often.

use super::query::{Action, Join, Op, Query, TableQuery};

/// Rows of one statement at most: what drivers and servers take by default stays far away.
const ROWS: usize = 100;

impl Query {
    /// The same statements, fewer: neighbours that insert or upsert rows of the same columns become one, and so
    /// do deletes by the value of the same column. Rows of one key must not come twice.
    pub fn merged(queries: Vec<Query>) -> Vec<Query> {
        let mut merged: Vec<Query> = Vec::new();
        for query in queries {
            match (merged.last_mut(), query) {
                (Some(Query::Table(last)), Query::Table(next)) => {
                    if let Err(next) = last.take(next) {
                        merged.push(Query::Table(next));
                    }
                }
                (_, query) => merged.push(query),
            }
        }
        merged
    }
}

impl TableQuery {
    /// Takes another statement over, or gives it back.
    fn take(&mut self, next: Box<TableQuery>) -> Result<(), Box<TableQuery>> {
        if self.action != next.action || self.table != next.table {
            return Err(next);
        }
        let keys = self.filter.iter().map(|c| &c.column).eq(next.filter.iter().map(|c| &c.column));
        let columns = self.values.iter().map(|(c, _)| c).eq(next.values.iter().map(|(c, _)| c));
        match self.action {
            Action::Insert | Action::Upsert
                if keys && columns && next.rows.is_empty() && self.rows.len() + 1 < ROWS =>
            {
                let key = next.filter.into_iter().map(|c| c.value);
                self.rows.push(key.chain(next.values.into_iter().map(|(_, value)| value)).collect());
                Ok(())
            }
            Action::Delete if self.is_by_value(&next) && self.filter.len() < ROWS => {
                self.join = Join::Or;
                self.filter.extend(next.filter);
                Ok(())
            }
            _ => Err(next),
        }
    }

    /// Both delete what has one value, or one of some, in the same column.
    fn is_by_value(&self, next: &TableQuery) -> bool {
        let [cond] = &next.filter[..] else { return false };
        let one = self.filter.len() == 1 || self.join == Join::Or;
        one && cond.op == Op::Eq && self.filter.iter().all(|c| c.op == Op::Eq && c.column == cond.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Dialect, literal};

    #[track_caller]
    fn check(queries: Vec<Query>, expected: &[&str]) {
        let texts: Vec<String> = Query::merged(queries)
            .iter()
            .map(|query| literal(query, Dialect::Postgres).expect("this can be written"))
            .collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn neighbours_of_one_kind() {
        let upsert = |id: i64, name: &'static str| Query::upsert("t").eq("id", id).set("name", name);
        check(
            vec![upsert(1, "a"), upsert(2, "b"), Query::delete("t").eq("id", 3), upsert(4, "c")],
            &[
                "insert into t (id,name) values (1,'a'),(2,'b') on conflict (id) do update set name=excluded.name",
                "delete from t where id=3",
                "insert into t (id,name) values (4,'c') on conflict (id) do update set name=excluded.name",
            ],
        );
        check(
            vec![
                Query::delete("t").eq("id", 1),
                Query::delete("t").eq("id", 2),
                Query::delete("u").eq("id", 3),
            ],
            &["delete from t where id=1 or id=2", "delete from u where id=3"],
        );
        let two = Query::delete("t").eq("a", 1).eq("b", 2);
        check(vec![two.clone(), two.clone()], &["delete from t where a=1 and b=2"; 2]);
        check(vec![Query::raw("begin"), Query::raw("commit")], &["begin", "commit"]);
    }
}
