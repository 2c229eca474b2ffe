//! Status and reports over management and in scripts: `status_report:*`, `sr_check_status()`.

use super::Core;
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::Since;
use host::status::{Group, Identifier, Report};
use host::{Call, Registrar, Routes, Text};
use serde_json::{Map, Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command(
        "status_report:get sr_get_status",
        "readiness of an identifier (without one: main; all: of the whole group)",
        get,
    )
    .takes("group [identifier]");
    m.command(
        "status_report:status sr_list_status",
        "readiness of all identifiers, or of a group",
        |call, params| list(call, params, "Identifiers", "Name", status),
    )
    .takes("[group]");
    m.command("status_report:reports sr_list_reports", "what happened last", reports)
        .takes("[group] [identifier]");
    m.command("status_report:identifiers sr_list_identifiers", "names of identifiers", identifiers)
        .takes("[group]");
    m.function_of(Since::V4, "sr_check_status", Routes::ALL, check_status);
}

/// sr_check_status(group, [identifier]): its status, negative when it is not ready; -1 when there is no such.
/// What a module loads before the first message it does not announce: it is ready.
fn check_status(call: &mut Call<Core>, group: Text, identifier: Option<Text>) -> i32 {
    let identifier = identifier.map(|text| text.str().into_owned());
    let group = group.str();
    match call.shared().status.level(&group, identifier.as_deref()) {
        Some((level, _)) => level,
        None if call.shared().module_names.iter().any(|name| *name == group) && identifier.is_none() => 1,
        None => -1,
    }
}

fn readiness(level: i32, details: Option<&str>) -> Map<String, Json> {
    let mut shown = Map::new();
    shown.insert("Readiness".into(), json!(level > 0));
    shown.insert("Status".into(), json!(level));
    if let Some(details) = details {
        shown.insert("Details".into(), json!(details));
    }
    shown
}

fn get(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let group = params.need("group", 0)?;
    let identifier = params.text("identifier", 1);
    let found = call.shared().status.level(&group, identifier.as_deref());
    let (level, details) = found.ok_or_else(|| MiError::new(404, "Identity not found"))?;
    Ok(Json::Object(readiness(level, details.as_deref())))
}

fn status(identifier: &Identifier) -> Json {
    let mut shown = Map::new();
    shown.insert("Name".into(), json!(identifier.name));
    shown.append(&mut readiness(identifier.level, identifier.details.as_deref()));
    Json::Object(shown)
}

fn report(report: &Report) -> Json {
    json!({"Timestamp": report.at, "Date": host::clock::ctime(report.at as i64), "Log": report.text})
}

fn with_reports(identifier: &Identifier) -> Json {
    json!({"Name": identifier.name, "Reports": identifier.reports.iter().map(report).collect::<Vec<_>>()})
}

fn group_named(groups: Vec<Group>, name: &str) -> Result<Group, MiError> {
    groups.into_iter().find(|g| g.name == name).ok_or_else(|| MiError::new(404, "Group not found"))
}

/// All groups, or what one of them holds.
fn list(
    call: &Call<Core>,
    params: &MiParams,
    inner: &str,
    name: &str,
    show: fn(&Identifier) -> Json,
) -> MiResult {
    let groups = call.shared().status.groups();
    let shown = |group: &Group| group.identifiers.iter().map(show).collect::<Vec<_>>();
    match params.text("group", 0) {
        None => Ok(groups.iter().map(|g| json!({name: g.name, inner: shown(g)})).collect()),
        Some(group) => Ok(json!(shown(&group_named(groups, &group)?))),
    }
}

fn reports(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let (Some(group), Some(identifier)) = (params.text("group", 0), params.text("identifier", 1)) else {
        return list(call, params, "Identifiers", "Name", with_reports);
    };
    let group = group_named(call.shared().status.groups(), &group)?;
    let found = group.identifiers.iter().find(|i| i.name == identifier);
    let found = found.ok_or_else(|| MiError::new(404, "Identifier not found"))?;
    Ok(found.reports.iter().map(report).collect())
}

fn identifiers(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let shown = |g: &Group| json!({"Group": g.name, "Identifiers": g.identifiers.iter().map(|i| &i.name).collect::<Vec<_>>()});
    let groups = call.shared().status.groups();
    match params.text("group", 0) {
        None => Ok(groups.iter().map(shown).collect()),
        Some(group) => Ok(shown(&group_named(groups, &group)?)),
    }
}
