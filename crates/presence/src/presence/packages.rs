//! Event packages: what `presence` knows of each, as the modules that bring them say it.

use super::documents::Documents;
use super::subscribe::Request;
use bytes::Bytes;
use host::Ctx;
use parking_lot::RwLock;
use sip::Message;
use std::sync::Arc;

/// A reply that refuses a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub u16, pub &'static str);

pub const BAD_REQUEST: Refusal = Refusal(400, "Bad request");
pub const NO_SUBSCRIPTION: Refusal = Refusal(481, "Subscription does not exist");
pub const BAD_EVENT: Refusal = Refusal(489, "Bad Event");
pub const BROKEN: Refusal = Refusal(500, "Server Internal Error");

/// Bodies that one NOTIFY is made of.
pub struct Bodies<'a> {
    /// "sip:user@domain"
    pub uri: &'a str,
    /// Oldest first.
    pub published: Vec<Bytes>,
    /// The one among them that ends: its source said so or its time is over.
    pub ending: Option<usize>,
    pub extent: Extent,
    /// What the user wants to be shown while nothing is published (RFC 4827).
    pub permanent: Option<Bytes>,
}

/// How much a body tells (RFC 4235 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    Full,
    /// Only what was published now.
    Partial,
}

/// Makes one body of several; `None`: there is none.
pub type Aggregate = Arc<dyn Fn(Bodies<'_>) -> Option<Bytes> + Send + Sync>;

/// Refuses a SUBSCRIBE for the user with this URI, or lets it go on.
pub type AdmitsSubscribe = Arc<dyn Fn(&mut Ctx, &Bytes, &Request) -> Result<(), Refusal> + Send + Sync>;

/// An event package (RFC 6665 §7.2).
#[derive(Clone)]
pub struct Package {
    /// As in Event and in tables: "presence", "dialog;sla".
    pub name: &'static str,
    pub content_type: &'static str,
    /// Seconds, where a request names none.
    pub default_expires: u32,
    /// A first PUBLISH without a body is refused.
    pub needs_body: bool,
    /// Watchers hear that their time is over.
    pub tells_end: bool,
    /// Headers of PUBLISH that go into NOTIFY.
    pub headers: &'static [&'static str],
    /// Looks at a PUBLISH.
    pub admits: Option<fn(&Message) -> Result<(), Refusal>>,
    /// Looks at the current SUBSCRIBE for a user.
    pub admits_subscribe: Option<AdmitsSubscribe>,
    /// A change leaves the state its entity tag.
    pub keeps_tag: bool,
    /// Lines of NOTIFYs while nothing is published, by the URI of the user.
    pub empty_headers: Option<Arc<dyn Fn(&[u8]) -> Bytes + Send + Sync>>,
    /// Who may watch, by documents of the user; `None`: everybody.
    pub documents: Option<Arc<dyn Documents>>,
    /// `None`: the newest body is the one.
    pub aggregate: Option<Aggregate>,
    /// The body while nothing is published.
    pub empty: Option<fn(uri: &str) -> Bytes>,
    /// Writes the number of the NOTIFY of one watcher into the body.
    pub numbered: Option<fn(&Bytes, u32) -> Option<Bytes>>,
}

impl Package {
    pub fn new(name: &'static str, content_type: &'static str) -> Package {
        Package {
            name,
            content_type,
            default_expires: 3600,
            needs_body: true,
            tells_end: true,
            headers: &[],
            admits: None,
            admits_subscribe: None,
            keeps_tag: false,
            empty_headers: None,
            documents: None,
            aggregate: None,
            empty: None,
            numbered: None,
        }
    }

    /// Tells about watchers (RFC 3857) instead of what was published.
    pub fn is_winfo(&self) -> bool {
        self.name.ends_with(".winfo")
    }

    pub fn is_presence(&self) -> bool {
        self.name == "presence"
    }

    pub fn is_dialog(&self) -> bool {
        self.name == "dialog"
    }

    pub fn is_shared_line(&self) -> bool {
        self.name == "dialog;sla"
    }

    fn base(&self) -> &str {
        self.name.split(';').next().unwrap_or_default()
    }

    /// Number that the reference gives to an event, in lists.
    pub fn number(&self) -> u8 {
        Package::number_of(self.name.as_bytes())
    }

    /// The same by name; 0 for others.
    pub fn number_of(name: &[u8]) -> u8 {
        match std::str::from_utf8(name).unwrap_or_default() {
            "presence" => 1,
            "presence.winfo" => 2,
            "sip-profile" => 3,
            "xcap-diff" => 4,
            "dialog" => 5,
            "message-summary" => 6,
            "dialog;sla" => 7,
            "call-info" => 8,
            "line-seize" => 9,
            "as-feature-event" => 10,
            "refer" => 11,
            "reg" => 12,
            _ => 0,
        }
    }
}

/// Value of an Event header.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: Bytes,
    pub params: sip::Params,
}

impl Event {
    pub fn parse(value: &Bytes) -> Option<Event> {
        let value = value.slice_ref(value.trim_ascii());
        let end = value.iter().position(|b| b" \t;".contains(b)).unwrap_or(value.len());
        let params = value.iter().position(|b| *b == b';').map(|at| value.slice(at + 1..));
        let name = value.slice(..end);
        (!name.is_empty()).then(|| Event { name, params: sip::Params { text: params.unwrap_or_default() } })
    }

    pub fn id(&self) -> Bytes {
        self.params.value(b"id").unwrap_or_default()
    }
}

/// All packages, those that came last first, as Allow-Events lists them.
#[derive(Default)]
pub struct Packages(RwLock<Vec<(u8, Arc<Package>)>>);

impl Packages {
    /// One that is there already stays as it is.
    pub fn add(&self, package: Package) {
        let mut list = self.0.write();
        if !list.iter().any(|(_, p)| p.name == package.name) {
            let number = list.len() as u8;
            list.insert(0, (number, Arc::new(package)));
        }
    }

    pub fn get(&self, number: u8) -> Option<Arc<Package>> {
        self.0.read().iter().find(|(n, _)| *n == number).map(|(_, p)| p.clone())
    }

    pub fn named(&self, name: &str) -> Option<(u8, Arc<Package>)> {
        self.0.read().iter().find(|(_, p)| p.name == name).cloned()
    }

    /// The package of an Event header: of those whose parameters all stand in it the one that asks for most.
    pub fn of_event(&self, event: &Event) -> Option<(u8, Arc<Package>)> {
        let asks = |package: &Package| package.name.split(';').skip(1).count();
        let fits = |package: &Package| {
            package.base().as_bytes().eq_ignore_ascii_case(&event.name)
                && package.name.split(';').skip(1).all(|param| event.params.has(param.as_bytes()))
        };
        let list = self.0.read();
        list.iter().filter(|(_, p)| fits(p)).max_by_key(|(_, p)| asks(p)).cloned()
    }

    /// The package that tells about watchers of this one, or whose watchers this one tells about.
    pub fn peer(&self, package: &Package) -> Option<(u8, Arc<Package>)> {
        match package.name.strip_suffix(".winfo") {
            Some(watched) => self.named(watched),
            None => self.named(&format!("{}.winfo", package.name)),
        }
    }

    /// Those that ask documents.
    pub fn with_documents(&self) -> Vec<(u8, Arc<dyn Documents>)> {
        self.0.read().iter().filter_map(|(n, p)| Some((*n, p.documents.clone()?))).collect()
    }

    /// Value of Allow-Events.
    pub fn list(&self) -> String {
        self.0.read().iter().map(|(_, p)| p.name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Packages {
        let all = Packages::default();
        for name in ["presence", "presence.winfo", "dialog;sla", "dialog"] {
            all.add(Package::new(name, "x/y"));
        }
        all
    }

    fn found(event: &'static str) -> Option<&'static str> {
        let event = Event::parse(&Bytes::from_static(event.as_bytes()))?;
        packages().of_event(&event).map(|(_, p)| p.name)
    }

    #[test]
    fn events_find_their_package() {
        for (event, name) in [
            ("presence", Some("presence")),
            (" Presence ; id=5", Some("presence")),
            ("presence.winfo", Some("presence.winfo")),
            ("dialog", Some("dialog")),
            ("dialog;sla", Some("dialog;sla")),
            ("dialog;id=1;sla", Some("dialog;sla")),
            ("dialogue", None),
            ("", None),
        ] {
            assert_eq!(found(event), name, "{event}");
        }
        assert_eq!(Event::parse(&Bytes::from_static(b"presence;id=abc")).unwrap().id(), "abc");
    }

    #[test]
    fn packages_know_their_peer_and_are_listed_backwards() {
        let all = packages();
        let presence = all.named("presence").unwrap();
        assert_eq!(all.peer(&presence.1).unwrap().1.name, "presence.winfo");
        assert_eq!(all.peer(&all.named("presence.winfo").unwrap().1).unwrap().0, presence.0);
        assert!(all.peer(&all.named("dialog").unwrap().1).is_none());
        assert_eq!(all.list(), "dialog, dialog;sla, presence.winfo, presence");
    }
}
