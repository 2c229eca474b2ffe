//! Routes of the script that run at a moment of the call (`dlg_on_answer`, `dlg_on_timeout`, `dlg_on_hangup`).

use super::Dlg;
use super::cell::Text;
use super::context::{self, Change};
use super::link::Link;
use super::table::{self, Key};
use host::arg::{RouteName, route_name};
use host::ctx::After;
use host::load::Loader;
use host::{Arg, Call, Ctx};
use script::ast::{self, RouteKind};
use script::{Diagnostic, Loc};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Answer,
    Timeout,
    Hangup,
}

/// The name of a `route[...]` that exists.
pub struct Name(pub bytes::Bytes);

impl Arg<Dlg> for Name {
    type Prepared = RouteName;
    const WHAT: &'static str = "the name of a route";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Dlg>,
    ) -> Result<RouteName, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "the name of a route is missing here"))?;
        route_name(host::arg::ROUTE, arg, loader)
    }

    fn eval(name: &RouteName, call: &mut Call<'_, Dlg>) -> Result<Name, i32> {
        let route = name.find(RouteKind::Request, call.ctx).ok_or(-1)?;
        Ok(Name(call.shared().program().route_name(route)))
    }
}

/// Arms a route of the current dialog, or with `None` disarms it.
pub fn arm(call: &mut Call<Dlg>, moment: Moment, route: Option<Name>) -> i32 {
    let module = call.module.clone();
    let name = route.map(|name| name.0[..].into());
    if context::change(call.ctx, &module, Change::Route(moment, name)) { 1 } else { -1 }
}

/// Runs the route of a moment in the context of the dialog, then `then`; at once when there is none. It may wait.
pub fn run(ctx: &mut Ctx, key: Key, moment: Moment, then: impl FnOnce(&mut Ctx) + 'static) {
    let name: Option<Text> = table::of(ctx).get(key).and_then(|dialog| match moment {
        Moment::Answer => dialog.routes.answer.clone(),
        Moment::Timeout => dialog.routes.timeout.clone(),
        Moment::Hangup => dialog.routes.hangup.clone(),
    });
    let program = ctx.shared().program();
    let route = name.as_ref().and_then(|name| program.route(RouteKind::Request, Some(name)));
    let Some(route) = route else {
        if let Some(name) = name {
            host::warn!("dialog", "route[{}] is no more: not run", String::from_utf8_lossy(&name));
        }
        return then(ctx);
    };
    // An event's route: what it waits for belongs to no transaction.
    let mut state = host::worker::detached_state(ctx, route, RouteKind::Event);
    state.ext.set(Link { key: Some(key), ..Link::default() });
    state.after = After::Then(Box::new(move |ctx, _, _| then(ctx)));
    ctx.run(state);
}
