//! mi_fifo: management commands through a named pipe, as opensips-cli speaks it:
//! `:reply_fifo_name:{json-rpc}`.

use crate::own_file::{self, Access, OwnFile, OwnFileKind};
use host::Accepts;
use host::mi;
use host::outage::Outage;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Registrar, error, notice};
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

/// Longest request that is collected before it is thrown away.
const MAX_REQUEST: usize = 1 << 20;
/// Commands at a time; further ones wait in the pipe.
const AT_ONCE: usize = 256;
/// A reply must be read in this time.
const REPLY_TIME: Duration = Duration::from_secs(10);

pub struct MiFifo {
    name: PathBuf,
    access: Access,
    reply_dir: PathBuf,
    pretty: bool,
    /// Made at the start, until the service takes it.
    pipe: Mutex<Option<(OwnFile, File)>>,
}

impl Default for MiFifo {
    fn default() -> MiFifo {
        MiFifo {
            name: "/tmp/opensips_fifo".into(),
            access: Access { mode: 0o660, ..Access::default() },
            reply_dir: "/tmp/".into(),
            pretty: false,
            pipe: Mutex::default(),
        }
    }
}

pub fn register(m: &mut Registrar<MiFifo>) {
    m.param_text("fifo_name", |s, v| Ok(s.name = v.into()));
    m.param_int("fifo_mode", |s, v| Ok(s.access.mode = v as u32 & 0o777));
    m.param_text("reply_dir", |s, v| Ok(s.reply_dir = v.into()));
    m.param_int("pretty_printing", |s, v| Ok(s.pretty = v != 0));
    m.param(
        "fifo_user",
        host::registrar::ParamFn::Any(|s, v| Ok(s.access.user = Some(own_file::owner_text(v)))),
    );
    m.param(
        "fifo_group",
        host::registrar::ParamFn::Any(|s, v| Ok(s.access.group = Some(own_file::owner_text(v)))),
    );
    m.accepts(Accepts::range(0, 0o7777), &["fifo_mode"]);
    m.ignored(&["trace_destination", "trace_bwlist"], "tracing of management traffic does not exist yet");
    m.ignored(&["reply_indent"], "replies are JSON");
    m.ready(ready);
}

/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

fn ready(module: &Arc<MiFifo>, hooks: &mut Hooks, _: &Stats) {
    let opening = module.clone();
    hooks.openings.push(Arc::new(move || open(&opening)));
    let lacking = module.clone();
    hooks.lacks.push(("mi_fifo", Arc::new(move || lacks(&lacking))));
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

fn lacks(module: &MiFifo) -> Vec<String> {
    let mut lacks: Vec<String> = own_file::folder_missing(&module.name).into_iter().collect();
    if !module.reply_dir.is_dir() {
        lacks.push(format!("the folder {} (reply_dir) is missing", module.reply_dir.display()));
    }
    lacks
}

/// Makes the pipe, and opens it for reading and writing: so it never reports its end when a client goes.
fn open(module: &MiFifo) -> Result<(), String> {
    let path = &module.name;
    let mode = rustix::fs::Mode::from_raw_mode(module.access.mode);
    let made = own_file::make(path, OwnFileKind::Fifo, &module.access, || {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)?;
        std::fs::OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(path)
    });
    *module.pipe.lock() = Some(made.map_err(|e| format!("mi_fifo: {e}"))?);
    if !module.reply_dir.is_dir() {
        return Err(format!("mi_fifo: the folder {} (reply_dir) is missing", module.reply_dir.display()));
    }
    Ok(())
}

async fn serve(module: Arc<MiFifo>, shared: Arc<Shared>) {
    let Some((_own, pipe)) = module.pipe.lock().take() else { return };
    let path = module.name.display();
    let mut pipe = match pipe::Receiver::from_file_unchecked(pipe) {
        Ok(pipe) => pipe,
        Err(e) => return error!("mi_fifo", "cannot read {path}: {e}"),
    };
    let mut buffer = Vec::with_capacity(4096);
    let (outage, crowd) = (Outage::default(), Outage::default());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        match pipe.read_buf(&mut buffer).await {
            Ok(_) => {
                outage.ends();
            }
            Err(e) => {
                if outage.begins() {
                    error!("mi_fifo", "cannot read {path}: {e}; it is tried again and again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while let Some((reply, request)) = next_request(&mut buffer) {
            if places.available_permits() > 0 {
                crowd.ends();
            } else if crowd.begins() {
                notice!("mi_fifo", "{AT_ONCE} commands are under way, further ones wait");
            }
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (module, shared) = (module.clone(), shared.clone());
            // Each in a task of its own: one that waits holds back no other.
            tokio::spawn(async move {
                let _place = place;
                let answer = mi::answer(&shared, &request).await;
                if let (Some(name), Some(answer)) = (reply, answer) {
                    send_reply(&module, &name, &answer).await;
                }
            });
        }
        if buffer.len() > MAX_REQUEST {
            notice!("mi_fifo", "a request longer than {MAX_REQUEST} bytes was thrown away");
            buffer.clear();
        }
    }
}

/// Cuts the next complete request off the buffer: (name of the reply FIFO, JSON).
fn next_request(buffer: &mut Vec<u8>) -> Option<(Option<String>, Vec<u8>)> {
    let start = buffer.iter().position(|b| !b.is_ascii_whitespace())?;
    let mut at = start;
    let mut reply = None;
    if buffer[start] == b':' {
        let end = start + 1 + buffer[start + 1..].iter().position(|b| *b == b':')?;
        let name = String::from_utf8_lossy(&buffer[start + 1..end]).into_owned();
        reply = (!name.is_empty()).then_some(name);
        at = end + 1;
    }
    let mut values = serde_json::Deserializer::from_slice(&buffer[at..]).into_iter::<serde_json::Value>();
    match values.next() {
        Some(Ok(_)) => {
            let end = at + values.byte_offset();
            let request = buffer[at..end].to_vec();
            buffer.drain(..end);
            Some((reply, request))
        }
        Some(Err(e)) if e.is_eof() => None,
        None => None,
        Some(Err(_)) => {
            // Not JSON: answered with a parse error, up to the end of the line.
            let end = buffer[at..].iter().position(|b| *b == b'\n').map_or(buffer.len(), |n| at + n + 1);
            let request = buffer[at..end].to_vec();
            buffer.drain(..end);
            Some((reply, request))
        }
    }
}

async fn send_reply(module: &MiFifo, name: &str, answer: &serde_json::Value) {
    // A name with a slash could write anywhere.
    if name.contains('/') {
        return notice!("mi_fifo", "the reply name {name} holds a slash: not answered");
    }
    let path = module.reply_dir.join(name);
    let text =
        if module.pretty { serde_json::to_string_pretty(answer) } else { serde_json::to_string(answer) };
    let text = text.unwrap_or_default() + "\n";
    // Whoever reads slowly costs a task, and not for ever.
    let written = tokio::time::timeout(REPLY_TIME, write_fifo(&path, text.as_bytes())).await;
    if let Err(e) = written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        notice!("mi_fifo", "cannot write the answer to {}: {e}", path.display());
    }
}

/// The reader opens its end after it has written the request: try for two seconds.
async fn write_fifo(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut tries = 0;
    let mut pipe = loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Ok(pipe) => break pipe,
            Err(e) if tries == 200 => return Err(e),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    pipe.write_all(text).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_at_the_end_of_their_json() {
        let mut buffer = b":reply_1:{\"a\": [1, \"}\"]}:reply_2:{\"b\"".to_vec();
        let (name, request) = next_request(&mut buffer).expect("the first is complete");
        assert_eq!((name.as_deref(), &request[..]), (Some("reply_1"), &b"{\"a\": [1, \"}\"]}"[..]));
        assert!(next_request(&mut buffer).is_none());
        buffer.extend_from_slice(b": 2}");
        assert_eq!(next_request(&mut buffer).expect("complete now").0.as_deref(), Some("reply_2"));
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_no_json_is_cut_at_the_line() {
        let mut buffer = b":r:uptime\n:r:{}".to_vec();
        assert_eq!(next_request(&mut buffer).expect("a line").1, b"uptime\n");
        assert_eq!(next_request(&mut buffer).expect("the next").1, b"{}");
    }
}
