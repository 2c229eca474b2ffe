//! Connections to brokers that speak AMQP 0-9-1 (RabbitMQ), for event_rabbitmq and rabbitmq_consumer.

use drivers::tls_mgm::TlsMgm;
use host::shared::Shared;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a broker is and how one speaks to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    pub uri: AMQPUri,
    /// A client domain of tls_mgm.
    pub tls_domain: Option<String>,
    pub connect_ms: u64,
}

/// One `param=value` or `flag` of a definition.
pub type Part<'a> = (&'a str, Option<&'a str>);

/// `a = 1; flag; b = 2;`
pub fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (part, None),
    })
}

/// A number of a definition.
pub fn number<T: std::str::FromStr>((name, value): Part<'_>) -> Result<T, String> {
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("{name} takes a number"))
}

impl Broker {
    pub fn new(uri: AMQPUri) -> Broker {
        Broker { uri, tls_domain: None, connect_ms: 500 }
    }

    /// What this says of the broker itself; false: it is of something else.
    pub fn set(&mut self, part: Part<'_>) -> Result<bool, String> {
        match part {
            ("uri", Some(uri)) => {
                let query = self.uri.query.clone();
                // Without a path it is the virtual host `/`; with an empty one too, as librabbitmq reads it.
                self.uri = uri.trim_end_matches('/').parse().map_err(|why| format!("uri: {why}"))?;
                self.uri.query = query;
                if self.uri.vhost.is_empty() {
                    self.uri.vhost = "/".into();
                }
            }
            ("frames" | "frame_max", _) => self.uri.query.frame_max = Some(number(part)?),
            ("heartbeat", _) => self.uri.query.heartbeat = Some(number(part)?),
            ("tls_domain", Some(name)) => self.tls_domain = Some(name.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// TLS is asked for with both: a URI of `amqps` and a domain.
    pub fn check(&self, use_tls: bool) -> Result<(), String> {
        match (&self.uri.scheme, &self.tls_domain) {
            (AMQPScheme::AMQPS, None) => Err("an amqps URI needs tls_domain".into()),
            (AMQPScheme::AMQPS, Some(_)) if !use_tls => Err("TLS needs use_tls set to 1".into()),
            (AMQPScheme::AMQP, Some(_)) => Err("tls_domain needs an amqps URI".into()),
            _ => Ok(()),
        }
    }

    /// Without user and password.
    pub fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// The error is what the operator should read.
    pub async fn connect(&self, shared: &Shared) -> Result<Connection, String> {
        let limit = Duration::from_millis(self.connect_ms);
        match tokio::time::timeout(limit, self.open(self.tls(shared)?)).await {
            Ok(made) => made,
            Err(_) => Err(format!("no connection within {} ms", self.connect_ms)),
        }
    }

    async fn open(&self, tls: Option<Tls>) -> Result<Connection, String> {
        let mut uri = self.uri.clone();
        if let Some(tls) = tls {
            let way = tls.way_to(self.place()).await.map_err(|error| format!("{}: {error}", self.place()))?;
            uri.scheme = AMQPScheme::AMQP;
            (uri.authority.host, uri.authority.port) = (way.ip().to_string(), way.port());
        }
        let options = ConnectionProperties::default().with_connection_name("fermata".into());
        Connection::connect_uri(uri, options).await.map_err(|error| error.to_string())
    }

    fn tls(&self, shared: &Shared) -> Result<Option<Tls>, String> {
        let Some(name) = &self.tls_domain else { return Ok(None) };
        let domain = shared.module::<TlsMgm>().and_then(|tls| tls.client_now(name));
        let domain = domain.ok_or_else(|| format!("there is no client domain {name} in tls_mgm"))?;
        let config = domain.client().build().map_err(String::from)?;
        let host = self.uri.authority.host.clone();
        let host = ServerName::try_from(host).map_err(|error| error.to_string())?;
        Ok(Some(Tls { connector: Arc::new(config).into(), host }))
    }
}

/// How a connection is encrypted, and whose certificate it must be. The library that speaks AMQP brings a TLS of its own,
/// which knows no domains of tls_mgm: it speaks to a socket of this machine instead, and what passes there is encrypted.
struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl Tls {
    /// An address that leads to a broker, for one connection.
    async fn way_to(self, broker: String) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let way = listener.local_addr()?;
        let far = TcpStream::connect(broker).await?;
        far.set_nodelay(true)?;
        let mut far = self.connector.connect(self.host, far).await?;
        tokio::spawn(async move {
            // Whoever comes first: it has to log in at the broker like anybody.
            let Ok((mut near, _)) = listener.accept().await else { return };
            drop(listener);
            let _ = near.set_nodelay(true);
            // Either end ends the other.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        Ok(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(text: &str) -> Result<Broker, String> {
        let mut broker = Broker::new(AMQPUri::default());
        for part in parts(text) {
            assert!(broker.set(part)?, "{part:?}");
        }
        Ok(broker)
    }

    #[test]
    fn definitions() {
        let made = broker("uri = amqp://127.0.0.1; heartbeat = 5; frames=4096;").unwrap();
        assert_eq!((made.place().as_str(), made.uri.vhost.as_str()), ("127.0.0.1:5672", "/"));
        assert_eq!((made.uri.query.heartbeat, made.uri.query.frame_max), (Some(5), Some(4096)));
        assert_eq!(made.uri.authority.userinfo.username, "guest");
        let made = broker("heartbeat=5; uri = amqp://u:p%40@h:1/v").unwrap();
        assert_eq!((made.uri.vhost.as_str(), made.uri.query.heartbeat), ("v", Some(5)));
        assert_eq!(made.uri.authority.userinfo.password, "p@");
        assert_eq!(broker("uri = amqp://h/").unwrap().uri.vhost, "/");
        assert!(broker("uri = http://h").is_err());
        assert!(broker("heartbeat = x").unwrap_err().contains("heartbeat"));
        assert!(broker("uri = amqps://h").unwrap().check(true).unwrap_err().contains("tls_domain"));
        assert!(
            broker("uri = amqps://h; tls_domain = d").unwrap().check(false).unwrap_err().contains("use_tls")
        );
        assert!(broker("uri = amqps://h; tls_domain = d").unwrap().check(true).is_ok());
        assert!(broker("uri = amqp://h; tls_domain = d").unwrap().check(true).is_err());
    }
}
