//! group: is a user member of a group, by table, by regular expressions kept in memory, or by AAA.

use crate::cached::Cached;
use crate::subjects::subject;
use host::aaa::{Aaa, AaaKind, AaaRequest};
use host::db::{Db, Name, Query, Rows};
use host::load::Loader;
use host::registrar::ParamFn;
use host::{Accepts, InParam, LoadError};
use host::{Call, OutVar, Outcome, Registrar, Routes, Text};
use script::ast::ParamValue;
use script::posix::{self, Case};

pub struct Group {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    user: Name,
    domain: Name,
    group: Name,
    use_domain: bool,
    re_table: Option<Name>,
    re_exp: Name,
    re_gid: Name,
    multiple_gid: bool,
    patterns: Cached<Vec<(posix::Pattern, i64)>>,
    aaa_url: Option<String>,
    aaa: Option<(Aaa, i64)>,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            url: None,
            db: None,
            table: "grp".into(),
            user: "username".into(),
            domain: "domain".into(),
            group: "grp".into(),
            use_domain: true,
            re_table: None,
            re_exp: "reg_exp".into(),
            re_gid: "group_id".into(),
            multiple_gid: true,
            patterns: Cached::default(),
            aaa_url: None,
            aaa: None,
        }
    }
}

const RETRY_MS: u64 = 5_000;

pub fn register(m: &mut Registrar<Group>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("user_column", |s, v| Ok(s.user = v.to_string().into()));
    m.param_text("domain_column", |s, v| Ok(s.domain = v.to_string().into()));
    m.param_text("group_column", |s, v| Ok(s.group = v.to_string().into()));
    m.param("use_domain", ParamFn::Any(|s, v| Ok(s.use_domain = truth(v)?)));
    m.param_text("re_table", |s, v| Ok(s.re_table = Some(v.to_string().into())));
    m.param_text("re_exp_column", |s, v| Ok(s.re_exp = v.to_string().into()));
    m.param_text("re_gid_column", |s, v| Ok(s.re_gid = v.to_string().into()));
    m.param_int("multiple_gid", |s, v| Ok(s.multiple_gid = v != 0));
    m.param_text("aaa_url", |s, v| Ok(s.aaa_url = Some(v.into())));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL);
    m.function("db_is_user_in", routes, db_is_user_in);
    m.function("is_user_in", routes, db_is_user_in);
    m.function("db_get_user_group", routes, db_get_user_group);
    m.function("aaa_is_user_in", routes, aaa_is_user_in);
    m.init_or(init);
    m.start(|call| {
        if call.core.worker == 0 {
            load(call);
        }
    });
    m.timer(RETRY_MS, |call| {
        if call.module.patterns.get().is_none() {
            load(call);
        }
    });
}

/// 0, 1 or a word for them.
pub fn truth(value: &ParamValue) -> Result<bool, String> {
    match value {
        ParamValue::Int(n) => Ok(*n != 0),
        ParamValue::Text(t) => match t.to_ascii_lowercase().as_slice() {
            b"1" | b"yes" | b"true" | b"on" => Ok(true),
            b"0" | b"no" | b"false" | b"off" => Ok(false),
            _ => Err("this takes 0 or 1".into()),
        },
    }
}

fn init(s: &mut Group, loader: &mut Loader) -> Result<(), LoadError> {
    s.db = loader.db_or_default(s.url.as_deref())?;
    if let Some(url) = s.aaa_url.as_deref().filter(|u| !u.is_empty()) {
        let aaa = loader.aaa(url).in_param("aaa_url")?;
        for attribute in ["User-Name", "SIP-Group", "Service-Type"] {
            aaa.attribute(attribute).in_param("aaa_url")?;
        }
        let service = aaa.value("Service-Type", "Group-Check").in_param("aaa_url")?;
        s.aaa = Some((aaa, service));
    }
    Ok(())
}

fn load(call: &mut Call<Group>) {
    let module = call.module.clone();
    let (Some(db), Some(table)) = (&module.db, &module.re_table) else { return };
    let query = Query::select(table).columns([&module.re_exp, &module.re_gid]);
    module.patterns.load(call.ctx, "group", db, query, patterns, |_, _| ());
}

/// From rows of (expression, group): the last row is tried first, as in the reference.
fn patterns(rows: &Rows) -> Vec<(posix::Pattern, i64)> {
    let read = |row: host::db::Row<'_>| {
        let text = row.text(0)?;
        let group = row.int(1)?;
        match posix::compile(&text, Case::Ignore) {
            Ok(regex) => Some((regex, group)),
            Err(error) => {
                host::error!("group", "the expression {} is left out: {error}", row.string(0));
                None
            }
        }
    };
    rows.iter().rev().filter_map(read).collect()
}

/// db_is_user_in(who, group)
fn db_is_user_in(call: &mut Call<Group>, who: Text, group: Text) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else {
        host::error!("group", "db_is_user_in needs the parameter db_url");
        return (-1).into();
    };
    let Some(who) = subject(call.ctx, &who.0) else { return (-1).into() };
    let mut query = Query::select(&module.table)
        .column(&module.group)
        .eq(&module.user, who.user)
        .eq(&module.group, group.0);
    if module.use_domain {
        query = query.eq(&module.domain, who.domain);
    }
    db.suspend(call.ctx, "db_is_user_in", query.limit(1), |_, rows| match rows {
        Ok(rows) if !rows.is_empty() => 1,
        _ => -1,
    })
}

/// db_get_user_group(who, AVP): the groups whose expressions match sip:user@domain.
fn db_get_user_group(call: &mut Call<Group>, who: Text, groups: OutVar) -> Outcome {
    let module = call.module.clone();
    if module.re_table.is_none() || module.db.is_none() {
        host::error!("group", "db_get_user_group needs the parameters re_table and db_url");
        return (-1).into();
    }
    let Some(who) = subject(call.ctx, &who.0) else { return (-1).into() };
    let uri = [b"sip:", &who.user[..], b"@", &who.domain].concat();
    let most = if module.multiple_gid { usize::MAX } else { 1 };
    module.patterns.clone().with(call.ctx, "db_get_user_group", move |ctx, patterns| {
        let found: Vec<i64> =
            patterns.iter().filter(|(r, _)| r.is_match(&uri)).map(|(_, g)| *g).take(most).collect();
        for group in &found {
            groups.set(ctx, *group);
        }
        if found.is_empty() { -1 } else { 1 }
    })
}

/// aaa_is_user_in(who, group)
fn aaa_is_user_in(call: &mut Call<Group>, who: Text, group: Text) -> Outcome {
    let module = call.module.clone();
    let Some((aaa, service)) = &module.aaa else {
        host::error!("group", "aaa_is_user_in needs the parameter aaa_url");
        return (-1).into();
    };
    let Some(who) = subject(call.ctx, &who.0) else { return (-1).into() };
    let user = match module.use_domain {
        true => bytes::Bytes::from([&who.user[..], b"@", &who.domain].concat()),
        false => who.user,
    };
    let mut request = AaaRequest::new(AaaKind::Auth);
    request.add("User-Name", user);
    request.add("SIP-Group", group.0);
    request.add("Service-Type", *service);
    aaa.suspend(call.ctx, "aaa_is_user_in", request, |_, answer| match answer {
        Ok(answer) if answer.accepted => 1,
        _ => -1,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run};
    use script::ast::Dialect;

    #[test]
    fn groups_by_table_and_by_expression() {
        let folder = Folder::new("group");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table grp (username varchar(64), domain varchar(64), grp varchar(64));
             insert into grp values ('you', 'fermata.invalid', 'ld'), ('x', 'example.com', 'int');
             create table re_grp (id integer primary key, reg_exp varchar(128), group_id int);
             insert into re_grp (reg_exp, group_id) values ('^sip:y.*', 1), ('@fermata', 2), ('^sip:z', 3), ('[', 4);",
        )
        .expect("tables");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"group.so\"\n\
             modparam(\"group\", \"db_url\", \"sqlite://{}\")\nmodparam(\"group\", \"re_table\", \"re_grp\")\n",
            path.display()
        );
        let body = r#"$var(x) = db_is_user_in("From", "ld"); $avp(r) = $var(x); $var(x) = db_is_user_in("To", "int"); $avp(r) = $var(x);
            $var(x) = db_is_user_in("sip:x@example.com", "int"); $avp(r) = $var(x);
            $var(x) = db_is_user_in("sip:x@other.org", "int"); $avp(r) = $var(x);
            $var(x) = db_is_user_in("Credentials", "int"); $avp(r) = $var(x);
            db_get_user_group("From", $avp(g)); $var(x) = db_get_user_group("sip:q@q", $avp(g)); $avp(r) = $var(x);"#;
        let ran = run(&config, body, Dialect::V4);
        assert_eq!(ran.avps("r"), ["-1", "-1", "-1", "1", "-1", "1"]);
        assert_eq!(ran.avps("g"), ["1", "2"]);
    }
}
