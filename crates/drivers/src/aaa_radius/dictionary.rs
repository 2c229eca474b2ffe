//! RADIUS dictionaries: the names of attributes and of their values, as the files of radiusclient and
//! freeradius have them.

use ahash::AHashMap;
use host::load::LoadError;
use std::path::Path;
use std::sync::Arc;

/// How deep `$INCLUDE` may nest.
const MAX_DEPTH: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttributeKind {
    Text,
    /// Text, hidden with the secret (User-Password).
    Hidden,
    Number,
    /// 8 bytes
    Long,
    Address,
    Address6,
    Bytes,
}

/// In place of a vendor: the attribute is a part of Digest-Attributes (207), the form of digests from before RFC 4590
/// that FreeRADIUS and the dictionaries of OpenSIPS use.
pub const IN_DIGEST: u32 = u32::MAX;
/// Their numbers in dictionaries (Digest-Realm to Digest-User-Name); in packets they count from 1.
const DIGEST_PARTS: std::ops::RangeInclusive<i64> = 1063..=1072;

/// Vendor (0: none) and number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Code {
    pub vendor: u32,
    pub number: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    pub name: Arc<str>,
    pub code: Code,
    pub kind: AttributeKind,
}

#[derive(Default)]
pub struct Dictionary {
    attributes: Vec<Attribute>,
    by_name: AHashMap<String, usize>,
    by_code: AHashMap<Code, usize>,
    vendors: AHashMap<String, u32>,
    /// (attribute, value name), in lower case
    values: AHashMap<(String, String), i64>,
}

impl Dictionary {
    /// The error is what a user should read.
    pub fn load(path: &Path) -> Result<Dictionary, LoadError> {
        let mut dictionary = Dictionary::default();
        dictionary.read(path, 0)?;
        Ok(dictionary)
    }

    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.by_name.get(&name.to_ascii_lowercase()).map(|at| &self.attributes[*at])
    }

    pub fn by_code(&self, code: Code) -> Option<&Attribute> {
        self.by_code.get(&code).map(|at| &self.attributes[*at])
    }

    pub fn value(&self, attribute: &str, value: &str) -> Option<i64> {
        self.values.get(&(attribute.to_ascii_lowercase(), value.to_ascii_lowercase())).copied()
    }

    fn read(&mut self, path: &Path, depth: u32) -> Result<(), LoadError> {
        let shown = path.display();
        if depth > MAX_DEPTH {
            return Err(format!("{shown}: $INCLUDE goes in circles").into());
        }
        let text = std::fs::read(path).map_err(|e| LoadError::of_file(&shown, &e))?;
        let text = String::from_utf8_lossy(&text);
        let mut block = None;
        for (i, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let bad = |why: &str| format!("{shown}, line {}: {why}", i + 1);
            match words[..] {
                [] => {}
                [word, file, ..]
                    if word.eq_ignore_ascii_case("$INCLUDE") || word.eq_ignore_ascii_case("$INCLUDE-") =>
                {
                    let file = Path::new(file);
                    let beside = path.parent().unwrap_or(Path::new("")).join(file);
                    match (beside.exists(), word.ends_with('-')) {
                        (false, true) => {}
                        _ => self.read(&beside, depth + 1)?,
                    }
                }
                ["ATTRIBUTE", name, number, kind, ref rest @ ..] => {
                    self.add(name, number, kind, rest, block).map_err(|why| bad(&why))?;
                }
                ["VALUE", attribute, name, number, ..] => {
                    let number = integer(number).ok_or_else(|| bad("this value is no number"))?;
                    let key = (attribute.to_ascii_lowercase(), name.to_ascii_lowercase());
                    self.values.insert(key, number);
                }
                ["VENDOR", name, number, ..] => {
                    let number = integer(number).ok_or_else(|| bad("this vendor has no number"))?;
                    self.vendors.insert(name.to_ascii_lowercase(), number as u32);
                }
                ["BEGIN-VENDOR", name, ..] => {
                    let vendor = self.vendors.get(&name.to_ascii_lowercase());
                    block = Some(*vendor.ok_or_else(|| bad("this vendor is unknown"))?);
                }
                ["END-VENDOR", ..] => block = None,
                // Attributes inside attributes, and what only servers need.
                _ => {}
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        number: &str,
        kind: &str,
        rest: &[&str],
        block: Option<u32>,
    ) -> Result<(), String> {
        // Parts of an attribute ("26.1") and numbers that no packet carries (server-side ones).
        let Some(number) = integer(number) else { return Ok(()) };
        let (part_of, number) = match DIGEST_PARTS.contains(&number) {
            true => (Some(IN_DIGEST), number - DIGEST_PARTS.start() + 1),
            false => (None, number),
        };
        let Ok(number) = u8::try_from(number) else { return Ok(()) };
        let named = rest.iter().find_map(|word| self.vendors.get(&word.to_ascii_lowercase()).copied());
        let hidden = rest.iter().any(|word| word.contains("encrypt=1"));
        let kind = match kind.split(['[', ',']).next().unwrap_or_default() {
            "string" if hidden || name.eq_ignore_ascii_case("User-Password") => AttributeKind::Hidden,
            "string" | "text" => AttributeKind::Text,
            "integer" | "date" | "signed" | "uint32" | "short" | "byte" | "time" => AttributeKind::Number,
            "integer64" | "uint64" => AttributeKind::Long,
            "ipaddr" | "ipv4addr" => AttributeKind::Address,
            "ipv6addr" => AttributeKind::Address6,
            _ => AttributeKind::Bytes,
        };
        let code = Code { vendor: named.or(part_of).or(block).unwrap_or(0), number };
        let at = self.attributes.len();
        self.attributes.push(Attribute { name: name.into(), code, kind });
        self.by_name.insert(name.to_ascii_lowercase(), at);
        self.by_code.insert(code, at);
        Ok(())
    }
}

fn integer(text: &str) -> Option<i64> {
    host::arg::parse_int(text.to_ascii_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn files_of_both_kinds() {
        let folder = Folder::new("radius-dictionary");
        let path = folder.0.join("dictionary");
        std::fs::write(&path, "# main\n$INCLUDE more\n$INCLUDE- absent\nATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\n\
            ATTRIBUTE Service-Type 6 integer\nVALUE Service-Type SIP 15 # number\nATTRIBUTE Framed-Address 8 ipaddr\n\
            ATTRIBUTE Old-Style 3 string Acme\nATTRIBUTE Internal 2063 string\nATTRIBUTE Digest-Nonce 1064 string\n").expect("written");
        std::fs::write(
            folder.0.join("more"),
            "VENDOR Acme 0x10\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Level 7 integer64\nEND-VENDOR Acme\n",
        )
        .expect("written");
        let dictionary = Dictionary::load(&path).expect("a dictionary");
        let check = |name: &str, vendor, number, kind| {
            let found = dictionary.attribute(name).expect(name);
            assert_eq!((found.code, found.kind), (Code { vendor, number }, kind), "{name}");
            assert_eq!(dictionary.by_code(found.code), Some(found));
        };
        check("user-name", 0, 1, AttributeKind::Text);
        check("User-Password", 0, 2, AttributeKind::Hidden);
        check("Service-Type", 0, 6, AttributeKind::Number);
        check("Framed-Address", 0, 8, AttributeKind::Address);
        check("Old-Style", 16, 3, AttributeKind::Text);
        check("Acme-Level", 16, 7, AttributeKind::Long);
        check("Digest-Nonce", IN_DIGEST, 2, AttributeKind::Text);
        assert!(dictionary.attribute("Internal").is_none());
        assert_eq!(dictionary.value("Service-Type", "sip"), Some(15));
        std::fs::write(&path, "$INCLUDE dictionary\n").expect("written");
        assert!(Dictionary::load(&path).is_err_and(|e| e.to_string().contains("circles")));
    }
}
