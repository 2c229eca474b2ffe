//! presence_mwi: messages that wait (RFC 3842).

use crate::presence::Presence;
use crate::presence::packages::Package;
use host::Registrar;

#[derive(Default)]
pub struct PresenceMwi;

pub fn register(m: &mut Registrar<PresenceMwi>) {
    m.needs(&["presence"]);
    m.init(|_, loader| {
        if let Some(presence) = loader.module::<Presence>() {
            presence.packages.add(Package::new("message-summary", "application/simple-message-summary"));
        }
        Ok(())
    });
}
