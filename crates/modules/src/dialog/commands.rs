//! Management commands.

use super::cell::{Membership, Val};
use super::context::{self, Change, Name};
use super::list::{Detail, Shown};
use super::profile::Sharing;
use super::table::{self, Key};
use super::{Did, Dlg, State, db, end, sequential, timers};
use bytes::Bytes;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Ctx, Registrar};
use serde_json::{Value as Json, json};

pub fn register(m: &mut Registrar<Dlg>) {
    m.command_each("dialog:list dlg_list", "lists dialogs", join_lists, |call, params| {
        list(call, params, Detail::Plain)
    })
    .takes("[callid] [from_tag] [index] [counter]");
    m.command_each(
        "dialog:list_ctx dlg_list_ctx",
        "lists dialogs with their values and profiles",
        join_lists,
        |call, params| list(call, params, Detail::Context),
    )
    .takes("[callid] [from_tag] [index] [counter]");
    m.command_each("dialog:end_dlg dlg_end_dlg", "ends a call", join_ok, end_dlg)
        .takes("dialog_id [extra_hdrs]");
    m.command_each("dialog:push_var dlg_push_var", "sets a value of dialogs", join_ok, push_var)
        .takes("dlg_val_name dlg_val_value DID...");
    m.command(
        "dialog:profile_get_size profile_get_size",
        "tells how many dialogs are in a profile",
        get_size,
    )
    .takes("profile [value]");
    m.command("dialog:profile_get_values profile_get_values", "lists the values of a profile", get_values)
        .takes("profile");
    m.command_each(
        "dialog:profile_list_dlgs profile_list_dlgs",
        "lists the dialogs of a profile",
        join_lists,
        list_dlgs,
    )
    .takes("profile [value]");
    m.command_each(
        "dialog:profile_end_dlgs profile_end_dlgs",
        "ends the calls of a profile",
        join_ok,
        end_dlgs,
    )
    .takes("profile [value]");
    m.command("dialog:list_all_profiles list_all_profiles", "lists the profiles", list_all_profiles)
        .takes("");
    m.command_each(
        "dialog:set_profile set_dlg_profile",
        "puts a dialog into a profile",
        join_ok,
        set_profile,
    )
    .takes("dlg_id profile [value] [clear_values]");
    m.command_each(
        "dialog:unset_profile unset_dlg_profile",
        "takes a dialog out of a profile",
        join_ok,
        unset_profile,
    )
    .takes("dlg_id profile [value]");
    m.command_late(
        "dialog:send_sequential dlg_send_sequential",
        "sends a request inside a call",
        sequential::send,
    )
    .takes("callid [method] [mode] [body] [headers]");
    m.command_late("dialog:db_sync dlg_db_sync", "takes in dialogs of the database", |call, _, answer| {
        db::sync(call.ctx, &call.module.clone(), answer)
    })
    .takes("");
    m.command_late(
        "dialog:restore_db dlg_restore_db",
        "writes the table of dialogs anew",
        |call, _, answer| db::rewrite(call.ctx, &call.module.clone(), answer),
    )
    .takes("");
    m.command(
        "dialog:cluster_sync dlg_cluster_sync",
        "refused, dialogs are shared through a store",
        |_, _| {
            Err(MiError::new(
                400,
                "dialogs are shared through a store (cachedb_url), there is nothing to sync",
            ))
        },
    )
    .takes("[sharing_tag]");
}

/// "OK", from whichever worker said it.
fn join_ok(_: Vec<Json>) -> Json {
    "OK".into()
}

/// Lists of workers one after the other; a single dialog is the only answer.
fn join_lists(answers: Vec<Json>) -> Json {
    if let Some(one) = answers.iter().find(|a| a.get("Dialog").is_some()) {
        return one.clone();
    }
    let mut all = Vec::new();
    let mut count = None;
    for mut answer in answers {
        count = count.max(answer.get("count").and_then(Json::as_u64));
        if let Some(Json::Array(list)) = answer.get_mut("Dialogs").map(Json::take) {
            all.extend(list);
        }
    }
    match count {
        Some(count) => json!({"count": count, "Dialogs": all}),
        None => json!({"Dialogs": all}),
    }
}

/// The dialog that a command names: by identity, or by Call-ID.
fn named(ctx: &mut Ctx, text: &str) -> Option<Key> {
    let by_did = Did::parse(text.as_bytes()).and_then(|did| Name::Did(did).find(ctx));
    by_did.or_else(|| Name::CallId(text.as_bytes().into()).find(ctx))
}

fn list(call: &mut Call<Dlg>, params: &MiParams, detail: Detail) -> MiResult {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let shown = Shown::new(ctx, &module);
    if let Some(call_id) = params.text("callid", 0) {
        let tag = params.text("from_tag", 1);
        let table = table::of(ctx);
        let fits = |key: &Key| {
            table.get(*key).is_some_and(|d| tag.as_ref().is_none_or(|t| *d.caller.tag == *t.as_bytes()))
        };
        let found = table.by_call_id(call_id.as_bytes()).find(fits).and_then(|key| table.get(key));
        return match found {
            Some(dialog) => Ok(json!({"Dialog": shown.dialog(dialog, detail)})),
            None => Err(MiError::new(404, "No such dialog")),
        };
    }
    if params.find("from_tag", 1).is_some() {
        return Err(MiError::params("Named parameters do not match"));
    }
    let (index, counter) =
        (params.int_in("index", 2, 0..=u32::MAX.into())?, params.int_in("counter", 3, 0..=u32::MAX.into())?);
    let paged = index.is_some() || counter.is_some();
    // Dialogs of workers before this one come before its own.
    timers::note_size(ctx, &module);
    let sizes = module.sizes.read().clone();
    let before: usize = sizes.iter().take(usize::from(ctx.core.worker)).sum();
    let first = usize::try_from(index.unwrap_or(0)).unwrap_or(0);
    let many = counter.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(0));
    let skip = first.saturating_sub(before);
    let many = many.saturating_sub(before.saturating_sub(first));
    let table = table::of(ctx);
    let list: Vec<Json> =
        table.iter().skip(skip).take(many).map(|(_, dialog)| shown.dialog(dialog, detail)).collect();
    let mut answer = json!({"Dialogs": list});
    if paged {
        answer["count"] = sizes.iter().sum::<usize>().into();
    }
    Ok(answer)
}

fn end_dlg(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let id = params.need("dialog_id", 0)?;
    let headers = Bytes::from(params.text("extra_hdrs", 1).unwrap_or_default());
    let module = call.module.clone();
    let none = || MiError::new(404, "Requested Dialog not found");
    let key = named(call.ctx, &id).ok_or_else(none)?;
    if end::end(call.ctx, &module, key, "MI Termination", &headers) { Ok("OK".into()) } else { Err(none()) }
}

/// dialog:push_var: DID is a list by name, or all that follow by position.
fn push_var(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let (name, value) = (params.need("dlg_val_name", 0)?, params.need("dlg_val_value", 1)?);
    let ids: Vec<String> = match params.named.get("DID") {
        Some(Json::Array(list)) => list.iter().filter_map(|id| id.as_str().map(str::to_string)).collect(),
        Some(_) => return Err(MiError::params("Bad type for parameter 'DID'")),
        None => params.positional.iter().skip(2).filter_map(|id| id.as_str().map(str::to_string)).collect(),
    };
    let module = call.module.clone();
    for id in ids {
        if let Some(key) = named(call.ctx, &id) {
            let value = Some(Val::Str(value.as_bytes().into()));
            context::apply(call.ctx, &module, key, Change::Val(name.as_bytes().into(), value));
        }
    }
    Ok("OK".into())
}

fn no_profile() -> MiError {
    MiError::new(404, "Profile not found")
}

fn get_size(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let name = params.need("profile", 0)?;
    let value = params.text("value", 1);
    let (_, profile) = call.module.profiles.find(name.as_bytes()).ok_or_else(no_profile)?;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    Ok(json!({"Profile": {
        "name": name,
        "value": value.clone(),
        "count": profile.size(value.as_deref().map(str::as_bytes)),
        "shared": yes_no(profile.sharing == Sharing::Store),
        "replicated": yes_no(profile.sharing == Sharing::Cluster),
    }}))
}

fn get_values(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let name = params.need("profile", 0)?;
    let (_, profile) = call.module.profiles.find(name.as_bytes()).ok_or_else(no_profile)?;
    if !profile.has_value {
        return Ok(json!([{"value": null, "count": profile.size(None)}]));
    }
    let values = profile.values().into_iter();
    let list: Vec<Json> = values
        .map(|(value, count)| json!({"value": String::from_utf8_lossy(&value), "count": count}))
        .collect();
    Ok(list.into())
}

/// Dialogs of this worker in a profile.
fn members(call: &mut Call<Dlg>, params: &MiParams) -> Result<Vec<Key>, MiError> {
    let name = params.need("profile", 0)?;
    let (index, profile) = call.module.profiles.find(name.as_bytes()).ok_or_else(no_profile)?;
    let value = params.text("value", 1).filter(|_| profile.has_value);
    let value = value.as_deref().map(str::as_bytes);
    let table = table::of(call.ctx);
    Ok(table.iter().filter(|(_, d)| d.is_in(index, value)).map(|(key, _)| key).collect())
}

fn list_dlgs(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let keys = members(call, params)?;
    let module = call.module.clone();
    let shown = Shown::new(call.ctx, &module);
    let table = table::of(call.ctx);
    let found = keys.into_iter().filter_map(|key| table.get(key));
    let list: Vec<Json> = found.map(|d| shown.dialog(d, Detail::Plain)).collect();
    Ok(json!({"Dialogs": list}))
}

fn end_dlgs(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    for key in members(call, params)? {
        end::end(call.ctx, &module, key, "MI Termination", &Bytes::new());
    }
    Ok("OK".into())
}

fn list_all_profiles(call: &mut Call<Dlg>, _: &MiParams) -> MiResult {
    let profiles = call.module.profiles.all();
    let list: Vec<Json> =
        profiles.iter().map(|p| json!({"name": p.name.clone(), "has value": p.has_value})).collect();
    Ok(json!({"Profiles": list}))
}

/// A living dialog and a profile, as the commands name them.
fn dialog_and_profile(call: &mut Call<Dlg>, params: &MiParams) -> Result<(Key, u16, bool), MiError> {
    let (id, name) = (params.need("dlg_id", 0)?, params.need("profile", 1)?);
    let (index, profile) = call.module.profiles.find(name.as_bytes()).ok_or_else(no_profile)?;
    let has_value = profile.has_value;
    let key = named(call.ctx, &id)
        .filter(|key| table::of(call.ctx).get(*key).is_some_and(|d| d.state != State::Ended));
    Ok((key.ok_or_else(|| MiError::new(404, "Dialog not found"))?, index, has_value))
}

fn set_profile(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let (key, profile, has_value) = dialog_and_profile(call, params)?;
    let value = params.text("value", 2);
    let value = match (has_value, value) {
        (true, None) => return Err(MiError::new(400, "the profile needs a value")),
        (true, Some(value)) => value.into_bytes().into(),
        (false, _) => Box::default(),
    };
    let module = call.module.clone();
    if params.int("clear_values", 3)?.is_some_and(|n| n != 0) {
        context::apply(call.ctx, &module, key, Change::Leave(profile, None, true));
    }
    context::apply(call.ctx, &module, key, Change::Join(Membership { profile, value }));
    Ok("OK".into())
}

fn unset_profile(call: &mut Call<Dlg>, params: &MiParams) -> MiResult {
    let (key, profile, has_value) = dialog_and_profile(call, params)?;
    let value = params.text("value", 2).filter(|_| has_value).map(|v| v.into_bytes().into());
    let all = has_value && value.is_none();
    let module = call.module.clone();
    context::apply(call.ctx, &module, key, Change::Leave(profile, value, all));
    Ok("OK".into())
}
