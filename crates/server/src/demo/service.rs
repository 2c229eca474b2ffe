//! The slow HTTP service: every request is answered with 200, after a time of its own.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request line and headers are no longer.
const MAX_REQUEST: usize = 16 * 1024;

/// Serves until the program ends; times are spread evenly over 0..`slowest` milliseconds.
pub async fn start(slowest: u64) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        let mut number = 0u64;
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            tokio::task::spawn_local(connection(stream, number, slowest));
        }
    });
    Ok(address)
}

async fn connection(mut stream: TcpStream, mut number: u64, slowest: u64) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > MAX_REQUEST || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        buffer.drain(..end);
        // Golden ratio: even, without a clock or a generator.
        number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        tokio::time::sleep(Duration::from_millis(number % slowest.max(1))).await;
        let body = "{\"credit\": true}";
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
    }
}
