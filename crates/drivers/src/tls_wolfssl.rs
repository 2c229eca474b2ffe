//! tls_wolfssl: accepted, since scripts load it; TLS is rustls here.

use host::Registrar;

#[derive(Default)]
pub struct TlsWolfssl;

pub fn register(_: &mut Registrar<TlsWolfssl>) {}
