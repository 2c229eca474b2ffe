//! Arguments that name something of the configuration: what stands in the script is checked when it loads, what a variable
//! holds when the function runs.

use crate::arg::{Arg, Text};
use crate::call::Call;
use crate::language::format::Format;
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{self, ArgKind};
use script::{Diagnostic, Loc};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// What the constant text of an argument has to be.
pub trait Named<M>: 'static {
    /// For messages: "a trace_id".
    const WHAT: &'static str;
    /// The error says what is wrong with it, and the hint what there is.
    fn check(text: &[u8], loader: &mut Loader, module: &M) -> Result<(), Diagnostic>;
}

/// A text that is `N` where it stands in the script. Where it is a variable the function looks itself.
pub struct Checked<N>(pub Bytes, PhantomData<N>);

impl<N> Deref for Checked<N> {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl<N> Checked<N> {
    /// As it is printed.
    pub fn str(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl<M, N: Named<M>> Arg<M> for Checked<N>
where
    Text: Arg<M, Prepared = Format>,
{
    type Prepared = Format;
    const WHAT: &'static str = N::WHAT;

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        let format = <Text as Arg<M>>::prepare(arg, site, loader, module)?;
        let written = arg.filter(|arg| !matches!(arg.kind, ArgKind::Empty));
        if let (Some(text), Some(arg)) = (format.constant(), written) {
            let text = text.clone();
            N::check(&text, loader, module).map_err(|error| Diagnostic { loc: arg.loc, ..error })?;
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<Checked<N>, i32> {
        let Text(text) = <Text as Arg<M>>::eval(format, call)?;
        Ok(Checked(text, PhantomData))
    }
}
