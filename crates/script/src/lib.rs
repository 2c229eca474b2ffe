//! The script language of opensips.cfg: text → syntax tree → bytecode → machine. Knows no SIP.

pub mod ast;
mod diagnostic;
mod format;
mod host;
mod machine;
mod value;
mod variable;

pub use diagnostic::{Diagnostic, Loc, Severity, Source, Sources, nearest};
pub use format::{FormatPiece, parse_format, parse_variable};
pub use host::{CallSite, Called, Env, Host, Lang, RouteId};
pub use machine::{End, Program, Step, Task, compile, run};
pub use value::Value;
