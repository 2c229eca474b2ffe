//! auth_jwt: who calls, by a token that somebody signed (RFC 7519), with keys of the script or of a database.

pub mod token;

use bytes::Bytes;
use host::db::{Db, Name, Op, Query};
use host::load::Loader;
use host::{Accepts, Call, Ctx, InParam, LoadError, OutVar, Outcome, Registrar, Routes, Text, Value, Var};
use script::ast::AssignOp;
use std::sync::Arc;
use token::Token;

/// Keys of one profile that are tried.
const MAX_SECRETS: u64 = 100;

pub struct AuthJwt {
    with_db: bool,
    url: Option<String>,
    db: Option<Db>,
    profiles: Name,
    secrets: Name,
    tag: Name,
    username: Name,
    secret_tag: Name,
    secret: Name,
    start: Name,
    end: Name,
    tag_claim: String,
    load_text: String,
    /// (variable, column of the profile)
    load: Vec<(Var, Name)>,
}

impl Default for AuthJwt {
    fn default() -> AuthJwt {
        AuthJwt {
            with_db: false,
            url: None,
            db: None,
            profiles: "jwt_profiles".into(),
            secrets: "jwt_secrets".into(),
            tag: "tag".into(),
            username: "sip_username".into(),
            secret_tag: "corresponding_tag".into(),
            secret: "secret".into(),
            start: "start_ts".into(),
            end: "end_ts".into(),
            tag_claim: "tag".into(),
            load_text: String::new(),
            load: Vec::new(),
        }
    }
}

pub fn register(m: &mut Registrar<AuthJwt>) {
    m.param_int("db_mode", |s, v| Ok(s.with_db = v != 0));
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("profiles_table", |s, v| Ok(s.profiles = v.to_string().into()));
    m.param_text("secrets_table", |s, v| Ok(s.secrets = v.to_string().into()));
    m.param_text("tag_column", |s, v| Ok(s.tag = v.to_string().into()));
    m.param_text("username_column", |s, v| Ok(s.username = v.to_string().into()));
    m.param_text("secret_tag_column", |s, v| Ok(s.secret_tag = v.to_string().into()));
    m.param_text("secret_column", |s, v| Ok(s.secret = v.to_string().into()));
    m.param_text("start_ts_column", |s, v| Ok(s.start = v.to_string().into()));
    m.param_text("end_ts_column", |s, v| Ok(s.end = v.to_string().into()));
    m.param_text("tag_claim", |s, v| Ok(s.tag_claim = v.into()));
    m.param_text("load_credentials", |s, v| Ok(s.load_text = v.into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.function("jwt_db_authorize", Routes::REQUEST, by_database);
    m.function("jwt_authorize", Routes::REQUEST, by_database);
    m.function("jwt_script_authorize", Routes::REQUEST, by_key);
    m.function(
        "extract_pub_key_from_cert",
        Routes::REQUEST,
        |call: &mut Call<AuthJwt>, cert: Text, out: OutVar| {
            give(call, token::key_of_certificate(&cert), &out, "there is no certificate in the text (PEM)")
        },
    );
    m.function(
        "extract_pub_key_from_exp_mod",
        Routes::REQUEST,
        |call: &mut Call<AuthJwt>, e: Text, n: Text, out: OutVar| {
            give(call, token::key_of_numbers(&e, &n), &out, "exponent and modulus must be base64url")
        },
    );
    m.init_or(init);
}

fn init(s: &mut AuthJwt, loader: &mut Loader) -> Result<(), LoadError> {
    if s.with_db {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() {
            return Err("db_mode 1 needs a database: set db_url".into());
        }
    }
    for part in s.load_text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (variable, column) = match part.split_once('=') {
            Some((variable, column)) => (variable.trim().to_string(), column.trim()),
            None => (format!("$avp({part})"), part),
        };
        let spec = script::parse_variable(&variable.into(), script::Loc::default());
        let spec = spec.in_param("load_credentials")?;
        s.load.push((loader.target_var(&spec).in_param("load_credentials")?, column.to_string().into()));
    }
    Ok(())
}

/// A key that was found goes into the variable.
fn give(call: &mut Call<AuthJwt>, key: Option<String>, out: &OutVar, why: &str) -> i32 {
    let Some(key) = key else {
        host::error!("auth_jwt", "no public key: {why}");
        return -1;
    };
    if out.set(call.ctx, key) { 1 } else { -1 }
}

/// jwt_script_authorize(token, key, decoded)
fn by_key(call: &mut Call<AuthJwt>, text: Text, key: Text, decoded: OutVar) -> i32 {
    let token = match Token::read(&text) {
        Ok(token) => token,
        Err(why) => {
            host::notice!("auth_jwt", "the token cannot be read: {why}");
            return -2;
        }
    };
    if !decoded.set(call.ctx, token.shown()) {
        return -2;
    }
    if token.is_signed_with(&key) { 1 } else { -1 }
}

/// jwt_db_authorize(token, decoded, username): the profile that the token names, then its keys of today.
fn by_database(call: &mut Call<AuthJwt>, text: Text, decoded: OutVar, user: OutVar) -> Outcome {
    let module = call.module.clone();
    let Some(db) = module.db.clone() else {
        host::error!("auth_jwt", "jwt_db_authorize needs a database: set db_mode to 1, and db_url");
        return (-1).into();
    };
    let tag = match Token::read(&text).map(|token| token.claim(&module.tag_claim).map(str::to_owned)) {
        Ok(Some(tag)) => tag,
        Ok(None) => {
            host::notice!("auth_jwt", "the token has no claim {}", module.tag_claim);
            return (-1).into();
        }
        Err(why) => {
            host::notice!("auth_jwt", "the token cannot be read: {why}");
            return (-1).into();
        }
    };
    let columns = [&module.username].into_iter().chain(module.load.iter().map(|(_, column)| column));
    let profile = Query::select(&module.profiles).columns(columns).eq(&module.tag, tag.clone()).limit(1);
    let asked = db.clone();
    db.suspend(call.ctx, "jwt_db_authorize", profile, move |ctx, rows| {
        let Ok(rows) = rows else { return -1 };
        let Some(row) = rows.first() else { return -1 };
        let values = (0..=module.load.len()).map(|at| row.at(at).script()).collect();
        let found = Profile { tag, values, text: text.0, decoded, user };
        let outcome = with_profile(ctx, module, &asked, found);
        ctx.wait_again(outcome)
    })
}

/// What the database says of a tag.
struct Profile {
    tag: String,
    /// The user, then what `load_credentials` asks for.
    values: Vec<Value>,
    /// The token.
    text: Bytes,
    decoded: OutVar,
    user: OutVar,
}

fn with_profile(ctx: &mut Ctx, module: Arc<AuthJwt>, db: &Db, found: Profile) -> Outcome {
    let now = (ctx.core.wall_us / 1_000_000) as i64;
    let keys = Query::select(&module.secrets)
        .column(&module.secret)
        .eq(&module.secret_tag, found.tag.clone())
        .filter(&module.start, Op::Le, now)
        .filter(&module.end, Op::Gt, now)
        .limit(MAX_SECRETS);
    db.suspend(ctx, "jwt_db_authorize", keys, move |ctx, rows| {
        let (Ok(rows), Ok(token)) = (rows, Token::read(&found.text)) else { return -1 };
        let mut secrets = rows.iter().filter_map(|row| row.text(0));
        if !secrets.any(|secret| token.is_signed_with(&secret)) {
            return -1;
        }
        let mut values = found.values.into_iter();
        let user = values.next().unwrap_or(Value::Null);
        if !found.decoded.set(ctx, token.shown()) || !found.user.set(ctx, user) {
            return -1;
        }
        for ((variable, _), value) in module.load.iter().zip(values) {
            if !value.is_null() {
                variable.set(ctx, AssignOp::Set, value);
            }
        }
        1
    })
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::hmac;
    use script::ast::Dialect;

    fn token(secret: &str, payload: &str) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn keys_of_the_script() {
        let good = token("s3cret", r#"{"tag":"acme","a":1}"#);
        let body = format!(
            r#"$avp(rc) = jwt_script_authorize("{good}", "s3cret", $avp(shown));
               $avp(rc) = jwt_script_authorize("{good}", "other", $avp(shown));
               $avp(rc) = jwt_script_authorize("{good}", "", $avp(shown));
               $avp(rc) = jwt_script_authorize("x.y", "s3cret", $avp(none));
               $avp(rc) = extract_pub_key_from_cert("none", $avp(none));
               $avp(rc) = extract_pub_key_from_exp_mod("AQAB", "wA", $avp(pem));"#
        );
        let ran = testing::run("loadmodule \"auth_jwt.so\"\n", &body, Dialect::V4);
        let mut codes = ran.avps("rc");
        codes.reverse();
        assert_eq!(codes, ["1", "-1", "-1", "-2", "-1", "1"]);
        assert_eq!(ran.avps("shown")[0], r#"{"alg":"HS256","typ":"JWT"}.{"a":1,"tag":"acme"}"#);
        assert!(ran.avps("none").is_empty());
        assert!(
            ran.avps("pem")[0].starts_with("-----BEGIN PUBLIC KEY-----\nMB0wDQYJKoZIhvcNAQEBBQAD"),
            "{:?}",
            ran.avps("pem")
        );
    }

    #[test]
    fn a_database_is_asked_for() {
        let config = "loadmodule \"auth_jwt.so\"\nmodparam(\"auth_jwt\", \"db_mode\", 1)\n";
        assert!(testing::refused(config, "", Dialect::V4).contains("set db_url"));
        let ran = testing::run(
            "loadmodule \"auth_jwt.so\"\n",
            r#"$avp(rc) = jwt_db_authorize("a.b.c", $avp(a), $avp(b));"#,
            Dialect::V4,
        );
        assert_eq!(ran.avps("rc"), ["-1"]);
    }
}
