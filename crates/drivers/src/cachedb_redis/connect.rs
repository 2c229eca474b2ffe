//! Where a URL leads: servers in turn, a Sentinel's master, or a Cluster.

use super::Settings;
use crate::cachedb::Backend;
use crate::tls_mgm::Domain;
use host::cachedb::CacheUrl;
use host::outage::Outage;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisResult, TlsCertificates, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A URL, prepared.
pub struct Target {
    pub(super) name: String,
    /// Servers in the order of the URL; one unless it names several.
    servers: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    /// `?sentinel=master`: the servers are Sentinels that know this master.
    sentinel: Option<String>,
    /// The server that is tried first.
    next: AtomicUsize,
    pub connect_limit: Duration,
    pub query_limit: Duration,
    pub(super) outage: Outage,
}

/// A connection that many operations share.
#[derive(Clone)]
pub enum Conn {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Conn {
    /// What the server says no to is an error, not a value.
    pub async fn run(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Conn::One(conn) => conn.req_packed_command(cmd).await,
            Conn::Cluster(conn) => conn.req_packed_command(cmd).await,
        };
        answer.and_then(Value::extract_error)
    }
}

impl Target {
    /// The error is what a user should read.
    pub fn new(url: &CacheUrl, settings: &Settings, domains: &[Domain]) -> Result<Target, String> {
        let sentinel = url.param("sentinel").map(str::to_string);
        let number: i64 = match url.database.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| format!("`{text}` is no number of a database"))?,
        };
        let domain = match (settings.tls, url.param("tls_domain")) {
            (true, Some(name)) => {
                let found = domains.iter().find(|d| d.name == name);
                Some(found.ok_or_else(|| format!("there is no client_domain `{name}` of module tls_mgm"))?)
            }
            _ => None,
        };
        let mut login = RedisConnectionInfo::default().set_db(number);
        if let Some(password) = &url.password {
            login = login.set_password(password);
            if let Some(user) = &url.user {
                login = login.set_username(user);
            }
        }
        let mut servers = Vec::new();
        if let Some(path) = url.param("socket") {
            if url.hosts.len() > 1 {
                return Err("a Unix socket is one server, not several".to_string());
            }
            servers.push(info(ConnectionAddr::Unix(path.into()), &login, settings)?);
        } else {
            for host in &url.hosts {
                let port = host.port.unwrap_or(if sentinel.is_some() { 26379 } else { 6379 });
                let name = host.name.clone();
                let addr = match domain {
                    None => ConnectionAddr::Tcp(name, port),
                    Some(domain) => {
                        let insecure = domain.verify_cert == Some(false);
                        ConnectionAddr::TcpTls { host: name, port, insecure, tls_params: None }
                    }
                };
                servers.push(info(addr, &login, settings)?);
            }
        }
        if servers.is_empty() {
            return Err("the host is missing".to_string());
        }
        let (connect_limit, query_limit) = (settings.connect, settings.query);
        let certificates = domain.map(certificates).transpose()?;
        let name = format!("{url} ({})", addresses(&servers));
        let (next, outage) = (AtomicUsize::new(0), Outage::default());
        Ok(Target { name, servers, certificates, sentinel, next, connect_limit, query_limit, outage })
    }

    fn client(&self, server: &ConnectionInfo) -> RedisResult<Client> {
        match &self.certificates {
            None => Client::open(server.clone()),
            Some(certificates) => Client::build_with_tls(server.clone(), certificates.clone()),
        }
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_limit))
            .set_response_timeout(Some(self.query_limit))
    }

    async fn open(&self, server: &ConnectionInfo) -> RedisResult<Conn> {
        let client = self.client(server)?;
        let mut conn = client.get_multiplexed_async_connection_with_config(&self.config()).await?;
        let unix = matches!(server.addr(), ConnectionAddr::Unix(_));
        if unix || !is_cluster(&mut conn).await? {
            return Ok(Conn::One(conn));
        }
        let mut builder = ClusterClient::builder(self.servers.clone())
            .connection_timeout(self.connect_limit)
            .response_timeout(self.query_limit)
            .retries(3);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        Ok(Conn::Cluster(builder.build()?.get_async_connection().await?))
    }

    async fn ask_sentinels(&self, master: &str) -> RedisResult<Conn> {
        let addrs = self.servers.iter().map(|s| s.addr().clone()).collect::<Vec<_>>();
        let mut builder = SentinelClientBuilder::new(addrs, master, SentinelServerType::Master)?;
        let login = self.servers[0].redis_settings();
        builder = builder.set_client_to_redis_db(login.db());
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = login.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        Ok(Conn::One(builder.build()?.get_async_connection_with_config(&self.config()).await?))
    }
}

/// "10.0.0.1:6379, 10.0.0.2:6379"
fn addresses(servers: &[ConnectionInfo]) -> String {
    servers.iter().map(|server| server.addr().to_string()).collect::<Vec<_>>().join(", ")
}

fn info(
    addr: ConnectionAddr,
    login: &RedisConnectionInfo,
    settings: &Settings,
) -> Result<ConnectionInfo, String> {
    let info = addr.into_connection_info().map_err(|e| e.to_string())?;
    let mut tcp = TcpSettings::default().set_nodelay(true);
    if settings.keepalive > 0 {
        let every = Duration::from_secs(settings.keepalive);
        tcp = tcp.set_keepalive(socket2::TcpKeepalive::new().with_time(every).with_interval(every));
    }
    Ok(info.set_redis_settings(login.clone()).set_tcp_settings(tcp))
}

fn certificates(domain: &Domain) -> Result<TlsCertificates, String> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let client_tls = match domain.identity() {
        None => None,
        Some((chain, key)) => Some(ClientTlsConfig { client_cert: read(&chain)?, client_key: read(&key)? }),
    };
    Ok(TlsCertificates { client_tls, root_cert: domain.ca_list.as_ref().map(read).transpose()? })
}

/// A server that is part of a Cluster says so. The error: it says nothing, as one that stands still.
async fn is_cluster(conn: &mut MultiplexedConnection) -> RedisResult<bool> {
    Ok(match conn.req_packed_command(redis::cmd("INFO").arg("cluster")).await? {
        Value::BulkString(text) => String::from_utf8_lossy(&text).contains("cluster_enabled:1"),
        Value::VerbatimString { text, .. } => text.contains("cluster_enabled:1"),
        // Refused, to a user who may not ask.
        _ => false,
    })
}

/// The shared part is behind an `Arc`: each worker has a link of its own.
pub struct Server(pub Arc<Target>);

impl Backend for Server {
    type Conn = Conn;
    const MODULE: &'static str = "cachedb_redis";

    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn outage(&self) -> &Outage {
        &self.0.outage
    }

    /// Tries the servers in turn, beginning with the one that was good last.
    async fn connect(&self) -> Result<Conn, String> {
        let target = &*self.0;
        let mut why = String::new();
        for _ in 0..target.servers.len() {
            let at = target.next.load(Ordering::Relaxed) % target.servers.len();
            let attempt = async {
                match &target.sentinel {
                    Some(master) => target.ask_sentinels(master).await,
                    None => target.open(&target.servers[at]).await,
                }
            };
            // The login has its own answers to wait for.
            let limit = target.connect_limit;
            why = match tokio::time::timeout(limit, attempt).await {
                Ok(Ok(conn)) => return Ok(conn),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer in {} ms", limit.as_millis()),
            };
            // Somebody else may have moved on already.
            let _ = target.next.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(why)
    }
}
