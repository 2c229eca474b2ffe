//! presence_xcapdiff: documents that change (RFC 5875), for whoever publishes that they did.

use crate::presence::Presence;
use crate::presence::packages::Package;
use host::Registrar;

#[derive(Default)]
pub struct PresenceXcapdiff;

pub fn register(m: &mut Registrar<PresenceXcapdiff>) {
    m.init(|_, loader| {
        // pua knows the event by itself.
        if let Some(presence) = loader.module::<Presence>() {
            presence.packages.add(Package::new("xcap-diff", "application/xcap-diff+xml"));
        }
        Ok(())
    });
    m.asks_for(|_| Some("presence".into()));
}
