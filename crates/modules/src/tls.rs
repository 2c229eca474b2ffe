//! TLS of outgoing connections of modules: what is trusted, who we are.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
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
    pub fn build(&self) -> Result<ClientConfig, String> {
        let versions = if self.versions.is_empty() { rustls::ALL_VERSIONS } else { &self.versions };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(|e| e.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?
            }
        };
        config.alpn_protocols = self.alpn.clone();
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if self.check == Check::Nothing {
            return Ok(Arc::new(Lenient(Trust::Anyone)));
        }
        let mut roots = RootCertStore::empty();
        for path in &self.authorities {
            for file in files(path)? {
                let all = certificates(&file)?;
                roots.add_parsable_certificates(all);
            }
        }
        if self.authorities.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            // A machine without any, that may never be asked for one.
            return Ok(Arc::new(Lenient(Trust::Nobody)));
        }
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        if let Some(folder) = &self.revoked {
            let mut lists = Vec::new();
            for file in files(folder)? {
                let all =
                    CertificateRevocationListDer::pem_file_iter(&file).map_err(|e| unreadable(&file, &e))?;
                lists.extend(all.flatten());
            }
            builder = builder.with_crls(lists).allow_unknown_revocation_status();
        }
        let strict = builder.build().map_err(|e| format!("trusted certificates: {e}"))?;
        Ok(match self.check {
            Check::ChainAndName => strict,
            _ => Arc::new(Lenient(Trust::AnyName(strict))),
        })
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot read {}: {error}", path.display())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(path, &e))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| unreadable(path, &e))?;
    if found.is_empty() { Err(format!("{} holds no certificate", path.display())) } else { Ok(found) }
}

/// A file, or the files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
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
