//! Questions over a WebSocket: one connection of a worker to a server, which all its questions share.

use super::peer::{Address, Peer, resolve};
use bytes::Bytes;
use net::link::ws::WebSocket;
use net::link::{LinkError, Pings};
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub struct Connection {
    stream: TcpStream,
    ws: WebSocket,
    /// What came with the end of the handshake.
    early: Vec<Bytes>,
}

fn failed(error: LinkError) -> io::Error {
    io::Error::other(error.to_string())
}

/// Connects, and has the handshake behind it.
pub async fn open(peer: &Peer) -> io::Result<Connection> {
    let Address::Ws { host, port, family, resource, protocol } = &peer.address else {
        return Err(io::Error::other("this address takes no WebSocket"));
    };
    let mut stream = TcpStream::connect(resolve(host, *port, *family).await?).await?;
    stream.set_nodelay(true)?;
    let (mut out, mut early) = (Vec::new(), Vec::new());
    let mut ws = WebSocket::client(&format!("{host}:{port}"), resource, protocol, Pings::Answered, &mut out);
    while !ws.is_open() {
        stream.write_all(&std::mem::take(&mut out)).await?;
        let mut buffer = Vec::with_capacity(2048);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        ws.receive(&buffer, &mut early, &mut out).map_err(failed)?;
    }
    stream.write_all(&out).await?;
    Ok(Connection { stream, ws, early })
}

impl Connection {
    pub fn own_ip(&self) -> io::Result<IpAddr> {
        self.stream.local_addr().map(|address| address.ip())
    }

    /// Sends packets and tells what comes, until nobody sends or listens any more or the connection ends (`None`).
    pub async fn run(
        mut self,
        mut packets: mpsc::Receiver<Vec<u8>>,
        heard: impl Fn(Option<&[u8]>) -> Option<()>,
    ) {
        let mut got = std::mem::take(&mut self.early);
        loop {
            if got.drain(..).any(|message| heard(Some(&message)).is_none()) {
                return;
            }
            let mut buffer = Vec::with_capacity(4096);
            let mut out = Vec::new();
            let done = tokio::select! {
                packet = packets.recv() => match packet {
                    Some(packet) => self.ws.send(&packet.into(), &mut out),
                    None => return,
                },
                read = self.stream.read_buf(&mut buffer) => match read {
                    Ok(length) if length > 0 => self.ws.receive(&buffer, &mut got, &mut out),
                    _ => Err(LinkError::Closed),
                },
            };
            let written = self.stream.write_all(&out).await;
            if done.is_err() || written.is_err() {
                heard(None);
                return;
            }
        }
    }
}
