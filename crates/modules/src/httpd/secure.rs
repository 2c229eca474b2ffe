//! HTTPS, and a name and password for all pages (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use host::load::LoadError;
use http_body_util::Full;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// `tls_cert_file`, `tls_key_file`.
#[derive(Default)]
pub(super) struct Keys {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Keys {
    /// `None`: plain HTTP.
    pub fn build(&self) -> Result<Option<TlsAcceptor>, LoadError> {
        let is_set = |path: &Path| !path.as_os_str().is_empty();
        match (is_set(&self.certificate), is_set(&self.key)) {
            (false, false) => return Ok(None),
            (true, true) => {}
            _ => return Err("tls_cert_file and tls_key_file are set together".to_owned().into()),
        }
        let unreadable = |path: &Path, e: &dyn std::fmt::Display| {
            LoadError::of_this_machine(format!("cannot read {}: {e}", path.display()))
        };
        let chain =
            CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|e| unreadable(&self.certificate, &e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unreadable(&self.key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|e| format!("tls_cert_file and tls_key_file: {e}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

/// `auth_username` and `auth_password`; empty: everybody.
pub(super) struct Guard {
    pub realm: String,
    pub user: String,
    pub password: String,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { realm: "OpenSIPS MI".into(), user: String::new(), password: String::new() }
    }
}

impl Guard {
    pub fn check(&self) -> Result<(), String> {
        match (self.user.is_empty(), self.password.is_empty()) {
            (false, true) | (true, false) => Err("auth_username and auth_password are set together".into()),
            _ if self.user.contains(':') => Err("auth_username holds no colon".into()),
            _ => Ok(()),
        }
    }

    /// What a client sent as Authorization is good.
    pub fn lets_in(&self, authorization: &str) -> bool {
        if self.user.is_empty() {
            return true;
        }
        let Some((scheme, given)) = authorization.trim().split_once(' ') else { return false };
        let given = STANDARD.decode(given.trim()).unwrap_or_default();
        let wanted = format!("{}:{}", self.user, self.password);
        scheme.eq_ignore_ascii_case("basic") && same(&given, wanted.as_bytes())
    }

    pub fn challenge(&self) -> Response<Full<Bytes>> {
        let mut response = super::plain(StatusCode::UNAUTHORIZED, "Unauthorized");
        let realm = self.realm.replace(['"', '\\'], "'");
        if let Ok(value) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}

/// Compares in a time that does not depend on where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_in() {
        let guard = Guard { user: "admin".into(), password: "a:b".into(), ..Guard::default() };
        let basic = |text: &str| format!("basic {}", STANDARD.encode(text));
        for (given, good) in [
            (basic("admin:a:b"), true),
            (basic("admin:a"), false),
            (basic("Admin:a:b"), false),
            (String::new(), false),
            ("Bearer admin:a:b".into(), false),
            ("Basic ***".into(), false),
        ] {
            assert_eq!(guard.lets_in(&given), good, "{given}");
        }
        assert!(Guard::default().lets_in(""));
        assert!(Guard { user: "a".into(), ..Guard::default() }.check().is_err());
    }
}
