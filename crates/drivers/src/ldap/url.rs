//! LDAP URLs as searches (RFC 4516), and what has to be escaped in them (RFC 4515).

use ldap3::Scope;

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
    fn escaped_texts_stand_for_themselves() {
        assert_eq!(escape(b"a*(b)\\c?d"), b"a\\2a\\28b\\29\\5cc%3Fd");
        let url = format!("ldap://s/x???(cn={})", String::from_utf8_lossy(&escape(b"100%?")));
        assert_eq!(Search::parse(&url).expect("a URL").filter, "(cn=100%?)");
    }
}
