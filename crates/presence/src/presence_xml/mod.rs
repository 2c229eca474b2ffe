//! presence_xml: the packages presence, presence.winfo and dialog;sla: documents of several devices are one (PIDF, RPID),
//! and rules of the user say who sees what.

mod documents;
mod pidf;
mod rules;
mod sla;
mod transform;

use crate::presence::Presence;
use crate::presence::packages::{Package, Refusal};
use crate::presence::winfo::numbered;
use crate::xcap::Xcap;
use crate::xml;
use documents::Source;
use host::Registrar;
use host::load::Loader;
use sip::Message;
use std::sync::Arc;

/// How rules are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    /// RFC 5025
    #[default]
    Ietf,
    /// OMA presence rules
    Oma,
}

const IETF_AUID: &str = "pres-rules";
const OMA_AUID: &str = "org.openmobilealliance.pres-rules";

#[derive(Default)]
pub struct PresenceXml {
    force_active: bool,
    pidf_manipulation: bool,
    no_offline_body: bool,
    style: Style,
    server: bool,
}

pub fn register(m: &mut Registrar<PresenceXml>) {
    m.param_int("force_active", |s, v| Ok(s.force_active = v != 0));
    m.param_int("pidf_manipulation", |s, v| Ok(s.pidf_manipulation = v != 0));
    m.param_int("generate_offline_body", |s, v| Ok(s.no_offline_body = v == 0));
    m.param_text("pres_rules_auid", |s, v| {
        s.style = match v {
            IETF_AUID => Style::Ietf,
            OMA_AUID => Style::Oma,
            other => return Err(format!("{other} is not known; there are {IETF_AUID} and {OMA_AUID}")),
        };
        Ok(())
    });
    m.param_text("xcap_server", |s, _| Ok(s.server = true));
    m.ignored(&["pres_rules_filename"], "it names a document on another server, and none is fetched");
    m.needs(&["presence", "xcap", "signaling"]);
    m.init(init);
}

fn init(s: &mut PresenceXml, loader: &mut Loader) -> Result<(), String> {
    let (Some(presence), Some(xcap)) = (loader.module::<Presence>(), loader.module::<Xcap>()) else {
        return Ok(());
    };
    if !s.force_active && !xcap.integrated {
        return Err(
            "documents of another server need module xcap_client, which does not exist in Fermata yet: set \
             integrated_xcap_server of module xcap, or force_active"
                .into(),
        );
    }
    let source = Source { everybody: s.force_active, permanent: s.pidf_manipulation, style: s.style, xcap };
    let offline = !s.no_offline_body;
    presence.packages.add(Package {
        admits: Some(|msg| is_document(msg, "presence")),
        documents: Some(Arc::new(source)),
        aggregate: Some(Arc::new(move |bodies| pidf::aggregate(bodies, offline))),
        ..Package::new("presence", "application/pidf+xml")
    });
    presence.packages.add(Package {
        numbered: Some(numbered),
        ..Package::new("presence.winfo", "application/watcherinfo+xml")
    });
    presence.packages.add(Package {
        admits: Some(|msg| is_document(msg, "dialog-info")),
        aggregate: Some(Arc::new(move |bodies| sla::aggregate(bodies, offline))),
        numbered: Some(sla::numbered),
        ..Package::new("dialog;sla", "application/dialog-info+xml")
    });
    Ok(())
}

/// The body is a document with this root, or there is none.
fn is_document(msg: &Message, root: &str) -> Result<(), Refusal> {
    let body = msg.bytes(msg.body());
    if body.is_empty() {
        return Ok(());
    }
    let why = match xml::parse(body) {
        Ok(document) if document.is(root) => return Ok(()),
        Ok(document) => format!("its root is {}, not {root}", document.name),
        Err(why) => why.to_string(),
    };
    host::info!("presence_xml", "a PUBLISH was refused: {why}");
    Err(Refusal(415, "Unsupported media type"))
}
