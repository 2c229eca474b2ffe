//! Raw queries: words of a command, and answers as rows.

use bytes::Bytes;
use host::cachedb::{CacheError, RawRows};
use redis::Value;

/// More words than this are refused.
const MAX_WORDS: usize = 1000;

/// The words of a query; single or double quotes hold one with blanks together.
pub fn words(query: &[u8]) -> Result<Vec<Bytes>, CacheError> {
    let bad = |what: &str| CacheError::Refused(format!("{what}: {}", String::from_utf8_lossy(query)));
    let mut words = Vec::new();
    let mut rest = query.trim_ascii();
    while let Some(first) = rest.first() {
        let (word, after) = match first {
            quote @ (b'"' | b'\'') => {
                let end = rest[1..].iter().position(|b| b == quote);
                let end = end.ok_or_else(|| bad("a quote is not closed"))? + 1;
                if rest.get(end + 1).is_some_and(|b| !b.is_ascii_whitespace()) {
                    return Err(bad("a blank must follow a closing quote"));
                }
                (&rest[1..end], &rest[end + 1..])
            }
            _ => rest.split_at(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len())),
        };
        words.push(Bytes::copy_from_slice(word));
        if words.len() > MAX_WORDS {
            return Err(bad("too many words"));
        }
        rest = after.trim_ascii_start();
    }
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
            let found = words(query.as_bytes()).ok();
            let expected = expected.map(|list| list.into_iter().map(Bytes::from).collect::<Vec<_>>());
            assert_eq!(found, expected, "{query}");
        }
    }
}
