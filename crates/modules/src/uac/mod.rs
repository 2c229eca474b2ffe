//! uac: From and To of others replaced and restored, challenges of the next hop answered.

mod auth;
mod cookie;
mod replace;
mod replies;

use host::Accepts;
use host::load::Loader;
use host::{Registrar, Routes};

/// How replaced URIs come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Restore {
    None,
    /// In replies; in later requests by `uac_restore_*`.
    Manual,
    /// In replies and in later requests of the dialog.
    #[default]
    Auto,
}

pub struct Uac {
    restore: Restore,
    password: String,
    from_param: String,
    to_param: String,
    force_dialog: bool,
}

impl Default for Uac {
    fn default() -> Uac {
        Uac {
            restore: Restore::Auto,
            password: String::new(),
            from_param: "vsf".into(),
            to_param: "vst".into(),
            force_dialog: false,
        }
    }
}

/// Parameter of our Record-Route: requests of this dialog get a larger CSeq downstream.
const CSEQ_PARAM: &str = "aci";

/// What was done to a request, kept with it: replies are undone accordingly.
#[derive(Clone, Copy, Default, Debug)]
struct Done {
    from: bool,
    to: bool,
    /// Added to CSeq.
    cseq: u32,
    /// Replaced in the main route: other routes may not replace it again.
    main_from: bool,
    main_to: bool,
}

pub fn register(m: &mut Registrar<Uac>) {
    m.param_text("restore_mode", |s, v| {
        s.restore = match v.trim() {
            "none" => Restore::None,
            "manual" => Restore::Manual,
            "auto" => Restore::Auto,
            other => return Err(format!("restore_mode is none, manual or auto, not {other}")),
        };
        Ok(())
    });
    m.param_text("restore_passwd", |s, v| Ok(s.password = v.into()));
    m.param_text("rr_from_store_param", |s, v| Ok(s.from_param = v.into()));
    m.param_text("rr_to_store_param", |s, v| Ok(s.to_param = v.into()));
    m.accepts(Accepts::TOKEN, &["rr_from_store_param", "rr_to_store_param"]);
    m.param_int("force_dialog", |s, v| Ok(s.force_dialog = v != 0));
    let routes = Routes::REQUEST.and(Routes::BRANCH).and(Routes::FAILURE);
    m.function("uac_replace_from", routes, replace::from_uri);
    m.function("uac_replace_from", routes, replace::from_both);
    m.function("uac_replace_to", routes, replace::to_uri);
    m.function("uac_replace_to", routes, replace::to_both);
    m.function("uac_restore_from", routes, replace::restore_from);
    m.function("uac_restore_to", routes, replace::restore_to);
    m.function("uac_auth", routes, auth::uac_auth);
    m.function("uac_inc_cseq", routes, auth::inc_cseq);
    // Without uac_auth, which has the passwords, uac_auth() returns -1.
    m.needs(&["tm"]);
    m.init(|s: &mut Uac, loader: &mut Loader| {
        if s.force_dialog && !loader.is_loaded("dialog") {
            return Err("force_dialog needs module dialog".into());
        }
        if s.restore == Restore::Auto && !loader.is_loaded("rr") {
            return Err("restore_mode auto needs module rr (or set restore_mode to none)".into());
        }
        Ok(())
    });
    m.ready(replies::ready);
    m.start(replace::start);
}

#[cfg(test)]
mod tests;
