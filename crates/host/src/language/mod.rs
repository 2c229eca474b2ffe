//! What the arguments of a script are prepared through: words, formats, variables, patterns.

pub mod arg;
pub mod checked;
pub mod format;
pub mod late;
pub mod loader;
pub mod subst;
pub mod vartable;
