//! Hiding without a dialog: the contact that an end is shown carries where the other one really is.
//!
//! Towards sockets with the tag `th_internal_trusted_tag` nothing is hidden; there a Record-Route of ours carries the
//! socket of the other side.

use super::codec::Info;
use super::headers::{self, Advertised, Contact};
use super::{Hidden, Th, Users};
use crate::dialog::{Flags, api};
use bytes::Bytes;
use host::Ctx;
use sip::{Anchor, HeaderName, Message, NameAddr, Piece, Uri};
use std::rc::Rc;
use transaction::TxnId;

/// What the replies of a request need.
#[derive(Clone, Debug, Default)]
pub struct Request {
    flags: u8,
    users: Users,
    /// Route set of the end that replies, when it is known already.
    routes: Option<Bytes>,
}

/// What the last contact of ours hid, for `$TH_decoded_...`: `<uri>`, the target first.
#[derive(Clone, Default)]
pub struct Decoded(pub Vec<Bytes>);

fn trusts(ctx: &Ctx, module: &Th, socket: u16) -> bool {
    let tag = ctx.core.shared.sockets.get(usize::from(socket)).and_then(|s| s.tag.as_deref());
    !module.trusted_tag.is_empty() && tag == Some(&*module.trusted_tag)
}

fn flags_of(bits: u8) -> Flags {
    if bits & KEEP_USER != 0 { Flags::KEEP_USER } else { Flags::default() }
}

/// As in the column `module_flags` of dialogs.
const KEEP_USER: u8 = 1 << 2;

/// A request that `topology_hiding()` was called for: 1, or -1 when its contact cannot be replaced.
pub fn begin(ctx: &mut Ctx, module: &Th, flags: Flags, users: Users) -> i32 {
    for (flag, what) in [(Flags::MASK_CALL_ID, 'C'), (Flags::DID_IN_USER, 'D')] {
        if flags.has(flag) {
            host::warn!("topology_hiding", "flag {what} has no effect on requests without a dialog");
        }
    }
    let bits = if flags.has(Flags::KEEP_USER) { KEEP_USER } else { 0 };
    let request = Request { flags: bits, users, routes: None };
    let socket = ctx.state.socket.unwrap_or(ctx.state.source.socket);
    if !trusts(ctx, module, socket) {
        let routes = headers::record_routes(&ctx.state.msg).join(&b","[..]);
        if !encode_contact(ctx, module, &request, &routes, End::Callee) {
            return -1;
        }
        headers::delete_all(ctx, HeaderName::Via);
        headers::delete_record_routes(ctx);
    } else if ctx.state.msg.to_tag().is_none() && module.auto_route {
        let first = ctx.state.msg.header(HeaderName::RecordRoute).map(|h| h.whole().start);
        let at = first.map_or(Anchor::Top, Anchor::At);
        add_own_route(ctx, module, bits, at);
    }
    super::remember(ctx, Hidden::Alone(Rc::new(request)));
    1
}

/// Who is shown a contact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Caller,
    Callee,
    /// Of a later request: it is not known which.
    Unknown,
}

/// The contact of the current message becomes one of ours, which carries it. False: it cannot be read.
fn encode_contact(ctx: &mut Ctx, module: &Th, request: &Request, routes: &[u8], to: End) -> bool {
    let own = match headers::contact(ctx) {
        Contact::Absent => return true,
        Contact::One(address) => address,
        Contact::Other => {
            host::error!(
                "topology_hiding",
                "a Contact with one URI is needed to hide where a request comes from"
            );
            return false;
        }
    };
    let [caller, callee] = &request.users.both();
    let user = match to {
        _ if flags_of(request.flags).has(Flags::KEEP_USER) => headers::user_of(&own),
        End::Caller => caller.clone(),
        End::Callee | End::Unknown => callee.clone(),
    };
    let info = Info {
        contact: own.uri.to_vec(),
        routes: routes.to_vec(),
        socket: ctx.shared().socket_text(ctx.state.source.socket).into_bytes(),
        flags: request.flags,
        users: [caller.to_vec(), callee.to_vec()],
    };
    let mut shown = Advertised { user: &user, params: carried(module, &info), behind: Vec::new() };
    shown.pass(&own, &module.uri_params, &module.header_params);
    let value = shown.value();
    headers::replace_contact(ctx, value);
    true
}

/// `;thinfo=...`
fn carried(module: &Th, info: &Info) -> Vec<u8> {
    let carrier = module.carrier();
    [b";", carrier.name.as_bytes(), b"=", &carrier.encode(module.scheme, info)].concat()
}

/// A Record-Route that names the socket by which the other side is reached.
fn add_own_route(ctx: &mut Ctx, module: &Th, flags: u8, at: Anchor) {
    let socket = ctx.shared().socket_text(ctx.state.source.socket).into_bytes();
    let params = carried(module, &Info { socket, flags, ..Info::default() });
    let pieces = vec![
        Piece::Text(Bytes::from_static(b"Record-Route: <sip:")),
        Piece::SendHostPort,
        Piece::SendTransport,
        Piece::Text([&params[..], b";lr>\r\n"].concat().into()),
    ];
    ctx.state.edits.insert_pieces(at, pieces);
}

/// The current message is a reply to such a request that goes upstream.
pub fn reply(ctx: &mut Ctx, module: &Th, id: TxnId, branch: Option<u16>, request: &Request) {
    let Some(asked) = ctx.txn(id).data().map(|data| data.msg.clone()) else { return };
    let back = host::tm::with_request(ctx, id, |ctx| ctx.state.source.socket);
    let sent_by = branch.and_then(|n| ctx.txn(id).branch(n)?.path).map(|path| path.socket);
    let to_trusted = trusts(ctx, module, back);
    let from_trusted = sent_by.is_some_and(|socket| trusts(ctx, module, socket));
    let first = asked.to_tag().is_none();
    let (before, of_reply) = (headers::record_routes(&asked), headers::record_routes(&ctx.state.msg));
    // Of the reply's own, those that the end behind it needs to be reached.
    let mut behind = of_reply.len();
    if !from_trusted {
        headers::restore_vias(ctx, id);
    }
    match (first, from_trusted, to_trusted) {
        // What passed to the inside comes back; what the inside added stays here.
        (true, true, _) => {
            let theirs = matching(&of_reply, &before);
            behind = theirs.map_or(0, |kept| of_reply.len() - kept);
            write_routes(ctx, &of_reply[behind..]);
            behind = behind.saturating_sub(usize::from(module.auto_route));
        }
        (true, false, true) => {
            write_routes(ctx, &of_reply);
            if module.auto_route {
                let at = last_route(&ctx.state.msg);
                add_own_route(ctx, module, request.flags, at);
            }
            write_more(ctx, &before);
        }
        _ => {
            headers::delete_record_routes(ctx);
            write_more(ctx, &before);
        }
    }
    if !to_trusted && !(300..400).contains(&ctx.state.msg.status()) {
        let mut ways: Vec<Bytes> = of_reply[..behind].to_vec();
        ways.reverse();
        let routes = request.routes.clone().unwrap_or_else(|| ways.join(&b","[..]).into());
        let to = if first { End::Caller } else { End::Unknown };
        encode_contact(ctx, module, request, &routes, to);
    }
}

/// How many at the end of the reply's Record-Routes are those of the request; `None`: they do not fit.
fn matching(of_reply: &[Bytes], before: &[Bytes]) -> Option<usize> {
    let same = |a: &Bytes, b: &Bytes| match (NameAddr::parse(a), NameAddr::parse(b)) {
        (Some(a), Some(b)) => match (Uri::parse(&a.uri), Uri::parse(&b.uri)) {
            (Ok(a), Ok(b)) => a.equals(&b),
            _ => a.uri == b.uri,
        },
        _ => a == b,
    };
    let start = of_reply.len().checked_sub(before.len())?;
    let fits = of_reply[start..].iter().zip(before).all(|(a, b)| same(a, b));
    fits.then_some(before.len())
}

/// Behind the last Record-Route, else at the top.
fn last_route(msg: &Message) -> Anchor {
    msg.headers_of(HeaderName::RecordRoute).last().map_or(Anchor::Top, |h| Anchor::At(h.whole().end))
}

/// These in the place of those that are there.
fn write_routes(ctx: &mut Ctx, routes: &[Bytes]) {
    headers::delete_record_routes(ctx);
    write_more(ctx, routes);
}

/// One line each.
fn write_more(ctx: &mut Ctx, routes: &[Bytes]) {
    let at = last_route(&ctx.state.msg);
    for route in routes {
        ctx.state.edits.insert(at, [b"Record-Route: ", &route[..], b"\r\n"].concat());
    }
}

/// `topology_hiding_match()`: 1 the current request is one to a contact of ours, and goes where that points; -1 not.
pub fn within(ctx: &mut Ctx, module: &Th) -> i32 {
    let route = ctx.state.msg.header(HeaderName::Route).map(|header| ctx.state.msg.text(header.value()));
    let found = match route {
        None => by_uri(ctx, module),
        Some(value) if module.auto_route => return by_own_route(ctx, module, &value),
        Some(_) => None,
    };
    let Some(info) = found else { return -1 };
    follow(ctx, module, &info)
}

/// What a parameter of this URI, which must be one of ours, carries.
fn carried_by(module: &Th, uri: &Uri) -> Option<Info> {
    module.carriers.iter().find_map(|carrier| {
        let text = uri.params.value(carrier.name.as_bytes())?;
        carrier.decode(module.scheme, &text)
    })
}

fn by_uri(ctx: &Ctx, module: &Th) -> Option<Info> {
    let uri = Uri::parse(&ctx.state.current_uri()).ok().filter(|uri| ctx.core.shared.is_own(uri))?;
    carried_by(module, &uri).filter(|info| !info.contact.is_empty())
}

fn follow(ctx: &mut Ctx, module: &Th, info: &Info) -> i32 {
    let mut contact = Bytes::copy_from_slice(&info.contact);
    let routes = Bytes::copy_from_slice(&info.routes);
    let Ok(mut target) = Uri::parse(&contact) else { return -1 };
    // The reference leaves the user out of what it hides when contacts keep it.
    if target.user.as_ref().is_none_or(|u| u.is_empty()) && flags_of(info.flags).has(Flags::KEEP_USER) {
        let user = Uri::parse(&ctx.state.current_uri()).ok().and_then(|uri| uri.user).unwrap_or_default();
        let scheme = contact.iter().position(|b| *b == b':').map_or(0, |at| at + 1);
        if !user.is_empty() {
            contact = [&contact[..scheme], &user, b"@", &contact[scheme..]].concat().into();
            let Ok(with_user) = Uri::parse(&contact) else { return -1 };
            target = with_user;
        }
    }
    let mut hops = NameAddr::parse_list(&routes).unwrap_or_default();
    let shown = |uri: &Bytes| Bytes::from([b"<", &uri[..], b">"].concat());
    let decoded = std::iter::once(&target.text).chain(hops.iter().map(|hop| &hop.uri)).map(shown).collect();
    ctx.state.ext.set(Decoded(decoded));
    if hops.first().is_some_and(|hop| Uri::parse(&hop.uri).is_ok_and(|uri| ctx.core.shared.is_own(&uri))) {
        hops.remove(0);
    }
    let ways: Vec<Bytes> = hops.iter().map(|hop| routes.slice(hop.whole.range())).collect();
    let routes_of_request = headers::record_routes(&ctx.state.msg).join(&b","[..]);
    headers::delete_record_routes(ctx);
    api::route_by(ctx, &contact, &ways.join(&b","[..]));
    let socket = find_socket(ctx, module, &info.socket);
    ctx.state.socket = socket.or(ctx.state.socket);
    let [caller, callee] = info.users.clone().map(Bytes::from);
    let users = Users { caller, callee };
    let request = Request { flags: info.flags, users, routes: Some(routes) };
    if !socket.is_some_and(|socket| trusts(ctx, module, socket)) {
        headers::delete_all(ctx, HeaderName::Via);
        if !encode_contact(ctx, module, &request, &routes_of_request, End::Unknown) {
            return -1;
        }
    }
    super::remember(ctx, Hidden::Alone(Rc::new(request)));
    1
}

/// The socket of this name; of another machine's, one of ours that is trusted.
fn find_socket(ctx: &Ctx, module: &Th, name: &[u8]) -> Option<u16> {
    let name = String::from_utf8_lossy(name);
    let shared = &ctx.core.shared;
    shared.socket_named(&name).or_else(|| tagged(ctx, &module.trusted_tag, &name))
}

/// The first socket with this tag and the transport of `name`.
fn tagged(ctx: &Ctx, tag: &str, name: &str) -> Option<u16> {
    let transport = name.split(':').next()?;
    let fits = |s: &host::Listen| s.tag.as_deref() == Some(tag) && s.transport.as_str() == transport;
    ctx.core.shared.sockets.iter().position(fits).filter(|_| !tag.is_empty()).map(|at| at as u16)
}

/// A request from the inside whose first Route is the one that we recorded there.
fn by_own_route(ctx: &mut Ctx, module: &Th, value: &Bytes) -> i32 {
    let first = NameAddr::parse_list(value).and_then(|list| list.into_iter().next());
    let Some(uri) = first.as_ref().and_then(|first| Uri::parse(&first.uri).ok()) else { return -1 };
    if !trusts(ctx, module, ctx.state.source.socket) {
        return -1;
    }
    let Some(info) = carried_by_route(module, &uri) else { return -1 };
    let name = String::from_utf8_lossy(&info.socket).into_owned();
    let socket = match ctx.core.shared.is_own(&uri) {
        true => ctx.core.shared.socket_named(&name),
        false => tagged(ctx, &module.external_tag, &name),
    };
    let Some(socket) = socket else {
        host::error!("topology_hiding", "socket {name} of a Route is none of ours (th_external_socket_tag)");
        return -1;
    };
    let request = Request { flags: info.flags, ..Request::default() };
    let routes = headers::record_routes(&ctx.state.msg).join(&b","[..]);
    if !encode_contact(ctx, module, &request, &routes, End::Unknown) {
        return -1;
    }
    headers::delete_record_routes(ctx);
    headers::delete_all(ctx, HeaderName::Via);
    let rest = behind_first_route(&ctx.state.msg);
    let target = ctx.state.current_uri();
    api::route_by(ctx, &target, &rest.join(&b","[..]));
    ctx.state.socket = Some(socket);
    super::remember(ctx, Hidden::Alone(Rc::new(request)));
    1
}

/// A Route of ours carries a socket only, always sealed.
fn carried_by_route(module: &Th, uri: &Uri) -> Option<Info> {
    carried_by(module, uri).filter(|info| info.contact.is_empty() && !info.socket.is_empty())
}

fn behind_first_route(msg: &Message) -> Vec<Bytes> {
    let mut all = Vec::new();
    for header in msg.headers_of(HeaderName::Route) {
        let value = msg.text(header.value());
        let list = NameAddr::parse_list(&value).unwrap_or_default();
        all.extend(list.into_iter().map(|one| value.slice(one.whole.range())));
    }
    all.split_off(1.min(all.len()))
}
