//! Routes: where they stand, who names them, other names for them.

use super::check::{Checked, is_same_file};
use super::wire::Failure;
use script::RouteName;
use serde_json::{Map, Value as Json, json};

/// The name at a byte of a text.
fn at<'a>(checked: &'a Checked, uri: &str, offset: usize) -> Option<&'a RouteName> {
    let covers = |r: &&RouteName| (r.loc.start as usize..=r.loc.end as usize).contains(&offset);
    checked.routes.iter().find(|r| covers(r) && is_same_file(&checked.uri(r.loc), uri))
}

fn same<'a>(checked: &'a Checked, one: &'a RouteName) -> impl Iterator<Item = &'a RouteName> {
    checked.routes.iter().filter(move |r| r.kind == one.kind && r.name == one.name)
}

fn location(checked: &Checked, name: &RouteName) -> Json {
    json!({"uri": checked.uri(name.loc), "range": checked.range(name.loc)})
}

pub fn definition(checked: &Checked, uri: &str, offset: usize) -> Json {
    let Some(one) = at(checked, uri, offset) else { return Json::Null };
    same(checked, one).filter(|r| r.is_definition).map(|r| location(checked, r)).collect()
}

pub fn references(checked: &Checked, uri: &str, offset: usize) -> Json {
    let Some(one) = at(checked, uri, offset) else { return Json::Null };
    same(checked, one).map(|r| location(checked, r)).collect()
}

pub fn may_rename(checked: &Checked, uri: &str, offset: usize) -> Result<Json, Failure> {
    let one = at(checked, uri, offset).ok_or_else(|| Failure::params("only routes are renamed here"))?;
    let placeholder = String::from_utf8_lossy(&one.name).into_owned();
    Ok(json!({"range": checked.range(one.loc), "placeholder": placeholder}))
}

pub fn rename(checked: &Checked, uri: &str, offset: usize, name: &str) -> Result<Json, Failure> {
    let one = at(checked, uri, offset).ok_or_else(|| Failure::params("only routes are renamed here"))?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Failure::params("a route's name has letters, digits and _"));
    }
    if checked.routes.iter().any(|r| r.is_definition && r.kind == one.kind && r.name == name.as_bytes()) {
        return Err(Failure::params("there is a route of this name already"));
    }
    let mut changes = Map::new();
    for each in same(checked, one) {
        let edit = json!({"range": checked.range(each.loc), "newText": name});
        let file = changes.entry(checked.uri(each.loc)).or_insert_with(|| json!([]));
        file.as_array_mut().into_iter().for_each(|list| list.push(edit.clone()));
    }
    Ok(json!({"changes": changes}))
}

/// Routes of this file. 12: a function, in the protocol's list of kinds.
pub fn symbols(checked: &Checked, uri: &str) -> Json {
    let own = checked.bodies.iter().filter(|(_, loc)| is_same_file(&checked.uri(*loc), uri));
    own.map(|(title, loc)| {
        let range = checked.range(*loc);
        json!({"name": title, "kind": 12, "range": range, "selectionRange": range})
    })
    .collect()
}
