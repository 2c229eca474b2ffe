//! Whether a message comes from a gateway or goes to one: `is_from_gw`, `goes_to_gw`, `dr_is_gw`.

use super::Drouting;
use super::args::{Attrs, Chosen, Number, OF_CARRIER, OF_GATEWAY};
use super::partition::Partition;
use crate::destinations::Place;
use bytes::Bytes;
use host::call::{DEFAULT_LIMIT_MS, Finish, Suspension};
use host::ctx::Resolved;
use host::vars::uri::edit_request;
use host::{Call, Ctx, OutVar, Outcome, Text};
use script::Value;
use sip::names::{Hop, Query, ResolveError, Security};
use sip::{Scheme, Uri};
use std::sync::Arc;

/// What is done when a gateway is found.
#[derive(Clone, Copy, Default)]
struct Actions {
    strip: bool,
    prefix: bool,
    id: bool,
    any_port: bool,
    carrier: bool,
    protocol: bool,
}

impl Actions {
    fn parse(letters: Option<&[u8]>) -> Actions {
        let mut actions = Actions::default();
        for letter in letters.unwrap_or_default() {
            match letter {
                b's' => actions.strip = true,
                b'p' => actions.prefix = true,
                b'i' => actions.id = true,
                b'n' => actions.any_port = true,
                b'c' => actions.carrier = true,
                b'r' => actions.protocol = true,
                other => host::warn!("drouting", "there is no flag `{}` of a gateway", char::from(*other)),
            }
        }
        actions
    }
}

/// What is asked: a type (`None`: any), and what is wanted of the gateway.
pub struct Question {
    kind: Option<i64>,
    actions: Actions,
    gateway: Option<OutVar>,
    carrier: Option<OutVar>,
}

impl Question {
    pub fn new(
        kind: Option<i64>,
        flags: Option<&[u8]>,
        gateway: Option<OutVar>,
        carrier: Option<OutVar>,
    ) -> Question {
        Question { kind: kind.filter(|kind| *kind >= 0), actions: Actions::parse(flags), gateway, carrier }
    }
}

fn question(
    kind: Number,
    flags: Option<Text>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
) -> Question {
    let flags = flags.as_ref().map(|flags| &flags[..]);
    Question::new(kind.0, flags, gateway.map(|a| a.0), carrier.map(|a| a.0))
}

/// is_from_gw([type], [flags], [gateway attributes], [carrier attributes], [partition])
pub fn is_from_gw(
    call: &mut Call<Drouting>,
    kind: Number,
    flags: Option<Text>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    from(call, question(kind, flags, gateway, carrier), chosen)
}

/// goes_to_gw([type], [flags], [gateway attributes], [carrier attributes], [partition])
pub fn goes_to_gw(
    call: &mut Call<Drouting>,
    kind: Number,
    flags: Option<Text>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    goes(call, question(kind, flags, gateway, carrier), chosen)
}

/// dr_is_gw(uri, [type], [flags], [gateway attributes], [carrier attributes], [partition])
pub fn dr_is_gw(
    call: &mut Call<Drouting>,
    uri: Text,
    kind: Number,
    flags: Option<Text>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    of_uri(call, uri.0, question(kind, flags, gateway, carrier), chosen)
}

/// The sender of the message.
pub fn from(call: &mut Call<Drouting>, question: Question, chosen: Chosen) -> Outcome {
    let source = call.state.source;
    let place =
        Place { ip: source.remote.ip(), port: source.remote.port(), transport: Some(source.transport) };
    when_loaded(call, "is_from_gw", chosen, move |ctx, module, partitions| {
        look(ctx, &module, &partitions, &question, place)
    })
}

/// Where the message goes now.
pub fn goes(call: &mut Call<Drouting>, question: Question, chosen: Chosen) -> Outcome {
    let uri = call.state.dst_uri.clone().unwrap_or_else(|| call.state.current_uri());
    of_uri(call, uri, question, chosen)
}

/// The host of a URI; a name is looked up, which the script waits for.
pub fn of_uri(call: &mut Call<Drouting>, uri: Bytes, question: Question, chosen: Chosen) -> Outcome {
    let Ok(uri) = Uri::parse(&uri) else {
        host::complain!(call.ctx, "drouting", "{} is no URI", String::from_utf8_lossy(&uri));
        return (-1).into();
    };
    let transport = uri.transport();
    if let Some(place) = Place::parse(&uri.host, uri.port) {
        // As in the reference: what sips: without a port means for ports is not asked.
        let port = if place.port == 0 && uri.scheme == Scheme::Sip { 5060 } else { place.port };
        let place = Place { port, transport, ..place };
        return when_loaded(call, "a gateway", chosen, move |ctx, module, partitions| {
            look(ctx, &module, &partitions, &question, place)
        });
    }
    let query = Query {
        host: String::from_utf8_lossy(&uri.host).into_owned(),
        port: uri.port,
        transport,
        security: if uri.scheme == Scheme::Sips { Security::Sips } else { Security::Sip },
    };
    let module = call.module.clone();
    let partitions = chosen_ones(&module, chosen);
    let resolved = call.core.spawner.resolve(query);
    let answer = move |ctx: &mut Ctx, found: Result<Vec<Hop>, ResolveError>| {
        let Some(hop) = found.ok().and_then(|hops| hops.first().copied()) else { return -1 };
        let place = Place { ip: hop.addr.ip(), port: hop.addr.port(), transport: Some(hop.transport) };
        look(ctx, &module, &partitions, &question, place)
    };
    match resolved {
        Resolved::Now(found) => answer(call.ctx, found).into(),
        Resolved::Later(found) => Suspension::future("a gateway", async move {
            let found = found.await;
            Box::new(move |ctx: &mut Ctx| answer(ctx, found)) as Finish
        })
        .detail(uri.host)
        .limit(DEFAULT_LIMIT_MS, -1),
    }
}

fn chosen_ones(module: &Drouting, chosen: Chosen) -> Vec<Arc<Partition>> {
    match chosen {
        Chosen::One(partition) => vec![partition],
        Chosen::All => module.partitions(),
    }
}

fn when_loaded(
    call: &mut Call<Drouting>,
    what: &'static str,
    chosen: Chosen,
    f: impl FnOnce(&mut Ctx, Arc<Drouting>, Vec<Arc<Partition>>) -> i32 + 'static,
) -> Outcome {
    let module = call.module.clone();
    let partitions = chosen_ones(&module, chosen);
    match partitions.iter().find(|partition| !partition.was_tried()).cloned() {
        Some(partition) => partition.when_tried(call.ctx, what, move |ctx| f(ctx, module, partitions)),
        None => f(call.ctx, module, partitions).into(),
    }
}

/// The first gateway there, in one partition after the other.
fn look(
    ctx: &mut Ctx,
    module: &Drouting,
    partitions: &[Arc<Partition>],
    question: &Question,
    place: Place,
) -> i32 {
    let port = if question.actions.any_port { 0 } else { place.port };
    let place = Place { port, transport: place.transport.filter(|_| question.actions.protocol), ..place };
    for partition in partitions {
        if found(ctx, partition, question, &place) {
            if partitions.len() > 1 {
                module.note_partition(ctx, partition);
            }
            return 1;
        }
    }
    -1
}

fn found(ctx: &mut Ctx, partition: &Partition, question: &Question, place: &Place) -> bool {
    let Some(data) = partition.data() else { return false };
    let Some(gateway) = data.ends.gateway_at(question.kind, place) else { return false };
    let (actions, names) = (question.actions, &partition.avps);
    if actions.strip && gateway.strip > 0 {
        edit_request(ctx, |uri| {
            let user = uri.user.as_deref().unwrap_or_default();
            uri.with_user(user.get(gateway.strip..).unwrap_or_default())
        });
    }
    if let Some(prefix) = gateway.prefix.clone().filter(|_| actions.prefix) {
        if let Some(name) = names.gw_priprefix {
            ctx.state.avps.borrow_mut().add(name, Value::Str(prefix.clone()));
        }
        edit_request(ctx, |uri| {
            uri.with_user(&[&prefix[..], uri.user.as_deref().unwrap_or_default()].concat())
        });
    }
    if let Some(out) = &question.gateway {
        out.set(ctx, Value::Str(gateway.attrs.clone()));
    }
    if actions.id {
        ctx.state.avps.borrow_mut().add(names.gw_id, Value::Str(gateway.id.clone()));
    }
    let wants_carrier = (actions.carrier && names.carrier_id.is_some()) || question.carrier.is_some();
    if let Some(carrier) = data.ends.carrier_of(gateway).filter(|_| wants_carrier) {
        if let Some(name) = names.carrier_id.filter(|_| actions.carrier) {
            ctx.state.avps.borrow_mut().add_last(name, Value::Str(carrier.id.clone()));
        }
        if let Some(out) = &question.carrier {
            out.set(ctx, Value::Str(carrier.attrs.clone()));
        }
    }
    true
}
