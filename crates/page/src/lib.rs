//! The page: what the server does, in a browser. Fermata's own module, which the reference does not have.

pub mod page;

host::modules! {
    page,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
