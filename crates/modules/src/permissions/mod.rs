//! permissions: who may do what, by address (a table in memory) and by pairs of URIs (files).

mod address;
mod files;
mod manage;
mod routing;

use crate::cached::Cached;
use address::{AddressMatch, Addresses, Question};
use host::db::{Db, Name, Query};
use host::load::Loader;
use host::registrar::ParamFn;
use host::{Accepts, InParam, LoadError};
use host::{Arg, Call, Format, Int, OutVar, Outcome, Registrar, Routes, Text};
use parking_lot::Mutex;
use routing::Pair;
use script::ast::{self, ParamValue};
use script::{Diagnostic, Loc};
use sip::Transport;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

const DEFAULT: &str = "default";

/// Columns of the address table.
struct Columns {
    ip: Name,
    group: Name,
    mask: Name,
    port: Name,
    proto: Name,
    pattern: Name,
    info: Name,
}

/// A source of addresses.
struct Partition {
    name: String,
    url: Option<String>,
    table: Option<String>,
    db: Option<Db>,
    addresses: Cached<Addresses>,
}

pub struct Permissions {
    allow_file: String,
    deny_file: String,
    allow_suffix: String,
    deny_suffix: String,
    check_all_branches: bool,
    folder: PathBuf,
    /// Files that the script uses: (allow file, deny file, rules).
    files: Mutex<Vec<(String, String, Arc<Pair>)>>,
    db_url: Option<String>,
    table: String,
    columns: Columns,
    partitions: Vec<Partition>,
    trusted_table: Name,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions {
            allow_file: "permissions.allow".into(),
            deny_file: "permissions.deny".into(),
            allow_suffix: ".allow".into(),
            deny_suffix: ".deny".into(),
            check_all_branches: true,
            folder: PathBuf::new(),
            files: Mutex::default(),
            db_url: None,
            table: "address".into(),
            columns: Columns {
                ip: "ip".into(),
                group: "grp".into(),
                mask: "mask".into(),
                port: "port".into(),
                proto: "proto".into(),
                pattern: "pattern".into(),
                info: "context_info".into(),
            },
            partitions: Vec::new(),
            trusted_table: "trusted".into(),
        }
    }
}

pub fn register(m: &mut Registrar<Permissions>) {
    m.param_text("default_allow_file", |s, v| Ok(s.allow_file = v.into()));
    m.param_text("default_deny_file", |s, v| Ok(s.deny_file = v.into()));
    m.param_text("allow_suffix", |s, v| Ok(s.allow_suffix = v.into()));
    m.param_text("deny_suffix", |s, v| Ok(s.deny_suffix = v.into()));
    m.param_int("check_all_branches", |s, v| Ok(s.check_all_branches = v != 0));
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.into())));
    m.param_text("address_table", |s, v| Ok(s.table = v.into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.param("partition", ParamFn::Any(add_partition));
    m.param_text("ip_col", |s, v| Ok(s.columns.ip = v.to_string().into()));
    m.param_text("ip_addr_col", |s, v| Ok(s.columns.ip = v.to_string().into()));
    m.param_text("grp_col", |s, v| Ok(s.columns.group = v.to_string().into()));
    m.param_text("mask_col", |s, v| Ok(s.columns.mask = v.to_string().into()));
    m.param_text("port_col", |s, v| Ok(s.columns.port = v.to_string().into()));
    m.param_text("proto_col", |s, v| Ok(s.columns.proto = v.to_string().into()));
    m.param_text("pattern_col", |s, v| Ok(s.columns.pattern = v.to_string().into()));
    m.param_text("info_col", |s, v| Ok(s.columns.info = v.to_string().into()));
    m.param_text("trusted_table", |s, v| Ok(s.trusted_table = v.to_string().into()));
    m.ignored(&["db_mode"], "the table `trusted` is asked for each request without blocking");
    m.ignored(&["peer_tag_avp"], "no release since 1.6 has a tag of trusted peers");

    let most = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL).and(Routes::BRANCH);
    let checks = most.and(Routes::STARTUP).and(Routes::TIMER).and(Routes::EVENT).and(Routes::ON_REPLY);
    m.function("check_address", checks, check_address);
    m.function("check_source_address", checks, check_source_address);
    m.function("allow_source_address", most, |call: &mut Call<Permissions>, group: Int| {
        check_source_address(call, group, None, None, PartitionArg(None))
    });
    m.function("get_source_group", checks, get_source_group);
    m.function("allow_trusted", most, allow_trusted);
    let files = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL);
    m.function("allow_routing", files, routing::allow_routing);
    m.function("allow_routing", files, routing::allow_routing_old);
    m.function("allow_register", files, routing::allow_register);
    m.function("allow_register", files, routing::allow_register_old);
    m.function("allow_uri", checks, routing::allow_uri);
    manage::register(m);
    m.init_or(init);
    m.start(start);
    m.timer(RETRY_MS, |call| load_all(call, Which::Missing));
}

/// A table that was not loaded at start is tried again this often.
const RETRY_MS: u64 = 5_000;

/// "name: db_url = ...; table_name = ..."
fn add_partition(s: &mut Permissions, value: &ParamValue) -> Result<(), String> {
    let ParamValue::Text(text) = value else {
        return Err("a partition is written name: db_url = ...".into());
    };
    let text = String::from_utf8_lossy(text);
    let (name, rest) =
        text.split_once(':').ok_or("a partition is written name: db_url = ...; table_name = ...")?;
    let mut partition = Partition {
        name: name.trim().into(),
        url: None,
        table: None,
        db: None,
        addresses: Cached::default(),
    };
    for part in rest.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not key = value"))?;
        match key.trim() {
            "db_url" => partition.url = Some(value.trim().into()),
            "table_name" => partition.table = Some(value.trim().into()),
            other => return Err(format!("a partition has no `{other}`: it has db_url and table_name")),
        }
    }
    s.partitions.push(partition);
    Ok(())
}

fn init(s: &mut Permissions, loader: &mut Loader) -> Result<(), LoadError> {
    s.folder = loader.folder.clone();
    let default_url = s.db_url.clone().filter(|url| !url.trim().is_empty());
    if default_url.is_some() && !s.partitions.iter().any(|p| p.name == DEFAULT) {
        let (name, addresses) = (DEFAULT.to_string(), Cached::default());
        s.partitions.insert(0, Partition { name, url: None, table: None, db: None, addresses });
    }
    for partition in &mut s.partitions {
        let url = partition.url.as_deref().or(default_url.as_deref());
        let param = if partition.url.is_some() { "partition" } else { "db_url" };
        partition.db = loader.db_or_default(url).in_param(param)?;
        if partition.db.is_none() {
            let why = format!("{} has no db_url", partition.name);
            return Err(LoadError::from(why).in_param("partition"));
        }
    }
    Ok(())
}

fn start(call: &mut Call<Permissions>) {
    if call.core.worker == 0 {
        load_all(call, Which::All);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that were never loaded.
    Missing,
}

fn load_all(call: &mut Call<Permissions>, which: Which) {
    let module = call.module.clone();
    for partition in &module.partitions {
        if which == Which::All || partition.addresses.get().is_none() {
            partition.load(call.ctx, &module, |_, _| ());
        }
    }
}

impl Partition {
    fn load(
        &self,
        ctx: &mut host::Ctx,
        module: &Permissions,
        done: impl FnOnce(&mut host::Ctx, Result<(), host::db::DbError>) + 'static,
    ) {
        let Some(db) = &self.db else { return };
        let c = &module.columns;
        let table = self.table.clone().unwrap_or_else(|| module.table.clone());
        let query =
            Query::select(table).columns([&c.ip, &c.group, &c.mask, &c.port, &c.proto, &c.pattern, &c.info]);
        self.addresses.load(ctx, "permissions", db, query, Addresses::read, done);
    }
}

impl Permissions {
    fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.name == name)
    }

    fn default_files(&self) -> Arc<Pair> {
        self.files_named(&self.allow_file, &self.deny_file)
    }

    fn files_of(&self, base: &str) -> Arc<Pair> {
        self.files_named(&format!("{base}{}", self.allow_suffix), &format!("{base}{}", self.deny_suffix))
    }

    fn pair_of(&self, allow: &[u8], deny: &[u8]) -> Arc<Pair> {
        self.files_named(&String::from_utf8_lossy(allow), &String::from_utf8_lossy(deny))
    }

    /// Files are read once, while the configuration loads.
    fn files_named(&self, allow: &str, deny: &str) -> Arc<Pair> {
        let mut files = self.files.lock();
        if let Some((.., pair)) = files.iter().find(|(a, d, _)| a == allow && d == deny) {
            return pair.clone();
        }
        let path = |name| routing::path_of(&self.folder, name);
        let pair = Pair::read(&path(allow), &path(deny));
        files.push((allow.to_string(), deny.to_string(), pair.clone()));
        pair
    }
}

/// The name of a partition; left out: the default one. A constant that names none is a load error.
pub struct PartitionArg(Option<String>);

impl Arg<Permissions> for PartitionArg {
    type Prepared = Option<Format>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "a partition";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Permissions>,
    ) -> Result<Option<Format>, Diagnostic> {
        let Some(arg) = arg.filter(|a| !matches!(a.kind, ast::ArgKind::Empty)) else {
            return match module.partition(DEFAULT) {
                Some(_) => Ok(None),
                None => Err(Diagnostic::error(site, "there is no default partition of addresses")
                    .hint("modparam(\"permissions\", \"db_url\", \"mysql://...\")")),
            };
        };
        let format = <Text as Arg<Permissions>>::prepare(Some(arg), site, loader, module)?;
        if let Some(name) = format.constant().map(|n| String::from_utf8_lossy(n).into_owned())
            && module.partition(&name).is_none()
        {
            let names = module.partitions.iter().map(|p| p.name.as_str());
            let error = Diagnostic::error(arg.loc, format!("there is no partition {name}"));
            return Err(match script::nearest(&name, names) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => {
                    error.hint(format!("modparam(\"permissions\", \"partition\", \"{name}: db_url = ...\")"))
                }
            });
        }
        Ok(Some(format))
    }

    fn eval(prepared: &Option<Format>, call: &mut Call<'_, Permissions>) -> Result<PartitionArg, i32> {
        Ok(PartitionArg(prepared.as_ref().map(|f| String::from_utf8_lossy(&f.text(call.ctx)).into_owned())))
    }
}

fn addresses(call: &mut Call<Permissions>, partition: &PartitionArg) -> Option<Cached<Addresses>> {
    let name = partition.0.as_deref().unwrap_or(DEFAULT);
    let found = call.module.partition(name).map(|p| p.addresses.clone());
    if found.is_none() {
        host::error!("permissions", "there is no partition {name}");
    }
    found
}

/// check_address(group, ip, port, proto, [context info], [pattern], [partition]): 1, -1 without a match, -2
/// without such a group.
#[allow(clippy::too_many_arguments)]
fn check_address(
    call: &mut Call<Permissions>,
    group: Int,
    ip: Text,
    port: Int,
    proto: Text,
    info: Option<OutVar>,
    pattern: Option<Text>,
    partition: PartitionArg,
) -> Outcome {
    let text = ip.str();
    let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() else {
        host::error!("permissions", "check_address: {text} is no IP address");
        return (-1).into();
    };
    let Some(proto) = address::proto(&proto) else {
        host::error!("permissions", "check_address: {} is no transport protocol", proto.str());
        return (-1).into();
    };
    let port = u16::try_from(port.0).unwrap_or(0);
    check(call, group, ip, port, proto, info, pattern, &partition)
}

/// check_source_address(group, [context info], [pattern], [partition])
fn check_source_address(
    call: &mut Call<Permissions>,
    group: Int,
    info: Option<OutVar>,
    pattern: Option<Text>,
    partition: PartitionArg,
) -> Outcome {
    let source = call.state.source;
    let (ip, port) = (source.remote.ip(), source.remote.port());
    check(call, group, ip, port, Some(source.transport), info, pattern, &partition)
}

#[allow(clippy::too_many_arguments)]
fn check(
    call: &mut Call<Permissions>,
    group: Int,
    ip: IpAddr,
    port: u16,
    proto: Option<Transport>,
    info: Option<OutVar>,
    pattern: Option<Text>,
    partition: &PartitionArg,
) -> Outcome {
    let Some(addresses) = addresses(call, partition) else { return (-1).into() };
    let Ok(group) = u32::try_from(group.0) else { return (-1).into() };
    addresses.with(call.ctx, "check_address", move |ctx, addresses| {
        let pattern = pattern.as_ref().map(|p| &p[..]);
        match addresses.find(group, &Question { ip, port, proto, pattern }) {
            AddressMatch::NoGroup => -2,
            AddressMatch::NoMatch => -1,
            AddressMatch::Entry(entry) => {
                if let Some(var) = info {
                    var.set(ctx, entry.info.clone().unwrap_or_default());
                }
                1
            }
        }
    })
}

/// get_source_group(variable, [partition])
fn get_source_group(call: &mut Call<Permissions>, group: OutVar, partition: PartitionArg) -> Outcome {
    let Some(addresses) = addresses(call, &partition) else { return (-1).into() };
    let source = call.state.source;
    addresses.with(call.ctx, "get_source_group", move |ctx, addresses| {
        let question =
            Question { ip: source.remote.ip(), port: source.remote.port(), proto: None, pattern: None };
        match addresses.group_of(&question) {
            Some(found) => {
                group.set(ctx, i64::from(found));
                1
            }
            None => -1,
        }
    })
}

/// allow_trusted([ip, proto]) of 1.x: the table `trusted` (src_ip, proto, from_pattern).
fn allow_trusted(call: &mut Call<Permissions>, ip: Option<Text>, proto: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let Some(db) = module.partition(DEFAULT).and_then(|p| p.db.clone()) else {
        host::error!("permissions", "allow_trusted needs the parameter db_url");
        return (-1).into();
    };
    let source = call.state.source;
    let ip = ip.map_or_else(|| source.remote.ip().to_string(), |ip| ip.str().into_owned());
    let proto = proto.map_or_else(|| source.transport.as_str().to_string(), |p| p.str().to_ascii_lowercase());
    let from = call.state.msg.from().map(|f| f.uri).unwrap_or_default();
    let query = Query::select(&module.trusted_table).columns(["proto", "from_pattern"]).eq("src_ip", ip);
    db.suspend(call.ctx, "allow_trusted", query, move |_, rows| {
        let Ok(rows) = rows else { return -1 };
        let trusted = rows.iter().any(|row| {
            let wanted = row.string(0).to_ascii_lowercase();
            let pattern = row.text(1).filter(|p| !p.is_empty());
            (wanted == "any" || proto == "any" || wanted == proto)
                && pattern.is_none_or(|p| {
                    script::posix::compile(&p, script::posix::Case::Ignore).is_ok_and(|r| r.is_match(&from))
                })
        });
        if trusted { 1 } else { -1 }
    })
}

#[cfg(test)]
mod tests;
