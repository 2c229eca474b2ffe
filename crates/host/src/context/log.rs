//! Log levels and the one sink. The server decides where lines go; nothing here blocks.

use std::cell::{Cell, RefCell};
use std::fmt::Arguments;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI8, Ordering};

/// Levels of the reference, `log_level` -3..=4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i8)]
pub enum Level {
    Alert = -3,
    Critical = -2,
    Error = -1,
    Warning = 1,
    Notice = 2,
    Info = 3,
    Debug = 4,
}

impl Level {
    /// "ERROR", as it stands in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Level::Alert => "ALERT",
            Level::Critical => "CRITICAL",
            Level::Error => "ERROR",
            Level::Warning => "WARNING",
            Level::Notice => "NOTICE",
            Level::Info => "INFO",
            Level::Debug => "DBG",
        }
    }

    /// The level of a name that scripts write ("L_ERR"), or of a number as text.
    pub fn parse(name: &[u8]) -> Option<Level> {
        Some(match name {
            b"L_ALERT" => Level::Alert,
            b"L_CRIT" => Level::Critical,
            b"L_ERR" => Level::Error,
            b"L_WARN" => Level::Warning,
            b"L_NOTICE" => Level::Notice,
            b"L_INFO" => Level::Info,
            b"L_DBG" => Level::Debug,
            number => Level::from_number(std::str::from_utf8(number).ok()?.trim().parse().ok()?),
        })
    }

    /// The level of a number a script wrote; out of range goes to the nearest.
    pub fn from_number(n: i64) -> Level {
        match n {
            i64::MIN..=-3 => Level::Alert,
            -2 => Level::Critical,
            -1 | 0 => Level::Error,
            1 => Level::Warning,
            2 => Level::Notice,
            3 => Level::Info,
            _ => Level::Debug,
        }
    }
}

/// Where log lines go; each can be silenced and held to a level while the server runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consumer {
    Stderr,
    Syslog,
}

struct ConsumerState {
    /// 0: whatever `log_level` lets through.
    filter: AtomicI8,
    muted: AtomicBool,
}

impl ConsumerState {
    const fn new() -> ConsumerState {
        ConsumerState { filter: AtomicI8::new(0), muted: AtomicBool::new(false) }
    }
}

static STDERR: ConsumerState = ConsumerState::new();
static SYSLOG: ConsumerState = ConsumerState::new();

impl Consumer {
    /// As management commands name it.
    pub fn parse(name: &str) -> Option<Consumer> {
        match name {
            "stderror" => Some(Consumer::Stderr),
            "syslog" => Some(Consumer::Syslog),
            _ => None,
        }
    }

    fn state(self) -> &'static ConsumerState {
        match self {
            Consumer::Stderr => &STDERR,
            Consumer::Syslog => &SYSLOG,
        }
    }

    pub fn filter(self) -> i8 {
        self.state().filter.load(Ordering::Relaxed)
    }

    pub fn set_filter(self, level: i8) {
        self.state().filter.store(level, Ordering::Relaxed);
    }

    pub fn is_muted(self) -> bool {
        self.state().muted.load(Ordering::Relaxed)
    }

    pub fn set_muted(self, muted: bool) {
        self.state().muted.store(muted, Ordering::Relaxed);
    }

    /// A line of this level goes there.
    pub fn takes(self, level: Level) -> bool {
        let filter = self.filter();
        !self.is_muted() && (filter == 0 || level as i8 <= filter)
    }
}

/// Receives (level, who, text): who is the module ("core", "tm") or empty for `xlog` output.
pub type Sink = Box<dyn Fn(Level, &str, &str) + Send + Sync>;

static SINK: OnceLock<Sink> = OnceLock::new();
static LEVEL: AtomicI8 = AtomicI8::new(Level::Notice as i8);

/// Sets where log lines go. The first call wins.
pub fn set_sink(sink: Sink) {
    let _ = SINK.set(sink);
}

pub fn set_level(level: i8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// The level that counts on this thread.
pub fn level() -> i8 {
    match OWN.get() {
        UNSET => LEVEL.load(Ordering::Relaxed),
        own => own,
    }
}

const UNSET: i8 = i8::MAX;

thread_local! {
    static OWN: Cell<i8> = const { Cell::new(UNSET) };
    static OWN_XLOG: Cell<i8> = const { Cell::new(UNSET) };
}

/// A level for this worker's thread only (`$log_level`); `None` goes back to that of the server.
pub fn override_level(level: Option<i8>) {
    OWN.set(level.unwrap_or(UNSET));
}

/// The same for `xlog` (`$xlog_level`).
pub fn override_xlog_level(level: Option<i8>) {
    OWN_XLOG.set(level.unwrap_or(UNSET));
}

static XLOG_LEVEL: AtomicI8 = AtomicI8::new(UNSET);

/// Level of `xlog`; follows `log_level` until it is set.
pub fn set_xlog_level(level: i8) {
    XLOG_LEVEL.store(level, Ordering::Relaxed);
}

pub fn xlog_level() -> i8 {
    if OWN_XLOG.get() != UNSET {
        return OWN_XLOG.get();
    }
    match XLOG_LEVEL.load(Ordering::Relaxed) {
        UNSET => level(),
        own => own,
    }
}

pub fn enabled(level: Level) -> bool {
    level as i8 <= self::level()
}

/// Writes one line when `level` is enabled.
pub fn write(level: Level, who: &str, text: Arguments<'_>) {
    if enabled(level) {
        // Names and texts of peers stand in these lines: none of them begins another line.
        let text = text.to_string();
        emit(level, who, &script::traced::printable(text.trim_end_matches(['\r', '\n'])));
    }
}

/// A line that a module wrote about what it could not do.
pub struct Held {
    pub level: Level,
    pub who: String,
    pub text: String,
}

/// More lines of one function than this are written at once, without the place in the script.
const MAX_HELD: usize = 16;

thread_local! {
    /// Errors and warnings of the step that this worker takes: whoever knows the place in the script completes them.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// Writes an error or a warning, held until the function that it is about has returned.
pub fn write_about(level: Level, who: &str, text: Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let waits = HOLDS.get() && HELD.with_borrow(|held| held.len() < MAX_HELD);
    if !waits {
        return write(level, who, text);
    }
    let held = Held { level, who: who.to_owned(), text: text.to_string() };
    HELD.with_borrow_mut(|list| list.push(held));
}

/// Lines wait for their place from here on.
pub(crate) fn hold() {
    HOLDS.set(true);
}

/// What is held, to be completed.
pub(crate) fn take_held() -> Vec<Held> {
    HELD.take()
}

pub(crate) fn holds_any() -> bool {
    HELD.with_borrow(|held| !held.is_empty())
}

/// The step is over: what belongs to no function is written as it is.
pub(crate) fn release() {
    HOLDS.set(false);
    for Held { level, who, text } in take_held() {
        write(level, &who, format_args!("{text}"));
    }
}

/// Writes without looking at the level (xlog has its own).
pub fn emit(level: Level, who: &str, text: &str) {
    match SINK.get() {
        Some(sink) => sink(level, who, text),
        None => plain(level, who, text),
    }
}

/// Where lines go without a sink.
pub fn plain(level: Level, who: &str, text: &str) {
    eprintln!("{}:{who}: {}", level.name(), text.trim_end());
}

#[macro_export]
macro_rules! error { ($who:expr, $($t:tt)*) => { $crate::log::write_about($crate::log::Level::Error, $who, format_args!($($t)*)) } }
#[macro_export]
macro_rules! warn { ($who:expr, $($t:tt)*) => { $crate::log::write_about($crate::log::Level::Warning, $who, format_args!($($t)*)) } }
#[macro_export]
macro_rules! notice { ($who:expr, $($t:tt)*) => { $crate::log::write($crate::log::Level::Notice, $who, format_args!($($t)*)) } }
#[macro_export]
macro_rules! info { ($who:expr, $($t:tt)*) => { $crate::log::write($crate::log::Level::Info, $who, format_args!($($t)*)) } }
#[macro_export]
macro_rules! debug { ($who:expr, $($t:tt)*) => { $crate::log::write($crate::log::Level::Debug, $who, format_args!($($t)*)) } }
