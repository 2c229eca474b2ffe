//! Questions over streams: each has a connection of its own, so that no name is needed.

use super::peer::{Address, Peer, resolve};
use super::{Patience, Trouble};
use std::io;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longest answer.
const MAX_ANSWER: usize = 65_536;

/// Sends `question` and reads until `is_whole` says that it is an answer, or the other end closes. A server that
/// takes the connection and is silent is asked once, for as long as all tries may take together.
pub async fn ask_unix(
    path: &Path,
    question: &[u8],
    patience: &Patience,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Trouble<String>> {
    within(patience, async { asked(UnixStream::connect(path).await?, question, is_whole).await }).await
}

/// The same over TCP.
pub async fn ask_tcp(
    peer: &Peer,
    question: &[u8],
    patience: &Patience,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Trouble<String>> {
    let Address::Tcp { host, port, family } = &peer.address else {
        return Err(Trouble::Io("this address takes no connections".to_string()));
    };
    let exchange = async {
        let stream = TcpStream::connect(resolve(host, *port, *family).await?).await?;
        stream.set_nodelay(true)?;
        asked(stream, question, is_whole).await
    };
    within(patience, exchange).await
}

async fn asked(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &[u8],
    is_whole: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    stream.write_all(question).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) && answer.len() < MAX_ANSWER {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

async fn within(
    patience: &Patience,
    exchange: impl Future<Output = io::Result<Vec<u8>>>,
) -> Result<Vec<u8>, Trouble<String>> {
    match timeout(std::time::Duration::from_millis(patience.total_ms()), exchange).await {
        Err(_) => Err(Trouble::Silent(None)),
        Ok(Err(error)) => Err(Trouble::Io(error.to_string())),
        Ok(Ok(answer)) if answer.is_empty() => Err(Trouble::Silent(None)),
        Ok(Ok(answer)) => Ok(answer),
    }
}
