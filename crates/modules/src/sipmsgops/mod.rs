//! sipmsgops: headers, methods, URIs of the message.

pub mod headers;
pub mod request;

use host::Registrar;

#[derive(Default)]
pub struct Sipmsgops;

pub fn register(m: &mut Registrar<Sipmsgops>) {
    headers::register(m);
    request::register(m);
}
