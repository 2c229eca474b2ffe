//! The modules that speak to something outside: databases, caches, directories, HTTP, TLS and the transports. One
//! file or folder each, named as in the reference.

mod cachedb;
// Without a client library some of what they share has no user.
#[cfg_attr(not(all(feature = "mysql", feature = "postgres")), allow(dead_code, unused_imports))]
mod sql;
#[cfg_attr(not(all(feature = "ldap", feature = "http", feature = "redis")), allow(dead_code))]
mod tls;

// Plain lines, so that rustfmt follows them.
pub mod aaa_diameter;
#[cfg(feature = "radius")]
pub mod aaa_radius;
pub mod cachedb_memcached;
#[cfg(feature = "mongodb")]
pub mod cachedb_mongodb;
#[cfg(feature = "redis")]
pub mod cachedb_redis;
pub mod cachedb_sql;
pub mod db_flatstore;
#[cfg(feature = "mysql")]
pub mod db_mysql;
#[cfg(feature = "postgres")]
pub mod db_postgres;
pub mod db_sqlite;
pub mod db_text;
pub mod db_virtual;
pub mod exchange;
#[cfg(feature = "ldap")]
pub mod ldap;
#[cfg(feature = "http")]
pub mod opentelemetry;
pub mod proto_bin;
pub mod proto_tcp;
pub mod proto_tls;
pub mod proto_udp;
pub mod proto_ws;
pub mod proto_wss;
#[cfg(feature = "http")]
pub mod rest_client;
pub mod tls_mgm;
pub mod tls_openssl;
pub mod tls_wolfssl;

pub use sql::{Session, dialect_of};

// One a line: additions by different hands do not collide.
host::modules! {
    aaa_diameter,
    aaa_radius if "radius",
    cachedb_memcached,
    cachedb_mongodb if "mongodb",
    cachedb_redis if "redis",
    cachedb_sql,
    db_flatstore,
    db_mysql if "mysql",
    db_postgres if "postgres",
    db_sqlite,
    db_text,
    db_virtual,
    ldap if "ldap",
    opentelemetry if "http",
    proto_bin,
    proto_tcp,
    proto_tls,
    proto_udp,
    proto_ws,
    proto_wss,
    rest_client if "http",
    tls_mgm,
    tls_openssl,
    tls_wolfssl,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL);
}
