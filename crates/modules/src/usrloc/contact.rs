//! One contact of an address of record, packed: a hundred thousand of them are kept.

use bytes::Bytes;

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
}

const FIELDS: usize = 7;

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
    /// Unix seconds; 0 never.
    pub expires: u32,
    /// q × 1000, -1 when not given.
    pub q: i16,
    pub cseq: u32,
    /// Branch flags.
    pub flags: u32,
    /// Methods of the Allow header or the `methods` parameter; all bits when not given.
    pub methods: u32,
    /// Index of the socket it registered through.
    pub socket: u16,
    /// +reg-id, 0 when not given.
    pub reg_id: u16,
}

/// A stored contact. Texts share one allocation.
#[derive(Clone, Debug)]
pub struct Contact {
    texts: Box<[u8]>,
    ends: [u16; FIELDS],
    pub id: u64,
    pub expires: u32,
    pub modified: u32,
    pub cseq: u32,
    pub flags: u32,
    pub methods: u32,
    /// Microseconds of the last ping, 0: none yet.
    pub latency_us: u32,
    pub q: i16,
    pub socket: u16,
    pub reg_id: u16,
    pub state: State,
}

/// What the database knows of a contact (write-back).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
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
            modified: 0,
            cseq: 0,
            flags: 0,
            methods: 0,
            latency_us: 0,
            q: -1,
            socket: 0,
            reg_id: 0,
            state: State::New,
        };
        contact.update(binding, now);
        contact
    }

    /// Takes over a new registration of the same contact; its latency stays.
    pub fn update(&mut self, b: &Binding, now: u32) {
        self.pack([&b.uri, &b.call_id, &b.user_agent, &b.received, &b.path, &b.instance, &b.attr]);
        (self.expires, self.modified, self.cseq) = (b.expires, now, b.cseq);
        (self.flags, self.methods, self.q) = (b.flags, b.methods, b.q);
        (self.socket, self.reg_id) = (b.socket, b.reg_id);
        if self.state == State::Synced {
            self.state = State::Dirty;
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

    fn pack(&mut self, parts: [&[u8]; FIELDS]) {
        // Offsets are 16 bits: what does not fit is cut; limits of the registrar are far below.
        let mut texts = Vec::with_capacity(parts.iter().map(|p| p.len()).sum::<usize>().min(usize::from(u16::MAX)));
        for (i, part) in parts.iter().enumerate() {
            let room = usize::from(u16::MAX) - texts.len();
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
            ..Binding::default()
        };
        let mut contact = Contact::new(7, &binding, 100);
        contact.update(&Binding { user_agent: "phone".into(), ..binding }, 101);
        assert_eq!(contact.uri(), b"sip:a@10.0.0.1");
        assert_eq!(contact.text(Field::CallId), b"c1");
        assert_eq!(contact.text(Field::UserAgent), b"phone");
        assert_eq!(contact.text(Field::Received), b"");
        assert_eq!(contact.text(Field::Attr), b"x");
        assert!(size_of::<Contact>() <= 80, "{}", size_of::<Contact>());
    }
}
