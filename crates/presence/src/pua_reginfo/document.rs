//! The document of the registrations of an address.

use crate::presence_reginfo::{NAMESPACE, frame};
use crate::xml::Element;
use bytes::Bytes;
use modules::usrloc::contact::{Contact, Field};

/// Why it is written.
#[derive(Clone, Debug)]
pub enum Told {
    /// The contact with this number.
    Registered(u64),
    Refreshed(u64),
    Expired(Box<Contact>),
    Unregistered(Box<Contact>),
}

/// Names of a user, as P-Associated-URI lists them, at most twenty.
pub fn identities(list: &[u8]) -> Vec<String> {
    let list = String::from_utf8_lossy(list);
    let bare = |name: &str| name.trim().trim_start_matches('<').trim_end_matches('>').to_string();
    list.split(',').map(bare).filter(|name| !name.is_empty()).take(MAX_IDENTITIES).collect()
}

/// Names that one document lists.
const MAX_IDENTITIES: usize = 20;

/// What is said of a contact: its state and what happened to it.
fn state_of(contact: &Contact, told: &Told, now: u32) -> (bool, &'static str) {
    match told {
        Told::Registered(id) if *id == contact.id => (true, "registered"),
        Told::Refreshed(id) if *id == contact.id => (true, "refreshed"),
        Told::Expired(gone) if gone.id == contact.id => (false, "expired"),
        Told::Unregistered(gone) if gone.id == contact.id => (false, "unregistered"),
        _ if contact.expired(now) => (false, "expired"),
        _ => (true, "registered"),
    }
}

fn text(contact: &Contact, field: Field) -> String {
    String::from_utf8_lossy(contact.text(field)).into_owned()
}

fn element_of(contact: &Contact, told: &Told, now: u32) -> Element {
    let (active, event) = state_of(contact, told, now);
    let left = if active { i64::from(contact.expires) - i64::from(now) } else { 0 };
    let mut element = Element::new("contact", NAMESPACE)
        .attribute("id", format!("0x{:x}", contact.id))
        .attribute("state", if active { "active" } else { "terminated" })
        .attribute("event", event)
        .attribute("expires", left.max(0).to_string());
    if contact.q >= 0 {
        element.set("q", format!("{}.{:03}", contact.q / 1000, contact.q % 1000));
    }
    element.set("callid", text(contact, Field::CallId));
    element.set("cseq", contact.cseq.to_string());
    for (name, field) in
        [("received", Field::Received), ("path", Field::Path), ("user_agent", Field::UserAgent)]
    {
        let value = text(contact, field);
        if !value.is_empty() {
            element.set(name, value);
        }
    }
    element.child(Element::new("uri", NAMESPACE).text(text(contact, Field::Uri)))
}

/// The document; `names` are the addresses that share the contacts.
pub fn write(names: &[String], aor: &[u8], contacts: &[Contact], told: &Told, now: u32) -> Bytes {
    let gone = match told {
        Told::Expired(gone) | Told::Unregistered(gone) => Some(&**gone),
        _ => None,
    };
    let gone = gone.filter(|gone| contacts.iter().all(|c| c.id != gone.id));
    let all: Vec<&Contact> = contacts.iter().chain(gone).collect();
    let active = all.iter().any(|c| state_of(c, told, now).0);
    let mut root = frame();
    // The same for an address each time, as RFC 3680 §5.2 wants it.
    let id =
        aor.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    for (n, name) in names.iter().enumerate() {
        let mut registration = Element::new("registration", NAMESPACE)
            .attribute("aor", name.clone())
            .attribute("id", format!("0x{id:x}.{n}"));
        for contact in &all {
            registration = registration.child(element_of(contact, told, now));
        }
        root = root.child(registration.attribute("state", if active { "active" } else { "terminated" }));
    }
    root.document()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;
    use modules::usrloc::contact::Binding;

    fn contact(id: u64, expires: u32) -> Contact {
        let uri = Bytes::from(format!("sip:c{id}@192.0.2.1"));
        let binding = Binding { uri, call_id: "k".into(), expires, q: 500, cseq: 3, ..Binding::default() };
        Contact::new(id, &binding, 100)
    }

    #[test]
    fn contacts_have_states() {
        let told = Told::Unregistered(Box::new(contact(2, 200)));
        let names = ["sip:a@x".to_string(), "tel:+1".to_string()];
        let root = xml::parse(&write(&names, b"a", &[contact(1, 160)], &told, 100)).unwrap();
        let registrations: Vec<_> = root.elements().collect();
        assert_eq!(registrations.iter().map(|r| r.get("aor").unwrap()).collect::<Vec<_>>(), names);
        assert_eq!(registrations[0].get("state"), Some("active"));
        let said: Vec<_> = registrations[0]
            .elements()
            .map(|c| (c.get("event").unwrap(), c.get("expires").unwrap(), c.content()))
            .collect();
        assert_eq!(
            said,
            [
                ("registered", "60", "sip:c1@192.0.2.1".to_string()),
                ("unregistered", "0", "sip:c2@192.0.2.1".into())
            ]
        );
        assert_eq!(registrations[0].first("contact").unwrap().get("q"), Some("0.500"));
    }

    #[test]
    fn names_are_listed() {
        assert_eq!(identities(b"<sip:a@x>, tel:+1 ,"), ["sip:a@x", "tel:+1"]);
    }
}
