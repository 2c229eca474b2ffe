//! JSON-RPC 2.0 over a plain stream, without framing: one JSON text after another.

use serde_json::{Value as Json, json};
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A request with an `id`, or a notification.
pub fn command(method: &str, params: Json, id: Option<u64>) -> String {
    match id {
        Some(id) => json!({"id": id, "jsonrpc": "2.0", "method": method, "params": params}),
        None => json!({"jsonrpc": "2.0", "method": method, "params": params}),
    }
    .to_string()
}

/// A connection with what was read of it beyond the last answer.
pub struct Stream {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Stream {
    /// `host:port`, or an IPv6 address in brackets.
    pub async fn connect(address: &str) -> Result<Stream> {
        let socket = TcpStream::connect(address).await?;
        Ok(Stream { socket, read: Vec::new() })
    }

    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.socket.write_all(text.as_bytes()).await
    }

    /// The next JSON text.
    pub async fn answer(&mut self) -> Result<Json> {
        loop {
            let mut texts = serde_json::Deserializer::from_slice(&self.read).into_iter::<Json>();
            match texts.next() {
                Some(Ok(answer)) => {
                    let taken = texts.byte_offset();
                    self.read.drain(..taken);
                    return Ok(answer);
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(Error::new(ErrorKind::InvalidData, "the answer is not JSON"));
                }
                _ => {}
            }
            if self.read.len() >= MAX_ANSWER {
                return Err(Error::new(ErrorKind::InvalidData, "the answer is too long"));
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The answer to a request with this id; others are answers that came too late.
    pub async fn answer_to(&mut self, id: u64) -> Result<Json> {
        loop {
            let answer = self.answer().await?;
            if answer["id"].as_u64() == Some(id) {
                return Ok(answer);
            }
        }
    }
}
