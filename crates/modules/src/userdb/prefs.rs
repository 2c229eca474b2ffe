//! Preferences: AVPs kept in a table per user, domain or uuid.

use super::spec::{AvpSpec, DbId, Names, Part, Source, TableSpec};
use super::{Columns, HasUserDb};
use bytes::Bytes;
use host::avp::AvpName;
use host::call::Finish;
use host::db::{DbError, DbValue, LIMIT_MS, Name, Query, Row, Rows};
use host::{Call, Ctx, Outcome, Suspension, Value};
use sip::Uri;

/// `type` column: the value is a number.
const VALUE_IS_INT: i64 = 1;
/// The same: the name is one, as all names of AVPs are inside the reference.
const NAME_IS_INT: i64 = 2;

/// Whose rows: a uuid, or parts of a URI.
struct Owner {
    uuid: Option<Bytes>,
    username: Option<Bytes>,
    domain: Option<Bytes>,
}

impl Owner {
    /// `None`: the source is NULL, or is no URI with the parts wanted.
    fn of<M: HasUserDb>(call: &Call<'_, M>, source: &Source) -> Option<Owner> {
        let text = source.value.text().filter(|t| !t.is_empty())?;
        if source.part == Part::Uuid {
            return Some(Owner { uuid: Some(text), username: None, domain: None });
        }
        let shown = || String::from_utf8_lossy(&text).into_owned();
        let Ok(uri) = Uri::parse(&text) else {
            host::error!(M::MODULE, "`{}` is no SIP URI", shown());
            return None;
        };
        let username = match source.part {
            Part::Domain => None,
            _ => Some(uri.user.filter(|user| !user.is_empty()).or_else(|| {
                host::error!(M::MODULE, "`{}` has no user", shown());
                None
            })?),
        };
        let wants_domain = match source.part {
            Part::Domain => true,
            Part::Uri => call.module.user_db().use_domain,
            _ => false,
        };
        let domain = wants_domain.then_some(uri.host);
        Some(Owner { uuid: None, username, domain })
    }

    /// Only the owner's rows.
    fn filter(&self, columns: &Columns, mut query: Query) -> Query {
        for (column, value) in self.parts(columns) {
            if let Some(value) = value {
                query = query.eq(column, value.clone());
            }
        }
        query
    }

    fn parts<'a>(&'a self, columns: &'a Columns) -> [(&'a Name, &'a Option<Bytes>); 3] {
        [(&columns.uuid, &self.uuid), (&columns.username, &self.username), (&columns.domain, &self.domain)]
    }
}

/// The table and columns of a specification.
fn place<M: HasUserDb>(call: &Call<'_, M>, spec: &AvpSpec) -> Option<(Name, Columns)> {
    let db = call.module.user_db();
    let columns = spec.scheme.as_ref().map_or_else(|| db.columns.clone(), |s| s.columns.clone());
    let named = spec.table.clone().or_else(|| spec.scheme.as_ref().and_then(|s| s.table.clone()));
    let Some(table) = named.or_else(|| db.table.clone()) else {
        host::error!(M::MODULE, "no table is set for preferences");
        return None;
    };
    Some((table, columns))
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
    let (Some(owner), Some((table, columns))) = (Owner::of(call, source), place(call, &spec)) else {
        return Outcome::Done(-1);
    };
    let mut query = owner.filter(&columns, Query::select(&table)).column(&columns.value);
    if spec.scheme.is_none() {
        query = query.columns([&columns.attribute, &columns.kind]);
        if let Names::One(name) = spec.names {
            query = query.eq(&columns.attribute, name.text());
        }
    }
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
        // A row that says nothing of use is left out, as in the reference.
        let Some((name, value)) = pair(row, spec, prefix) else { continue };
        avps.mark_stored(name, value.clone());
        avps.add(name, value);
        taken += 1;
    }
    taken
}

fn pair(row: Row<'_>, spec: &AvpSpec, prefix: &[u8]) -> Option<(AvpName, Value)> {
    let text = row.text(0)?;
    let integer = match &spec.scheme {
        Some(scheme) => scheme.integers,
        None => row.int(2)? & VALUE_IS_INT != 0,
    };
    let own = match spec.names {
        Names::One(name) => name.text(),
        Names::All => row.text(1)?,
    };
    let value = if integer { Value::Int(row.int(0)?) } else { Value::Str(text) };
    Some((AvpName::new(&[prefix, &own].concat()), value))
}

/// `sql_avp_store`, `avp_db_store`: a row for each value that the database does not have yet; true when
/// there was one.
pub fn store<M: HasUserDb>(
    call: &mut Call<'_, M>,
    source: &Source,
    TableSpec(spec): &TableSpec,
    db: &DbId,
    what: &'static str,
) -> Outcome {
    let (Some(owner), Some((table, columns))) = (Owner::of(call, source), place(call, spec)) else {
        return Outcome::Done(-1);
    };
    let mut pairs = call.state.avps.borrow().unstored();
    pairs.retain(|(name, _)| spec.names.has(*name));
    if pairs.is_empty() {
        return Outcome::Done(-1);
    }
    let insert = |(name, value): &(AvpName, Value)| {
        let mut query = Query::insert(&table);
        for (column, part) in owner.parts(&columns) {
            query = query.set(column, part.clone().unwrap_or_default());
        }
        let kind = NAME_IS_INT | if value.is_number() { VALUE_IS_INT } else { 0 };
        let text = value.text().map_or(DbValue::Null, DbValue::Text);
        query.set(&columns.attribute, name.text()).set(&columns.kind, kind).set(&columns.value, text)
    };
    let done = db.0.on(call.ctx).run_all(pairs.iter().map(insert).collect());
    let future = async move {
        let ok = done.await.is_ok();
        Box::new(move |ctx: &mut Ctx| {
            if !ok {
                return -1;
            }
            let mut avps = ctx.state.avps.borrow_mut();
            pairs.into_iter().for_each(|(name, value)| avps.mark_stored(name, value));
            1
        }) as Finish
    };
    Suspension::future(what, future).detail(table.to_string()).limit(LIMIT_MS, -1)
}

/// `sql_avp_delete`, `avp_db_delete`.
pub fn delete<M: HasUserDb>(
    call: &mut Call<'_, M>,
    source: &Source,
    TableSpec(spec): &TableSpec,
    db: &DbId,
    what: &'static str,
) -> Outcome {
    let (Some(owner), Some((table, columns))) = (Owner::of(call, source), place(call, spec)) else {
        return Outcome::Done(-1);
    };
    let mut query = owner.filter(&columns, Query::delete(&table));
    if let Names::One(name) = spec.names {
        query = query.eq(&columns.attribute, name.text());
    }
    db.0.suspend(call.ctx, what, query, |_, rows| if rows.is_ok() { 1 } else { -1 })
}
