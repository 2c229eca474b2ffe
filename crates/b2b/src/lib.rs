//! This server between the ends of a call, a user agent to each: entities, the logic that connects them, and what is
//! built on it. One file or folder each, named as in the reference.

pub mod b2b_entities;
pub mod b2b_logic;
#[macro_use]
mod store;

host::modules! {
    b2b_entities,
    b2b_logic,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
