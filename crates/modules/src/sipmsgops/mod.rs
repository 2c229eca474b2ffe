//! sipmsgops: headers, bodies, methods, URIs of the message.

mod body;
pub mod headers;
mod lists;
pub mod parts;
mod reply;
pub mod request;
mod sdp;
#[cfg(test)]
mod tests;
mod validate;

use host::Registrar;

/// The module has no parameters.
#[derive(Default)]
pub struct Sipmsgops;

pub fn register(m: &mut Registrar<Sipmsgops>) {
    headers::register(m);
    lists::register(m);
    request::register(m);
    reply::register(m);
    body::register(m);
    validate::register(m);
}
