//! The functions of scripts.

use super::cell::{Direction, Membership, Val};
use super::context::{self, Change};
use super::{Dlg, Flags, MatchMode, create, handover, link, query, request, routes, shared, validate};
use host::arg::AnyVar;
use host::load::Loader;
use host::{Arg, Call, Format, Int, OutVar, Outcome, Registrar, Routes, Text, Value};
use script::ast::{self, Dialect};
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Dlg>) {
    let any = Routes::REQUEST.and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::FAILURE);
    let any = any.and(Routes::LOCAL).and(Routes::EVENT).and(Routes::TIMER);
    m.function("create_dialog", Routes::REQUEST, create_dialog);
    m.function("match_dialog", Routes::REQUEST, match_dialog);
    m.function("validate_dialog", Routes::REQUEST, validate::validate_dialog);
    m.function("fix_route_dialog", Routes::REQUEST, validate::fix_route_dialog);
    m.function("set_dlg_profile", any, set_profile);
    m.function("unset_dlg_profile", any, unset_profile);
    m.function("is_in_profile", any, is_in_profile);
    m.function("get_profile_size", any, get_profile_size);
    m.function("set_dlg_flag", any, |call: &mut Call<Dlg>, flag: FlagArg| set_flag(call, flag, true));
    m.function("reset_dlg_flag", any, |call: &mut Call<Dlg>, flag: FlagArg| set_flag(call, flag, false));
    m.function("is_dlg_flag_set", any, is_flag_set);
    m.function("test_and_set_dlg_flag", any, test_and_set);
    m.function("store_dlg_value", any, store_value);
    m.function("fetch_dlg_value", any, fetch_value);
    m.function("set_dlg_sharing_tag", any, set_tag);
    m.function("dlg_on_answer", any, |call: &mut Call<Dlg>, route: Option<routes::Name>| {
        routes::arm(call, routes::Moment::Answer, route)
    });
    m.function("dlg_on_timeout", any, |call: &mut Call<Dlg>, route: Option<routes::Name>| {
        routes::arm(call, routes::Moment::Timeout, route)
    });
    m.function("dlg_on_hangup", any, |call: &mut Call<Dlg>, route: Option<routes::Name>| {
        routes::arm(call, routes::Moment::Hangup, route)
    });
    m.function("get_dialog_info", Routes::ALL, query::get_dialog_info);
    m.function("get_dialog_vals", Routes::ALL, query::get_dialog_vals);
    m.function("get_dialogs_by_val", Routes::ALL, query::get_dialogs_by_val);
    m.function("get_dialogs_by_profile", Routes::ALL, query::get_dialogs_by_profile);
    m.function("load_dialog_ctx", Routes::ALL, context::load);
    m.function("unload_dialog_ctx", Routes::ALL, context::unload);
    m.function("dlg_send_sequential", Routes::ALL, request::send_sequential);
    m.function("dlg_inc_cseq", any, inc_cseq);
}

/// The flags of `create_dialog`: names, in 2.1 letters.
struct FlagsArg(Flags);

fn parse_flags(text: &[u8], dialect: Dialect) -> Result<Flags, String> {
    let text = String::from_utf8_lossy(text);
    match (Flags::parse(&text), dialect) {
        (Ok(flags), _) => Ok(flags),
        (Err(_), Dialect::V21) => Ok(Flags::parse_letters(&text)),
        (Err(word), Dialect::V4) => Err(format!("`{word}` is no flag of create_dialog")),
    }
}

impl Arg<Dlg> for FlagsArg {
    type Prepared = Format;
    const WHAT: &'static str = "flags";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Dlg>,
    ) -> Result<Format, Diagnostic> {
        let format = <Text as Arg<Dlg>>::prepare(arg, site, loader, module)?;
        if let Some(text) = format.constant() {
            let loc = arg.map_or(site, |a| a.loc);
            parse_flags(text, loader.dialect).map_err(|error| {
                let known: Vec<_> = Flags::names().collect();
                Diagnostic::error(loc, error).hint(format!("known are {}", known.join(", ")))
            })?;
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, Dlg>) -> Result<FlagsArg, i32> {
        let text = format.text(call.ctx);
        parse_flags(&text, call.ctx.core.shared.dialect).map(FlagsArg).map_err(|error| {
            host::error!("dialog", "create_dialog: {error}");
            -1
        })
    }
}

/// create_dialog([flags]): 1 there is one now, -1 this is no INVITE that could begin one.
fn create_dialog(call: &mut Call<Dlg>, flags: Option<FlagsArg>) -> i32 {
    let module = call.module.clone();
    create::create(call.ctx, &module, flags.map_or(Flags::default(), |f| f.0))
}

/// match_dialog([mode]): 1 the request has a dialog.
fn match_dialog(call: &mut Call<Dlg>, mode: Option<Text>) -> Outcome {
    let module = call.module.clone();
    let mode = mode.map_or(module.mode, |word| MatchMode::parse(&word));
    handover::match_request(call.ctx, &module, mode, |ctx| done(link::own(ctx).is_some()))
}

/// The index of a profile that a function names; logs what does not exist.
fn profile(call: &Call<Dlg>, name: &[u8]) -> Option<(u16, bool)> {
    let found = call.module.profiles.find(name);
    if found.is_none() {
        host::error!("dialog", "there is no profile `{}`", String::from_utf8_lossy(name));
    }
    found.map(|(index, profile)| (index, profile.has_value))
}

/// set_dlg_profile(profile, [value], [clear values])
fn set_profile(call: &mut Call<Dlg>, name: Text, value: Option<Text>, clear: Option<Flag01>) -> i32 {
    let Some((index, has_value)) = profile(call, &name) else { return -1 };
    let value = match (has_value, value) {
        (true, None) => {
            host::error!("dialog", "profile {} needs a value", name.str());
            return -1;
        }
        (true, Some(value)) => value.0[..].into(),
        (false, _) => Box::default(),
    };
    let module = call.module.clone();
    if clear.is_some_and(|flag| flag.0) {
        context::change(call.ctx, &module, Change::Leave(index, None, true));
    }
    done(context::change(call.ctx, &module, Change::Join(Membership { profile: index, value })))
}

fn done(changed: bool) -> i32 {
    if changed { 1 } else { -1 }
}

/// unset_dlg_profile(profile, [value])
fn unset_profile(call: &mut Call<Dlg>, name: Text, value: Option<Text>) -> i32 {
    let Some((index, has_value)) = profile(call, &name) else { return -1 };
    let module = call.module.clone();
    let value = value.filter(|_| has_value);
    let Some(member) = link::read(call.ctx, |d| d.is_in(index, value.as_deref().map(|v| &v[..]))) else {
        return -1;
    };
    let all = has_value && value.is_none();
    let value = value.map(|v| v.0[..].into());
    context::change(call.ctx, &module, Change::Leave(index, value, all));
    done(member)
}

/// is_in_profile(profile, [value])
fn is_in_profile(call: &mut Call<Dlg>, name: Text, value: Option<Text>) -> i32 {
    let Some((index, has_value)) = profile(call, &name) else { return -1 };
    let value = value.filter(|_| has_value);
    done(link::read(call.ctx, |d| d.is_in(index, value.as_deref().map(|v| &v[..]))) == Some(true))
}

/// get_profile_size(profile, [value], size)
fn get_profile_size(call: &mut Call<Dlg>, name: Text, value: Option<Text>, size: OutVar) -> Outcome {
    let Some((index, _)) = profile(call, &name) else { return (-1).into() };
    let module = call.module.clone();
    let value = value.as_deref().map(|v| &v[..]);
    shared::size(call.ctx, &module, index, value, move |ctx, found| match found {
        Ok(count) => done(size.set(ctx, count)),
        Err(error) => {
            host::error!("dialog", "get_profile_size: {error}");
            -1
        }
    })
}

/// The name of a flag of the script; a constant.
struct FlagArg(u8);

impl Arg<Dlg> for FlagArg {
    type Prepared = u8;
    const WHAT: &'static str = "the name of a flag";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Dlg>,
    ) -> Result<u8, Diagnostic> {
        let name = <host::Word as Arg<Dlg>>::prepare(arg, site, loader, module)?;
        module.flag_bit(&name).ok_or_else(|| {
            Diagnostic::error(arg.map_or(site, |a| a.loc), "a configuration has at most 64 flags of dialogs")
        })
    }

    fn eval(bit: &u8, _: &mut Call<'_, Dlg>) -> Result<FlagArg, i32> {
        Ok(FlagArg(*bit))
    }
}

/// A truth value: a number, or `true` and `false`.
struct Flag01(bool);

impl Arg<Dlg> for Flag01 {
    type Prepared = Result<bool, Format>;
    const WHAT: &'static str = "true or false";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Dlg>,
    ) -> Result<Self::Prepared, Diagnostic> {
        match arg.map(|a| &a.kind) {
            Some(ast::ArgKind::Int(n)) => Ok(Ok(*n != 0)),
            Some(ast::ArgKind::Word(word)) if word.eq_ignore_ascii_case(b"true") => Ok(Ok(true)),
            Some(ast::ArgKind::Word(word)) if word.eq_ignore_ascii_case(b"false") => Ok(Ok(false)),
            _ => <Text as Arg<Dlg>>::prepare(arg, site, loader, module).map(Err),
        }
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, Dlg>) -> Result<Flag01, i32> {
        Ok(Flag01(match prepared {
            Ok(constant) => *constant,
            Err(format) => !matches!(&format.text(call.ctx)[..], b"" | b"0" | b"false" | b"no"),
        }))
    }
}

fn set_flag(call: &mut Call<Dlg>, flag: FlagArg, on: bool) -> i32 {
    let module = call.module.clone();
    done(context::change(call.ctx, &module, Change::Flag(flag.0, on)))
}

fn is_flag_set(call: &mut Call<Dlg>, flag: FlagArg) -> i32 {
    done(link::read(call.ctx, |d| d.user_flags & (1 << flag.0) != 0) == Some(true))
}

/// test_and_set_dlg_flag(flag, value): 1 it had this value and has the other now.
fn test_and_set(call: &mut Call<Dlg>, flag: FlagArg, value: Int) -> i32 {
    let wanted = value.0 != 0;
    match link::read(call.ctx, |d| d.user_flags & (1 << flag.0) != 0) {
        Some(is) if is == wanted => set_flag(call, flag, !wanted),
        _ => -1,
    }
}

/// store_dlg_value(name, variable)
fn store_value(call: &mut Call<Dlg>, name: Text, var: AnyVar) -> i32 {
    let value = Val::of(&var.0.get(call.ctx));
    let module = call.module.clone();
    done(context::change(call.ctx, &module, Change::Val(name.0[..].into(), value)))
}

/// fetch_dlg_value(name, variable): -1 leaves the variable alone.
fn fetch_value(call: &mut Call<Dlg>, name: Text, var: OutVar) -> i32 {
    match link::read(call.ctx, |d| d.val(&name).map(Val::value)) {
        Some(Some(value)) => done(var.set(call.ctx, value)),
        _ => -1,
    }
}

/// set_dlg_sharing_tag(name)
fn set_tag(call: &mut Call<Dlg>, name: Text) -> i32 {
    let module = call.module.clone();
    done(context::change(call.ctx, &module, Change::Tag(name.0[..].into())))
}

/// dlg_inc_cseq([tag], [number]): the next CSeq that the server makes towards the callee with this tag.
fn inc_cseq(call: &mut Call<Dlg>, tag: Option<Text>, more: Option<Int>) -> Outcome {
    let Some((key, _)) = link::own(call.ctx) else { return (-2).into() };
    let tag = tag.map(|t| t.0).or_else(|| call.ctx.state.msg.to_tag()).unwrap_or_default();
    let more = more.map_or(1, |n| n.0);
    let table = super::table::of(call.ctx);
    let Some(dialog) = table.get_mut(key) else { return (-1).into() };
    let Some(leg) = dialog.callee_with(&tag).and_then(|no| dialog.leg_mut(no)) else { return (-1).into() };
    if leg.made_cseq == 0 {
        leg.made_cseq = leg.cseq.wrapping_add(1);
    }
    leg.made_cseq = leg.made_cseq.saturating_add_signed(more.clamp(-(1 << 30), 1 << 30) as i32);
    1.into()
}

/// `$DLG_dir`
pub fn direction(ctx: &mut host::Ctx) -> Value {
    link::direction(ctx).map(Direction::word).map_or(Value::Null, Value::from)
}
