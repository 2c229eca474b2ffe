//! tls_openssl: accepted, since scripts load it; TLS is rustls here.

use host::Registrar;

#[derive(Default)]
pub struct TlsOpenssl;

pub fn register(m: &mut Registrar<TlsOpenssl>) {
    m.ignored(&["no_ssl"], "TLS is rustls here");
}
