//! Commands for `/bin/sh`: values that came in are quoted for the quotes they stand in.
//!
//! The command is read as the shell reads it. Between `'…'` and `"…"` a value of a message is one piece of text and
//! nothing else, also inside `` `…` `` and `$(…)`. Outside of quotes it is what the script makes of it, and `fermata
//! check` warns.

use bytes::Bytes;
use script::Traced;
use script::traced::Hand;

/// The command with its values quoted.
pub fn fill(command: &Traced) -> Bytes {
    if command.pieces().all(|(hand, _)| hand == Hand::Script) {
        return command.text.clone();
    }
    let mut reader = Reader::default();
    let mut out = Vec::with_capacity(command.text.len() + 16);
    for (hand, piece) in command.pieces() {
        match hand {
            Hand::Script => reader.read(piece, &mut out),
            // What {s.escape.common} escapes is not what a shell wants escaped.
            Hand::Escaped if reader.in_quotes() => reader.value(&unescaped(piece), &mut out),
            _ if reader.in_quotes() => reader.value(piece, &mut out),
            _ => reader.read(piece, &mut out),
        }
    }
    out.into()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut escaped = false;
    for byte in text {
        escaped = *byte == b'\\' && !escaped;
        if !escaped {
            out.push(*byte);
        }
    }
    out
}

/// What is open, outermost first.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Open {
    /// `'…'`
    Single,
    /// `"…"`
    Double,
    /// `` `…` ``
    Backtick,
    /// `$(…)`, and the parentheses inside
    Command,
    /// `${…}`
    Braces,
    /// `# …`
    Comment,
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    before: u8,
    escaped: bool,
}

impl Reader {
    fn in_quotes(&self) -> bool {
        matches!(self.open.last(), Some(Open::Single | Open::Double | Open::Comment))
            || self.open.ends_with(&[Open::Double, Open::Braces])
    }

    /// Text that the shell reads as it is.
    fn read(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            self.step(*byte);
        }
        out.extend_from_slice(text);
    }

    fn step(&mut self, byte: u8) {
        let before = std::mem::replace(&mut self.before, byte);
        let top = self.open.last().copied();
        if top == Some(Open::Single) {
            if byte == b'\'' {
                self.open.pop();
            }
            return;
        }
        if std::mem::take(&mut self.escaped) {
            self.before = 0;
            return;
        }
        match (byte, top) {
            (b'\n', Some(Open::Comment)) => drop(self.open.pop()),
            (_, Some(Open::Comment)) => {}
            (b'\\', _) => self.escaped = true,
            (b'"', Some(Open::Double)) => drop(self.open.pop()),
            (b'"', _) => self.open.push(Open::Double),
            // Inside double quotes it is an ordinary character.
            (b'\'', Some(Open::Double)) => {}
            (b'\'', Some(Open::Braces)) if self.open.contains(&Open::Double) => {}
            (b'\'', _) => self.open.push(Open::Single),
            (b'`', _) => match self.open.iter().rposition(|open| *open == Open::Backtick) {
                Some(at) => self.open.truncate(at),
                None => self.open.push(Open::Backtick),
            },
            (b'(', _) if before == b'$' => self.open.push(Open::Command),
            (b'{', _) if before == b'$' => self.open.push(Open::Braces),
            (b'(', Some(Open::Command)) => self.open.push(Open::Command),
            (b')', Some(Open::Command)) | (b'}', Some(Open::Braces)) => drop(self.open.pop()),
            (b'#', None | Some(Open::Backtick | Open::Command))
                if matches!(before, 0 | b' ' | b'\t' | b'\n' | b';') =>
            {
                self.open.push(Open::Comment);
            }
            _ => {}
        }
    }

    /// A value that came in, between quotes: escaped from the inside out.
    fn value(&mut self, value: &[u8], out: &mut Vec<u8>) {
        let mut text: Vec<u8> = value.iter().copied().filter(|b| *b != 0).collect();
        if self.open.last() == Some(&Open::Comment) {
            text.iter_mut().filter(|b| matches!(**b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        } else if self.open.last() == Some(&Open::Single) {
            text = replaced(&text, b"'", |_| b"'\\''".to_vec());
        } else {
            text = replaced(&text, b"\\\"$`", |b| vec![b'\\', b]);
        }
        // A backslash before these is taken away once more by each `…` around.
        for (at, _) in self.open.iter().enumerate().filter(|(_, open)| **open == Open::Backtick) {
            let quoted = self.open[..at].last() == Some(&Open::Double);
            text = replaced(&text, if quoted { b"\\`$\"" } else { b"\\`$" }, |b| vec![b'\\', b]);
        }
        out.extend_from_slice(&text);
        if !value.is_empty() {
            (self.before, self.escaped) = (0, false);
        }
    }
}

fn replaced(text: &[u8], these: &[u8], by: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        match these.contains(byte) {
            true => out.extend(by(*byte)),
            false => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::traced::Builder;
    use script::{FormatPiece, Value, parse_format};

    /// The command as `/bin/sh` gets it, with `$fU` filled in.
    fn filled(command: &str, value: &str) -> String {
        let mut all = Builder::default();
        for piece in parse_format(&Bytes::copy_from_slice(command.as_bytes()), script::Loc::default())
            .expect("a format")
        {
            match piece {
                FormatPiece::Text(text) => all.push(Hand::Script, &text),
                FormatPiece::Var(_) => all.push_value(&Value::from(value.to_string())),
            }
        }
        String::from_utf8(fill(&all.finish()).to_vec()).expect("UTF-8")
    }

    /// A real shell says what it understood.
    fn check(command: &str, value: &str, want: &str) {
        let filled = filled(command, value);
        let run = std::process::Command::new("/bin/sh").arg("-c").arg(&filled).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&run.stdout), want, "{command} became {filled}");
        assert!(run.stderr.is_empty(), "{filled}: {}", String::from_utf8_lossy(&run.stderr));
    }

    #[test]
    fn values_between_quotes_stay_values() {
        for value in [
            "plain",
            "a'b",
            "a\"b",
            "'; echo hacked; '",
            "\"; echo hacked; \"",
            "$$(echo hacked)",
            "$(echo hacked)",
            "`echo hacked`",
            "\\",
            "a\\\\'b\\",
            "${HOME}$HOME",
            "two\nlines; echo hacked",
            "#x",
            "*",
        ] {
            for command in [
                "printf %s '$fU'",
                "printf %s \"$fU\"",
                "printf %s 'a'\"$fU\" | sed 's/^a//'",
                "printf %s \"$$(printf %s '$fU')\"",
                "printf %s \"$$(printf %s \"$fU\")\"",
                "printf %s \"`printf %s '$fU'`\"",
                "printf %s `printf %s x` '$fU' | sed 's/^x//'",
                "printf %s \"it's \" '$fU' | sed \"s/^it's //\"",
                "x=\"$fU\"; printf %s \"$${x}\"",
            ] {
                check(command, value, value);
            }
        }
        check("printf %s \"`printf %s \\\"$fU\\\"`\"", "plain", "plain");
        assert_eq!(filled("true # $fU", "x\necho hacked"), "true # x echo hacked");
        assert_eq!(filled("echo $fU", "a;b"), "echo a;b");
    }
}
