//! Texts of the tables: identifiers, lists of destinations (`gw1=5,#carrier`), lists of groups (`1,2|3`).

use super::tree::Destination;
use bytes::Bytes;

/// Bytes that identifiers of gateways and carriers may have: letters, digits and `extra_id_chars`.
#[derive(Clone, Debug)]
pub struct IdBytes([bool; 256]);

impl IdBytes {
    pub fn new(extra: &str) -> IdBytes {
        let mut valid = [false; 256];
        for (byte, valid) in (0..=u8::MAX).zip(&mut valid) {
            *valid = byte.is_ascii_alphanumeric() || extra.as_bytes().contains(&byte);
        }
        IdBytes(valid)
    }

    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// Who is known by an identifier.
pub trait Known {
    fn number_of_gateway(&self, id: &[u8]) -> Option<u32>;
    fn number_of_carrier(&self, id: &[u8]) -> Option<u32>;
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b'|')
}

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        while self.0.first().is_some_and(|byte| is_blank(*byte)) {
            self.0 = &self.0[1..];
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !wanted(*byte)).unwrap_or(self.0.len());
        let (found, rest) = self.0.split_at(end);
        self.0 = rest;
        found
    }

    /// A decimal number with an optional sign, blanks before it.
    fn number(&mut self) -> Option<i64> {
        self.skip_blanks();
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let digits = std::str::from_utf8(self.take_while(|byte| byte.is_ascii_digit())).ok()?;
        let number: i64 = digits.parse().ok()?;
        Some(if negative { -number } else { number })
    }
}

/// A list of gateways and carriers. Unknown ones are left out and told to `unknown`. The error says what is malformed.
pub fn destinations(
    text: &[u8],
    ids: &IdBytes,
    known: &impl Known,
    mut unknown: impl FnMut(&str),
) -> Result<Vec<Destination>, String> {
    let mut rest = Rest(text);
    let mut list = Vec::new();
    while !rest.0.is_empty() {
        rest.skip_blanks();
        let is_carrier = rest.take(b'#');
        let id = rest.take_while(|byte| ids.has(byte));
        if id.is_empty() {
            return Err(match rest.0.first() {
                Some(byte) => format!("an identifier cannot have `{}`", char::from(*byte)),
                None => "an identifier is missing at its end".into(),
            });
        }
        let which = if is_carrier { known.number_of_carrier(id) } else { known.number_of_gateway(id) };
        if which.is_none() {
            unknown(&String::from_utf8_lossy(id));
        }
        rest.skip_blanks();
        let mut weight = 0;
        if rest.take(b'=') {
            let number = rest.number();
            weight = number
                .ok_or_else(|| format!("the weight of {} is no number", String::from_utf8_lossy(id)))?;
            rest.skip_blanks();
        }
        if let Some(which) = which {
            list.push(Destination {
                which,
                is_carrier,
                weight: u32::try_from(weight.max(0)).unwrap_or(u32::MAX),
            });
        }
        match rest.0.first() {
            Some(byte) if is_separator(*byte) => rest.0 = &rest.0[1..],
            Some(byte) => return Err(format!("`{}` stands between destinations", char::from(*byte))),
            None => {}
        }
    }
    Ok(list)
}

/// Numbers of groups. A negative one is the same 32 bits without a sign, as the reference compares them.
pub fn groups(text: &[u8]) -> Result<Vec<u32>, String> {
    let mut rest = Rest(text);
    let mut list = Vec::new();
    while !rest.0.is_empty() {
        let number = rest.number().ok_or("a group is no number")?;
        list.push(number as u32);
        match rest.0.first() {
            Some(byte) if !is_blank(*byte) && !is_separator(*byte) => {
                return Err(format!("`{}` stands between groups", char::from(*byte)));
            }
            _ => rest.skip_blanks(),
        }
        if rest.0.first().is_some_and(|byte| is_separator(*byte)) {
            rest.0 = &rest.0[1..];
        }
    }
    if list.is_empty() { Err("it has no group".into()) } else { Ok(list) }
}

/// What stands between commas, without blanks around; empty ones too.
pub fn items(text: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    text.split(|byte| *byte == b',').map(|item| text.slice_ref(item.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some3;
    impl Known for Some3 {
        fn number_of_gateway(&self, id: &[u8]) -> Option<u32> {
            [&b"gw1"[..], b"gw2", b"g.w-3"].iter().position(|known| *known == id).map(|at| at as u32)
        }
        fn number_of_carrier(&self, id: &[u8]) -> Option<u32> {
            (id == b"c1").then_some(7)
        }
    }

    fn read(text: &str) -> Result<(String, Vec<String>), String> {
        let mut unknown = Vec::new();
        let list =
            destinations(text.as_bytes(), &IdBytes::new("_-."), &Some3, |id| unknown.push(id.to_owned()))?;
        let shown =
            list.iter().map(|d| format!("{}{}={}", if d.is_carrier { "#" } else { "" }, d.which, d.weight));
        Ok((shown.collect::<Vec<_>>().join(" "), unknown))
    }

    #[test]
    fn lists_of_destinations() {
        for (text, shown, unknown) in [
            ("gw1", "0=0", ""),
            ("gw1,gw2|#c1", "0=0 1=0 #7=0", ""),
            (" gw1 = 10 , gw2=20", "0=10 1=20", ""),
            ("gw9,gw1,#c2", "0=0", "gw9 c2"),
            ("gw1=-5", "0=0", ""),
            ("g.w-3,", "2=0", ""),
            ("", "", ""),
        ] {
            let expected = unknown.split_whitespace().map(str::to_owned).collect();
            assert_eq!(read(text), Ok((shown.to_owned(), expected)), "{text}");
        }
        for bad in ["gw1 gw2", "gw1=x", "gw1;gw2", "!", " ", "gw1, ", "#", "gw1,,gw2"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_groups() {
        for (text, list) in [
            ("1", &[1][..]),
            ("1|2", &[1, 2]),
            (" 1 , 2 ", &[1, 2]),
            ("1 2", &[1, 2]),
            ("2 ,1|", &[2, 1]),
            ("-1", &[u32::MAX]),
        ] {
            assert_eq!(groups(text.as_bytes()), Ok(list.to_vec()), "{text}");
        }
        for bad in ["x", "", "2,3; 4", "1,,2", "1x", " "] {
            assert!(groups(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
