//! What stands outside routes: parameters, modules, and the heads of routes.

use super::expr::truth;
use super::{Failed, Parsed, Parser};
use crate::ast::{EventMode, Global, GlobalValue, LoadModule, ModParam, ParamValue, Route, RouteKind};
use crate::diagnostic::{Diagnostic, Loc};
use crate::lexer::{Tok, number, string_end, unescape};
use crate::parser::{Options, meant};
use bytes::Bytes;

const ROUTES: &[(&str, RouteKind)] = &[
    ("route", RouteKind::Request),
    ("onreply_route", RouteKind::OnReply),
    ("failure_route", RouteKind::Failure),
    ("branch_route", RouteKind::Branch),
    ("local_route", RouteKind::Local),
    ("error_route", RouteKind::Error),
    ("startup_route", RouteKind::Startup),
    ("timer_route", RouteKind::Timer),
    ("event_route", RouteKind::Event),
];

/// Words at the start of a line that carries on a socket or a profile.
const CARRIES_ON: &[&str] = &[
    "as",
    "use_workers",
    "use_children",
    "anycast",
    "use_auto_scaling_profile",
    "tag",
    "frag",
    "reuse_port",
    "accept_subdomain",
    "allow_proxy_protocol",
    "send_proxy_protocol",
    "proxy_protocol",
    "scale",
];

/// Words that no route may be named after.
const RESERVED: &[&str] = &[
    "if", "else", "while", "for", "switch", "case", "default", "break", "return", "exit", "drop", "route",
    "async", "launch", "parallel", "assert", "and", "or", "not",
];

/// The kind of route that a word starts.
pub(super) fn route_kind(word: &[u8]) -> Option<RouteKind> {
    ROUTES.iter().find(|(name, _)| name.as_bytes() == word).map(|(_, kind)| *kind)
}

impl Parser<'_> {
    /// The whole configuration.
    pub(super) fn configuration(&mut self, options: Options) {
        self.forced = options.dialect;
        self.bump();
        while self.tok != Tok::Eof && !self.too_many() {
            if self.top_level().is_err() {
                self.skip_top_level();
            }
        }
        self.judge_dialect();
    }

    fn top_level(&mut self) -> Parsed<()> {
        if self.take(";") {
            return Ok(());
        }
        if self.tok != Tok::Ident {
            return self.fail(format!("expected a parameter, a module or a route, found {}", self.found()));
        }
        if self.at_include() {
            self.include();
            return Ok(());
        }
        let word = self.text();
        match &word[..] {
            b"loadmodule" => self.load_module(),
            b"modparam" => self.modparam(),
            w => match route_kind(w) {
                Some(kind) => self.route(kind),
                None => self.global(),
            },
        }
    }

    /// To the next line that starts a thing of the top level.
    fn skip_top_level(&mut self) {
        loop {
            match self.tok {
                Tok::Eof => return,
                Tok::Ident if self.at_line_start() => {
                    let behind = self.byte_behind();
                    if self.at_include()
                        || self.is_word("modparam")
                        || self.at_top_level_word()
                        || behind == b'='
                    {
                        return;
                    }
                }
                _ => {}
            }
            self.bump();
        }
    }

    fn at_line_start(&self) -> bool {
        let text = &self.sources().files[self.loc.file as usize].text;
        let start = self.loc.start as usize;
        let line = memchr::memrchr(b'\n', &text[..start]).map_or(0, |i| i + 1);
        text[line..start].trim_ascii().is_empty()
    }

    // ---- modules

    fn load_module(&mut self) -> Parsed<()> {
        let start = self.bump().loc;
        let (path, loc) = self.string("the quoted name of a module")?;
        let file = path.iter().rposition(|b| *b == b'/').map_or(path.clone(), |i| path.slice(i + 1..));
        let name = match file.strip_suffix(b".so") {
            Some(stem) => file.slice(..stem.len()),
            None => file,
        };
        self.config.modules.push(LoadModule { name, loc: start.to(loc) });
        Ok(())
    }

    fn modparam(&mut self) -> Parsed<()> {
        let start = self.bump().loc;
        self.expect("(", "after `modparam`")?;
        let (modules, _) = self.string("the quoted name of a module")?;
        self.expect(",", "after the module")?;
        let (name, _) = self.string("the quoted name of a parameter")?;
        self.expect(",", "after the name of the parameter")?;
        let value_loc = self.loc;
        let negative = self.take("-");
        let value = match &self.tok {
            Tok::Int(n) => ParamValue::Int(if negative { -n } else { *n }),
            Tok::Str(text) if !negative => {
                let text = text.clone();
                self.bump();
                let text = self.folded(text);
                return self.modparam_end(
                    start,
                    &modules,
                    name,
                    ParamValue::Text(text),
                    value_loc.to(self.last),
                );
            }
            Tok::Ident if !negative => match truth(&self.text()) {
                Some(truth) => ParamValue::Int(truth),
                None => {
                    return self.fail(format!("expected a number or a quoted text, found {}", self.found()));
                }
            },
            _ => return self.fail(format!("expected a number or a quoted text, found {}", self.found())),
        };
        let value_loc = value_loc.to(self.bump().loc);
        self.modparam_end(start, &modules, name, value, value_loc)
    }

    /// The `)`; one parameter for each module that is named.
    fn modparam_end(
        &mut self,
        start: Loc,
        modules: &Bytes,
        name: Bytes,
        value: ParamValue,
        value_loc: Loc,
    ) -> Parsed<()> {
        let end = self.expect(")", "after the value")?;
        let loc = start.to(end);
        let mut from = 0;
        for to in memchr::memchr_iter(b'|', modules).chain([modules.len()]) {
            let module = modules.slice(from..to);
            from = to + 1;
            self.config.params.push(ModParam {
                module,
                name: name.clone(),
                value: value.clone(),
                loc,
                value_loc,
            });
        }
        Ok(())
    }

    fn string(&mut self, what: &str) -> Parsed<(Bytes, Loc)> {
        let Tok::Str(text) = &self.tok else {
            return self.fail(format!("expected {what}, found {}", self.found()));
        };
        let text = text.clone();
        Ok((text, self.bump().loc))
    }

    // ---- parameters of the core

    fn global(&mut self) -> Parsed<()> {
        // `mem-group` is the one name with a dash.
        if self.is_word("mem") && self.reader.cursor().at(self.loc.end as usize) == b'-' {
            let cursor = self.reader.cursor();
            while cursor.at(cursor.pos).is_ascii_alphabetic() || cursor.at(cursor.pos) == b'-' {
                cursor.pos += 1;
            }
            self.loc.end = cursor.pos as u32;
        }
        let (name, loc) = (self.text(), self.loc);
        if self.byte_behind() != b'=' {
            return self.not_a_parameter(&name);
        }
        let cursor = self.reader.cursor();
        cursor.skip_blank(&mut self.problems);
        cursor.pos += 1;
        let (start, end) = raw_value(&cursor.text, cursor.pos);
        cursor.pos = end;
        let (raw, end) = (cursor.text.slice(start..end), cursor.loc(start, end));
        self.refill(end);
        if raw.is_empty() {
            self.report(Diagnostic::error(loc, format!("`{}` has no value", String::from_utf8_lossy(&name))));
            return Ok(());
        }
        if name == "mpath" {
            let path = match value(&raw) {
                GlobalValue::Text(text) | GlobalValue::Word(text) => text,
                _ => raw,
            };
            self.config.mpath.push((path, loc.to(end)));
        } else {
            self.config.globals.push(Global { name, value: value(&raw), loc: loc.to(end) });
        }
        Ok(())
    }

    fn not_a_parameter(&mut self, name: &[u8]) -> Parsed<()> {
        let shown = String::from_utf8_lossy(name).into_owned();
        let behind = self.byte_behind();
        if matches!(behind, b'{' | b'[') {
            let bad = Diagnostic::error(self.loc, format!("`{shown}` is not a kind of route"));
            let bad = match name {
                b"request_route" => bad.hint("the main route is `route { ... }`"),
                b"reply_route" => bad.hint("did you mean `onreply_route`?"),
                _ => meant(bad, name, &ROUTES.map_names()),
            };
            self.report(bad);
            let kind = if name == b"reply_route" { RouteKind::OnReply } else { RouteKind::Request };
            return self.route(kind);
        }
        if behind == b'(' || behind == b';' {
            let bad = Diagnostic::error(self.loc, format!("`{shown}` stands outside of any route"));
            return self
                .fail_with(bad.hint("statements belong into `route { ... }`; is a `}` too many above?"));
        }
        let bad = Diagnostic::error(self.loc, format!("expected `=` after `{shown}`"));
        let bad = meant(bad, name, &["loadmodule", "modparam", "include_file", "import_file"]);
        self.bump();
        self.fail_with(bad)
    }

    // ---- routes

    fn route(&mut self, kind: RouteKind) -> Parsed<()> {
        let head = self.bump().loc;
        let mut route =
            Route { kind, name: None, interval: None, mode: EventMode::Unset, body: Vec::new(), loc: head };
        let named = self.is("[");
        let mut known = true;
        if named {
            self.bump();
            if self.route_head(&mut route).is_err() {
                known = false;
                while !matches!(self.tok, Tok::Eof | Tok::Op("{" | "]" | "}")) {
                    self.bump();
                }
            }
            route.loc = head.to(self.loc);
            let _ = self.expect("]", "after the name of the route");
        }
        let example = match kind {
            RouteKind::Timer => Some("write `timer_route[name, seconds]`"),
            RouteKind::Event => Some("write `event_route[E_NAME]`"),
            RouteKind::Failure => Some("write `failure_route[name]`; `t_on_failure(\"name\")` sets it"),
            RouteKind::Branch => Some("write `branch_route[name]`; `t_on_branch(\"name\")` sets it"),
            _ => None,
        };
        if let (Some(example), None, false) = (example, &route.name, named) {
            self.report(Diagnostic::error(head, "this route needs a name").hint(example));
        }
        if kind == RouteKind::Local && named {
            self.report(Diagnostic::error(head, "there is one local_route, without a name"));
        }
        let zero = route.name.as_deref() == Some(b"0");
        if zero && matches!(kind, RouteKind::Request | RouteKind::OnReply) {
            route.name = None;
        }
        if !self.is("{") {
            return self.fail(format!("expected `{{` to start the route, found {}", self.found()));
        }
        self.breakable.clear();
        let body = self.nested(Self::block)?;
        route.body = body;
        if known {
            self.add_route(route);
        }
        Ok(())
    }

    /// `name]`, `name, seconds]`, `name, sync]`
    fn route_head(&mut self, route: &mut Route) -> Parsed<()> {
        route.name = Some(self.route_name()?);
        if !self.take(",") {
            if route.kind == RouteKind::Timer {
                self.report(
                    Diagnostic::error(self.loc, "this timer route has no interval")
                        .hint("write `timer_route[name, seconds]`"),
                );
            }
            return Ok(());
        }
        match (route.kind, &self.tok) {
            (RouteKind::Timer, Tok::Int(n)) if *n > 0 => {
                route.interval = Some((*n).min(u32::MAX as i64) as u32)
            }
            (RouteKind::Timer, _) => {
                return self.fail(format!("expected an interval in seconds, found {}", self.found()));
            }
            (RouteKind::Event, Tok::Ident) if self.sourced("sync") => route.mode = EventMode::Sync,
            (RouteKind::Event, Tok::Ident) if self.sourced("async") => route.mode = EventMode::Async,
            (RouteKind::Event, _) => {
                return self.fail(format!("expected `sync` or `async`, found {}", self.found()));
            }
            _ => return self.fail("only timer and event routes take something after their name"),
        }
        self.bump();
        Ok(())
    }

    /// A route's name where it is defined or called: a word, a number or a quoted text.
    pub(super) fn route_name(&mut self) -> Parsed<Bytes> {
        let name = match &self.tok {
            Tok::Str(text) => text.clone(),
            Tok::Ident | Tok::Int(_) => self.text(),
            _ => return self.fail(format!("expected the name of a route, found {}", self.found())),
        };
        if self.tok == Tok::Ident && RESERVED.iter().any(|r| r.as_bytes() == name) {
            let bad = Diagnostic::error(self.loc, "a keyword cannot be the name of a route");
            return self.fail_with(bad.hint("quote it or choose another name"));
        }
        let loc = self.bump().loc;
        let joined = self.loc.file == loc.file && self.loc.start == loc.end;
        if joined && matches!(self.tok, Tok::Op("-" | ".")) {
            let bad =
                Diagnostic::error(self.loc, format!("{} cannot stand in the name of a route", self.found()));
            return self.fail_with(bad.hint("names are made of letters, digits and `_`; or quote the name"));
        }
        Ok(name)
    }

    /// Keeps a route. One defined before is reported and left out; events may have several.
    fn add_route(&mut self, route: Route) {
        let same = |r: &&Route| r.kind == route.kind && r.name == route.name && r.kind != RouteKind::Event;
        let Some(first) = self.config.routes.iter().find(same).map(|r| r.loc) else {
            self.config.routes.push(route);
            return;
        };
        let line = self.sources().line_col(first).0;
        let place = match first.file == route.loc.file {
            true => format!("line {line}"),
            false => format!("{}:{line}", self.sources().name(first)),
        };
        let bad = Diagnostic::error(route.loc, "this route is defined twice");
        self.report(bad.hint(format!("the first is at {place}")));
    }

    /// `{ statements }`; the token looked at is the brace.
    pub(super) fn block(&mut self) -> Parsed<Vec<crate::ast::Stmt>> {
        let open = self.expect("{", "here")?;
        let body = self.statements();
        if self.take("}") {
            return Ok(body);
        }
        self.report(Diagnostic::error(open, "this block is never closed").hint("a `}` is missing"));
        // The route is kept: what follows is read as if the brace were there.
        if self.tok == Tok::Eof || self.at_top_level_word() { Ok(body) } else { Err(Failed) }
    }
}

trait MapNames {
    fn map_names(&self) -> Vec<&'static str>;
}
impl MapNames for [(&'static str, RouteKind)] {
    fn map_names(&self) -> Vec<&'static str> {
        self.iter().map(|(n, _)| *n).collect()
    }
}

/// What a parameter's text says.
fn value(raw: &Bytes) -> GlobalValue {
    if matches!(raw[0], b'"' | b'\'') && string_end(raw, 0) == Some(raw.len()) {
        let inside = raw.slice(1..raw.len() - 1);
        return GlobalValue::Text(if raw[0] == b'"' { unescape(inside) } else { inside });
    }
    if let Some(n) = number(raw) {
        return GlobalValue::Int(n);
    }
    match truth(raw) {
        Some(truth) => GlobalValue::Bool(truth != 0),
        None => GlobalValue::Word(raw.clone()),
    }
}

/// The text of a parameter's value, from behind its `=`: to the end of the line, a comment or the next
/// parameter, lines that carry it on included.
fn raw_value(text: &Bytes, from: usize) -> (usize, usize) {
    let at = |pos: usize| text.get(pos).copied().unwrap_or(0);
    let mut pos = from;
    while pos < text.len() && at(pos).is_ascii_whitespace() {
        pos += 1;
    }
    let start = pos;
    let mut end = start;
    let mut braces = 0usize;
    while pos < text.len() {
        match at(pos) {
            b'"' | b'\'' => match string_end(text, pos) {
                Some(close) => {
                    pos = close;
                    end = pos;
                }
                None => return (start, end),
            },
            b'{' => (braces, pos, end) = (braces + 1, pos + 1, pos + 1),
            b'}' => (braces, pos, end) = (braces.saturating_sub(1), pos + 1, pos + 1),
            b'#' => pos = memchr::memchr(b'\n', &text[pos..]).map_or(text.len(), |i| pos + i),
            b'/' if at(pos + 1) == b'*' => {
                pos = memchr::memmem::find(&text[pos..], b"*/").map_or(text.len(), |i| pos + i + 2);
            }
            b';' if braces == 0 => return (start, end),
            b'\n' if braces == 0 && !carries_on(text, pos + 1) => return (start, end),
            b if b.is_ascii_whitespace() => pos += 1,
            b => {
                let mut word = pos;
                while word < text.len()
                    && !at(word).is_ascii_whitespace()
                    && !matches!(at(word), b'#' | b'{' | b'}' | b';' | b'"')
                {
                    word += 1;
                    if at(word - 1) == b'=' || (at(word) == b'/' && at(word + 1) == b'*') {
                        break;
                    }
                }
                let first = pos == start;
                if !first
                    && braces == 0
                    && (b.is_ascii_alphabetic() || b == b'_')
                    && starts_something(text, pos, word)
                {
                    return (start, end);
                }
                pos = word.max(pos + 1);
                end = pos;
            }
        }
    }
    (start, end)
}

/// The word at `pos` on the line of another value is a parameter of its own.
fn starts_something(text: &[u8], pos: usize, end: usize) -> bool {
    let word = &text[pos..end];
    let name = word.strip_suffix(b"=").unwrap_or(word);
    let mut next = end;
    while matches!(text.get(next), Some(b' ' | b'\t')) {
        next += 1;
    }
    let assigned =
        name.len() < word.len() || (text.get(next) == Some(&b'=') && text.get(next + 1) != Some(&b'='));
    let named = name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    (assigned && named) || matches!(word, b"loadmodule") || word.starts_with(b"modparam(")
}

/// The line at `pos` goes on with a value of the line before: it starts with an option of a socket.
fn carries_on(text: &[u8], pos: usize) -> bool {
    let line = &text[pos..];
    let skipped = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let line = &line[skipped..];
    let len = line.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let word = &line[..len];
    let behind = line[len..].iter().find(|b| !matches!(b, b' ' | b'\t')).copied();
    CARRIES_ON.iter().any(|w| w.as_bytes() == word) && !matches!(behind, Some(b'='))
}
