//! The modules, one file or folder each, named as in the reference.

pub mod cached;
pub mod pattern;
pub mod pcre;
pub mod subjects;
pub mod timerec;
#[cfg(test)]
mod transformations;
mod userdb;

// Plain lines, so that rustfmt follows them.
pub mod acc;
pub mod alias_db;
pub mod auth;
pub mod auth_aaa;
pub mod auth_db;
pub mod avpops;
pub mod cachedb_local;
pub mod callops;
pub mod cfgutils;
pub mod clusterer;
pub mod core;
pub mod dialog;
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
pub mod mathops;
pub mod maxfwd;
pub mod mi_datagram;
pub mod mi_fifo;
pub mod mi_http;
pub mod mi_json;
pub mod mi_script;
pub mod mid_registrar;
pub mod mmgeoip;
pub mod msilo;
pub mod nat_traversal;
pub mod nathelper;
pub mod options;
pub mod own_file;
pub mod path;
pub mod permissions;
pub mod pike;
pub mod prometheus;
pub mod ratelimit;
pub mod regex;
pub mod registrar;
pub mod rr;
pub mod signaling;
pub mod sipmsgops;
pub mod sl;
pub mod speeddial;
pub mod sql_cacher;
pub mod sqlops;
pub mod sst;
pub mod statistics;
pub mod stun;
pub mod textops;
pub mod tm;
pub mod topology_hiding;
pub mod uac;
pub mod uac_auth;
pub mod uac_redirect;
pub mod uac_registrant;
pub mod uri;
pub mod userblacklist;
pub mod usrloc;
pub mod uuid;
pub mod xlog;

// One a line: additions by different hands do not collide.
host::modules! {
    acc,
    alias_db,
    auth,
    auth_aaa,
    auth_db,
    avpops,
    cachedb_local,
    callops,
    cfgutils,
    clusterer,
    core,
    dialog,
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
    mathops,
    maxfwd,
    mi_datagram,
    mi_fifo,
    mi_http,
    mi_json,
    mi_script,
    mid_registrar,
    mmgeoip,
    msilo,
    nat_traversal,
    nathelper,
    options,
    path,
    permissions,
    pike,
    prometheus,
    ratelimit,
    regex,
    registrar,
    rr,
    signaling,
    sipmsgops,
    sl,
    speeddial,
    sql_cacher,
    sqlops,
    sst,
    statistics,
    stun,
    textops,
    tm,
    topology_hiding,
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

#[cfg(test)]
mod mutations;
#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, drivers::ALL);
}
