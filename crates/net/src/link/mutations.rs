//! Damaged streams and WebSockets: nothing panics, and what comes out does not depend on how the bytes were cut on the way.
//! `MUTATIONS=1000000 SEED=7 cargo test -p net mutations` runs long.

#[path = "../../../../fuzz/checks/mutate.rs"]
#[allow(dead_code, reason = "its seeds from files are for other tests")]
mod mutate;

use super::ws::WebSocket;
use super::{Pings, ws::Origin};
use crate::stream::{Frame, Framer};
use bytes::Bytes;

/// What a stream brings in pieces of so many bytes.
fn frames(data: &[u8], piece: usize) -> (Vec<Option<Bytes>>, Option<String>) {
    let (mut framer, mut out) = (Framer::default(), Vec::new());
    for piece in data.chunks(piece) {
        framer.buffer().extend_from_slice(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(message))) => out.push(Some(message)),
                Ok(Some(Frame::Ping)) => out.push(None),
                Ok(None) => break,
                Err(e) => return (out, Some(e.to_string())),
            }
        }
        framer.rest();
    }
    (out, None)
}

fn check_stream(data: &[u8]) {
    let whole = frames(data, data.len().max(1));
    for piece in [1, 7] {
        assert_eq!(frames(data, piece), whole, "in pieces of {piece}");
    }
    for message in whole.0.into_iter().flatten() {
        // A stream of it alone is cut there too.
        assert_eq!(frames(&message, message.len()), (vec![Some(message)], None));
    }
}

#[test]
fn streams() {
    let seeds = [
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a\r\nContent-Length: 3\r\n\r\nabc\r\n\r\nACK sip:a SIP/2.0\r\nl:0\r\n\r\n",
        "SIP/2.0 200 OK\r\nContent-Length:\r\n 4\r\nSubject: a\r\n l: 7\r\n\r\nabcd\r\n\r\n\r\nBYE sip:a SIP/2.0\nL: 1\n\nx",
        "\r\n\r\n\r\nA sip:b SIP/2.0\r\nCONTENT-LENGTH : 0\r\n\r\n",
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    mutate::run(&seeds, include_str!("../../../../fuzz/sip.dict"), 20_000, check_stream);
}

/// Messages, and what the peer is owed, of one WebSocket that is read in pieces.
fn web(data: &[u8], piece: usize) -> (Vec<Bytes>, Vec<u8>, bool) {
    let mut ws = WebSocket::server(Origin::Optional, Pings::Answered);
    let (mut got, mut owed) = (Vec::new(), Vec::new());
    for piece in data.chunks(piece) {
        if ws.receive(piece, &mut got, &mut owed).is_err() {
            return (got, owed, false);
        }
    }
    (got, owed, true)
}

fn check_web(data: &[u8]) {
    let whole = web(data, data.len().max(1));
    assert_eq!(web(data, 3), whole, "in pieces of 3");
}

#[test]
fn web_sockets() {
    let handshake = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: sip\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
    let with = |frames: &[&[u8]]| [handshake.as_bytes(), &frames.concat()].concat();
    let seeds = vec![
        with(&[b"\x81\x85\0\0\0\0hello", b"\x89\x82\x01\x02\x03\x04ab", b"\x82\x83\0\0\0\0abc"]),
        with(&[
            b"\x01\x82\0\0\0\0he",
            b"\x89\x80\0\0\0\0",
            b"\x80\x82\0\0\0\0yo",
            b"\x88\x82\0\0\0\0\x03\xe8",
        ]),
        with(&[b"\x81\xfe\0\x80\0\0\0\0", &[b'x'; 128], b"\x8a\x80\0\0\0\0"]),
    ];
    mutate::run(
        &seeds,
        "\"\\x81\\xff\"\n\"\\x00\\x7f\"\n\"\\r\\n\"\n\"Upgrade\"\n\"\\x88\\x80\"",
        20_000,
        check_web,
    );
}
