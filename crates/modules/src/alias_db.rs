//! alias_db: other names of users, from a table; asked at each call without blocking.

use bytes::Bytes;
use host::Accepts;
use host::db::{Db, DbError, Name, Query, Rows};
use host::load::Loader;
use host::{Branch, Call, Ctx, OutVar, Outcome, Registrar, Routes, Text};
use sip::Uri;

pub struct AliasDb {
    url: Option<String>,
    db: Option<Db>,
    user: Name,
    domain: Name,
    alias_user: Name,
    alias_domain: Name,
    domain_prefix: String,
    append_branches: bool,
    /// 1.x: the domain counts for all calls, or for none.
    use_domain: bool,
}

impl Default for AliasDb {
    fn default() -> AliasDb {
        AliasDb {
            url: None,
            db: None,
            user: "username".into(),
            domain: "domain".into(),
            alias_user: "alias_username".into(),
            alias_domain: "alias_domain".into(),
            domain_prefix: String::new(),
            append_branches: false,
            use_domain: true,
        }
    }
}

pub fn register(m: &mut Registrar<AliasDb>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("user_column", |s, v| Ok(s.user = v.to_string().into()));
    m.param_text("domain_column", |s, v| Ok(s.domain = v.to_string().into()));
    m.param_text("alias_user_column", |s, v| Ok(s.alias_user = v.to_string().into()));
    m.param_text("alias_domain_column", |s, v| Ok(s.alias_domain = v.to_string().into()));
    m.param_text("domain_prefix", |s, v| Ok(s.domain_prefix = v.into()));
    m.param_int("append_branches", |s, v| Ok(s.append_branches = v != 0));
    m.param_int("use_domain", |s, v| Ok(s.use_domain = v != 0));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.function("alias_db_lookup", Routes::REQUEST.and(Routes::FAILURE), lookup);
    m.function("alias_db_find", Routes::ALL, find);
    m.init(|s: &mut AliasDb, loader: &mut Loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
    });
}

/// Which way a table is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToUser,
    ToAlias,
}

/// The query for a URI; `None`: it has no user.
fn query(module: &AliasDb, table: &Text, uri: &Bytes, flags: &[u8]) -> Option<Query> {
    let uri = Uri::parse(uri).ok()?;
    let user = uri.user.filter(|u| !u.is_empty())?;
    let way = if flags.contains(&b'r') { Way::ToAlias } else { Way::ToUser };
    let users = (&module.user, &module.domain);
    let aliases = (&module.alias_user, &module.alias_domain);
    let (known, wanted) = if way == Way::ToUser { (aliases, users) } else { (users, aliases) };
    let mut query = Query::select(table.str().into_owned()).columns([wanted.0, wanted.1]).eq(known.0, user);
    if module.use_domain && !flags.contains(&b'd') {
        let prefix = module.domain_prefix.as_bytes();
        let cut = !prefix.is_empty() && uri.host.len() > prefix.len() && uri.host.starts_with(prefix);
        query = query.eq(known.1, if cut { uri.host.slice(prefix.len()..) } else { uri.host });
    }
    Some(query)
}

/// The URIs of the rows (user, domain), in their order.
fn uris(rows: &Rows) -> Vec<Bytes> {
    let uri = |row: host::db::Row<'_>| {
        let (user, domain) = (row.text(0)?, row.text(1)?);
        (!user.is_empty()).then(|| Bytes::from([b"sip:", &user[..], b"@", &domain].concat()))
    };
    rows.iter().filter_map(uri).collect()
}

fn ask(
    call: &mut Call<AliasDb>,
    what: &'static str,
    query: Option<Query>,
    finish: impl FnOnce(&mut Ctx, Vec<Bytes>) -> i32 + 'static,
) -> Outcome {
    let (Some(db), Some(query)) = (call.module.db.clone(), query) else { return (-1).into() };
    db.suspend(call.ctx, what, query, move |ctx, rows: Result<Rows, DbError>| match rows {
        Ok(rows) => {
            let found = uris(&rows);
            if found.is_empty() { -1 } else { finish(ctx, found) }
        }
        Err(_) => -1,
    })
}

/// alias_db_lookup(table, [flags]): the R-URI becomes the user's; d: without domain, r: the other way.
fn lookup(call: &mut Call<AliasDb>, table: Text, flags: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let uri = call.state.current_uri();
    let query = query(&module, &table, &uri, flags.as_deref().map_or(b"", |f| f));
    ask(call, "alias_db_lookup", query, move |ctx, found| {
        let mut found = found.into_iter();
        ctx.state.ruri = found.next().map(|uri| script::traced::on_one_line(&uri));
        if module.append_branches {
            let branches = found.map(|uri| Branch { uri, q: -1, ..Branch::default() });
            ctx.state.branches.extend(branches);
        }
        1
    })
}

/// alias_db_find(table, uri, variable, [flags])
fn find(call: &mut Call<AliasDb>, table: Text, uri: Text, result: OutVar, flags: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let query = query(&module, &table, &uri.0, flags.as_deref().map_or(b"", |f| f));
    ask(call, "alias_db_find", query, move |ctx, found| {
        result.set(ctx, found[0].clone());
        1
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run_with};
    use script::ast::Dialect;

    #[test]
    fn aliases_both_ways() {
        let folder = Folder::new("alias-db");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table dbaliases (alias_username varchar(64), alias_domain varchar(64), username varchar(64), domain varchar(64));
             insert into dbaliases values ('100', 'example.com', 'alice', 'example.com'), ('100', 'other.org', 'bob', 'other.org'),
             ('200', 'example.com', 'carol', 'example.com'), ('200', 'example.com', 'dave', 'example.com');",
        )
        .expect("a table");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"alias_db.so\"\n\
             modparam(\"alias_db\", \"db_url\", \"sqlite://{}\")\nmodparam(\"alias_db\", \"append_branches\", 1)\n\
             modparam(\"alias_db\", \"domain_prefix\", \"sip.\")\n",
            path.display()
        );
        for (uri, body, expected) in [
            (
                "sip:100@example.com",
                r#"alias_db_lookup("dbaliases"); $avp(r) = $ru;"#,
                "sip:alice@example.com",
            ),
            ("sip:100@sip.other.org", r#"alias_db_lookup("dbaliases"); $avp(r) = $ru;"#, "sip:bob@other.org"),
            ("sip:100@nowhere", r#"$var(x) = alias_db_lookup("dbaliases"); $avp(r) = $var(x);"#, "-1"),
            (
                "sip:200@nowhere",
                r#"alias_db_lookup("dbaliases", "d"); $avp(r) = $ru;"#,
                "sip:carol@example.com",
            ),
            (
                "sip:bob@other.org",
                r#"alias_db_lookup("dbaliases", "r"); $avp(r) = $ru;"#,
                "sip:100@other.org",
            ),
            (
                "sip:x",
                r#"alias_db_find("dbaliases", "sip:dave@example.com", $avp(r), "r");"#,
                "sip:200@example.com",
            ),
            ("sip:example.com", r#"$var(x) = alias_db_lookup("dbaliases"); $avp(r) = $var(x);"#, "-1"),
        ] {
            let ran = run_with(&config, body, Dialect::V4, |state| state.ruri = Some(uri.into()));
            assert_eq!(ran.avps("r"), [expected], "{uri}: {body}");
            if body.contains("\"d\"") {
                assert_eq!(ran.state.branches.len(), 1);
                assert_eq!(&ran.state.branches[0].uri[..], b"sip:dave@example.com");
            }
        }
    }
}
