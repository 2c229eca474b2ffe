//! What the engines of key-value servers share.

mod link;

pub use link::{Backend, Link};
