//! mi_fifo: management commands through a named pipe, as opensips-cli speaks it:
//! `:reply_fifo_name:{json-rpc}`.

use host::mi;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Registrar, error, notice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// Longest request that is collected before it is thrown away.
const MAX_REQUEST: usize = 1 << 20;

pub struct MiFifo {
    name: PathBuf,
    mode: u32,
    user: Option<String>,
    group: Option<String>,
    reply_dir: PathBuf,
    pretty: bool,
}

impl Default for MiFifo {
    fn default() -> MiFifo {
        MiFifo {
            name: "/tmp/opensips_fifo".into(),
            mode: 0o660,
            user: None,
            group: None,
            reply_dir: "/tmp/".into(),
            pretty: false,
        }
    }
}

pub fn register(m: &mut Registrar<MiFifo>) {
    m.param_text("fifo_name", |s, v| Ok(s.name = v.into()));
    m.param_int("fifo_mode", |s, v| Ok(s.mode = v as u32));
    m.param_text("reply_dir", |s, v| Ok(s.reply_dir = v.into()));
    m.param_int("pretty_printing", |s, v| Ok(s.pretty = v != 0));
    m.param("fifo_user", host::registrar::ParamFn::Any(|s, v| Ok(s.user = Some(owner_text(v)))));
    m.param("fifo_group", host::registrar::ParamFn::Any(|s, v| Ok(s.group = Some(owner_text(v)))));
    m.ignored(&["trace_destination", "trace_bwlist"], "tracing of management traffic does not exist yet");
    m.ignored(&["reply_indent"], "replies are JSON");
    m.ready(ready);
}

fn owner_text(value: &script::ast::ParamValue) -> String {
    match value {
        script::ast::ParamValue::Int(n) => n.to_string(),
        script::ast::ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
    }
}

fn ready(module: &Arc<MiFifo>, hooks: &mut Hooks, _: &Stats) {
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

/// Removes the pipe when the server ends.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn serve(module: Arc<MiFifo>, shared: Arc<Shared>) {
    let path = &module.name;
    if let Err(e) = make_fifo(&module) {
        return error!("mi_fifo", "cannot make {}: {e}", path.display());
    }
    let _remove = Remove(path.clone());
    // Read and write: the pipe never reports its end when a client goes.
    let mut pipe = match pipe::OpenOptions::new().read_write(true).open_receiver(path) {
        Ok(pipe) => pipe,
        Err(e) => return error!("mi_fifo", "cannot open {}: {e}", path.display()),
    };
    let mut buffer = Vec::with_capacity(4096);
    loop {
        match pipe.read_buf(&mut buffer).await {
            Ok(0) => continue,
            Ok(_) => {}
            Err(e) => return error!("mi_fifo", "cannot read {}: {e}", path.display()),
        }
        while let Some((reply, request)) = next_request(&mut buffer) {
            let (module, shared) = (module.clone(), shared.clone());
            tokio::spawn(async move {
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

/// Makes the pipe anew, with its mode and owner.
fn make_fifo(module: &MiFifo) -> std::io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::metadata(&module.name) {
        Ok(meta) if meta.file_type().is_fifo() => std::fs::remove_file(&module.name)?,
        Ok(_) => return Err(std::io::Error::other("the file exists and is no FIFO")),
        Err(_) => {}
    }
    let mode = rustix::fs::Mode::from_raw_mode(module.mode);
    rustix::fs::mknodat(rustix::fs::CWD, &module.name, rustix::fs::FileType::Fifo, mode, 0)?;
    std::fs::set_permissions(&module.name, std::fs::Permissions::from_mode(module.mode))?;
    if module.user.is_some() || module.group.is_some() {
        let user = module.user.as_deref().map(|u| id_of("/etc/passwd", u)).transpose()?;
        let group = module.group.as_deref().map(|g| id_of("/etc/group", g)).transpose()?;
        std::os::unix::fs::chown(&module.name, user, group)?;
    }
    Ok(())
}

/// A numeric id, or the third field of the name's line.
fn id_of(file: &str, name: &str) -> std::io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().map(|l| l.split(':')).find(|l| l.clone().next() == Some(name));
    let id = line.and_then(|mut l| l.nth(2)?.parse().ok());
    id.ok_or_else(|| std::io::Error::other(format!("{name} is not in {file}")))
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
    if let Err(e) = write_fifo(&path, text.as_bytes()).await {
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
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
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
