//! rtp_relay: the media of a call through an engine, from its first description to its end, without a word in the script
//! about offers and answers.

mod context;
mod engines;
mod follow;
mod update;
mod vars;

pub use engines::{Asked, Kind, Made, Order};

use host::{Call, Checked, Int, Loader, Named, Outcome, Registrar, Routes};
use script::{Diagnostic, Loc};

pub struct RtpRelay {
    /// Routes of the engine `route`.
    route_offer: String,
    route_answer: String,
    route_delete: String,
}

impl Default for RtpRelay {
    fn default() -> RtpRelay {
        RtpRelay {
            route_offer: "rtp_relay_offer".into(),
            route_answer: "rtp_relay_answer".into(),
            route_delete: "rtp_relay_delete".into(),
        }
    }
}

pub fn register(m: &mut Registrar<RtpRelay>) {
    m.param_text("route_offer", |m, name| Ok(m.route_offer = name.to_string()));
    m.param_text("route_answer", |m, name| Ok(m.route_answer = name.to_string()));
    m.param_text("route_delete", |m, name| Ok(m.route_delete = name.to_string()));
    // Copies of media are for siprec, which is not here.
    m.ignored(
        &["route_copy_offer", "route_copy_answer", "route_copy_delete"],
        "streams are copied for siprec only, which does not exist here yet",
    );
    m.ready(|module, hooks, _| follow::hooks(module, hooks));
    m.start(follow::start);
    let routes = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("rtp_relay_engage", routes, engage);
    vars::register(m);
    update::register(m);
}

/// An engine whose module is loaded.
struct EngineName;

impl Named<RtpRelay> for EngineName {
    const WHAT: &'static str = "an engine";

    fn check(text: &[u8], loader: &mut Loader, _: &RtpRelay) -> Result<(), Diagnostic> {
        let name = String::from_utf8_lossy(text).trim().to_ascii_lowercase();
        let there = |engine: &&str| **engine == *engines::ROUTE || loader.is_loaded(engine);
        if engines::known(&name).as_ref().is_some_and(there) {
            return Ok(());
        }
        let error = Diagnostic::error(Loc::default(), format!("there is no engine `{name}`"));
        Err(match engines::known(&name) {
            Some(module) => error.hint(format!("loadmodule \"{module}.so\"")),
            None => error.hint("engines are rtpengine, rtpproxy and route"),
        })
    }
}

/// rtp_relay_engage(engine, [set]): the call's descriptions go through the engine.
fn engage(call: &mut Call<RtpRelay>, engine: Checked<EngineName>, set: Option<Int>) -> Outcome {
    let name = String::from_utf8_lossy(&engine.0).trim().to_ascii_lowercase();
    let engine = engines::known(&name).filter(|engine| engines::is_there(call.ctx, engine));
    let Some(engine) = engine else {
        host::error!("rtp_relay", "there is no engine `{name}`: load its module");
        return (-1).into();
    };
    follow::engage(call.ctx, engine, set.map(|n| n.0)).into()
}
