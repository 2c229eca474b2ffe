//! Looking for dialogs by what they keep: get_dialog_info, get_dialog_vals, get_dialogs_by_val, get_dialogs_by_profile.

use super::cell::{Data, Val};
use super::context::{LIMIT_MS, Name, ask_all};
use super::list::{Detail, Shown};
use super::table;
use super::{Dlg, State};
use host::arg::AnyVar;
use host::{Call, Ctx, Finish, OutVar, Outcome, Suspension, Text, Value};
use script::ast::AssignOp;
use std::sync::Arc;

/// Asks all workers; `finish` gets what they found. With one worker nothing waits.
fn over_all<T: Send + 'static>(
    ctx: &mut Ctx,
    what: &'static str,
    question: impl Fn(&mut Ctx) -> Vec<T> + Clone + Send + 'static,
    finish: impl FnOnce(&mut Ctx, Vec<T>) -> i32 + 'static,
) -> Outcome {
    if ctx.core.workers <= 1 {
        let found = question(ctx);
        return finish(ctx, found).into();
    }
    let answers = ask_all(ctx, move |ctx| Some(question(ctx)));
    Suspension::future(what, async move {
        let found = answers.await.into_iter().flat_map(|(_, list)| list).collect();
        Box::new(move |ctx: &mut Ctx| finish(ctx, found)) as Finish
    })
    .limit(LIMIT_MS, -1)
}

/// What `look` gives for the living dialogs of this worker.
fn collect<T>(ctx: &mut Ctx, look: impl Fn(&Data) -> Option<T>) -> Vec<T> {
    let table = table::of(ctx);
    table.iter().filter(|(_, d)| d.state != State::Ended).filter_map(|(_, d)| look(&d.data)).collect()
}

/// Values become those of a variable, the first with index 0.
fn fill(ctx: &mut Ctx, var: &OutVar, values: Vec<Value>) {
    // Each AVP that is added takes index 0.
    for value in values.into_iter().rev() {
        var.0.set(ctx, AssignOp::Set, value);
    }
}

fn has(d: &Data, name: &[u8], value: &Value) -> bool {
    d.val(name).is_some_and(|v| v.equals(value))
}

/// get_dialog_info(attribute, values, key, value, count): the count, or -1 when no dialog has this value.
pub fn get_dialog_info(
    call: &mut Call<Dlg>,
    attribute: Text,
    out: OutVar,
    key: Text,
    value: AnyVar,
    count: OutVar,
) -> Outcome {
    let wanted = value.0.get(call.ctx).plain();
    let question =
        move |ctx: &mut Ctx| collect(ctx, |d| has(d, &key, &wanted).then(|| d.val(&attribute).cloned()));
    over_all(call.ctx, "get_dialog_info", question, move |ctx, found: Vec<Option<Val>>| {
        let total = found.len() as i32;
        count.set(ctx, i64::from(total));
        let values = found.into_iter().flatten().map(|v| v.value()).collect();
        fill(ctx, &out, values);
        if total > 0 { total } else { -1 }
    })
}

/// get_dialog_vals(names, values, Call-ID): 1, -1 there is no such dialog.
pub fn get_dialog_vals(call: &mut Call<Dlg>, names: OutVar, values: OutVar, call_id: Text) -> Outcome {
    let name = Name::CallId(call_id.0[..].into());
    let question = move |ctx: &mut Ctx| {
        let key = name.find(ctx);
        let dialog = key.and_then(|key| table::of(ctx).get(key)).filter(|d| d.state != State::Ended);
        dialog.map(|d| d.vals.clone()).into_iter().collect()
    };
    over_all(call.ctx, "get_dialog_vals", question, move |ctx, found: Vec<Vec<_>>| {
        let Some(vals) = found.into_iter().next() else { return -1 };
        let text = |t: &[u8]| Value::Str(bytes::Bytes::copy_from_slice(t));
        fill(ctx, &names, vals.iter().map(|(name, _)| text(name)).collect());
        fill(ctx, &values, vals.iter().map(|(_, value)| value.value()).collect());
        1
    })
}

fn as_json(
    call: &mut Call<Dlg>,
    what: &'static str,
    fits: impl Fn(&Data) -> bool + Clone + Send + 'static,
    out: OutVar,
    count: OutVar,
) -> Outcome {
    let module: Arc<Dlg> = call.module.clone();
    let question = move |ctx: &mut Ctx| {
        let shown = Shown::new(ctx, &module);
        collect(ctx, |d| fits(d).then(|| shown.dialog(d, Detail::JsonContext).to_string()))
    };
    over_all(call.ctx, what, question, move |ctx, found: Vec<String>| {
        let total = found.len() as i64;
        count.set(ctx, total);
        fill(ctx, &out, found.into_iter().map(Value::from).collect());
        if total > 0 { 1 } else { -1 }
    })
}

/// get_dialogs_by_val(name, value, out, count)
pub fn get_dialogs_by_val(
    call: &mut Call<Dlg>,
    name: Text,
    value: AnyVar,
    out: OutVar,
    count: OutVar,
) -> Outcome {
    let wanted = value.0.get(call.ctx).plain();
    as_json(call, "get_dialogs_by_val", move |d| has(d, &name, &wanted), out, count)
}

/// get_dialogs_by_profile(profile, [value], out, count)
pub fn get_dialogs_by_profile(
    call: &mut Call<Dlg>,
    profile: Text,
    value: Option<Text>,
    out: OutVar,
    count: OutVar,
) -> Outcome {
    let Some((index, found)) = call.module.profiles.find(&profile) else {
        host::error!("dialog", "there is no profile `{}`", profile.str());
        return (-1).into();
    };
    let value = value.filter(|_| found.has_value).map(|v| v.0);
    let fits = move |d: &Data| d.is_in(index, value.as_deref());
    as_json(call, "get_dialogs_by_profile", fits, out, count)
}
