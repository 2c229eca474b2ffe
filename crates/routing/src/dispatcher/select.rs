//! Which destination of a set it is: the algorithms of `ds_select_dst`.

use super::data::{Data, Set, Turn};
use super::hash::{self, Scope};
use super::{Dispatcher, flags::Flags};
use host::{Ctx, Value};
use std::cmp::Ordering;

/// What a selection is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub set: i64,
    pub algorithm: i64,
    pub flags: Flags,
    /// Destinations in the list for failover, the selected one among them.
    pub max_results: i64,
}

/// The order in which destinations are tried, by their places in the set, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub order: Vec<usize>,
    pub at: usize,
}

/// How the candidate is found.
enum Way {
    Hash(u32),
    /// This one.
    Place(usize),
    Sorted(Vec<usize>),
}

/// `scores`: what the route of algorithm 10 gave each destination.
pub fn choose(
    ctx: &mut Ctx,
    module: &Dispatcher,
    data: &Data,
    ask: &Ask,
    scores: Option<&[i64]>,
) -> Option<Chosen> {
    let set = usable(ctx, data, ask)?;
    let count = set.entries.len();
    // The last destination stays out with "use default", unless it is the only one.
    let size = if ask.flags.default && count > 1 { count - 1 } else { count };
    let mut turn = set.turn.lock();
    let way = match ask.algorithm {
        4 => Way::Place(next_turn(set, &mut turn, size)),
        5 => hash::of_credentials(ctx).map_or(Way::Place(turn.last), Way::Hash),
        9 | 10 => {
            drop(turn);
            let way = sorted(ctx, module, set, ask, scores)?;
            turn = set.turn.lock();
            way
        }
        algorithm => hashed(ctx, module, algorithm, ask.flags)?,
    };
    let chosen = match way {
        Way::Sorted(order) => Chosen { order, at: 0 },
        Way::Hash(hash) => {
            let candidate = by_weight(set, size, hash, |_| true);
            Chosen { order: (0..count).collect(), at: settle(set, size, ask.flags, candidate, hash)? }
        }
        Way::Place(place) => {
            Chosen { order: (0..count).collect(), at: settle(set, size, ask.flags, place, 0)? }
        }
    };
    turn.last = chosen.at;
    if ask.algorithm == 4
        && let Some(taken) = turn.taken.get_mut(chosen.at)
    {
        *taken += 1;
    }
    Some(chosen)
}

/// The set, when a destination of it is active.
pub fn usable<'a>(ctx: &mut Ctx, data: &'a Data, ask: &Ask) -> Option<&'a Set> {
    let Some(set) = data.set(ask.set) else {
        host::complain!(ctx, "dispatcher", "there is no set {} of destinations", ask.set);
        return None;
    };
    set.entries.iter().any(|entry| entry.to.is_active()).then_some(set)
}

/// The ways that need no look at the set.
fn hashed(ctx: &mut Ctx, module: &Dispatcher, algorithm: i64, flags: Flags) -> Option<Way> {
    let scope = if flags.user_only { Scope::User } else { Scope::Whole };
    let found = match algorithm {
        0 => hash::of_call_id(ctx),
        1 => hash::of_from(ctx, scope),
        2 => hash::of_to(ctx, scope),
        3 => {
            let uri = ctx.state.current_uri();
            hash::of_uri(ctx, &uri, scope)
        }
        6 => Some(ctx.core.rng.next_u64() as u32 >> 1),
        7 => {
            let text = module.hash_pvar.as_ref().map(|format| format.text(ctx));
            text.map(|text| text.trim_ascii().to_vec()).filter(|t| !t.is_empty()).map(|t| hash::hash(&t, b""))
        }
        // 8, and any that there is not.
        _ => return Some(Way::Place(0)),
    };
    if found.is_none() {
        host::complain!(ctx, "dispatcher", "algorithm {algorithm} finds nothing to hash");
    }
    found.map(Way::Hash)
}

/// Weighted round robin: each is taken as often as its weight says before the next one is; one of weight 0 is taken
/// once, too.
fn next_turn(set: &Set, turn: &mut Turn, size: usize) -> usize {
    let last = turn.last.min(set.entries.len() - 1);
    if turn.taken[last] < set.entries[last].weight {
        return last;
    }
    turn.taken[last] = 0;
    (last + 1) % size
}

/// The place that a hash falls on, by weights, among the first `size` that `counts`. Without any weight each is as
/// likely.
fn by_weight(set: &Set, size: usize, hash: u32, counts: impl Fn(usize) -> bool) -> usize {
    let places: Vec<usize> = (0..size).filter(|place| counts(*place)).collect();
    let total: u64 = places.iter().map(|place| u64::from(set.entries[*place].weight)).sum();
    if total == 0 {
        return places.get(hash as usize % places.len().max(1)).copied().unwrap_or(0);
    }
    let mut rest = u64::from(hash) % total;
    let falls_here = |place: &&usize| {
        let weight = u64::from(set.entries[**place].weight);
        if rest < weight {
            return true;
        }
        rest -= weight;
        false
    };
    places.iter().find(falls_here).copied().unwrap_or(0)
}

/// The candidate if it is active, else another one that is, else the default destination.
fn settle(set: &Set, size: usize, flags: Flags, candidate: usize, hash: u32) -> Option<usize> {
    let active = |place: usize| set.entries[place].to.is_active();
    if active(candidate) {
        return Some(candidate);
    }
    let other = if hash == 0 {
        (1..=size).map(|step| (candidate + step) % size).find(|place| active(*place))
    } else if (0..size).any(active) {
        Some(by_weight(set, size, hash, active)).filter(|place| active(*place))
    } else {
        None
    };
    let default = set.entries.len() - 1;
    other.or_else(|| Some(default).filter(|place| flags.default && active(*place)))
}

/// Algorithms 9 and 10: by a number for each active destination, the lowest first.
fn sorted(ctx: &mut Ctx, module: &Dispatcher, set: &Set, ask: &Ask, scores: Option<&[i64]>) -> Option<Way> {
    if ask.algorithm == 9 && module.load_pattern.is_none() {
        host::complain!(
            ctx,
            "dispatcher",
            "algorithm 9 needs pvar_algo_pattern: the first destination is taken"
        );
        return Some(Way::Hash(0));
    }
    let count = set.entries.len();
    let ranked = count - usize::from(ask.flags.default);
    // Who is not ranked stands at the end, the default destination last, before it those that came first.
    let (mut first, mut behind) = (Vec::new(), Vec::new());
    for place in 0..ranked {
        if !set.entries[place].to.is_active() {
            behind.push(place);
            continue;
        }
        let score = match scores {
            Some(scores) => scores.get(place).copied(),
            None => match load_of(ctx, module, set, place) {
                Some(load) => Some(load),
                None => continue,
            },
        };
        match score.filter(|score| scores.is_none() || *score >= 0) {
            Some(score) => first.push((score, place)),
            None => behind.push(place),
        }
    }
    if first.is_empty() {
        return None;
    }
    first.sort_by(|a, b| a.0.cmp(&b.0).then(Ordering::Equal));
    let mut order: Vec<usize> = first.into_iter().map(|(_, place)| place).collect();
    order.extend(behind.into_iter().rev());
    if ask.flags.default {
        order.push(count - 1);
    }
    Some(Way::Sorted(order))
}

/// The load of a destination (algorithm 9); `None`: its variable says none. NULL is 0. A text is no number: one that
/// is written like one is refused, of another one the digits that it begins with count, as in the reference.
fn load_of(ctx: &mut Ctx, module: &Dispatcher, set: &Set, place: usize) -> Option<i64> {
    let pattern = module.load_pattern.as_ref()?;
    let uri = String::from_utf8_lossy(&set.entries[place].to.uri);
    let name = pattern.replace("%u", &uri).replace("%i", &set.id.to_string());
    let Some(var) = ctx.late_var(&name.clone().into()) else {
        host::complain!(ctx, "dispatcher", "{name}, of pvar_algo_pattern, is no variable");
        return None;
    };
    let value = var.get(ctx);
    if value.is_null() {
        return Some(0);
    }
    if let Some(n) = value.int() {
        return Some(n);
    }
    let text = value.to_text();
    match host::arg::parse_int(&text) {
        Some(_) => {
            host::complain!(ctx, "dispatcher", "{name} holds a text and no number");
            None
        }
        None => {
            let digits = text.iter().take_while(|b| b.is_ascii_digit());
            Some(digits.fold(0i64, |n, b| n.wrapping_mul(10).wrapping_add(i64::from(b - b'0'))))
        }
    }
}

/// What `$param` is in the route of algorithm 10 for each destination: (URI, attributes, script attributes).
pub fn route_params(set: &Set, place: usize) -> [Value; 3] {
    let entry = &set.entries[place];
    let attrs = Some(entry.attrs.clone()).filter(|attrs| !attrs.is_empty());
    let script = entry.script_attrs.read().clone();
    let or_null = |text: Option<bytes::Bytes>| text.map_or(Value::Null, Value::Str);
    [Value::Str(entry.next_hop.clone()), or_null(attrs), or_null(script)]
}
