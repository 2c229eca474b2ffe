//! carrierroute: calls are shared out over hosts by the prefix of their number, in trees of carriers and domains, from
//! tables or from a file.

mod file;
mod load;
mod manage;
mod trees;

use bytes::Bytes;
use host::db::{Db, Name, Proof, Query};
use host::load::Loader;
use host::tran::crc32_of;
use host::vars::uri::set_request;
use host::{Arg, Call, Ctx, OutVar, Outcome, Registrar, Routes, Text};
use host::{InParam, LoadError};
use load::Source;
use modules::cached::Cached;
use script::ast::{self, ParamValue};
use script::{Diagnostic, Loc, Value};
use sip::{Scheme, Uri};
use std::path::PathBuf;
use std::sync::Arc;
use trees::{Carrier, Rule, Targets, Trees};

/// Columns with the parameters that rename them, in the order in which rows are read.
const COLUMNS: [(&str, &str); 12] = [
    ("id_column", "id"),
    ("carrier_column", "carrier"),
    ("scan_prefix_column", "scan_prefix"),
    ("domain_column", "domain"),
    ("flags_column", "flags"),
    ("mask_column", "mask"),
    ("prob_column", "prob"),
    ("strip_column", "strip"),
    ("rewrite_host_column", "rewrite_host"),
    ("rewrite_prefix_column", "rewrite_prefix"),
    ("rewrite_suffix_column", "rewrite_suffix"),
    ("comment_column", "description"),
];
const FAILURE_COLUMNS: [(&str, &str); 10] = [
    ("failure_id_column", "id"),
    ("failure_carrier_column", "carrier"),
    ("failure_scan_prefix_column", "scan_prefix"),
    ("failure_domain_column", "domain"),
    ("failure_host_name_column", "host_name"),
    ("failure_reply_code_column", "reply_code"),
    ("failure_flags_column", "flags"),
    ("failure_mask_column", "mask"),
    ("failure_next_domain_column", "next_domain"),
    ("failure_comment_column", "description"),
];

pub struct CarrierRoute {
    db_url: Option<String>,
    table: Name,
    columns: [Name; COLUMNS.len()],
    failure_table: Name,
    failure_columns: [Name; FAILURE_COLUMNS.len()],
    carrier_table: Name,
    carrier_id: Name,
    carrier_name: Name,
    subscriber_table: Name,
    subscriber_user: Name,
    subscriber_domain: Name,
    subscriber_carrier: Name,
    /// "file" or "db"
    source_name: String,
    config_file: String,
    default_tree: String,
    use_domain: bool,
    fallback_default: bool,
    source: Option<Source>,
    trees: Cached<Trees>,
}

impl Default for CarrierRoute {
    fn default() -> CarrierRoute {
        CarrierRoute {
            db_url: None,
            table: "carrierroute".into(),
            columns: COLUMNS.map(|(_, name)| name.into()),
            failure_table: "carrierfailureroute".into(),
            failure_columns: FAILURE_COLUMNS.map(|(_, name)| name.into()),
            carrier_table: "route_tree".into(),
            carrier_id: "id".into(),
            carrier_name: "carrier".into(),
            subscriber_table: "subscriber".into(),
            subscriber_user: "username".into(),
            subscriber_domain: "domain".into(),
            subscriber_carrier: "cr_preferred_carrier".into(),
            source_name: "file".into(),
            config_file: "/etc/opensips/carrierroute.conf".into(),
            default_tree: "default".into(),
            use_domain: true,
            fallback_default: true,
            source: None,
            trees: Cached::default(),
        }
    }
}

pub fn register(m: &mut Registrar<CarrierRoute>) {
    params(m);
    let routes = Routes::REQUEST.and(Routes::FAILURE);
    m.function("cr_user_carrier", routes, cr_user_carrier);
    m.function("cr_route", routes, cr_route);
    m.function("cr_prime_route", routes, cr_prime_route);
    m.function("cr_next_domain", routes, cr_next_domain);
    manage::register(m);
    m.init_or(init);
    m.ready(|module, hooks, _| {
        let Some(db) = module.db() else { return };
        for (table, version) in [(&module.table, 3), (&module.failure_table, 2), (&module.carrier_table, 2)] {
            hooks.proves(Proof::of_version("carrierroute", db, table, version));
        }
    });
    m.start(|call| {
        if call.core.worker == 0 && call.module.trees.get().is_none() {
            load::load(call, |_, _| ());
        }
    });
    m.timer(RETRY_MS, |call| {
        if call.module.trees.get().is_none() {
            load::load(call, |_, _| ());
        }
    });
}

/// Between two attempts to load, when the database is down.
const RETRY_MS: u64 = 5000;

macro_rules! columns {
    ($m:ident, $field:ident, $list:ident, $($at:literal)+) => {
        $($m.param_text($list[$at].0, |s, v| Ok(s.$field[$at] = v.to_owned().into()));)+
    };
}

fn params(m: &mut Registrar<CarrierRoute>) {
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.to_owned().into()));
    columns!(m, columns, COLUMNS, 0 1 2 3 4 5 6 7 8 9 10 11);
    m.param_text("db_failure_table", |s, v| Ok(s.failure_table = v.to_owned().into()));
    columns!(m, failure_columns, FAILURE_COLUMNS, 0 1 2 3 4 5 6 7 8 9);
    m.param_text("carrier_table", |s, v| Ok(s.carrier_table = v.to_owned().into()));
    m.param_text("carrier_id_col", |s, v| Ok(s.carrier_id = v.to_owned().into()));
    m.param_text("carrier_name_col", |s, v| Ok(s.carrier_name = v.to_owned().into()));
    m.param_text("subscriber_table", |s, v| Ok(s.subscriber_table = v.to_owned().into()));
    m.param_text("subscriber_user_col", |s, v| Ok(s.subscriber_user = v.to_owned().into()));
    m.param_text("subscriber_domain_col", |s, v| Ok(s.subscriber_domain = v.to_owned().into()));
    m.param_text("subscriber_carrier_col", |s, v| Ok(s.subscriber_carrier = v.to_owned().into()));
    m.param_text("config_source", |s, v| match v {
        "file" | "db" => Ok(s.source_name = v.into()),
        _ => Err(format!("`{v}` is neither file nor db")),
    });
    m.param_text("config_file", |s, v| Ok(s.config_file = v.into()));
    m.param_text("default_tree", |s, v| Ok(s.default_tree = v.into()));
    m.param(
        "use_domain",
        host::registrar::ParamFn::Any(|s, v: &ParamValue| Ok(s.use_domain = host::registrar::truth(v))),
    );
    m.param_int("fallback_default", |s, v| Ok(s.fallback_default = v != 0));
}

fn init(s: &mut CarrierRoute, loader: &mut Loader) -> Result<(), LoadError> {
    if s.source_name == "db" {
        let db = loader.db_or_default(s.db_url.as_deref()).in_param("db_url")?;
        s.source = Some(Source::Tables(db.ok_or("config_source db needs db_url")?));
        return Ok(());
    }
    let path = loader.folder.join(&s.config_file);
    s.trees.set(load::read_file(&path, &s.default_tree).in_param("config_file")?);
    s.source = Some(Source::File(path));
    Ok(())
}

impl CarrierRoute {
    fn db(&self) -> Option<&Db> {
        match &self.source {
            Some(Source::Tables(db)) => Some(db),
            _ => None,
        }
    }

    fn file(&self) -> Option<&PathBuf> {
        match &self.source {
            Some(Source::File(path)) => Some(path),
            _ => None,
        }
    }

    /// A carrier by its name or number; 0 is the default one, which also stands in for an unknown one.
    fn carrier<'a>(&self, trees: &'a Trees, wanted: &[u8]) -> Option<&'a Carrier> {
        let default = || trees.named(self.default_tree.as_bytes());
        let number = std::str::from_utf8(wanted).ok().and_then(|text| text.trim().parse().ok());
        let found = match number {
            Some(0) => default(),
            Some(id) => trees.named(wanted).or_else(|| trees.numbered(id)),
            None => trees.named(wanted),
        };
        found.or_else(|| default().filter(|_| self.fallback_default))
    }
}

/// What of a message is hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HashSource {
    CallId,
    FromUri,
    FromUser,
    ToUri,
    ToUser,
}

const HASH_SOURCES: [(&str, HashSource); 5] = [
    ("call_id", HashSource::CallId),
    ("from_uri", HashSource::FromUri),
    ("from_user", HashSource::FromUser),
    ("to_uri", HashSource::ToUri),
    ("to_user", HashSource::ToUser),
];

impl HashSource {
    fn parse(text: &[u8]) -> Option<HashSource> {
        HASH_SOURCES.iter().find(|(name, _)| name.as_bytes() == text).map(|(_, source)| *source)
    }

    fn read(self, ctx: &Ctx) -> Option<Bytes> {
        let msg = &ctx.state.msg;
        let uri = match self {
            HashSource::CallId => return msg.call_id(),
            HashSource::FromUri | HashSource::FromUser => msg.from()?.uri,
            HashSource::ToUri | HashSource::ToUser => msg.to()?.uri,
        };
        match self {
            HashSource::FromUser | HashSource::ToUser => {
                Some(Uri::parse(&uri).ok()?.user.unwrap_or_default())
            }
            _ => Some(uri),
        }
    }
}

/// The name of a hash source; a constant is checked at load.
struct Hashed(HashSource);

impl Arg<CarrierRoute> for Hashed {
    type Prepared = <Text as Arg<CarrierRoute>>::Prepared;
    const WHAT: &'static str = "call_id, from_uri, from_user, to_uri or to_user";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<CarrierRoute>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let format = <Text as Arg<CarrierRoute>>::prepare(arg, site, loader, module)?;
        if let Some(text) = format.constant().filter(|text| HashSource::parse(text).is_none()) {
            let what = format!("`{}` is no hash source", String::from_utf8_lossy(text));
            let loc = arg.map_or(site, |arg| arg.loc);
            return Err(Diagnostic::error(loc, what).hint(format!("it is one of {}", Self::WHAT)));
        }
        Ok(format)
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, CarrierRoute>) -> Result<Hashed, i32> {
        HashSource::parse(&prepared.text(call.ctx)).map(Hashed).ok_or(-1)
    }
}

/// cr_user_carrier(user, domain, dst_avp): the number of the carrier that the table of subscribers has for a user; 0
/// when it has none.
fn cr_user_carrier(call: &mut Call<CarrierRoute>, user: Text, domain: Text, out: OutVar) -> Outcome {
    let module = call.module.clone();
    let Some(db) = module.db() else {
        host::complain!(call.ctx, "carrierroute", "cr_user_carrier needs config_source db");
        return (-1).into();
    };
    let mut query = Query::select(&module.subscriber_table)
        .column(&module.subscriber_carrier)
        .eq(&module.subscriber_user, user.0);
    if module.use_domain {
        query = query.eq(&module.subscriber_domain, domain.0);
    }
    db.suspend(call.ctx, "cr_user_carrier", query, move |ctx, rows| match rows {
        Ok(rows) => {
            let carrier = rows.first().and_then(|row| row.int(0)).unwrap_or(0);
            out.set(ctx, Value::Int(carrier));
            1
        }
        Err(_) => -1,
    })
}

/// cr_route(carrier, domain, prefix_matching, rewrite_user, hash_source, [dst_avp]): shares by the CRC of the source.
fn cr_route(
    call: &mut Call<CarrierRoute>,
    carrier: Text,
    domain: Text,
    number: Text,
    user: Text,
    hashed: Hashed,
    out: Option<OutVar>,
) -> Outcome {
    route(call, "cr_route", carrier.0, domain.0, number.0, user.0, out, move |ctx, targets| {
        targets.by_dice(crc32_of(&hashed.0.read(ctx)?))
    })
}

/// cr_prime_route(carrier, domain, prefix_matching, rewrite_user, hash_source, [dst_avp]): by the digits of a user.
fn cr_prime_route(
    call: &mut Call<CarrierRoute>,
    carrier: Text,
    domain: Text,
    number: Text,
    user: Text,
    hashed: Hashed,
    out: Option<OutVar>,
) -> Outcome {
    route(call, "cr_prime_route", carrier.0, domain.0, number.0, user.0, out, move |ctx, targets| {
        if !matches!(hashed.0, HashSource::FromUser | HashSource::ToUser) {
            host::complain!(
                ctx,
                "carrierroute",
                "cr_prime_route hashes from_user or to_user, which have digits"
            );
            return None;
        }
        targets.by_number(last_digits(&hashed.0.read(ctx)?))
    })
}

/// The last 18 digits as a number.
fn last_digits(text: &[u8]) -> u64 {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_digit).collect();
    let last = &digits[digits.len().saturating_sub(18)..];
    last.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[allow(clippy::too_many_arguments)]
fn route(
    call: &mut Call<CarrierRoute>,
    what: &'static str,
    carrier: Bytes,
    domain: Bytes,
    number: Bytes,
    user: Bytes,
    out: Option<OutVar>,
    choose: impl for<'t> FnOnce(&mut Ctx, &'t Targets) -> Option<&'t Rule> + 'static,
) -> Outcome {
    let module = call.module.clone();
    module.trees.clone().with(call.ctx, what, move |ctx, trees| {
        let flags = ctx.state.flags;
        let Some(found) = module.carrier(trees, &carrier) else {
            host::complain!(ctx, "carrierroute", "there is no carrier {}", String::from_utf8_lossy(&carrier));
            return -1;
        };
        let Some(found) = found.domain(&domain) else {
            host::complain!(ctx, "carrierroute", "there is no domain {}", String::from_utf8_lossy(&domain));
            return -1;
        };
        let Some(targets) = found.find(&number, flags) else { return -1 };
        let Some(rule) = choose(ctx, targets) else { return -1 };
        if rule.host.is_empty() {
            return -1;
        }
        let uri = uri_of(ctx, rule, &user);
        if let Some(out) = &out {
            out.set(ctx, Value::Str(rule.host.clone()));
        }
        if set_request(ctx, uri) { 1 } else { -1 }
    })
}

/// The R-URI that leads a user to a target.
fn uri_of(ctx: &Ctx, rule: &Rule, user: &[u8]) -> Bytes {
    let current = host::context::uri::parse(&ctx.state.current_uri());
    let is_sips = current.is_some_and(|uri| uri.scheme == Scheme::Sips);
    let strip = usize::try_from(rule.strip).unwrap_or(0).min(user.len());
    let scheme: &[u8] = if is_sips { b"sips:" } else { b"sip:" };
    let mut uri = scheme.to_vec();
    if !user.is_empty() {
        [&rule.prefix[..], &user[strip..], &rule.suffix, b"@"]
            .iter()
            .for_each(|part| uri.extend_from_slice(part));
    }
    uri.extend_from_slice(&rule.host);
    uri.into()
}

/// cr_next_domain(carrier, domain, prefix_matching, host, reply_code, dst_avp): where to go on after a failure.
fn cr_next_domain(
    call: &mut Call<CarrierRoute>,
    carrier: Text,
    domain: Text,
    number: Text,
    host: Text,
    code: Text,
    out: OutVar,
) -> Outcome {
    let module = call.module.clone();
    module.trees.clone().with(call.ctx, "cr_next_domain", move |ctx, trees| {
        let flags = ctx.state.flags;
        let found = module.carrier(trees, &carrier).and_then(|carrier| carrier.domain(&domain));
        let next = found.and_then(|domain| domain.next(&number, &host, &code, flags));
        match next.filter(|failure| !failure.next.is_empty()) {
            Some(failure) => {
                out.set(ctx, Value::Str(failure.next.clone()));
                1
            }
            None => -1,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, run, run_with};
    use script::ast::Dialect;

    #[test]
    fn digits_make_the_number() {
        assert_eq!(last_digits(b"+49-30"), 4930);
        assert_eq!(last_digits(b"1234567890123456789"), 234_567_890_123_456_789);
        assert_eq!(last_digits(b"abc"), 0);
    }

    #[test]
    fn a_file_routes() {
        let folder = Folder::new("carrierroute-file");
        let path = folder.0.join("routes.conf");
        let text = "domain proxy { prefix 49 { max_targets = 1 target gw1:5070 { prob = 1 strip = 2 rewrite_prefix = 00 } }\n\
                    prefix 491 { max_targets = 1 target NULL { prob = 1 } } }\n";
        std::fs::write(&path, text).expect("a file");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"carrierroute.so\"\n\
             modparam(\"carrierroute\", \"config_file\", \"{}\")\n",
            path.display()
        );
        let body = r#"
            $avp(r) = "a"; cr_route("default", "proxy", "4930", "4930", "call_id", $avp(host)); $avp(r) = $rc; $avp(r) = $ru;
            cr_route("default", "proxy", "491", "491", "call_id"); $avp(r) = $rc;
            cr_route("other", "proxy", "4930", "4930", "from_user"); $avp(r) = $rc;
            cr_route("default", "none", "4930", "4930", "from_user"); $avp(r) = $rc;
            cr_prime_route("0", "proxy", "4930", "4930", "to_user"); $avp(r) = $rc;
            cr_prime_route("0", "proxy", "4930", "4930", "call_id"); $avp(r) = $rc;
            $avp(r) = $avp(host);"#;
        let mut ran = run(&config, body, Dialect::V4).avps("r");
        ran.reverse();
        assert_eq!(ran, ["a", "1", "sip:0030@gw1:5070", "-1", "1", "-1", "1", "-1", "gw1:5070"]);
    }

    #[test]
    fn tables_route() {
        let folder = Folder::new("carrierroute-tables");
        let path = folder.0.join("s.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.execute_batch(
            "create table route_tree (id integer primary key, carrier text);
             insert into route_tree values (1, 'carrier1'), (3, 'default');
             create table carrierroute (id integer primary key, carrier int, domain text, scan_prefix text, flags int,
               mask int, prob real, strip int, rewrite_host text, rewrite_prefix text, rewrite_suffix text, description text);
             insert into carrierroute values (1,1,'0','49',0,0,1,0,'de.carrier1','','',NULL), (2,1,'0','',0,0,1,0,'gw.carrier1-1','','x',NULL),
               (3,1,'2','',0,0,1,0,'gw.carrier1-2','','',NULL), (4,3,'start','',0,0,1,0,'gw.default','','',NULL), (5,9,'0','',0,0,1,0,'lost','','',NULL);
             create table carrierfailureroute (id integer primary key, carrier int, domain text, scan_prefix text, host_name text,
               reply_code text, flags int, mask int, next_domain text, description text);
             insert into carrierfailureroute values (1,1,'0','','gw.carrier1-1','...',0,0,'2',NULL), (2,1,'0','','','503',0,0,'',NULL);
             create table subscriber (username text, domain text, cr_preferred_carrier int);
             insert into subscriber values ('alice', 'a.org', 1), ('bob', 'a.org', NULL);",
        )
        .expect("tables");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"carrierroute.so\"\n\
             modparam(\"carrierroute\", \"config_source\", \"db\")\nmodparam(\"carrierroute\", \"db_url\", \"sqlite://{}\")\n",
            path.display()
        );
        let body = r#"
            cr_user_carrier("alice", "a.org", $avp(c)); $avp(r) = $avp(c);
            cr_route($avp(c), "0", "33", "33", "call_id", $avp(host)); $avp(r) = $ru;
            cr_next_domain($avp(c), "0", "33", $avp(host), "480", $avp(d)); $avp(r) = $avp(d);
            cr_route("carrier1", $avp(d), "33", "33", "call_id"); $avp(r) = $ru;
            $avp(r) = "" + cr_next_domain("carrier1", "0", "33", "other", "503", $avp(d));
            cr_user_carrier("bob", "a.org", $avp(e)); cr_route($avp(e), "start", "7", "7", "call_id"); $avp(r) = $ru;"#
            .replace("$avp(r) = \"\" + cr_next_domain", "$var(x) = cr_next_domain")
            .replace("\"503\", $avp(d));", "\"503\", $avp(d)); $avp(r) = $var(x);");
        let mut ran = run_with(&config, &body, Dialect::V4, |_| ()).avps("r");
        ran.reverse();
        let expected = ["1", "sip:33x@gw.carrier1-1", "2", "sip:33@gw.carrier1-2", "-1", "sip:7@gw.default"];
        assert_eq!(ran, expected);
    }
}
