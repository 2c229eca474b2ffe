//! The modules, one file or folder each, named as in the reference.

mod cached;
mod cachedb;
#[cfg(test)]
mod coverage;
mod pattern;
mod pcre;
mod sql;
mod subjects;
#[cfg(test)]
mod testing;
mod timerec;
mod tls;
#[cfg(test)]
mod transformations;
mod userdb;

// Plain lines, so that rustfmt follows them.
pub mod aaa_radius;
pub mod acc;
pub mod alias_db;
pub mod auth;
pub mod auth_aaa;
pub mod auth_db;
pub mod avpops;
pub mod cachedb_local;
pub mod cachedb_mongodb;
pub mod cachedb_redis;
pub mod cachedb_sql;
pub mod cfgutils;
pub mod clusterer;
pub mod core;
pub mod db_flatstore;
pub mod db_mysql;
pub mod db_postgres;
pub mod db_sqlite;
pub mod db_text;
pub mod db_virtual;
pub mod dialplan;
pub mod diversion;
pub mod domain;
pub mod r#enum;
pub mod event_datagram;
pub mod event_route;
pub mod event_routing;
pub mod exec;
pub mod gflags;
pub mod group;
pub mod httpd;
pub mod json;
pub mod ldap;
pub mod mathops;
pub mod maxfwd;
pub mod mi_datagram;
pub mod mi_fifo;
pub mod mi_http;
pub mod mi_script;
pub mod mid_registrar;
pub mod msilo;
pub mod nat_traversal;
pub mod nathelper;
pub mod options;
pub mod path;
pub mod permissions;
pub mod pike;
pub mod prometheus;
pub mod proto_bin;
pub mod proto_tcp;
pub mod proto_tls;
pub mod proto_udp;
pub mod proto_ws;
pub mod proto_wss;
pub mod ratelimit;
pub mod regex;
pub mod registrar;
pub mod rest_client;
pub mod rr;
pub mod signaling;
pub mod sipmsgops;
pub mod sl;
pub mod speeddial;
pub mod sql_cacher;
pub mod sqlops;
pub mod statistics;
pub mod textops;
pub mod tls_mgm;
pub mod tls_openssl;
pub mod tls_wolfssl;
pub mod tm;
pub mod uac;
pub mod uac_auth;
pub mod uac_redirect;
pub mod uac_registrant;
pub mod uri;
pub mod userblacklist;
pub mod usrloc;
pub mod uuid;
pub mod xlog;

pub use sql::{Session, dialect_of};

macro_rules! modules {
    ($($name:ident),* $(,)?) => {
        /// Every module, for the loader, the manual and completions.
        pub static ALL: &[host::ModuleDef] = &[
            $(host::ModuleDef { name: plain(stringify!($name)), make: || host::registrar::module($name::register) }),*
        ];
    };
}

/// `enum` is a word of Rust and a module of OpenSIPS.
const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

// One a line: additions by different hands do not collide.
modules! {
    aaa_radius,
    acc,
    alias_db,
    auth,
    auth_aaa,
    auth_db,
    avpops,
    cachedb_local,
    cachedb_mongodb,
    cachedb_redis,
    cachedb_sql,
    cfgutils,
    clusterer,
    core,
    db_flatstore,
    db_mysql,
    db_postgres,
    db_sqlite,
    db_text,
    db_virtual,
    dialplan,
    diversion,
    domain,
    r#enum,
    event_datagram,
    event_route,
    event_routing,
    exec,
    gflags,
    group,
    httpd,
    json,
    ldap,
    mathops,
    maxfwd,
    mi_datagram,
    mi_fifo,
    mi_http,
    mi_script,
    mid_registrar,
    msilo,
    nat_traversal,
    nathelper,
    options,
    path,
    permissions,
    pike,
    prometheus,
    proto_bin,
    proto_tcp,
    proto_tls,
    proto_udp,
    proto_ws,
    proto_wss,
    ratelimit,
    regex,
    registrar,
    rest_client,
    rr,
    signaling,
    sipmsgops,
    sl,
    speeddial,
    sql_cacher,
    sqlops,
    statistics,
    textops,
    tls_mgm,
    tls_openssl,
    tls_wolfssl,
    tm,
    uac,
    uac_auth,
    uac_redirect,
    uac_registrant,
    uri,
    userblacklist,
    usrloc,
    uuid,
    xlog,
}
