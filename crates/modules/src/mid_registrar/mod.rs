//! mid_registrar: a registrar in front of the main one. It passes registrations on, fewer of them when it
//! throttles, keeps what the main registrar granted, and finds the phones when calls come back.

mod back;
mod forward;
mod leave;
mod lookup;
mod save;

use crate::registrar::{HasRegistration, Registration, Setting, params, prepare, watch};
use crate::usrloc::{HasTables, Usrloc};
use bytes::Bytes;
use host::Accepts;
use host::load::Loader;
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::Moment;
use host::{Registrar, Routes};
use script::ast::ParamValue;
use std::sync::Arc;

/// What reaches the main registrar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Every registration, as it is.
    #[default]
    Mirror,
    /// Each contact, seldom and for long.
    ByContact,
    /// One contact for all of an address, seldom and for long.
    ByAor,
}

/// Where the id of a contact stands in the URI that the main registrar sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IdPlace {
    #[default]
    Param,
    User,
}

pub struct MidRegistrar {
    pub reg: Arc<Registration>,
    building: Registration,
    pub mode: Mode,
    pub id_place: IdPlace,
    pub id_param: String,
    pub at_escape: String,
    /// Seconds.
    pub outgoing_expires: u32,
    pub extra_params: Setting,
}

impl Default for MidRegistrar {
    fn default() -> MidRegistrar {
        let mut building = Registration::default();
        (building.min_expires, building.max_expires) = (10, 3600);
        MidRegistrar {
            reg: Arc::default(),
            building,
            mode: Mode::Mirror,
            id_place: IdPlace::Param,
            id_param: "ctid".into(),
            at_escape: "%40".into(),
            outgoing_expires: 3600,
            extra_params: Setting::default(),
        }
    }
}

impl HasRegistration for MidRegistrar {
    fn registration(&mut self) -> &mut Registration {
        &mut self.building
    }
}

impl HasTables for MidRegistrar {
    fn usrloc(&self) -> Arc<Usrloc> {
        self.reg.usrloc()
    }
}

pub fn register(m: &mut Registrar<MidRegistrar>) {
    params(m);
    m.param_int("mode", |s, v| {
        s.mode = match v {
            0 => Mode::Mirror,
            1 => Mode::ByContact,
            2 => Mode::ByAor,
            _ => return Err("mode is 0 (mirror), 1 (by contact) or 2 (by address)".into()),
        };
        Ok(())
    });
    for name in ["contact_id_insertion", "insertion_mode"] {
        let set: ParamFn<MidRegistrar> = ParamFn::Any(|s, v| {
            s.id_place = match v {
                // 2.x: 0 is the contact, 1 a Path header.
                ParamValue::Int(0) => IdPlace::Param,
                ParamValue::Int(_) => return Err("insertion by a Path header does not exist here".into()),
                ParamValue::Text(t) if &t[..] == b"ct-param" => IdPlace::Param,
                ParamValue::Text(t) if &t[..] == b"ct-username" => IdPlace::User,
                ParamValue::Text(_) => return Err("contact_id_insertion is ct-param or ct-username".into()),
            };
            Ok(())
        });
        m.param(name, set);
    }
    m.param_text("contact_id_param", |s, v| {
        s.id_param = v.into();
        Ok(())
    });
    m.accepts(Accepts::TOKEN, &["contact_id_param"]);
    m.param_text("at_escape_str", |s, v| {
        s.at_escape = v.into();
        Ok(())
    });
    m.param_int("outgoing_expires", |s, v| {
        s.outgoing_expires = v.max(0) as u32;
        Ok(())
    });
    m.param_text("extra_contact_params_avp", |s, v| {
        s.extra_params.named(v);
        Ok(())
    });
    m.function("mid_registrar_save", Routes::REQUEST, save::save);
    m.function("mid_registrar_lookup", Routes::REQUEST.and(Routes::FAILURE), lookup::lookup);
    m.needs(&["usrloc", "signaling", "tm"]);
    m.accepts(Accepts::seconds(0), &["outgoing_expires"]);
    m.accepts(Accepts::AVP, &["extra_contact_params_avp"]);
    m.init(init);
    m.ready(ready);
}

fn init(s: &mut MidRegistrar, loader: &mut Loader) -> Result<(), String> {
    prepare(&mut s.building, loader, "mid_registrar")?;
    s.extra_params.prepare(loader)?;
    s.reg = Arc::new(std::mem::take(&mut s.building));
    if !s.reg.usrloc().mode.in_memory() {
        return Err("mid_registrar needs contacts in memory: usrloc works without it".into());
    }
    Ok(())
}

fn ready(module: &Arc<MidRegistrar>, hooks: &mut Hooks, _: &Stats) {
    watch(&module.reg);
    // Requests of the main registrar name contacts by their ids.
    for table in module.reg.usrloc().tables() {
        table.index_ids();
    }
    let on_reply = module.clone();
    hooks.watch.on(Moment::ReplyIn, move |ctx, _| back::reply(ctx, &on_reply));
    let leaving = module.clone();
    module.reg.usrloc().watch(Arc::new(move |ctx, table, aor, changes| {
        leave::changed(ctx, &leaving, table, aor, changes);
    }));
}

/// What is kept with a contact for the day it leaves: whom to tell, and how (a JSON object).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upstream {
    /// R-URI of the REGISTER.
    pub uri: Bytes,
    /// "sip:10.0.0.1:5060": where the main registrar answered from.
    pub hop: Bytes,
    pub from: Bytes,
    pub to: Bytes,
    /// The contact as the main registrar knows it.
    pub contact: Bytes,
    pub call_id: Bytes,
    pub cseq: u32,
}

impl Upstream {
    pub fn pack(&self) -> Bytes {
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let json = serde_json::json!({
            "uri": text(&self.uri), "hop": text(&self.hop), "from": text(&self.from), "to": text(&self.to),
            "contact": text(&self.contact), "callid": text(&self.call_id), "cseq": self.cseq,
        });
        json.to_string().into()
    }

    pub fn unpack(text: &[u8]) -> Option<Upstream> {
        let json: serde_json::Value = serde_json::from_slice(text).ok()?;
        let field = |name: &str| Some(Bytes::from(json[name].as_str()?.to_string()));
        Some(Upstream {
            uri: field("uri")?,
            hop: field("hop")?,
            from: field("from")?,
            to: field("to")?,
            contact: field("contact")?,
            call_id: field("callid")?,
            cseq: json["cseq"].as_u64()? as u32,
        })
    }
}
