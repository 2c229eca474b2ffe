//! The machine as a whole: golden language cases, suspension, bytecode.

mod golden;
mod mock;
