//! auth_db: digest authentication against a table; the query suspends the script.

use crate::auth::{Auth, ChallengeKind, Offered, rc};
use bytes::Bytes;
use host::db::{Db, DbError, Name, Query, Rows};
use host::load::Loader;
use host::{Accepts, InParam, LoadError};
use host::{Call, Ctx, OutVar, Outcome, Registrar, Routes, Text, Var};
use sip::Uri;
use sip::digest::{Algorithm, Credentials};
use std::sync::Arc;

pub struct AuthDb {
    url: Option<String>,
    db: Option<Db>,
    auth: Option<Arc<Auth>>,
    calculate_ha1: bool,
    use_domain: bool,
    user_column: Name,
    domain_column: Name,
    password_column: Name,
    sha256_column: Name,
    sha512_column: Name,
    uri_user_column: Name,
    uri_domain_column: Name,
    uri_uriuser_column: Name,
    load_text: String,
    /// (variable, column)
    load: Arc<Vec<(Var, Name)>>,
}

impl Default for AuthDb {
    fn default() -> AuthDb {
        AuthDb {
            url: None,
            db: None,
            auth: None,
            calculate_ha1: false,
            use_domain: true,
            user_column: "username".into(),
            domain_column: "domain".into(),
            password_column: "ha1".into(),
            sha256_column: "ha1_sha256".into(),
            sha512_column: "ha1_sha512t256".into(),
            uri_user_column: "username".into(),
            uri_domain_column: "domain".into(),
            uri_uriuser_column: "uri_user".into(),
            load_text: String::new(),
            load: Arc::default(),
        }
    }
}

pub fn register(m: &mut Registrar<AuthDb>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_int("calculate_ha1", |s, v| Ok(s.calculate_ha1 = v != 0));
    m.param_int("use_domain", |s, v| Ok(s.use_domain = v != 0));
    m.param_text("user_column", |s, v| Ok(s.user_column = v.to_string().into()));
    m.param_text("domain_column", |s, v| Ok(s.domain_column = v.to_string().into()));
    m.param_text("password_column", |s, v| Ok(s.password_column = v.to_string().into()));
    m.param_text("hash_column_sha256", |s, v| Ok(s.sha256_column = v.to_string().into()));
    m.param_text("hash_column_sha512t256", |s, v| Ok(s.sha512_column = v.to_string().into()));
    m.param_text("uri_user_column", |s, v| Ok(s.uri_user_column = v.to_string().into()));
    m.param_text("uri_domain_column", |s, v| Ok(s.uri_domain_column = v.to_string().into()));
    m.param_text("uri_uriuser_column", |s, v| Ok(s.uri_uriuser_column = v.to_string().into()));
    m.param_text("load_credentials", |s, v| Ok(s.load_text = v.into()));
    m.ignored(&["skip_version_check"], "table versions are not checked");
    m.ignored(&["password_column_2"], "HA1 is computed for the user name that the client sent");
    m.function("www_authorize", Routes::REQUEST, |call: &mut Call<AuthDb>, realm: Text, table: Text| {
        authorize(call, &realm, &table, ChallengeKind::Www)
    });
    m.function("proxy_authorize", Routes::REQUEST, |call: &mut Call<AuthDb>, realm: Text, table: Text| {
        authorize(call, &realm, &table, ChallengeKind::Proxy)
    });
    m.function("db_is_to_authorized", Routes::REQUEST, |call: &mut Call<AuthDb>, table: Text| {
        let uri = call.state.msg.to().map(|to| to.uri);
        may_use(call, &table, uri)
    });
    m.function("db_is_from_authorized", Routes::REQUEST, |call: &mut Call<AuthDb>, table: Text| {
        let uri = call.state.msg.from().map(|from| from.uri);
        may_use(call, &table, uri)
    });
    m.function("db_does_uri_exist", Routes::REQUEST, does_uri_exist);
    m.function("db_get_auth_id", Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL), get_auth_id);
    m.needs(&["auth"]);
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.init_or(init);
}

fn init(s: &mut AuthDb, loader: &mut Loader) -> Result<(), LoadError> {
    s.db = loader.db_or_default(s.url.as_deref())?;
    if s.db.is_none() {
        return Err("db_url is not set".into());
    }
    s.auth = loader.module::<Auth>();
    let mut load = Vec::new();
    for part in s.load_text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (variable, column) = match part.split_once('=') {
            Some((variable, column)) => (variable.trim().to_string(), column.trim()),
            None => (format!("$avp({part})"), part),
        };
        let spec =
            script::parse_variable(&variable.into(), script::Loc::default()).in_param("load_credentials")?;
        load.push((loader.target_var(&spec).in_param("load_credentials")?, column.to_string().into()));
    }
    s.load = Arc::new(load);
    Ok(())
}

impl AuthDb {
    fn db(&self) -> Db {
        self.db.clone().expect("checked by init")
    }

    /// The column that holds the password or hash for these credentials.
    fn secret_column(&self, credentials: &Credentials) -> &Name {
        if self.calculate_ha1 {
            return &self.password_column;
        }
        match credentials.algorithm.unwrap_or(Algorithm::Md5) {
            Algorithm::Sha256 | Algorithm::Sha256Sess => &self.sha256_column,
            Algorithm::Sha512_256 | Algorithm::Sha512_256Sess => &self.sha512_column,
            _ => &self.password_column,
        }
    }
}

fn authorize(call: &mut Call<AuthDb>, realm: &Text, table: &Text, kind: ChallengeKind) -> Outcome {
    let module = call.module.clone();
    let Some(auth) = module.auth.clone() else { return rc::ERROR.into() };
    let Some(realm) = auth.realm(call.ctx, &realm.0) else { return rc::ERROR.into() };
    let credentials = match auth.offered(call.ctx, kind, &realm) {
        Offered::Verdict(rc) => return rc.into(),
        Offered::Credentials(found) => found,
    };
    let (user, domain) = credentials.user_and_domain();
    let mut query = Query::select(table.str().into_owned()).column(module.secret_column(&credentials));
    for (_, column) in module.load.iter() {
        query = query.column(column);
    }
    query = query.eq(&module.user_column, user);
    if module.use_domain {
        query = query.eq(&module.domain_column, domain.unwrap_or_else(|| realm.clone()));
    }
    module.db().suspend(call.ctx, "www_authorize", query.limit(1), move |ctx, rows| {
        decide(ctx, &module, &auth, &credentials, &realm, rows)
    })
}

fn decide(
    ctx: &mut Ctx,
    module: &AuthDb,
    auth: &Auth,
    credentials: &Credentials,
    realm: &Bytes,
    rows: Result<Rows, DbError>,
) -> i32 {
    let Ok(rows) = rows else { return rc::ERROR };
    let Some(row) = rows.first() else { return rc::INVALID_USER };
    let Some(secret) = row.text(0) else { return rc::INVALID_USER };
    let ha1 = Auth::ha1_of(credentials, realm, &secret, module.calculate_ha1);
    let rc = auth.verify(ctx, credentials, &ha1);
    if rc == rc::OK {
        for (i, (variable, _)) in module.load.iter().enumerate() {
            let value = row.at(i + 1);
            if !value.is_null() {
                variable.set(ctx, script::ast::AssignOp::Set, value.script());
            }
        }
    }
    rc
}

/// May the authenticated user use the user part of this URI? Without an entry: only its own.
fn may_use(call: &mut Call<AuthDb>, table: &Text, uri: Option<Bytes>) -> Outcome {
    let module = call.module.clone();
    let Some(credentials) = host::vars::auth::verified(call.ctx, "auth_db") else { return (-1).into() };
    let Some(uri) = uri.and_then(|u| Uri::parse(&u).ok()) else { return (-1).into() };
    let (user, domain) = credentials.user_and_domain();
    let mut query = Query::select(table.str().into_owned())
        .column(&module.uri_user_column)
        .eq(&module.uri_user_column, user)
        .eq(&module.uri_uriuser_column, uri.user.clone().unwrap_or_default());
    if module.use_domain {
        query = query.eq(&module.uri_domain_column, domain.unwrap_or_else(|| credentials.realm.clone()));
    }
    module.db().suspend(call.ctx, "db_is_authorized", query.limit(1), |_, rows| match rows {
        Ok(rows) if !rows.is_empty() => 1,
        Ok(_) => -1,
        Err(_) => -1,
    })
}

/// db_does_uri_exist(uri, table)
fn does_uri_exist(call: &mut Call<AuthDb>, uri: Text, table: Text) -> Outcome {
    let module = call.module.clone();
    let Ok(uri) = Uri::parse(&uri.0) else { return (-1).into() };
    let mut query = Query::select(table.str().into_owned())
        .column(&module.user_column)
        .eq(&module.user_column, uri.user.clone().unwrap_or_default());
    if module.use_domain {
        query = query.eq(&module.domain_column, uri.host.clone());
    }
    module.db().suspend(call.ctx, "db_does_uri_exist", query.limit(1), |_, rows| match rows {
        Ok(rows) if !rows.is_empty() => 1,
        _ => -1,
    })
}

/// db_get_auth_id(table, uri, auth, realm)
fn get_auth_id(call: &mut Call<AuthDb>, table: Text, uri: Text, user: OutVar, realm: OutVar) -> Outcome {
    let module = call.module.clone();
    let Ok(uri) = Uri::parse(&uri.0) else { return (-1).into() };
    let mut query = Query::select(table.str().into_owned())
        .column(&module.uri_user_column)
        .column(&module.uri_domain_column)
        .eq(&module.uri_uriuser_column, uri.user.clone().unwrap_or_default());
    if module.use_domain {
        query = query.eq(&module.uri_domain_column, uri.host.clone());
    }
    module.db().suspend(call.ctx, "db_get_auth_id", query.limit(1), move |ctx, rows| {
        let Ok(rows) = rows else { return -1 };
        let Some(row) = rows.first() else { return -1 };
        user.set(ctx, row.at(0).script());
        realm.set(ctx, row.at(1).script());
        1
    })
}
