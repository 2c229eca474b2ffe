//! `cache_*`: key-value stores from scripts, whatever engine is behind them.

use super::Core;
use bytes::Bytes;
use host::arg::{Arg, format_of};
use host::cachedb::{Cache, CacheError, RawRows};
use host::mi::{MiAnswer, MiError, MiParams};
use host::var::VarKind;
use host::{Call, Ctx, Format, Int, Loader, OutVar, OutVars, Outcome, Registrar, Routes, Text, Traced};
use script::ast::{self, AssignOp};
use script::{Diagnostic, Loc};
use serde_json::json;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    m.function("cache_store", Routes::ALL, store);
    m.function("cache_fetch", Routes::ALL, fetch);
    m.function("cache_remove", Routes::ALL, remove);
    m.function("cache_add", Routes::ALL, add);
    m.function("cache_sub", Routes::ALL, sub);
    m.function("cache_counter_fetch", Routes::ALL, counter_fetch);
    m.function("cache_raw_query", Routes::ALL, raw_query);
    m.command_late("cache:store cache_store", "stores a value", mi_store).takes("system attr value [expire]");
    m.command_late("cache:fetch cache_fetch", "reads a stored value", mi_fetch).takes("system attr");
    m.command_late("cache:remove cache_remove", "removes a stored value", mi_remove).takes("system attr");
}

/// Where a script stores: "local", "redis:group1". A name that is constant is looked up at load.
struct Storage(Cache);

enum Place {
    Known(Cache),
    Unknown(Bytes),
    Late(Format),
}

impl Arg<Core> for Storage {
    type Prepared = PlaceOf;
    const WHAT: &'static str = "the name of a store";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<Core>,
    ) -> Result<PlaceOf, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: the store"))?;
        let format = format_of(arg, loader)?;
        let Some(name) = format.constant().cloned() else { return Ok(PlaceOf(Place::Late(format))) };
        if let Some(cache) = loader.caches().named.find(&name) {
            return Ok(PlaceOf(Place::Known(cache.clone())));
        }
        let text = String::from_utf8_lossy(&name).into_owned();
        let warning = Diagnostic::warning(arg.loc, format!("there is no store `{text}`"));
        let module = text.split(':').next().unwrap_or_default();
        let named = loader.caches().named.clone();
        let known: Vec<&str> = named.names().collect();
        let hint = match script::nearest(&text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if loader.is_loaded(&format!("cachedb_{module}")) => {
                format!("a cachedb_url of cachedb_{module} gives it its name")
            }
            None => format!("loadmodule \"cachedb_{module}.so\", and its cachedb_url"),
        };
        loader.diagnostics.push(warning.hint(hint));
        Ok(PlaceOf(Place::Unknown(name)))
    }

    fn eval(place: &PlaceOf, call: &mut Call<'_, Core>) -> Result<Storage, i32> {
        let unknown = |name: &[u8]| {
            host::error!("core", "there is no store `{}`", String::from_utf8_lossy(name));
            -1
        };
        match &place.0 {
            Place::Known(cache) => Ok(Storage(cache.clone())),
            Place::Unknown(name) => Err(unknown(name)),
            Place::Late(format) => {
                let name = format.text(call.ctx);
                call.shared().caches().find(&name).cloned().map(Storage).ok_or_else(|| unknown(&name))
            }
        }
    }
}

/// Keeps `Place` out of the public signature of `Arg`.
struct PlaceOf(Place);

/// Says what went wrong, at the level of the outage: engines log that themselves.
fn failed(ctx: &mut Ctx, what: &str, cache: &Cache, error: &CacheError) -> i32 {
    match error {
        CacheError::Down(_) | CacheError::TimedOut => {
            host::debug!("core", "{what} {}: {error}", cache.url().name())
        }
        _ => host::complain!(ctx, "core", "{what} {}: {error}", cache.url().name()),
    }
    -1
}

fn empty(what: &str) -> Outcome {
    host::error!("core", "{what}: the attribute is empty");
    Outcome::Done(-1)
}

/// Seconds as a script writes them; 0 and less is never.
fn lifetime(seconds: Option<Int>) -> u32 {
    seconds.map_or(0, |s| s.0.clamp(0, i64::from(u32::MAX)) as u32)
}

/// cache_store(store, attribute, value, [seconds])
fn store(call: &mut Call<Core>, at: Storage, key: Text, value: Text, seconds: Option<Int>) -> Outcome {
    if key.is_empty() {
        return empty("cache_store");
    }
    let (cache, detail) = (at.0.clone(), key.0.clone());
    let operation = move |s: &dyn host::cachedb::Store| s.store(key.0, value.0, lifetime(seconds));
    at.0.suspend(call.ctx, "cache_store", detail, operation, move |ctx, done| match done {
        Ok(()) => 1,
        Err(error) => failed(ctx, "cache_store", &cache, &error),
    })
}

/// cache_fetch(store, attribute, variable): 1, -2 when there is none, -1 on errors.
fn fetch(call: &mut Call<Core>, at: Storage, key: Text, out: OutVar) -> Outcome {
    if key.is_empty() {
        return empty("cache_fetch");
    }
    let (cache, detail) = (at.0.clone(), key.0.clone());
    at.0.suspend(
        call.ctx,
        "cache_fetch",
        detail,
        move |s| s.fetch(key.0),
        move |ctx, found| match found {
            Ok(Some(value)) => {
                if out.set(ctx, value) {
                    1
                } else {
                    -1
                }
            }
            Ok(None) => -2,
            Err(error) => failed(ctx, "cache_fetch", &cache, &error),
        },
    )
}

/// cache_remove(store, attribute): false only when the store is unknown or fails.
fn remove(call: &mut Call<Core>, at: Storage, key: Text) -> Outcome {
    if key.is_empty() {
        return empty("cache_remove");
    }
    let (cache, detail) = (at.0.clone(), key.0.clone());
    at.0.suspend(
        call.ctx,
        "cache_remove",
        detail,
        move |s| s.remove(key.0),
        move |ctx, done| match done {
            Ok(()) => 1,
            Err(error) => failed(ctx, "cache_remove", &cache, &error),
        },
    )
}

/// cache_add(store, attribute, increment, seconds, [variable])
fn add(call: &mut Call<Core>, at: Storage, key: Text, by: Int, seconds: Int, out: Option<OutVar>) -> Outcome {
    change(call, "cache_add", at, key, by.0, lifetime(Some(seconds)), out)
}

/// cache_sub(store, attribute, decrement, seconds, [variable])
fn sub(call: &mut Call<Core>, at: Storage, key: Text, by: Int, seconds: Int, out: Option<OutVar>) -> Outcome {
    change(call, "cache_sub", at, key, by.0.wrapping_neg(), lifetime(Some(seconds)), out)
}

fn change(
    call: &mut Call<Core>,
    what: &'static str,
    at: Storage,
    key: Text,
    by: i64,
    seconds: u32,
    out: Option<OutVar>,
) -> Outcome {
    if key.is_empty() {
        return empty(what);
    }
    let (cache, detail) = (at.0.clone(), key.0.clone());
    at.0.suspend(
        call.ctx,
        what,
        detail,
        move |s| s.add(key.0, by, seconds),
        move |ctx, sum| match sum {
            Ok(sum) => set_number(ctx, out.as_ref(), sum),
            Err(error) => failed(ctx, what, &cache, &error),
        },
    )
}

fn set_number(ctx: &mut Ctx, out: Option<&OutVar>, number: i64) -> i32 {
    match out {
        Some(out) if !out.set(ctx, number) => -1,
        _ => 1,
    }
}

/// cache_counter_fetch(store, attribute, variable): 1, -2 when there is none, -3 when it is no number.
fn counter_fetch(call: &mut Call<Core>, at: Storage, key: Text, out: OutVar) -> Outcome {
    if key.is_empty() {
        return empty("cache_counter_fetch");
    }
    let (cache, detail) = (at.0.clone(), key.0.clone());
    let what = "cache_counter_fetch";
    at.0.suspend(
        call.ctx,
        what,
        detail,
        move |s| s.counter(key.0),
        move |ctx, found| match found {
            Ok(Some(number)) => set_number(ctx, Some(&out), number),
            Ok(None) => -2,
            Err(CacheError::NotANumber) => -3,
            Err(error) => failed(ctx, what, &cache, &error),
        },
    )
}

/// cache_raw_query(store, query, [AVPs]): 1, -2 when there is nothing, -1 on errors. Several rows
/// stack up so that index 0 is the first one.
fn raw_query(call: &mut Call<Core>, at: Storage, query: Traced, out: Option<OutVars>) -> Outcome {
    if query.text.is_empty() {
        return empty("cache_raw_query");
    }
    let (cache, detail) = (at.0.clone(), query.text.clone());
    let what = "cache_raw_query";
    let columns = out.as_ref().map_or(0, |list| list.0.len());
    at.0.suspend(
        call.ctx,
        what,
        detail,
        move |s| s.raw(query, columns),
        move |ctx, rows| match rows {
            Ok(None) => -2,
            Ok(Some(rows)) => {
                if let Some(out) = &out {
                    into_avps(ctx, &rows, out);
                }
                1
            }
            Err(error) => failed(ctx, what, &cache, &error),
        },
    )
}

fn into_avps(ctx: &mut Ctx, rows: &RawRows, out: &OutVars) {
    for row in rows.iter().rev() {
        for (var, value) in out.0.iter().zip(row) {
            match var.kind {
                VarKind::Avp(name) => ctx.state.avps.borrow_mut().add(name, value.clone()),
                _ => drop(var.set(ctx, AssignOp::Set, value.clone())),
            }
        }
    }
}

/// What a management command works on.
fn mi_target(call: &Call<Core>, what: &str, params: &MiParams) -> Result<(Cache, Bytes), MiError> {
    let (system, attr) = (params.need("system", 0)?, params.need("attr", 1)?);
    if system.is_empty() || attr.is_empty() {
        return Err(MiError::params("system and attr must not be empty"));
    }
    let cache = call.shared().caches().find(system.as_bytes()).cloned();
    Ok((cache.ok_or_else(|| MiError::new(500, format!("Cache {what} command failed")))?, Bytes::from(attr)))
}

fn mi_store(call: &mut Call<Core>, params: &MiParams, answer: MiAnswer) {
    let wanted = mi_target(call, "store", params).and_then(|target| {
        let value = params.need("value", 2)?;
        let seconds = params.int_in("expire", 3, 0..=u32::MAX.into())?.unwrap_or(0) as u32;
        Ok((target, Bytes::from(value), seconds))
    });
    let ((cache, key), value, seconds) = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return answer.give(Err(error)),
    };
    let operation = move |s: &dyn host::cachedb::Store| s.store(key, value, seconds);
    cache.spawn(call.ctx, "cache_store", operation, |_, done| {
        answer.give(match done {
            Ok(()) => Ok(json!("OK")),
            Err(error) => Err(MiError::new(500, format!("Cache store command failed: {error}"))),
        })
    });
}

fn mi_fetch(call: &mut Call<Core>, params: &MiParams, answer: MiAnswer) {
    let (cache, key) = match mi_target(call, "fetch", params) {
        Ok(target) => target,
        Err(error) => return answer.give(Err(error)),
    };
    let name = String::from_utf8_lossy(&key).into_owned();
    cache.spawn(
        call.ctx,
        "cache_fetch",
        move |s| s.fetch(key),
        move |_, found| {
            answer.give(match found {
                Ok(Some(value)) => Ok(json!({"key": name, "value": String::from_utf8_lossy(&value)})),
                Ok(None) => Err(MiError::new(400, "Value not found")),
                Err(error) => Err(MiError::new(500, format!("Cache fetch command failed: {error}"))),
            })
        },
    );
}

fn mi_remove(call: &mut Call<Core>, params: &MiParams, answer: MiAnswer) {
    let (cache, key) = match mi_target(call, "remove", params) {
        Ok(target) => target,
        Err(error) => return answer.give(Err(error)),
    };
    cache.spawn(
        call.ctx,
        "cache_remove",
        move |s| s.remove(key),
        |_, done| {
            answer.give(match done {
                Ok(()) => Ok(json!("OK")),
                Err(error) => Err(MiError::new(500, format!("Cache remove command failed: {error}"))),
            })
        },
    );
}
