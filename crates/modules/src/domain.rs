//! domain: which domains are ours, from a table, asked each time or kept in memory.

use crate::cached::Cached;
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::db::{Db, Name, Op, Query, Rows};
use host::load::Loader;
use host::mi::{MiAnswer, MiError, MiResult};
use host::{Call, Ctx, OutVar, Outcome, Registrar, Routes, Text};
use serde_json::{Value as Json, json};
use sip::Uri;

/// When the table is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// At each question.
    Ask,
    /// At start and by `domain_reload`.
    Memory,
}

pub struct Domain {
    url: Option<String>,
    db: Option<Db>,
    mode: Mode,
    table: Name,
    domain: Name,
    attrs: Name,
    subdomain: Name,
    domains: Cached<Domains>,
}

impl Default for Domain {
    fn default() -> Domain {
        Domain {
            url: None,
            db: None,
            mode: Mode::Ask,
            table: "domain".into(),
            domain: "domain".into(),
            attrs: "attrs".into(),
            subdomain: "accept_subdomain".into(),
            domains: Cached::default(),
        }
    }
}

/// More labels than this are not looked at.
const MAX_LABELS: usize = 32;
/// A table that was not loaded at start is tried again this often.
const RETRY_MS: u64 = 5_000;

pub fn register(m: &mut Registrar<Domain>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_int("db_mode", |s, v| Ok(s.mode = if v == 0 { Mode::Ask } else { Mode::Memory }));
    m.param_text("domain_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("domain_col", |s, v| Ok(s.domain = v.to_string().into()));
    m.param_text("attrs_col", |s, v| Ok(s.attrs = v.to_string().into()));
    m.param_text("subdomain_col", |s, v| Ok(s.subdomain = v.to_string().into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    let routes =
        Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL).and(Routes::ON_REPLY);
    m.function("is_domain_local", routes, |call: &mut Call<Domain>, domain: Text, attrs: Option<OutVar>| {
        is_local(call, domain.0, attrs)
    });
    m.function("is_from_local", routes, |call: &mut Call<Domain>, attrs: Option<OutVar>| {
        let from = call.state.msg.from().map(|f| f.uri);
        host_is_local(call, from, attrs)
    });
    m.function("is_uri_host_local", routes, |call: &mut Call<Domain>, attrs: Option<OutVar>| {
        let uri = call.state.current_uri();
        host_is_local(call, Some(uri), attrs)
    });
    m.command_late("domain:reload domain_reload", "reads the table of domains again", reload).takes("");
    m.command("domain:dump domain_dump", "the domains in memory", dump).takes("");
    m.init(|s: &mut Domain, loader: &mut Loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
    });
    m.start(|call| {
        if call.core.worker == 0 {
            load(call, |_, _| ());
        }
    });
    m.timer(RETRY_MS, |call| {
        if call.module.domains.get().is_none() {
            load(call, |_, _| ());
        }
    });
}

#[derive(Debug, Clone)]
struct Entry {
    attrs: Option<Bytes>,
    takes_subdomains: bool,
}

/// Domains by lower-case name.
#[derive(Debug, Default)]
struct Domains(AHashMap<Bytes, Entry>);

/// A domain and all it lies in, longest first: "a.b.c", "b.c", "c".
fn names(domain: &Bytes) -> impl Iterator<Item = Bytes> {
    let dots = domain.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(i, _)| i + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(dots).take(MAX_LABELS).collect();
    let domain = domain.clone();
    starts.into_iter().map(move |at| domain.slice(at..))
}

impl Domains {
    /// From rows of (domain, attributes, accepts subdomains).
    fn read(rows: &Rows) -> Domains {
        let entry = |row: host::db::Row<'_>| {
            let name = Bytes::from(row.string(0).trim().to_ascii_lowercase());
            (name, Entry { attrs: row.text(1), takes_subdomains: row.int(2).unwrap_or(0) > 0 })
        };
        Domains(rows.iter().map(entry).filter(|(name, _)| !name.is_empty()).collect())
    }

    fn find(&self, domain: &Bytes) -> Option<&Entry> {
        let mut all = names(domain);
        let exact = all.next().and_then(|name| self.0.get(&name));
        exact.or_else(|| all.find_map(|name| self.0.get(&name).filter(|e| e.takes_subdomains)))
    }
}

impl Domain {
    fn query(&self) -> Query {
        Query::select(&self.table).columns([&self.domain, &self.attrs, &self.subdomain])
    }
}

fn load(call: &mut Call<Domain>, done: impl FnOnce(&mut Ctx, Result<(), host::db::DbError>) + 'static) {
    let module = call.module.clone();
    if let (Some(db), Mode::Memory) = (&module.db, module.mode) {
        module.domains.load(call.ctx, "domain", db, module.query(), Domains::read, done);
    }
}

fn answer(ctx: &mut Ctx, found: Option<&Entry>, attrs: Option<OutVar>) -> i32 {
    let Some(entry) = found else { return -1 };
    if let (Some(var), Some(text)) = (attrs, &entry.attrs) {
        var.set(ctx, text.clone());
    }
    1
}

fn host_is_local(call: &mut Call<Domain>, uri: Option<Bytes>, attrs: Option<OutVar>) -> Outcome {
    match uri.and_then(|uri| Uri::parse(&uri).ok()) {
        Some(uri) => is_local(call, uri.host, attrs),
        None => (-1).into(),
    }
}

fn is_local(call: &mut Call<Domain>, domain: Bytes, attrs: Option<OutVar>) -> Outcome {
    let module = call.module.clone();
    let domain = Bytes::from(domain.trim_ascii().to_ascii_lowercase());
    if domain.is_empty() {
        return (-1).into();
    }
    match (module.mode, &module.db) {
        (Mode::Memory, _) => module
            .domains
            .with(call.ctx, "is_domain_local", move |ctx, all| answer(ctx, all.find(&domain), attrs)),
        (Mode::Ask, Some(db)) => {
            let query =
                names(&domain).fold(module.query().any(), |q, name| q.filter(&module.domain, Op::Eq, name));
            db.suspend(call.ctx, "is_domain_local", query, move |ctx, rows| match rows {
                Ok(rows) => answer(ctx, Domains::read(&rows).find(&domain), attrs),
                Err(_) => -1,
            })
        }
        (Mode::Ask, None) => (-1).into(),
    }
}

fn reload(call: &mut Call<Domain>, _: &host::mi::MiParams, reply: MiAnswer) {
    if call.module.mode == Mode::Ask {
        return reply.give(Err(MiError::new(500, "command not activated: db_mode is 0")));
    }
    load(call, |_, result| {
        reply.give(result.map(|()| json!("OK")).map_err(|e| MiError::new(500, e.to_string())));
    });
}

fn dump(call: &mut Call<Domain>, _: &host::mi::MiParams) -> MiResult {
    if call.module.mode == Mode::Ask {
        return Err(MiError::new(500, "command not activated: db_mode is 0"));
    }
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let all = call.module.domains.get();
    let mut list: Vec<(String, Json)> = all
        .iter()
        .flat_map(|all| &all.0)
        .map(|(name, entry)| {
            let mut item = json!({ "name": text(name) });
            if let Some(attrs) = &entry.attrs {
                item["attributes"] = json!(text(attrs));
            }
            (text(name), item)
        })
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(json!({ "Domains": list.into_iter().map(|(_, item)| item).collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, Server, run};
    use script::ast::Dialect;

    fn config(folder: &Folder, mode: u8) -> String {
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "drop table if exists domain; create table domain (id integer primary key, domain varchar(64), attrs varchar(255),
             accept_subdomain int default 0);
             insert into domain (domain, attrs, accept_subdomain) values ('example.com', 'a=b', 0), ('fermata.invalid', NULL, 1);",
        )
        .expect("a table");
        format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"domain.so\"\n\
             modparam(\"domain\", \"db_url\", \"sqlite://{}\")\nmodparam(\"domain\", \"db_mode\", {mode})\n",
            path.display()
        )
    }

    #[test]
    fn both_modes_say_the_same() {
        let body = r#"$var(x) = is_domain_local("EXAMPLE.com", $avp(r)); $avp(r) = $var(x);
            $var(x) = is_domain_local("sub.example.com"); $avp(r) = $var(x);
            $var(x) = is_domain_local("a.b.fermata.invalid", $avp(r)); $avp(r) = $var(x);
            $var(x) = is_domain_local("xfermata.invalid"); $avp(r) = $var(x);
            $var(x) = is_from_local(); $avp(r) = $var(x); $var(x) = is_uri_host_local(); $avp(r) = $var(x);"#;
        // In memory: the load itself, and the first question that waits for it.
        for (mode, waits) in [(0, 6), (1, 2)] {
            let folder = Folder::new(&format!("domain-{mode}"));
            let ran = run(&config(&folder, mode), body, Dialect::V4);
            assert_eq!(ran.avps("r"), ["-1", "1", "-1", "1", "-1", "1", "a=b"], "mode {mode}");
            assert_eq!(ran.waits, waits, "mode {mode}");
        }
    }

    #[test]
    fn a_reload_shows_new_domains() {
        let folder = Folder::new("domain-reload");
        let mut server = Server::new(&format!("{}route {{ }}", config(&folder, 1)), Dialect::V4);
        let db = rusqlite::Connection::open(folder.0.join("s.db")).expect("a database");
        db.execute_batch("delete from domain where domain = 'example.com'").expect("a change");
        assert_eq!(server.manage("domain:reload", json!([])), Ok(json!("OK")));
        assert_eq!(
            server.manage("domain_dump", json!([])),
            Ok(json!({"Domains": [{"name": "fermata.invalid"}]}))
        );
    }
}
