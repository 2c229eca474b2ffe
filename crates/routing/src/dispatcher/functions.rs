//! Script functions.

use super::data::Data;
use super::failover::{self, Target};
use super::flags::{Flags, Letters, MANY_RESULTS, parse_limits, parse_list, split_partition};
use super::partition::Partition;
use super::select::{self, Ask};
use super::state::{Place, Wanted};
use super::{Dispatcher, probing, score};
use crate::destinations::Place as Address;
use bytes::Bytes;
use host::load::Loader;
use host::registrar::Since;
use host::{Arg, Call, Ctx, Format, Int, OutVar, Outcome, Registrar, Routes, Text};
use modules::sipmsgops::headers::glob;
use script::{Diagnostic, Loc, ast};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Dispatcher>) {
    let select = Routes::REQUEST.and(Routes::BRANCH).and(Routes::FAILURE).and(Routes::LOCAL);
    let next = Routes::REQUEST.and(Routes::FAILURE);
    let listed = select.and(Routes::ON_REPLY);
    let counted = select.and(Routes::TIMER).and(Routes::EVENT);
    m.function_of(
        Since::V4,
        "ds_select_dst",
        select,
        |call: &mut Call<Dispatcher>, set, alg, flags, part, max| {
            select_one(call, Target::NextHop, set, alg, flags, part, max)
        },
    );
    m.function_of(
        Since::V4,
        "ds_select_domain",
        select,
        |call: &mut Call<Dispatcher>, set, alg, flags, part, max| {
            select_one(call, Target::Domain, set, alg, flags, part, max)
        },
    );
    m.function_of(Since::V4, "ds_next_dst", next, |call: &mut Call<Dispatcher>, part: Part| {
        failover::next(call.ctx, &part.0, Target::NextHop)
    });
    m.function_of(Since::V4, "ds_next_domain", next, |call: &mut Call<Dispatcher>, part: Part| {
        failover::next(call.ctx, &part.0, Target::Domain)
    });
    m.function_of(
        Since::V4,
        "ds_mark_dst",
        next,
        |call: &mut Call<Dispatcher>, state: Option<Text>, part: Part| mark(call, state, &part),
    );
    m.function_of(Since::V4, "ds_count", counted, count);
    m.function_of(Since::V4, "ds_is_in_list", listed, is_in_list);
    m.function_of(Since::V4, "ds_push_script_attrs", Routes::ALL, push_script_attrs);
    m.function_of(Since::V4, "ds_get_script_attrs", Routes::ALL, get_script_attrs);
    register_old(m, next, listed, counted);
}

/// The forms of 2.1, where everything is a text.
fn register_old(m: &mut Registrar<Dispatcher>, next: Routes, listed: Routes, counted: Routes) {
    m.function_of(Since::V21, "ds_select_dst", next, |call: &mut Call<Dispatcher>, set, alg, limits| {
        select_old(call, Target::NextHop, set, alg, limits)
    });
    m.function_of(Since::V21, "ds_select_domain", next, |call: &mut Call<Dispatcher>, set, alg, limits| {
        select_old(call, Target::Domain, set, alg, limits)
    });
    m.function_of(Since::V21, "ds_next_dst", next, |call: &mut Call<Dispatcher>, part: Part| {
        failover::next(call.ctx, &part.0, Target::NextHop)
    });
    m.function_of(Since::V21, "ds_next_domain", next, |call: &mut Call<Dispatcher>, part: Part| {
        failover::next(call.ctx, &part.0, Target::Domain)
    });
    m.function_of(Since::V21, "ds_mark_dst", next, mark_old);
    m.function_of(Since::V21, "ds_count", counted, count_old);
    m.function_of(Since::V21, "ds_is_in_list", listed, is_in_list_old);
}

/// A partition by name; left out: the default one. A constant name must be known when the script is loaded.
pub struct Part(pub Arc<Partition>);

impl Arg<Dispatcher> for Part {
    type Prepared = Option<Format>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "a partition";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Dispatcher>,
    ) -> Result<Option<Format>, Diagnostic> {
        let Some(arg) = arg.filter(|a| !matches!(a.kind, ast::ArgKind::Empty)) else { return Ok(None) };
        let format = <Text as Arg<Dispatcher>>::prepare(Some(arg), site, loader, module)?;
        match format.constant().map(|name| String::from_utf8_lossy(name).into_owned()) {
            Some(name) if module.partition(name.as_bytes()).is_none() => {
                let error = Diagnostic::error(arg.loc, format!("dispatcher has no partition {name}"));
                let names = module.partitions.iter().map(|p| p.name.as_str());
                Err(match script::nearest(&name, names) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None => error
                        .hint(format!("modparam(\"dispatcher\", \"partition\", \"{name}: ...\") makes one")),
                })
            }
            _ => Ok(Some(format)),
        }
    }

    fn eval(prepared: &Option<Format>, call: &mut Call<'_, Dispatcher>) -> Result<Part, i32> {
        let name = prepared.as_ref().map(|format| format.text(call.ctx)).unwrap_or_default();
        named(call.ctx, call.module, &name).map(Part).ok_or(-1)
    }
}

fn named(ctx: &mut Ctx, module: &Dispatcher, name: &[u8]) -> Option<Arc<Partition>> {
    let found = module.partition(name).cloned();
    if found.is_none() {
        let name = String::from_utf8_lossy(name);
        host::complain!(ctx, "dispatcher", "there is no partition {name}");
    }
    found
}

/// What is in use of a partition; nothing before its table was read for the first time.
fn loaded(ctx: &mut Ctx, part: &Partition) -> Option<Arc<Data>> {
    let data = part.data.get();
    if data.is_none() {
        let Partition { name, table, .. } = part;
        host::complain!(ctx, "dispatcher", "partition {name}: table {table} has not been read yet");
    }
    data
}

/// Flags of `ds_select_dst`; constant ones are checked when the script is loaded.
pub struct FlagsArg(Flags);

impl Arg<Dispatcher> for FlagsArg {
    type Prepared = Option<Format>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "flags: f, u, d, a";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Dispatcher>,
    ) -> Result<Option<Format>, Diagnostic> {
        let Some(arg) = arg.filter(|a| !matches!(a.kind, ast::ArgKind::Empty)) else { return Ok(None) };
        let format = <Text as Arg<Dispatcher>>::prepare(Some(arg), site, loader, module)?;
        match format.constant() {
            Some(text) if Flags::parse(text, Letters::V4).is_none() => {
                let text = String::from_utf8_lossy(text).into_owned();
                Err(Diagnostic::error(arg.loc, format!("`{text}`: the flags are f, u, d and a")))
            }
            _ => Ok(Some(format)),
        }
    }

    fn eval(prepared: &Option<Format>, call: &mut Call<'_, Dispatcher>) -> Result<FlagsArg, i32> {
        let Some(format) = prepared else { return Ok(FlagsArg(Flags::default())) };
        let text = format.text(call.ctx);
        let flags = Flags::parse(&text, Letters::V4).map(FlagsArg);
        if flags.is_none() {
            let text = String::from_utf8_lossy(&text);
            host::complain!(call.ctx, "dispatcher", "`{text}`: the flags are f, u, d and a");
        }
        flags.ok_or(-1)
    }
}

fn select_one(
    call: &mut Call<Dispatcher>,
    target: Target,
    set: Int,
    algorithm: Int,
    flags: FlagsArg,
    part: Part,
    max_results: Option<Int>,
) -> Outcome {
    let max_results = max_results.map_or(MANY_RESULTS, |max| max.0.max(1));
    let ask = Ask { set: set.0, algorithm: algorithm.0, flags: flags.0, max_results };
    begin(call, part.0, ask, target)
}

/// One selection, which algorithm 10 makes wait for its route.
fn begin(call: &mut Call<Dispatcher>, part: Arc<Partition>, ask: Ask, target: Target) -> Outcome {
    let Some(data) = loaded(call.ctx, &part) else { return (-1).into() };
    if ask.algorithm != 10 {
        return one(call.ctx, call.module, &part, &data, &ask, target, None).into();
    }
    let Some(set) = select::usable(call.ctx, &data, &ask) else { return (-1).into() };
    let Some(route) = call.module.algo_route else {
        host::complain!(call.ctx, "dispatcher", "algorithm 10 needs algo_route, and a route of that name");
        return (-1).into();
    };
    let (module, held) = (call.module.clone(), data.clone());
    score::score(call.ctx, route, set, ask.flags.default, move |ctx, scores| {
        one(ctx, &module, &part, &held, &ask, target, Some(&scores))
    })
}

fn one(
    ctx: &mut Ctx,
    module: &Dispatcher,
    part: &Partition,
    data: &Data,
    ask: &Ask,
    target: Target,
    scores: Option<&[i64]>,
) -> i32 {
    let chosen = select::choose(ctx, module, data, ask, scores);
    let done = chosen.is_some_and(|chosen| failover::apply(ctx, part, data, ask, &chosen, target));
    if done { 1 } else { -1 }
}

/// ds_select_dst("partition : set, set", "algorithm, algorithm", "flags M results, ..."): the first set comes first, those
/// behind it are kept for failover. Lists that are too short go on with their last element.
fn select_old(
    call: &mut Call<Dispatcher>,
    target: Target,
    sets: Text,
    algorithms: Text,
    limits: Option<Text>,
) -> Outcome {
    let (name, sets) = split_partition(&sets);
    let Some(part) = named(call.ctx, call.module, name) else { return (-1).into() };
    let limits = limits.map_or(Some(vec![(Flags::default(), MANY_RESULTS)]), |text| parse_limits(&text));
    let (Some(sets), Some(algorithms), Some(limits)) = (parse_list(sets), parse_list(&algorithms), limits)
    else {
        host::complain!(call.ctx, "dispatcher", "a list of sets, algorithms or flags cannot be read");
        return (-1).into();
    };
    let at = |n: usize, count: usize| n.min(count - 1);
    let ask = |n: usize| {
        let (flags, max_results) = limits[at(n, limits.len())];
        // Those behind have begun the list.
        let flags = Flags { append: n + 1 < sets.len(), ..flags };
        Ask {
            set: sets[n],
            algorithm: algorithms[at(n, algorithms.len())],
            flags,
            max_results: max_results.max(1),
        }
    };
    if ask(0).flags.force && target == Target::NextHop && call.state.dst_uri.is_some() {
        host::complain!(call.ctx, "dispatcher", "there is a destination already, and flag s keeps it");
        return (-1).into();
    }
    let Some(data) = loaded(call.ctx, &part) else { return (-1).into() };
    for n in (1..sets.len()).rev() {
        one(call.ctx, call.module, &part, &data, &ask(n), Target::None, None);
    }
    begin(call, part, ask(0), target)
}

fn mark(call: &mut Call<Dispatcher>, state: Option<Text>, part: &Part) -> i32 {
    let wanted = match state.as_ref().map(|text| &text[..]) {
        None => Some(Wanted::Inactive),
        Some(text) if text.len() == 1 => Wanted::parse(text),
        Some(_) => None,
    };
    let Some(wanted) = wanted else {
        host::complain!(call.ctx, "dispatcher", "a state is i, a or p");
        return -1;
    };
    let Some((set, address)) = failover::current(call.ctx, &part.0) else {
        host::complain!(
            call.ctx,
            "dispatcher",
            "there is no destination in use: ds_select_dst() with flag f comes first"
        );
        return -1;
    };
    let place = Place { partition: &part.0, set, address };
    let module = call.module.clone();
    if module.set_state(call.ctx, &place, wanted, "script function ds_mark()") { 1 } else { -1 }
}

/// ds_mark_dst(), ds_mark_dst("state"), ds_mark_dst("partition", "state")
fn mark_old(call: &mut Call<Dispatcher>, first: Option<Text>, second: Option<Text>) -> i32 {
    let (name, state) = if second.is_some() { (first, second) } else { (None, first) };
    let name = name.map(|name| name.0).unwrap_or_default();
    let Some(part) = named(call.ctx, call.module, &name) else { return -1 };
    mark(call, state, &Part(part))
}

fn count(call: &mut Call<Dispatcher>, set: Int, filter: Text, result: OutVar, part: Part) -> bool {
    let Some(data) = loaded(call.ctx, &part.0) else { return false };
    let Some([active, inactive, probing]) = probing::count(&data, set.0) else {
        host::complain!(call.ctx, "dispatcher", "there is no set {} of destinations", set.0);
        return false;
    };
    let has = |letters: &[u8]| filter.iter().any(|b| letters.contains(&b.to_ascii_lowercase()));
    let mut counted = [(b"a1", active), (b"i0", inactive), (b"p2", probing)];
    if counted.iter().any(|(letters, _)| has(&letters[..])) {
        for (letters, number) in &mut counted {
            if !has(&letters[..]) {
                *number = 0;
            }
        }
    }
    result.set(call.ctx, counted.iter().map(|(_, number)| number).sum::<i64>())
}

/// ds_count("partition : set", filter, result)
fn count_old(call: &mut Call<Dispatcher>, set: Text, filter: Text, result: OutVar) -> bool {
    let (name, set) = split_partition(&set);
    let Some(set) = host::arg::parse_int(set) else {
        let set = String::from_utf8_lossy(set).into_owned();
        host::complain!(call.ctx, "dispatcher", "ds_count: `{set}` is no number of a set");
        return false;
    };
    let Some(part) = named(call.ctx, call.module, name) else { return false };
    count(call, Int(set), filter, result, Part(part))
}

/// ds_is_in_list(ip, port, [set], [partition], [active only], [pattern])
fn is_in_list(
    call: &mut Call<Dispatcher>,
    ip: Text,
    port: Int,
    set: Option<Int>,
    part: Part,
    active_only: Option<Int>,
    pattern: Option<Text>,
) -> bool {
    let set = set.map_or(-1, |set| set.0);
    let Some(address) = u16::try_from(port.0).ok().and_then(|port| Address::parse(&ip, port)) else {
        return false;
    };
    let active_only = active_only.is_some_and(|n| n.0 != 0);
    find_in_list(call, &part.0, &address, set, active_only, pattern.map(|p| p.0))
}

fn find_in_list(
    call: &mut Call<Dispatcher>,
    part: &Partition,
    address: &Address,
    set: i64,
    active_only: bool,
    pattern: Option<Bytes>,
) -> bool {
    let Some(data) = part.data.get() else { return false };
    let fits = |attrs: &Bytes| match &pattern {
        None => true,
        Some(_) if attrs.is_empty() => false,
        // A dot in front is matched by a dot only (FNM_PERIOD).
        Some(pattern) => (attrs[0] != b'.' || pattern.first() == Some(&b'.')) && glob(pattern, attrs),
    };
    let found = data.entries(set).find(|(_, entry)| {
        entry.to.is_at(address) && (!active_only || entry.to.is_active()) && fits(&entry.attrs)
    });
    let Some((found_in, entry)) = found else { return false };
    if let (-1, Some(var)) = (set, &call.module.setid_pvar)
        && !var.set(call.ctx, found_in.id)
    {
        return false;
    }
    failover::push_attrs(call.ctx, part, entry);
    true
}

/// ds_is_in_list(ip, port, ["partition : set"], [active only])
fn is_in_list_old(
    call: &mut Call<Dispatcher>,
    ip: Text,
    port: Option<Text>,
    set: Option<Text>,
    active_only: Option<Text>,
) -> bool {
    let number = |text: &[u8]| if text.is_empty() { Some(0) } else { host::arg::parse_int(text) };
    let port = number(port.as_ref().map_or(b"", |p| p.trim_ascii())).and_then(|p| u16::try_from(p).ok());
    let Some(address) = port.and_then(|port| Address::parse(&ip, port)) else { return false };
    let set = set.map(|set| set.0).unwrap_or_default();
    let (name, set) = split_partition(&set);
    let Some(set) = (if set.is_empty() { Some(-1) } else { host::arg::parse_int(set) }) else { return false };
    let Some(part) = named(call.ctx, call.module, name) else { return false };
    let active_only = active_only.is_some_and(|text| number(&text).is_some_and(|n| n != 0));
    find_in_list(call, &part, &address, set, active_only, None)
}

/// ds_push_script_attrs(attributes, ip, port, [set], [partition])
fn push_script_attrs(
    call: &mut Call<Dispatcher>,
    attrs: Text,
    ip: Text,
    port: Int,
    set: Option<Int>,
    part: Part,
) -> bool {
    let address = u16::try_from(port.0).ok().and_then(|port| Address::parse(&ip, port));
    let Some(address) = address else {
        host::complain!(call.ctx, "dispatcher", "ds_push_script_attrs: this is no IP address and port");
        return false;
    };
    push_to(&part.0, &attrs, &address, set.map_or(-1, |set| set.0));
    true
}

/// Gives every destination at an address attributes of the script's.
pub fn push_to(part: &Partition, attrs: &Bytes, address: &Address, set: i64) {
    let Some(data) = part.data.get() else { return };
    let attrs = Bytes::copy_from_slice(attrs);
    data.entries(set)
        .filter(|(_, entry)| entry.to.is_at(address))
        .for_each(|(_, entry)| *entry.script_attrs.write() = Some(attrs.clone()));
}

/// ds_get_script_attrs(uri, set, [partition], variable)
fn get_script_attrs(call: &mut Call<Dispatcher>, uri: Text, set: Int, part: Part, out: OutVar) -> bool {
    let Some(data) = part.0.data.get() else { return false };
    let found = data.entries(set.0).find(|(_, entry)| entry.next_hop == uri.0);
    let Some(attrs) = found.map(|(_, entry)| entry.script_attrs.read().clone().unwrap_or_default()) else {
        return false;
    };
    out.set(call.ctx, attrs);
    true
}
