//! LDAP URLs as searches (RFC 4516), and what has to be escaped in them (RFC 4515).

use ldap3::Scope;
use script::Traced;
use script::traced::Hand;

/// `ldap://session/dn?attributes?scope?filter`
#[derive(Debug)]
pub struct Search {
    pub session: String,
    pub base: String,
    /// Empty: all.
    pub attributes: Vec<String>,
    pub scope: Scope,
    pub filter: String,
}

impl Search {
    /// The error is what a user should read.
    pub fn parse(url: &str) -> Result<Search, String> {
        let bad = |why: &str| format!("`{url}` is no LDAP URL: {why}");
        let rest = url.trim().strip_prefix("ldap://").ok_or_else(|| bad("it does not start with ldap://"))?;
        let (session, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let mut parts = rest.split('?');
        let mut next = || {
            decode(parts.next().unwrap_or_default()).ok_or_else(|| bad("a % is not followed by two digits"))
        };
        let (base, attributes, scope, filter) = (next()?, next()?, next()?, next()?);
        let scope = match &*scope.to_ascii_lowercase() {
            "" | "base" => Scope::Base,
            "one" | "onelevel" => Scope::OneLevel,
            "sub" | "subtree" => Scope::Subtree,
            _ => return Err(bad("scopes are base, one and sub")),
        };
        let attributes = attributes.split(',').map(str::trim).filter(|a| !a.is_empty());
        let filter = match filter.trim() {
            "" => "(objectClass=*)".to_string(),
            filter if filter.starts_with('(') => filter.to_string(),
            filter => format!("({filter})"),
        };
        Ok(Search {
            session: session.to_string(),
            base,
            attributes: attributes.map(str::to_string).collect(),
            scope,
            filter,
        })
    }
}

/// Where in a URL one stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before the value of an attribute.
    Name,
    /// Behind the `=` of a part of a DN.
    DnValue,
    /// Behind the `=` of a condition.
    FilterValue,
}

/// The URL with the values that came in escaped where they are values of a DN or a filter; elsewhere, and where nobody
/// knows what the script began, they stay as they are. What `ldap_filter_url_encode` made is escaped already.
pub fn filled(url: &Traced) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.text.len() + 16);
    let (mut place, mut marks, mut slashes) = (Place::Name, 0, 0);
    for (hand, piece) in url.pieces() {
        match (hand, place) {
            (Hand::Script | Hand::Filtered, _) | (_, Place::Name) => out.extend_from_slice(piece),
            (_, Place::DnValue) => out.extend_from_slice(&escape_dn(piece)),
            (_, Place::FilterValue) => out.extend_from_slice(&escape(piece)),
        }
        if hand != Hand::Script {
            continue;
        }
        for byte in piece {
            (place, marks) = match (byte, marks, place) {
                (b'?', _, _) => (Place::Name, marks + 1),
                (b'=', 0, Place::Name) if slashes > 2 => (Place::DnValue, marks),
                (b'=', 3.., Place::Name) => (Place::FilterValue, marks),
                (b',' | b'+', 0, _) | (b'(' | b')', ..) => (Place::Name, marks),
                _ => (place, marks),
            };
            slashes += u32::from(*byte == b'/');
        }
    }
    out
}

/// A text that stands for itself as a value in the DN of an LDAP URL (RFC 4514 §2.4).
fn escape_dn(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' | b'#' | 0 => {
                out.extend_from_slice(format!("\\{byte:02x}").as_bytes());
            }
            b'?' => out.extend_from_slice(b"%3F"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(*byte),
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
        out.push((high * 16 + low) as u8);
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// A text that stands for itself in the filter of an LDAP URL.
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        match byte {
            b'*' => out.extend_from_slice(b"\\2a"),
            b'(' => out.extend_from_slice(b"\\28"),
            b')' => out.extend_from_slice(b"\\29"),
            b'\\' => out.extend_from_slice(b"\\5c"),
            b'?' => out.extend_from_slice(b"%3F"),
            // Both would end the text or change what follows.
            0 => out.extend_from_slice(b"\\00"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::Value;
    use script::traced::Builder;

    fn check(url: &str, expected: Option<(&str, &str, &[&str], Scope, &str)>) {
        let found = Search::parse(url);
        let Some((session, base, attributes, scope, filter)) = expected else {
            assert!(found.is_err(), "{url}");
            return;
        };
        let found = found.expect(url);
        assert_eq!((&*found.session, &*found.base, &*found.filter), (session, base, filter), "{url}");
        assert_eq!(
            (&found.attributes[..], found.scope),
            (&*attributes.iter().map(|a| a.to_string()).collect::<Vec<_>>(), scope)
        );
    }

    #[test]
    fn urls() {
        check(
            "ldap://sip/ou=sip,dc=example,dc=com??one?(cn=schlatter)",
            Some(("sip", "ou=sip,dc=example,dc=com", &[], Scope::OneLevel, "(cn=schlatter)")),
        );
        check(
            "ldap://s/dc=x?a, b?sub?cn=what%3F",
            Some(("s", "dc=x", &["a", "b"], Scope::Subtree, "(cn=what?)")),
        );
        check("ldap://s/cn=admin", Some(("s", "cn=admin", &[], Scope::Base, "(objectClass=*)")));
        check("ldap://s", Some(("s", "", &[], Scope::Base, "(objectClass=*)")));
        check("http://s", None);
        check("ldap://s/x??all", None);
        check("ldap://s/x???%4", None);
    }

    #[test]
    fn values_that_came_in_stay_values() {
        let check = |before: &str, value: Value, after: &str, base: &str, filter: &str| {
            let mut url = Builder::default();
            url.push(Hand::Script, before.as_bytes());
            url.push_value(&value);
            url.push(Hand::Script, after.as_bytes());
            let url = String::from_utf8(filled(&url.finish())).expect("a text");
            let found = Search::parse(&url).expect("a URL");
            assert_eq!((&*found.base, &*found.filter), (base, filter), "{url}");
        };
        let evil = || Value::from("*)(uid=*");
        let (start, any) = ("ldap://s/dc=x?cn?sub?(&(a=b)(cn=", "(&(a=b)(cn=\\2a\\29\\28uid=\\2a))");
        check(start, evil(), "))", "dc=x", any);
        check(start, Value::written_by(escape(b"*)(uid=*").into(), Hand::Filtered), "))", "dc=x", any);
        check(
            start,
            Value::written_by(escape(b"50%?").into(), Hand::Filtered),
            "))",
            "dc=x",
            "(&(a=b)(cn=50%?))",
        );
        check("ldap://s/dc=x???cn=", evil(), "", "dc=x", "(cn=\\2a\\29\\28uid=\\2a)");
        check("ldap://s/ou=", Value::from("a,dc=y"), ",dc=x", "ou=a\\2cdc\\3dy,dc=x", "(objectClass=*)");
        // A whole filter, or a whole URL, is what it is.
        check("ldap://s/dc=x???", Value::from("(cn=a*)"), "", "dc=x", "(cn=a*)");
        check("", Value::from("ldap://s/dc=x???(cn=a*)"), "", "dc=x", "(cn=a*)");
        // What the script wrote is meant.
        check(start, Value::literal("a*".into()), "))", "dc=x", "(&(a=b)(cn=a*))");
    }

    #[test]
    fn escaped_texts_stand_for_themselves() {
        assert_eq!(escape(b"a*(b)\\c?d"), b"a\\2a\\28b\\29\\5cc%3Fd");
        let url = format!("ldap://s/x???(cn={})", String::from_utf8_lossy(&escape(b"100%?")));
        assert_eq!(Search::parse(&url).expect("a URL").filter, "(cn=100%?)");
    }
}
