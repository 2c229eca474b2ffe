//! Rows into script variables.

use bytes::Bytes;
use host::avp::AvpName;
use host::db::{DbError, DbValue, Rows};
use host::var::VarKind;
use host::{Ctx, OutVars, Value};
use script::ast::AssignOp;

/// What a NULL of the database becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nulls {
    /// The text "<null>".
    Text,
    Null,
}

/// How cells are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub nulls: Nulls,
    /// Numbers beyond 32 bits become texts (`bigint_to_str`).
    pub big_as_text: bool,
}

impl Reading {
    fn value(self, cell: &DbValue) -> Value {
        match cell {
            DbValue::Null if self.nulls == Nulls::Text => Value::from("<null>"),
            DbValue::Int(n) if self.big_as_text && i32::try_from(*n).is_err() => Value::from(n.to_string()),
            cell => cell.script(),
        }
    }
}

const ERROR: i32 = -1;
const NO_ROWS: i32 = -2;

/// Every row, one AVP a column: index 0 is the first row. Without variables the AVPs are named
/// 1, 2, ... Return code of `sql_query`.
pub fn into_avps(
    ctx: &mut Ctx,
    rows: &Result<Rows, DbError>,
    vars: Option<&OutVars>,
    reading: Reading,
) -> i32 {
    let Ok(rows) = rows else { return ERROR };
    if rows.is_empty() {
        return NO_ROWS;
    }
    let vars = vars.map(|v| &v.0[..]).filter(|v| !v.is_empty());
    for row in rows.iter().rev() {
        for (i, cell) in row.cells.iter().enumerate() {
            let value = reading.value(cell);
            let Some(vars) = vars else {
                ctx.state.avps.borrow_mut().add(numbered(i), value);
                continue;
            };
            match vars.get(i) {
                Some(var) => match var.kind {
                    VarKind::Avp(name) => ctx.state.avps.borrow_mut().add(name, value),
                    _ => drop(var.set(ctx, AssignOp::Set, value)),
                },
                None => break,
            }
        }
    }
    1
}

/// The first row into any variables; NULL stays NULL. Return code of `sql_query_one`.
pub fn into_first(
    ctx: &mut Ctx,
    rows: &Result<Rows, DbError>,
    vars: Option<&OutVars>,
    reading: Reading,
) -> i32 {
    let Ok(rows) = rows else { return ERROR };
    let Some(row) = rows.first() else { return NO_ROWS };
    let Some(vars) = vars.map(|v| &v.0[..]).filter(|v| !v.is_empty()) else {
        for (i, cell) in row.cells.iter().enumerate() {
            ctx.state.avps.borrow_mut().add(numbered(i), reading.value(cell));
        }
        return 1;
    };
    if vars.len() < row.cells.len() {
        host::error!(
            "sqlops",
            "{} columns came, but only {} variables are given",
            row.cells.len(),
            vars.len()
        );
        return ERROR;
    }
    for (var, cell) in vars.iter().zip(row.cells) {
        let value = reading.value(cell);
        if !var.set(ctx, AssignOp::Set, value) {
            return ERROR;
        }
    }
    1
}

fn numbered(column: usize) -> AvpName {
    AvpName::new(Bytes::from((column + 1).to_string()).as_ref())
}
