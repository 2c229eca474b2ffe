//! The script language of opensips.cfg: text → syntax tree → bytecode → machine. Knows no SIP.

#![warn(missing_docs)]

#[expect(missing_docs, reason = "a syntax tree: names and types say it")]
pub mod ast;
mod compile;
mod diagnostic;
mod disassemble;
mod explain;
mod fmt;
mod format;
mod host;
mod lexer;
mod lint;
mod machine;
mod names;
mod ops;
mod parser;
pub mod posix;
mod preprocess;
mod program;
mod task;
pub mod traced;
mod value;
mod variable;
mod walk;

pub use compile::compile;
pub use diagnostic::{Diagnostic, Loc, Severity, Source, Sources, nearest};
pub use explain::{EdgeKind, RouteEdge, RouteGraph, RouteNode, Waiting, explain};
pub use fmt::format_source;
pub use format::{FormatPiece, parse_format, parse_leading_variable, parse_variable};
pub use host::{CallSite, Called, Env, Host, Lang, ParallelSite, Probes, RouteId, Waits};
pub use lint::lint;
pub use machine::{End, Step, run};
pub use names::{RouteName, route_names};
pub use parser::{Options, parse_file, parse_text};
pub use program::Program;
pub use task::{Task, param};
pub use traced::Traced;
pub use value::{MAX_TEXT, Value};
