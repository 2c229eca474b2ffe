//! Who calls, and how one can tell: signed identities. One file or folder each, named as in the reference.

pub mod aka_av_diameter;
pub mod auth_aka;
pub mod auth_jwt;
pub mod stir_shaken;

// One a line: additions by different hands do not collide.
host::modules! {
    aka_av_diameter,
    auth_aka,
    auth_jwt,
    stir_shaken,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
