//! What modules offer one another: databases, key-value stores, AAA servers, events, management, streams.

pub mod aaa;
pub mod backends;
pub mod cachedb;
pub mod db;
pub mod events;
pub mod mi;
pub mod streams;
