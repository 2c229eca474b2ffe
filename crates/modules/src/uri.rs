//! uri, of releases before 2.2: checks of To, From and the Request-URI; later releases have them in sipmsgops and
//! auth_db.

use crate::sipmsgops::request;
use crate::subjects::Subject;
use bytes::Bytes;
use host::aaa::{Aaa, AaaKind, AaaRequest};
use host::db::{Db, Name, Query};
use host::load::Loader;
use host::{Accepts, InParam, LoadError};
use host::{Call, OutVar, Outcome, Registrar, Routes, Text};

pub struct UriModule {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    user: Name,
    domain: Name,
    uri_user: Name,
    use_uri_table: bool,
    use_domain: bool,
    aaa_url: Option<String>,
    aaa: Option<Aaa>,
    service_type: Option<i64>,
    host_apart: bool,
}

impl Default for UriModule {
    fn default() -> UriModule {
        UriModule {
            url: None,
            db: None,
            table: "subscriber".into(),
            user: "username".into(),
            domain: "domain".into(),
            uri_user: "uri_user".into(),
            use_uri_table: false,
            use_domain: false,
            aaa_url: None,
            aaa: None,
            service_type: None,
            host_apart: false,
        }
    }
}

pub fn register(m: &mut Registrar<UriModule>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("uri_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("user_column", |s, v| Ok(s.user = v.to_string().into()));
    m.param_text("domain_column", |s, v| Ok(s.domain = v.to_string().into()));
    m.param_text("uriuser_column", |s, v| Ok(s.uri_user = v.to_string().into()));
    m.param_int("use_uri_table", |s, v| Ok(s.use_uri_table = v != 0));
    m.param_int("use_domain", |s, v| Ok(s.use_domain = v != 0));
    m.param_text("aaa_url", |s, v| Ok(s.aaa_url = Some(v.into())));
    m.param_int("service_type", |s, v| Ok(s.service_type = Some(v)));
    m.param_int("use_sip_uri_host", |s, v| Ok(s.host_apart = v != 0));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::from(0), &["service_type"]);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL);
    for name in ["db_check_to", "check_to"] {
        m.function(name, routes, |call: &mut Call<UriModule>| {
            let uri = call.state.msg.to().map(|t| t.uri);
            check(call, uri)
        });
    }
    for name in ["db_check_from", "check_from"] {
        m.function(name, routes, |call: &mut Call<UriModule>| {
            let uri = call.state.msg.from().map(|f| f.uri);
            check(call, uri)
        });
    }
    for name in ["db_does_uri_exist", "does_uri_exist"] {
        m.function(name, routes, does_uri_exist);
    }
    m.function("db_get_auth_id", routes, get_auth_id);
    m.function("aaa_does_uri_exist", routes, |call: &mut Call<UriModule>, uri: Option<Text>| {
        ask_aaa(call, uri, "aaa_does_uri_exist", Asked::Uri)
    });
    m.function("aaa_does_uri_user_exist", routes, |call: &mut Call<UriModule>, uri: Option<Text>| {
        ask_aaa(call, uri, "aaa_does_uri_user_exist", Asked::User)
    });
    m.function("is_user", routes, is_user);
    let any = routes.and(Routes::ON_REPLY).and(Routes::BRANCH);
    m.function("has_totag", any, request::has_totag);
    m.function("uri_param", routes, request::ruri_has_param);
    m.function("add_uri_param", routes, request::ruri_add_param);
    m.function("del_uri_param", routes, request::ruri_del_param);
    m.function("tel2sip", routes, request::ruri_tel2sip);
    m.function("is_uri_user_e164", any, request::is_uri_user_e164);
    m.init_or(init);
}

fn init(s: &mut UriModule, loader: &mut Loader) -> Result<(), LoadError> {
    s.db = match s.url.as_deref() {
        Some(url) => Some(loader.db(url)?),
        None => loader.db_or_default(None).ok().flatten(),
    };
    if s.use_uri_table && s.db.is_none() {
        return Err(LoadError::from("it is set, but db_url is not").in_param("use_uri_table"));
    }
    if let Some(url) = s.aaa_url.as_deref().filter(|u| !u.is_empty()) {
        let aaa = loader.aaa(url).in_param("aaa_url")?;
        aaa.attribute("User-Name").in_param("aaa_url")?;
        aaa.attribute("Service-Type").in_param("aaa_url")?;
        if s.host_apart {
            aaa.attribute("SIP-URI-Host").in_param("aaa_url")?;
        }
        if s.service_type.is_none() {
            s.service_type = Some(aaa.value("Service-Type", "Call-Check").unwrap_or(10));
        }
        s.aaa = Some(aaa);
    }
    Ok(())
}

/// May the authenticated user use this URI? With `use_uri_table` the table says it, else the names must be the same.
fn check(call: &mut Call<UriModule>, uri: Option<Bytes>) -> Outcome {
    let module = call.module.clone();
    let Some(credentials) = host::vars::auth::verified(call.ctx, "uri") else { return (-1).into() };
    let Some(uri) = uri.and_then(|u| Subject::of_uri(&u)) else { return (-1).into() };
    let (user, domain) = credentials.user_and_domain();
    if !module.use_uri_table {
        return Outcome::from(user == uri.user);
    }
    let Some(db) = &module.db else { return (-1).into() };
    let query = Query::select(&module.table)
        .column(&module.uri_user)
        .eq(&module.user, user)
        .eq(&module.domain, domain.unwrap_or_else(|| credentials.realm.clone()))
        .eq(&module.uri_user, uri.user);
    db.suspend(call.ctx, "db_check_uri", query.limit(1), |_, rows| match rows {
        Ok(rows) if !rows.is_empty() => 1,
        _ => -1,
    })
}

/// db_does_uri_exist(): the user of the R-URI, in `uri` or `subscriber`.
fn does_uri_exist(call: &mut Call<UriModule>) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else {
        host::error!("uri", "db_does_uri_exist needs the parameter db_url");
        return (-1).into();
    };
    let Some(who) = Subject::of_uri(&call.state.current_uri()) else { return (-1).into() };
    let column = if module.use_uri_table { &module.uri_user } else { &module.user };
    let mut query = Query::select(&module.table).column(column).eq(column, who.user);
    if module.use_domain {
        query = query.eq(&module.domain, who.domain);
    }
    db.suspend(call.ctx, "db_does_uri_exist", query.limit(1), |_, rows| match rows {
        Ok(rows) if !rows.is_empty() => 1,
        _ => -1,
    })
}

/// db_get_auth_id(uri, user, realm)
fn get_auth_id(call: &mut Call<UriModule>, uri: Text, user: OutVar, realm: OutVar) -> Outcome {
    let module = call.module.clone();
    let (Some(db), Some(who)) = (&module.db, Subject::of_uri(&uri.0)) else { return (-1).into() };
    let column = if module.use_uri_table { &module.uri_user } else { &module.user };
    let mut query = Query::select(&module.table).columns([&module.user, &module.domain]).eq(column, who.user);
    if module.use_domain {
        query = query.eq(&module.domain, who.domain);
    }
    db.suspend(call.ctx, "db_get_auth_id", query.limit(1), move |ctx, rows| {
        let Ok(rows) = rows else { return -1 };
        let Some(row) = rows.first() else { return -1 };
        user.set(ctx, row.at(0).script());
        realm.set(ctx, row.at(1).script());
        1
    })
}

fn is_user(call: &mut Call<UriModule>, name: Text) -> bool {
    host::vars::auth::verified(call.ctx, "uri").is_some_and(|c| c.username == name.0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Uri,
    User,
}

fn ask_aaa(call: &mut Call<UriModule>, uri: Option<Text>, what: &'static str, asked: Asked) -> Outcome {
    let module = call.module.clone();
    let Some(aaa) = &module.aaa else {
        host::error!("uri", "{what} needs the parameter aaa_url");
        return (-2).into();
    };
    let uri = uri.map_or_else(|| call.state.current_uri(), |u| u.0);
    let Some(who) = Subject::of_uri(&uri) else { return (-1).into() };
    let mut request = AaaRequest::new(AaaKind::Auth);
    if asked == Asked::Uri && !module.host_apart {
        request.add("User-Name", Bytes::from([&who.user[..], b"@", &who.domain].concat()));
    } else {
        request.add("User-Name", who.user);
    }
    if asked == Asked::Uri && module.host_apart {
        request.add("SIP-URI-Host", who.domain);
    }
    request.add("Service-Type", module.service_type.unwrap_or(10));
    aaa.suspend(call.ctx, what, request, |ctx, answer| match answer {
        Ok(answer) if answer.accepted => {
            answer.sip_avps(ctx);
            1
        }
        Ok(_) => -1,
        Err(_) => -2,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run, run_with};
    use host::ctx::MsgState;
    use script::ast::Dialect;
    use std::rc::Rc;

    fn with_credentials(state: &mut MsgState) {
        let text = "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1\r\nFrom: <sip:alice@example.com>;tag=1\r\n\
            To: <sip:100@example.com>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nAuthorization: Digest username=\"alice\", \
            realm=\"example.com\", nonce=\"n\", uri=\"sip:example.com\", response=\"00000000000000000000000000000000\"\r\n\
            Content-Length: 0\r\n\r\n";
        state.msg = Rc::new(sip::Message::parse(text.into()).expect("a request"));
    }

    fn verified(state: &mut MsgState) {
        with_credentials(state);
        let header = *state.msg.header(sip::HeaderName::Authorization).expect("credentials");
        let credentials =
            sip::digest::Credentials::parse(&state.msg.text(header.value())).expect("credentials");
        host::vars::auth::Offered::offer(state, header, &credentials);
        host::vars::auth::Offered::verified(state);
    }

    #[test]
    fn who_may_use_which_uri() {
        let folder = Folder::new("uri");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table uri (username varchar(64), domain varchar(64), uri_user varchar(64));
             insert into uri values ('alice', 'example.com', '100'), ('bob', 'example.com', 'you');",
        )
        .expect("a table");
        let config = |more: &str| {
            format!(
                "listen=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"uri.so\"\n\
                 modparam(\"uri\", \"db_url\", \"sqlite://{}\")\nmodparam(\"uri\", \"db_table\", \"uri\")\n{more}",
                path.display()
            )
        };
        let body = r#"if (db_check_to()) $avp(r) = "to"; if (db_check_from()) $avp(r) = "from"; if (is_user("alice")) $avp(r) = "user";
            if (has_totag()) $avp(r) = "tag";"#;
        let ran = run_with(&config(""), body, Dialect::V21, with_credentials);
        assert!(ran.avps("r").is_empty(), "what was not verified is nobody");
        let ran = run_with(&config(""), body, Dialect::V21, verified);
        assert_eq!(ran.avps("r"), ["user", "from"]);
        let table = config("modparam(\"uri\", \"use_uri_table\", 1)\n");
        let ran = run_with(&table, body, Dialect::V21, verified);
        assert_eq!(ran.avps("r"), ["user", "to"]);
        let ran = run(
            &table,
            r#"if (db_does_uri_exist()) $avp(r) = "exists"; db_get_auth_id("sip:100@x", "$avp(r)", "$avp(r)");"#,
            Dialect::V21,
        );
        assert_eq!(ran.avps("r"), ["example.com", "alice", "exists"]);
    }
}
