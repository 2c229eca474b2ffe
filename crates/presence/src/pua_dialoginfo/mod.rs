//! pua_dialoginfo: publishes the state of calls (RFC 4235), for the lamps of phones.
//!
//! What is needed of a call stands in values of its dialog, so that it goes on after a restart:
//! `__blf_param_1` to `4` are URI and name of caller and callee, `5` says whose state is told.

mod document;
mod follow;

use crate::pua::Pua;
use bytes::Bytes;
use host::load::Loader;
use host::{Call, Ctx, Registrar, Routes, Text, Var};
use modules::dialog::api;
use modules::dialog::{Flags, Key, Val};
use sip::{Method, NameAddr};
use std::sync::Arc;

pub struct PuaDialogInfo {
    callid: bool,
    tags: bool,
    parties: bool,
    caller_confirmed: bool,
    trying: bool,
    server: Option<Bytes>,
    caller_text: Option<String>,
    callee_text: Option<String>,
    caller_spec: Option<Var>,
    callee_spec: Option<Var>,
    /// The server numbers the documents itself.
    own_server: bool,
    flag_name: Option<String>,
    /// Mask of the flag that keeps a re-INVITE from being told; 0: there is none.
    quiet: u32,
    pua: Option<Arc<Pua>>,
}

impl Default for PuaDialogInfo {
    fn default() -> PuaDialogInfo {
        PuaDialogInfo {
            callid: true,
            tags: true,
            parties: true,
            caller_confirmed: false,
            trying: false,
            server: None,
            caller_text: None,
            callee_text: None,
            caller_spec: None,
            callee_spec: None,
            own_server: true,
            flag_name: None,
            quiet: 0,
            pua: None,
        }
    }
}

pub fn register(m: &mut Registrar<PuaDialogInfo>) {
    m.param_int("include_callid", |s, v| Ok(s.callid = v != 0));
    m.param_int("include_tags", |s, v| Ok(s.tags = v != 0));
    m.param_int("include_localremote", |s, v| Ok(s.parties = v != 0));
    m.param_int("caller_confirmed", |s, v| Ok(s.caller_confirmed = v != 0));
    m.param_int("publish_on_trying", |s, v| Ok(s.trying = v != 0));
    m.param_int("osips_ps", |s, v| Ok(s.own_server = v != 0));
    m.param_text("presence_server", |s, v| Ok(s.server = Some(v.to_string().into())));
    m.param_text("caller_spec_param", |s, v| Ok(s.caller_text = Some(v.into())));
    m.param_text("callee_spec_param", |s, v| Ok(s.callee_text = Some(v.into())));
    m.param_text("nopublish_flag", |s, v| Ok(s.flag_name = Some(v.into())));
    m.function("dialoginfo_set", Routes::REQUEST, set);
    m.function("dialoginfo_set_branch_callee", Routes::BRANCH, set_branch_callee);
    m.function("dialoginfo_mute_branch", Routes::BRANCH, mute_branch);
    m.needs(&["pua", "dialog", "tm"]);
    m.init(init);
    m.ready(|module, hooks, _| follow::ready(module, hooks));
    m.start(follow::start);
}

fn init(s: &mut PuaDialogInfo, loader: &mut Loader) -> Result<(), String> {
    s.pua = loader.module::<Pua>();
    let mut variable = |text: &Option<String>| -> Result<Option<Var>, String> {
        let Some(text) = text else { return Ok(None) };
        let spec = script::parse_variable(&text.clone().into(), script::Loc::default());
        spec.and_then(|spec| loader.var(&spec)).map(Some).map_err(|d| d.message)
    };
    s.caller_spec = variable(&s.caller_text)?;
    s.callee_spec = variable(&s.callee_text)?;
    if let Some(name) = &s.flag_name {
        s.quiet = loader.flag(name.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
    }
    Ok(())
}

/// Whose state is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sides {
    caller: bool,
    callee: bool,
}

impl Sides {
    /// Of "A", "B" or both; both when none is said.
    fn parse(text: Option<&Text>) -> Sides {
        let has = |letter: u8| text.is_some_and(|t| t.0.contains(&letter));
        match (has(b'A'), has(b'B')) {
            (false, false) => Sides { caller: true, callee: true },
            (caller, callee) => Sides { caller, callee },
        }
    }

    fn letters(self) -> &'static str {
        match (self.caller, self.callee) {
            (true, true) => "AB",
            (true, false) => "A",
            (false, true) => "B",
            (false, false) => "",
        }
    }
}

/// One party of a call.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Party {
    pub uri: Bytes,
    /// Without quotes; empty: there is none.
    pub name: Bytes,
}

impl Party {
    fn of(address: &NameAddr) -> Party {
        Party { uri: address.uri.clone(), name: address.display_text() }
    }

    fn parse(text: &Bytes) -> Option<Party> {
        let text = text.slice_ref(text.trim_ascii());
        NameAddr::parse(&text).map(|address| Party::of(&address))
    }
}

fn keep(ctx: &mut Ctx, key: Key, name: &str, text: &[u8]) {
    api::set_val(ctx, key, name.as_bytes(), Some(Val::Str(text.into())));
}

fn kept(ctx: &mut Ctx, key: Key, name: &str) -> Option<Bytes> {
    match api::val(ctx, key, name.as_bytes())? {
        Val::Str(text) => Some(Bytes::copy_from_slice(&text)),
        Val::Int(n) => Some(n.to_string().into()),
    }
}

/// dialoginfo_set([sides]): 1 the call is told of, or it is no INVITE; -1 a party cannot be read, or there is no dialog.
fn set(call: &mut Call<PuaDialogInfo>, sides: Option<Text>) -> i32 {
    let module = call.module.clone();
    let msg = call.state.msg.clone();
    if msg.method() != Method::Invite {
        return 1;
    }
    let Some(key) =
        api::current(call.ctx).map(|(key, _)| key).or_else(|| api::create(call.ctx, Flags::default()))
    else {
        return -1;
    };
    let given = |ctx: &mut Ctx, spec: &Option<Var>| spec.as_ref().and_then(|spec| spec.get(ctx).text());
    let caller = match given(call.ctx, &module.caller_spec) {
        Some(text) => Party::parse(&text),
        None => msg.from().map(|from| Party::of(&from)),
    };
    let callee = match given(call.ctx, &module.callee_spec) {
        Some(text) => Party::parse(&text),
        None => msg.to().map(|to| Party { uri: call.state.current_uri(), ..Party::of(&to) }),
    };
    let (Some(caller), Some(callee)) = (caller, callee) else {
        host::complain!(call.ctx, "pua_dialoginfo", "dialoginfo_set: caller or callee is no address");
        return -1;
    };
    let sides = Sides::parse(sides.as_ref());
    let values = [&caller.uri[..], &caller.name, &callee.uri, &callee.name, sides.letters().as_bytes()];
    for (n, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_empty()) {
        keep(call.ctx, key, &format!("__blf_param_{}", n + 1), value);
    }
    1
}

/// The call of the current branch, and its number.
fn branch_of(call: &mut Call<PuaDialogInfo>) -> Option<(Key, u16)> {
    let branch = call.state.txn_branch?;
    api::current(call.ctx).map(|(key, _)| (key, branch))
}

/// dialoginfo_set_branch_callee(callee): 1 kept; -1 it is no address, or the call is not told of.
fn set_branch_callee(call: &mut Call<PuaDialogInfo>, callee: Text) -> i32 {
    let Some(callee) = Party::parse(&callee.0) else { return -1 };
    let Some((key, branch)) = branch_of(call) else { return -1 };
    keep(call.ctx, key, &format!("__blf_callee_{branch}"), &callee.uri);
    if !callee.name.is_empty() {
        keep(call.ctx, key, &format!("__blf_name_{branch}"), &callee.name);
    }
    1
}

/// dialoginfo_mute_branch([sides]): 1 kept; -1 the call is not told of.
fn mute_branch(call: &mut Call<PuaDialogInfo>, sides: Option<Text>) -> i32 {
    let Some((key, branch)) = branch_of(call) else { return -1 };
    keep(call.ctx, key, &format!("__blf_mute_{branch}"), Sides::parse(sides.as_ref()).letters().as_bytes());
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_and_sides() {
        let party = |text: &'static str| Party::parse(&Bytes::from_static(text.as_bytes()));
        assert_eq!(
            party(" \"A One\" <sip:a1@x> "),
            Some(Party { uri: "sip:a1@x".into(), name: "A One".into() })
        );
        assert_eq!(party("sip:b@x").map(|p| p.uri), Some("sip:b@x".into()));
        assert_eq!(party("\"open"), None);
        for (text, letters) in [("A", "A"), ("BA", "AB"), ("x", "AB")] {
            assert_eq!(Sides::parse(Some(&Text(text.into()))).letters(), letters);
        }
    }
}
