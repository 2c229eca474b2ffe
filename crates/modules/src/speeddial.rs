//! speeddial: short numbers of users, from a table.

use bytes::Bytes;
use host::Accepts;
use host::db::{Db, Name, Query};
use host::load::Loader;
use host::{Call, Outcome, Registrar, Routes, Text};
use sip::Uri;

/// Which domains count in a lookup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Domains {
    None,
    Owner,
    Both,
}

pub struct SpeedDial {
    url: Option<String>,
    db: Option<Db>,
    user: Name,
    domain: Name,
    short_user: Name,
    short_domain: Name,
    new_uri: Name,
    domain_prefix: String,
    domains: Domains,
}

impl Default for SpeedDial {
    fn default() -> SpeedDial {
        SpeedDial {
            url: None,
            db: None,
            user: "username".into(),
            domain: "domain".into(),
            short_user: "sd_username".into(),
            short_domain: "sd_domain".into(),
            new_uri: "new_uri".into(),
            domain_prefix: String::new(),
            domains: Domains::None,
        }
    }
}

pub fn register(m: &mut Registrar<SpeedDial>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("user_column", |s, v| Ok(s.user = v.to_string().into()));
    m.param_text("domain_column", |s, v| Ok(s.domain = v.to_string().into()));
    m.param_text("sd_user_column", |s, v| Ok(s.short_user = v.to_string().into()));
    m.param_text("sd_domain_column", |s, v| Ok(s.short_domain = v.to_string().into()));
    m.param_text("new_uri_column", |s, v| Ok(s.new_uri = v.to_string().into()));
    m.param_text("domain_prefix", |s, v| Ok(s.domain_prefix = v.into()));
    m.param_int("use_domain", |s, v| {
        s.domains = match v {
            0 => Domains::None,
            1 => Domains::Owner,
            _ => Domains::Both,
        };
        Ok(())
    });
    m.function("sd_lookup", Routes::REQUEST, lookup);
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.init(|s: &mut SpeedDial, loader: &mut Loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
    });
}

impl SpeedDial {
    fn without_prefix(&self, host: Bytes) -> Bytes {
        let prefix = self.domain_prefix.as_bytes();
        let has = !prefix.is_empty()
            && host.len() > prefix.len()
            && host[..prefix.len()].eq_ignore_ascii_case(prefix);
        if has { host.slice(prefix.len()..) } else { host }
    }
}

/// sd_lookup(table, [owner]): the R-URI becomes what its user part is short for.
fn lookup(call: &mut Call<SpeedDial>, table: Text, owner: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let Some(db) = &module.db else { return (-1).into() };
    let owner = owner.map(|o| o.0).or_else(|| call.state.msg.from().map(|f| f.uri));
    let owner = owner.and_then(|uri| Uri::parse(&uri).ok());
    let (Some(owner), Ok(short)) = (owner, Uri::parse(&call.state.current_uri())) else { return (-1).into() };
    let mut query = Query::select(table.str().into_owned())
        .column(&module.new_uri)
        .eq(&module.user, owner.user.clone().unwrap_or_default())
        .eq(&module.short_user, short.user.clone().unwrap_or_default());
    if module.domains >= Domains::Owner {
        query = query.eq(&module.domain, module.without_prefix(owner.host.clone()));
    }
    if module.domains == Domains::Both {
        query = query.eq(&module.short_domain, module.without_prefix(short.host.clone()));
    }
    db.suspend(call.ctx, "sd_lookup", query.limit(1), |ctx, rows| {
        let Some(uri) = rows.ok().and_then(|rows| rows.first()?.text(0)).filter(|u| !u.is_empty()) else {
            return -1;
        };
        let is_sip = uri.len() >= 4 && uri[..4].eq_ignore_ascii_case(b"sip:");
        let uri: Bytes = if is_sip { uri } else { [b"sip:", &uri[..]].concat().into() };
        if Uri::parse(&uri).is_err() {
            host::error!("speeddial", "{} is no URI", String::from_utf8_lossy(&uri));
            return -1;
        }
        ctx.state.ruri = Some(script::traced::on_one_line(&uri));
        1
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run_with};
    use script::ast::Dialect;

    #[test]
    fn short_numbers() {
        let folder = Folder::new("speeddial");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table speed_dial (username varchar(64), domain varchar(64), sd_username varchar(64), sd_domain varchar(64),
             new_uri varchar(255));
             insert into speed_dial values ('you', 'fermata.invalid', '11', 'x.org', 'sip:bob@example.com'),
             ('you', 'other', '22', 'x.org', 'carol@example.com'), ('ann', 'a', '33', 'x.org', 'sip:dan@example.com');",
        )
        .expect("a table");
        for (use_domain, uri, call, expected) in [
            (0, "sip:11@x.org", r#"sd_lookup("speed_dial")"#, "sip:bob@example.com"),
            (0, "sip:22@x.org", r#"sd_lookup("speed_dial")"#, "sip:carol@example.com"),
            (1, "sip:22@x.org", r#"sd_lookup("speed_dial")"#, "sip:22@x.org"),
            (2, "sip:11@x.org", r#"sd_lookup("speed_dial")"#, "sip:bob@example.com"),
            (2, "sip:11@y.org", r#"sd_lookup("speed_dial")"#, "sip:11@y.org"),
            (1, "sip:33@y.org", r#"sd_lookup("speed_dial", "sip:ann@a")"#, "sip:dan@example.com"),
        ] {
            let config = format!(
                "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"speeddial.so\"\n\
                 modparam(\"speeddial\", \"db_url\", \"sqlite://{}\")\nmodparam(\"speeddial\", \"use_domain\", {use_domain})\n",
                path.display()
            );
            let body = format!("{call}; $avp(r) = $ru;");
            let ran = run_with(&config, &body, Dialect::V4, |state| state.ruri = Some(uri.into()));
            assert_eq!(ran.avps("r"), [expected], "{use_domain} {uri}");
        }
    }
}
