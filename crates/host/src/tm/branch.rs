//! One branch on its way: destination, socket, Via, bytes.

use super::resolve::FoundHops;
use crate::blacklist::{Going, InUse};
use crate::ctx::{Branch, Ctx, MsgState, Resolved};
use crate::shared::Listen;
use bytes::Bytes;
use sip::names::{Hop, Query, Security};
use sip::{Edits, Message, PrintTarget, SocketNames, Transport, Uri};
use std::net::SocketAddr;
use transaction::Path;

/// Why a request cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The R-URI or the next hop is no URI that can be sent to.
    BadUri,
    /// The name has no address.
    Unresolvable,
    /// A blacklist forbids every address.
    Filtered,
    /// No socket of that transport.
    NoSocket,
    /// There is no connection, and none may be made (`tcp_no_new_conn_bflag`).
    NoConnection,
    /// The address is not known yet: `resolve` must be asked.
    NotYet,
    /// Its branch route dropped it, or there are too many.
    Dropped,
    /// A CANCEL or a 6xx came: nothing may be added.
    Blocked,
}

impl SendError {
    /// Return code of `t_relay`.
    pub fn code(self) -> i32 {
        match self {
            SendError::BadUri => -2,
            SendError::Unresolvable | SendError::NotYet => -4,
            SendError::Filtered => -5,
            SendError::NoSocket | SendError::NoConnection => -6,
            SendError::Dropped => -1,
            SendError::Blocked => -3,
        }
    }

    /// For the log; `None`: the script wanted it so.
    fn why(self) -> Option<&'static str> {
        Some(match self {
            SendError::BadUri => "this is no URI that can be sent to",
            SendError::Unresolvable => "its name has no address (NAPTR, SRV, A, AAAA)",
            SendError::Filtered => "a blacklist forbids its addresses",
            SendError::NoSocket => "no socket of this server has its transport and address family (socket=)",
            SendError::NoConnection => "there is no connection, and none may be made (tcp_no_new_conn_bflag)",
            SendError::NotYet | SendError::Dropped | SendError::Blocked => return None,
        })
    }

    /// What is answered when nothing could be sent.
    pub fn reply(self) -> (u16, &'static str) {
        match self {
            SendError::BadUri => (475, "Bad URI (475/TM)"),
            SendError::Unresolvable | SendError::NotYet => (476, "Unresolvable destination (476/TM)"),
            SendError::Filtered => (473, "Filtered destination (473/TM)"),
            SendError::NoConnection => (477, "Send failed (477/TM)"),
            SendError::NoSocket => (500, "Server error occurred (7/TM)"),
            SendError::Dropped => (500, "Server error occurred (1/TM)"),
            SendError::Blocked => (500, "No destination available (18/TM)"),
        }
    }
}

/// Says why nothing leaves for `uri`.
pub(super) fn complain(ctx: &mut Ctx, uri: &[u8], error: SendError) {
    if let Some(why) = error.why() {
        crate::complain!(ctx, "tm", "nothing is sent to {}: {why}", String::from_utf8_lossy(uri));
    }
}

/// The URI that decides where a branch goes.
pub fn next_hop<'a>(target: &'a Branch, proxy: Option<&'a Bytes>) -> &'a Bytes {
    proxy.or(target.dst_uri.as_ref()).unwrap_or(&target.uri)
}

/// What a URI asks of DNS; `maddr` says where to send, whatever the host (RFC 3261 §19.1.1). A URI that names no
/// transport goes by that of the socket that was chosen for it.
fn query_of(sockets: &[Listen], uri: &Uri, chosen: Option<u16>) -> Query {
    let (host, transport, security) = asked_of(sockets, uri, chosen);
    Query { host: String::from_utf8_lossy(&host).into_owned(), port: uri.port, transport, security }
}

/// Host, transport and security of that query.
fn asked_of(sockets: &[Listen], uri: &Uri, chosen: Option<u16>) -> (Bytes, Option<Transport>, Security) {
    let host = uri.params.value(b"maddr").unwrap_or_else(|| uri.host.clone());
    let by_socket = || Some(sockets.get(usize::from(chosen?))?.transport);
    let security = if uri.scheme == sip::Scheme::Sips { Security::Sips } else { Security::Sip };
    (host, uri.transport().or_else(by_socket), security)
}

/// Where a URI leads that names an address; `None`: a name is to be looked up.
fn literal_of(sockets: &[Listen], uri: &Uri, chosen: Option<u16>) -> Option<Hop> {
    let (host, transport, security) = asked_of(sockets, uri, chosen);
    Some(sip::names::hop_to(sip::host_ip(&host)?, uri.port, transport, security))
}

/// The look-up that a branch needs; `None`: its host is an address, or it is no URI.
pub fn lookup_of(sockets: &[Listen], target: &Branch, proxy: Option<&Bytes>) -> Option<Query> {
    let uri = Uri::parse(next_hop(target, proxy)).ok()?;
    match literal_of(sockets, &uri, target.socket) {
        Some(_) => None,
        None => Some(query_of(sockets, &uri, target.socket)),
    }
}

/// Where a branch goes: the first way that there is.
pub fn path_of(
    ctx: &Ctx,
    state: &MsgState,
    target: &Branch,
    proxy: Option<&Bytes>,
) -> Result<Path, SendError> {
    paths_of(ctx, state, target, proxy).map(|ways| ways[0])
}

/// Ways to the next hop, best first: what DNS says, as far as there is a socket. Never empty.
pub fn paths_of(
    ctx: &Ctx,
    state: &MsgState,
    target: &Branch,
    proxy: Option<&Bytes>,
) -> Result<Ways, SendError> {
    let uri = Uri::parse(next_hop(target, proxy)).map_err(|_| SendError::BadUri)?;
    if uri.host.is_empty() {
        return Err(SendError::BadUri);
    }
    let name = uri.ip().is_none().then_some(&uri.host[..]);
    let way = |hop: &Hop| {
        let Hop { transport, addr: remote } = *hop;
        if blocked(ctx, state, transport, remote) {
            return Err(SendError::Filtered);
        }
        let socket = socket_for(ctx, state, target.socket, transport, remote).ok_or(SendError::NoSocket)?;
        let path = Path { socket, transport, remote, local: leaving_by(ctx, socket, remote), connection: 0 };
        if path.is_reliable() { by_stream(ctx, state, target, path, name) } else { Ok(path) }
    };
    let sockets = &ctx.core.shared.sockets;
    if let Some(hop) = literal_of(sockets, &uri, target.socket) {
        return way(&hop).map(|path| smallvec::smallvec![path]);
    }
    let wanted = query_of(sockets, &uri, target.socket);
    let ways = |hops: &[Hop]| {
        let mut failed = SendError::Unresolvable;
        let ways = hops.iter().filter_map(|hop| way(hop).map_err(|e| failed = e).ok());
        let ways: Ways = ways.take(MAX_WAYS).collect();
        if ways.is_empty() { Err(failed) } else { Ok(ways) }
    };
    match FoundHops::of(state, &wanted) {
        Some(hops) => ways(hops),
        None => match ctx.core.spawner.resolve(wanted) {
            Resolved::Now(hops) => ways(&hops.unwrap_or_default()),
            Resolved::Later(_) => Err(SendError::NotYet),
        },
    }
}

/// TCP to where a datagram would go (RFC 3261 §18.1.1); `None`: it is no datagram, or there is no socket for it.
pub fn instead_of_datagram(ctx: &Ctx, state: &MsgState, target: &Branch, path: &Path) -> Option<Path> {
    let (transport, remote) = (Transport::Tcp, path.remote);
    if path.transport != Transport::Udp || blocked(ctx, state, transport, remote) {
        return None;
    }
    let socket = socket_for(ctx, state, None, transport, remote)?;
    let path = Path { socket, transport, remote, local: leaving_by(ctx, socket, remote), connection: 0 };
    by_stream(ctx, state, target, path, None).ok()
}

/// The same way with what the script said about connections. `name`: that of the next hop, unless it is an address.
fn by_stream(
    ctx: &Ctx,
    state: &MsgState,
    target: &Branch,
    path: Path,
    name: Option<&[u8]>,
) -> Result<Path, SendError> {
    let shared = &ctx.core.shared;
    if target.flags & ctx.core.txns.streams.rules.no_new_for_requests != 0 {
        let path = path.only_existing();
        let exists = ctx.core.txns.streams.connections().is_some_and(|all| all.exists(&path));
        return if exists { Ok(path) } else { Err(SendError::NoConnection) };
    }
    if !matches!(path.transport, Transport::Tls | Transport::Wss) {
        return Ok(path);
    }
    let hints = shared.hooks.tls_hints.iter().map(|hint| hint(ctx, state, name));
    Ok(path.with_hint(hints.into_iter().find(|hint| *hint != 0).unwrap_or(0)))
}

/// Whether a blacklist forbids a destination to this message.
fn blocked(ctx: &Ctx, state: &MsgState, transport: Transport, addr: SocketAddr) -> bool {
    let lists = &ctx.core.txns.policy.blacklists;
    if lists.is_empty() {
        return false;
    }
    let used = state.ext.find::<InUse>().copied().unwrap_or_default();
    let going = Going { transport: Some(transport), addr, message: state.msg.buf(), now: ctx.core.now };
    lists.block(used, &going)
}

/// Addresses that are tried for one branch.
const MAX_WAYS: usize = 16;

/// Ways to a next hop.
pub type Ways = smallvec::SmallVec<[Path; 1]>;

/// The forced socket, else the one the request came in by, else the first that fits.
fn socket_for(
    ctx: &Ctx,
    state: &MsgState,
    forced: Option<u16>,
    transport: Transport,
    remote: SocketAddr,
) -> Option<u16> {
    let sockets = &ctx.core.shared.sockets;
    let fits = |i: u16| {
        sockets
            .get(usize::from(i))
            .is_some_and(|s| s.transport == transport && s.addr.is_ipv4() == remote.is_ipv4())
    };
    // Loopback cannot reach the world, nor the world loopback.
    let reaches = |i: u16| {
        sockets.get(usize::from(i)).is_some_and(|s| {
            s.addr.ip().is_unspecified() || s.addr.ip().is_loopback() == remote.ip().is_loopback()
        })
    };
    let own = Some(state.source.socket).filter(|i| fits(*i) && reaches(*i));
    let all = 0..sockets.len() as u16;
    let routed = || {
        let from = ctx.core.txns.policy.mhomed.then(|| ctx.core.spawner.source_for(remote.ip())).flatten()?;
        all.clone().find(|i| fits(*i) && sockets[usize::from(*i)].addr.ip() == from)
    };
    forced
        .filter(|i| fits(*i))
        .or_else(routed)
        .or(own)
        .or_else(|| all.clone().find(|i| fits(*i) && reaches(*i)))
        .or_else(|| all.clone().find(|i| fits(*i)))
}

/// Changes of the Via that scripts ask for (`add_local_rport`, `set_advertised_address`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalVia {
    pub rport: bool,
    pub host: Option<Bytes>,
    pub port: Option<u16>,
}

/// The address of ours that the route to `remote` starts from, as `Path::local`; only for a socket that is bound to
/// all of them.
pub fn leaving_by(ctx: &Ctx, socket: u16, remote: SocketAddr) -> u16 {
    let shared = &ctx.core.shared;
    let wildcard = shared.sockets.get(usize::from(socket)).is_some_and(|s| s.is_wildcard());
    let from = wildcard.then(|| ctx.core.spawner.source_for(remote.ip())).flatten();
    from.map_or(0, |ip| shared.note_local(ip))
}

/// Names of the socket of a path as they are printed into messages.
pub fn socket_names(ctx: &Ctx, path: &Path) -> SocketNames {
    let Some(socket) = ctx.core.shared.sockets.get(usize::from(path.socket)) else {
        return SocketNames::default();
    };
    let local = if path.local == 0 { leaving_by(ctx, path.socket, path.remote) } else { path.local };
    socket.names_at(ctx.core.shared.local_address(local))
}

/// Names of the socket of a path as this message prints them.
pub fn names_of(ctx: &Ctx, state: &MsgState, path: &Path) -> SocketNames {
    let mut names = socket_names(ctx, path);
    if let Some(local) = state.ext.find::<LocalVia>() {
        if let Some(host) = &local.host {
            names.host = host.clone();
        }
        if let Some(port) = local.port {
            names.port = port;
        }
    }
    names
}

/// The bytes of a request that leaves by `path` with this Via branch.
pub fn print(
    ctx: &Ctx,
    state: &MsgState,
    extra_edits: Option<&Edits>,
    target: &Branch,
    path: &Path,
    via_branch: &[u8],
) -> Bytes {
    let send = names_of(ctx, state, path);
    let received = names_of(ctx, state, &state.source);
    let mut via = Vec::with_capacity(96);
    via.extend_from_slice(b"Via: SIP/2.0/");
    via.extend_from_slice(path.transport.upper().as_bytes());
    via.push(b' ');
    via.extend_from_slice(&send.host);
    if send.port != path.transport.default_port()
        || state.ext.find::<LocalVia>().is_some_and(|l| l.port.is_some())
    {
        via.push(b':');
        via.extend_from_slice(itoa::Buffer::new().format(send.port).as_bytes());
    }
    via.extend_from_slice(b";branch=");
    via.extend_from_slice(via_branch);
    if state.ext.find::<LocalVia>().is_some_and(|l| l.rport) {
        via.extend_from_slice(b";rport");
    }
    via.extend_from_slice(b"\r\n");
    let route = match &target.path {
        Some(path) => [b"Route: ", &path[..], b"\r\n"].concat(),
        None => Vec::new(),
    };
    let via_params = crate::reply::via_params(state);
    let print = PrintTarget {
        uri: &script::traced::on_one_line(&target.uri),
        via: &via,
        via_params: &via_params,
        extra: &route,
        send: &send,
        received: &received,
    };
    match extra_edits {
        Some(more) => sip::print_request(&state.msg, &[&state.edits, more], &print),
        None => sip::print_request(&state.msg, &[&state.edits], &print),
    }
}

/// A request that was sent, for another address: its topmost Via is the new branch's.
pub fn readdressed(ctx: &Ctx, bytes: Bytes, path: &Path, via_branch: &[u8]) -> Bytes {
    let via = Message::parse(bytes.clone()).ok().and_then(|msg| msg.via().cloned());
    let Some(via) = via else { return bytes };
    let names = socket_names(ctx, path);
    let (before, after) = (&bytes[..via.whole.start as usize], &bytes[via.whole.end as usize..]);
    let mut out = Vec::with_capacity(bytes.len() + 32);
    let mut number = itoa::Buffer::new();
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[before, b"SIP/2.0/", path.transport.upper().as_bytes(), b" ", &names.host]);
    if names.port != path.transport.default_port() {
        put(&[b":", number.format(names.port).as_bytes()]);
    }
    put(&[b";branch=", via_branch]);
    if via.params.has(b"rport") {
        put(&[b";rport"]);
    }
    put(&[after]);
    out.into()
}

/// A request made here: no Via of a previous hop gets parameters.
pub fn print_local(ctx: &Ctx, state: &MsgState, target: &Branch, path: &Path, via_branch: &[u8]) -> Bytes {
    let send = names_of(ctx, state, path);
    let via = format!(
        "Via: SIP/2.0/{} {}:{};branch={}\r\n",
        path.transport.upper(),
        String::from_utf8_lossy(&send.host),
        send.port,
        String::from_utf8_lossy(via_branch)
    );
    let print = PrintTarget {
        uri: &script::traced::on_one_line(&target.uri),
        via: via.as_bytes(),
        via_params: b"",
        extra: b"",
        send: &send,
        received: &send,
    };
    sip::print_request(&state.msg, &[&state.edits], &print)
}
