//! Statements that scripts write as texts: values that came in are escaped where they stand between quotes.
//!
//! The text is read as its server reads it, from quote to quote. What the script wrote goes through as it is; what
//! came in is escaped for the quotes it stands in (`'…'`, `"…"`, `` `…` ``), and cannot end a comment. Outside of
//! quotes nothing can be done for a value, and `fermata check` warns. A value that the script escaped with
//! `{s.escape.common}` is escaped once, by the rules of the server at hand.

use super::render::Dialect;
use bytes::Bytes;
use script::Traced;
use script::traced::Hand;

/// A statement, ready for a server.
#[derive(Debug, PartialEq)]
pub struct Filled {
    pub text: Vec<u8>,
    /// More than one statement stands in it.
    pub several: bool,
}

/// The statement with its values escaped.
pub fn fill(statement: &Traced, dialect: Dialect) -> Filled {
    let mut lexer = Lexer::new(dialect);
    let mut text = Vec::with_capacity(statement.text.len() + 16);
    for (hand, piece) in statement.pieces() {
        match hand {
            Hand::Script => lexer.read(piece, &mut text),
            Hand::Foreign | Hand::Filtered => lexer.value(piece, &mut text),
            Hand::Escaped if lexer.at != Place::Plain => lexer.value(&unescaped(piece), &mut text),
            Hand::Doubled if lexer.at != Place::Plain => lexer.value(&undoubled(piece), &mut text),
            Hand::Escaped | Hand::Doubled => lexer.read(piece, &mut text),
        }
    }
    Filled { text, several: lexer.several }
}

/// What `{s.escape.common}` was given.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after.first()) {
            (b'\\', Some(b'0')) => out.push(0),
            (b'\\', Some(next)) => out.push(*next),
            _ => out.push(*first),
        }
        if *first == b'\\' && !after.is_empty() {
            rest = &after[1..];
        }
    }
    out
}

/// `''` is one quote.
fn undoubled(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut half = false;
    for byte in text {
        half = *byte == b'\'' && !half;
        if *byte != b'\'' || half {
            out.push(*byte);
        }
    }
    out
}

/// Where in a statement one stands.
#[derive(Clone, PartialEq, Debug)]
enum Place {
    Plain,
    /// Between these quotes; whether backslashes escape there.
    Quotes {
        quote: u8,
        backslash: bool,
    },
    /// `[name]` (SQLite)
    Brackets,
    LineComment,
    /// `/* */`; PostgreSQL's nest.
    BlockComment {
        depth: u32,
    },
    /// `$tag` so far
    DollarTag(Vec<u8>),
    /// `$tag$ … $tag$`, and how much of the end was met.
    Dollar {
        tag: Vec<u8>,
        met: usize,
    },
}

struct Lexer {
    dialect: Dialect,
    at: Place,
    /// The bytes before, 0 where there are none.
    before: [u8; 2],
    /// A backslash before the next byte escapes it.
    escaped: bool,
    /// Whether backslashes escaped in the quotes that were closed last.
    backslash: bool,
    ended: bool,
    several: bool,
}

impl Lexer {
    fn new(dialect: Dialect) -> Lexer {
        Lexer {
            dialect,
            at: Place::Plain,
            before: [0; 2],
            escaped: false,
            backslash: false,
            ended: false,
            several: false,
        }
    }

    /// Text that is read as it is.
    fn read(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            self.step(*byte);
            self.before = [self.before[1], *byte];
        }
        out.extend_from_slice(text);
    }

    fn step(&mut self, byte: u8) {
        let runs = self.runs_comment(byte);
        match &mut self.at {
            Place::Plain => self.plain(byte),
            Place::Quotes { backslash: true, .. } if self.escaped => self.escaped = false,
            Place::Quotes { backslash: true, .. } if byte == b'\\' => self.escaped = true,
            Place::Quotes { quote, backslash } if byte == *quote => {
                self.backslash = *backslash;
                self.at = Place::Plain;
            }
            Place::Quotes { .. } => {}
            Place::Brackets if byte == b']' => self.at = Place::Plain,
            Place::LineComment if byte == b'\n' => self.at = Place::Plain,
            Place::Brackets | Place::LineComment => {}
            // MySQL runs what stands in `/*! … */` and `/*M! … */`.
            Place::BlockComment { .. } if runs => self.at = Place::Plain,
            Place::BlockComment { depth } => match (self.before[1], byte) {
                (b'*', b'/') if *depth > 1 => *depth -= 1,
                (b'*', b'/') => self.at = Place::Plain,
                (b'/', b'*') if self.dialect == Dialect::Postgres => *depth += 1,
                _ => {}
            },
            Place::DollarTag(tag) => match byte {
                b'$' => {
                    let tag = [&tag[..], b"$"].concat();
                    self.at = Place::Dollar { tag, met: 0 };
                }
                b if b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80 => tag.push(b),
                _ => {
                    self.at = Place::Plain;
                    self.plain(byte);
                }
            },
            Place::Dollar { tag, met } => {
                *met = if byte == tag[*met] { *met + 1 } else { usize::from(byte == b'$') };
                if *met == tag.len() {
                    self.at = Place::Plain;
                }
            }
        }
    }

    fn runs_comment(&self, byte: u8) -> bool {
        self.dialect == Dialect::MySql
            && byte == b'!'
            && (self.before == *b"/*" || self.before == *b"*M" || self.before == *b"*m")
    }

    fn plain(&mut self, byte: u8) {
        let [earlier, last] = self.before;
        let mysql = self.dialect == Dialect::MySql;
        let in_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80;
        // MySQL wants a blank behind the dashes.
        if mysql && earlier == b'-' && last == b'-' && (byte.is_ascii_whitespace() || byte.is_ascii_control())
        {
            self.at = if byte == b'\n' { Place::Plain } else { Place::LineComment };
            return;
        }
        match byte {
            b'\'' => {
                let reopened = last == b'\'';
                let marked = matches!(last, b'e' | b'E') && !in_word(earlier);
                let backslash =
                    mysql || (reopened && self.backslash) || (marked && self.dialect == Dialect::Postgres);
                self.at = Place::Quotes { quote: byte, backslash };
            }
            b'"' => self.at = Place::Quotes { quote: byte, backslash: mysql },
            b'`' if self.dialect != Dialect::Postgres => {
                self.at = Place::Quotes { quote: byte, backslash: false }
            }
            b'[' if self.dialect == Dialect::Sqlite => self.at = Place::Brackets,
            b'-' if last == b'-' && !mysql => self.at = Place::LineComment,
            b'#' if mysql => self.at = Place::LineComment,
            b'*' if last == b'/' => self.at = Place::BlockComment { depth: 1 },
            b'$' if self.dialect == Dialect::Postgres && !in_word(last) => {
                self.at = Place::DollarTag(vec![b'$'])
            }
            _ => {}
        }
        // A comment behind the end is none of its own; its first byte is not known as one yet.
        let comment =
            matches!(byte, b'-' | b'/') || matches!(self.at, Place::LineComment | Place::BlockComment { .. });
        match byte {
            b';' => self.ended = true,
            _ if byte.is_ascii_whitespace() || comment => {}
            _ => self.several |= self.ended,
        }
    }

    /// A value that came in.
    fn value(&mut self, value: &[u8], out: &mut Vec<u8>) {
        match &self.at {
            Place::Plain | Place::DollarTag(_) => return self.read(value, out),
            Place::Quotes { quote, backslash } => {
                for byte in value {
                    match byte {
                        // The script's own backslash stands before it.
                        _ if self.escaped => {
                            self.escaped = false;
                            out.push(*byte);
                        }
                        0 if *backslash && self.dialect == Dialect::MySql => out.extend_from_slice(b"\\0"),
                        // Texts of the others cannot hold it.
                        0 => {}
                        b'\\' if *backslash => out.extend_from_slice(b"\\\\"),
                        b if b == quote => out.extend_from_slice(&[*b, *b]),
                        b => out.push(*b),
                    }
                }
            }
            Place::Brackets => out.extend(value.iter().filter(|b| **b != b']')),
            Place::LineComment => {
                out.extend(value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }))
            }
            Place::BlockComment { .. } => {
                out.extend(value.iter().map(|b| if b"*/!".contains(b) { b' ' } else { *b }))
            }
            Place::Dollar { .. } => out.extend(value.iter().filter(|b| **b != b'$')),
        }
        if !value.is_empty() {
            self.before = [0; 2];
        }
    }
}

impl From<Bytes> for super::Statement {
    fn from(text: Bytes) -> super::Statement {
        super::Statement { text: Traced::script(text), several: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dialect::{MySql, Postgres, Sqlite};
    use script::traced::Builder;
    use script::{FormatPiece, Value, parse_format};

    /// `$fU` is the value, `$ok` the value escaped by the script, `$two` with its quotes doubled.
    fn filled(text: &str, value: &str, dialect: Dialect) -> Filled {
        let mut all = Builder::default();
        let escaped =
            value.replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"").replace('\0', "\\0");
        for piece in
            parse_format(&Bytes::copy_from_slice(text.as_bytes()), script::Loc::default()).expect("a format")
        {
            match piece {
                FormatPiece::Text(text) => all.push(Hand::Script, &text),
                FormatPiece::Var(var) if var.name == "ok"[..] => {
                    all.push_value(&Value::written_by(escaped.clone().into(), Hand::Escaped));
                }
                FormatPiece::Var(var) if var.name == "two"[..] => {
                    all.push_value(&Value::written_by(value.replace('\'', "''").into(), Hand::Doubled));
                }
                FormatPiece::Var(_) => all.push_value(&Value::from(value.to_string())),
            }
        }
        fill(&all.finish(), dialect)
    }

    #[test]
    fn values_between_quotes_are_escaped_once() {
        let check = |text: &str, value: &str, dialect, want: &str| {
            let filled = filled(text, value, dialect);
            assert_eq!(String::from_utf8_lossy(&filled.text), want, "{dialect:?} {text} {value}");
        };
        for (dialect, want) in [(Sqlite, "a = 'x''\\'"), (Postgres, "a = 'x''\\'"), (MySql, "a = 'x''\\\\'")]
        {
            check("a = '$fU'", "x'\\", dialect, want);
            check("a = '$ok'", "x'\\", dialect, want);
            check("a = '$two'", "x'\\", dialect, want);
        }
        for dialect in [Sqlite, Postgres, MySql] {
            check(
                "a = '$fU' and b = '$fU'",
                "' or '1'='1",
                dialect,
                "a = ''' or ''1''=''1' and b = ''' or ''1''=''1'",
            );
            check("a = 'it''s $fU'", "o'x", dialect, "a = 'it''s o''x'");
            check("a like '%$fU%'", "5'%_", dialect, "a like '%5''%_%'");
            check("a = $fU", "1", dialect, "a = 1");
            check("/* $fU */ 'a'", "*/ '", dialect, "/*    ' */ 'a'");
            check("'a' '$fU'", "'", dialect, "'a' ''''");
        }
        check("select \"$fU\"", "a\"b", Sqlite, "select \"a\"\"b\"");
        check("select \"$fU\"", "a\"\\", MySql, "select \"a\"\"\\\\\"");
        check("select `$fU`", "a`\\", MySql, "select `a``\\`");
        check("select [$fU]", "a]", Sqlite, "select [a]");
        check("a = E'$fU'", "\\'", Postgres, "a = E'\\\\'''");
        check("a = E'x''$fU'", "\\'", Postgres, "a = E'x''\\\\'''");
        check("nope'$fU'", "\\", Postgres, "nope'\\'");
        check("a = '$fU'", "x\0y", MySql, "a = 'x\\0y'");
        check("a = '$fU'", "x\0y", Sqlite, "a = 'xy'");
        check("-- $fU\n'b'", "x\n'", Postgres, "-- x '\n'b'");
        check("f($$q$$ $fU $$q$$, '$fU')", "$q$'", Postgres, "f($q$ q' $q$, '$q$''')");
        check("5--1, '$fU'", "'", MySql, "5--1, ''''");
        check("1 -- it's\n, '$fU'", "'", MySql, "1 -- it's\n, ''''");
        check("1 # it's\n, '$fU'", "'", MySql, "1 # it's\n, ''''");
        check("/*! '$fU' */", "'", MySql, "/*! '''' */");
        check("'\\'$fU'", "'", MySql, "'\\''''");
    }

    #[test]
    fn several_statements_are_seen() {
        let check = |text: &str, dialect, several: bool| {
            assert_eq!(filled(text, "x", dialect).several, several, "{dialect:?} {text}");
        };
        for dialect in [Sqlite, Postgres, MySql] {
            for (text, several) in [
                ("select 1", false),
                ("select 1;", false),
                ("select 1; ; ", false),
                ("select 1; -- done\n", false),
                ("select 1; /* done */ ", false),
                ("select 1; drop table t", true),
                ("select 1;drop table t", true),
                ("select 1; -- x\n drop table t", true),
                ("select ';' ; ", false),
                ("select 'it''s; fine'", false),
                ("select \"a;b\"", false),
                ("select 1 -- ; x\n; delete from t", true),
                ("select /* ; x */ 1", false),
                ("select '", false),
                ("select 1; (select 2)", true),
                ("select 1; 'x'", true),
            ] {
                check(text, dialect, several);
            }
        }
        check("select 'it\\'s; fine'", MySql, false);
        check("select 'a\\'; drop table t", Postgres, true);
        check("select `c;d`", MySql, false);
        check("select 1 # ; x\n", MySql, false);
        check("select 1 /*! ; drop table t */", MySql, true);
        check("select $$$$a;b$$$$", Postgres, false);
        assert!(filled("select * from t where id = $fU", "1; delete from t", Postgres).several);
        assert!(!filled("select * from t where id = '$fU'", "1'; delete from t; --", Postgres).several);
    }
}
