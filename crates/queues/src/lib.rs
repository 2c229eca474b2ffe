//! What other programs are told, and what they tell: events over streams and message brokers, calls of JSON-RPC
//! servers. One file or folder each, named as in the reference.

pub mod event_jsonrpc;
#[cfg(feature = "rabbitmq")]
pub mod event_rabbitmq;
pub mod event_stream;
pub mod jsonrpc;
pub mod mqueue;
mod outlet;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq_consumer;
mod rpc;

// One a line: additions by different hands do not collide.
host::modules! {
    event_jsonrpc,
    event_rabbitmq if "rabbitmq",
    event_stream,
    jsonrpc,
    mqueue,
    rabbitmq_consumer if "rabbitmq",
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
