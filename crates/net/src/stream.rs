//! SIP messages in a byte stream (RFC 3261 §18.3): cut by Content-Length, keep-alives recognised.

use bytes::{Buf, Bytes, BytesMut};
use sip::Message;

/// Longest message that is collected.
pub const MESSAGE_LIMIT: usize = sip::MAX_MESSAGE;

/// What a stream held next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Message(Bytes),
    /// A double CRLF between messages: wants a CRLF back (RFC 5626 §3.5.1).
    Ping,
}

/// Why a stream cannot be cut any further; the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a message is longer than {MESSAGE_LIMIT} bytes")]
    TooLong,
    #[error("a message has no Content-Length, or one that is no number")]
    NoLength,
}

/// What stands before a message.
enum Blank {
    Ping,
    /// Nothing, or the beginning of a ping: more bytes tell.
    Unclear,
    /// A message begins.
    Over,
}

/// Collects the bytes of one stream and cuts messages off.
#[derive(Default)]
pub struct Framer {
    buf: BytesMut,
    /// Up to here no end of headers was found; invariant: at most `buf.len()`.
    searched: usize,
    /// Length of the message at the front once its headers are complete.
    whole: Option<usize>,
}

impl Framer {
    /// Where to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// A message has begun and is not complete.
    pub fn is_partial(&self) -> bool {
        !self.buf.is_empty()
    }

    /// Gives memory back when nothing is kept: most connections are idle most of the time.
    pub fn rest(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }

    /// The next complete frame; `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.searched == 0 && self.whole.is_none() {
            match self.skip_blank_lines() {
                Blank::Ping => return Ok(Some(Frame::Ping)),
                Blank::Unclear => return Ok(None),
                Blank::Over => {}
            }
        }
        let whole = match self.whole {
            Some(whole) => whole,
            None => match self.find_end()? {
                Some(whole) => *self.whole.insert(whole),
                None => return Ok(None),
            },
        };
        if self.buf.len() < whole {
            return Ok(None);
        }
        (self.whole, self.searched) = (None, 0);
        Ok(Some(Frame::Message(self.buf.split_to(whole).freeze())))
    }

    /// Drops CRLFs before a message.
    fn skip_blank_lines(&mut self) -> Blank {
        loop {
            match self.buf[..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.buf.advance(4);
                    return Blank::Ping;
                }
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Blank::Unclear,
                [b'\r', b'\n', ..] => self.buf.advance(2),
                [b'\n', ..] => self.buf.advance(1),
                _ => return Blank::Over,
            }
        }
    }

    /// Length of the message at the front, when its headers are complete.
    fn find_end(&mut self) -> Result<Option<usize>, FrameError> {
        let Some(head) = Message::head_length(&self.buf, self.searched) else {
            self.searched = self.buf.len();
            return if self.buf.len() > MESSAGE_LIMIT { Err(FrameError::TooLong) } else { Ok(None) };
        };
        let body = Message::length_of(&self.buf[..head]).ok_or(FrameError::NoLength)?;
        let whole = head.saturating_add(body as usize);
        if whole > MESSAGE_LIMIT { Err(FrameError::TooLong) } else { Ok(Some(whole)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `size` bytes; `|` in what came out separates frames.
    fn cut(text: &str, size: usize) -> String {
        let (mut framer, mut out) = (Framer::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            framer.buffer().extend_from_slice(piece);
            loop {
                match framer.next_frame() {
                    Ok(Some(Frame::Message(m))) => out.push(String::from_utf8_lossy(&m).replace("\r\n", "/")),
                    Ok(Some(Frame::Ping)) => out.push("ping".into()),
                    Ok(None) => break,
                    Err(e) => {
                        out.push(e.to_string());
                        return out.join("|");
                    }
                }
            }
        }
        if framer.is_partial() {
            out.push("...".into());
        }
        out.join("|")
    }

    /// The same whatever the pieces.
    fn check(text: &str, expected: &str) {
        let text = text.replace('/', "\r\n");
        for size in [1, 2, 3, 5, 7, 1000] {
            assert_eq!(cut(&text, size), expected, "{text:?} in pieces of {size}");
        }
    }

    #[test]
    fn frames() {
        check("A x/L: 0//", "A x/L: 0//");
        check("A x/Content-Length: 3//abcB y/l:0//", "A x/Content-Length: 3//abc|B y/l:0//");
        check("//A x/L: 0////B y/L:0//", "ping|A x/L: 0//|ping|B y/L:0//");
        check("/A x/L: 0//", "A x/L: 0//");
        check("A x/L: 5//abc", "...");
        check("A x/L: 2//ab/", "A x/L: 2//ab|...");
        check("A x/CONTENT-length : 1//a", "A x/CONTENT-length : 1//a");
        check("A x/Content-Length:/ 3//abcB y/l:0//", "A x/Content-Length:/ 3//abc|B y/l:0//");
        check("A x/Subject: s/ L: 9/L: 0//B y/L: 0//", "A x/Subject: s/ L: 9/L: 0//|B y/L: 0//");
        check("A x\nL: 2\n\nabB y/l:0/\nC z\nL: 0\n/", "A x\nL: 2\n\nab|B y/l:0/\n|C z\nL: 0\n/");
        check("A x/Via: y//", "a message has no Content-Length, or one that is no number");
        check("A x/L: -1//", "a message has no Content-Length, or one that is no number");
        check("A x/L: 70000//", "a message is longer than 65535 bytes");
        check(
            "A x/L: 99999999999999999999999//",
            "a message has no Content-Length, or one that is no number",
        );
    }

    #[test]
    fn endless_headers_are_refused() {
        let text = format!("A x\r\n{}", "X: y\r\n".repeat(20_000));
        assert_eq!(cut(&text, 4096), "a message is longer than 65535 bytes");
    }
}
