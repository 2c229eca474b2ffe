//! tls_wolfssl: accepted, since scripts load it; TLS is rustls here.

use host::Registrar;

#[derive(Default)]
pub struct TlsWolfssl;

pub fn register(m: &mut Registrar<TlsWolfssl>) {
    m.ignored(&["try_use_ktls"], "encryption is done in the program, not in the kernel");
}
