//! TLS to directory servers.

use super::config::Tls;
use crate::tls::{Check, ClientTls};
use host::load::LoadError;
use rustls::ClientConfig;
use std::sync::Arc;

/// Settings for connections; the error is what a user should read.
pub fn client(tls: &Tls) -> Result<Arc<ClientConfig>, LoadError> {
    let client = ClientTls {
        check: if tls.checked { Check::ChainAndName } else { Check::Nothing },
        authorities: tls.ca.iter().cloned().collect(),
        identity: tls.cert.clone().zip(tls.key.clone()),
        ..ClientTls::default()
    };
    client.build().map(Arc::new)
}
