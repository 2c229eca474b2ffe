//! Dialogs as management commands, `$DLG_json` and `$DLG_ctx_json` show them.

use super::Dlg;
use super::cell::{Data, Leg, Val};
use super::moment::Moment;
use host::Ctx;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// How much is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    Plain,
    /// With a `context` of values and profiles, as lists.
    Context,
    /// As the JSON variables have it.
    Json,
    /// The same with values and profiles.
    JsonContext,
}

/// What is needed to show dialogs.
pub struct Shown {
    module: Arc<Dlg>,
    sockets: Vec<String>,
    moment: Moment,
}

impl Shown {
    pub fn new(ctx: &Ctx, module: &Arc<Dlg>) -> Shown {
        let sockets = ctx.core.shared.sockets.iter();
        Shown {
            module: module.clone(),
            sockets: sockets.map(|s| format!("{}:{}", s.transport.as_str(), s.addr)).collect(),
            moment: Moment::of(ctx),
        }
    }

    fn socket(&self, index: u16) -> &str {
        self.sockets.get(usize::from(index)).map_or("", String::as_str)
    }

    /// Unix seconds of the end of its lifetime; 0: its time does not run.
    fn ends(&self, d: &Data) -> u64 {
        d.ends.map_or(0, |at| self.moment.unix_of(at))
    }

    pub fn dialog(&self, d: &Data, detail: Detail) -> Json {
        match detail {
            Detail::Plain | Detail::Context => self.listed(d, detail),
            Detail::Json | Detail::JsonContext => self.flat(d, detail),
        }
    }

    fn listed(&self, d: &Data, detail: Detail) -> Json {
        let mut out = Map::new();
        let mut put = |name: &str, value: Json| drop(out.insert(name.into(), value));
        put("ID", d.did.to_string().into());
        put("db_id", d.did.number().to_string().into());
        put("state", (d.state as i64).into());
        put("user_flags", self.module.flag_text(d.user_flags).into());
        put("timestart", d.started.into());
        if d.started != 0 {
            put("datestart", date(d.started.into()).into());
        }
        let ends = self.ends(d);
        put("timeout", ends.into());
        if ends != 0 {
            put("dateout", date(ends).into());
        }
        put("callid", text(&d.call_id));
        put("from_uri", text(&d.from_uri));
        put("to_uri", text(&d.to_uri));
        put("caller_tag", text(&d.caller.tag));
        put("caller_contact", text(&d.caller.contact));
        put("callee_cseq", d.caller.cseq.to_string().into());
        put("caller_route_set", text(&d.caller.routes));
        put("caller_bind_addr", self.socket(d.caller.socket).into());
        if let Some(body) = &d.caller.body_in {
            put("caller_sdp", text(body));
        }
        let callees: Vec<Json> = d.callees.iter().map(|leg| self.callee(leg)).collect();
        put("CALLEES", callees.into());
        if detail == Detail::Context {
            put("context", self.context(d));
        }
        out.into()
    }

    fn callee(&self, leg: &Leg) -> Json {
        let mut out = json!({
            "callee_tag": text(&leg.tag),
            "callee_contact": text(&leg.contact),
            "caller_cseq": leg.cseq.to_string(),
            "callee_route_set": text(&leg.routes),
            "callee_bind_addr": self.socket(leg.socket),
        });
        if let Some(body) = &leg.body_in {
            out["callee_sdp"] = text(body);
        }
        out
    }

    fn context(&self, d: &Data) -> Json {
        let pair = |name: &[u8], value: Json| {
            Json::Object([(String::from_utf8_lossy(name).into_owned(), value)].into_iter().collect())
        };
        let mut out = Map::new();
        let values: Vec<Json> = d.vals.iter().map(|(name, value)| pair(name, shown(value))).collect();
        if !values.is_empty() {
            out.insert("values".into(), values.into());
        }
        let profiles: Vec<Json> =
            self.memberships(d).map(|(name, value)| pair(name.as_bytes(), text(value))).collect();
        if !profiles.is_empty() {
            out.insert("profiles".into(), profiles.into());
        }
        out.into()
    }

    fn memberships<'a>(&'a self, d: &'a Data) -> impl Iterator<Item = (String, &'a [u8])> {
        let named = |m: &'a super::cell::Membership| {
            Some((self.module.profiles.at(m.profile)?.name.clone(), &*m.value))
        };
        d.memberships.iter().filter_map(named)
    }

    /// The form of the JSON variables.
    fn flat(&self, d: &Data, detail: Detail) -> Json {
        let side = |leg: &Leg| {
            json!({
                "tag": text(&leg.tag),
                "contact": text(&leg.contact),
                "cseq": leg.cseq.to_string(),
                "route_set": text(&leg.routes),
                "bind_addr": self.socket(leg.socket),
                "sdp": "",
            })
        };
        let callees: Vec<Json> = d.callees.iter().map(side).collect();
        let mut out = json!({
            "ID": d.did.number().to_string(),
            "state": (d.state as i64).to_string(),
            "user_flags": self.module.flag_text(d.user_flags),
            "callid": text(&d.call_id),
            "timestart": d.started.to_string(),
            "timeout": self.ends(d).to_string(),
            "from_uri": text(&d.from_uri),
            "to_uri": text(&d.to_uri),
            "caller": side(&d.caller),
            "callees": callees,
        });
        if detail == Detail::Json {
            return out;
        }
        let values: Map<String, Json> =
            d.vals.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), shown(v))).collect();
        if !values.is_empty() {
            out["values"] = values.into();
        }
        let mut profiles: Map<String, Json> = Map::new();
        for (name, value) in self.memberships(d) {
            let list = profiles.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(text(value));
            }
        }
        if !profiles.is_empty() {
            out["profiles"] = profiles.into();
        }
        out
    }
}

/// Bytes that cannot be printed are shown as \xNN.
fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut out = String::new();
            for b in bytes {
                match b {
                    b' '..=b'~' | b'\r' | b'\n' | b'\t' => out.push(*b as char),
                    other => out.push_str(&format!("\\x{other:02x}")),
                }
            }
            out.into()
        }
    }
}

fn shown(value: &Val) -> Json {
    match value {
        Val::Int(n) => (*n).into(),
        Val::Str(bytes) => text(bytes),
    }
}

/// "2026-11-30 12:00:00", UTC.
fn date(unix: u64) -> String {
    host::clock::sql(unix as i64)
}
