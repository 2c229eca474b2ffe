//! From a configuration to what workers run: the procedure that loads, and what modules register with.

pub mod globals;
pub mod listen;
mod loader;
pub mod parameters;
pub mod reference;
pub mod registrar;
pub mod reload;
pub(crate) mod unknown;

pub use loader::*;
