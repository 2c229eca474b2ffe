//! Where trees come from: a file, or three tables.

use super::trees::{Carrier, Failure, Rule, Trees};
use super::{CarrierRoute, file};
use bytes::Bytes;
use host::db::{Db, Query, Row, Rows};
use host::{Call, Ctx, Finish};
use std::path::{Path, PathBuf};

/// How long a load may take.
const LOAD_MS: u64 = 600_000;

pub enum Source {
    File(PathBuf),
    Tables(Db),
}

/// The error names the file and the line.
pub fn read_file(path: &Path, default_tree: &str) -> Result<Trees, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    file::parse(&text, default_tree).map_err(|why| format!("{}: {why}", path.display()))
}

/// Loads the trees again; those of before stay when it fails. `done` hears why.
pub fn load(call: &mut Call<CarrierRoute>, done: impl FnOnce(&mut Ctx, Result<(), String>) + 'static) {
    let module = call.module.clone();
    let reading = match &module.source {
        None => return,
        Some(Source::File(path)) => Err((path.clone(), module.default_tree.clone())),
        Some(Source::Tables(db)) => Ok(db.on(call.ctx)),
    };
    let target = module.clone();
    call.ctx.spawn_aside("carrierroute load", LOAD_MS, async move {
        let trees = async {
            match reading {
                Err((path, default)) => {
                    let read = crate::aside(move || read_file(&path, &default)).await;
                    read?
                }
                Ok(pool) => {
                    let queries = [
                        Query::select(&module.carrier_table)
                            .columns([&module.carrier_id, &module.carrier_name]),
                        Query::select(&module.table).columns(&module.columns),
                        Query::select(&module.failure_table).columns(&module.failure_columns),
                    ];
                    let mut tables = Vec::new();
                    for query in queries {
                        tables.push(pool.run(query).await.map_err(|error| error.to_string())?);
                    }
                    let names = module.clone();
                    crate::aside(move || build(&names, &tables)).await
                }
            }
        };
        let trees: Result<Trees, String> = trees.await;
        Box::new(move |ctx: &mut Ctx| {
            let result = trees.map(|trees| {
                if trees.named(target.default_tree.as_bytes()).is_none() {
                    host::warn!(
                        "carrierroute",
                        "there is no carrier {}, the default one",
                        target.default_tree
                    );
                }
                target.trees.set(trees);
            });
            if let Err(why) = &result {
                host::error!("carrierroute", "routes were not loaded: {why}");
            }
            done(ctx, result);
            1
        }) as Finish
    });
}

fn text(row: &Row<'_>, column: usize) -> Bytes {
    row.text(column).map(|text| Bytes::copy_from_slice(&text)).unwrap_or_default()
}

/// From rows of carriers, routes and failure routes; those that cannot be used are said and left out.
fn build(module: &CarrierRoute, tables: &[Rows]) -> Trees {
    let [carriers, routes, failures] = tables else { return Trees::default() };
    let mut trees = Trees::default();
    for row in carriers.iter() {
        match row.int(0) {
            Some(id) => trees.carriers.push(Carrier { id, name: text(&row, 1), domains: Vec::new() }),
            None => host::error!("carrierroute", "table {}: a carrier has no id", module.carrier_table),
        }
    }
    let digits = |text: &Bytes| text.iter().all(u8::is_ascii_digit);
    for row in routes.iter() {
        let said = |why: &str| {
            host::error!(
                "carrierroute",
                "table {}, id {}: {why}: it is left out",
                module.table,
                row.string(0)
            );
        };
        let prefix = text(&row, 2);
        if !digits(&prefix) {
            said("the prefix has more than digits");
            continue;
        }
        let Some(carrier) = row.int(1).and_then(|id| trees.numbered_mut(id)) else {
            said("there is no such carrier");
            continue;
        };
        let (flags, mask) = (row.int(4).unwrap_or(0) as u32, row.int(5).unwrap_or(0) as u32);
        let prob = row.real(6).unwrap_or(0.0).max(0.0);
        carrier.domain_mut(&text(&row, 3)).targets(prefix, flags, mask).add(Rule {
            host: text(&row, 8),
            strip: row.int(7).unwrap_or(0),
            prefix: text(&row, 9),
            suffix: text(&row, 10),
            given: prob,
            prob,
            on: true,
            comment: text(&row, 11),
            ..Rule::default()
        });
    }
    for row in failures.iter() {
        let said = |why: &str| {
            let table = &module.failure_table;
            host::error!("carrierroute", "table {table}, id {}: {why}: it is left out", row.string(0));
        };
        let (prefix, domain) = (text(&row, 2), text(&row, 3));
        if !digits(&prefix) {
            said("the prefix has more than digits");
            continue;
        }
        let carrier = row.int(1).and_then(|id| trees.numbered_mut(id));
        let Some(carrier) = carrier.filter(|carrier| carrier.domain(&domain).is_some()) else {
            said("its carrier has no route in this domain");
            continue;
        };
        carrier.domain_mut(&domain).add_failure(
            prefix,
            Failure {
                host: text(&row, 4),
                code: text(&row, 5),
                flags: row.int(6).unwrap_or(0) as u32,
                mask: row.int(7).unwrap_or(0) as u32,
                next: text(&row, 8),
            },
        );
    }
    let said = |why: String| {
        host::error!("carrierroute", "table {}: {why}: it is left out", module.table);
        Ok(())
    };
    if let Err(why) = trees.settle(said) {
        host::error!("carrierroute", "{why}");
    }
    trees
}
