//! nathelper: clients behind NATs: finding them, mending what they say of themselves, keeping their way open.

pub mod checks;
pub mod contact;
mod ping;
mod sdp;
#[cfg(test)]
mod tests;

use host::Accepts;
use host::Registrar;
use host::load::Loader;
use host::registrar::ParamFn;
use script::ast::ParamValue;
use std::sync::Arc;

pub struct Nathelper {
    received_avp: String,
    /// `received_avp`, prepared.
    received: Option<Arc<host::Var>>,
    nortpproxy: String,
    /// The lines that tell old addresses are left out.
    skip_old_origin: bool,
    skip_old_media: bool,
    ping: ping::Settings,
    pings: ping::Pings,
}

impl Default for Nathelper {
    fn default() -> Nathelper {
        Nathelper {
            received_avp: String::new(),
            received: None,
            nortpproxy: "a=nortpproxy:yes".into(),
            skip_old_origin: false,
            skip_old_media: false,
            ping: ping::Settings::default(),
            pings: ping::Pings::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Nathelper>) {
    m.param_text("received_avp", |s, v| Ok(s.received_avp = v.into()));
    m.param_text("nortpproxy_str", |s, v| Ok(s.nortpproxy = v.trim().into()));
    m.param(
        "oldip_skip",
        ParamFn::Any(|s, value| {
            let ParamValue::Text(letters) = value else { return Err("oldip_skip takes `o` and `c`".into()) };
            s.skip_old_origin = letters.contains(&b'o');
            s.skip_old_media = letters.contains(&b'c');
            Ok(())
        }),
    );
    contact::register(m);
    checks::register(m);
    sdp::register(m);
    ping::register(m);
    m.accepts(Accepts::AVP, &["received_avp"]);
    m.init(init);
}

fn init(s: &mut Nathelper, loader: &mut Loader) -> Result<(), String> {
    if !s.received_avp.is_empty() {
        let text = bytes::Bytes::from(s.received_avp.clone());
        let spec = script::parse_variable(&text, script::Loc::default()).map_err(|d| d.message)?;
        s.received = Some(Arc::new(loader.target_var(&spec).map_err(|d| d.message)?));
    }
    s.ping.init(loader)
}
