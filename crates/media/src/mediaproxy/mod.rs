//! mediaproxy: media through the relays of a MediaProxy dispatcher, which is asked over a Unix socket. Scripts wait for it
//! without holding a worker.

mod command;
mod dispatcher;
mod engage;
mod functions;
mod streams;

use dispatcher::Dispatcher;

use host::{Accepts, Loader, Registrar, Var};
use std::path::PathBuf;
use std::time::Duration;

/// Names of an AVP parameter: as the reference is built, and as its manual says.
struct Named {
    text: String,
    old: &'static str,
    vars: Vec<Var>,
}

impl Named {
    fn new(text: &str, old: &'static str) -> Named {
        Named { text: text.to_string(), old, vars: Vec::new() }
    }

    /// One that a script names is the only one.
    fn set(&mut self, text: &str) {
        if !text.is_empty() {
            (self.text, self.old) = (text.to_string(), "");
        }
    }

    fn prepare(&mut self, loader: &mut Loader) -> Result<(), String> {
        for text in [&self.text[..], self.old].into_iter().filter(|text| !text.is_empty()) {
            let spec = script::parse_variable(&text.to_string().into(), script::Loc::default());
            self.vars.push(spec.and_then(|spec| loader.var(&spec)).map_err(|d| d.message)?);
        }
        Ok(())
    }

    fn value(&self, ctx: &mut host::Ctx) -> Option<bytes::Bytes> {
        self.vars.iter().find_map(|var| var.get(ctx).text().filter(|text| !text.is_empty()))
    }
}

pub struct Mediaproxy {
    /// Functions do nothing.
    disabled: bool,
    dispatcher: Dispatcher,
    signaling_ip: Named,
    media_relay: Named,
    ice: Named,
    /// `ice_candidate`
    ice_default: String,
}

impl Default for Mediaproxy {
    fn default() -> Mediaproxy {
        Mediaproxy {
            disabled: false,
            dispatcher: Dispatcher::new("/run/mediaproxy/dispatcher.sock"),
            signaling_ip: Named::new("$avp(mp_signaling_ip)", "$avp(signaling_ip)"),
            media_relay: Named::new("$avp(mp_media_relay)", "$avp(media_relay)"),
            ice: Named::new("$avp(mp_ice_candidate)", "$avp(ice_candidate)"),
            ice_default: "none".into(),
        }
    }
}

pub fn register(m: &mut Registrar<Mediaproxy>) {
    m.param_int("disable", |m, n| Ok(m.disabled = n != 0));
    m.param_text("mediaproxy_socket", |m, path| Ok(m.dispatcher.path = PathBuf::from(path)));
    m.param_int("mediaproxy_timeout", |m, n| {
        m.dispatcher.patience.each = Duration::from_millis(u64::try_from(n).unwrap_or(0));
        Ok(())
    });
    m.accepts(Accepts::range(1, 60_000).unit("ms"), &["mediaproxy_timeout"]);
    m.param_text("signaling_ip_avp", |m, text| Ok(m.signaling_ip.set(text)));
    m.param_text("media_relay_avp", |m, text| Ok(m.media_relay.set(text)));
    m.param_text("ice_candidate_avp", |m, text| Ok(m.ice.set(text)));
    m.accepts(Accepts::AVP, &["signaling_ip_avp", "media_relay_avp", "ice_candidate_avp"]);
    m.param_text("ice_candidate", |m, text| Ok(m.ice_default = text.to_ascii_lowercase()));
    m.accepts(Accepts::Words(&["none", "low-priority", "high-priority"]), &["ice_candidate"]);
    m.init(|m, loader| {
        [&mut m.signaling_ip, &mut m.media_relay, &mut m.ice]
            .into_iter()
            .try_for_each(|name| name.prepare(loader))
    });
    m.ready(|module, hooks, _| engage::hooks(module, hooks));
    m.start(engage::start);
    functions::register(m);
}
