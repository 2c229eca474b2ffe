//! Class `re`: substitutions.

use super::{Entry, Tran, Word, text, with_text};
use crate::language::loader::Loader;
use crate::subst::{Subst, changed};
use bytes::Bytes;
use script::ast::TranSpec;
use script::traced::Hand;
use script::{Diagnostic, Value};

pub(super) const NAMES: super::Names = &[("subst", Entry::With(subst))];

/// `{re.subst,/a/b/g}`, or the same in a variable. A text that does not match stays as it is.
fn subst(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let expression = spec.params.first().map(|p| p.slice_ref(p.trim_ascii_start()));
    let Some(expression) = expression.filter(|e| !e.is_empty()) else {
        let error = Diagnostic::error(spec.loc, "{re.subst} needs a substitution");
        return Err(error.hint("for example {re.subst,/a/b/g}"));
    };
    if expression.starts_with(b"$") {
        let held = Word::new(spec, 0, loader)?;
        return Ok(Tran::new(move |ctx, value| {
            let prepared = held.get(ctx).and_then(|text| ctx.late_subst(&without_brace_escapes(&text)));
            prepared.map_or(Value::Null, |subst| apply(&subst, ctx, value))
        }));
    }
    // A comma ends the parameter, also in an expression, and what is left makes NULL.
    let expression = expression.slice(..parameter_end(&expression));
    match Subst::new(&without_brace_escapes(&expression), spec.loc, loader) {
        Ok(subst) => {
            let doubles = memchr::memmem::find(&expression, b"''").is_some();
            Ok(Tran::new(move |ctx, value| match (apply(&subst, ctx, value), doubles) {
                (Value::Str(text), true) => Value::written_by(text, Hand::Doubled),
                (value, _) => value,
            }))
        }
        Err(mut problem) => {
            problem.severity = script::Severity::Warning;
            problem.message += ": this transformation always gives NULL";
            loader
                .diagnostics
                .push(problem.hint("a comma in it is written \\, or the expression is held in a variable"));
            Ok(Tran::pure(|_| Value::Null))
        }
    }
}

fn apply(subst: &Subst, ctx: &mut crate::ctx::Ctx, value: Value) -> Value {
    let text = text(&value);
    if text.is_empty() {
        return Value::Null;
    }
    match subst.try_changes(ctx, &text) {
        Ok(changes) if changes.is_empty() => with_text(&value, text),
        Ok(changes) => Value::Str(changed(&text, &changes)),
        Err(_) => Value::Null,
    }
}

/// The first comma without a backslash, or the end.
fn parameter_end(text: &[u8]) -> usize {
    (0..text.len()).find(|&i| text[i] == b',' && (i == 0 || text[i - 1] != b'\\')).unwrap_or(text.len())
}

/// `\{` and `\}` are braces of the expression.
fn without_brace_escapes(text: &Bytes) -> Bytes {
    if !text.contains(&b'\\') {
        return text.clone();
    }
    let escapes = |i: usize| text[i] == b'\\' && matches!(text.get(i + 1), Some(b'{' | b'}'));
    (0..text.len()).filter(|i| !escapes(*i)).map(|i| text[i]).collect()
}
