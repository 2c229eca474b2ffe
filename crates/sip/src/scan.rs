//! Byte helpers shared by the parsers: blanks, case, quotes, lists.

use bytes::Bytes;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Offset of the first of `bytes` in a text. Lines and values are short: there, eight bytes at a time in place beat a
/// call of memchr.
#[inline]
pub(crate) fn find<const N: usize>(text: &[u8], bytes: [u8; N]) -> Option<usize> {
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk() {
        if let Some(n) = find_in_word(*word, bytes) {
            return Some(text.len() - rest.len() + n);
        }
        rest = after;
    }
    match text.last_chunk() {
        // Once more what was looked at, up to the end.
        Some(word) if !rest.is_empty() => find_in_word(*word, bytes).map(|n| text.len() - 8 + n),
        Some(_) => None,
        None => rest.iter().position(|b| bytes.contains(b)),
    }
}

#[inline]
fn find_in_word<const N: usize>(word: [u8; 8], bytes: [u8; N]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    let mut same = 0;
    for byte in bytes {
        // The lowest of these bits is where a byte is the same: a carry only disturbs those above.
        let zero = word ^ (ONES * u64::from(byte));
        same |= zero.wrapping_sub(ONES) & !zero & HIGH;
    }
    (same != 0).then(|| same.trailing_zeros() as usize / 8)
}

/// Blank inside a header value: space, tab and the line ends of folds.
pub(crate) const fn is_lws(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// RFC 3261 §25.1 `token` characters.
pub(crate) const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

pub(crate) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token(b))
}

/// Bounds of `text` without the blanks around it.
#[inline]
pub(crate) fn trimmed(text: &[u8]) -> (usize, usize) {
    let start = text.iter().position(|&b| !is_lws(b)).unwrap_or(text.len());
    let end = text.iter().rposition(|&b| !is_lws(b)).map_or(start, |i| i + 1);
    (start, end)
}

#[inline]
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let (start, end) = trimmed(text);
    &text[start..end]
}

pub(crate) fn trim_bytes(text: &Bytes) -> Bytes {
    let (start, end) = trimmed(text);
    text.slice(start..end)
}

/// Offset of the first byte at or after `from` that is not blank.
pub(crate) fn skip_lws(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take_while(|&&b| is_lws(b)).count()
}

/// Offset of `part`, a slice of `whole`, in it.
pub(crate) fn offset_of(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

pub(crate) fn starts_with_nocase(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix)
}

/// Decimal digits only, no sign; `None` when empty or above `u32::MAX`.
pub(crate) fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |n, &d| {
        let digit = d.is_ascii_digit().then(|| u32::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// A port: up to 65535; the empty text is 0 (no port).
pub(crate) fn port(text: &[u8]) -> Option<u16> {
    if text.is_empty() { Some(0) } else { u16::try_from(decimal(text)?).ok() }
}

/// Offset just after the quoted string that starts at `at` (which holds `"`); `None` when it never ends.
pub(crate) fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    while i < text.len() {
        match text[i] {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    None
}

/// Finds separators outside quotes, brackets and comments. Remembers what never closes, so that a
/// hostile text costs one pass and not one pass per opening.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    nesting: Nesting,
    quotes_close: bool,
    nests_close: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8], nesting: Nesting) -> Scanner<'a> {
        Scanner { text, nesting, quotes_close: true, nests_close: true }
    }

    /// Offset of the first `stop` at or after `from`. A quote or bracket that never ends hides
    /// nothing but itself.
    pub(crate) fn find(&mut self, from: usize, stop: u8) -> Option<usize> {
        let mut i = from;
        while let Some(at) = self.candidate(i, stop) {
            let b = self.text[at];
            if b == stop {
                return Some(at);
            }
            let end = match b {
                b'"' => quoted_end(self.text, at),
                b'<' => angle_end(self.text, at),
                _ => comment_end(self.text, at),
            };
            match b {
                b'"' => self.quotes_close = end.is_some(),
                _ => self.nests_close = end.is_some(),
            }
            i = end.unwrap_or(at + 1);
        }
        None
    }

    /// The next byte at or after `from` that is `stop` or may hide one.
    fn candidate(&self, from: usize, stop: u8) -> Option<usize> {
        let rest = self.text.get(from..)?;
        let open = match self.nesting {
            Nesting::Angles if self.nests_close => Some(b'<'),
            Nesting::Comments if self.nests_close => Some(b'('),
            _ => None,
        };
        let found = match (open, self.quotes_close) {
            (Some(open), true) => find(rest, [stop, b'"', open]),
            (Some(open), false) => find(rest, [stop, open]),
            (None, true) => find(rest, [stop, b'"']),
            (None, false) => find(rest, [stop]),
        };
        found.map(|at| from + at)
    }
}

fn angle_end(text: &[u8], at: usize) -> Option<usize> {
    find(&text[at..], [b'>']).map(|n| at + n + 1)
}

/// What besides quotes hides separators.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Nesting {
    Quotes,
    Angles,
    Comments,
}

/// Offset just after the comment that starts at `at`; comments nest (RFC 3261 §25.1).
pub(crate) fn comment_end(text: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut i) = (0usize, at);
    while i < text.len() {
        match text[i] {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(i + 1),
            b')' => depth -= 1,
            b'\\' => i += 1,
            _ => {}
        }
        i += 1;
    }
    None
}

/// Bounds of the non-blank members of a comma-separated list, blanks around them removed.
pub(crate) fn list(text: &[u8], nesting: Nesting) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut scanner = Scanner::new(text, nesting);
    let mut from = Some(0);
    std::iter::from_fn(move || {
        loop {
            let start = from?;
            let end = scanner.find(start, b',');
            from = end.map(|e| e + 1);
            let (a, b) = trimmed(&text[start..end.unwrap_or(text.len())]);
            if a < b {
                return Some((start + a, start + b));
            }
        }
    })
}

/// Without surrounding quotes, if there are any; escapes inside stay.
pub(crate) fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_where_it_stands_first() {
        let text: Vec<u8> = (0..40).map(|n| b'a' + n % 20).collect();
        for from in 0..text.len() {
            for to in from..=text.len() {
                for byte in [b'a', b'h', b't', b'z', 0, 0xff] {
                    let part = &text[from..to];
                    assert_eq!(find(part, [byte]), part.iter().position(|b| *b == byte));
                    let either = part.iter().position(|b| *b == byte || *b == b'c');
                    assert_eq!(find(part, [b'c', byte]), either);
                }
            }
        }
        // Bytes that differ by one from what is looked for, and by the highest bit.
        for near in [[b'b'; 16], [b'`'; 16], [b'a' | 0x80; 16], [0; 16], [0xff; 16]] {
            assert_eq!(find(&near, [b'a']), None);
            assert_eq!(find(&near, [b'a', b'q']), None);
        }
    }
}
