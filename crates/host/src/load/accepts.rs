//! What values of module parameters have to be, declared beside the parameters: the check, its message and the manual
//! come from it. Checked when the drivers have begun and before the module begins, so that each error stands at its
//! `modparam`, and all of them come at once.

use crate::context::shared::socket_named;
use crate::context::var::{Var, VarKind};
use crate::language::arg::parse_int;
use crate::language::format::Format;
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{ParamValue, RouteKind};
use script::posix::Case;
use script::{Diagnostic, Loc};
use std::fmt;

/// What a parameter takes besides its type. An empty text is "not set" wherever no word says otherwise.
#[derive(Clone, Copy)]
pub enum Accepts {
    /// A number from the first to the last; the unit is "s", "ms", "" ...
    Range { first: i64, last: i64, unit: &'static str },
    /// One of these words (numbers are words too).
    Words(&'static [&'static str]),
    /// What this function takes; the text says what that is.
    Such { what: &'static str, check: fn(&Bytes, &mut Loader) -> Result<(), Diagnostic> },
}

impl Accepts {
    /// A number that is at least this.
    pub const fn from(first: i64) -> Accepts {
        Accepts::Range { first, last: i32::MAX as i64, unit: "" }
    }

    /// A number from the first to the last.
    pub const fn range(first: i64, last: i64) -> Accepts {
        Accepts::Range { first, last, unit: "" }
    }

    /// Seconds, at least this many.
    pub const fn seconds(first: i64) -> Accepts {
        Accepts::from(first).unit("s")
    }

    /// The same in this unit.
    pub const fn unit(self, unit: &'static str) -> Accepts {
        match self {
            Accepts::Range { first, last, .. } => Accepts::Range { first, last, unit },
            other => other,
        }
    }

    /// An AVP, `$avp(name)`.
    pub const AVP: Accepts = Accepts::Such { what: "an AVP, $avp(name)", check: avp };
    /// A variable that can be read.
    pub const VARIABLE: Accepts =
        Accepts::Such { what: "a variable", check: |text, loader| variable(text, loader).map(drop) };
    /// A variable that can be written.
    pub const TARGET: Accepts = Accepts::Such { what: "a variable that can be assigned", check: target };
    /// A text with variables in it.
    pub const FORMAT: Accepts = Accepts::Such {
        what: "a text with variables",
        check: |text, loader| Format::new(text, Loc::default(), loader).map(drop),
    };
    /// A SIP URI, also in a name-addr.
    pub const SIP_URI: Accepts = Accepts::Such { what: "a SIP URI", check: sip_uri };
    /// A socket of this server, `[proto:]host[:port]`.
    pub const SOCKET: Accepts = Accepts::Such { what: "a socket of this server", check: socket };
    /// A token of SIP: a method, the name of a parameter or header.
    pub const TOKEN: Accepts = Accepts::Such { what: "a token of SIP", check: token };
    /// A POSIX extended regular expression.
    pub const REGEX: Accepts = Accepts::Such { what: "a regular expression", check: regex };
    /// The URL of a database whose driver is loaded.
    pub const DATABASE: Accepts = Accepts::Such {
        what: "the URL of a database",
        check: |text, loader| loader.db(&text_of(text)).map(drop).map_err(plain),
    };
    /// The URL of a store whose engine is loaded.
    pub const STORE: Accepts = Accepts::Such {
        what: "the URL of a store",
        check: |text, loader| loader.cache(&text_of(text)).map(drop).map_err(plain),
    };
    /// The URL of an AAA server whose module is loaded.
    pub const AAA: Accepts = Accepts::Such {
        what: "the URL of an AAA server",
        check: |text, loader| loader.aaa(&text_of(text)).map(drop).map_err(plain),
    };
    /// The name of a table or column; all parameters named `..._col`, `..._column`, `..._table` are such.
    pub const COLUMN: Accepts = Accepts::Such { what: "a name in a database", check: column };
    /// A text that is not empty.
    pub const FILLED: Accepts = Accepts::Such { what: "a text that is not empty", check: filled };
    /// The name of a `route[...]` of the script.
    pub const ROUTE: Accepts = Accepts::Such { what: "the name of a route", check: route };

    /// The name of a table or column: nothing that a reader of the manual does not know.
    pub fn is_column(&self) -> bool {
        let Accepts::Such { what: column, .. } = Accepts::COLUMN else { return false };
        matches!(self, Accepts::Such { what, .. } if *what == column)
    }

    /// Checks one value. The error says what was wrong with it, for a message that begins with the parameter's name.
    pub(super) fn check(&self, value: &ParamValue, loader: &mut Loader) -> Result<(), Diagnostic> {
        let text = match value {
            ParamValue::Int(number) => Bytes::from(number.to_string()),
            ParamValue::Text(text) => text.clone(),
        };
        let shown = String::from_utf8_lossy(&text).into_owned();
        match self {
            // What is no number at all was refused by the type.
            Accepts::Range { first, last, .. } => match parse_int(&text) {
                Some(number) if !(*first..=*last).contains(&number) => {
                    Err(plain(format!("takes {self}, not {number}")))
                }
                _ => Ok(()),
            },
            Accepts::Words(words) if words.contains(&shown.as_str()) => Ok(()),
            Accepts::Words(_) => Err(plain(format!("takes {self}, not `{shown}`"))),
            Accepts::Such { check, .. } => check(&text, loader).map_err(|why| Diagnostic {
                message: format!("takes {self}, not `{shown}`: {}", why.message),
                ..why
            }),
        }
    }
}

impl fmt::Display for Accepts {
    /// "a number from 1 to 10 (s)"
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Accepts::Range { first, last, unit } => {
                write!(f, "a number from {first}")?;
                if *last < i64::from(i32::MAX) {
                    write!(f, " to {last}")?;
                }
                if unit.is_empty() { Ok(()) } else { write!(f, " ({unit})") }
            }
            Accepts::Words(words) => write!(f, "one of {}", words.join(", ")),
            Accepts::Such { what, .. } => f.write_str(what),
        }
    }
}

fn plain(why: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Loc::default(), why)
}

fn text_of(text: &Bytes) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// `None`: the text is empty.
fn variable(text: &Bytes, loader: &mut Loader) -> Result<Option<Var>, Diagnostic> {
    if text.is_empty() {
        return Ok(None);
    }
    let spec = script::parse_variable(text, Loc::default())?;
    loader.var(&spec).map(Some)
}

fn target(text: &Bytes, loader: &mut Loader) -> Result<(), Diagnostic> {
    match variable(text, loader)? {
        Some(var) if !var.writable() => Err(plain("it cannot be assigned")),
        _ => Ok(()),
    }
}

fn avp(text: &Bytes, loader: &mut Loader) -> Result<(), Diagnostic> {
    match variable(text, loader)? {
        Some(var) if !matches!(var.kind, VarKind::Avp(_)) => Err(plain("it is another variable")),
        _ => Ok(()),
    }
}

fn sip_uri(text: &Bytes, _: &mut Loader) -> Result<(), Diagnostic> {
    let address = sip::NameAddr::parse(text);
    let uri = address.map_or_else(|| text.clone(), |address| address.uri);
    if text.is_empty() || sip::Uri::parse(&uri).is_ok() {
        return Ok(());
    }
    Err(plain("it cannot be read").hint("written as sip:user@host"))
}

fn socket(text: &Bytes, loader: &mut Loader) -> Result<(), Diagnostic> {
    let sockets = &loader.globals.sockets;
    if text.is_empty() || socket_named(sockets, &text_of(text)).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = sockets.iter().map(|socket| &*socket.text).collect();
    Err(plain("there is none of that name").hint(format!("this server listens on {}", names.join(", "))))
}

fn token(text: &Bytes, _: &mut Loader) -> Result<(), Diagnostic> {
    match text.iter().find(|byte| !(byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte))) {
        Some(byte) => Err(plain(format!("`{}` cannot stand in one", char::from(*byte).escape_default()))),
        None => Ok(()),
    }
}

fn regex(text: &Bytes, _: &mut Loader) -> Result<(), Diagnostic> {
    script::posix::compile(text, Case::Sensitive).map(drop).map_err(|why| plain(why.to_string()))
}

fn filled(text: &Bytes, _: &mut Loader) -> Result<(), Diagnostic> {
    if text.is_empty() { Err(plain("it is empty")) } else { Ok(()) }
}

fn column(text: &Bytes, _: &mut Loader) -> Result<(), Diagnostic> {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.-`\"".contains(byte) || !byte.is_ascii();
    match text.iter().find(|byte| !word(byte)) {
        Some(byte) => Err(plain(format!("`{}` cannot stand in one", char::from(*byte).escape_default()))),
        None => Ok(()),
    }
}

fn route(text: &Bytes, loader: &mut Loader) -> Result<(), Diagnostic> {
    if text.is_empty() {
        return Ok(());
    }
    loader.route_named(RouteKind::Request as u8, text, Loc::default()).map(drop)
}
