//! A running server, asked over whatever way its script opens for management commands.

use crate::cli::Run;
use crate::config;
use script::Sources;
use script::ast::{Config, ParamValue};
use serde_json::{Value as Json, json};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Configurations that are looked for without `-f`.
const USUAL: [&str; 2] = ["/etc/fermata/fermata.cfg", "/etc/opensips/opensips.cfg"];
/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Where the server is. Without `--fifo`, `--datagram` or `--http` its script says it.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Remote {
    /// The script of the server, which says where it listens
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The FIFO of mi_fifo
    #[arg(long, value_name = "PATH", conflicts_with_all = ["datagram", "http"])]
    fifo: Option<PathBuf>,
    /// Where the server writes answers (reply_dir of mi_fifo)
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    reply_dir: PathBuf,
    /// The socket of mi_datagram: a path, or udp:address:port
    #[arg(long, value_name = "SOCKET", conflicts_with = "http")]
    datagram: Option<String>,
    /// The address of mi_http: [http://]host:port[/mi]
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl Remote {
    /// The ways to the server; the error is for the user.
    pub fn find(&self) -> Result<Server, String> {
        Ok(Server { ways: ways(self)?, limit: Duration::from_secs(self.timeout.clamp(1, 86_400)) })
    }
}

/// A server that can be asked.
#[derive(Debug)]
pub struct Server {
    ways: Vec<Way>,
    limit: Duration,
}

impl Server {
    /// The whole JSON-RPC answer to a command. The error: nobody was reached, for the user.
    pub fn ask(&self, method: &str, params: &Json) -> Result<Json, String> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut reasons = Vec::new();
        for way in &self.ways {
            match ask(way, request.as_bytes(), self.limit) {
                Ok(answer) => return Ok(answer),
                Err(why) => reasons.push(format!("{way}: {why}")),
            }
        }
        Err(format!("no server was reached\n  {}", reasons.join("\n  ")))
    }

    /// What a command gives; the error, also that of the command, is for the user.
    pub fn call(&self, method: &str, params: &Json) -> Result<Json, String> {
        let mut answer = self.ask(method, params)?;
        match answer.get("error") {
            Some(error) => {
                let detail = error["data"].as_str().map(|d| format!(": {d}")).unwrap_or_default();
                Err(format!("{method}: {}{detail}", error["message"].as_str().unwrap_or("an error")))
            }
            None => Ok(answer["result"].take()),
        }
    }
}

/// A way to a server.
#[derive(Clone, Debug, PartialEq)]
enum Way {
    Fifo { path: PathBuf, replies: PathBuf },
    Unix(PathBuf),
    Udp(String),
    Http { host: String, path: String },
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Fifo { path, .. } => write!(f, "the FIFO {}", path.display()),
            Way::Unix(path) => write!(f, "the socket {}", path.display()),
            Way::Udp(address) => write!(f, "udp:{address}"),
            Way::Http { host, path } => write!(f, "http://{host}{path}"),
        }
    }
}

/// Where a server may be, the surest way first.
fn ways(options: &Remote) -> Result<Vec<Way>, String> {
    if let Some(path) = &options.fifo {
        return Ok(vec![Way::Fifo { path: path.clone(), replies: options.reply_dir.clone() }]);
    }
    if let Some(socket) = &options.datagram {
        return Ok(vec![datagram(socket)]);
    }
    if let Some(url) = &options.http {
        return Ok(vec![http(url)?]);
    }
    let usual = || USUAL.iter().map(PathBuf::from).find(|path| path.exists());
    let Some(file) = options.file.clone().or_else(usual) else {
        return Err(format!(
            "no script: say it with -f, or the way itself with --fifo ({} do not exist)",
            USUAL.join(", ")
        ));
    };
    let mut sources = Sources::default();
    let (config, problems) = config::parse(&file, &Run::default(), &mut sources);
    if config.modules.is_empty() && problems.iter().any(script::Diagnostic::is_error) {
        return Err(format!("{} cannot be read: fermata check {}", file.display(), file.display()));
    }
    let ways = configured(&config);
    if ways.is_empty() {
        return Err(format!("{} opens no way for commands: loadmodule \"mi_fifo.so\" does", file.display()));
    }
    Ok(ways)
}

fn configured(config: &Config) -> Vec<Way> {
    let loads = |name: &str| config.modules.iter().any(|m| &m.name[..] == name.as_bytes());
    let param = |module: &str, name: &str| {
        let is_it =
            |p: &&script::ast::ModParam| &p.module[..] == module.as_bytes() && &p.name[..] == name.as_bytes();
        config.params.iter().rev().find(is_it).map(|p| match &p.value {
            ParamValue::Int(n) => n.to_string(),
            ParamValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
        })
    };
    let mut ways = Vec::new();
    if loads("mi_fifo") {
        let path = param("mi_fifo", "fifo_name").unwrap_or_else(|| "/tmp/opensips_fifo".into());
        let replies = param("mi_fifo", "reply_dir").unwrap_or_else(|| "/tmp".into());
        ways.push(Way::Fifo { path: path.into(), replies: replies.into() });
    }
    if let Some(socket) = param("mi_datagram", "socket_name").filter(|_| loads("mi_datagram")) {
        ways.push(datagram(&socket));
    }
    if loads("mi_http") {
        let root = param("mi_http", "root").or_else(|| param("mi_http", "mi_http_root"));
        let ip = param("httpd", "ip").filter(|ip| !matches!(ip.as_str(), "*" | "0.0.0.0" | "::"));
        let ip = ip.map_or("127.0.0.1".into(), |ip| if ip.contains(':') { format!("[{ip}]") } else { ip });
        let port = param("httpd", "port").unwrap_or_else(|| "8888".into());
        ways.push(Way::Http {
            host: format!("{ip}:{port}"),
            path: format!("/{}", root.as_deref().unwrap_or("mi")),
        });
    }
    ways
}

fn datagram(socket: &str) -> Way {
    match socket.strip_prefix("unix:").or(socket.starts_with('/').then_some(socket)) {
        Some(path) => Way::Unix(path.into()),
        None => Way::Udp(socket.strip_prefix("udp:").unwrap_or(socket).to_owned()),
    }
}

fn http(url: &str) -> Result<Way, String> {
    if url.starts_with("https://") {
        return Err("https is not spoken here: curl -d '{...}' does, or use --fifo".into());
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').map_or((rest, "/mi".to_owned()), |(h, p)| (h, format!("/{p}")));
    let host = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:8888")
    };
    Ok(Way::Http { host, path })
}

fn ask(way: &Way, request: &[u8], limit: Duration) -> Result<Json, String> {
    let text = match way {
        Way::Fifo { path, replies } => ask_fifo(path, replies, request, limit)?,
        Way::Unix(path) => ask_unix(path, request, limit).map_err(|e| reason(&e))?,
        Way::Udp(address) => ask_udp(address, request, limit).map_err(|e| reason(&e))?,
        Way::Http { host, path } => ask_http(host, path, request, limit)?,
    };
    serde_json::from_slice(&text)
        .map_err(|_| format!("the answer is no JSON: {}", String::from_utf8_lossy(&text).trim()))
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            "no answer in time (--timeout)".into()
        }
        std::io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
        std::io::ErrorKind::NotFound => "it does not exist: does the server run?".into(),
        std::io::ErrorKind::PermissionDenied => "this user may not: run it as the user of the server".into(),
        _ => error.to_string(),
    }
}

/// A name of our own, removed at the end.
struct Own(PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn own_name(folder: &Path, what: &str) -> Own {
    let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    Own(folder.join(format!("fermata_mi_{what}_{}_{nonce:x}", std::process::id())))
}

fn ask_fifo(path: &Path, replies: &Path, request: &[u8], limit: Duration) -> Result<Vec<u8>, String> {
    let kind = std::fs::metadata(path).map_err(|e| reason(&e))?.file_type();
    if !kind.is_fifo() {
        return Err("it is no FIFO".into());
    }
    let own = own_name(replies, "reply");
    let mode = rustix::fs::Mode::from_raw_mode(0o660);
    rustix::fs::mknodat(rustix::fs::CWD, &own.0, rustix::fs::FileType::Fifo, mode, 0)
        .map_err(|e| format!("cannot make {}: {}", own.0.display(), reason(&e.into())))?;
    // The server may run as another user.
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&own.0, open_to_all).map_err(|e| reason(&e))?;
    // Without a reader it is refused at once: no server reads a FIFO that was left behind.
    let to = OpenOptions::new().write(true).custom_flags(NONBLOCK).open(path);
    let mut to = to.map_err(|e| match e.raw_os_error() {
        Some(6) => "nobody reads it: the server does not run".to_owned(),
        _ => reason(&e),
    })?;
    let mut from =
        OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&own.0).map_err(|e| reason(&e))?;
    let name = own.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = [b":", name.as_bytes(), b":", request, b"\n"].concat();
    to.write_all(&text).map_err(|e| reason(&e))?;
    let (end, mut answer) = (Instant::now() + limit, Vec::new());
    let mut part = [0; 65_536];
    loop {
        match from.read(&mut part) {
            // Whoever writes has not opened it yet, or has closed it.
            Ok(0) if answer.is_empty() => {}
            Ok(0) => return Ok(answer),
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(reason(&e)),
        }
        if answer.ends_with(b"\n") && serde_json::from_slice::<Json>(&answer).is_ok() {
            return Ok(answer);
        }
        if Instant::now() > end {
            return Err("no answer in time (--timeout)".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The longest datagram of an answer.
const DATAGRAM: usize = 1 << 20;

fn ask_unix(path: &Path, request: &[u8], limit: Duration) -> std::io::Result<Vec<u8>> {
    let own = own_name(&std::env::temp_dir(), "socket");
    let socket = UnixDatagram::bind(&own.0)?;
    std::fs::set_permissions(&own.0, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    socket.set_read_timeout(Some(limit))?;
    socket.send_to(request, path)?;
    let mut answer = vec![0; DATAGRAM];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn address_of(text: &str) -> std::io::Result<SocketAddr> {
    text.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("the name has no address"))
}

fn ask_udp(address: &str, request: &[u8], limit: Duration) -> std::io::Result<Vec<u8>> {
    let to = address_of(address)?;
    let socket = UdpSocket::bind((if to.is_ipv6() { "::" } else { "0.0.0.0" }, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(request)?;
    let mut answer = vec![0; DATAGRAM];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn ask_http(host: &str, path: &str, request: &[u8], limit: Duration) -> Result<Vec<u8>, String> {
    let to = address_of(host).map_err(|e| reason(&e))?;
    let stream =
        TcpStream::connect_timeout(&to, limit.min(Duration::from_secs(5))).map_err(|e| reason(&e))?;
    stream.set_read_timeout(Some(limit)).map_err(|e| reason(&e))?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    (&stream).write_all(&[head.as_bytes(), request].concat()).map_err(|e| reason(&e))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|e| reason(&e))?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = None;
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(|e| reason(&e))? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            let _ = name;
            length = value.trim().parse::<u64>().ok();
        }
    }
    let mut body = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body).map_err(|e| reason(&e))?;
    match status.as_str() {
        "200" => Ok(body),
        status => Err(format!("the server answered {status} {}", String::from_utf8_lossy(&body).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_where() {
        let check = |text: &str, expected: &[&str]| {
            let config = script::parse_text("t.cfg", text, &mut Sources::default(), Default::default()).0;
            let ways: Vec<String> = configured(&config).iter().map(Way::to_string).collect();
            assert_eq!(ways, expected, "{text}");
        };
        check("loadmodule \"tm.so\"\nroute { exit; }", &[]);
        check(
            "loadmodule \"mi_fifo.so\"\nmodparam(\"mi_fifo\", \"fifo_name\", \"/run/f\")\nloadmodule \"mi_http.so\"\nmodparam(\"httpd\", \"port\", 8080)\nroute { exit; }",
            &["the FIFO /run/f", "http://127.0.0.1:8080/mi"],
        );
        check(
            "loadmodule \"mi_datagram.so\"\nmodparam(\"mi_datagram\", \"socket_name\", \"udp:127.0.0.1:4000\")\nroute { exit; }",
            &["udp:127.0.0.1:4000"],
        );
        assert_eq!(http("localhost").unwrap().to_string(), "http://localhost:8888/mi");
        assert_eq!(http("http://h:1/x").unwrap().to_string(), "http://h:1/x");
    }
}
