//! event_jsonrpc: what event_stream was called before 3.3, `jsonrpc:127.0.0.1:8080/method`.

use crate::event_stream::Settings;
use host::Registrar;
use host::registrar::{ParamFn, truth};

pub struct EventJsonrpc(Settings);

impl Default for EventJsonrpc {
    fn default() -> EventJsonrpc {
        EventJsonrpc(Settings::new("event_jsonrpc", "jsonrpc"))
    }
}

pub fn register(m: &mut Registrar<EventJsonrpc>) {
    m.param("sync_mode", ParamFn::Any(|s, v| Ok(s.0.reliable = truth(v))));
    m.param_int("timeout", |s, ms| s.0.set_timeout(ms));
    m.param_text("event_param", |s, v| Ok(s.0.event_param = Some(v.into())));
    m.ready(|module, hooks, stats| module.0.ready(hooks, stats));
}
