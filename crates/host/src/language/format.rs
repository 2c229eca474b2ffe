//! Texts with variables inside, prepared at load.

use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::var::Var;
use bytes::{Bytes, BytesMut};
use script::traced::{Builder, Hand};
use script::{Diagnostic, FormatPiece, Loc, Traced, Value};

#[derive(Debug)]
pub enum Piece {
    Text(Bytes),
    Var(Var),
}

/// A prepared text: constant, one variable, or a mix.
#[derive(Debug)]
pub enum Format {
    Constant(Bytes),
    Var(Box<Var>),
    Mixed(Box<[Piece]>),
}

impl Format {
    /// Reads variables inside `text`.
    pub fn new(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Format, Diagnostic> {
        let mut pieces = Vec::new();
        for piece in script::parse_format(text, loc)? {
            pieces.push(match piece {
                FormatPiece::Text(t) => Piece::Text(t),
                FormatPiece::Var(spec) => Piece::Var(loader.var(&spec)?),
            });
        }
        Ok(match pieces.len() {
            0 => Format::Constant(Bytes::new()),
            1 => match pieces.pop().expect("one") {
                Piece::Text(t) => Format::Constant(t),
                Piece::Var(v) => Format::Var(Box::new(v)),
            },
            _ => Format::Mixed(pieces.into()),
        })
    }

    /// The same as a text in any case: a lone variable that is NULL prints as `<null>`.
    pub fn printed(self) -> Format {
        match self {
            Format::Var(var) => Format::Mixed([Piece::Var(*var)].into()),
            other => other,
        }
    }

    pub fn constant(&self) -> Option<&Bytes> {
        match self {
            Format::Constant(text) => Some(text),
            _ => None,
        }
    }

    /// The text now; NULL variables print as `<null>`.
    pub fn text(&self, ctx: &mut Ctx) -> Bytes {
        match self {
            Format::Constant(text) => text.clone(),
            Format::Var(var) => var.get(ctx).to_text(),
            Format::Mixed(pieces) => {
                let mut out = BytesMut::with_capacity(128);
                for piece in pieces {
                    match piece {
                        Piece::Text(t) => out.extend_from_slice(t),
                        Piece::Var(v) => push_value(&mut out, &v.get(ctx)),
                    }
                }
                out.freeze()
            }
        }
    }

    /// The value now: a lone variable keeps its type and NULL.
    pub fn value(&self, ctx: &mut Ctx) -> Value {
        match self {
            Format::Constant(text) => Value::literal(text.clone()),
            Format::Var(var) => var.get(ctx),
            Format::Mixed(_) => self.traced(ctx).into_value(),
        }
    }

    /// The text now, with who wrote which part of it: for texts that a database, a shell or a parser reads.
    pub fn traced(&self, ctx: &mut Ctx) -> Traced {
        match self {
            Format::Constant(text) => Traced::script(text.clone()),
            Format::Var(var) => {
                let mut out = Builder::default();
                out.push_value(&var.get(ctx));
                out.finish()
            }
            Format::Mixed(pieces) => {
                let mut out = Builder::default();
                for piece in pieces {
                    match piece {
                        Piece::Text(t) => out.push(Hand::Script, t),
                        Piece::Var(v) => out.push_value(&v.get(ctx)),
                    }
                }
                out.finish()
            }
        }
    }

    /// The text now as it may stand in the head of a message: line ends only where the script wrote them.
    pub fn head(&self, ctx: &mut Ctx) -> Bytes {
        self.filled(ctx, Value::push_head)
    }

    /// The text now as it may stand in a log line: what came in is shown without line ends and control characters.
    pub fn printable(&self, ctx: &mut Ctx) -> Bytes {
        self.filled(ctx, Value::push_printable)
    }

    fn filled(&self, ctx: &mut Ctx, push: fn(&Value, &mut BytesMut)) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        match self {
            Format::Constant(text) => return text.clone(),
            Format::Var(var) => push(&var.get(ctx), &mut out),
            Format::Mixed(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(t) => out.extend_from_slice(t),
                        Piece::Var(v) => push(&v.get(ctx), &mut out),
                    }
                }
            }
        }
        out.freeze()
    }
}

fn push_value(out: &mut BytesMut, value: &Value) {
    match value.text_in(&mut itoa::Buffer::new()) {
        Some(text) => out.extend_from_slice(text),
        None => out.extend_from_slice(&value.to_text()),
    }
}
