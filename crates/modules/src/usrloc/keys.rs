//! Keys that scripts keep with an address: `ul_add_key`, `ul_get_key`, `ul_del_key`.

use super::Usrloc;
use super::table::{Change, Record, Table};
use bytes::Bytes;
use host::arg::Arg;
use host::load::Loader;
use host::{Call, OutVar, Outcome, Registrar, Routes, Text, Word};
use script::{Diagnostic, Loc, ast};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Usrloc>) {
    m.function("ul_add_key", Routes::ALL, ul_add_key);
    m.function("ul_get_key", Routes::ALL, ul_get_key);
    m.function("ul_del_key", Routes::ALL, ul_del_key);
}

/// A module whose functions name location tables.
pub trait HasTables: Send + Sync + 'static {
    fn usrloc(&self) -> Arc<Usrloc>;
}

impl HasTables for Arc<Usrloc> {
    fn usrloc(&self) -> Arc<Usrloc> {
        self.clone()
    }
}

/// The constant name of a location table; naming it makes it.
pub struct TableArg(pub Arc<Table>);

impl<M: HasTables> Arg<M> for TableArg {
    type Prepared = Arc<Table>;
    const WHAT: &'static str = "the name of a location table";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Arc<Table>, Diagnostic> {
        let name = <Word as Arg<M>>::prepare(arg, site, loader, module)?;
        Ok(module.usrloc().table(&String::from_utf8_lossy(&name)))
    }

    fn eval(table: &Arc<Table>, _: &mut Call<'_, M>) -> Result<TableArg, i32> {
        Ok(TableArg(table.clone()))
    }
}

/// ul_add_key(domain, aor, key, [value]): without a value the key goes.
fn ul_add_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text, value: Option<Text>) -> Outcome {
    set_key(call, &table, aor.0, key.0, value.map(|v| v.0).unwrap_or_default())
}

fn ul_del_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text) -> Outcome {
    set_key(call, &table, aor.0, key.0, Bytes::new())
}

/// An empty value removes the key. False when the address is not registered.
/// There is no such table.
fn unknown(table: &Text) -> Outcome {
    host::error!("usrloc", "no function of the script and no module made the table {}", table.str());
    Outcome::Done(-1)
}

fn set_key(call: &mut Call<Usrloc>, table: &Text, aor: Bytes, key: Bytes, value: Bytes) -> Outcome {
    let Some(table) = call.module.find_table(&table.str()) else { return unknown(table) };
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        // The first contact carries the keys to the database.
        let Some(contact) = record.contacts.first_mut() else { return false };
        let keys = record.keys.get_or_insert_default();
        keys.retain(|(k, _)| *k != key);
        if !value.is_empty() {
            keys.push((key, value));
        }
        contact.touch();
        changes.push(Change::Touched(contact.clone()));
        true
    };
    let usrloc = call.module.clone();
    usrloc.change(
        call.ctx,
        "ul_add_key",
        &table,
        aor,
        work,
        |_, known| {
            if known.unwrap_or(false) { 1 } else { -1 }
        },
    )
}

fn ul_get_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text, out: OutVar) -> Outcome {
    let Some(table) = call.module.find_table(&table.str()) else { return unknown(&table) };
    let usrloc = call.module.clone();
    usrloc.read_record(
        call.ctx,
        "ul_get_key",
        &table,
        aor.0,
        move |record| {
            let keys = record.keys.as_ref()?;
            keys.iter().find(|(k, _)| *k == key.0).map(|(_, v)| v.clone())
        },
        move |ctx, value| {
            let set = value.ok().flatten().is_some_and(|value| out.set(ctx, value));
            if set { 1 } else { -1 }
        },
    )
}
