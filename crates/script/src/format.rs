use crate::ast::VarSpec;
use crate::diagnostic::{Diagnostic, Loc};
use bytes::Bytes;

/// "text $var text": a function parameter with variables inside.
#[derive(Clone, Debug, PartialEq)]
pub enum FormatPiece {
    Text(Bytes),
    Var(VarSpec),
}

/// Splits a text at its variables. `$$` is a dollar.
#[allow(unused_variables)]
pub fn parse_format(text: &Bytes, loc: Loc) -> Result<Vec<FormatPiece>, Diagnostic> {
    todo!()
}

/// Parses a text that is exactly one variable ("$avp(x)").
#[allow(unused_variables)]
pub fn parse_variable(text: &Bytes, loc: Loc) -> Result<VarSpec, Diagnostic> {
    todo!()
}
