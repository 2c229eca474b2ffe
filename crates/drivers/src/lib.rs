//! The modules that speak to something outside: databases, caches, directories, HTTP, TLS and the transports. One
//! file or folder each, named as in the reference.

mod cachedb;
mod sql;
mod tls;

// Plain lines, so that rustfmt follows them.
pub mod aaa_radius;
pub mod cachedb_mongodb;
pub mod cachedb_redis;
pub mod cachedb_sql;
pub mod db_flatstore;
pub mod db_mysql;
pub mod db_postgres;
pub mod db_sqlite;
pub mod db_text;
pub mod db_virtual;
pub mod ldap;
pub mod proto_bin;
pub mod proto_tcp;
pub mod proto_tls;
pub mod proto_udp;
pub mod proto_ws;
pub mod proto_wss;
pub mod rest_client;
pub mod tls_mgm;
pub mod tls_openssl;
pub mod tls_wolfssl;

pub use sql::{Session, dialect_of};

// One a line: additions by different hands do not collide.
host::modules! {
    aaa_radius,
    cachedb_mongodb,
    cachedb_redis,
    cachedb_sql,
    db_flatstore,
    db_mysql,
    db_postgres,
    db_sqlite,
    db_text,
    db_virtual,
    ldap,
    proto_bin,
    proto_tcp,
    proto_tls,
    proto_udp,
    proto_ws,
    proto_wss,
    rest_client,
    tls_mgm,
    tls_openssl,
    tls_wolfssl,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL);
}
