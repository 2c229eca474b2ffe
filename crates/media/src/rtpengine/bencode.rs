//! Bencode as the NG protocol of rtpengine has it. Engines write the keys of dictionaries in any order, which libraries
//! for torrents refuse; and `$rtpquery` shows the order in which they came.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value as Json;

/// Lists and dictionaries inside one another.
const MAX_DEPTH: u32 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bencode {
    Int(i64),
    Text(Bytes),
    List(Vec<Bencode>),
    Dict(Dict),
}

/// Keys and values in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dict(pub Vec<(Bytes, Bencode)>);

impl Dict {
    /// Takes the place of a value with the same key.
    pub fn set(&mut self, key: impl Into<Bytes>, value: Bencode) {
        let key = key.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub fn set_text(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.set(key, Bencode::Text(value.into()));
    }

    pub fn get(&self, key: &str) -> Option<&Bencode> {
        self.0.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, value)| value)
    }

    /// The session description of an answer; what is none must not reach a caller.
    pub fn description(&self) -> Option<&Bytes> {
        self.text("sdp").filter(|sdp| sdp.starts_with(b"v="))
    }

    pub fn text(&self, key: &str) -> Option<&Bytes> {
        match self.get(key)? {
            Bencode::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Bencode::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub fn dict(&self, key: &str) -> Option<&Dict> {
        match self.get(key)? {
            Bencode::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    pub fn list(&self, key: &str) -> Option<&[Bencode]> {
        match self.get(key)? {
            Bencode::List(list) => Some(list),
            _ => None,
        }
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        put_dict(self, &mut out);
        out.freeze()
    }

    pub fn to_json(&self) -> Json {
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        Json::Object(self.0.iter().map(|(key, value)| (text(key), value.to_json())).collect())
    }
}

impl Bencode {
    pub fn to_json(&self) -> Json {
        match self {
            Bencode::Int(n) => (*n).into(),
            Bencode::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
            Bencode::List(list) => list.iter().map(Bencode::to_json).collect(),
            Bencode::Dict(dict) => dict.to_json(),
        }
    }
}

fn put_text(text: &[u8], out: &mut BytesMut) {
    out.put_slice(text.len().to_string().as_bytes());
    out.put_u8(b':');
    out.put_slice(text);
}

fn put_dict(dict: &Dict, out: &mut BytesMut) {
    out.put_u8(b'd');
    for (key, value) in &dict.0 {
        put_text(key, out);
        put(value, out);
    }
    out.put_u8(b'e');
}

fn put(value: &Bencode, out: &mut BytesMut) {
    match value {
        Bencode::Int(n) => out.put_slice(format!("i{n}e").as_bytes()),
        Bencode::Text(text) => put_text(text, out),
        Bencode::List(list) => {
            out.put_u8(b'l');
            list.iter().for_each(|value| put(value, out));
            out.put_u8(b'e');
        }
        Bencode::Dict(dict) => put_dict(dict, out),
    }
}

/// The dictionary that a text begins with. `None`: it does not, or the text is not whole.
pub fn decode(text: &Bytes) -> Option<Dict> {
    match (Reader { text, at: 0 }).value(0)? {
        Bencode::Dict(dict) => Some(dict),
        _ => None,
    }
}

struct Reader<'a> {
    text: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// What stands before `end`, which is passed over.
    fn until(&mut self, end: u8) -> Option<&str> {
        let length = memchr(end, self.text.get(self.at..)?)?;
        let found = &self.text[self.at..self.at + length];
        self.at += length + 1;
        std::str::from_utf8(found).ok()
    }

    fn value(&mut self, depth: u32) -> Option<Bencode> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                Some(Bencode::Int(self.until(b'e')?.parse().ok()?))
            }
            b'l' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b'e' {
                    list.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Some(Bencode::List(list))
            }
            b'd' => {
                self.at += 1;
                let mut dict = Dict::default();
                while self.peek()? != b'e' {
                    let key = self.bytes()?;
                    dict.0.push((key, self.value(depth + 1)?));
                }
                self.at += 1;
                Some(Bencode::Dict(dict))
            }
            _ => self.bytes().map(Bencode::Text),
        }
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length: usize = self.until(b':')?.parse().ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.text.len())?;
        let found = self.text.slice(self.at..end);
        self.at = end;
        Some(found)
    }
}

fn memchr(byte: u8, text: &[u8]) -> Option<usize> {
    text.iter().position(|b| *b == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Bencode> {
        let text = || proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from);
        let leaf = prop_oneof![any::<i64>().prop_map(Bencode::Int), text().prop_map(Bencode::Text)];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let pairs = proptest::collection::vec((text(), inner.clone()), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(Bencode::List),
                pairs.prop_map(|pairs| Bencode::Dict(Dict(pairs))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value(), tail in ".{0,5}") {
            let dict = Dict(vec![(Bytes::from_static(b"k"), value)]);
            let text = [&dict.encode()[..], tail.as_bytes()].concat();
            prop_assert_eq!(decode(&text.clone().into()), Some(dict.clone()));
            let short = dict.encode();
            prop_assert_eq!(decode(&short.slice(..short.len() - 1)), None);
        }

        #[test]
        fn nothing_that_comes_is_a_defect(text in proptest::collection::vec(prop_oneof![Just(b'd'), Just(b'l'), Just(b'i'),
            Just(b'e'), Just(b':'), Just(b'1'), Just(b'9'), any::<u8>()], 0..60)) {
            let _ = decode(&text.into());
        }
    }

    #[test]
    fn depth_and_lengths_have_bounds() {
        let deep = |n: usize| format!("d1:x{}{}e", "l".repeat(n), "e".repeat(n));
        assert!(decode(&deep(60).into()).is_some());
        assert!(decode(&deep(100).into()).is_none());
        for odd in
            ["", "d", "de:", "i1e", "d1:xi1e", "d9:xe", "d99999999999999999999:xe", "d-1:xe", "di1ei2ee"]
        {
            let found = decode(&Bytes::from_static(odd.as_bytes()));
            assert_eq!(found.is_some(), odd == "de:", "{odd}");
        }
    }

    #[test]
    fn answers_as_json() {
        let dict = decode(&Bytes::from_static(b"d6:result2:ok4:tagsd1:bi-1e1:al1:x1:yeee")).unwrap();
        assert_eq!(dict.to_json().to_string(), r#"{"result":"ok","tags":{"b":-1,"a":["x","y"]}}"#);
    }
}
