//! What is known of the media of one call: who relays it, and how scripts want that.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use std::cell::RefCell;
use std::rc::Rc;

/// The session that is for all branches.
pub const ALL: i32 = -1;

/// The two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Callee,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }
}

/// What scripts say of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Flags,
    /// Flags for what goes to this end.
    Peer,
    Ip,
    Type,
    Iface,
    Body,
    Delete,
    Disabled,
}

pub const FIELDS: [(&str, &str, Field); 8] = [
    ("flags", "flags", Field::Flags),
    ("peer", "peer", Field::Peer),
    ("ip", "IP", Field::Ip),
    ("type", "type", Field::Type),
    ("iface", "interface", Field::Iface),
    ("body", "body", Field::Body),
    ("delete", "delete", Field::Delete),
    ("disabled", "disabled", Field::Disabled),
];

#[derive(Clone, Default, Debug)]
pub struct Leg {
    pub tag: Option<Bytes>,
    /// The last description that it sent.
    pub said: Option<Bytes>,
    fields: [Option<Bytes>; FIELDS.len()],
}

impl Leg {
    pub fn get(&self, field: Field) -> Option<&Bytes> {
        self.fields[field as usize].as_ref()
    }

    pub fn set(&mut self, field: Field, value: Option<Bytes>) {
        self.fields[field as usize] = value;
    }

    pub fn is_disabled(&self) -> bool {
        self.get(Field::Disabled).is_some_and(|value| value != "0")
    }

    fn is_blank(&self) -> bool {
        self.fields.iter().all(Option::is_none)
    }

    /// As commands show it.
    fn shown(&self) -> Json {
        let text = |bytes: &Bytes| Json::String(String::from_utf8_lossy(bytes).into_owned());
        let mut out = Map::new();
        if let Some(tag) = &self.tag {
            out.insert("tag".into(), text(tag));
        }
        for (_, name, field) in FIELDS {
            match self.get(field) {
                _ if field == Field::Disabled && self.is_disabled() => {
                    out.insert("disabled".into(), json!("yes"));
                }
                Some(value) if field != Field::Disabled => {
                    out.insert(name.into(), text(value));
                }
                _ => {}
            }
        }
        Json::Object(out)
    }

    fn stored(&self) -> Json {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<_> = self.fields.iter().map(|value| value.as_ref().map(text)).collect();
        json!({"tag": self.tag.as_ref().map(text), "said": self.said.as_ref().map(text), "fields": fields})
    }

    fn restored(json: &Json) -> Leg {
        let mut leg = Leg { tag: text_of(&json["tag"]), said: text_of(&json["said"]), ..Leg::default() };
        for (place, value) in leg.fields.iter_mut().zip(json["fields"].as_array().into_iter().flatten()) {
            *place = text_of(value);
        }
        leg
    }
}

fn text_of(json: &Json) -> Option<Bytes> {
    json.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()))
}

/// Media of one branch, or of all.
#[derive(Clone, Debug)]
pub struct Session {
    pub index: i32,
    /// The name of the engine; `None`: not engaged.
    pub engine: Option<&'static str>,
    pub set: Option<i64>,
    /// The engine that has it.
    pub node: Option<Bytes>,
    /// The offer comes in a reply.
    pub late: bool,
    /// An engine was offered something.
    pub pending: bool,
    pub legs: [Leg; 2],
}

impl Session {
    fn new(index: i32) -> Session {
        let legs = [Leg::default(), Leg::default()];
        Session { index, engine: None, set: None, node: None, late: false, pending: false, legs }
    }

    pub fn leg(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }

    pub fn is_disabled(&self) -> bool {
        self.legs.iter().any(Leg::is_disabled)
    }
}

/// `$rtp_relay_ctx`, in the order of its names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Common {
    CallId,
    FromTag,
    ToTag,
    Flags,
    Delete,
}

pub const COMMON: [(&str, Common); 5] = [
    ("callid", Common::CallId),
    ("from-tag", Common::FromTag),
    ("to-tag", Common::ToTag),
    ("flags", Common::Flags),
    ("delete", Common::Delete),
];

#[derive(Clone, Default, Debug)]
pub struct Context {
    /// What scripts say, which takes the place of what messages say.
    pub common: [Option<Bytes>; COMMON.len()],
    /// What the dialog says.
    pub call_id: Bytes,
    pub from_tag: Bytes,
    pub to_tag: Bytes,
    pub sessions: Vec<Session>,
    /// Ends that are named by number, for sessions that know nothing else of theirs.
    pub numbered: Vec<(i32, Leg)>,
    /// The session that the call has.
    pub established: Option<usize>,
}

/// The context of a call, wherever it is kept: with the message, its transaction and its dialog.
#[derive(Clone, Default)]
pub struct Handle(pub Option<Rc<RefCell<Context>>>);

impl Context {
    pub fn common(&self, which: Common) -> Option<&Bytes> {
        self.common[which as usize].as_ref()
    }

    /// The session with exactly this index, made if need be.
    pub fn session(&mut self, index: i32) -> &mut Session {
        let at = match self.sessions.iter().position(|session| session.index == index) {
            Some(at) => at,
            None => {
                self.sessions.push(Session::new(index));
                self.sessions.len() - 1
            }
        };
        &mut self.sessions[at]
    }

    pub fn find(&self, index: i32) -> Option<&Session> {
        self.sessions.iter().find(|session| session.index == index)
    }

    pub fn numbered(&mut self, number: i32) -> &mut Leg {
        let at = match self.numbered.iter().position(|(known, _)| *known == number) {
            Some(at) => at,
            None => {
                self.numbered.push((number, Leg::default()));
                self.numbered.len() - 1
            }
        };
        &mut self.numbered[at].1
    }

    /// The engaged session that a branch uses.
    pub fn engaged(&self, branch: i32) -> Option<usize> {
        let at = |index| self.sessions.iter().position(|s| s.index == index && s.engine.is_some());
        at(branch).or_else(|| at(ALL))
    }

    /// The legs of a session as a branch sees them.
    pub fn legs(&self, at: usize, branch: i32) -> [Leg; 2] {
        let mut legs = self.sessions[at].legs.clone();
        // A branch route speaks of its branch, also where the call is engaged as a whole.
        let of_branch =
            self.sessions.iter().find(|s| s.index == branch && s.engine.is_none() && branch != ALL);
        for (leg, said) in legs.iter_mut().zip(of_branch.iter().flat_map(|session| &session.legs)) {
            if !said.is_blank() {
                leg.fields.clone_from(&said.fields);
            }
        }
        if legs[1].is_blank()
            && let Some((_, leg)) = self.numbered.iter().find(|(number, _)| *number == branch)
        {
            legs[1] = Leg { tag: legs[1].tag.clone(), said: legs[1].said.clone(), ..leg.clone() };
        }
        legs
    }

    pub fn current(&self) -> Option<&Session> {
        self.established.and_then(|at| self.sessions.get(at))
    }

    /// Whose tag this is.
    pub fn side_of(&self, tag: &[u8]) -> Side {
        if self.from_tag == tag { Side::Caller } else { Side::Callee }
    }

    /// As `rtp_relay:list` shows it.
    pub fn shown(&self) -> Option<Json> {
        let session = self.current()?;
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut out = json!({
            "callid": text(&self.call_id),
            "caller": session.legs[0].shown(),
            "callee": session.legs[1].shown(),
            "relay": session.engine,
            "node": session.node.as_ref().map(text).unwrap_or_default(),
            "set": session.set.unwrap_or(0),
        });
        if session.index != ALL {
            out["branch"] = json!(session.index);
        }
        let mut common = Map::new();
        let own = [None, Some(&self.from_tag), Some(&self.to_tag), None, None];
        for ((name, which), own) in COMMON.into_iter().zip(own) {
            let value = self.common(which).or(own).filter(|value| !value.is_empty());
            if let Some(value) = value {
                common.insert(name.into(), json!(text(value)));
            }
        }
        out["ctx"] = Json::Object(common);
        Some(out)
    }

    /// What outlives a restart.
    pub fn stored(&self) -> Option<String> {
        let session = self.current()?;
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let common: Vec<_> = self.common.iter().map(|value| value.as_ref().map(text)).collect();
        let out = json!({
            "common": common,
            "call_id": text(&self.call_id), "from": text(&self.from_tag), "to": text(&self.to_tag),
            "index": session.index, "engine": session.engine, "set": session.set,
            "node": session.node.as_ref().map(text), "pending": session.pending,
            "legs": [session.legs[0].stored(), session.legs[1].stored()],
        });
        Some(out.to_string())
    }

    pub fn restored(text: &[u8]) -> Option<Context> {
        let json: Json = serde_json::from_slice(text).ok()?;
        let engine = super::engines::known(json["engine"].as_str()?)?;
        let session = Session {
            index: i32::try_from(json["index"].as_i64()?).ok()?,
            engine: Some(engine),
            set: json["set"].as_i64(),
            node: text_of(&json["node"]),
            late: false,
            pending: json["pending"].as_bool()?,
            legs: [Leg::restored(&json["legs"][0]), Leg::restored(&json["legs"][1])],
        };
        let mut context = Context {
            call_id: text_of(&json["call_id"])?,
            from_tag: text_of(&json["from"])?,
            to_tag: text_of(&json["to"])?,
            sessions: vec![session],
            established: Some(0),
            ..Context::default()
        };
        let stored = json["common"].as_array().into_iter().flatten();
        context.common.iter_mut().zip(stored).for_each(|(place, value)| *place = text_of(value));
        Some(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn established() -> Context {
        let mut context =
            Context { call_id: "id".into(), from_tag: "a".into(), to_tag: "b".into(), ..Context::default() };
        context.common[Common::Flags as usize] = Some("both".into());
        let session = context.session(2);
        (session.engine, session.set, session.node) = (Some("rtpengine"), Some(4), Some("udp:x".into()));
        session.pending = true;
        session.legs[0].tag = Some("a".into());
        session.legs[0].set(Field::Ip, Some("192.0.2.1".into()));
        session.legs[1].set(Field::Disabled, Some("1".into()));
        context.established = Some(0);
        context
    }

    #[test]
    fn what_is_stored_comes_back() {
        let context = established();
        let back = Context::restored(context.stored().unwrap().as_bytes()).unwrap();
        assert_eq!(back.shown(), context.shown());
        assert_eq!(back.stored(), context.stored());
        assert!(back.current().unwrap().is_disabled());
        assert!(Context::restored(b"{}").is_none() && Context::restored(b"x").is_none());
    }

    #[test]
    fn lists_say_what_is_set() {
        let want = json!({
            "callid": "id", "caller": {"tag": "a", "IP": "192.0.2.1"}, "callee": {"disabled": "yes"},
            "relay": "rtpengine", "node": "udp:x", "set": 4, "branch": 2,
            "ctx": {"from-tag": "a", "to-tag": "b", "flags": "both"},
        });
        assert_eq!(established().shown(), Some(want));
        assert_eq!(Context::default().shown(), None);
    }

    #[test]
    fn branches_use_their_own_session_or_that_of_all() {
        let mut context = Context::default();
        context.session(ALL).engine = Some("rtpproxy");
        context.session(1);
        assert_eq!((context.engaged(0), context.engaged(1)), (Some(0), Some(0)));
        context.session(1).engine = Some("rtpproxy");
        assert_eq!((context.engaged(0), context.engaged(1)), (Some(0), Some(1)));
        context.numbered(0).set(Field::Flags, Some("o".into()));
        assert_eq!(context.legs(0, 0)[1].get(Field::Flags), Some(&"o".into()));
        assert_eq!(context.legs(0, 1)[1].get(Field::Flags), None);
    }
}
