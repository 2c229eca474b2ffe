//! What engines tell (`rtpp_notify_socket`): lines over TCP or a Unix socket. Media that stops ends its call, a digit
//! raises an event.

use super::{DTMF, Rtpproxy};
use drivers::exchange::Address;
use host::events::{EventParams, raise};
use host::shared::{Hooks, Shared};
use host::{Ctx, Value};
use modules::dialog::{Did, api as dialog};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, UnixListener};

/// The longest line.
const MAX_LINE: u64 = 4096;
/// After an error of the listening socket.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Where this server listens.
#[derive(Clone, Debug)]
pub struct Place {
    /// As engines get it.
    pub text: String,
    at: At,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum At {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Place {
    pub fn parse(text: &str) -> Result<Place, String> {
        let text = text.trim();
        let at = match text.strip_prefix("tcp:") {
            Some(at) => At::Tcp(at.parse().map_err(|_| format!("`{at}` is no IP address with a port"))?),
            None => At::Unix(text.strip_prefix("unix:").unwrap_or(text).into()),
        };
        Ok(Place { text: text.to_string(), at })
    }

    fn bind(&self) -> std::io::Result<Bound> {
        match &self.at {
            At::Tcp(at) => std::net::TcpListener::bind(at).map(Bound::Tcp),
            At::Unix(path) => {
                let _ = std::fs::remove_file(path);
                std::os::unix::net::UnixListener::bind(path).map(Bound::Unix)
            }
        }
    }
}

pub fn hooks(module: &Arc<Rtpproxy>, hooks: &mut Hooks) {
    let Some(place) = module.notify.clone() else { return };
    let opening = module.clone();
    hooks.openings.push(Arc::new(move || {
        let bound = place.bind();
        let bound = bound.map_err(|e| format!("rtpproxy: cannot listen on {}: {e}", place.text))?;
        *opening.bound.lock() = Some(bound);
        Ok(())
    }));
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

async fn serve(module: Arc<Rtpproxy>, shared: Arc<Shared>) {
    let Some(bound) = module.bound.lock().take() else { return };
    let served = match bound {
        Bound::Tcp(listener) => serve_tcp(&module, &shared, listener).await,
        Bound::Unix(listener) => serve_unix(&shared, listener).await,
    };
    if let Err(e) = served {
        host::error!("rtpproxy", "rtpp_notify_socket: {e}");
    }
}

async fn serve_tcp(
    module: &Rtpproxy,
    shared: &Arc<Shared>,
    listener: std::net::TcpListener,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                host::error!("rtpproxy", "rtpp_notify_socket: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !is_engine(module, from.ip()).await {
            host::warn!("rtpproxy", "{from} is no engine: what it tells is not heard");
            continue;
        }
        tokio::spawn(listen(shared.clone(), stream));
    }
}

async fn serve_unix(shared: &Arc<Shared>, listener: std::os::unix::net::UnixListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(listen(shared.clone(), stream));
            }
            Err(e) => {
                host::error!("rtpproxy", "rtpp_notify_socket: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether an engine has this address.
async fn is_engine(module: &Rtpproxy, ip: IpAddr) -> bool {
    for node in module.sets.get().nodes() {
        let (host, port) = match &node.peer.address {
            Address::Udp { host, port, .. } | Address::Tcp { host, port, .. } => (host.clone(), *port),
            _ => continue,
        };
        let Ok(found) = tokio::net::lookup_host((host, port)).await else { continue };
        if found.into_iter().any(|known| known.ip() == ip) {
            return true;
        }
    }
    false
}

async fn listen(shared: Arc<Shared>, stream: impl AsyncRead + Unpin) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => take(&shared, &line[..line.len() - 1]),
            // The end, or a line that is too long.
            _ => return,
        }
    }
}

/// What an engine says.
#[derive(Debug, PartialEq)]
enum Notice {
    Nothing,
    /// Media of this dialog has stopped.
    Stopped(Vec<u8>),
    Digit(Digit),
}

#[derive(Debug, PartialEq)]
struct Digit {
    digit: u8,
    volume: i64,
    duration: i64,
    stream: i64,
    id: Vec<u8>,
    is_call_id: bool,
}

fn read(line: &[u8]) -> Option<Notice> {
    let (command, rest) = line.split_first()?;
    match command {
        b'I' => Some(Notice::Nothing),
        b'T' => Some(Notice::Stopped(rest.trim_ascii().to_vec())),
        b'D' => {
            let mut words = rest.split(|b| b.is_ascii_whitespace());
            let (kind, id) = words.next()?.split_first()?;
            let digit = *words.next()?.first()?;
            let mut number =
                || words.next().and_then(|w| std::str::from_utf8(w).ok()?.parse().ok()).unwrap_or(0);
            let (volume, duration, stream) = (number(), number(), number());
            let (id, is_call_id) = (id.to_vec(), *kind == b'c');
            Some(Notice::Digit(Digit { digit, volume, duration, stream, id, is_call_id }))
        }
        _ => None,
    }
}

fn take(shared: &Arc<Shared>, line: &[u8]) {
    let Some(dispatch) = shared.dispatch.get() else { return };
    match read(line) {
        None => host::warn!("rtpproxy", "an engine tells: {}", String::from_utf8_lossy(line)),
        Some(Notice::Nothing) => {}
        Some(Notice::Stopped(did)) => {
            // Which worker has the dialog is not told.
            for worker in 0..dispatch.workers() {
                let did = did.clone();
                dispatch.run_on(
                    worker,
                    Box::new(move |ctx: &mut Ctx| {
                        if let Some(key) = Did::parse(&did).and_then(|did| dialog::find_by_did(ctx, did)) {
                            dialog::end(ctx, key, "RTPProxy Timeout");
                        }
                    }),
                );
            }
        }
        Some(Notice::Digit(told)) => {
            let worker = host::context::detached::owner(&told.id, dispatch.workers());
            dispatch.run_on(worker, Box::new(move |ctx: &mut Ctx| raise(ctx, DTMF, params(told))));
        }
    }
}

fn params(told: Digit) -> EventParams {
    let text = |bytes: Vec<u8>| Value::Str(bytes.into());
    [
        ("digit", text(vec![told.digit])),
        ("duration", Value::Int(told.duration)),
        ("volume", Value::Int(told.volume)),
        ("id", text(told.id)),
        ("is_callid", Value::Int(i64::from(told.is_call_id))),
        ("stream", Value::Int(told.stream)),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_tell() {
        let digit = |id: &str, is_call_id, volume, duration, stream| {
            Notice::Digit(Digit { digit: b'5', volume, duration, stream, id: id.into(), is_call_id })
        };
        for (line, want) in [
            ("I", Some(Notice::Nothing)),
            ("T1a.2b", Some(Notice::Stopped("1a.2b".into()))),
            ("Dcid@x 5 10 160 1", Some(digit("id@x", true, 10, 160, 1))),
            ("Dd1a.2b 5", Some(digit("1a.2b", false, 0, 0, 0))),
            ("D", None),
            ("Dc", None),
            ("X", None),
            ("", None),
        ] {
            assert_eq!(read(line.as_bytes()), want, "{line}");
        }
        assert!(Place::parse("tcp:1.2.3.4").is_err());
        assert_eq!(Place::parse("unix:/x").unwrap().at, At::Unix("/x".into()));
    }
}
