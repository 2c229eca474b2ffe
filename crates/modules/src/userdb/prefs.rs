//! Preferences: AVPs kept in a table per user, domain or uuid.

use super::spec::{AvpSpec, DbId, Names, Part, Source};
use super::{Columns, HasUserDb};
use bytes::Bytes;
use host::avp::AvpName;
use host::call::Finish;
use host::db::{Cond, DbError, DbValue, LIMIT_MS, Name, Op, Query, Rows};
use host::{Call, Ctx, Outcome, Suspension, Value};
use sip::Uri;

/// `type` column: the value is a number.
const VALUE_IS_INT: i64 = 1;

/// What is needed to find or write rows.
struct Place {
    table: Name,
    columns: Columns,
    keys: Vec<(Name, Bytes)>,
}

impl Place {
    /// `None`: the source is NULL or no URI; `use_domain` of the module decides whether a domain counts.
    fn find<M: HasUserDb>(call: &Call<'_, M>, source: &Source, spec: &AvpSpec, all: Keys) -> Option<Place> {
        let db = call.module.user_db();
        let columns = spec.scheme.as_ref().map_or_else(|| db.columns.clone(), |s| s.columns.clone());
        let table = spec.table.clone().or_else(|| spec.scheme.as_ref().and_then(|s| s.table.clone()));
        let Some(table) = table.or_else(|| db.table.clone()) else {
            host::error!(M::MODULE, "no table is set for preferences");
            return None;
        };
        let text = source.value.text().filter(|t| !t.is_empty())?;
        let uri = Uri::parse(&text);
        let (user, host) = match &uri {
            Ok(uri) => (uri.user.clone().unwrap_or_default(), uri.host.clone()),
            // A bare name or domain is what it says.
            Err(_) if source.part != Part::Uri => (text.clone(), text.clone()),
            Err(_) => {
                host::error!(M::MODULE, "`{}` is no SIP URI", String::from_utf8_lossy(&text));
                return None;
            }
        };
        let with_domain = all == Keys::Written || db.use_domain;
        let keys = match source.part {
            Part::Uuid => vec![(columns.uuid.clone(), text)],
            Part::Username => vec![(columns.username.clone(), user)],
            Part::Domain => vec![(columns.domain.clone(), host)],
            Part::Uri if with_domain => {
                vec![(columns.username.clone(), user), (columns.domain.clone(), host)]
            }
            Part::Uri => vec![(columns.username.clone(), user)],
        };
        Some(Place { table, columns, keys })
    }

    fn filter(&self, mut query: Query) -> Query {
        for (column, value) in &self.keys {
            query = query.eq(column, value.clone());
        }
        query
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Keys {
    Matched,
    Written,
}

/// `sql_avp_load`, `avp_db_load`: true when a value was loaded.
pub fn load<M: HasUserDb>(
    call: &mut Call<'_, M>,
    source: &Source,
    spec: AvpSpec,
    db: &DbId,
    prefix: Bytes,
    what: &'static str,
) -> Outcome {
    let Some(place) = Place::find(call, source, &spec, Keys::Matched) else { return Outcome::Done(-1) };
    let columns = &place.columns;
    let query = place.filter(Query::select(&place.table));
    let query = match (&spec.scheme, spec.names) {
        (Some(_), _) => query.column(&columns.value),
        (None, Names::One(name)) => query.eq(&columns.attribute, name.text()).columns([
            &columns.value,
            &columns.attribute,
            &columns.kind,
        ]),
        (None, _) => query.columns([&columns.value, &columns.attribute, &columns.kind]),
    };
    db.0.suspend(
        call.ctx,
        what,
        query,
        move |ctx, rows| if take(ctx, rows, &spec, &prefix) > 0 { 1 } else { -1 },
    )
}

fn take(ctx: &mut Ctx, rows: Result<Rows, DbError>, spec: &AvpSpec, prefix: &[u8]) -> usize {
    let Ok(rows) = rows else { return 0 };
    let mut avps = ctx.state.avps.borrow_mut();
    let mut taken = 0;
    for row in rows.iter() {
        let (own, integer) = match (&spec.scheme, spec.names) {
            (Some(scheme), Names::One(name)) => (name.text(), scheme.integers),
            // A scheme's rows have no name of their own.
            (Some(_), _) => continue,
            (None, _) => (row.text(1).unwrap_or_default(), row.int(2).unwrap_or(0) & VALUE_IS_INT != 0),
        };
        let Some(text) = row.text(0) else { continue };
        let name = AvpName::new(&[prefix, &own].concat());
        if spec.scheme.is_none() && !spec.names.has(AvpName::new(&own)) {
            continue;
        }
        let value = match row.int(0) {
            Some(n) if integer => Value::Int(n),
            _ => Value::Str(text),
        };
        avps.add(name, value);
        taken += 1;
    }
    taken
}

/// `sql_avp_store`, `avp_db_store`: a row for each value; true when there was one.
pub fn store<M: HasUserDb>(
    call: &mut Call<'_, M>,
    source: &Source,
    spec: &AvpSpec,
    db: &DbId,
    what: &'static str,
) -> Outcome {
    let Some(place) = Place::find(call, source, spec, Keys::Written) else { return Outcome::Done(-1) };
    let mut queries = Vec::new();
    for (name, value) in call.state.avps.borrow().iter() {
        if !spec.names.has(*name) {
            continue;
        }
        let columns = &place.columns;
        let mut query = Query::insert(&place.table);
        for (column, key) in &place.keys {
            query = query.set(column, key.clone());
        }
        if spec.scheme.is_none() {
            let kind = if matches!(value, Value::Int(_)) { VALUE_IS_INT } else { 0 };
            query = query.set(&columns.attribute, name.text()).set(&columns.kind, kind);
        }
        let text = value.text().map_or(DbValue::Null, DbValue::Text);
        queries.push(query.set(&columns.value, text));
    }
    if queries.is_empty() {
        return Outcome::Done(-1);
    }
    let done = db.0.on(call.ctx).run_all(queries);
    let future = async move {
        let rc = if done.await.is_ok() { 1 } else { -1 };
        Box::new(move |_: &mut Ctx| rc) as Finish
    };
    Suspension::future(what, future).detail(place.table.to_string()).limit(LIMIT_MS, -1)
}

/// `sql_avp_delete`, `avp_db_delete`.
pub fn delete<M: HasUserDb>(
    call: &mut Call<'_, M>,
    source: &Source,
    spec: &AvpSpec,
    db: &DbId,
    what: &'static str,
) -> Outcome {
    let Some(place) = Place::find(call, source, spec, Keys::Matched) else { return Outcome::Done(-1) };
    let mut query = place.filter(Query::delete(&place.table));
    if let (Names::One(name), None) = (spec.names, &spec.scheme) {
        let name = Cond { column: place.columns.attribute.clone(), op: Op::Eq, value: name.text().into() };
        query = query.filter(name.column, name.op, name.value);
    }
    db.0.suspend(call.ctx, what, query, |_, rows| if rows.is_ok() { 1 } else { -1 })
}
