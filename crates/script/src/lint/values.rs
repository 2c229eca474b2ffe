//! Values of messages where the server cannot make them harmless: outside of quotes in SQL and shell text, in URLs
//! and LDAP filters, as names of headers, at the beginning of log lines, and as texts that are evaluated.

use super::{Lint, shown, variables};
use crate::ast::{Arg, ArgKind, Call, Expr, ExprKind, Stmt, StmtKind, VarSpec};
use crate::format::{FormatPiece, parse_format};
use crate::walk::{Met, body};
use ahash::AHashSet;
use bytes::Bytes;

/// Variables that a peer writes freely. Numbers and addresses are not among them.
const OF_MESSAGES: &[&str] = &[
    "fu",
    "fU",
    "fd",
    "fn",
    "ft",
    "from.user",
    "from.domain",
    "from",
    "fn",
    "tu",
    "tU",
    "td",
    "tn",
    "tt",
    "to",
    "to.user",
    "ru",
    "rU",
    "rd",
    "ruri",
    "ruri.user",
    "ruri.domain",
    "ou",
    "oU",
    "od",
    "ouri",
    "hdr",
    "ct",
    "ct.fields",
    "ci",
    "rb",
    "mb",
    "ua",
    "au",
    "aU",
    "ar",
    "ad",
    "adu",
    "di",
    "dir",
    "dip",
    "re",
    "rr",
    "rr_params",
    "cT",
    "json",
    "msg.body",
    "contact",
    "pai",
    "pn",
    "pU",
    "pd",
    "pu",
    "hdrcnt_",
    "auth.uri",
    "rs_",
    "rr",
    "sipmsg",
    "via",
    "identity",
    "rpid",
];

/// Transformations that leave nothing of what somebody wrote.
const HARMLESS: &[&str] = &[
    "len",
    "md5",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "crc32",
    "encode.hexa",
    "b64encode",
    "encode.64",
    "hash",
    "sha1_hmac",
    "sha224_hmac",
    "sha256_hmac",
    "sha384_hmac",
    "sha512_hmac",
];

/// What reads a parameter as a language of its own.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Sql,
    /// A part of a statement that has no quotes: a table, an order.
    SqlName,
    Shell,
    Url,
    Ldap,
    Headers,
    Log,
}

/// The parameters of a function that are read so, counted from 0.
fn languages(function: &[u8], args: usize) -> &'static [(usize, Language)] {
    use Language::*;
    match function {
        b"sql_query" | b"sql_query_one" | b"avp_db_query" => &[(0, Sql)],
        b"sql_select" | b"sql_select_one" => &[(1, SqlName), (3, SqlName)],
        b"sql_insert" | b"sql_replace" | b"sql_delete" => &[(0, SqlName)],
        b"sql_update" => &[(1, SqlName)],
        b"exec" | b"exec_msg" | b"exec_avp" | b"exec_dset" => &[(0, Shell)],
        b"rest_get" | b"rest_post" | b"rest_put" => &[(0, Url)],
        b"ldap_search" => &[(0, Ldap)],
        b"append_hf" | b"insert_hf" | b"append_to_reply" | b"t_add_hdrs" | b"rest_append_hf" => {
            &[(0, Headers)]
        }
        b"xlog" if args > 1 => &[(1, Log)],
        b"xlog" | b"xdbg" => &[(0, Log)],
        _ => &[],
    }
}

impl Lint<'_> {
    pub(super) fn values_of_messages(&mut self) {
        let held = self.held();
        let foreign = |var: &VarSpec| comes_in(var, &held);
        let mut found = Vec::new();
        for route in &self.config.routes {
            body(&route.body, &mut |met| match met {
                Met::Call(call, _) => found.extend(in_call(call, &foreign)),
                Met::Read(var) => found.extend(evaluated(var, &foreign)),
                Met::Arg(Arg { kind: ArgKind::Text(text), loc }) => {
                    found.extend(variables(text, *loc).iter().filter_map(|var| evaluated(var, &foreign)));
                }
                _ => {}
            });
        }
        for (loc, message, hint) in found {
            self.warn(loc, message, hint);
        }
    }

    /// `$var` and `$avp` that are given values of messages somewhere, by name.
    fn held(&self) -> AHashSet<(Bytes, Bytes)> {
        let mut held = AHashSet::new();
        // What is held may be handed on.
        loop {
            let before = held.len();
            let mut more = Vec::new();
            for route in &self.config.routes {
                body(&route.body, &mut |met| {
                    if let Met::Stmt(Stmt { kind: StmtKind::Assign { target, value, .. }, .. }) = met
                        && reads(value, &|var| comes_in(var, &held))
                    {
                        more.extend(name_of(target));
                    }
                });
            }
            held.extend(more);
            if held.len() == before {
                return held;
            }
        }
    }
}

type Warning = (crate::diagnostic::Loc, String, &'static str);

fn name_of(var: &VarSpec) -> Option<(Bytes, Bytes)> {
    let inner = var.inner.as_ref().filter(|inner| !inner.contains(&b'$'))?;
    matches!(&var.name[..], b"var" | b"avp").then(|| (var.name.clone(), inner.clone()))
}

fn comes_in(var: &VarSpec, held: &AHashSet<(Bytes, Bytes)>) -> bool {
    let is = |names: &[&str], name: &[u8]| names.iter().any(|n| n.as_bytes() == name);
    let harmless = var.transformations.iter().any(|tran| tran.class == "s"[..] && is(HARMLESS, &tran.name));
    !harmless && (is(OF_MESSAGES, &var.name) || name_of(var).is_some_and(|name| held.contains(&name)))
}

/// A value of a message is part of the expression.
fn reads(expr: &Expr, foreign: &dyn Fn(&VarSpec) -> bool) -> bool {
    match &expr.kind {
        ExprKind::Var(var) => foreign(var),
        ExprKind::Binary(_, left, right) => reads(left, foreign) || reads(right, foreign),
        ExprKind::Group(inner) | ExprKind::Bracket(inner) => reads(inner, foreign),
        _ => false,
    }
}

fn in_call(call: &Call, foreign: &dyn Fn(&VarSpec) -> bool) -> Vec<Warning> {
    let mut found = Vec::new();
    for (index, language) in languages(&call.name, call.args.len()) {
        let Some(arg) = call.args.get(*index) else { continue };
        let pieces = match &arg.kind {
            ArgKind::Text(text) => parse_format(text, arg.loc).unwrap_or_default(),
            ArgKind::Var(var) => vec![FormatPiece::Var(var.clone())],
            _ => continue,
        };
        // A text that is one variable was put together elsewhere.
        let alone = matches!(pieces[..], [FormatPiece::Var(_)]);
        if alone && matches!(language, Language::Sql | Language::Shell | Language::Headers | Language::Url) {
            continue;
        }
        let mut at = Place::default();
        for piece in &pieces {
            match piece {
                FormatPiece::Text(text) => at.read(text, *language),
                FormatPiece::Var(var) => {
                    if foreign(var)
                        && let Some((what, hint)) = at.wrong(*language, var)
                    {
                        found.push((
                            var.loc,
                            format!("`${}` comes from the message: {what}", shown(&var.name)),
                            hint,
                        ));
                    }
                    at.start = false;
                }
            }
        }
    }
    found
}

/// Where in a text a variable stands.
struct Place {
    quote: Option<u8>,
    /// The text has not begun.
    start: bool,
    /// Before the colon of a header.
    in_name: bool,
    /// In a value of the query of a URL, in a value of an LDAP filter or DN: it is escaped there.
    in_value: bool,
    /// `?` that have been met.
    marks: u32,
}

impl Default for Place {
    fn default() -> Place {
        Place { quote: None, start: true, in_name: true, in_value: false, marks: 0 }
    }
}

impl Place {
    fn read(&mut self, text: &[u8], language: Language) {
        let mut escaped = false;
        for byte in text {
            match (byte, self.quote) {
                _ if escaped => escaped = false,
                (b'\\', quote) if language == Language::Shell && quote != Some(b'\'') => escaped = true,
                (byte, Some(quote)) if *byte == quote => self.quote = None,
                (b'\'' | b'"' | b'`', None) if !(language == Language::Shell && *byte == b'`') => {
                    self.quote = Some(*byte)
                }
                _ => {}
            }
            match byte {
                b':' => self.in_name = false,
                b'\n' => self.in_name = true,
                b'?' => (self.marks, self.in_value) = (self.marks + 1, false),
                b'=' if language == Language::Url && self.marks > 0 => self.in_value = true,
                b'=' if language == Language::Ldap && matches!(self.marks, 0 | 3..) => self.in_value = true,
                b'&' | b'#' if language == Language::Url => self.in_value = false,
                b'(' | b')' | b',' if language == Language::Ldap => self.in_value = false,
                _ => {}
            }
        }
        self.start &= text.is_empty();
    }

    /// What is wrong with a value of a message here, and what to do.
    fn wrong(&self, language: Language, var: &VarSpec) -> Option<(&'static str, &'static str)> {
        let escaped = var
            .transformations
            .iter()
            .any(|tran| tran.name.starts_with(b"escape") || tran.class == "rest"[..]);
        Some(match language {
            Language::Sql if self.quote.is_none() => (
                "outside of quotes it is a part of the SQL statement",
                "put it between quotes: it is escaped there",
            ),
            Language::SqlName => {
                ("it names a part of the SQL statement", "choose among names that stand in the script")
            }
            Language::Shell if self.quote.is_none() => (
                "outside of quotes it is a part of the command",
                "put it between quotes: it is escaped there; or use `exec_argv`",
            ),
            Language::Url if !escaped && !self.in_value => (
                "in a URL it can add parameters and change the path",
                "write $(name{s.escape.param}) or $(name{rest.escape})",
            ),
            Language::Ldap if !escaped && !self.in_value => {
                ("it can change the filter", "use `ldap_filter_url_encode` first")
            }
            Language::Headers if self.in_name => {
                ("it is the name of a header, and may be any", "choose among names that stand in the script")
            }
            Language::Log if self.start => {
                ("a log line that begins with it can look like any other", "begin the line with a text")
            }
            _ => return None,
        })
    }
}

/// `{s.eval}` of what came in reads any variable that its writer names.
fn evaluated(var: &VarSpec, foreign: &dyn Fn(&VarSpec) -> bool) -> Option<Warning> {
    let evaluates = var.transformations.iter().any(|tran| tran.class == "s"[..] && tran.name == "eval"[..]);
    (evaluates && foreign(var)).then(|| {
        let message = format!(
            "`${}` comes from the message: {{s.eval}} reads every variable that it names",
            shown(&var.name)
        );
        (var.loc, message, "evaluate texts of the script only")
    })
}
