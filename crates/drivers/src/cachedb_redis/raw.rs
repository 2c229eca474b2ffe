//! Raw queries: words of a command, and answers as rows.

use bytes::Bytes;
use host::cachedb::{CacheError, RawRows};
use redis::Value;
use script::Traced;
use script::traced::Hand;

/// More words than this are refused.
const MAX_WORDS: usize = 1000;

/// The words of a query; single or double quotes hold one with blanks together. A quote in what came in is no quote,
/// unless all of the query did.
pub fn words(query: &Traced) -> Result<Vec<Bytes>, CacheError> {
    let bad = |what: &str| CacheError::Refused(format!("{what}: {}", String::from_utf8_lossy(&query.text)));
    let all_came_in = query.pieces().all(|(hand, _)| hand == Hand::Foreign);
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let (mut quote, mut closed) = (None, false);
    for (hand, piece) in query.pieces() {
        let quotes = hand == Hand::Script || all_came_in;
        for &byte in piece {
            match (quote, byte) {
                (Some(open), byte) if quotes && byte == open => (quote, closed) = (None, true),
                (Some(_), byte) => word.get_or_insert_default().push(byte),
                (None, byte) if byte.is_ascii_whitespace() => {
                    closed = false;
                    words.extend(word.take().map(Bytes::from));
                    if words.len() > MAX_WORDS {
                        return Err(bad("too many words"));
                    }
                }
                (None, _) if closed => return Err(bad("a blank must follow a closing quote")),
                (None, b'"' | b'\'') if quotes && word.is_none() => {
                    quote = Some(byte);
                    word = Some(Vec::new());
                }
                (None, byte) => word.get_or_insert_default().push(byte),
            }
        }
    }
    if quote.is_some() {
        return Err(bad("a quote is not closed"));
    }
    words.extend(word.map(Bytes::from));
    if words.len() < 2 { Err(bad("a command and its key are wanted")) } else { Ok(words) }
}

/// One row a value; what is inside arrays of arrays is left out, as in the reference. `None`: there is
/// nothing.
pub fn rows(answer: Value) -> Result<Option<RawRows>, CacheError> {
    Ok(Some(match answer {
        Value::Nil => return Ok(None),
        Value::Okay | Value::SimpleString(_) => Vec::new(),
        Value::Array(list) | Value::Set(list) => {
            list.into_iter().filter_map(scalar).map(|v| vec![v]).collect()
        }
        Value::Map(pairs) => {
            pairs.into_iter().flat_map(|(k, v)| [k, v]).filter_map(scalar).map(|v| vec![v]).collect()
        }
        Value::ServerError(error) => return Err(CacheError::Refused(format!("{error:?}"))),
        one => scalar(one).map(|v| vec![v]).into_iter().collect(),
    }))
}

fn scalar(value: Value) -> Option<host::Value> {
    Some(match value {
        Value::Nil => host::Value::Null,
        Value::Int(n) => host::Value::Int(n),
        Value::BulkString(text) => host::Value::Str(Bytes::from(text)),
        Value::SimpleString(text) => host::Value::from(text),
        Value::VerbatimString { text, .. } => host::Value::from(text),
        Value::Okay => host::Value::from("OK"),
        Value::Double(x) => host::Value::from(x.to_string()),
        Value::Boolean(b) => host::Value::Int(i64::from(b)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::traced::Builder;

    #[test]
    fn words_of_queries() {
        for (query, expected) in [
            ("GET k", Some(vec!["GET", "k"])),
            ("  HSET  h f \"two words\" ", Some(vec!["HSET", "h", "f", "two words"])),
            ("SET k ''", Some(vec!["SET", "k", ""])),
            ("SET k 'it\"s'", Some(vec!["SET", "k", "it\"s"])),
            ("SET k it's", Some(vec!["SET", "k", "it's"])),
            ("PING", None),
            ("GET 'k", None),
            ("GET 'k'x", None),
        ] {
            let found = words(&Traced::script(query.into())).ok();
            let expected = expected.map(|list| list.into_iter().map(Bytes::from).collect::<Vec<_>>());
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn what_came_in_stays_in_its_quotes() {
        let check = |value: &'static str, expected: &[&str]| {
            let mut all = Builder::default();
            all.push(Hand::Script, b"SET k '");
            all.push_value(&host::Value::from(value));
            all.push(Hand::Script, b"' EX 10");
            assert_eq!(words(&all.finish()).expect(value), expected);
        };
        check("alice", &["SET", "k", "alice", "EX", "10"]);
        check("a' EX 1", &["SET", "k", "a' EX 1", "EX", "10"]);
        // One that came in as a whole is read as it is.
        let query = Traced::foreign("SET k 'a b'".into());
        assert_eq!(words(&query).expect("words"), ["SET", "k", "a b"]);
    }
}
