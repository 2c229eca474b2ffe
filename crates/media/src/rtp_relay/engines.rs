//! The engines that a call may have: rtpengine, rtpproxy, or routes of the script.

use super::RtpRelay;
use super::context::{Common, Context, Field, Leg, Side};
use crate::rtpengine::Rtpengine;
use crate::rtpproxy::Rtpproxy;
use bytes::Bytes;
use host::ctx::After;
use host::events::EventParams;
use host::{Ctx, Value};
use script::ast::RouteKind;
use std::pin::Pin;
use std::sync::Arc;

pub const RTPENGINE: &str = "rtpengine";
pub const RTPPROXY: &str = "rtpproxy";
pub const ROUTE: &str = "route";
/// Routes have no sets of their own.
const NO_SET: i64 = -1;

/// The name of an engine, when there is one of that name.
pub fn known(name: &str) -> Option<&'static str> {
    [RTPENGINE, RTPPROXY, ROUTE].into_iter().find(|known| *known == name)
}

/// Its module is loaded.
pub fn is_there(ctx: &Ctx, engine: &str) -> bool {
    match engine {
        RTPENGINE => ctx.shared().module::<Rtpengine>().is_some(),
        RTPPROXY => ctx.shared().module::<Rtpproxy>().is_some(),
        _ => true,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Offer,
    Answer,
    Delete,
}

/// What an engine is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: Kind,
    pub engine: &'static str,
    pub set: Option<i64>,
    pub node: Option<Bytes>,
    /// The branch that it is for alone; -1: all.
    pub index: i32,
    pub body: Option<Bytes>,
    pub ip: Option<Bytes>,
    pub transport: Option<Bytes>,
    pub in_iface: Option<Bytes>,
    pub out_iface: Option<Bytes>,
    pub common: Option<Bytes>,
    pub flags: Option<Bytes>,
    pub peer: Option<Bytes>,
    pub delete: Option<Bytes>,
    /// What takes the place of what the message says; `from` is the party whose description it is.
    pub call_id: Option<Bytes>,
    pub from_tag: Option<Bytes>,
    pub to_tag: Option<Bytes>,
    /// Where the description came from, when that is not the message's source.
    pub source: Option<std::net::IpAddr>,
    /// Nothing is taken from the current message.
    pub detached: bool,
    /// The session that ends is the one that the call had.
    pub established: bool,
}

impl Order {
    /// For what a side says.
    pub fn new(kind: Kind, context: &Context, at: usize, legs: &[Leg; 2], side: Side) -> Option<Order> {
        let session = &context.sessions[at];
        let (own, peer) = (&legs[side as usize], &legs[side.other() as usize]);
        let field = |leg: &Leg, field| leg.get(field).cloned().filter(|text| !text.is_empty());
        let common = |which| context.common(which).cloned();
        // The tags of an answer are those of its offer.
        let first = match kind {
            Kind::Answer => side.other(),
            _ => side,
        };
        let (mut from_tag, mut to_tag) = (common(Common::FromTag), common(Common::ToTag));
        if first == Side::Callee {
            std::mem::swap(&mut from_tag, &mut to_tag);
        }
        Some(Order {
            kind,
            engine: session.engine?,
            set: session.set,
            node: session.node.clone(),
            index: session.index,
            body: field(own, Field::Body),
            ip: field(peer, Field::Ip),
            transport: field(peer, Field::Type),
            in_iface: field(own, Field::Iface),
            out_iface: field(peer, Field::Iface),
            common: common(Common::Flags),
            flags: field(own, Field::Flags),
            peer: field(peer, Field::Peer),
            delete: None,
            call_id: common(Common::CallId),
            from_tag,
            to_tag,
            source: None,
            detached: false,
            established: false,
        })
    }

    /// The end of a session.
    pub fn delete(context: &Context, at: usize, side: Side) -> Option<Order> {
        let established = !context.to_tag.is_empty();
        let legs = context.sessions[at].legs.clone();
        let own = Order::new(Kind::Delete, context, at, &legs, side)?;
        let text = |bytes: &Bytes| Some(bytes.clone()).filter(|bytes| !bytes.is_empty());
        Some(Order {
            body: None,
            ip: None,
            transport: None,
            in_iface: None,
            out_iface: None,
            flags: None,
            peer: None,
            common: own.common.filter(|_| own.engine == ROUTE && context.common(Common::Delete).is_some()),
            delete: joined([context.common(Common::Delete), legs[side as usize].get(Field::Delete)]),
            call_id: context.common(Common::CallId).cloned().or_else(|| text(&context.call_id)),
            from_tag: context.common(Common::FromTag).cloned().or_else(|| text(&context.from_tag)),
            to_tag: context.common(Common::ToTag).cloned().or_else(|| text(&context.to_tag)),
            detached: true,
            established,
            ..own
        })
    }

    /// The end of a session that was never more than offered. rtpengine ends the whole call when no tag is named.
    pub fn refused(self, by: std::net::IpAddr, tag: Bytes) -> Order {
        if self.engine == RTPPROXY {
            return self;
        }
        // The number of the branch says no more here than that it was one.
        let is_route = self.engine == ROUTE;
        let from_tag = self.from_tag.clone().filter(|_| is_route);
        let to_tag = Some(tag).filter(|_| is_route);
        Order { index: 0, source: Some(by), from_tag, to_tag, established: false, ..self }
    }

    /// Letters of flags, one behind the other.
    pub fn letters(&self) -> Vec<u8> {
        let parts = [
            &self.transport,
            &self.in_iface,
            &self.out_iface,
            &self.common,
            &self.flags,
            &self.peer,
            &self.delete,
        ];
        parts.into_iter().flatten().flat_map(|part| part.iter().copied()).collect()
    }
}

/// Texts with a blank between them.
fn joined(parts: [Option<&Bytes>; 2]) -> Option<Bytes> {
    let parts: Vec<&[u8]> = parts.into_iter().flatten().map(|part| &part[..]).collect();
    (!parts.is_empty()).then(|| parts.join(&b' ').into())
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Made {
    pub body: Option<Bytes>,
    pub node: Option<Bytes>,
    pub set: Option<i64>,
}

pub type Asked = Pin<Box<dyn Future<Output = Option<Made>>>>;

/// Begins to ask. `None`: nothing came of it.
pub fn ask(ctx: &mut Ctx, module: &Arc<RtpRelay>, order: Order) -> Option<Asked> {
    match order.engine {
        RTPENGINE => crate::rtpengine::relay::ask(ctx, order),
        RTPPROXY => crate::rtpproxy::relay::ask(ctx, order),
        _ => run_route(ctx, module, order),
    }
}

/// Longest that asking may take.
pub fn limit(ctx: &Ctx, engine: &str) -> u64 {
    match engine {
        RTPENGINE => ctx.shared().module::<Rtpengine>().map_or(0, |m| crate::rtpengine::relay::limit(&m)),
        RTPPROXY => ctx.shared().module::<Rtpproxy>().map_or(0, |m| crate::rtpproxy::relay::limit(&m)),
        _ => host::call::DEFAULT_LIMIT_MS,
    }
}

/// A route of the script does it: `return (1, body, node)`.
fn run_route(ctx: &mut Ctx, module: &RtpRelay, order: Order) -> Option<Asked> {
    let name = match order.kind {
        Kind::Offer => &module.route_offer,
        Kind::Answer => &module.route_answer,
        Kind::Delete => &module.route_delete,
    };
    let route = ctx.shared().program().route(RouteKind::Request, Some(name.as_bytes()));
    let Some(route) = route else {
        host::debug!("rtp_relay", "there is no route[{name}]");
        return None;
    };
    let msg = ctx.state.msg.clone();
    let of_message = |said: &Option<Bytes>, own: Option<Bytes>| match (said, order.detached) {
        (Some(said), _) => Some(said.clone()),
        (None, true) => None,
        (None, false) => Some(own.unwrap_or_default()),
    };
    let call_id = of_message(&order.call_id, msg.call_id());
    // The session of a call that was established is named by its callee.
    let from_tag = match order.kind {
        Kind::Delete if order.established => None,
        _ => of_message(&order.from_tag, msg.from_tag()),
    };
    let to_tag = of_message(&order.to_tag, msg.to_tag());
    let text = |value: &Option<Bytes>| value.clone().map_or(Value::Null, Value::Str);
    let params: EventParams = [
        ("callid", text(&call_id)),
        ("from_tag", text(&from_tag)),
        ("to_tag", text(&to_tag)),
        ("branch", Value::Int(order.index.into())),
        ("body", text(&order.body)),
        ("set", Value::Int(order.set.unwrap_or(NO_SET))),
        ("node", text(&order.node)),
        ("ip", text(&order.ip)),
        ("type", text(&order.transport)),
        ("in-iface", text(&order.in_iface)),
        ("out-iface", text(&order.out_iface)),
        ("ctx-flags", text(&order.common)),
        ("flags", text(&order.flags)),
        ("peer", text(&order.peer)),
        ("delete", text(&order.delete)),
    ]
    .into_iter()
    .collect();
    let (send, receive) = tokio::sync::oneshot::channel();
    let given = order.node.clone();
    let set = order.set.or(Some(NO_SET));
    let wants_body = order.kind == Kind::Offer;
    let before = ctx.state.ext.find::<EventParams>().cloned();
    ctx.state.ext.set(params);
    let after = After::Then(Box::new(move |_, state, end| {
        let text = |n| state.task.returned(n).text().filter(|text| !text.is_empty());
        let done = matches!(end, script::End::Return(code) if code > 0);
        let made = Made { body: text(0), node: text(1).or(given), set };
        // An offer without a description has no answer.
        let done = done && (made.body.is_some() || !wants_body);
        let _ = send.send(done.then_some(made));
    }));
    let kind = ctx.state.kind;
    ctx.fork_run(route, kind, Vec::new(), after);
    match before {
        Some(before) => ctx.state.ext.set(before),
        None => ctx.state.ext.remove::<EventParams>(),
    }
    Some(Box::pin(async move { receive.await.ok().flatten() }))
}
