//! How long a message has waited for its turn, as whoever drives the worker says it.

/// How late a message is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub enum Lateness {
    InTime,
    Late,
    VeryLate,
}
