//! Arguments of script functions: checked and prepared at load, evaluated at each call.

use crate::call::Call;
use crate::format::Format;
use crate::language::loader::Loader;
use crate::var::Var;
use bytes::Bytes;
use script::ast::{self, ArgKind, Dialect};
use script::{Diagnostic, Loc, Traced, Value};
use std::ops::Deref;
use std::sync::Arc;

/// A type that a script function takes. `M` is the module, for arguments that look something up in it.
pub trait Arg<M>: Sized {
    type Prepared: Send + Sync + 'static;
    /// May be left out.
    const OPTIONAL: bool = false;
    /// False for what a function is told beside the arguments that the script writes; these come last.
    const WRITTEN: bool = true;
    /// For messages: "a string", "an integer", "a variable to write".
    const WHAT: &'static str;
    /// `arg`: `None` when it was left out (only for OPTIONAL ones).
    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic>;
    /// `Err(rc)`: the function is not called and returns rc (a NULL where a value is needed: -1).
    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, M>) -> Result<Self, i32>;
}

/// Whether the call stands by itself or in `async(...)` or `launch(...)`. No parameter: it comes last in a function's list,
/// where a script has nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HowCalled {
    pub waits: script::Waits,
    /// What `async(..., N)` allows, milliseconds.
    pub timeout_ms: Option<u64>,
}

impl<M> Arg<M> for HowCalled {
    type Prepared = HowCalled;
    const OPTIONAL: bool = true;
    const WRITTEN: bool = false;
    const WHAT: &'static str = "nothing";

    fn prepare(
        arg: Option<&ast::Arg>,
        _: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<HowCalled, Diagnostic> {
        match arg {
            None => Ok(loader.how_called),
            Some(arg) => Err(Diagnostic::error(arg.loc, "there are too many parameters".to_owned())),
        }
    }

    fn eval(how: &HowCalled, _: &mut Call<'_, M>) -> Result<HowCalled, i32> {
        Ok(*how)
    }
}

/// A text, variables inside expanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub Bytes);

impl Deref for Text {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl Text {
    pub fn str(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

fn missing(site: Loc, what: &str) -> Diagnostic {
    Diagnostic::error(site, format!("a parameter is missing here: {what}"))
}

fn wrong(arg: &ast::Arg, what: &str) -> Diagnostic {
    Diagnostic::error(arg.loc, format!("this must be {what}"))
}

/// Since 3.0 a string stands in quotes, or in a variable.
fn quoted(arg: &ast::Arg, loader: &Loader) -> Result<(), Diagnostic> {
    let text = match (&arg.kind, loader.dialect) {
        (ArgKind::Int(n), Dialect::V4) => n.to_string(),
        (ArgKind::Word(word), Dialect::V4) => String::from_utf8_lossy(word).into_owned(),
        _ => return Ok(()),
    };
    Err(wrong(arg, "a string").hint(format!("in quotes: \"{text}\"")))
}

/// Any argument as a prepared text.
pub fn format_of(arg: &ast::Arg, loader: &mut Loader) -> Result<Format, Diagnostic> {
    match &arg.kind {
        ArgKind::Int(n) => Ok(Format::Constant(Bytes::from(n.to_string()))),
        ArgKind::Text(t) => Format::new(t, arg.loc, loader),
        ArgKind::Word(t) => Ok(Format::Constant(t.clone())),
        ArgKind::Var(spec) => Ok(Format::Var(Box::new(loader.var(spec)?))),
        ArgKind::Empty | ArgKind::Expr(_) => Err(wrong(arg, "a string")),
    }
}

/// A text argument, read in one of several ways; all of them are prepared alike.
pub trait TextArg: Sized {
    /// The text of a variable that stands alone; `None` when it is NULL.
    fn of_value(value: &Value) -> Option<Self>;
    /// The text of anything else.
    fn of_format(format: &Format, ctx: &mut crate::ctx::Ctx) -> Self;
}

impl<M, T: TextArg> Arg<M> for T {
    type Prepared = Format;
    const WHAT: &'static str = "a string";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "a string"))?;
        quoted(arg, loader)?;
        let format = format_of(arg, loader)?;
        // In quotes it is a text, which is never NULL, also when nothing but a variable is in it.
        let is_text = matches!(arg.kind, ArgKind::Text(_)) && loader.dialect == Dialect::V4;
        Ok(if is_text { format.printed() } else { format })
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<T, i32> {
        match format {
            Format::Var(var) => T::of_value(&var.get(call.ctx)).ok_or(-1),
            _ => Ok(T::of_format(format, call.ctx)),
        }
    }
}

impl TextArg for Text {
    fn of_value(value: &Value) -> Option<Text> {
        value.text().map(Text)
    }
    fn of_format(format: &Format, ctx: &mut crate::ctx::Ctx) -> Text {
        Text(format.text(ctx))
    }
}

/// A text that goes into the head of a message or of another protocol (a header, a reason, a URI, a parameter):
/// line ends that the script wrote stay, those of values that came in become blanks.
#[derive(Clone, Debug, PartialEq)]
pub struct Head(pub Bytes);

impl Deref for Head {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl TextArg for Head {
    fn of_value(value: &Value) -> Option<Head> {
        value.head().map(Head)
    }
    fn of_format(format: &Format, ctx: &mut crate::ctx::Ctx) -> Head {
        Head(format.head(ctx))
    }
}

/// Whole header lines: as [`Head`], and what came in as a line stays one.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadLines(pub Bytes);

impl HeadLines {
    fn new(head: Bytes, text: &[u8]) -> HeadLines {
        if head.ends_with(b"\n") || !text.ends_with(b"\n") {
            return HeadLines(head);
        }
        HeadLines([head.trim_ascii_end(), b"\r\n"].concat().into())
    }
}

impl TextArg for HeadLines {
    fn of_value(value: &Value) -> Option<HeadLines> {
        Some(HeadLines::new(value.head()?, &value.to_text()))
    }
    fn of_format(format: &Format, ctx: &mut crate::ctx::Ctx) -> HeadLines {
        HeadLines::new(format.head(ctx), &format.text(ctx))
    }
}

/// A text that somebody reads as a language of its own (SQL, a shell, JSON): with who wrote which part.
impl TextArg for Traced {
    fn of_value(value: &Value) -> Option<Traced> {
        Traced::of(value)
    }
    fn of_format(format: &Format, ctx: &mut crate::ctx::Ctx) -> Traced {
        format.traced(ctx)
    }
}

/// A constant text, never expanded (names, flags letters known at load).
#[derive(Clone, Debug, PartialEq)]
pub struct Word(pub Bytes);

impl<M> Arg<M> for Word {
    type Prepared = Bytes;
    const WHAT: &'static str = "a constant string";

    fn prepare(arg: Option<&ast::Arg>, site: Loc, _: &mut Loader, _: &Arc<M>) -> Result<Bytes, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "a constant string"))?;
        match &arg.kind {
            ArgKind::Text(t) | ArgKind::Word(t) => Ok(t.clone()),
            ArgKind::Int(n) => Ok(Bytes::from(n.to_string())),
            _ => Err(wrong(arg, "a constant string")),
        }
    }

    fn eval(text: &Bytes, _: &mut Call<'_, M>) -> Result<Word, i32> {
        Ok(Word(text.clone()))
    }
}

/// A whole number: literal, variable, or a text that holds one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int(pub i64);

impl<M> Arg<M> for Int {
    type Prepared = Result<i64, Format>;
    const WHAT: &'static str = "an integer";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "an integer"))?;
        if let ArgKind::Int(n) = arg.kind {
            return Ok(Ok(n));
        }
        if let (ArgKind::Text(text), Dialect::V4) = (&arg.kind, loader.dialect) {
            let text = String::from_utf8_lossy(text).into_owned();
            let error = wrong(arg, "an integer");
            return Err(match parse_int(text.as_bytes()) {
                Some(number) => error.hint(format!("without quotes: {number}")),
                None => error,
            });
        }
        let format = format_of(arg, loader)?;
        match format.constant() {
            Some(text) => parse_int(text).map(Ok).ok_or_else(|| wrong(arg, "an integer")),
            None => Ok(Err(format)),
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, M>) -> Result<Int, i32> {
        match prepared {
            Ok(n) => Ok(Int(*n)),
            Err(format) => {
                let value = format.value(call.ctx);
                // Since 3.0 a text is no number, whatever stands in it.
                let read = || match call.ctx.shared().dialect {
                    Dialect::V4 => None,
                    _ => parse_int(&value.text()?),
                };
                value.int().or_else(read).map(Int).ok_or(-1)
            }
        }
    }
}

/// The status of a reply to be sent: 100 to 699; constants are checked at load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplyCode(pub u16);

impl ReplyCode {
    fn new(n: i64) -> Option<ReplyCode> {
        u16::try_from(n).ok().filter(|n| (100..700).contains(n)).map(ReplyCode)
    }
}

impl<M> Arg<M> for ReplyCode {
    type Prepared = Result<i64, Format>;
    const WHAT: &'static str = "the code of a reply";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let prepared = <Int as Arg<M>>::prepare(arg, site, loader, module)?;
        match (&prepared, arg) {
            (Ok(n), Some(arg)) if ReplyCode::new(*n).is_none() => {
                Err(Diagnostic::error(arg.loc, "the code of a reply goes from 100 to 699"))
            }
            _ => Ok(prepared),
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, M>) -> Result<ReplyCode, i32> {
        let n = Int::eval(prepared, call)?.0;
        ReplyCode::new(n).ok_or_else(|| {
            crate::complain!(call.ctx, "core", "{n} is no code of a reply: they go from 100 to 699");
            -1
        })
    }
}

/// Decimal or 0x hexadecimal, signed.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Any value: a variable keeps its type and NULL.
impl<M> Arg<M> for Value {
    type Prepared = Format;
    const WHAT: &'static str = "a value";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        format_of(arg.ok_or_else(|| missing(site, "a value"))?, loader)
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<Value, i32> {
        Ok(format.value(call.ctx))
    }
}

/// A variable that the function writes.
#[derive(Clone, Debug)]
pub struct OutVar(pub Arc<Var>);

impl OutVar {
    /// Assigns; false when the variable refused the value.
    pub fn set(&self, ctx: &mut crate::ctx::Ctx, value: impl Into<Value>) -> bool {
        self.0.set(ctx, ast::AssignOp::Set, value.into())
    }
}

fn out_var(arg: &ast::Arg, loader: &mut Loader) -> Result<Arc<Var>, Diagnostic> {
    match &arg.kind {
        ArgKind::Var(spec) => Ok(Arc::new(loader.target_var(spec)?)),
        ArgKind::Text(t) => {
            let spec = script::parse_variable(t, arg.loc)?;
            Ok(Arc::new(loader.target_var(&spec)?))
        }
        _ => Err(wrong(arg, "a variable that can be written")),
    }
}

impl<M> Arg<M> for OutVar {
    type Prepared = Arc<Var>;
    const WHAT: &'static str = "a variable to write";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Arc<Var>, Diagnostic> {
        out_var(arg.ok_or_else(|| missing(site, "a variable"))?, loader)
    }

    fn eval(var: &Arc<Var>, _: &mut Call<'_, M>) -> Result<OutVar, i32> {
        Ok(OutVar(var.clone()))
    }
}

/// A list of variables to write: `"$avp(a);$avp(b)"`, commas and blanks too.
#[derive(Clone, Debug)]
pub struct OutVars(pub Arc<[Arc<Var>]>);

impl<M> Arg<M> for OutVars {
    type Prepared = Arc<[Arc<Var>]>;
    const WHAT: &'static str = "a list of variables to write";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "a list of variables"))?;
        let ArgKind::Text(text) = &arg.kind else { return Ok([out_var(arg, loader)?].into()) };
        let mut vars = Vec::new();
        for part in text.split(|b| matches!(b, b';' | b',' | b' ')) {
            let part = text.slice_ref(part.trim_ascii());
            if !part.is_empty() {
                let spec = script::parse_variable(&part, arg.loc)?;
                vars.push(Arc::new(loader.target_var(&spec)?));
            }
        }
        Ok(vars.into())
    }

    fn eval(vars: &Self::Prepared, _: &mut Call<'_, M>) -> Result<OutVars, i32> {
        Ok(OutVars(vars.clone()))
    }
}

/// A variable that is read or written by name later (`Arc` because finishers outlive the call).
#[derive(Clone, Debug)]
pub struct AnyVar(pub Arc<Var>);

impl<M> Arg<M> for AnyVar {
    type Prepared = Arc<Var>;
    const WHAT: &'static str = "a variable";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Arc<Var>, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "a variable"))?;
        match &arg.kind {
            ArgKind::Var(spec) => Ok(Arc::new(loader.var(spec)?)),
            ArgKind::Text(t) => {
                let spec = script::parse_variable(t, arg.loc)?;
                Ok(Arc::new(loader.var(&spec)?))
            }
            _ => Err(wrong(arg, "a variable")),
        }
    }

    fn eval(var: &Arc<Var>, _: &mut Call<'_, M>) -> Result<AnyVar, i32> {
        Ok(AnyVar(var.clone()))
    }
}

/// The name of a route of a given kind (`t_on_failure("x")`): a misspelt one is a load error. In 4.x it may hold variables:
/// a name that no route has then fails the call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteArg<const KIND: u8>(pub script::RouteId);

pub const BRANCH: u8 = ast::RouteKind::Branch as u8;
pub const FAILURE: u8 = ast::RouteKind::Failure as u8;
pub const ON_REPLY: u8 = ast::RouteKind::OnReply as u8;
pub const ROUTE: u8 = ast::RouteKind::Request as u8;

/// A name of a route.
#[derive(Debug)]
pub enum RouteName {
    Known(script::RouteId),
    /// With variables.
    Late(Format),
}

/// Names of routes of a kind (as u8 of `RouteKind`), which `t_on_failure` and its like take.
pub fn route_name(kind: u8, arg: &ast::Arg, loader: &mut Loader) -> Result<RouteName, Diagnostic> {
    let late = loader.dialect == Dialect::V4 && !matches!(arg.kind, ArgKind::Int(_) | ArgKind::Word(_));
    let name = match &arg.kind {
        ArgKind::Text(_) | ArgKind::Var(_) if late => match format_of(arg, loader)? {
            Format::Constant(name) => name,
            late => return Ok(RouteName::Late(late)),
        },
        ArgKind::Text(t) | ArgKind::Word(t) => t.clone(),
        ArgKind::Int(n) => Bytes::from(n.to_string()),
        _ => return Err(wrong(arg, "the name of a route")),
    };
    loader.route_named(kind, &name, arg.loc).map(RouteName::Known)
}

impl RouteName {
    /// The route of the program in use.
    pub fn find(&self, kind: ast::RouteKind, ctx: &mut crate::ctx::Ctx) -> Option<script::RouteId> {
        let name = match self {
            RouteName::Known(id) => return Some(*id),
            RouteName::Late(format) => format.text(ctx),
        };
        let found = Some(&name).filter(|name| !name.is_empty());
        let found = found.and_then(|name| ctx.shared().program().route(kind, Some(name)));
        if found.is_none() {
            crate::complain!(ctx, "core", "there is no such route: {}", String::from_utf8_lossy(&name));
        }
        found
    }
}

const KINDS: [ast::RouteKind; 4] =
    [ast::RouteKind::Branch, ast::RouteKind::Failure, ast::RouteKind::OnReply, ast::RouteKind::Request];

impl<M, const KIND: u8> Arg<M> for RouteArg<KIND> {
    type Prepared = RouteName;
    const WHAT: &'static str = "the name of a route";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<RouteName, Diagnostic> {
        let arg = arg.ok_or_else(|| missing(site, "the name of a route"))?;
        route_name(KIND, arg, loader)
    }

    fn eval(name: &RouteName, call: &mut Call<'_, M>) -> Result<Self, i32> {
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == KIND).ok_or(-1)?;
        name.find(kind, call.ctx).map(RouteArg).ok_or(-1)
    }
}

/// Left out, or a variable that is NULL: `None`.
/// The argument, when something stands there.
pub fn given(arg: Option<&ast::Arg>) -> Option<&ast::Arg> {
    arg.filter(|arg| !matches!(arg.kind, ArgKind::Empty))
}

/// What stands where an argument may be left out. Since 3.0 a variable that has no fitting value is no way to leave it out:
/// the function is not called and fails.
#[derive(Debug)]
pub struct Optional<P> {
    given: P,
    dialect: Dialect,
}

impl<M, A: Arg<M>> Arg<M> for Option<A> {
    type Prepared = Option<Optional<A::Prepared>>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = A::WHAT;

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let Some(arg) = given(arg) else { return Ok(None) };
        let dialect = loader.dialect;
        A::prepare(Some(arg), site, loader, module).map(|given| Some(Optional { given, dialect }))
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, M>) -> Result<Self, i32> {
        match prepared {
            None => Ok(None),
            Some(Optional { given, dialect: Dialect::V4 }) => A::eval(given, call).map(Some),
            Some(optional) => Ok(A::eval(&optional.given, call).ok()),
        }
    }
}
