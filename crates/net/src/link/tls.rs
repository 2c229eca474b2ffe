//! TLS as a layer of a connection.

use super::LinkError;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{Acceptor, ServerConfig};
use rustls::{ClientConfig, Connection};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

/// Chooses how TLS is spoken; module tls_mgm.
pub trait TlsSetup: Send + Sync {
    /// Whether there is a certificate to serve with.
    fn serves(&self) -> bool {
        true
    }
    /// For a client that came to `local` and asked for `name` (SNI). The error is for the log.
    fn server(&self, local: SocketAddr, name: Option<&str>) -> Result<ServerSetup, String>;
    /// For a connection to `remote`. `hint`: what the script chose (`Path::hint`), 0 nothing.
    fn client(&self, remote: SocketAddr, hint: u32) -> Result<ClientSetup, String>;
}

/// How a client is answered.
pub struct ServerSetup {
    pub config: Arc<ServerConfig>,
    /// The certificate it is shown, DER.
    pub own: Option<Arc<[u8]>>,
}

/// How a connection is begun.
pub struct ClientSetup {
    pub config: Arc<ClientConfig>,
    /// The certificate that the server is shown when it asks for one, DER.
    pub own: Option<Arc<[u8]>>,
    /// The server's certificate must be of someone trusted.
    pub verified: bool,
    /// The name asked for; `None`: none is sent.
    pub name: Option<String>,
}

/// What the two sides agreed on and showed each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsInfo {
    /// "TLSv1.2", "TLSv1.3"
    pub version: &'static str,
    /// Name of the cipher suite as IANA writes it.
    pub cipher: String,
    /// Name that was asked for (SNI).
    pub server_name: Option<String>,
    /// The peer's certificate, DER.
    pub peer: Option<Arc<[u8]>>,
    pub own: Option<Arc<[u8]>>,
    /// The peer's certificate is of someone trusted.
    pub verified: bool,
}

/// TLS of one connection.
pub(super) enum Tls {
    /// The first message of a client is not complete.
    Accepting {
        acceptor: Box<Acceptor>,
        setup: Arc<dyn TlsSetup>,
        local: SocketAddr,
        owed: Vec<u8>,
    },
    Running(Box<Running>),
}

/// A connection, and what is not asked of rustls.
pub(super) struct Running {
    tls: Connection,
    own: Option<Arc<[u8]>>,
    verified: bool,
}

/// Bytes of one call of `read`.
const CHUNK: usize = 4096;

impl Tls {
    pub fn accepting(setup: Arc<dyn TlsSetup>, local: SocketAddr) -> Tls {
        Tls::Accepting { acceptor: Box::default(), setup, local, owed: Vec::new() }
    }

    pub fn connecting(setup: ClientSetup, remote: SocketAddr) -> Result<Tls, LinkError> {
        let name = match setup.name {
            Some(name) => ServerName::try_from(name).map_err(|e| LinkError::Tls(e.to_string()))?,
            None => ServerName::from(remote.ip()),
        };
        let mut tls = rustls::ClientConnection::new(setup.config, name).map_err(failed)?;
        tls.set_buffer_limit(None);
        let running = Running { tls: tls.into(), own: setup.own, verified: setup.verified };
        Ok(Tls::Running(Box::new(running)))
    }

    pub fn is_open(&self) -> bool {
        matches!(self, Tls::Running(running) if !running.tls.is_handshaking())
    }

    /// Takes bytes of the wire; what they said goes into `plain`.
    pub fn receive(&mut self, mut raw: &[u8], plain: &mut Vec<u8>) -> Result<(), LinkError> {
        while !raw.is_empty() {
            match self {
                Tls::Accepting { acceptor, .. } => {
                    acceptor.read_tls(&mut raw).map_err(|e| LinkError::Tls(e.to_string()))?;
                    self.accept()?;
                }
                Tls::Running(running) => {
                    running.tls.read_tls(&mut raw).map_err(|e| LinkError::Tls(e.to_string()))?;
                    process(&mut running.tls, plain)?;
                }
            }
        }
        Ok(())
    }

    /// Goes on once the client has said what it wants.
    fn accept(&mut self) -> Result<(), LinkError> {
        let Tls::Accepting { acceptor, setup, local, owed } = self else { return Ok(()) };
        let accepted = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => accepted,
            Err((error, mut alert)) => {
                let _ = alert.write(owed);
                return Err(failed(error));
            }
        };
        let setup = setup.server(*local, accepted.client_hello().server_name()).map_err(LinkError::Tls)?;
        match accepted.into_connection(setup.config) {
            Ok(mut tls) => {
                tls.set_buffer_limit(None);
                let mut tls: Connection = tls.into();
                // What came with the first message.
                let done = process(&mut tls, &mut Vec::new());
                *self = Tls::Running(Box::new(Running { tls, own: setup.own, verified: true }));
                done
            }
            Err((error, mut alert)) => {
                let _ = alert.write(owed);
                Err(failed(error))
            }
        }
    }

    /// What the wire is to get.
    pub fn owed(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Tls::Accepting { owed, .. } => std::mem::swap(owed, &mut out),
            Tls::Running(running) => {
                let tls = &mut running.tls;
                while tls.wants_write() && tls.write_tls(&mut out).is_ok_and(|n| n > 0) {}
            }
        }
        out
    }

    /// Encrypts; the bytes for the wire. Before the handshake is over they are kept.
    pub fn send(&mut self, plain: &[u8]) -> Result<Vec<u8>, LinkError> {
        let Tls::Running(running) = self else { return Err(LinkError::Closed) };
        running.tls.writer().write_all(plain).map_err(|e| LinkError::Tls(e.to_string()))?;
        Ok(self.owed())
    }

    pub fn close(&mut self) {
        if let Tls::Running(running) = self {
            running.tls.send_close_notify();
        }
    }

    pub fn info(&self) -> Option<TlsInfo> {
        let Tls::Running(running) = self else { return None };
        let tls = &running.tls;
        let name = match tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        let peer = tls.peer_certificates().and_then(|chain| chain.first());
        Some(TlsInfo {
            version: match tls.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: tls.negotiated_cipher_suite().map_or_else(String::new, |c| format!("{:?}", c.suite())),
            server_name: name,
            peer: peer.map(|certificate: &CertificateDer| certificate.as_ref().into()),
            own: running.own.clone(),
            verified: running.verified && peer.is_some(),
        })
    }
}

fn failed(error: rustls::Error) -> LinkError {
    LinkError::Tls(error.to_string())
}

/// Decrypts what was read.
fn process(tls: &mut Connection, plain: &mut Vec<u8>) -> Result<(), LinkError> {
    let state = tls.process_new_packets().map_err(failed)?;
    let mut left = state.plaintext_bytes_to_read();
    let mut chunk = [0; CHUNK];
    while left > 0 {
        let n = tls.reader().read(&mut chunk).map_err(|e| LinkError::Tls(e.to_string()))?;
        plain.extend_from_slice(&chunk[..n]);
        left = left.saturating_sub(n.max(1));
    }
    if state.peer_has_closed() { Err(LinkError::Closed) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::pki_types::PrivateKeyDer;

    struct Fixed(Arc<ServerConfig>, Arc<ClientConfig>);

    impl TlsSetup for Fixed {
        fn server(&self, _: SocketAddr, name: Option<&str>) -> Result<ServerSetup, String> {
            assert_eq!(name, Some("sip.example.com"));
            Ok(ServerSetup { config: self.0.clone(), own: None })
        }

        fn client(&self, _: SocketAddr, _: u32) -> Result<ClientSetup, String> {
            let name = Some("sip.example.com".into());
            Ok(ClientSetup { config: self.1.clone(), own: None, verified: true, name })
        }
    }

    pub fn setup() -> Arc<dyn TlsSetup> {
        let made = rcgen::generate_simple_self_signed(["sip.example.com".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        Arc::new(Fixed(Arc::new(server), Arc::new(client)))
    }
}
