//! `do_routing`: the rule of a number, its destinations in order, and what follows when they have failed.
//!
//! ```text
//!  group ──► rule (longest prefix, then rules without one) ──► its route, if any ──► destinations ──► R-URI and AVPs
//!              ▲                                                                        │ none is left
//!              └─────────── F: the next rule under the prefix, then a shorter one ◄─────┘
//! ```

use super::Drouting;
use super::args::{Attrs, Chosen, Number, OF_CARRIER, OF_GATEWAY, OF_RULE, Outs};
use super::data::{Data, Order};
use super::lists;
use super::partition::Partition;
use super::push::{ByQuality, Push, places};
use super::tree::{Destination as Target, Rule};
use bytes::Bytes;
use host::avp::Avps;
use host::call::{DEFAULT_LIMIT_MS, Finish, Suspension};
use host::db::{DbError, Pool, Query, Rows};
use host::{Call, Ctx, MsgState, Outcome, Text};
use script::ast::RouteKind;
use script::{End, RouteId, Value};
use sip::Uri;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// How rules are looked for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// The next rule is used when this one has failed.
    pub const FALLBACK: Flags = Flags(1);
    /// The prefix must be the whole number.
    pub const STRICT: Flags = Flags(2);
    /// It is only looked whether there is a rule.
    pub const CHECK: Flags = Flags(4);
    /// 2.1: destinations of rules are ordered by weights, whatever the rule says.
    pub const WEIGHTS: Flags = Flags(8);

    /// Unknown letters mean nothing.
    pub fn parse(letters: &[u8]) -> Flags {
        letters.iter().fold(Flags(0), |flags, letter| match letter {
            b'F' => flags.with(Flags::FALLBACK),
            b'L' => flags.with(Flags::STRICT),
            b'C' => flags.with(Flags::CHECK),
            _ => flags,
        })
    }

    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

/// do_routing([group], [flags], [white list], [rule attributes], [gateway attributes], [carrier attributes],
/// [partition])
#[allow(clippy::too_many_arguments)]
pub fn do_routing(
    call: &mut Call<Drouting>,
    group: Number,
    flags: Option<Text>,
    whitelist: Option<Text>,
    rule: Option<Attrs<OF_RULE>>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    let flags = flags.map_or(Flags(0), |flags| Flags::parse(&flags));
    begin(call, group.0, flags, whitelist.map(|list| list.0), Outs::new(rule, gateway, carrier), chosen)
}

/// The same, from arguments that were read.
pub fn begin(
    call: &mut Call<Drouting>,
    group: Option<i64>,
    flags: Flags,
    whitelist: Option<Bytes>,
    outs: Outs,
    chosen: Chosen,
) -> Outcome {
    let module = call.module.clone();
    let partitions = match chosen {
        Chosen::One(partition) => vec![partition],
        Chosen::All => module.partitions(),
    };
    let wanted = Wanted { module, flags, whitelist, outs };
    loaded(call.ctx, wanted, partitions, group.filter(|group| *group >= 0))
}

/// Waits until all partitions were read once.
fn loaded(ctx: &mut Ctx, wanted: Wanted, partitions: Vec<Arc<Partition>>, group: Option<i64>) -> Outcome {
    match partitions.iter().find(|partition| !partition.was_tried()).cloned() {
        None => with_group(ctx, wanted, partitions, group),
        Some(partition) => partition.when_tried(ctx, "do_routing", move |ctx| {
            let outcome = loaded(ctx, wanted, partitions, group);
            ctx.wait_again(outcome)
        }),
    }
}

/// What the script asks for.
#[derive(Clone)]
struct Wanted {
    module: Arc<Drouting>,
    flags: Flags,
    whitelist: Option<Bytes>,
    outs: Outs,
}

/// Asks for the group of the caller when none was given.
fn with_group(ctx: &mut Ctx, wanted: Wanted, partitions: Vec<Arc<Partition>>, group: Option<i64>) -> Outcome {
    if let Some(group) = group {
        let groups = vec![Some(group as u32); partitions.len()];
        return try_all(ctx, wanted, partitions.into_iter().zip(groups).collect());
    }
    let from = ctx.state.msg.from().and_then(|from| Uri::parse(&from.uri).ok());
    let Some(from) = from else {
        host::complain!(ctx, "drouting", "the URI of From cannot be read");
        return (-1).into();
    };
    let module = &wanted.module;
    let mut asked: Vec<(Rc<dyn Pool>, Query)> = Vec::new();
    for partition in &partitions {
        let user = from.user.clone().unwrap_or_default();
        let mut query = Query::select(&partition.tables.groups)
            .column(&module.group_columns.group)
            .eq(&module.group_columns.user, user);
        if module.settings.use_domain {
            query = query.eq(&module.group_columns.domain, from.host.clone());
        }
        asked.push((partition.db.on(ctx), query));
    }
    let detail = asked.first().map(|(_, query)| query.detail()).unwrap_or_default();
    Suspension::future("do_routing", async move {
        let mut answers = Vec::new();
        for (pool, query) in asked {
            answers.push(pool.run(query).await);
        }
        Box::new(move |ctx: &mut Ctx| {
            let groups: Vec<_> =
                answers.into_iter().map(|rows| group_of(ctx, &wanted.module, rows)).collect();
            let outcome = try_all(ctx, wanted, partitions.into_iter().zip(groups).collect());
            ctx.wait_again(outcome)
        }) as Finish
    })
    .detail(detail)
    .limit(host::db::LIMIT_MS, -1)
}

/// `None`: the caller has no group.
fn group_of(ctx: &mut Ctx, module: &Drouting, rows: Result<Rows, DbError>) -> Option<u32> {
    let found = match rows {
        Err(error) => {
            host::complain!(ctx, "drouting", "the group of the caller is not known: {error}");
            return None;
        }
        Ok(rows) => rows.first().map(|row| row.int(0)),
    };
    match found {
        Some(Some(group)) => Some(group as u32),
        Some(None) => {
            host::complain!(ctx, "drouting", "the group of the caller is no number");
            None
        }
        None => {
            let group = module.settings.default_group.filter(|group| *group >= 0);
            if group.is_none() {
                host::complain!(ctx, "drouting", "the caller has no group, and there is no default_group");
            }
            group.map(|group| group as u32)
        }
    }
}

/// One partition, or one after the other until a rule is found.
fn try_all(ctx: &mut Ctx, wanted: Wanted, partitions: VecDeque<(Arc<Partition>, Option<u32>)>) -> Outcome {
    let rest = (partitions.len() > 1).then_some(Rest { wanted: wanted.clone(), partitions: VecDeque::new() });
    try_next(ctx, &wanted, partitions, rest)
}

/// What a search in one of several partitions is followed by.
struct Rest {
    wanted: Wanted,
    partitions: VecDeque<(Arc<Partition>, Option<u32>)>,
}

fn try_next(
    ctx: &mut Ctx,
    wanted: &Wanted,
    mut partitions: VecDeque<(Arc<Partition>, Option<u32>)>,
    mut rest: Option<Rest>,
) -> Outcome {
    while let Some((partition, group)) = partitions.pop_front() {
        if let Some(mut search) = Search::new(ctx, wanted, &partition, group) {
            if let Some(rest) = &mut rest {
                rest.partitions = partitions;
            }
            search.rest = rest;
            return search.run(ctx);
        }
    }
    Outcome::Done(-1)
}

/// One routing in one partition.
pub struct Search {
    module: Arc<Drouting>,
    partition: Arc<Partition>,
    data: Arc<Data>,
    group: u32,
    flags: Flags,
    whitelist: Option<Bytes>,
    outs: Outs,
    /// The R-URI that new ones are made of.
    uri: Uri,
    /// What prefixes are looked for in; it gets shorter as longer prefixes fail.
    number: Bytes,
    /// Rules of the prefix that were used; -1: even the last without a prefix was.
    index: i64,
    /// It goes on after destinations failed.
    resumed: bool,
    /// The rule that was found, and how much of the number is its prefix.
    rule: Option<(Rule, usize)>,
    /// `None`: this is the only partition.
    rest: Option<Rest>,
}

enum Next {
    Done(i32),
    /// The rule leads nowhere now: the next one.
    Again,
}

impl Search {
    /// A first search; `None`: it fails. AVPs of an earlier routing are gone, unless it only checks.
    fn new(ctx: &mut Ctx, wanted: &Wanted, partition: &Arc<Partition>, group: Option<u32>) -> Option<Search> {
        let data = partition.data()?;
        if !wanted.flags.has(Flags::CHECK) {
            clear(ctx, partition);
        }
        let group = group?;
        let uri = host::context::uri::parse(&ctx.state.current_uri());
        let Some(uri) = uri else {
            host::complain!(ctx, "drouting", "the R-URI cannot be read");
            return None;
        };
        Some(Search {
            module: wanted.module.clone(),
            partition: partition.clone(),
            data,
            group,
            flags: wanted.flags,
            whitelist: wanted.whitelist.clone(),
            outs: wanted.outs.clone(),
            number: uri.user.clone().unwrap_or_default(),
            uri,
            index: 0,
            resumed: false,
            rule: None,
            rest: None,
        })
    }

    /// The next rule after all destinations of one have failed (`use_next_gw`); `None`: the script did not ask for
    /// this, or nothing is left.
    pub fn resume(
        ctx: &mut Ctx,
        module: &Arc<Drouting>,
        partition: &Arc<Partition>,
        outs: Outs,
    ) -> Option<Search> {
        let names = &partition.avps.fallback;
        let data = partition.data()?;
        let kept = {
            let avps = ctx.state.avps.borrow();
            let number = |name| avps.first(name).and_then(Value::int);
            let text = |name| avps.first(name).and_then(Value::text);
            let flags = Flags(number(names.flags)? as u8);
            let kept = (number(names.group)? as u32, text(names.whitelist), number(names.index)?);
            flags.has(Flags::FALLBACK).then_some((flags, kept, text(names.prefix)?, text(names.ruri)?))?
        };
        let (flags, (group, whitelist, index), number, ruri) = kept;
        clear(ctx, partition);
        if number.is_empty() && index < 0 {
            return None;
        }
        let uri = host::context::uri::parse(&ruri)?;
        let (module, partition) = (module.clone(), partition.clone());
        let rule = None;
        Some(Search {
            module,
            partition,
            data,
            group,
            flags,
            whitelist,
            outs,
            uri,
            number,
            index,
            resumed: true,
            rule,
            rest: None,
        })
    }

    pub fn run(mut self, ctx: &mut Ctx) -> Outcome {
        loop {
            let Some(route) = self.find(ctx) else { return self.ended(ctx, -1) };
            if let Some(route) = route {
                let what = "the route of a rule";
                return ctx.call_route_within(route, what, DEFAULT_LIMIT_MS, -1, move |ctx, state, end| {
                    self.after_route(ctx, *state, end)
                });
            }
            match self.choose(ctx) {
                Next::Done(rc) => return self.ended(ctx, rc),
                Next::Again => {}
            }
        }
    }

    /// The search in this partition is over; the next one follows when nothing was found.
    fn ended(mut self, ctx: &mut Ctx, rc: i32) -> Outcome {
        let Some(mut rest) = self.rest.take() else { return Outcome::Done(rc) };
        if rc > 0 {
            self.module.note_partition(ctx, &self.partition);
            return Outcome::Done(rc);
        }
        let (wanted, partitions) = (rest.wanted.clone(), std::mem::take(&mut rest.partitions));
        try_next(ctx, &wanted, partitions, Some(rest))
    }

    fn after_route(mut self, ctx: &mut Ctx, state: MsgState, end: End) -> Outcome {
        ctx.state.take_changes(state);
        if end == End::Drop {
            return self.ended(ctx, -1);
        }
        match self.choose(ctx) {
            Next::Done(rc) => self.ended(ctx, rc),
            Next::Again => self.run(ctx),
        }
    }

    /// Finds the next rule, and the route that it wants to run; `None`: there is none.
    fn find(&mut self, ctx: &mut Ctx) -> Option<Option<RouteId>> {
        if let Some((_, length)) = self.rule {
            let shorter = length.saturating_sub(usize::from(self.index == 0));
            self.number.truncate(shorter);
            if shorter == 0 && self.index <= 0 {
                return None;
            }
        }
        let now_s = (ctx.core.wall_us / 1_000_000) as i64;
        let from = usize::try_from(self.index).unwrap_or(0);
        let mut found = self.data.by_prefix(&self.number, self.group, from, now_s);
        if self.flags.has(Flags::STRICT) && found.is_none_or(|found| found.length != self.number.len()) {
            return None;
        }
        let by_default = found.is_none();
        if by_default && self.index >= 0 {
            found = self.data.by_default(self.group, from, now_s);
        }
        let found = found?;
        let (rule, length, next) = (*found.rule, found.length, found.next as i64);
        self.index = if by_default && next == 0 { -1 } else { next };
        self.rule = Some((rule, length));
        let route = self.data.traits(&rule).route.as_ref();
        // A route that is not there now is none.
        Some(route.and_then(|name| ctx.shared().program().route(RouteKind::Request, Some(name))))
    }

    /// Uses the rule that was found.
    fn choose(&mut self, ctx: &mut Ctx) -> Next {
        let Some((rule, length)) = self.rule else { return Next::Done(-1) };
        if !self.flags.has(Flags::CHECK) {
            // Whether anything is left to fall back to.
            if length == 0 && self.index <= 0 {
                self.flags = self.flags.without(Flags::FALLBACK);
            }
            let pushed = self.push_destinations(ctx, &rule);
            if pushed == 0 {
                return if self.flags.has(Flags::FALLBACK) { Next::Again } else { Next::Done(-1) };
            }
        }
        self.push_rule(ctx, &rule, length);
        if self.flags.has(Flags::FALLBACK) {
            self.keep(ctx, length);
        } else if self.resumed {
            ctx.state.avps.borrow_mut().remove_all(self.partition.avps.fallback.flags);
        }
        Next::Done(1)
    }

    /// How many gateways can be tried: the first is the R-URI, the others wait in AVPs.
    fn push_destinations(&mut self, ctx: &mut Ctx, rule: &Rule) -> usize {
        let data = self.data.clone();
        let targets = data.tree.destinations(rule);
        let listed = self.listed(&data);
        let is_listed =
            |target: &Target| listed.as_ref().is_none_or(|list| list.iter().any(|l| same(l, target)));
        let order = match self.flags.has(Flags::WEIGHTS) {
            true => Order::Weights,
            false => data.traits(rule).order,
        };
        let by = self.module.quality.get().filter(|_| order == Order::Quality);
        let rated = by.zip(data.rated(rule.id));
        let rated = rated.map(|(by, rule)| ByQuality { by, partition: &self.partition, rule });
        let places = match rated {
            Some(rated) => rated.places(ctx),
            None => places(ctx, targets, order),
        };
        let mut push = Push::new(&self.module, &self.partition, &self.uri);
        for at in places.into_iter().filter(|at| is_listed(&targets[*at])) {
            push.target(ctx, &data.ends, targets[at], rated.map(|rated| (rated, &rated.rule.targets[at])));
        }
        push.done(ctx, &self.outs)
    }

    /// What the white list allows; `None`: all, also when it is malformed or names nobody.
    fn listed(&self, data: &Data) -> Option<Vec<Target>> {
        let list = self.whitelist.as_ref()?;
        let found = lists::destinations(list, &self.partition.ids, &data.ends, |_| ());
        found.ok().filter(|list| !list.is_empty())
    }

    fn push_rule(&self, ctx: &mut Ctx, rule: &Rule, length: usize) {
        let names = &self.partition.avps;
        let attrs = Value::Str(Bytes::copy_from_slice(self.data.tree.attrs(rule)));
        let keeps_attrs = self.module.wants_attrs(OF_RULE);
        {
            let mut avps = ctx.state.avps.borrow_mut();
            if let Some(name) = names.rule_prefix {
                avps.add(name, Value::Str(self.number.slice(..length)));
            }
            if keeps_attrs {
                avps.add(names.rule_attrs, attrs.clone());
            }
            if let Some(name) = names.rule_id {
                avps.add(name, Value::Int(i64::from(rule.id)));
            }
        }
        if let Some(out) = &self.outs.rule {
            out.set(ctx, attrs);
        }
    }

    /// Remembers where to go on.
    fn keep(&self, ctx: &mut Ctx, length: usize) {
        let names = &self.partition.avps.fallback;
        let mut avps = ctx.state.avps.borrow_mut();
        if self.resumed {
            avps.replace(names.index, 0, Value::Int(self.index));
            if self.index == 0 {
                let shorter = self.number.slice(..length.saturating_sub(1));
                avps.replace(names.prefix, 0, Value::Str(shorter));
            }
            return;
        }
        // A single rule has no other to fall back to, as in the reference.
        if self.index <= 0 {
            return;
        }
        avps.add(names.index, Value::Int(self.index));
        avps.add(names.prefix, Value::Str(self.number.slice(..length)));
        avps.add(names.ruri, Value::Str(self.uri.text.clone()));
        if let Some(list) = self.whitelist.as_ref().filter(|_| self.listed(&self.data).is_some()) {
            avps.add(names.whitelist, Value::Str(list.clone()));
        }
        avps.add(names.group, Value::Int(i64::from(self.group)));
        avps.add(names.flags, Value::Int(i64::from(self.flags.0)));
    }
}

fn same(a: &Target, b: &Target) -> bool {
    (a.which, a.is_carrier) == (b.which, b.is_carrier)
}

/// Removes what an earlier routing left.
pub fn clear(ctx: &mut Ctx, partition: &Partition) {
    let names = &partition.avps;
    let mut avps = ctx.state.avps.borrow_mut();
    let always =
        [names.ruri, names.gw_id, names.gw_sock, names.rule_attrs, names.gw_attrs, names.carrier_attrs];
    let wanted = [names.carrier_id, names.gw_priprefix, names.rule_id, names.rule_prefix];
    let remove = |name| {
        let _: usize = Avps::remove_all(&mut avps, name);
    };
    always.into_iter().chain(wanted.into_iter().flatten()).for_each(remove);
}
