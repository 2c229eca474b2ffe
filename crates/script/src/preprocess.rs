//! Files: the one named and those it includes, read as one stream of tokens.

use crate::diagnostic::{Diagnostic, Loc, Sources};
use crate::lexer::{Cursor, Tok, Token};
use bytes::Bytes;
use std::io;

/// Files that may stand open inside each other, and files in all.
const DEPTH: usize = 20;
const FILES: usize = 1_000;
/// Largest file, in bytes.
const SIZE: usize = 256 << 20;

pub(crate) type Loader<'a> = dyn FnMut(&str) -> io::Result<Bytes> + 'a;

/// What to do about an included file that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// `include_file`
    Error,
    /// `import_file`
    Ignore,
}

/// Tokens of a file, with the tokens of included files in their place.
pub(crate) struct Reader<'a> {
    pub sources: &'a mut Sources,
    loader: &'a mut Loader<'a>,
    /// Innermost last; the first is the file itself and is never taken off.
    open: Vec<Cursor>,
}

impl<'a> Reader<'a> {
    /// Opens the first file. The reader can be used even when it could not be read; it is then empty.
    pub fn open(
        path: &str,
        sources: &'a mut Sources,
        loader: &'a mut Loader<'a>,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let text = loader(path).and_then(check_size).unwrap_or_else(|e| {
            let loc = Loc { file: sources.files.len().min(u16::MAX as usize) as u16, start: 0, end: 0 };
            problems.push(unreadable(loc, path, &e));
            Bytes::new()
        });
        let file = sources.add(path.to_string(), text.clone());
        Reader { sources, loader, open: vec![Cursor::new(text, file)] }
    }

    pub fn cursor(&mut self) -> &mut Cursor {
        let last = self.open.len() - 1;
        &mut self.open[last]
    }

    pub fn next(&mut self, problems: &mut Vec<Diagnostic>) -> Token {
        loop {
            let token = self.cursor().next(problems);
            if token.tok != Tok::Eof || self.open.len() == 1 {
                return token;
            }
            self.open.pop();
        }
    }

    /// The source text of a place.
    pub fn text(&self, loc: Loc) -> Bytes {
        let text = &self.sources.files[loc.file as usize].text;
        text.slice(loc.start as usize..loc.end as usize)
    }

    /// Reads on in another file; its name is tried as it is and then beside the including file.
    pub fn include(&mut self, name: &str, loc: Loc, missing: Missing, problems: &mut Vec<Diagnostic>) {
        if self.open.len() >= DEPTH || self.sources.files.len() >= FILES {
            let bad = Diagnostic::error(loc, "too many files included in each other");
            problems.push(bad.hint("does a file include itself?"));
            return;
        }
        let beside = match self.sources.name(loc).rfind('/') {
            Some(slash) if !name.starts_with('/') => {
                Some(format!("{}/{name}", &self.sources.name(loc)[..slash]))
            }
            _ => None,
        };
        let (path, found) = match ((self.loader)(name), beside) {
            (Err(_), Some(beside)) => {
                let found = (self.loader)(&beside);
                (beside, found)
            }
            (found, _) => (name.to_string(), found),
        };
        match found.and_then(check_size) {
            Ok(text) => {
                let file = self.sources.add(path, text.clone());
                self.open.push(Cursor::new(text, file));
            }
            Err(e) if missing == Missing::Ignore && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => problems.push(unreadable(loc, &path, &e)),
        }
    }
}

fn unreadable(loc: Loc, path: &str, e: &io::Error) -> Diagnostic {
    let reason = match e.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        _ => e.to_string(),
    };
    Diagnostic::error(loc, format!("cannot read {path}: {reason}"))
}

fn check_size(text: Bytes) -> io::Result<Bytes> {
    if text.len() > SIZE { Err(io::Error::other("the file is too large")) } else { Ok(text) }
}
