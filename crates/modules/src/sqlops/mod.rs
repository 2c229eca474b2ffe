//! sqlops: SQL from scripts. Every function holds its script until the answer is there.

mod json;

use crate::userdb::{
    self, AvpSpec, DbId, HasUserDb, Nulls, Reading, Source, TableSpec, UserDb, into_avps, into_first,
};
use bytes::Bytes;
use host::db::{Name, Query, filled_json};
use host::{Call, OutVars, Outcome, Registrar, Routes, Text, Traced, Word};

pub struct Sqlops(UserDb);

impl Default for Sqlops {
    fn default() -> Sqlops {
        Sqlops(UserDb::new(true, Some("usr_preferences")))
    }
}

impl HasUserDb for Sqlops {
    const MODULE: &'static str = "sqlops";
    fn user_db(&self) -> &UserDb {
        &self.0
    }
    fn user_db_mut(&mut self) -> &mut UserDb {
        &mut self.0
    }
}

pub fn register(m: &mut Registrar<Sqlops>) {
    userdb::register(m);
    m.param_text("usr_table", |m, table| {
        m.0.set_table(table);
        Ok(())
    });
    m.param_int("bigint_to_str", |m, on| {
        m.0.big_as_text = on != 0;
        Ok(())
    });
    m.ignored(&["ps_id_max_buf_len"], "statements need no buffer");
    m.function("sql_query", Routes::ALL, query);
    m.function("sql_query_one", Routes::ALL, query_one);
    m.function("sql_select", Routes::ALL, select);
    m.function("sql_select_one", Routes::ALL, select_one);
    m.function("sql_insert", Routes::ALL, insert);
    m.function("sql_replace", Routes::ALL, replace);
    m.function("sql_update", Routes::ALL, update);
    m.function("sql_delete", Routes::ALL, delete);
    m.function("sql_avp_load", Routes::ALL, avp_load);
    m.function("sql_avp_store", Routes::ALL, avp_store);
    m.function("sql_avp_delete", Routes::ALL, avp_delete);
}

fn reading(call: &Call<Sqlops>, nulls: Nulls) -> Reading {
    Reading { nulls, big_as_text: call.module.0.big_as_text }
}

/// sql_query(query, [AVPs], [db]): all rows; 1, -2 without rows, -1 on errors.
fn query(call: &mut Call<Sqlops>, query: Traced, vars: Option<OutVars>, db: DbId) -> Outcome {
    let reading = reading(call, Nulls::Text);
    let query = Query::script(call.ctx, query);
    db.0.suspend(call.ctx, "sql_query", query, move |ctx, rows| into_avps(ctx, &rows, vars.as_ref(), reading))
}

/// sql_query_one(query, [variables], [db]): the first row, NULLs as they are.
fn query_one(call: &mut Call<Sqlops>, query: Traced, vars: Option<OutVars>, db: DbId) -> Outcome {
    let reading = reading(call, Nulls::Null);
    let query = Query::script(call.ctx, query);
    db.0.suspend(call.ctx, "sql_query_one", query, move |ctx, rows| {
        into_first(ctx, &rows, vars.as_ref(), reading)
    })
}

/// A problem in the script's JSON: said, and -1.
fn wrong(what: &str, error: &str) -> Outcome {
    host::error!("sqlops", "{what}: {error}");
    Outcome::Done(-1)
}

fn name(text: &Text) -> Name {
    Name::from(text.str().into_owned())
}

fn selection(
    columns: Option<Text>,
    table: &Text,
    filter: Option<Traced>,
    order: Option<Text>,
) -> Result<Query, String> {
    let mut query = Query::select(name(table)).columns(json::columns(columns.as_deref())?);
    for cond in json::filter(filter.as_ref().map(filled_json).as_ref())? {
        query = query.filter(cond.column, cond.op, cond.value);
    }
    Ok(match order.filter(|o| !o.is_empty()) {
        Some(order) => query.order(name(&order)),
        None => query,
    })
}

/// sql_select([columns], table, [filter], [order], [AVPs], [db])
fn select(
    call: &mut Call<Sqlops>,
    columns: Option<Text>,
    table: Text,
    filter: Option<Traced>,
    order: Option<Text>,
    vars: Option<OutVars>,
    db: DbId,
) -> Outcome {
    let reading = reading(call, Nulls::Text);
    match selection(columns, &table, filter, order) {
        Ok(query) => db.0.suspend(call.ctx, "sql_select", query, move |ctx, rows| {
            into_avps(ctx, &rows, vars.as_ref(), reading)
        }),
        Err(error) => wrong("sql_select", &error),
    }
}

/// sql_select_one([columns], table, [filter], [order], [variables], [db])
fn select_one(
    call: &mut Call<Sqlops>,
    columns: Option<Text>,
    table: Text,
    filter: Option<Traced>,
    order: Option<Text>,
    vars: Option<OutVars>,
    db: DbId,
) -> Outcome {
    let reading = reading(call, Nulls::Null);
    match selection(columns, &table, filter, order) {
        // More than one row would be thrown away.
        Ok(query) => db.0.suspend(call.ctx, "sql_select_one", query.limit(1), move |ctx, rows| {
            into_first(ctx, &rows, vars.as_ref(), reading)
        }),
        Err(error) => wrong("sql_select_one", &error),
    }
}

/// A statement that changes rows: 1, or -1 on errors.
fn change(call: &mut Call<Sqlops>, what: &'static str, query: Result<Query, String>, db: &DbId) -> Outcome {
    match query {
        Ok(query) => db.0.suspend(call.ctx, what, query, |_, rows| if rows.is_ok() { 1 } else { -1 }),
        Err(error) => wrong(what, &error),
    }
}

fn with_values(mut query: Query, columns: &Traced) -> Result<Query, String> {
    for (column, value) in json::values(&filled_json(columns))? {
        query = query.set(column, value);
    }
    Ok(query)
}

fn with_filter(mut query: Query, filter: Option<Traced>) -> Result<Query, String> {
    for cond in json::filter(filter.as_ref().map(filled_json).as_ref())? {
        query = query.filter(cond.column, cond.op, cond.value);
    }
    Ok(query)
}

/// sql_insert(table, columns, [db])
fn insert(call: &mut Call<Sqlops>, table: Text, columns: Traced, db: DbId) -> Outcome {
    let query = with_values(Query::insert(name(&table)), &columns);
    change(call, "sql_insert", query, &db)
}

/// sql_replace(table, columns, [db]): not with PostgreSQL.
fn replace(call: &mut Call<Sqlops>, table: Text, columns: Traced, db: DbId) -> Outcome {
    let query = with_values(Query::replace(name(&table)), &columns);
    change(call, "sql_replace", query, &db)
}

/// sql_update(columns, table, [filter], [db])
fn update(
    call: &mut Call<Sqlops>,
    columns: Traced,
    table: Text,
    filter: Option<Traced>,
    db: DbId,
) -> Outcome {
    let query = with_values(Query::update(name(&table)), &columns).and_then(|q| with_filter(q, filter));
    change(call, "sql_update", query, &db)
}

/// sql_delete(table, [filter], [db])
fn delete(call: &mut Call<Sqlops>, table: Text, filter: Option<Traced>, db: DbId) -> Outcome {
    let query = with_filter(Query::delete(name(&table)), filter);
    change(call, "sql_delete", query, &db)
}

/// sql_avp_load(source, name, [db], [prefix])
fn avp_load(
    call: &mut Call<Sqlops>,
    source: Source,
    spec: AvpSpec,
    db: DbId,
    prefix: Option<Word>,
) -> Outcome {
    let prefix = prefix.map_or(Bytes::new(), |p| p.0);
    userdb::load(call, &source, spec, &db, prefix, "sql_avp_load")
}

/// sql_avp_store(source, name, [db])
fn avp_store(call: &mut Call<Sqlops>, source: Source, spec: TableSpec, db: DbId) -> Outcome {
    userdb::store(call, &source, &spec, &db, "sql_avp_store")
}

/// sql_avp_delete(source, name, [db])
fn avp_delete(call: &mut Call<Sqlops>, source: Source, spec: TableSpec, db: DbId) -> Outcome {
    userdb::delete(call, &source, &spec, &db, "sql_avp_delete")
}

#[cfg(test)]
mod tests;
