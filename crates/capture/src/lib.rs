//! What was said: the modules that copy messages to somebody else, and take such copies in. One file or folder each,
//! named as in the reference.

pub mod fermata;
mod hep;
pub mod hep_in;
pub mod proto_hep;
pub mod recorder;
pub mod sipcapture;
pub mod siptrace;
pub mod story;
pub mod teller;
pub mod tracer;

// One a line: additions by different hands do not collide.
host::modules! {
    fermata,
    proto_hep,
    recorder,
    sipcapture,
    siptrace,
    tracer,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
