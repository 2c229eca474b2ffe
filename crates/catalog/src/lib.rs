//! Every module of the program, from all crates that have some.

#[cfg(test)]
mod coverage;

use host::ModuleDef;
use std::sync::LazyLock;

/// All modules; which crate one stands in makes no difference to a script.
pub fn all() -> &'static [ModuleDef] {
    static ALL: LazyLock<Vec<ModuleDef>> = LazyLock::new(|| {
        [
            modules::ALL,
            drivers::ALL,
            routing::ALL,
            media::ALL,
            presence::ALL,
            b2b::ALL,
            capture::ALL,
            page::ALL,
            identity::ALL,
            queues::ALL,
        ]
        .concat()
    });
    &ALL
}
