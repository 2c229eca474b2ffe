//! Loading: tables are read in pages beside the calls, what they become is made on a thread of its own, and takes its
//! place at once when it is whole. What calls use meanwhile stays.

use super::Drouting;
use super::data::Data;
use super::kept::{self, Kind, Player, Recorder};
use super::pages::Pages;
use super::partition::{Partition, Tables};
use super::rows::{CARRIERS, Counts, GATEWAYS, RULES, Reader, States};
use crate::destinations::look_up;
use host::ctx::Spawn;
use host::db::{DbError, Name, Pool, Query, Rows};
use host::{Ctx, Finish};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a load may take.
const LOAD_MS: u64 = 3_600_000;

/// Why nothing new was loaded.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// Another load is under way, and `no_concurrent_reload` is set.
    Busy,
    /// The query for tables of rules (`rule_tables_query`) named none.
    NoTables,
    Failed(String),
    /// The database was not there, or could not.
    Later(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Failed(why)
    }
}

impl Failure {
    /// What a database answered when it was asked for `what`.
    pub fn of(error: &DbError, what: &str) -> Failure {
        let why = format!("{what}: {error}");
        match error {
            DbError::Refused { .. } | DbError::Several | DbError::Unsupported(_) => Failure::Failed(why),
            DbError::Down(_) | DbError::Busy | DbError::TimedOut | DbError::Unable { .. } => {
                Failure::Later(why)
            }
        }
    }
}

/// What a load needs, apart from the worker.
struct Job {
    pool: Rc<dyn Pool>,
    spawner: Rc<dyn Spawn>,
    tables: Tables,
    /// Instead of `tables.rules`: the statement that names tables.
    rules_query: Option<String>,
    states: bool,
    kept: Option<PathBuf>,
}

/// Loads a partition; `done` hears how it went.
pub fn load(
    ctx: &mut Ctx,
    module: &Arc<Drouting>,
    partition: &Arc<Partition>,
    states: States,
    done: impl FnOnce(&mut Ctx, Result<(), Failure>) + 'static,
) {
    let other = partition.loading.swap(true, Ordering::AcqRel);
    if other && module.settings.no_concurrent_reload {
        host::warn!("drouting", "{}: a reload is under way, this one is refused", partition.name);
        return done(ctx, Err(Failure::Busy));
    }
    let before = partition.data();
    match before {
        None => partition.tell(ctx.shared(), -1, "startup data loading"),
        Some(_) => partition.tell(ctx.shared(), 2, "data re-loading"),
    }
    // A server that starts takes what the one before has kept.
    let player = before.is_none().then(|| partition.kept.as_deref().map(Player::open)).flatten();
    let player = player.and_then(Result::ok);
    if player.is_none() {
        partition.report(ctx, "starting DB data loading");
    }
    let job = Job {
        pool: partition.db.on(ctx),
        spawner: ctx.core.spawner.clone(),
        tables: partition.tables.clone(),
        rules_query: module.rules_query(&partition.tables.rules),
        states: module.settings.persistent_state,
        kept: partition.kept.clone(),
    };
    let had = before.is_some();
    let reader = Reader::new(ctx.shared().clone(), module.reading(), before, states);
    let (module, partition) = (module.clone(), partition.clone());
    ctx.spawn_aside("drouting load", LOAD_MS, async move {
        let restored = player.is_some();
        let loaded = match player {
            Some(player) => job.restore(reader, player).await,
            None => job.read(reader).await,
        };
        Box::new(move |ctx: &mut Ctx| {
            let result =
                loaded.map(|(data, counts)| put_in_place(ctx, &module, &partition, data, counts, restored));
            ended(ctx, &partition, had, &result);
            done(ctx, result);
            1
        }) as Finish
    });
}

fn put_in_place(
    ctx: &mut Ctx,
    module: &Drouting,
    partition: &Arc<Partition>,
    data: Data,
    counts: Counts,
    restored: bool,
) {
    let now_s = ctx.core.wall_us / 1_000_000;
    let details = match &data.checksum {
        Some(checksum) => format!("data available {checksum}"),
        None => "data available".to_owned(),
    };
    partition.swap(data, now_s);
    partition.tell(ctx.shared(), 1, &details);
    module.fill_blacklists(ctx, partition);
    let Counts { gateways, carriers, rules } = counts;
    let summary = format!(
        "{} gateways loaded ({} discarded), {} carriers loaded ({} discarded), {} rules loaded ({} discarded)",
        gateways.loaded,
        gateways.discarded,
        carriers.loaded,
        carriers.discarded,
        rules.loaded,
        rules.discarded
    );
    host::info!("drouting", "partition {}: {summary}", partition.name);
    if !restored {
        partition.report(ctx, "DB data loading successfully completed");
        partition.report(ctx, summary);
    }
}

fn ended(ctx: &mut Ctx, partition: &Partition, had: bool, result: &Result<(), Failure>) {
    partition.loading.store(false, Ordering::Release);
    partition.again.store(false, Ordering::Relaxed);
    if let Err(failure) = result {
        let why = match failure {
            Failure::Failed(why) | Failure::Later(why) => why.as_str(),
            Failure::NoTables => "rule_tables_query named no table",
            Failure::Busy => "",
        };
        host::error!("drouting", "partition {} was not loaded: {why}", partition.name);
        if matches!(failure, Failure::Failed(_) | Failure::Later(_)) {
            partition.report(ctx, "DB data loading failed, discarding");
        }
        match had {
            true => partition.tell(ctx.shared(), 1, "data available"),
            false => {
                partition.tell(ctx.shared(), -2, "no data loaded");
                partition.again.store(matches!(failure, Failure::Later(_)), Ordering::Relaxed);
            }
        }
    }
    partition.note_tried();
}

/// What pages go into.
struct Into {
    reader: Reader,
    recorder: Option<Recorder>,
}

impl Into {
    fn page(&mut self, kind: Kind, table: &Name, rows: &Rows) -> Result<(), String> {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.page(kind, table, rows)
        {
            host::error!("drouting", "rows are not kept over a restart: {error}");
            self.recorder = None;
        }
        match kind {
            Kind::Gateways => self.reader.read_gateways(table, rows),
            Kind::Carriers => self.reader.read_carriers(table, rows),
            Kind::Rules => self.reader.read_rules(table, rows)?,
        }
        Ok(())
    }
}

impl Job {
    async fn read(self, reader: Reader) -> Result<(Data, Counts), Failure> {
        let rules = self.rule_tables().await?;
        let recorder = self.kept.as_deref().and_then(|path| {
            let recorder = Recorder::new(path);
            recorder
                .map_err(|error| host::error!("drouting", "cannot write {}: {error}", path.display()))
                .ok()
        });
        let mut into = Into { reader, recorder };
        into = self.table(into, Kind::Gateways, &self.tables.gateways, &self.with_state(&GATEWAYS)).await?;
        look_up(&self.spawner, into.reader.destinations()).await;
        into.reader.settle(&self.tables.gateways);
        into = self.table(into, Kind::Carriers, &self.tables.carriers, &self.with_state(&CARRIERS)).await?;
        into.reader.settle_carriers();
        for table in &rules {
            into = self.table(into, Kind::Rules, table, &RULES).await?;
        }
        let made = crate::aside(move || {
            if let Some(Err(error)) = into.recorder.map(Recorder::finish) {
                host::error!("drouting", "rows are not kept over a restart: {error}");
            }
            let counts = into.reader.counts;
            (into.reader.finish(), counts)
        });
        Ok(made.await?)
    }

    /// The state is the last column.
    fn with_state(&self, columns: &[&'static str]) -> Vec<&'static str> {
        columns[..columns.len() - usize::from(!self.states)].to_vec()
    }

    async fn table(
        &self,
        mut into: Into,
        kind: Kind,
        table: &Name,
        columns: &[&'static str],
    ) -> Result<Into, Failure> {
        let mut pages = Pages::new(&self.pool, table, columns);
        while let Some(rows) = pages.next().await? {
            let table = table.clone();
            let worked = crate::aside(move || {
                let read = into.page(kind, &table, &rows);
                read.map(|()| into)
            });
            into = worked.await??;
        }
        Ok(into)
    }

    async fn rule_tables(&self) -> Result<Vec<Name>, Failure> {
        let Some(query) = &self.rules_query else { return Ok(vec![self.tables.rules.clone()]) };
        let rows = self.pool.run(Query::raw(query.clone())).await;
        let rows = rows.map_err(|error| Failure::of(&error, "rule_tables_query"))?;
        if rows.is_empty() {
            return Err(Failure::NoTables);
        }
        if rows.columns().len() != 1 {
            return Err(format!("rule_tables_query gives {} columns, not one", rows.columns().len()).into());
        }
        let names = rows.iter().map(|row| row.string(0)).filter(|name| !name.is_empty());
        Ok(names.map(Name::from).collect())
    }

    /// From what the server before has kept.
    async fn restore(self, reader: Reader, mut player: Player) -> Result<(Data, Counts), Failure> {
        let mut into = Into { reader, recorder: None };
        let mut next = Kind::Gateways;
        loop {
            let (page, back) = crate::aside(move || (player.page(), player)).await?;
            player = back;
            let page = page.map_err(|error| format!("rows that were kept: {error}"))?;
            let kind = page.as_ref().map_or(Kind::Rules, |(kind, ..)| *kind);
            if next == Kind::Gateways && kind != Kind::Gateways {
                look_up(&self.spawner, into.reader.destinations()).await;
                into.reader.settle(&self.tables.gateways);
            }
            if next != Kind::Rules && kind == Kind::Rules {
                into.reader.settle_carriers();
            }
            next = kind;
            let Some((kind, table, rows)) = page else { break };
            into = crate::aside(move || into.page(kind, &table, &rows).map(|()| into)).await??;
        }
        let path = self.kept.unwrap_or_default();
        let made = crate::aside(move || {
            let counts = into.reader.counts;
            let data = into.reader.finish();
            kept::read_states(&path, &data);
            (data, counts)
        });
        Ok(made.await?)
    }
}
