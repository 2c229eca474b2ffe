//! The machine as a whole: golden language cases, suspension, bytecode.

mod bytecode;
mod diagnostics;
mod golden;
mod mock;
mod resume;
mod scripts;
