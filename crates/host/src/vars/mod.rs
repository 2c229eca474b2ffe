//! The variables of the core: one table of names, one file per family.

pub mod avp;
pub mod context;

use crate::load::VarTable;

/// Registers every core variable.
pub fn register(table: &mut VarTable) {
    avp::register(table);
}

pub mod word;
