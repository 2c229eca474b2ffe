//! Events that scripts raise and subscribe others to.

use super::Core;
use bytes::Bytes;
use host::arg::AnyVar;
use host::events::{EventName, EventParams, raise};
use host::registrar::Since;
use host::{Call, Ctx, Int, Registrar, Routes, Text};
use script::Value;

/// Values of one event; further ones are left out.
const MAX_PARAMS: i32 = 1_000;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    m.function_of(
        Since::V4,
        "raise_event",
        all,
        |call: &mut Call<Core>, name: EventName, attrs: Option<AnyVar>, values: Option<AnyVar>| {
            raise_with(call.ctx, name.0, attrs, values)
        },
    );
    // 2.x: a lone list holds the values.
    m.function_of(Since::V21, "raise_event", all, |call: &mut Call<Core>, name: EventName| {
        raise_with(call.ctx, name.0, None, None)
    });
    m.function_of(
        Since::V21,
        "raise_event",
        all,
        |call: &mut Call<Core>, name: EventName, values: AnyVar| {
            raise_with(call.ctx, name.0, None, Some(values))
        },
    );
    m.function_of(
        Since::V21,
        "raise_event",
        all,
        |call: &mut Call<Core>, name: EventName, attrs: AnyVar, values: AnyVar| {
            raise_with(call.ctx, name.0, Some(attrs), Some(values))
        },
    );
    m.function("subscribe_event", all, subscribe_event);
    m.function_of(Since::V21, "fetch_event_params", all, fetch_event_params);
}

fn list(ctx: &mut Ctx, var: &AnyVar) -> Vec<Value> {
    let values = (0..MAX_PARAMS).map(|i| var.0.get_at(ctx, i));
    values.take_while(|v| !v.is_null()).collect()
}

/// 1 raised (or nobody listens), -1 when there are fewer names than values.
fn raise_with(ctx: &mut Ctx, name: Bytes, attrs: Option<AnyVar>, values: Option<AnyVar>) -> i32 {
    if !ctx.shared().events().wanted(&name) {
        return 1;
    }
    let values = values.map(|v| list(ctx, &v)).unwrap_or_default();
    let names = match attrs {
        None => vec![Bytes::new(); values.len()],
        Some(attrs) => list(ctx, &attrs).iter().filter_map(Value::text).collect(),
    };
    if names.len() < values.len() {
        host::error!("core", "raise_event: a value has no name");
        return -1;
    }
    let params: EventParams = names.into_iter().zip(values).collect();
    raise(ctx, name, params);
    1
}

/// subscribe_event(event, socket, [seconds]): 1 subscribed, -1 not.
fn subscribe_event(call: &mut Call<Core>, event: EventName, socket: Text, expires: Option<Int>) -> i32 {
    let now_ms = call.core.wall_us / 1000;
    let seconds = expires.and_then(|s| u64::try_from(s.0).ok()).filter(|s| *s > 0);
    let expires_ms = seconds.map(|s| now_ms.saturating_add(s.saturating_mul(1000)));
    match call.shared().events().subscribe(event.0.clone(), &socket.str(), expires_ms, now_ms) {
        Ok(()) => 1,
        Err(error) => {
            host::error!(
                "core",
                "cannot subscribe {} to {}: {error}",
                socket.str(),
                String::from_utf8_lossy(&event.0)
            );
            -1
        }
    }
}

/// fetch_event_params("name=$var(a);$var(b)"): values of the event that this route runs for, by name
/// or by place.
fn fetch_event_params(call: &mut Call<Core>, wanted: Fetched) -> i32 {
    let Some(params) = call.ctx.state.ext.find::<EventParams>().cloned() else { return -1 };
    let mut place = 0;
    for (name, var) in wanted.0.iter() {
        let value = match name {
            Some(name) => params.find(name),
            None => {
                place += 1;
                params.0.get(place - 1).map(|(_, value)| value.clone())
            }
        };
        if let Some(value) = value {
            var.set(call.ctx, script::ast::AssignOp::Set, value);
        }
    }
    1
}

/// One value of an event: its name (else its place counts) and the variable it goes to.
type Wanted = (Option<Bytes>, host::Var);

/// What `fetch_event_params` is asked for.
#[derive(Clone)]
struct Fetched(std::sync::Arc<[Wanted]>);

impl host::Arg<Core> for Fetched {
    type Prepared = std::sync::Arc<[Wanted]>;
    const WHAT: &'static str = "names and variables: \"name=$var(a);$var(b)\"";

    fn prepare(
        arg: Option<&script::ast::Arg>,
        site: script::Loc,
        loader: &mut host::Loader,
        module: &std::sync::Arc<Core>,
    ) -> Result<Self::Prepared, script::Diagnostic> {
        let text = <host::Word as host::Arg<Core>>::prepare(arg, site, loader, module)?;
        let mut wanted = Vec::new();
        for part in text.split(|b| *b == b';').map(|p| text.slice_ref(p.trim_ascii())) {
            if part.is_empty() {
                continue;
            }
            let equals = memchr::memchr(b'=', &part).filter(|at| !part[..*at].contains(&b'$'));
            let (name, var) = match equals {
                Some(at) => (Some(part.slice_ref(part[..at].trim_ascii())), part.slice(at + 1..)),
                None => (None, part),
            };
            let spec = script::parse_variable(&var, arg.map_or(site, |a| a.loc))?;
            wanted.push((name, loader.target_var(&spec)?));
        }
        Ok(wanted.into())
    }

    fn eval(prepared: &Self::Prepared, _: &mut Call<'_, Core>) -> Result<Fetched, i32> {
        Ok(Fetched(prepared.clone()))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use script::ast::Dialect;

    #[test]
    fn nobody_listens() {
        let ran = testing::run("", r#"raise_event("E_X"); $avp(rc) = $rc;"#, Dialect::V4);
        assert_eq!(ran.avps("rc"), ["1"]);
        let body = r#"subscribe_event("E_X", "nothing:127.0.0.1:9"); $avp(rc) = $rc;"#;
        assert_eq!(testing::run("", body, Dialect::V4).avps("rc"), ["-1"]);
    }
}
