/// A place in the configuration: file (index in `Sources`) and byte range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loc {
    pub file: u16,
    pub start: u32,
    pub end: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing wrong with a configuration. Never a bare string: place, what, and what to write instead.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    pub loc: Loc,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn error(loc: Loc, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Error, loc, message: message.into(), hint: None }
    }
    pub fn warning(loc: Loc, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(loc, message) }
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The texts a configuration was read from (includes too), for excerpts and line numbers.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<(String, String)>,
}

#[allow(unused_variables)]
impl Sources {
    pub fn add(&mut self, name: String, text: String) -> u16 {
        self.files.push((name, text));
        (self.files.len() - 1) as u16
    }
    /// (line, column), both from 1.
    pub fn line_col(&self, loc: Loc) -> (u32, u32) {
        todo!()
    }
    /// For people: file:line:column, excerpt with a caret, hint.
    pub fn render(&self, d: &Diagnostic) -> String {
        todo!()
    }
}
