//! Functions of the core: always there, no loadmodule.

mod cache;
mod mi;

use host::{Call, Int, Registrar, Routes, Text};
use host::log::{self, Level};

/// The core keeps nothing.
#[derive(Default)]
pub struct Core;

pub fn register(m: &mut Registrar<Core>) {
    cache::register(m);
    mi::register(m);
    m.function("xlog", Routes::ALL, xlog);
}

/// xlog([level, ] text): the level is a number or a name ("L_INFO"); default L_ERR.
fn xlog(call: &mut Call<Core>, first: Text, second: Option<Text>) -> i32 {
    let (level, text) = match &second {
        Some(text) => (level_of(&first), text),
        None => (Level::Error, &first),
    };
    if log::enabled(level) {
        log::emit(level, "", &text.str());
    }
    let _ = (call, Int(0));
    1
}

fn level_of(name: &[u8]) -> Level {
    match name {
        b"L_ALERT" => Level::Alert,
        b"L_CRIT" => Level::Critical,
        b"L_WARN" => Level::Warning,
        b"L_NOTICE" => Level::Notice,
        b"L_INFO" => Level::Info,
        b"L_DBG" => Level::Debug,
        other => std::str::from_utf8(other).ok().and_then(|s| s.parse().ok()).map_or(Level::Error, Level::from_number),
    }
}
