//! TCP sockets: listeners that workers share, connections with the options of the core parameters.

use crate::Sharing;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Options of TCP sockets; core parameters `tcp_*`.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// `tcp_socket_backlog`: connections that may wait to be accepted.
    pub backlog: u32,
    /// `None`: no keep-alive of the system.
    pub keepalive: Option<Keepalive>,
    /// `tcp_connect_timeout`
    pub connect_timeout: Duration,
    pub tos: Option<u8>,
}

/// Keep-alive of the system; `None` leaves its default.
#[derive(Clone, Copy, Default, Debug)]
pub struct Keepalive {
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            backlog: 1024,
            keepalive: Some(Keepalive::default()),
            connect_timeout: Duration::from_secs(3),
            tos: None,
        }
    }
}

/// A listener that has no runtime yet.
pub struct BoundTcp(Socket);

impl BoundTcp {
    /// Binds `addr` and listens. With `Sharing::Workers` the system spreads connections over all that
    /// are bound.
    pub fn bind(addr: SocketAddr, options: &TcpOptions, sharing: Sharing) -> io::Result<BoundTcp> {
        let socket = Socket::new(
            Domain::for_address(addr),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        // Connections of the last run may still be closing.
        socket.set_reuse_address(true)?;
        if sharing == Sharing::Workers {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
        Ok(BoundTcp(socket))
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Hands the listener to the runtime of the calling thread.
    pub fn open(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.0.into())
    }
}

/// Sets the options of a connection, whoever made it.
pub fn prepare(stream: &TcpStream, options: &TcpOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(Keepalive { idle, interval, count }) = options.keepalive {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = idle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = count {
            keepalive = keepalive.with_retries(count);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    match (options.tos, stream.peer_addr()?) {
        (Some(tos), SocketAddr::V4(_)) => socket.set_tos_v4(tos.into()),
        (Some(tos), SocketAddr::V6(_)) => socket.set_tclass_v6(tos.into()),
        (None, _) => Ok(()),
    }
}

/// Connects from the address of a listening socket (any port). Errors: the system's, `TimedOut` after
/// `connect_timeout`.
pub async fn connect(from: SocketAddr, to: SocketAddr, options: &TcpOptions) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !from.ip().is_unspecified() && from.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(from.ip(), 0))?;
    }
    let stream = tokio::time::timeout(options.connect_timeout, socket.connect(to)).await;
    let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    prepare(&stream, options)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn listeners_share_and_connections_work() {
        let options = TcpOptions { tos: Some(0x10), ..TcpOptions::default() };
        let a = BoundTcp::bind("127.0.0.1:0".parse().unwrap(), &options, Sharing::Workers).unwrap();
        let addr = a.local().unwrap();
        assert!(BoundTcp::bind(addr, &options, Sharing::Exclusive).is_err());
        let listener = a.open().unwrap();
        let mut out = connect("127.0.0.3:5060".parse().unwrap(), addr, &options).await.unwrap();
        let (mut accepted, peer) = listener.accept().await.unwrap();
        prepare(&accepted, &options).unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.3");
        out.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        accepted.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
        drop((listener, accepted));
        assert!(connect("127.0.0.3:5060".parse().unwrap(), addr, &options).await.is_err());
    }
}
