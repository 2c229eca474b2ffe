//! A worker's connection to one directory. One carries any number of searches at once.
#![expect(
    clippy::disallowed_methods,
    reason = "connections to servers are real I/O: they live outside the worker"
)]

use super::config::{Settings, Tls};
use super::tls;
use super::url::Search;
use host::outage::Outage;
use host::worker::ops::{note_queued, note_refused};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, SearchEntry};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Entries that one search may give.
const MAX_ENTRIES: usize = 10_000;
/// Bytes of attributes that one search may give.
const MAX_BYTES: usize = 64 << 20;
/// Searches that one worker has under way in one session.
const MAX_IN_FLIGHT: usize = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Why a search gave nothing.
pub enum Problem {
    /// No server can be reached.
    Down,
    /// What this one search met.
    Failed(String),
}

/// While it is down one search in a while tries to connect; the others fail at once.
#[derive(Clone, Copy)]
struct Down {
    until: Instant,
    pause: Duration,
}

/// What was told of the servers of a session, for all workers: one line when it begins, one when it ends.
#[derive(Clone, Default)]
pub struct Told {
    /// None can be reached.
    away: Outage,
    /// One gave no answer in time.
    silent: Outage,
}

pub struct Session {
    settings: Settings,
    told: Told,
    /// Held while somebody connects.
    connection: Mutex<Option<Ldap>>,
    down: Cell<Option<Down>>,
}

impl Session {
    pub fn new(settings: Settings, told: Told) -> Session {
        Session { settings, told, connection: Mutex::new(None), down: Cell::new(None) }
    }

    /// All entries. A search that lost its connection is sent again once.
    pub async fn search(self: Rc<Self>, search: Search) -> Result<Vec<SearchEntry>, Problem> {
        // Every search that runs holds the session.
        if Rc::strong_count(&self) > MAX_IN_FLIGHT {
            note_refused();
            return Err(Problem::Failed(format!("{MAX_IN_FLIGHT} searches run already")));
        }
        for again in [true, false] {
            let ldap = self.connected().await?;
            match timeout(self.settings.search_timeout, collect(ldap, &search)).await {
                Ok(Ok(entries)) => {
                    if self.told.silent.ends() {
                        host::notice!("ldap", "{} answers again", self.settings.name);
                    }
                    return Ok(entries);
                }
                Ok(Err(Ended::Refused(why))) => return Err(Problem::Failed(why)),
                Ok(Err(Ended::Lost(why))) => {
                    host::info!("ldap", "the connection to {} was lost: {why}", self.settings.name);
                    *self.connection.lock().await = None;
                    if !again {
                        return Err(Problem::Failed(why));
                    }
                }
                Err(_) => {
                    // Whoever comes next gets a fresh connection: this one may be dead.
                    *self.connection.lock().await = None;
                    if self.told.silent.begins() {
                        let ms = self.settings.search_timeout.as_millis();
                        host::error!("ldap", "{} gave no answer in {ms} ms", self.settings.name);
                    }
                    return Err(Problem::Down);
                }
            }
        }
        Err(Problem::Down)
    }

    async fn connected(&self) -> Result<Ldap, Problem> {
        let waits = |down: Down| down.until > Instant::now();
        if self.down.get().is_some_and(waits) {
            return Err(Problem::Down);
        }
        let mut slot = match self.connection.try_lock() {
            Ok(slot) => slot,
            Err(_) => {
                note_queued();
                self.connection.lock().await
            }
        };
        if let Some(ldap) = slot.as_mut()
            && !ldap.is_closed()
        {
            return Ok(ldap.clone());
        }
        if self.down.get().is_some_and(waits) {
            return Err(Problem::Down);
        }
        match self.connect().await {
            Ok(ldap) => {
                if self.down.take().is_some() && self.told.away.ends() {
                    host::notice!("ldap", "{} is reachable again", self.settings.name);
                }
                *slot = Some(ldap.clone());
                Ok(ldap)
            }
            Err(why) => {
                *slot = None;
                let pause = match self.down.get() {
                    Some(down) => (down.pause * 2).min(LAST_PAUSE),
                    None => {
                        if self.told.away.begins() {
                            host::error!("ldap", "{} is unreachable: {why}", self.settings.name);
                        }
                        FIRST_PAUSE
                    }
                };
                self.down.set(Some(Down { until: Instant::now() + pause, pause }));
                Err(Problem::Down)
            }
        }
    }

    /// The first server that lets us in.
    async fn connect(&self) -> Result<Ldap, String> {
        let mut problems = Vec::new();
        for server in &self.settings.servers {
            match self.connect_to(server).await {
                Ok(ldap) => return Ok(ldap),
                Err(why) => problems.push(format!("{server}: {why}")),
            }
        }
        Err(problems.join("; "))
    }

    async fn connect_to(&self, server: &str) -> Result<Ldap, String> {
        let settings = &self.settings;
        let mut options = LdapConnSettings::new().set_conn_timeout(settings.connect_timeout);
        let tls = settings.tls.clone().or_else(|| server.starts_with("ldaps:").then(Tls::default));
        if let Some(tls) = &tls {
            options = options.set_config(tls::client(tls)?).set_starttls(server.starts_with("ldap:"));
        }
        let opening = LdapConnAsync::with_settings(options, server);
        let opened = timeout(settings.connect_timeout + settings.bind_timeout, opening).await;
        let (connection, mut ldap) =
            opened.map_err(|_| "no answer to TLS".to_string())?.map_err(|e| plain(&e))?;
        tokio::task::spawn_local(async move {
            // How it ends shows in the searches that it carries.
            let _ = connection.drive().await;
        });
        let bind = ldap.simple_bind(&settings.bind_dn, &settings.password);
        let bound =
            timeout(settings.bind_timeout, bind).await.map_err(|_| "no answer to the bind".to_string())?;
        bound.and_then(|result| result.success()).map_err(|e| plain(&e))?;
        Ok(ldap)
    }
}

enum Ended {
    Lost(String),
    Refused(String),
}

impl From<LdapError> for Ended {
    fn from(error: LdapError) -> Ended {
        match &error {
            // Only for them the server gave an answer.
            LdapError::LdapResult { .. } | LdapError::FilterParsing => Ended::Refused(plain(&error)),
            _ => Ended::Lost(plain(&error)),
        }
    }
}

fn plain(error: &LdapError) -> String {
    match error {
        LdapError::LdapResult { result } if result.text.is_empty() => format!("LDAP error {}", result.rc),
        LdapError::LdapResult { result } => format!("LDAP error {}: {}", result.rc, result.text),
        LdapError::Io { source } => source.to_string(),
        LdapError::Timeout { .. } => "no answer in time".to_string(),
        error => error.to_string(),
    }
}

/// Tells the server that nobody waits any more.
struct Abandon(RefCell<Option<Ldap>>);

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(mut ldap) = self.0.take() {
            let id = ldap.last_id();
            tokio::task::spawn_local(async move {
                let _ = ldap.abandon(id).await;
            });
        }
    }
}

async fn collect(mut ldap: Ldap, search: &Search) -> Result<Vec<SearchEntry>, Ended> {
    let attributes =
        if search.attributes.is_empty() { vec!["*".to_string()] } else { search.attributes.clone() };
    let mut stream = ldap.streaming_search(&search.base, search.scope, &search.filter, attributes).await?;
    let guard = Abandon(RefCell::new(Some(stream.ldap_handle().clone())));
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(entry) = stream.next().await? {
        // References to other servers are not followed.
        if entry.is_ref() {
            continue;
        }
        let entry = SearchEntry::construct(entry);
        bytes += entry.attrs.values().flatten().map(String::len).sum::<usize>();
        entries.push(entry);
        if entries.len() > MAX_ENTRIES || bytes > MAX_BYTES {
            return Err(Ended::Refused("the result is too large".to_string()));
        }
    }
    guard.0.take();
    let result = stream.finish().await;
    // No such object: there is nothing below it either.
    if result.rc == 32 {
        return Ok(Vec::new());
    }
    result.success()?;
    Ok(entries)
}
