//! userblacklist: numbers that a user, or anybody, may not call; the longest prefix decides.

use crate::cached::Cached;
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::db::{Db, Name, Query, Rows};
use host::load::Loader;
use host::mi::{MiAnswer, MiError, MiParams};
use host::registrar::ParamFn;
use host::{Arg, Call, Ctx, Outcome, Registrar, Routes, Text, Word};
use parking_lot::Mutex;
use script::ast;
use script::{Diagnostic, Loc};
use serde_json::json;
use sip::Uri;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct UserBlacklist {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    use_domain: bool,
    /// Global lists that the script names.
    lists: Mutex<Vec<(String, Cached<Prefixes>)>>,
}

impl Default for UserBlacklist {
    fn default() -> UserBlacklist {
        UserBlacklist {
            url: None,
            db: None,
            table: "userblacklist".into(),
            use_domain: true,
            lists: Mutex::default(),
        }
    }
}

const RETRY_MS: u64 = 5_000;

pub fn register(m: &mut Registrar<UserBlacklist>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param("use_domain", ParamFn::Any(|s, v| Ok(s.use_domain = crate::group::truth(v)?)));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("check_user_blacklist", routes, check_user);
    m.function("check_blacklist", routes, check_list);
    m.command_late("userblacklist:reload reload_blacklist", "reads the global lists again", reload).takes("");
    m.init(|s: &mut UserBlacklist, loader: &mut Loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
    });
    m.start(|call| {
        if call.core.worker == 0 {
            load(call, Which::All, |_, _| ());
        }
    });
    m.timer(RETRY_MS, |call| load(call, Which::Missing, |_, _| ()));
}

/// Prefixes and whether each is allowed.
#[derive(Debug, Default)]
struct Prefixes {
    by_text: AHashMap<Bytes, bool>,
    longest: usize,
}

impl Prefixes {
    /// From rows of (prefix, allowed).
    fn read(rows: &Rows) -> Prefixes {
        let mut prefixes = Prefixes::default();
        for row in rows.iter() {
            let text = row.text(0).unwrap_or_default();
            prefixes.longest = prefixes.longest.max(text.len());
            prefixes.by_text.insert(text, row.int(1).unwrap_or(0) != 0);
        }
        prefixes
    }

    /// False when the longest prefix of `number` is not allowed.
    fn allow(&self, number: &Bytes) -> bool {
        let longest = self.longest.min(number.len());
        (0..=longest)
            .rev()
            .find_map(|length| self.by_text.get(&number.slice(..length)))
            .is_none_or(|allowed| *allowed)
    }
}

fn verdict(allowed: bool) -> i32 {
    if allowed { 1 } else { -1 }
}

fn number(ctx: &Ctx) -> Option<Bytes> {
    Uri::parse(&ctx.state.current_uri()).ok()?.user
}

/// check_user_blacklist(user, domain, [number], [table]): true unless the number is forbidden.
fn check_user(
    call: &mut Call<UserBlacklist>,
    user: Text,
    domain: Text,
    asked: Option<Text>,
    table: Option<Text>,
) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else { return (-1).into() };
    let asked = asked.map(|n| n.0).filter(|n| !n.is_empty());
    let Some(asked) = asked.or_else(|| number(call.ctx)) else { return (-1).into() };
    let table =
        table.filter(|t| !t.is_empty()).map_or_else(|| module.table.clone(), |t| t.str().into_owned().into());
    let mut query = Query::select(table).columns(["prefix", "whitelist"]).eq("username", user.0);
    if module.use_domain {
        query = query.eq("domain", domain.0);
    }
    db.suspend(call.ctx, "check_user_blacklist", query, move |_, rows| match rows {
        Ok(rows) => verdict(Prefixes::read(&rows).allow(&asked)),
        Err(_) => -1,
    })
}

/// A global list, loaded at start.
struct List(Cached<Prefixes>);

impl Arg<UserBlacklist> for List {
    type Prepared = Cached<Prefixes>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "the name of a table";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<UserBlacklist>,
    ) -> Result<Cached<Prefixes>, Diagnostic> {
        let name = match arg {
            Some(arg) => {
                let name = <Word as Arg<UserBlacklist>>::prepare(Some(arg), site, loader, module)?;
                String::from_utf8_lossy(&name).into_owned()
            }
            None => "globalblacklist".to_string(),
        };
        let mut lists = module.lists.lock();
        if let Some((_, list)) = lists.iter().find(|(n, _)| *n == name) {
            return Ok(list.clone());
        }
        let list = Cached::default();
        lists.push((name, list.clone()));
        Ok(list)
    }

    fn eval(list: &Cached<Prefixes>, _: &mut Call<'_, UserBlacklist>) -> Result<List, i32> {
        Ok(List(list.clone()))
    }
}

/// check_blacklist(table)
fn check_list(call: &mut Call<UserBlacklist>, list: List) -> Outcome {
    let Some(number) = number(call.ctx) else { return (-1).into() };
    list.0.with(call.ctx, "check_blacklist", move |_, prefixes| verdict(prefixes.allow(&number)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Missing,
}

/// Loads the lists; `done` hears of each.
fn load(
    call: &mut Call<UserBlacklist>,
    which: Which,
    done: impl Fn(&mut Ctx, Result<(), host::db::DbError>) + Clone + 'static,
) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let lists: Vec<_> = module.lists.lock().clone();
    let wanted: Vec<_> =
        lists.into_iter().filter(|(_, l)| which == Which::All || l.get().is_none()).collect();
    for (name, list) in &wanted {
        let query = Query::select(name.clone()).columns(["prefix", "whitelist"]);
        list.load(call.ctx, "userblacklist", db, query, Prefixes::read, done.clone());
    }
}

fn reload(call: &mut Call<UserBlacklist>, _: &MiParams, answer: MiAnswer) {
    let count = call.module.lists.lock().len();
    if count == 0 {
        return answer.give(Ok(json!("OK")));
    }
    let open = Arc::new(AtomicUsize::new(count));
    let answer = Arc::new(Mutex::new((Some(answer), None)));
    load(call, Which::All, move |_, result| {
        let mut state = answer.lock();
        if let Err(error) = result {
            state.1.get_or_insert(MiError::new(500, error.to_string()));
        }
        if open.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(answer) = state.0.take()
        {
            answer.give(state.1.take().map_or_else(|| Ok(json!("OK")), Err));
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run_with};
    use script::ast::Dialect;

    #[test]
    fn the_longest_prefix_decides() {
        let folder = Folder::new("blacklist");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table globalblacklist (prefix varchar(64), whitelist int);
             insert into globalblacklist values ('', 0), ('1', 1), ('123456', 0);
             create table userblacklist (username varchar(64), domain varchar(64), prefix varchar(64), whitelist int);
             insert into userblacklist values ('u', 'd', '1234', 0), ('u', 'd', '12345', 1), ('u', 'e', '9', 0);",
        )
        .expect("tables");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"userblacklist.so\"\n\
             modparam(\"userblacklist\", \"db_url\", \"sqlite://{}\")\n",
            path.display()
        );
        for (number, global, user) in [
            ("1999", "1", "1"),
            ("1234567", "-1", "1"),
            ("12349", "1", "-1"),
            ("2", "-1", "1"),
            ("9", "-1", "1"),
        ] {
            let body = r#"$var(x) = check_user_blacklist("u", "d"); $avp(r) = $var(x); $var(x) = check_blacklist("globalblacklist");
                $avp(r) = $var(x);"#;
            let uri = format!("sip:{number}@example.com");
            let ran = run_with(&config, body, Dialect::V4, |state| state.ruri = Some(uri.into()));
            assert_eq!(ran.avps("r"), [global, user], "{number}");
        }
    }
}
