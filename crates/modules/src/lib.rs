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

pub use sql::{Session, dialect_of};

macro_rules! modules {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
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
