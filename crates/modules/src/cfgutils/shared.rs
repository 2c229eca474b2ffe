//! `$shv(name)`: variables that all workers share; and what `$var`s are at first.

use super::Cfgutils;
use bytes::Bytes;
use host::ctx::Ctx;
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Registrar, Value};
use parking_lot::RwLock;
use script::ast::AssignOp;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Shared variables; their names may be built at run time.
const MAX_VARIABLES: usize = 100_000;

#[derive(Default)]
pub struct SharedVars {
    values: RwLock<BTreeMap<Bytes, Value>>,
    /// `varset` parameters.
    first: Vec<(Bytes, Value)>,
}

pub fn register(m: &mut Registrar<Cfgutils>) {
    m.param_text("shvset", |s, text| {
        let (name, value) = setting(text)?;
        s.shared.values.get_mut().insert(name, value);
        Ok(())
    });
    m.param_text("varset", |s, text| Ok(s.shared.first.push(setting(text)?)));
    m.variable_class("shv", |spec, loader, module| {
        let (name, module) = (Name::new(spec, loader, "$shv(name)")?, module.clone());
        Ok(VarKind::Other(Box::new(Shv { name, module })))
    });
    m.command("cfgutils:shv_set shv_set", "sets a shared variable (type int or str)", shv_set)
        .takes("name type value");
    m.command("cfgutils:shv_get shv_get", "reads shared variables", shv_get).takes("[name]");
}

/// "name=i:1", "name=s:text"
fn setting(text: &str) -> Result<(Bytes, Value), String> {
    let bad = || format!("`{text}` is not name=i:number or name=s:text");
    let (name, value) = text.split_once('=').ok_or_else(bad)?;
    let value = match value.split_once(':') {
        Some(("i", number)) => Value::Int(host::arg::parse_int(number.as_bytes()).ok_or_else(bad)?),
        Some(("s", text)) => Value::from(text.to_string()),
        _ => return Err(bad()),
    };
    Ok((Bytes::copy_from_slice(name.trim().as_bytes()), value))
}

/// Every script begins with these.
pub fn set_initial(module: &Cfgutils, loader: &mut Loader) {
    for (name, value) in &module.shared.first {
        let slot = usize::from(loader.local(name));
        if loader.initial_vars.len() <= slot {
            loader.initial_vars.resize(slot + 1, Value::Null);
        }
        loader.initial_vars[slot] = value.clone();
    }
}

struct Shv {
    name: Name,
    module: Arc<Cfgutils>,
}

impl Variable for Shv {
    /// One that was never set is 0.
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.name.text(ctx) else { return Value::Null };
        self.module.shared.values.read().get(&name).cloned().unwrap_or(Value::Int(0))
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let Some(name) = self.name.text(ctx) else { return false };
        put(&self.module, &name, if value.is_null() { Value::Int(0) } else { value.plain() })
    }

    fn writable(&self) -> bool {
        true
    }
}

fn put(module: &Cfgutils, name: &[u8], value: Value) -> bool {
    // What is kept must not hold on to a whole message.
    let value = match value {
        Value::Str(text) => Value::Str(Bytes::copy_from_slice(&text)),
        other => other,
    };
    let mut values = module.shared.values.write();
    if values.len() >= MAX_VARIABLES && !values.contains_key(name) {
        return false;
    }
    values.insert(Bytes::copy_from_slice(name), value);
    true
}

fn shv_set(call: &mut Call<Cfgutils>, params: &MiParams) -> MiResult {
    let (name, kind, value) = (params.need("name", 0)?, params.need("type", 1)?, params.need("value", 2)?);
    let value = match kind.as_str() {
        "int" => {
            Value::Int(host::arg::parse_int(value.as_bytes()).ok_or_else(|| MiError::params("bad number"))?)
        }
        "str" => Value::from(value),
        _ => return Err(MiError::params("the type is int or str")),
    };
    if put(call.module, name.as_bytes(), value) {
        Ok(json!("OK"))
    } else {
        Err(MiError::new(500, "too many variables"))
    }
}

fn shown(name: Option<&[u8]>, value: &Value) -> Json {
    let (kind, value) = match value {
        Value::Int(n) => ("integer", json!(n)),
        other => ("string", json!(String::from_utf8_lossy(&other.to_text()))),
    };
    let mut shown = json!({"type": kind, "value": value});
    if let Some(name) = name {
        shown["name"] = json!(String::from_utf8_lossy(name));
    }
    shown
}

fn shv_get(call: &mut Call<Cfgutils>, params: &MiParams) -> MiResult {
    let values = call.module.shared.values.read();
    match params.text("name", 0) {
        Some(name) => match values.get(name.as_bytes()) {
            Some(value) => Ok(json!({"VAR": shown(None, value)})),
            None => Err(MiError::new(404, "Not found")),
        },
        None => Ok(json!([values.iter().map(|(name, value)| shown(Some(name), value)).collect::<Vec<_>>()])),
    }
}
