//! The layers of one stream connection without its socket: TLS, WebSocket, framing. Bytes of the wire in,
//! SIP messages out, and the other way round.

mod tls;
pub mod ws;

use crate::stream::{Frame, FrameError, Framer};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use tls::Tls;
use ws::{Origin, WebSocket};

pub use tls::{ClientSetup, ServerSetup, TlsInfo, TlsSetup};

/// Why a connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// The peer said that it ends.
    #[error("closed by the peer")]
    Closed,
}

/// What a double CRLF is answered with (`tcp_crlf_pingpong`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pings {
    #[default]
    Answered,
    Ignored,
}

/// How the layers of accepted connections are made; one for each listening socket.
#[derive(Clone, Default)]
pub struct LinkSetup {
    /// `None`: no TLS.
    pub tls: Option<Arc<dyn TlsSetup>>,
    /// `None`: no WebSocket.
    pub ws: Option<WsSetup>,
    pub pings: Pings,
}

/// Settings of proto_ws and proto_wss.
#[derive(Clone, Debug)]
pub struct WsSetup {
    pub origin: Origin,
    /// What our handshakes ask for (`wss_resource`).
    pub resource: String,
}

/// Bytes for the wire; the message that is sent once they are gone.
struct Piece {
    bytes: Bytes,
    message: Option<Bytes>,
}

/// The layers of one connection.
///
/// `receive` and `send` put what the wire is to get into a queue that `wire` reads and `written` shortens.
pub struct Link {
    tls: Option<Box<Tls>>,
    ws: Option<Box<WebSocket>>,
    framer: Framer,
    pings: Pings,
    wire: VecDeque<Piece>,
    /// Messages that `wire` holds.
    waiting: usize,
    /// Bytes of them that were not written.
    waiting_bytes: usize,
    /// Bytes of `wire` that belong to no message: what a peer makes us say.
    owed: usize,
}

/// Bytes that a peer makes us owe (answers to keep-alives, handshakes) before it is not read from until it has
/// read. What one read brings may go beyond.
const OWED_LIMIT: usize = 16 * 1024;

impl Link {
    /// An accepted connection on `local`.
    pub fn accepted(setup: &LinkSetup, local: SocketAddr) -> Link {
        let tls = setup.tls.clone().map(|setup| Box::new(Tls::accepting(setup, local)));
        let ws = setup.ws.as_ref().map(|ws| Box::new(WebSocket::server(ws.origin, setup.pings)));
        Link { tls, ws, ..Link::bare(setup.pings) }
    }

    /// A connection that was made from here to `remote`. `hint` is what the script said about TLS.
    pub fn connected(setup: &LinkSetup, remote: SocketAddr, hint: u32) -> Result<Link, LinkError> {
        let mut link = Link::bare(setup.pings);
        if let Some(tls) = &setup.tls {
            let client = tls.client(remote, hint).map_err(LinkError::Tls)?;
            link.tls = Some(Box::new(Tls::connecting(client, remote)?));
        }
        if let Some(ws) = &setup.ws {
            let mut request = Vec::new();
            let host = remote.to_string();
            link.ws =
                Some(Box::new(WebSocket::client(&host, &ws.resource, "sip", setup.pings, &mut request)));
            link.push(request, None)?;
        } else {
            link.push(Vec::new(), None)?;
        }
        Ok(link)
    }

    fn bare(pings: Pings) -> Link {
        Link {
            tls: None,
            ws: None,
            framer: Framer::default(),
            pings,
            wire: VecDeque::new(),
            waiting: 0,
            waiting_bytes: 0,
            owed: 0,
        }
    }

    /// Handshakes are over: messages may be sent.
    pub fn is_open(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_open()) && self.ws.as_ref().is_none_or(|ws| ws.is_open())
    }

    /// A message, or a handshake, has begun and is not complete.
    pub fn is_partial(&self) -> bool {
        !self.is_open() || self.framer.is_partial() || self.ws.as_ref().is_some_and(|ws| ws.is_partial())
    }

    /// What TLS agreed on, once it has.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_ref().filter(|tls| tls.is_open()).and_then(|tls| tls.info())
    }

    /// Takes what arrived; complete messages go into `got`. After an error the wire may still be owed
    /// something (an alert, an HTTP response).
    pub fn receive(&mut self, raw: &[u8], got: &mut Vec<Bytes>) -> Result<(), LinkError> {
        let Some(tls) = &mut self.tls else { return self.decrypted(raw, got) };
        let mut plain = Vec::new();
        let result = tls.receive(raw, &mut plain);
        self.flush_tls();
        if !plain.is_empty() {
            self.decrypted(&plain, got)?;
        }
        result
    }

    fn decrypted(&mut self, plain: &[u8], got: &mut Vec<Bytes>) -> Result<(), LinkError> {
        if let Some(ws) = &mut self.ws {
            let mut owed = Vec::new();
            let result = ws.receive(plain, got, &mut owed);
            if !owed.is_empty() {
                self.push(owed, None)?;
            }
            return result;
        }
        self.framer.buffer().extend_from_slice(plain);
        let mut pings = 0;
        while let Some(frame) = self.framer.next_frame()? {
            match frame {
                Frame::Message(message) => got.push(message),
                Frame::Ping => pings += 1,
            }
        }
        self.framer.rest();
        match self.pings {
            Pings::Answered if pings > 0 => self.push(b"\r\n".repeat(pings), None),
            _ => Ok(()),
        }
    }

    /// Queues a message. Only when `is_open`.
    pub fn send(&mut self, message: Bytes) -> Result<(), LinkError> {
        if let Some(ws) = &mut self.ws {
            let mut frame = Vec::with_capacity(message.len() + 14);
            ws.send(&message, &mut frame)?;
            return self.push(frame, Some(message));
        }
        if self.tls.is_some() {
            return self.push(message.to_vec(), Some(message));
        }
        self.waiting += 1;
        self.waiting_bytes += message.len();
        self.wire.push_back(Piece { bytes: message.clone(), message: Some(message) });
        Ok(())
    }

    /// Queues what says goodbye.
    pub fn close(&mut self) {
        if let Some(ws) = &mut self.ws {
            let mut frame = Vec::new();
            ws.close(&mut frame);
            let _ = self.push(frame, None);
        }
        if let Some(tls) = &mut self.tls {
            tls.close();
            self.flush_tls();
        }
    }

    /// Bytes of the layer above TLS go down.
    fn push(&mut self, bytes: Vec<u8>, message: Option<Bytes>) -> Result<(), LinkError> {
        let bytes = match &mut self.tls {
            None => bytes,
            Some(tls) => tls.send(&bytes)?,
        };
        match message {
            Some(_) => {
                self.waiting += 1;
                self.waiting_bytes += bytes.len();
            }
            None => self.owed += bytes.len(),
        }
        if !bytes.is_empty() || message.is_some() {
            self.wire.push_back(Piece { bytes: bytes.into(), message });
        }
        Ok(())
    }

    fn flush_tls(&mut self) {
        let owed = self.tls.as_mut().map(|tls| tls.owed()).unwrap_or_default();
        if !owed.is_empty() {
            self.owed += owed.len();
            self.wire.push_back(Piece { bytes: owed.into(), message: None });
        }
    }

    /// What the wire is to get next, as slices for one vectored write.
    pub fn wire<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.wire.iter().zip(slices.iter_mut());
        pieces.map(|(piece, slice)| *slice = IoSlice::new(&piece.bytes)).count()
    }

    /// So many bytes of `wire` were written.
    pub fn written(&mut self, mut n: usize) {
        while let Some(piece) = self.wire.front_mut() {
            let gone = piece.bytes.len().min(n);
            piece.bytes.advance(gone);
            n -= gone;
            match piece.message {
                None => self.owed -= gone,
                Some(_) => {
                    self.waiting -= usize::from(piece.bytes.is_empty());
                    self.waiting_bytes -= gone;
                }
            }
            if !piece.bytes.is_empty() {
                return;
            }
            self.wire.pop_front();
        }
        if self.wire.capacity() > 8 {
            self.wire.shrink_to(0);
        }
    }

    /// Nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.wire.is_empty()
    }

    /// The peer makes us say more than it reads: no more is to be taken from it until it has read.
    pub fn owes_too_much(&self) -> bool {
        self.owed > OWED_LIMIT
    }

    #[cfg(test)]
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// Messages that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes of messages that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Messages that were not written completely.
    pub fn unsent(&mut self) -> Vec<Bytes> {
        (self.waiting, self.waiting_bytes, self.owed) = (0, 0, 0);
        std::mem::take(&mut self.wire).into_iter().filter_map(|piece| piece.message).collect()
    }
}

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests {
    use super::*;

    impl Link {
        /// Twenty keep-alives as a client sends them.
        fn ping_for_tests(&mut self) {
            for _ in 0..20 {
                let ping = Bytes::from_static(b"\r\n\r\n");
                self.send(ping).unwrap();
            }
        }
    }

    /// All that `link` has for the wire.
    fn wire(link: &mut Link) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = link.wire(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        link.written(bytes.len());
        bytes
    }

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    /// Client and server talk until both are silent; what they got.
    fn talk(client: &mut Link, server: &mut Link, size: usize) -> Result<[Vec<Bytes>; 2], LinkError> {
        let mut got = [Vec::new(), Vec::new()];
        loop {
            let (to_server, to_client) = (wire(client), wire(server));
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(got);
            }
            to_server.chunks(size).try_for_each(|piece| server.receive(piece, &mut got[1]))?;
            to_client.chunks(size).try_for_each(|piece| client.receive(piece, &mut got[0]))?;
        }
    }

    fn setups() -> Vec<(&'static str, LinkSetup)> {
        let ws = || Some(WsSetup { origin: Origin::Required, resource: "/".into() });
        let tls = tls::tests::setup;
        vec![
            ("tcp", LinkSetup::default()),
            ("tls", LinkSetup { tls: Some(tls()), ..LinkSetup::default() }),
            ("ws", LinkSetup { ws: ws(), ..LinkSetup::default() }),
            ("wss", LinkSetup { tls: Some(tls()), ws: ws(), ..LinkSetup::default() }),
        ]
    }

    #[test]
    fn messages_pass_all_layers() {
        let addr: SocketAddr = "127.0.0.1:5061".parse().unwrap();
        for (name, setup) in setups() {
            for size in [1, 100, 100_000] {
                let mut server = Link::accepted(&setup, addr);
                let mut client = Link::connected(&setup, addr, 0).unwrap();
                assert_eq!(
                    talk(&mut client, &mut server, size).unwrap().concat(),
                    Vec::<Bytes>::new(),
                    "{name}"
                );
                assert!(client.is_open() && server.is_open() && !server.is_partial(), "{name}");
                client.send(Bytes::from_static(OPTIONS)).unwrap();
                client.send(Bytes::from_static(OPTIONS)).unwrap();
                server.send(Bytes::from_static(OPTIONS)).unwrap();
                assert_eq!((client.waiting(), server.waiting()), (2, 1));
                let got = talk(&mut client, &mut server, size).unwrap();
                assert_eq!((got[0].len(), got[1].len()), (1, 2), "{name} in pieces of {size}");
                assert!(got.iter().flatten().all(|m| m[..] == *OPTIONS));
                assert_eq!(client.waiting(), 0);
                let big = [&b"MESSAGE sip:a SIP/2.0\r\nl: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
                client.send(big.clone().into()).unwrap();
                let got = talk(&mut client, &mut server, size.max(10)).unwrap();
                assert_eq!(got[1], [big], "{name}");
                client.close();
                if name != "tcp" {
                    assert_eq!(talk(&mut client, &mut server, size), Err(LinkError::Closed), "{name}");
                }
                let _ = server.send(Bytes::from_static(OPTIONS));
                assert_eq!(server.unsent().len(), usize::from(!name.starts_with("ws")), "{name}");
            }
        }
    }

    #[test]
    fn pings() {
        for (pings, pong) in [(Pings::Answered, &b"\r\n"[..]), (Pings::Ignored, b"")] {
            let setup = LinkSetup { pings, ..LinkSetup::default() };
            let mut link = Link::accepted(&setup, "127.0.0.1:5060".parse().unwrap());
            link.receive(b"\r\n\r\n", &mut Vec::new()).unwrap();
            assert_eq!(wire(&mut link), pong);
            assert!(!link.is_partial());
        }
    }

    /// What a peer makes us say and does not read has a bound, whatever the layers.
    #[test]
    fn answers_that_nobody_reads_are_noticed() {
        let addr: SocketAddr = "127.0.0.1:5060".parse().unwrap();
        for (name, setup) in setups() {
            let mut server = Link::accepted(&setup, addr);
            let mut client = Link::connected(&setup, addr, 0).unwrap();
            talk(&mut client, &mut server, 1000).unwrap();
            assert!(!server.owes_too_much(), "{name}");
            for _ in 0..1_000 {
                client.ping_for_tests();
                server.receive(&wire(&mut client), &mut Vec::new()).unwrap();
                if server.owes_too_much() {
                    break;
                }
            }
            assert!(server.owes_too_much(), "{name}");
            while !wire(&mut server).is_empty() {}
            assert!(!server.owes_too_much() && server.owed() == 0, "{name}");
        }
    }

    #[test]
    fn pings_on_every_transport() {
        let addr: SocketAddr = "127.0.0.1:5061".parse().unwrap();
        for (name, setup) in setups() {
            let (mut server, mut client) =
                (Link::accepted(&setup, addr), Link::connected(&setup, addr, 0).unwrap());
            talk(&mut client, &mut server, 1000).unwrap();
            client.send(Bytes::from_static(b"\r\n\r\n")).unwrap();
            client.send(Bytes::from_static(OPTIONS)).unwrap();
            let to_server = wire(&mut client);
            let mut got = Vec::new();
            server.receive(&to_server, &mut got).unwrap();
            assert_eq!(got, [OPTIONS], "{name}");
            let pong = wire(&mut server);
            if name == "tcp" {
                assert_eq!(pong, b"\r\n");
            }
            assert!(!pong.is_empty(), "{name}");
            // The pong is a keep-alive itself and wants no answer.
            client.receive(&pong, &mut got).unwrap();
            assert_eq!((got.len(), wire(&mut client)), (1, Vec::new()), "{name}");
        }
    }

    #[test]
    fn garbage_is_an_error_or_nothing() {
        let mut state = 1u64;
        for (_, setup) in setups() {
            for _ in 0..200 {
                let mut link = Link::accepted(&setup, "127.0.0.1:5060".parse().unwrap());
                for _ in 0..20 {
                    let mut noise = [0; 50];
                    for b in &mut noise {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        *b = (state >> 33) as u8;
                    }
                    if link.receive(&noise, &mut Vec::new()).is_err() {
                        break;
                    }
                }
            }
        }
    }
}
