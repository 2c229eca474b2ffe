//! Where log lines go. Callers never wait: a line is put into a bounded queue, one thread writes it to
//! stderr and syslog. Lines that found the queue full are counted and reported.

use host::clock;
use host::log::{Consumer, Level};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines that may wait for the writer, and bytes of them.
const QUEUE: usize = 8192;
const QUEUE_BYTES: usize = 16 << 20;
/// How long `flush` waits for a writer that is stuck on a full pipe.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How a line looks (`stderror_log_format`, `syslog_log_format`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    PlainText,
    Json,
    JsonCee,
}

impl Format {
    pub fn parse(text: &str) -> Option<Format> {
        match text {
            "plain_text" => Some(Format::PlainText),
            "json" => Some(Format::Json),
            "json_cee" => Some(Format::JsonCee),
            _ => None,
        }
    }
}

/// Core parameters about logging, read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub stderr: Format,
    pub syslog: Format,
    /// As in syslog.h, already shifted (LOG_DAEMON is 24).
    pub facility: u8,
    /// `syslog_name`
    pub name: String,
    /// `log_prefix`, with its colon
    pub prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stderr: Format::PlainText,
            syslog: Format::PlainText,
            facility: 24,
            name: "fermata".to_owned(),
            prefix: String::new(),
        }
    }
}

struct Line {
    level: Level,
    who: String,
    text: String,
    at: SystemTime,
}

enum Job {
    Line(Line),
    Flush(SyncSender<()>),
}

/// The way into the writer thread.
#[derive(Clone)]
pub struct Logger {
    queue: SyncSender<Job>,
    lost: Arc<AtomicU64>,
    /// Bytes in the queue.
    bytes: Arc<AtomicUsize>,
}

impl Logger {
    /// Starts the writer. Threads do not survive going into the background: start it after that.
    pub fn start(settings: Settings) -> std::io::Result<Logger> {
        let (queue, jobs) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let bytes = Arc::new(AtomicUsize::new(0));
        let waiting = bytes.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&jobs, &settings, &counter, &waiting))?;
        Ok(Logger { queue, lost, bytes })
    }

    /// Makes this the sink of the whole process.
    pub fn install(&self) {
        let logger = self.clone();
        host::log::set_sink(Box::new(move |level, who, text| logger.put(level, who, text)));
    }

    fn put(&self, level: Level, who: &str, text: &str) {
        let before = self.bytes.fetch_add(text.len(), Ordering::Relaxed);
        if before + text.len() > QUEUE_BYTES {
            self.bytes.fetch_sub(text.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line = Line { level, who: who.to_owned(), text: text.to_owned(), at: SystemTime::now() };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Job::Line(line)) {
            self.bytes.fetch_sub(text.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything put so far is written, at most two seconds.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_LIMIT);
        }
    }
}

fn write_all(jobs: &Receiver<Job>, settings: &Settings, lost: &AtomicU64, waiting: &AtomicUsize) {
    let pid = std::process::id();
    let mut syslog = Syslog::default();
    let mut out = Vec::with_capacity(4096);
    let mut text = String::new();
    while let Ok(first) = jobs.recv() {
        let (mut done, mut lines) = (Vec::new(), 0);
        for job in std::iter::once(first).chain(jobs.try_iter()).take(QUEUE) {
            match job {
                Job::Flush(sender) => done.push(sender),
                Job::Line(line) => {
                    lines += 1;
                    waiting.fetch_sub(line.text.len(), Ordering::Relaxed);
                    write_line(&line, settings, pid, &mut text, &mut out, &mut syslog);
                }
            }
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let text = format!(
                "{missing} log lines were lost: they came faster than they could be written, or could not be written at all"
            );
            let who = "core".to_owned();
            let line = Line { level: Level::Warning, who, text, at: SystemTime::now() };
            write_line(&line, settings, pid, &mut String::new(), &mut out, &mut syslog);
        }
        if !out.is_empty() {
            // A full disk, mostly: what is lost is told when there is room again.
            if std::io::stderr().lock().write_all(&out).is_err() {
                lost.fetch_add(lines + missing, Ordering::Relaxed);
            }
            out.clear();
        }
        for sender in done {
            let _ = sender.send(());
        }
    }
}

fn write_line(
    line: &Line,
    settings: &Settings,
    pid: u32,
    text: &mut String,
    out: &mut Vec<u8>,
    syslog: &mut Syslog,
) {
    if Consumer::Stderr.takes(line.level) {
        text.clear();
        if settings.stderr == Format::PlainText {
            let _ = write!(text, "{} [{pid}] ", stamp(line.at));
        }
        message(text, line, settings, settings.stderr, pid);
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
    if Consumer::Syslog.takes(line.level) {
        text.clear();
        let priority = settings.facility | severity(line.level);
        let _ = write!(text, "<{priority}>{} {}[{pid}]: ", stamp(line.at), settings.name);
        message(text, line, settings, settings.syslog, pid);
        syslog.send(text.as_bytes());
    }
}

/// "Nov 24 01:02:03", local time.
fn stamp(at: SystemTime) -> String {
    let f = clock::local(unix(at));
    let month = clock::MONTHS[f.month as usize - 1];
    format!("{month} {:2} {:02}:{:02}:{:02}", f.day, f.hour, f.minute, f.second)
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// The part after date and process: `INFO:core: text`, or a JSON object. What a script logs with xlog
/// stands alone.
fn message(out: &mut String, line: &Line, settings: &Settings, format: Format, pid: u32) {
    let text = line.text.trim_end_matches(['\n', '\r']);
    let level = line.level.name();
    if format == Format::PlainText {
        let _ = match line.who.as_str() {
            "" => write!(out, "{}{text}", settings.prefix),
            who => write!(out, "{}{level}:{who}: {text}", settings.prefix),
        };
        return;
    }
    let f = clock::local(unix(line.at));
    let offset = clock::utc_offset();
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    let time = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}:{:02}",
        f.year,
        f.month,
        f.day,
        f.hour,
        f.minute,
        f.second,
        minutes / 60,
        minutes % 60
    );
    let json = if format == Format::Json {
        serde_json::json!({"time": time, "pid": pid, "level": level, "module": line.who, "message": text})
    } else {
        out.push_str("@cee: ");
        serde_json::json!({"time": time, "proc": {"id": pid.to_string()}, "pri": level, "subsys": line.who,
            "pname": settings.name, "msg": text})
    };
    let _ = write!(out, "{json}");
}

/// Severity of syslog (RFC 5424 §6.2.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::Alert => 1,
        Level::Critical => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Notice => 5,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

/// A connection to the local syslog daemon; made again when it fails.
#[derive(Default)]
struct Syslog(Option<UnixDatagram>);

impl Syslog {
    fn send(&mut self, line: &[u8]) {
        for _ in 0..2 {
            if self.0.is_none() {
                self.0 = UnixDatagram::unbound().ok().filter(|s| s.connect("/dev/log").is_ok());
            }
            match &self.0 {
                None => return,
                Some(socket) if socket.send(line).is_ok() => return,
                Some(_) => self.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(who: &str, text: &str, format: Format, prefix: &str, expected: &str) {
        let line = Line { level: Level::Info, who: who.into(), text: text.into(), at: UNIX_EPOCH };
        let settings = Settings { prefix: prefix.into(), ..Settings::default() };
        let mut out = String::new();
        message(&mut out, &line, &settings, format, 7);
        assert_eq!(out, expected);
    }

    #[test]
    fn lines() {
        check("core", "it runs\n", Format::PlainText, "", "INFO:core: it runs");
        check("", "GOLD: a b\n", Format::PlainText, "", "GOLD: a b");
        check("tm", "x", Format::PlainText, "backup:", "backup:INFO:tm: x");
        check(
            "tm",
            "say \"x\"",
            Format::Json,
            "",
            r#"{"time":"1970-01-01T00:00:00+00:00","pid":7,"level":"INFO","module":"tm","message":"say \"x\""}"#,
        );
        assert_eq!(stamp(UNIX_EPOCH), "Jan  1 00:00:00");
    }

    #[test]
    fn facilities() {
        for (name, number) in [
            ("LOG_DAEMON", Some(24)),
            ("LOG_LOCAL0", Some(128)),
            ("LOCAL7", Some(184)),
            ("LOG_X", None),
            ("LOG_LOCAL8", None),
        ] {
            assert_eq!(host::params::facility(name), number, "{name}");
        }
    }
}
