//! Arguments that only functions of the core take.

use bytes::Bytes;
use host::arg::Arg;
use host::load::Loader;
use host::{Call, Format, Text};
use script::ast::{self, ArgKind, Dialect};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// A text. 2.x takes it as it stands, later versions fill in its variables.
#[derive(Clone, Debug)]
pub struct Plain(pub Bytes);

impl<M> Arg<M> for Plain {
    type Prepared = Format;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        match arg.map(|a| &a.kind) {
            Some(ArgKind::Text(text)) if loader.dialect == Dialect::V21 => Ok(Format::Constant(text.clone())),
            _ => <Text as Arg<M>>::prepare(arg, site, loader, module),
        }
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<Plain, i32> {
        <Text as Arg<M>>::eval(format, call).map(|text| Plain(text.0))
    }
}

/// A number as text; 3.0 took it without quotes, as 2.x does.
#[derive(Clone, Debug)]
pub struct Digits(pub Bytes);

impl<M> Arg<M> for Digits {
    type Prepared = Format;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        match arg.map(|a| &a.kind) {
            Some(ArgKind::Int(n)) if speaks_old(loader) => Ok(Format::Constant(n.to_string().into())),
            _ => <Text as Arg<M>>::prepare(arg, site, loader, module),
        }
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<Digits, i32> {
        <Text as Arg<M>>::eval(format, call).map(|text| Digits(text.0))
    }
}

/// A flag by name, as its bit: `"NAT"`, in 2.x `5` or `NAT` without quotes. `BRANCH`: a branch flag,
/// which have names of their own.
#[derive(Clone, Copy, Debug)]
pub struct Flag<const BRANCH: u8>(pub u32);

pub const MESSAGE: u8 = 0;
pub const BRANCH: u8 = 1;

impl<M, const KIND: u8> Arg<M> for Flag<KIND> {
    type Prepared = u32;
    const WHAT: &'static str = "a flag";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<u32, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: a flag"))?;
        let dialect = if speaks_old(loader) { Dialect::V21 } else { loader.dialect };
        let name = match &arg.kind {
            // What 3.x writes is taken from a file that also bears marks of 3.0.
            ArgKind::Text(_) if loader.dialect == Dialect::V4 => flag_name(arg, Dialect::V4)?,
            _ => flag_name(arg, dialect)?,
        };
        match KIND {
            BRANCH => loader.branch_flag(&name, arg.loc),
            _ => loader.flag(&name, arg.loc),
        }
    }

    fn eval(bit: &u32, _: &mut Call<'_, M>) -> Result<Self, i32> {
        Ok(Flag(*bit))
    }
}

/// 2.x, or 3.0, which took over its functions of the core: marked by parameters that later ones lost.
fn speaks_old(loader: &Loader) -> bool {
    let marks = ["children", "tcp_children", "log_stderror", "debug", "fork"];
    loader.dialect == Dialect::V21 || marks.iter().any(|m| loader.globals.written.contains(*m))
}

fn flag_name(arg: &ast::Arg, dialect: Dialect) -> Result<Bytes, Diagnostic> {
    let bad = |text: &str| Diagnostic::error(arg.loc, text);
    let name = match (&arg.kind, dialect) {
        (ArgKind::Int(n), Dialect::V21) if *n >= 0 => Bytes::from(n.to_string()),
        (ArgKind::Word(word), Dialect::V21) => word.clone(),
        (ArgKind::Text(_), Dialect::V21) => {
            return Err(bad("2.x takes a flag without quotes").hint("write it without quotes"));
        }
        (ArgKind::Text(text), Dialect::V4) => text.clone(),
        (ArgKind::Word(word), Dialect::V4) => {
            let word = String::from_utf8_lossy(word);
            return Err(bad("a flag is named by a string").hint(format!("write \"{word}\"")));
        }
        (ArgKind::Int(n), Dialect::V4) => {
            let hint = format!("flags have names since 3.0: write \"FLAG_{n}\" everywhere");
            return Err(bad("a flag is named by a string").hint(hint));
        }
        _ => return Err(bad("a flag must be known when the script is loaded")),
    };
    match name.is_empty() || name.contains(&b'$') {
        true => Err(bad("a flag must be known when the script is loaded")),
        false => Ok(name),
    }
}

/// A socket of this server: `"udp:10.0.0.1:5060"`, in 2.x without quotes. `None`: it was computed by
/// the script and there is no such socket.
#[derive(Clone, Copy, Debug)]
pub struct Socket(pub Option<u16>);

pub enum PreparedSocket {
    Known(u16),
    Computed(Format),
}

impl<M> Arg<M> for Socket {
    type Prepared = PreparedSocket;
    const WHAT: &'static str = "a socket";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<PreparedSocket, Diagnostic> {
        let format = match arg.map(|a| &a.kind) {
            Some(ArgKind::Word(word)) if speaks_old(loader) => Format::Constant(word.clone()),
            _ => <Text as Arg<M>>::prepare(arg, site, loader, module)?,
        };
        let Some(text) = format.constant() else { return Ok(PreparedSocket::Computed(format)) };
        let text = String::from_utf8_lossy(text).into_owned();
        match host::vars::socket::find(&loader.globals.sockets, text.as_bytes()) {
            Some(socket) => Ok(PreparedSocket::Known(socket)),
            None => {
                let error = Diagnostic::error(
                    arg.map_or(site, |a| a.loc),
                    format!("this server does not listen on {text}"),
                );
                let all: Vec<String> = loader
                    .globals
                    .sockets
                    .iter()
                    .map(|s| String::from_utf8_lossy(&host::vars::socket::describe(s)).into_owned())
                    .collect();
                Err(error.hint(format!("it listens on {}", all.join(", "))))
            }
        }
    }

    fn eval(prepared: &PreparedSocket, call: &mut Call<'_, M>) -> Result<Socket, i32> {
        Ok(Socket(match prepared {
            PreparedSocket::Known(socket) => Some(*socket),
            PreparedSocket::Computed(format) => {
                let text = format.text(call.ctx);
                host::vars::socket::find(&call.ctx.core.shared.sockets, &text)
            }
        }))
    }
}
