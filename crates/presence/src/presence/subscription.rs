//! One subscription, packed: fifty thousand of them are kept.

use bytes::Bytes;

/// State of a subscription, with the numbers of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Active = 1,
    Pending = 2,
    Terminated = 3,
    Waiting = 4,
}

impl Status {
    pub fn of_number(number: i64) -> Option<Status> {
        Some(match number {
            1 => Status::Active,
            2 => Status::Pending,
            3 => Status::Terminated,
            4 => Status::Waiting,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Pending => "pending",
            Status::Terminated => "terminated",
            Status::Waiting => "waiting",
        }
    }
}

/// Why a subscription is in its state; empty: no reason.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reason(pub Bytes);

impl Reason {
    pub const NONE: Reason = Reason(Bytes::new());
    pub const TIMEOUT: Reason = Reason(Bytes::from_static(b"timeout"));
    pub const REJECTED: Reason = Reason(Bytes::from_static(b"rejected"));
    pub const DEACTIVATED: Reason = Reason(Bytes::from_static(b"deactivated"));
    pub const POLITE_BLOCK: Reason = Reason(Bytes::from_static(b"polite-block"));
}

/// What the database has to be told, with the numbers that `subs_phtable_list` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwritten {
    Nothing = 0,
    Update = 1,
    Insert = 2,
}

/// The texts of a subscription, in their packing order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Field {
    FromUser,
    FromDomain,
    ToUser,
    ToDomain,
    CallId,
    ToTag,
    FromTag,
    /// URI, without `<>`.
    Contact,
    /// Value of Record-Route, comma separated.
    RecordRoute,
    LocalContact,
    EventId,
    Reason,
}

const FIELDS: usize = 12;

impl Field {
    pub const ALL: [Field; FIELDS] = [
        Field::FromUser,
        Field::FromDomain,
        Field::ToUser,
        Field::ToDomain,
        Field::CallId,
        Field::ToTag,
        Field::FromTag,
        Field::Contact,
        Field::RecordRoute,
        Field::LocalContact,
        Field::EventId,
        Field::Reason,
    ];
}

/// The unpacked texts, by [`Field`].
pub type Texts = [Bytes; FIELDS];

/// What tells one subscription from the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dialog {
    pub call_id: Bytes,
    /// Ours.
    pub to_tag: Bytes,
    pub from_tag: Bytes,
}

/// A subscription. Texts share one allocation.
#[derive(Clone, Debug)]
pub struct Subscription {
    texts: Box<[u8]>,
    ends: [u16; FIELDS],
    /// Unix seconds.
    pub expires: u32,
    /// Number of the last NOTIFY.
    pub local_cseq: u32,
    /// Number of the last SUBSCRIBE.
    pub remote_cseq: u32,
    /// NOTIFYs until now.
    pub version: u32,
    /// Index into `Shared::sockets`; `u16::MAX`: whichever fits.
    pub socket: u16,
    pub status: Status,
    pub unwritten: Unwritten,
    /// It came from the database and its watcher has taken no NOTIFY since: its numbers may be old.
    pub restored: bool,
}

/// It came from a database and names a socket that this server does not have.
pub const NO_SOCKET: u16 = u16::MAX;

impl Subscription {
    pub fn new(texts: &Texts, expires: u32, status: Status) -> Subscription {
        let mut new = Subscription {
            texts: Box::default(),
            ends: [0; FIELDS],
            expires,
            local_cseq: 0,
            remote_cseq: 0,
            version: 0,
            socket: NO_SOCKET,
            status,
            unwritten: Unwritten::Insert,
            restored: false,
        };
        new.pack(texts);
        new
    }

    fn pack(&mut self, texts: &Texts) {
        let mut all = Vec::with_capacity(texts.iter().map(Bytes::len).sum());
        for (end, text) in self.ends.iter_mut().zip(texts) {
            // A message is never so large; what does not fit is left out as a whole.
            if all.len() + text.len() <= usize::from(u16::MAX) {
                all.extend_from_slice(text);
            }
            *end = all.len() as u16;
        }
        self.texts = all.into();
    }

    pub fn get(&self, field: Field) -> &[u8] {
        let at = field as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.texts[usize::from(start)..usize::from(self.ends[at])]
    }

    pub fn bytes(&self, field: Field) -> Bytes {
        Bytes::copy_from_slice(self.get(field))
    }

    pub fn text(&self, field: Field) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.get(field))
    }

    pub fn set(&mut self, field: Field, text: &[u8]) {
        if self.get(field) == text {
            return;
        }
        let mut texts = Field::ALL.map(|field| self.bytes(field));
        texts[field as usize] = Bytes::copy_from_slice(text);
        self.pack(&texts);
    }

    pub fn dialog(&self) -> Dialog {
        Dialog {
            call_id: self.bytes(Field::CallId),
            to_tag: self.bytes(Field::ToTag),
            from_tag: self.bytes(Field::FromTag),
        }
    }

    pub fn is(&self, dialog: &Dialog) -> bool {
        self.get(Field::ToTag) == dialog.to_tag
            && self.get(Field::CallId) == dialog.call_id
            && self.get(Field::FromTag) == dialog.from_tag
    }

    /// URI of the watcher.
    pub fn watcher(&self) -> String {
        uri_of(self.get(Field::FromUser), self.get(Field::FromDomain))
    }

    /// URI that the watcher named in To.
    pub fn watched(&self) -> String {
        uri_of(self.get(Field::ToUser), self.get(Field::ToDomain))
    }

    /// Takes part in what is told when something was published: active, and nothing is held back.
    pub fn is_open(&self) -> bool {
        self.status == Status::Active && self.get(Field::Reason).is_empty()
    }

    pub fn change(&mut self, status: Status, reason: &Reason) {
        self.status = status;
        self.set(Field::Reason, &reason.0);
    }

    /// It differs from its row.
    pub fn touched(&mut self) {
        if self.unwritten == Unwritten::Nothing {
            self.unwritten = Unwritten::Update;
        }
    }
}

/// "sip:user@domain", "sip:domain" without a user, "tel:user" without a domain.
pub fn uri_of(user: &[u8], domain: &[u8]) -> String {
    let (user, domain) = (String::from_utf8_lossy(user), String::from_utf8_lossy(domain));
    match (user.is_empty(), domain.is_empty()) {
        (_, true) => format!("tel:{user}"),
        (true, false) => format!("sip:{domain}"),
        (false, false) => format!("sip:{user}@{domain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Subscription {
        let texts = ["alice", "a.org", "bob", "b.org", "c1", "t", "f", "sip:c@x", "", "sip:p@y", "7", ""]
            .map(|t| Bytes::from_static(t.as_bytes()));
        Subscription::new(&texts, 100, Status::Active)
    }

    #[test]
    fn texts_are_packed_and_changed() {
        let mut sub = some();
        assert_eq!(
            (sub.text(Field::CallId), sub.text(Field::EventId), sub.watcher()),
            ("c1".into(), "7".into(), "sip:alice@a.org".into())
        );
        sub.set(Field::Contact, b"sip:other@x.example");
        sub.change(Status::Active, &Reason::POLITE_BLOCK);
        assert_eq!(sub.text(Field::Contact), "sip:other@x.example");
        assert_eq!(sub.text(Field::LocalContact), "sip:p@y");
        assert!(!sub.is_open() && sub.is(&some().dialog()));
    }

    #[test]
    fn one_is_small() {
        let size = std::mem::size_of::<Subscription>();
        assert!(size <= 72, "{size}");
    }

    #[test]
    fn uris() {
        assert_eq!(uri_of(b"", b"x"), "sip:x");
        assert_eq!(uri_of(b"1", b""), "tel:1");
    }
}
