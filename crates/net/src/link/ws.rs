//! WebSocket as a layer of a connection (RFC 6455, RFC 7118): the handshake on the subprotocol `sip`, then
//! one SIP message in each message of the WebSocket. Clients may ask for another subprotocol.

use super::{LinkError, Pings};
use crate::stream::MESSAGE_LIMIT;
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, Read, Write};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::{client, derive_accept_key, server};
use tungstenite::http::{HeaderMap, HeaderValue};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// Longest request or response of a handshake.
const HANDSHAKE_LIMIT: usize = 8192;
/// What a connection keeps for reading, besides a message that is not complete.
const READ_BUFFER: usize = 512;

/// Whether a handshake needs an Origin header (proto_ws `require_origin`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Origin {
    #[default]
    Required,
    Optional,
}

/// The WebSocket of one connection.
pub struct WebSocket {
    state: State,
    pings: Pings,
    /// What came before the handshake was complete.
    early: BytesMut,
    /// What came last completed no frame.
    partial: bool,
}

enum State {
    /// Waits for the request of a client.
    Server(Origin),
    /// Waits for the response to our request; the value its Sec-WebSocket-Accept must have.
    Client(String),
    Open(Box<WebSocketContext>),
}

/// What the layer below reads from and writes to: bytes in memory.
struct Pipe<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocket {
    pub fn server(origin: Origin, pings: Pings) -> WebSocket {
        WebSocket { state: State::Server(origin), pings, early: BytesMut::new(), partial: false }
    }

    /// Starts as the client: the request goes into `output`. `host` is what the Host header says.
    pub fn client(
        host: &str,
        resource: &str,
        protocol: &str,
        pings: Pings,
        output: &mut Vec<u8>,
    ) -> WebSocket {
        let key = client::generate_key();
        let _ = write!(
            output,
            "GET {resource} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nOrigin: http://{host}\r\nSec-WebSocket-Protocol: {protocol}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        WebSocket {
            state: State::Client(derive_accept_key(key.as_bytes())),
            pings,
            early: BytesMut::new(),
            partial: false,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// A message has begun and is not complete.
    pub fn is_partial(&self) -> bool {
        self.partial || !self.early.is_empty()
    }

    /// Takes what arrived; messages go into `got`, what is to be sent back into `output`.
    pub fn receive(
        &mut self,
        data: &[u8],
        got: &mut Vec<Bytes>,
        output: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if let State::Open(_) = self.state {
            return self.frames(data, got, output);
        }
        self.early.extend_from_slice(data);
        if !self.handshake(output)? {
            return if self.early.len() > HANDSHAKE_LIMIT {
                Err(LinkError::WebSocket("the handshake is too long".into()))
            } else {
                Ok(())
            };
        }
        let rest = std::mem::take(&mut self.early);
        if rest.is_empty() { Ok(()) } else { self.frames(&rest, got, output) }
    }

    /// True when the handshake is complete; what belonged to it is gone from `early`.
    fn handshake(&mut self, output: &mut Vec<u8>) -> Result<bool, LinkError> {
        let (done, role) = match &self.state {
            State::Open(_) => return Ok(true),
            State::Server(origin) => {
                let parsed = server::Request::try_parse(&self.early);
                let Some((size, request)) = parsed.map_err(|e| refuse(output, &e.to_string()))? else {
                    return Ok(false);
                };
                let response = answer(&request, *origin).map_err(|text| refuse(output, &text))?;
                server::write_response(&mut *output, &response).map_err(failed)?;
                (size, Role::Server)
            }
            State::Client(accept) => {
                let parsed = client::Response::try_parse(&self.early).map_err(failed)?;
                let Some((size, response)) = parsed else { return Ok(false) };
                let key = response.headers().get("Sec-WebSocket-Accept").map(HeaderValue::as_bytes);
                if response.status().as_u16() != 101 || key != Some(accept.as_bytes()) {
                    let text = format!("the handshake was answered with {}", response.status());
                    return Err(LinkError::WebSocket(text));
                }
                (size, Role::Client)
            }
        };
        self.early.advance(done);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        self.state = State::Open(Box::new(WebSocketContext::new(role, Some(config))));
        Ok(true)
    }

    fn frames(&mut self, data: &[u8], got: &mut Vec<Bytes>, output: &mut Vec<u8>) -> Result<(), LinkError> {
        let State::Open(context) = &mut self.state else { return Ok(()) };
        let mut pipe = Pipe { input: data, output };
        self.partial = true;
        loop {
            match context.read(&mut pipe) {
                Ok(message) => {
                    self.partial = false;
                    let bytes = match &message {
                        Message::Text(text) => text.as_bytes(),
                        Message::Binary(bytes) => bytes,
                        // Answered by the context itself.
                        _ => continue,
                    };
                    match content(bytes) {
                        Content::Sip => got.push(message.into_data()),
                        Content::Ping if self.pings == Pings::Answered => {
                            let pong = match &message {
                                Message::Text(_) => Message::text("\r\n"),
                                _ => Message::binary(&b"\r\n"[..]),
                            };
                            context.write(&mut pipe, pong).map_err(failed)?;
                            context.flush(&mut pipe).map_err(failed)?;
                        }
                        Content::Ping | Content::Blank => {}
                    }
                }
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Err(LinkError::Closed),
                Err(e) => {
                    let _ = context.close(&mut pipe, None);
                    return Err(failed(e));
                }
            }
        }
    }

    /// One message as it goes over the wire.
    pub fn send(&mut self, message: &Bytes, output: &mut Vec<u8>) -> Result<(), LinkError> {
        let message = match std::str::from_utf8(message) {
            Ok(text) => Message::text(text),
            Err(_) => Message::binary(message.clone()),
        };
        self.put(output, |context, pipe| context.write(pipe, message).and_then(|()| context.flush(pipe)))
    }

    /// Says that the connection ends.
    pub fn close(&mut self, output: &mut Vec<u8>) {
        let _ = self.put(output, |context, pipe| context.close(pipe, None));
    }

    fn put(
        &mut self,
        output: &mut Vec<u8>,
        what: impl FnOnce(&mut WebSocketContext, &mut Pipe) -> Result<(), Error>,
    ) -> Result<(), LinkError> {
        let State::Open(context) = &mut self.state else { return Err(LinkError::Closed) };
        what(context, &mut Pipe { input: &[], output }).map_err(failed)
    }
}

/// What a message of the WebSocket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Sip,
    /// A double CRLF, the keep-alive of browsers: they cannot send pings (RFC 7118 §6, RFC 5626 §3.5.1).
    Ping,
    /// Nothing, or the answer to a keep-alive.
    Blank,
}

fn content(message: &[u8]) -> Content {
    match message {
        bytes if bytes.iter().any(|b| !matches!(b, b'\r' | b'\n')) => Content::Sip,
        [b'\r', b'\n', b'\r', b'\n', ..] => Content::Ping,
        _ => Content::Blank,
    }
}

fn failed(error: Error) -> LinkError {
    LinkError::WebSocket(error.to_string())
}

/// Writes the answer to a handshake that is none.
fn refuse(output: &mut Vec<u8>, text: &str) -> LinkError {
    let _ = write!(output, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    LinkError::WebSocket(text.to_owned())
}

/// The response to a client's request. Without the subprotocol there is nothing to talk about
/// (RFC 7118 §4.1).
fn answer(request: &server::Request, origin: Origin) -> Result<server::Response, String> {
    let headers = request.headers();
    if !speaks_sip(headers) {
        return Err("the client does not offer the subprotocol sip".into());
    }
    if origin == Origin::Required && !headers.contains_key("Origin") {
        return Err("the handshake has no Origin".into());
    }
    let mut response = server::create_response(request).map_err(|e| e.to_string())?;
    response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
    Ok(response)
}

fn speaks_sip(headers: &HeaderMap) -> bool {
    let offered = headers.get_all("Sec-WebSocket-Protocol").iter();
    let mut words = offered.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("sip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &str) -> String {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    #[test]
    fn handshakes() {
        for (headers, origin, expected) in [
            ("Sec-WebSocket-Protocol: sip\r\nOrigin: http://a\r\n", Origin::Required, "101"),
            ("Sec-WebSocket-Protocol: chat, SIP\r\n", Origin::Optional, "101"),
            ("Sec-WebSocket-Protocol: sip\r\n", Origin::Required, "400"),
            ("Sec-WebSocket-Protocol: chat\r\n", Origin::Optional, "400"),
            ("", Origin::Optional, "400"),
        ] {
            let text = request(headers);
            for size in [1, 7, 1000] {
                let (mut ws, mut out) = (WebSocket::server(origin, Pings::Answered), Vec::new());
                let ok =
                    text.as_bytes().chunks(size).all(|p| ws.receive(p, &mut Vec::new(), &mut out).is_ok());
                let out = String::from_utf8(out).unwrap();
                assert_eq!((out.get(9..12), ok), (Some(expected), expected == "101"), "{headers:?}");
                assert_eq!(out.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), ok);
            }
        }
        let (mut ws, mut out) = (WebSocket::server(Origin::Optional, Pings::Answered), Vec::new());
        assert!(ws.receive(&[b'a'; HANDSHAKE_LIMIT + 1], &mut Vec::new(), &mut out).is_err());
        assert!(
            WebSocket::server(Origin::Optional, Pings::Answered)
                .receive(b"\x16\x03\x01", &mut Vec::new(), &mut out)
                .is_err()
        );
    }

    /// A client and a server that talk over memory.
    #[test]
    fn both_sides() {
        let (mut to_server, mut to_client, mut got) = (Vec::new(), Vec::new(), Vec::new());
        let mut client = WebSocket::client("a:80", "/", "sip", Pings::Answered, &mut to_server);
        let mut server = WebSocket::server(Origin::Required, Pings::Answered);
        let pass = |from: &mut Vec<u8>, to: &mut WebSocket, back: &mut Vec<u8>, got: &mut Vec<Bytes>| {
            std::mem::take(from).chunks(3).try_for_each(|piece| to.receive(piece, got, back))
        };
        pass(&mut to_server, &mut server, &mut to_client, &mut got).unwrap();
        pass(&mut to_client, &mut client, &mut to_server, &mut got).unwrap();
        assert!(server.is_open() && client.is_open());
        client.send(&Bytes::from_static(b"OPTIONS"), &mut to_server).unwrap();
        client.send(&Bytes::from_static(b"\xff"), &mut to_server).unwrap();
        pass(&mut to_server, &mut server, &mut to_client, &mut got).unwrap();
        assert_eq!(got, [&b"OPTIONS"[..], b"\xff"]);
        server.send(&Bytes::from_static(b"200"), &mut to_client).unwrap();
        pass(&mut to_client, &mut client, &mut to_server, &mut got).unwrap();
        assert_eq!(got[2], &b"200"[..]);
        client.close(&mut to_server);
        assert_eq!(pass(&mut to_server, &mut server, &mut to_client, &mut got), Err(LinkError::Closed));
        // The close is answered.
        assert_eq!(to_client[0], 0x88);
    }

    #[test]
    fn keep_alives_of_browsers() {
        for (pings, text, pong, messages) in [
            (Pings::Answered, "\r\n\r\n", &b"\x81\x02\r\n"[..], 0),
            (Pings::Ignored, "\r\n\r\n", b"", 0),
            (Pings::Answered, "\r\n", b"", 0),
            (Pings::Answered, "", b"", 0),
            (Pings::Answered, "\r\n\r\nX", b"", 1),
        ] {
            let (mut out, mut got) = (Vec::new(), Vec::new());
            let mut ws = WebSocket::server(Origin::Optional, pings);
            ws.receive(request("Sec-WebSocket-Protocol: sip\r\n").as_bytes(), &mut got, &mut out).unwrap();
            out.clear();
            for (kind, answered) in [
                (0x81, pong.to_vec()),
                (0x82, pong.iter().map(|b| if *b == 0x81 { 0x82 } else { *b }).collect()),
            ] {
                let frame = [&[kind, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
                ws.receive(&frame, &mut got, &mut out).unwrap();
                assert_eq!(std::mem::take(&mut out), answered, "{text:?}");
            }
            assert_eq!(got.len(), 2 * messages, "{text:?}");
        }
    }

    #[test]
    fn frames_that_are_not_allowed() {
        for (frame, why) in [
            (&b"\x81\x02hi"[..], "not masked"),
            (b"\x83\x80\0\0\0\0", "an unknown kind"),
            (b"\x81\xff\0\0\0\0\0\x02\0\0\0\0\0\0", "too long"),
            (b"\x89\xfe\0\x80\0\0\0\0", "a long ping"),
        ] {
            let (mut ws, mut out) = (WebSocket::server(Origin::Optional, Pings::Answered), Vec::new());
            let text = request("Sec-WebSocket-Protocol: sip\r\n");
            ws.receive(text.as_bytes(), &mut Vec::new(), &mut out).unwrap();
            let mut long = frame.to_vec();
            long.resize(200, 0);
            assert!(ws.receive(&long, &mut Vec::new(), &mut out).is_err(), "{why}");
        }
    }
}
