//! Lists of resources: `pstn=32;vm=4` in the table, `pstn;vm` in scripts.

use bytes::Bytes;

/// Names of a script's list. The error says what is wrong.
pub fn names(text: &[u8]) -> Result<Vec<Bytes>, String> {
    let name = |part: Part<'_>| match part.value {
        Some(_) => Err(format!("resource {} takes no value here", shown(part.name))),
        None => Ok(Bytes::copy_from_slice(part.name)),
    };
    parts(text)?.into_iter().map(name).collect()
}

/// Names and capacities of a row. FreeSWITCH URLs, whose load would be the capacity, are refused.
pub fn capacities(text: &[u8]) -> Result<Vec<(Bytes, u32)>, String> {
    let one = |part: Part<'_>| {
        let value = part.value.ok_or_else(|| format!("resource {} has no value", shown(part.name)))?;
        let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        let number = number.ok_or_else(|| {
            format!("the value `{}` of resource {} is no number", shown(value), shown(part.name))
        })?;
        Ok((Bytes::copy_from_slice(part.name), number))
    };
    parts(text)?.into_iter().map(one).collect()
}

struct Part<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The parts between semicolons; a last one may be empty.
fn parts(text: &[u8]) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut pieces = text.split(|b| *b == b';').peekable();
    while let Some(piece) = pieces.next() {
        let piece = piece.trim_ascii();
        if piece.is_empty() && pieces.peek().is_none() {
            break;
        }
        let (name, value) = match piece.iter().position(|b| *b == b'=') {
            Some(at) => (piece[..at].trim_ascii_end(), Some(piece[at + 1..].trim_ascii())),
            None => (piece, None),
        };
        if name.is_empty() {
            return Err(format!("`{}` holds a resource without a name", shown(text)));
        }
        parts.push(Part { name, value });
    }
    if parts.is_empty() { Err("the list of resources is empty".into()) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_scripts() {
        assert_eq!(names(b" pstn ; vm;").expect("two"), ["pstn", "vm"]);
        for wrong in ["", " ", ";pstn", "pstn=1", "pstn;;vm"] {
            assert!(names(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_rows() {
        let list = capacities(b"pstn=10; transc = 2").expect("two");
        assert_eq!(list, [("pstn".into(), 10), ("transc".into(), 2)]);
        for wrong in ["pstn", "pstn=", "pstn=many", "pstn=-1", "=3"] {
            assert!(capacities(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
