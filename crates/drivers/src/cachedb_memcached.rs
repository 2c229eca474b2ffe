//! cachedb_memcached: memcached servers as a key-value store, `memcached:group://host:port,host:port/`.
//!
//! Which of several servers has a key is what libmemcached's default says: its hash, modulo their number.

use crate::cachedb::{Backend, Link};
use bytes::Bytes;
use host::cachedb::{Cache, CacheError, CacheUrl, Engine, Reply, Store};
use host::outage::Outage;
use host::registrar::Stage;
use host::{Ctx, Registrar};
use std::cell::Cell;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

const PORT: u16 = 11_211;
/// Connecting, and one operation, take at most this long.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest key, as servers have it, bytes.
const MAX_KEY: usize = 250;
/// Longer lives are taken for moments by servers, seconds.
const LONGEST_LIFE: u32 = 30 * 86_400;

#[derive(Default)]
pub struct CachedbMemcached {
    urls: Vec<String>,
    slow_us: u64,
}

pub fn register(m: &mut Registrar<CachedbMemcached>) {
    m.stage(Stage::Driver);
    m.param_text("cachedb_url", |m, url| Ok(m.urls.push(url.to_string())));
    m.param_int("exec_threshold", |m, us| Ok(m.slow_us = us.max(0) as u64));
    m.init(|m, loader| {
        loader.cache_engine("memcached", Arc::new(Memcached { slow_us: m.slow_us }));
        m.urls.iter().try_for_each(|url| loader.named_cache(url).map(drop))
    });
}

struct Memcached {
    slow_us: u64,
}

impl Engine for Memcached {
    fn module(&self) -> &'static str {
        "cachedb_memcached"
    }

    fn check(&self, url: &CacheUrl) -> Result<(), String> {
        if url.hosts.is_empty() { Err("the URL names no server".into()) } else { Ok(()) }
    }

    fn connect(&self, cache: &Cache, _: &mut Ctx) -> Rc<dyn Store> {
        let servers = cache.url().hosts.iter().map(|host| {
            let place = format!("{}:{}", host.name, host.port.unwrap_or(PORT));
            Link::new(Server { place, outage: Outage::default() })
        });
        Rc::new(Servers { links: servers.collect(), unix_s: Cell::new(0) })
    }

    fn slow_us(&self) -> u64 {
        self.slow_us
    }
}

struct Server {
    place: String,
    outage: Outage,
}

/// A connection, for one operation at a time.
struct Talk {
    stream: BufReader<TcpStream>,
    /// An operation was dropped in its middle: what comes next is not for the next one.
    torn: bool,
}

impl Backend for Server {
    type Conn = Rc<Mutex<Talk>>;

    const MODULE: &'static str = "cachedb_memcached";

    fn name(&self) -> String {
        self.place.clone()
    }

    fn outage(&self) -> &Outage {
        &self.outage
    }

    async fn connect(&self) -> Result<Self::Conn, String> {
        let connected = timeout(LIMIT, TcpStream::connect(&self.place)).await;
        let stream = connected.map_err(|_| "no connection in time".to_owned())?.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Rc::new(Mutex::new(Talk { stream: BufReader::new(stream), torn: false })))
    }
}

impl Talk {
    /// Sends a command and gives the first line of the answer, without its end.
    async fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        self.stream.get_mut().write_all(command).await?;
        self.line().await
    }

    async fn line(&mut self) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_ascii_end().len());
        Ok(line)
    }

    /// The value behind a line `VALUE key flags length`; `None` for `END`.
    async fn value(&mut self, line: &[u8]) -> Result<Option<Bytes>, Error> {
        if line == b"END" {
            return Ok(None);
        }
        let length =
            line.split(|b| *b == b' ').nth(3).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        let Some(length) = length.filter(|_| line.starts_with(b"VALUE ")) else {
            return Err(Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(line).into_owned()));
        };
        let mut value: Vec<u8> = vec![0; length];
        self.stream.read_exact(&mut value).await?;
        // The end of its line, then END.
        self.line().await?;
        self.line().await?;
        Ok(Some(value.into()))
    }
}

struct Servers {
    links: Vec<Link<Server>>,
    unix_s: Cell<u64>,
}

/// Bob Jenkins' one-at-a-time hash, as libmemcached's default has it.
fn hash(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0u32, |hash, byte| {
        let hash = hash.wrapping_add(u32::from(*byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ hash >> 6
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

impl Servers {
    fn of(&self, key: &[u8]) -> Link<Server> {
        self.links[hash(key) as usize % self.links.len()].clone()
    }

    /// Does something on the connection of a key's server, within the time that an operation may take.
    fn run<T: 'static, F>(
        &self,
        key: Bytes,
        operation: impl FnOnce(Bytes, Rc<Mutex<Talk>>) -> F + 'static,
    ) -> Reply<T>
    where
        F: Future<Output = Result<Result<T, CacheError>, Error>> + 'static,
    {
        let odd = |b: &u8| *b <= b' ' || *b == 0x7f;
        if key.is_empty() || key.len() > MAX_KEY || key.iter().any(odd) {
            let why = format!("a key has 1 to {MAX_KEY} bytes, and no blanks or control characters");
            return Reply::Now(Err(CacheError::Refused(why)));
        }
        let link = self.of(&key);
        Reply::later(async move {
            let _place = link.enter()?;
            let (talk, number) = link.conn().await?;
            match timeout(LIMIT, operation(key, talk)).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => {
                    link.lost(number, &error.to_string());
                    Err(CacheError::Down(error.to_string()))
                }
                Err(_) => {
                    link.lost(number, "no answer in time");
                    Err(CacheError::TimedOut)
                }
            }
        })
    }

    /// As the protocol writes it: seconds, or a moment where a life is long.
    fn life(&self, expires_s: u32) -> u64 {
        match expires_s {
            0..=LONGEST_LIFE => u64::from(expires_s),
            long => self.unix_s.get() + u64::from(long),
        }
    }
}

/// One operation: a connection on which an earlier one was dropped is of no use.
macro_rules! on {
    ($talk:ident, $operation:expr) => {{
        let mut $talk = $talk.lock().await;
        if std::mem::replace(&mut $talk.torn, true) {
            return Err(Error::new(ErrorKind::ConnectionAborted, "an operation was dropped"));
        }
        let result = $operation;
        $talk.torn = false;
        Ok(result)
    }};
}

fn refused<T>(line: &[u8]) -> Result<T, CacheError> {
    Err(CacheError::Refused(String::from_utf8_lossy(line).into_owned()))
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

impl Store for Servers {
    fn at(&self, _: transaction::Instant, unix_s: u64) {
        self.unix_s.set(unix_s);
    }

    fn connect(&self) -> Reply<()> {
        let links = self.links.clone();
        Reply::later(async move {
            for link in links {
                link.conn().await?;
            }
            Ok(())
        })
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        self.run(key, |key, talk| async move {
            on!(talk, {
                let line = talk.ask(&[b"get ", &key[..], b"\r\n"].concat()).await?;
                Ok(talk.value(&line).await?)
            })
        })
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        let life = self.life(expires_s);
        self.run(key, move |key, talk| async move {
            on!(talk, {
                let head = format!(" 0 {life} {}\r\n", value.len());
                let command = [b"set ", &key[..], head.as_bytes(), &value, b"\r\n"].concat();
                match &talk.ask(&command).await?[..] {
                    b"STORED" => Ok(()),
                    other => refused(other),
                }
            })
        })
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        self.run(key, |key, talk| async move {
            on!(talk, {
                match &talk.ask(&[b"delete ", &key[..], b"\r\n"].concat()).await?[..] {
                    b"DELETED" | b"NOT_FOUND" => Ok(()),
                    other => refused(other),
                }
            })
        })
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        let life = self.life(expires_s);
        self.run(key, move |key, talk| async move {
            on!(talk, {
                let word = if by < 0 { "decr" } else { "incr" };
                let change = format!(" {}\r\n", by.unsigned_abs());
                let change = [word.as_bytes(), b" ", &key[..], change.as_bytes()].concat();
                let mut line = talk.ask(&change).await?;
                if line == b"NOT_FOUND" {
                    // Servers count from 0 up only.
                    let first = by.max(0).to_string();
                    let head = format!(" 0 {life} {}\r\n{first}\r\n", first.len());
                    line = match &talk.ask(&[b"add ", &key[..], head.as_bytes()].concat()).await?[..] {
                        b"STORED" => first.into_bytes(),
                        // Somebody was faster.
                        _ => talk.ask(&change).await?,
                    };
                } else if life > 0 && number(&line).is_some() {
                    talk.ask(&[b"touch ", &key[..], format!(" {life}\r\n").as_bytes()].concat()).await?;
                }
                match number(&line) {
                    Some(n) => Ok(n),
                    None if line.starts_with(b"CLIENT_ERROR") => Err(CacheError::NotANumber),
                    None => refused(&line),
                }
            })
        })
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        self.run(key, |key, talk| async move {
            on!(talk, {
                let line = talk.ask(&[b"get ", &key[..], b"\r\n"].concat()).await?;
                match talk.value(&line).await? {
                    None => Ok(None),
                    Some(value) => number(&value).map(Some).ok_or(CacheError::NotANumber),
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{refused, run};
    use script::ast::Dialect;
    use std::process::{Child, Command};

    /// Debian's memcached on a port of its own; `None` where it is not installed.
    struct Daemon(Child, u16);

    impl Daemon {
        fn start() -> Option<Daemon> {
            let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let mut command = Command::new("memcached");
            command.args(["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &port.to_string()]);
            let daemon = Daemon(command.spawn().ok()?, port);
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                std::thread::yield_now();
            }
            Some(daemon)
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn config(url: &str) -> String {
        format!(
            "loadmodule \"cachedb_memcached.so\"\nmodparam(\"cachedb_memcached\", \"cachedb_url\", \"{url}\")\n"
        )
    }

    #[test]
    fn a_real_server() {
        let (Some(one), Some(two)) = (Daemon::start(), Daemon::start()) else {
            return host::warn!("cachedb_memcached", "memcached is not installed: not tested");
        };
        let url = format!("memcached:m://127.0.0.1:{},127.0.0.1:{}/", one.1, two.1);
        let body = r#"
            $var(i) = 0;
            while ($var(i) < 20) { cache_store("memcached:m", "key$var(i)", "line\r\nEND $var(i)", 60); $var(i) = $var(i) + 1; }
            cache_fetch("memcached:m", "key7", $avp(v)); $avp(rc) = $rc;
            cache_remove("memcached:m", "key7"); cache_fetch("memcached:m", "key7", $avp(gone)); $avp(rc) = $rc;
            cache_add("memcached:m", "n", 5, 0); cache_add("memcached:m", "n", 2, 60, $avp(n));
            cache_sub("memcached:m", "n", 3, 0, $avp(n)); cache_counter_fetch("memcached:m", "n", $avp(n));
            cache_add("memcached:m", "key3", 1, 0); $avp(rc) = $rc; cache_store("memcached:m", "a key", "v"); $avp(rc) = $rc;
        "#;
        let ran = run(&config(&url), body, Dialect::V4);
        assert_eq!(ran.avps("v"), ["line\r\nEND 7"]);
        assert_eq!(ran.avps("n"), ["4", "4", "7"]);
        let codes = ran.avps("rc");
        assert_eq!(
            codes.iter().map(|rc| rc.starts_with('-')).collect::<Vec<_>>(),
            [true, true, true, false],
            "{codes:?}"
        );
    }

    #[test]
    fn no_server() {
        let ran = run(
            &config("memcached:m://127.0.0.1:1/"),
            "cache_fetch(\"memcached:m\", \"k\", $avp(v)); $avp(rc) = $rc;",
            Dialect::V4,
        );
        assert!(ran.avps("rc")[0].starts_with('-') && ran.avps("v").is_empty());
        assert!(!refused(&config("memcached:m:///"), "exit;", Dialect::V4).is_empty());
    }

    #[test]
    fn long_lives_are_moments() {
        let servers = Servers { links: Vec::new(), unix_s: Cell::new(1_700_000_000) };
        assert_eq!((servers.life(0), servers.life(LONGEST_LIFE)), (0, u64::from(LONGEST_LIFE)));
        assert_eq!(servers.life(LONGEST_LIFE + 1), 1_700_000_000 + u64::from(LONGEST_LIFE) + 1);
    }

    #[test]
    fn the_hash_is_that_of_others() {
        // Known values of the one-at-a-time hash.
        assert_eq!(
            (hash(b"a"), hash(b"The quick brown fox jumps over the lazy dog")),
            (0xca2e_9442, 0x519e_91f5)
        );
    }
}
