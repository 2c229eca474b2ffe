//! Moves datagrams between two addresses and does nothing else: what the same calls would cost a server that reads
//! nothing. `benches/compare` measures it as the floor. `mover PORT CALLER_PORT CALLEE_PORT`, all on 127.0.0.1.

use net::{Outgoing, RecvArena, Sharing, UdpOptions, UdpSocket};
use std::cell::RefCell;
use std::net::SocketAddr;

fn main() -> std::io::Result<()> {
    let ports: Vec<u16> = std::env::args().skip(1).filter_map(|port| port.parse().ok()).collect();
    let [port, caller, callee] = ports[..] else {
        return Err(std::io::Error::other("usage: mover PORT CALLER_PORT CALLEE_PORT"));
    };
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = UdpOptions { sharing: Sharing::Exclusive, ..UdpOptions::default() };
        let socket = UdpSocket::bind(address(port), &options)?;
        let (arena, mut came, mut goes) = (RefCell::<RecvArena>::default(), Vec::new(), Vec::new());
        loop {
            socket.recv_batch(&arena, &mut came).await?;
            goes.extend(came.drain(..).map(|datagram| {
                let remote = address(if datagram.remote.port() == caller { callee } else { caller });
                Outgoing { bytes: datagram.bytes, remote, source: None }
            }));
            socket.send_batch(&goes);
            goes.clear();
        }
    })
}
