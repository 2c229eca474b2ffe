//! db_virtual: several databases behind one URL (`virtual://set`): one after the other when one fails, all at
//! once, or in turn.

use futures_util::future::join_all;
use host::db::{BatchFuture, Db, DbError, DbFuture, DbUrl, Driver, Pool, Query};
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::Stage;
use host::{Call, Ctx, Registrar};
use serde_json::json;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a set is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// The current one until it fails, then the next.
    Failover,
    /// Writes go to all, and succeed when one does; reads are as with failover.
    Parallel,
    /// A different one each time.
    Round,
}

impl Mode {
    fn parse(word: &str) -> Option<Mode> {
        match word {
            "FAILOVER" => Some(Mode::Failover),
            "PARALLEL" => Some(Mode::Parallel),
            "ROUND" => Some(Mode::Round),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Failover => "FAILOVER",
            Mode::Parallel => "PARALLEL",
            Mode::Round => "ROUND",
        }
    }
}

/// One database of a set.
struct Member {
    db: Db,
    /// The last statement reached it.
    can: AtomicBool,
    /// The management command `db_set` lets it be used.
    may: AtomicBool,
}

struct Set {
    name: String,
    mode: Mode,
    members: Vec<Member>,
    /// Where the next statement goes first.
    current: AtomicUsize,
}

#[derive(Default)]
pub struct DbVirtual {
    /// Name, mode, URLs
    declared: Vec<(String, Option<Mode>, Vec<String>)>,
    sets: Vec<Arc<Set>>,
}

pub fn register(m: &mut Registrar<DbVirtual>) {
    m.stage(Stage::OverDrivers);
    m.param_text("db_urls", DbVirtual::declare);
    m.ignored(
        &["db_probe_time", "db_max_consec_retrys", "db_max_consec_retries"],
        "each database looks for its lost server by itself, at most 2 seconds apart",
    );
    m.init(DbVirtual::open);
    m.command("db_virtual:get db_get", "the databases of each set and whether they can be used", list);
    m.command("db_virtual:set db_set", "lets a database be used or not", allow)
        .takes("set_index db_url_index may_use_db_flag");
}

impl DbVirtual {
    /// "define name MODE", or a URL of the set defined last.
    fn declare(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        if words.next() == Some("define") {
            let name = words.next().ok_or("define what? define name FAILOVER|PARALLEL|ROUND")?;
            let mode = words.next().map(|word| {
                Mode::parse(word).ok_or_else(|| format!("{word} is no mode: FAILOVER, PARALLEL or ROUND"))
            });
            self.declared.push((name.to_string(), mode.transpose()?, Vec::new()));
            return Ok(());
        }
        let (_, _, urls) = self.declared.last_mut().ok_or("the first db_urls must be `define name MODE`")?;
        urls.push(text.trim().to_string());
        Ok(())
    }

    fn open(&mut self, loader: &mut Loader) -> Result<(), String> {
        for (name, mode, urls) in std::mem::take(&mut self.declared) {
            if urls.is_empty() {
                return Err(format!("set {name} has no URLs"));
            }
            let member = |url: &String| {
                let db = loader.db(url)?;
                Ok::<_, String>(Member { db, can: AtomicBool::new(true), may: AtomicBool::new(true) })
            };
            let members = urls.iter().map(member).collect::<Result<_, _>>()?;
            let (mode, current) = (mode.unwrap_or(Mode::Failover), AtomicUsize::new(0));
            self.sets.push(Arc::new(Set { name, mode, members, current }));
        }
        loader.db_driver("virtual", Arc::new(Virtual { sets: self.sets.clone() }));
        Ok(())
    }
}

struct Virtual {
    sets: Vec<Arc<Set>>,
}

impl Virtual {
    fn set(&self, url: &DbUrl) -> Option<&Arc<Set>> {
        let name = url.rest.trim_end_matches('/');
        self.sets.iter().find(|set| set.name == name)
    }
}

impl Driver for Virtual {
    fn module(&self) -> &'static str {
        "db_virtual"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        self.set(url).map(drop).ok_or_else(|| {
            format!("modparam(\"db_virtual\", \"db_urls\", \"define {} FAILOVER\") is missing", url.rest)
        })
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        // `check` went before.
        let set = self.set(db.url()).cloned().unwrap_or_else(|| {
            let (members, current) = (Vec::new(), AtomicUsize::new(0));
            Arc::new(Set { name: String::new(), mode: Mode::Failover, members, current })
        });
        let pools = set.members.iter().map(|member| member.db.on(ctx)).collect();
        Rc::new(VirtualPool(Rc::new(Pools { set, pools })))
    }
}

/// A worker's pools of the members, in their order.
struct Pools {
    set: Arc<Set>,
    pools: Vec<Rc<dyn Pool>>,
}

struct VirtualPool(Rc<Pools>);

impl Pool for VirtualPool {
    fn run(&self, query: Query) -> DbFuture {
        let pools = self.0.clone();
        Box::pin(async move {
            let writes = !query.reads_only();
            pools.run(writes, |pool| pool.run(query.clone())).await
        })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let pools = self.0.clone();
        Box::pin(async move { pools.run(true, |pool| pool.run_all(queries.clone())).await })
    }
}

impl Pools {
    async fn run<T, F>(&self, writes: bool, start: impl Fn(&Rc<dyn Pool>) -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        if writes && self.set.mode == Mode::Parallel {
            self.everywhere(start).await
        } else {
            self.somewhere(start).await
        }
    }

    /// The first that is reached; each is tried once.
    async fn somewhere<T, F>(&self, start: impl Fn(&Rc<dyn Pool>) -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let set = &self.set;
        let first = match set.mode {
            Mode::Round => set.current.fetch_add(1, Ordering::Relaxed),
            _ => set.current.load(Ordering::Relaxed),
        };
        let mut result = Err(unused());
        for i in 0..self.pools.len() {
            let at = first.wrapping_add(i) % self.pools.len();
            if !set.members[at].may.load(Ordering::Relaxed) {
                continue;
            }
            result = start(&self.pools[at]).await;
            if set.members[at].reached(&result) {
                if set.mode != Mode::Round && i > 0 {
                    set.current.store(at, Ordering::Relaxed);
                }
                return result;
            }
        }
        result
    }

    /// All; the first good result counts.
    async fn everywhere<T, F>(&self, start: impl Fn(&Rc<dyn Pool>) -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let used = self.set.members.iter().zip(&self.pools);
        let used = used.filter(|(member, _)| member.may.load(Ordering::Relaxed));
        let results = join_all(used.map(|(member, pool)| {
            let running = start(pool);
            async move {
                let result = running.await;
                member.reached(&result);
                result
            }
        }));
        let mut worst = Err(unused());
        for result in results.await {
            match result {
                Ok(value) => return Ok(value),
                // What a server says is worth more than that another is away.
                Err(error) if matches!(worst, Err(DbError::Refused { .. })) => drop(error),
                Err(error) => worst = Err(error),
            }
        }
        worst
    }
}

fn unused() -> DbError {
    DbError::Down("no database of the set may be used".to_string())
}

impl Member {
    /// Notes whether the server was there. A refused statement would be refused elsewhere too.
    fn reached<T>(&self, result: &Result<T, DbError>) -> bool {
        let there = matches!(
            result,
            Ok(_) | Err(DbError::Refused { .. } | DbError::Several | DbError::Unsupported(_))
        );
        self.can.store(there, Ordering::Relaxed);
        there
    }
}

fn list(call: &mut Call<DbVirtual>, _: &MiParams) -> MiResult {
    let sets = call.module.sets.iter().enumerate().map(|(i, set)| {
        let members = set.members.iter().enumerate().map(|(j, member)| {
            json!({
                "index": j,
                "name": member.db.url().to_string(),
                "can": i32::from(member.can.load(Ordering::Relaxed)),
                "may": i32::from(member.may.load(Ordering::Relaxed)),
            })
        });
        json!({"index": i, "name": set.name, "mode": set.mode.word(), "DBS": members.collect::<Vec<_>>()})
    });
    Ok(json!({"SETS": sets.collect::<Vec<_>>()}))
}

fn allow(call: &mut Call<DbVirtual>, params: &MiParams) -> MiResult {
    let number = |name, at| {
        let value =
            params.int(name, at)?.ok_or_else(|| MiError::params(format!("missing parameter: {name}")))?;
        usize::try_from(value).map_err(|_| MiError::params(format!("{name} must be 0 or more")))
    };
    let (set, url, may) =
        (number("set_index", 0)?, number("db_url_index", 1)?, number("may_use_db_flag", 2)?);
    let member = call.module.sets.get(set).and_then(|set| set.members.get(url));
    let member = member.ok_or_else(|| MiError::params("there is no such set or URL"))?;
    member.may.store(may != 0, Ordering::Relaxed);
    Ok(json!("OK"))
}

#[cfg(test)]
mod tests;
