//! From a configuration to what workers run: the procedure that loads, and what modules register with.

mod accepts;
mod assemble;
mod command;
mod fault;
mod functions;
pub mod globals;
pub mod listen;
mod modules;
pub mod parameters;
pub mod reference;
pub mod registrar;
pub mod reload;
pub(crate) mod unknown;

pub use crate::context::globals::{Alias, FlagNames, Globals};
pub use crate::language::loader::Loader;
pub use crate::language::vartable::{ClassBuilder, TranBuilder, VarTable};
pub use accepts::Accepts;
pub use assemble::{load, load_with};
pub use command::CommandWords;
pub use fault::{InParam, LoadError};
