//! Media: the modules that speak to engines which relay it. One file or folder each, named as in the reference.

mod bodies;
mod cookies;
mod nodes;
mod sdp;

pub mod mediaproxy;
pub mod rtp_relay;
pub mod rtpengine;
pub mod rtpproxy;

host::modules! {
    mediaproxy,
    rtp_relay,
    rtpengine,
    rtpproxy,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
