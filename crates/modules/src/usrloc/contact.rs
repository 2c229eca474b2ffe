//! One contact of an address of record, packed: a hundred thousand of them are kept.

use super::table::Wanted;
use bytes::Bytes;
use sip::Method;

/// The texts of a contact, in their packing order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Field {
    Uri,
    CallId,
    UserAgent,
    Received,
    Path,
    Instance,
    Attr,
    /// Sharing tag of the node that owns the contact.
    Tag,
    /// What modules keep with a contact (mid_registrar), a JSON object.
    Keys,
}

const FIELDS: usize = 9;

/// No socket: the contact came from a database and names one that this server does not have.
pub const NO_SOCKET: u16 = u16::MAX;

/// Internal flags, with the values of the reference (column `flags`, `ul_dump`).
pub mod bits {
    /// Not written to the database.
    pub const MEMORY_ONLY: u8 = 1;
    /// Woken by push notification (RFC 8599).
    pub const PUSH: u8 = 4;
}

/// Every method: nothing was said about them.
pub const ALL_METHODS: u32 = u32::MAX;

/// The bit of a method in `Binding::methods`, as databases and `ul_dump` show it.
pub fn method_bit(method: Method) -> u32 {
    match method {
        Method::Invite => 1,
        Method::Cancel => 1 << 1,
        Method::Ack => 1 << 2,
        Method::Bye => 1 << 3,
        Method::Info => 1 << 4,
        Method::Options => 1 << 5,
        Method::Update => 1 << 6,
        Method::Register => 1 << 7,
        Method::Message => 1 << 8,
        Method::Subscribe => 1 << 9,
        Method::Notify => 1 << 10,
        Method::Prack => 1 << 11,
        Method::Refer => 1 << 12,
        Method::Publish => 1 << 13,
        Method::Service | Method::Other => 1 << 14,
    }
}

/// What a registration says about a contact; the unpacked form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Binding {
    /// Contact URI as registered, without `<>`.
    pub uri: Bytes,
    pub call_id: Bytes,
    pub user_agent: Bytes,
    /// Where the registration came from when that is not the contact ("sip:1.2.3.4:5").
    pub received: Bytes,
    /// Path header values, comma separated.
    pub path: Bytes,
    /// +sip.instance, with its quotes removed.
    pub instance: Bytes,
    pub attr: Bytes,
    pub tag: Bytes,
    pub keys: Bytes,
    /// Unix seconds; 0 never.
    pub expires: u32,
    /// Unix seconds at which a registrar further on forgets it (mid_registrar); 0: there is none.
    pub expires_out: u32,
    /// q × 1000, -1 when not given.
    pub q: i16,
    pub cseq: u32,
    /// Branch flags.
    pub flags: u32,
    /// Methods of the Allow header or the `methods` parameter (`method_bit`), or `ALL_METHODS`.
    pub methods: u32,
    /// Index of the socket it registered through, or `NO_SOCKET`.
    pub socket: u16,
    /// +reg-id, 0 when not given.
    pub reg_id: u16,
    /// `bits`
    pub bits: u8,
}

impl Binding {
    /// How the stored contact is looked for.
    pub fn wanted(&self) -> Wanted<'_> {
        let flow =
            (self.reg_id != 0 && !self.instance.is_empty()).then_some((&self.instance[..], self.reg_id));
        Wanted { uri: &self.uri, call_id: &self.call_id, flow }
    }
}

/// A stored contact. Texts share one allocation.
#[derive(Clone, Debug)]
pub struct Contact {
    texts: Box<[u8]>,
    pub id: u64,
    pub expires: u32,
    pub expires_out: u32,
    pub modified: u32,
    pub cseq: u32,
    pub flags: u32,
    pub methods: u32,
    /// Microseconds of the last ping, 0: none yet.
    pub latency_us: u32,
    ends: [u16; FIELDS],
    pub q: i16,
    pub socket: u16,
    pub reg_id: u16,
    /// Counts changes, so that a write to the database knows whether it wrote the newest.
    pub version: u16,
    pub bits: u8,
    pub state: ContactState,
}

/// What the database knows of a contact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContactState {
    /// Only in memory.
    New,
    Synced,
    /// Changed since it was written.
    Dirty,
}

impl Contact {
    pub fn new(id: u64, binding: &Binding, now: u32) -> Contact {
        let mut contact = Contact {
            texts: Box::default(),
            ends: [0; FIELDS],
            id,
            expires: 0,
            expires_out: 0,
            modified: 0,
            cseq: 0,
            flags: 0,
            methods: 0,
            latency_us: 0,
            q: -1,
            socket: NO_SOCKET,
            reg_id: 0,
            version: 0,
            bits: 0,
            state: ContactState::New,
        };
        contact.update(binding, now);
        contact
    }

    /// Takes over a new registration of the same contact; its latency stays.
    pub fn update(&mut self, b: &Binding, now: u32) {
        self.pack([
            &b.uri,
            &b.call_id,
            &b.user_agent,
            &b.received,
            &b.path,
            &b.instance,
            &b.attr,
            &b.tag,
            &b.keys,
        ]);
        (self.expires, self.modified, self.cseq) = (b.expires, now, b.cseq);
        (self.flags, self.methods, self.q) = (b.flags, b.methods, b.q);
        (self.socket, self.reg_id, self.bits) = (b.socket, b.reg_id, b.bits);
        self.expires_out = b.expires_out;
        self.touch();
    }

    /// Nobody upstream has to be told when it goes (`mid_registrar` keeps the words for that with it).
    pub fn forget_upstream(&mut self) {
        let silent = Binding { keys: Bytes::new(), ..self.binding() };
        self.update(&silent, self.modified);
    }

    /// It differs from what the database holds.
    pub fn touch(&mut self) {
        self.version = self.version.wrapping_add(1);
        if self.state == ContactState::Synced {
            self.state = ContactState::Dirty;
        }
    }

    /// The unpacked form, to change some of it.
    pub fn binding(&self) -> Binding {
        let copy = |field| Bytes::copy_from_slice(self.text(field));
        Binding {
            uri: copy(Field::Uri),
            call_id: copy(Field::CallId),
            user_agent: copy(Field::UserAgent),
            received: copy(Field::Received),
            path: copy(Field::Path),
            instance: copy(Field::Instance),
            attr: copy(Field::Attr),
            tag: copy(Field::Tag),
            keys: copy(Field::Keys),
            expires: self.expires,
            expires_out: self.expires_out,
            q: self.q,
            cseq: self.cseq,
            flags: self.flags,
            methods: self.methods,
            socket: self.socket,
            reg_id: self.reg_id,
            bits: self.bits,
        }
    }

    pub fn text(&self, field: Field) -> &[u8] {
        let at = field as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.texts[usize::from(start)..usize::from(self.ends[at])]
    }

    pub fn uri(&self) -> &[u8] {
        self.text(Field::Uri)
    }

    pub fn expired(&self, now: u32) -> bool {
        self.expires != 0 && self.expires <= now
    }

    pub fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    /// Index in `Shared::sockets`, when it registered through one of them.
    pub fn socket(&self) -> Option<u16> {
        (self.socket != NO_SOCKET).then_some(self.socket)
    }

    fn pack(&mut self, parts: [&[u8]; FIELDS]) {
        // Offsets are 16 bits: what does not fit is cut; limits of the registrar are far below.
        let room = usize::from(u16::MAX);
        let mut texts = Vec::with_capacity(parts.iter().map(|p| p.len()).sum::<usize>().min(room));
        for (i, part) in parts.iter().enumerate() {
            let room = room - texts.len();
            texts.extend_from_slice(&part[..part.len().min(room)]);
            self.ends[i] = texts.len() as u16;
        }
        self.texts = texts.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_small_is_small() {
        let binding = Binding {
            uri: "sip:a@10.0.0.1".into(),
            call_id: "c1".into(),
            path: "<sip:p;lr>".into(),
            attr: "x".into(),
            keys: "{}".into(),
            ..Binding::default()
        };
        let mut contact = Contact::new(7, &binding, 100);
        contact.update(&Binding { user_agent: "phone".into(), ..binding }, 101);
        assert_eq!(contact.uri(), b"sip:a@10.0.0.1");
        assert_eq!(contact.text(Field::CallId), b"c1");
        assert_eq!(contact.text(Field::UserAgent), b"phone");
        assert_eq!(contact.text(Field::Received), b"");
        assert_eq!(contact.text(Field::Attr), b"x");
        assert_eq!(contact.text(Field::Keys), b"{}");
        assert!(size_of::<Contact>() <= 80, "{}", size_of::<Contact>());
        assert_eq!(Contact::new(8, &contact.binding(), 101).uri(), contact.uri());
    }

    #[test]
    fn methods_have_the_bits_that_databases_know() {
        let all = Method::all().chain([Method::Other]);
        assert_eq!(all.map(method_bit).fold(0, |set, bit| set | bit), 32767);
        assert_eq!(method_bit(Method::Ack), 4);
    }
}
