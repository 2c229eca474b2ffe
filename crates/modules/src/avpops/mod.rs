//! avpops: AVPs in databases, and everything else that can be done to them. 2.1 whole, and the forms of
//! 3.0 to 3.4; later versions have sqlops for the databases and plain assignments for the rest.

mod args;
mod check;
mod memory;
mod op;
mod push;
mod subst;

use crate::userdb::{self, AvpSpec, DbId, HasUserDb, Nulls, Reading, Source, TableSpec, UserDb, into_avps};
use args::AvpList;
use bytes::Bytes;
use host::db::Query;
use host::{Call, Outcome, Registrar, Routes, Traced, Word};

pub struct Avpops(UserDb);

impl Default for Avpops {
    fn default() -> Avpops {
        Avpops(UserDb::new(false, None))
    }
}

impl HasUserDb for Avpops {
    const MODULE: &'static str = "avpops";
    fn user_db(&self) -> &UserDb {
        &self.0
    }
    fn user_db_mut(&mut self) -> &mut UserDb {
        &mut self.0
    }
}

pub fn register(m: &mut Registrar<Avpops>) {
    userdb::register(m);
    m.param_text("avp_url", |m, url| m.0.add_url(url));
    m.param_text("avp_table", |m, table| {
        m.0.set_table(table);
        Ok(())
    });
    m.ignored(&["buf_size"], "texts take what they need");
    m.function("avp_db_query", Routes::ALL, db_query);
    m.function("avp_db_load", Routes::ALL, db_load);
    m.function("avp_db_store", Routes::ALL, db_store);
    m.function("avp_db_delete", Routes::ALL, db_delete);
    memory::register(m);
    check::register(m);
    op::register(m);
    push::register(m);
    subst::register(m);
}

/// avp_db_query(query, [AVPs], [db]): all rows; 1, -2 without rows, -1 on errors.
fn db_query(call: &mut Call<Avpops>, query: Traced, avps: Option<AvpList>, db: DbId) -> Outcome {
    let reading = Reading { nulls: Nulls::Text, big_as_text: false };
    let query = Query::script(call.ctx, query);
    db.0.suspend(call.ctx, "avp_db_query", query, move |ctx, rows| {
        into_avps(ctx, &rows, avps.as_ref().map(|list| &list.0), reading)
    })
}

/// avp_db_load(source, name, [db], [prefix])
fn db_load(
    call: &mut Call<Avpops>,
    source: Source,
    spec: AvpSpec,
    db: DbId,
    prefix: Option<Word>,
) -> Outcome {
    let prefix = prefix.map_or(Bytes::new(), |p| p.0);
    userdb::load(call, &source, spec, &db, prefix, "avp_db_load")
}

/// avp_db_store(source, name, [db])
fn db_store(call: &mut Call<Avpops>, source: Source, spec: TableSpec, db: DbId) -> Outcome {
    userdb::store(call, &source, &spec, &db, "avp_db_store")
}

/// avp_db_delete(source, name, [db])
fn db_delete(call: &mut Call<Avpops>, source: Source, spec: TableSpec, db: DbId) -> Outcome {
    userdb::delete(call, &source, &spec, &db, "avp_db_delete")
}

#[cfg(test)]
mod tests;
