//! Texts with variables inside, prepared at load.

use crate::ctx::Ctx;
use crate::load::Loader;
use crate::var::Var;
use bytes::{Bytes, BytesMut};
use script::{Diagnostic, FormatPiece, Loc, Value};

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
            Format::Var(var) => var.get(ctx),
            _ => Value::Str(self.text(ctx)),
        }
    }
}

fn push_value(out: &mut BytesMut, value: &Value) {
    match value.text_in(&mut itoa::Buffer::new()) {
        Some(text) => out.extend_from_slice(text),
        None => out.extend_from_slice(&value.to_text()),
    }
}
