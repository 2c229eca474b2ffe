//! event_route: 2.x loads it; event routes are part of the core here.

use host::Registrar;

#[derive(Default)]
pub struct EventRoute;

pub fn register(_: &mut Registrar<EventRoute>) {}
