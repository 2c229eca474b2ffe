//! Bare words of conditions: `src_ip`, `myself`, `uri`, `method`, `proto`.

use crate::ctx::Ctx;
use crate::var::Var;
use script::Value;

/// `x == myself` and comparisons of addresses with networks; `None`: compare as plain values.
pub fn compare(_ctx: &mut Ctx, _left: &Value, _word: &Var) -> Option<bool> {
    None
}

/// Prepares a bare word as an operand.
pub fn prepare(
    word: &[u8],
    loc: script::Loc,
    _loader: &mut crate::load::Loader,
) -> Result<Var, script::Diagnostic> {
    Err(script::Diagnostic::error(loc, format!("unknown word {}", String::from_utf8_lossy(word))))
}
