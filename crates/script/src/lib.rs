//! The script language of opensips.cfg: text → syntax tree → bytecode → machine. Knows no SIP.

pub mod ast;
mod diagnostic;
mod format;
mod host;
mod lexer;
mod machine;
mod parser;
mod preprocess;
mod value;
mod variable;

pub use diagnostic::{Diagnostic, Loc, Severity, Source, Sources, nearest};
pub use format::{FormatPiece, parse_format, parse_variable};
pub use host::{CallSite, Called, Env, Host, Lang, RouteId};
pub use machine::{End, Program, Step, Task, compile, run};
pub use parser::{Options, parse_file, parse_text};
pub use value::Value;
