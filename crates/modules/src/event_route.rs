//! event_route: 2.x loads it; event routes are part of the core here. `fetch_event_params()` reads what `$param(name)`
//! does.

use bytes::Bytes;
use host::arg::Arg;
use host::events::EventParams;
use host::load::Loader;
use host::{Call, OutVar, Registrar, Routes, Value};
use script::ast::ArgKind;
use script::{Diagnostic, Loc, ast};
use std::sync::Arc;

#[derive(Default)]
pub struct EventRoute;

pub fn register(m: &mut Registrar<EventRoute>) {
    m.function("fetch_event_params", Routes::EVENT, fetch);
}

/// `[name=]$variable[;...]`: where parameters of the event go; without a name the n-th goes to the n-th.
struct Wanted(Arc<[(Option<Bytes>, OutVar)]>);

impl<M> Arg<M> for Wanted {
    type Prepared = Arc<[(Option<Bytes>, OutVar)]>;
    const WHAT: &'static str = "a list of parameters and variables";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let wrong = || Diagnostic::error(site, "fetch_event_params() takes \"name=$variable;...\"");
        let Some(ast::Arg { kind: ArgKind::Text(text), loc }) = arg else { return Err(wrong()) };
        let mut wanted = Vec::new();
        for part in text.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()) {
            let at = part.iter().position(|b| *b == b'$').ok_or_else(wrong)?;
            let name = part[..at].trim_ascii().strip_suffix(b"=").map(<[u8]>::trim_ascii);
            let name = name.filter(|name| !name.is_empty()).map(|name| text.slice_ref(name));
            let var = loader.target_var(&script::parse_variable(&text.slice_ref(&part[at..]), *loc)?)?;
            wanted.push((name, OutVar(Arc::new(var))));
        }
        Ok(wanted.into())
    }

    fn eval(wanted: &Self::Prepared, _: &mut Call<'_, M>) -> Result<Self, i32> {
        Ok(Wanted(wanted.clone()))
    }
}

/// 1, or -1 when the event lacks one of them.
fn fetch(call: &mut Call<EventRoute>, wanted: Wanted) -> i32 {
    let Some(params) = call.state.ext.find::<EventParams>().cloned() else { return -1 };
    let mut rc = 1;
    for (at, (name, var)) in wanted.0.iter().enumerate() {
        let value = match name {
            Some(name) => params.find(name),
            None => params.0.get(at).map(|(_, value)| value.clone()),
        };
        if !value.is_some_and(|value: Value| var.set(call.ctx, value)) {
            rc = -1;
        }
    }
    rc
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;
    use script::ast::Dialect;
    use serde_json::json;

    #[test]
    fn parameters_by_name_and_by_place() {
        let mut server = Server::new(
            "loadmodule \"event_route.so\"\nloadmodule \"cfgutils.so\"\nroute { }\n\
             startup_route { $avp(k) = \"ip\"; $avp(v) = \"10.0.0.1\"; raise_event(\"E_TEST\", $avp(k), $avp(v)); }\n\
             event_route[E_TEST] {\n\
                 fetch_event_params(\"ip=$avp(ip)\");\n\
                 fetch_event_params(\"$avp(first)\");\n\
                 if (!fetch_event_params(\"nosuch=$avp(x)\")) $shv(seen) = \"\" + $avp(ip) + \"/\" + $avp(first);\n\
             }",
            Dialect::V4,
        );
        server.advance(1);
        let seen = server.manage("shv_get", json!(["seen"])).unwrap().to_string();
        assert!(seen.contains("10.0.0.1/10.0.0.1"), "{seen}");
    }
}
