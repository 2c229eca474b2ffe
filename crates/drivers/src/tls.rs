//! TLS of connections of modules and of SIP: what is trusted, who we are.

use bytes::Bytes;
use host::load::LoadError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls::{SupportedProtocolVersion, crypto::CryptoProvider};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What is asked of the server's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Check {
    /// Signed by someone trusted, for the name that was called.
    #[default]
    ChainAndName,
    /// Signed by someone trusted.
    Chain,
    Nothing,
}

/// Certificates and a key as PEM texts, empty where there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pem {
    pub certificate: Bytes,
    pub private_key: Bytes,
    pub ca_list: Bytes,
}

impl Pem {
    /// The certificate chain and its key; `None`: there are none.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, LoadError> {
        if self.certificate.is_empty() {
            return Ok(None);
        }
        let key =
            PrivateKeyDer::from_pem_slice(&self.private_key).map_err(|e| format!("private key: {e}"))?;
        Ok(Some((self.chain(&self.certificate)?, key)))
    }

    fn chain(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        chain.map_err(|e| format!("certificate: {e}").into())
    }

    /// The first certificate, DER.
    pub fn first(&self) -> Option<Arc<[u8]>> {
        self.chain(&self.certificate).ok().and_then(|all| all.first().map(|c| c.as_ref().into()))
    }
}

/// A client's side of TLS, before its files are read.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    pub check: Check,
    /// Files and folders of trusted certificates; without any, those of the system.
    pub authorities: Vec<PathBuf>,
    /// Certificate chain and key that we show.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Folder of revocation lists.
    pub revoked: Option<PathBuf>,
    /// Empty: 1.2 and 1.3.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Protocols offered, best first ("h2", "http/1.1").
    pub alpn: Vec<Vec<u8>>,
    /// The same as files, but as text; it comes before them.
    pub pem: Option<Pem>,
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Makes ring the provider of libraries that ask for the process's default.
pub fn install_provider() {
    // Whoever was first has the same one.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

impl ClientTls {
    /// Reads the files. The error is what a user should read.
    pub fn build(&self) -> Result<ClientConfig, LoadError> {
        let versions = if self.versions.is_empty() { rustls::ALL_VERSIONS } else { &self.versions };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(|e| e.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier()?);
        let written = self.pem.as_ref().map(Pem::identity).transpose()?.flatten();
        let read = || self.identity.as_ref().map(|(chain, key)| identity(chain, key)).transpose();
        let identity = if written.is_some() { written } else { read()? };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?
            }
        };
        config.alpn_protocols = self.alpn.clone();
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, LoadError> {
        if self.check == Check::Nothing {
            return Ok(Arc::new(Lenient(Trust::Anyone)));
        }
        let roots = roots(&self.authorities, self.pem.as_ref())?;
        if roots.is_empty() {
            // A machine without any, that may never be asked for one.
            return Ok(Arc::new(Lenient(Trust::Nobody)));
        }
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        if let Some(folder) = &self.revoked {
            builder = builder.with_crls(revocations(folder)?).allow_unknown_revocation_status();
        }
        let strict = builder.build().map_err(|e| format!("trusted certificates: {e}"))?;
        Ok(match self.check {
            Check::ChainAndName => strict,
            _ => Arc::new(Lenient(Trust::AnyName(strict))),
        })
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ask {
    #[default]
    Nothing,
    /// One that is shown must be of someone trusted.
    IfShown,
    Always,
}

/// A server's side of TLS, before its files are read.
#[derive(Clone, Debug, Default)]
pub struct ServerTls {
    pub ask: Ask,
    /// As in [`ClientTls`].
    pub authorities: Vec<PathBuf>,
    pub revoked: Option<PathBuf>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Certificate chain and key that clients are shown.
    pub identity: (PathBuf, PathBuf),
    /// The same as files, but as text; it comes before them.
    pub pem: Option<Pem>,
}

impl ServerTls {
    /// Reads the files. The error is what a user should read.
    pub fn build(&self) -> Result<ServerConfig, LoadError> {
        let versions = if self.versions.is_empty() { rustls::ALL_VERSIONS } else { &self.versions };
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(|e| e.to_string())?;
        let builder = if self.ask == Ask::Nothing {
            builder.with_no_client_auth()
        } else {
            let roots = Arc::new(roots(&self.authorities, self.pem.as_ref())?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            if let Some(folder) = &self.revoked {
                verifier = verifier.with_crls(revocations(folder)?).allow_unknown_revocation_status();
            }
            if self.ask == Ask::IfShown {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|e| format!("trusted certificates of clients: {e}"))?;
            builder.with_client_cert_verifier(verifier)
        };
        let written = self.pem.as_ref().map(Pem::identity).transpose()?.flatten();
        let (chain, key) = match written {
            Some(written) => written,
            None => identity(&self.identity.0, &self.identity.1)?,
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?;
        if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(config)
    }
}

/// Trusted certificates of files and folders; without any, those of the system.
fn roots(paths: &[PathBuf], pem: Option<&Pem>) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    let written = pem.filter(|pem| !pem.ca_list.is_empty());
    if let Some(pem) = written {
        roots.add_parsable_certificates(pem.chain(&pem.ca_list)?);
    }
    for path in paths {
        for file in files(path)? {
            roots.add_parsable_certificates(certificates(&file)?);
        }
    }
    if paths.is_empty() && written.is_none() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(roots)
}

fn revocations(folder: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    let mut lists = Vec::new();
    for file in files(folder)? {
        let all = CertificateRevocationListDer::pem_file_iter(&file).map_err(|e| unreadable(&file, &e))?;
        lists.extend(all.flatten());
    }
    Ok(lists)
}

fn identity(
    chain: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
    Ok((certificates(chain)?, key))
}

/// The first certificate of a file, DER.
pub fn first_certificate(path: &Path) -> Option<Arc<[u8]>> {
    certificates(path).ok().and_then(|all| all.first().map(|c| c.as_ref().into()))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> LoadError {
    LoadError::of_this_machine(format!("cannot read {}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(path, &e))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| unreadable(path, &e))?;
    if found.is_empty() { Err(format!("{} holds no certificate", path.display()).into()) } else { Ok(found) }
}

/// A file, or the files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let list = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
    let mut found: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
    found.sort();
    Ok(found)
}

/// Whose certificate passes.
#[derive(Debug)]
enum Trust {
    Anyone,
    Nobody,
    /// Whoever passes but for the name.
    AnyName(Arc<WebPkiServerVerifier>),
}

/// Verifies less than the rules ask for. The signatures of the handshake are still checked.
#[derive(Debug)]
struct Lenient(Trust);

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let inner = match &self.0 {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::Nobody => return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            Trust::AnyName(inner) => inner,
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
