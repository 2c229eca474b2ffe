//! The rules of a dialplan: which one matches a text, and what it makes of it.

use crate::pcre::{self, Options};
use crate::timerec::Recurrence;
use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use fancy_regex::Regex;
use host::ctx::Ctx;
use host::db::Row;

/// One row of the table.
pub struct Rule {
    id: i64,
    priority: i64,
    matching: Matching,
    /// The expression whose groups the replacement uses.
    subst: Option<Regex>,
    replacement: Option<Bytes>,
    attrs: Bytes,
    times: Option<Recurrence>,
}

enum Matching {
    Equal { text: Bytes, caseless: bool },
    Regex(Regex),
}

/// All rules of a partition, by dialplan id; those of one id in the order in which they are tried.
#[derive(Default)]
pub struct Rules {
    by_id: AHashMap<i64, Vec<Rule>>,
    pub loaded: usize,
    pub discarded: usize,
}

/// What a rule gives.
#[derive(Clone, PartialEq, Debug)]
pub struct Translation {
    pub output: Bytes,
    pub attrs: Bytes,
}

impl Rules {
    /// `rows` has the columns id, dpid, pr, match_op, match_exp, match_flags, subst_exp, repl_exp, timerec,
    /// disabled, attrs. Rules that cannot be read are left out and logged.
    pub fn new<'a>(rows: impl Iterator<Item = Row<'a>>) -> Rules {
        let mut rules = Rules::default();
        for row in rows {
            if row.int(9).unwrap_or(0) != 0 {
                continue;
            }
            match Rule::new(&row) {
                Ok(rule) => {
                    rules.loaded += 1;
                    rules.by_id.entry(row.int(1).unwrap_or(0)).or_default().push(rule);
                }
                Err(error) => {
                    rules.discarded += 1;
                    host::warn!("dialplan", "rule {} is left out: {error}", row.int(0).unwrap_or(0));
                }
            }
        }
        for list in rules.by_id.values_mut() {
            list.sort_by_key(|rule| (rule.priority, rule.id));
        }
        rules
    }

    pub fn has(&self, dpid: i64) -> bool {
        self.by_id.contains_key(&dpid)
    }

    /// The first rule of this id that matches; `None`: none does, or its substitution does not.
    pub fn translate(&self, ctx: &mut Ctx, dpid: i64, input: &Bytes) -> Option<Translation> {
        let now = (ctx.core.wall_us / 1_000_000) as i64;
        let text = String::from_utf8_lossy(input).into_owned();
        let rule = self.by_id.get(&dpid)?.iter().find(|rule| rule.matches(&text, now))?;
        let output = rule.output(ctx, &text)?;
        Some(Translation { output, attrs: rule.attrs.clone() })
    }
}

impl Rule {
    fn new(row: &Row<'_>) -> Result<Rule, String> {
        let text = |column: usize| row.text(column).filter(|t| !t.is_empty());
        let expression = text(4).ok_or("it has no match_exp")?;
        let caseless = row.int(5).unwrap_or(0) & 1 != 0;
        let options = Options { caseless, ..Options::default() };
        let matching = match row.int(3) {
            Some(0) => Matching::Equal { text: expression, caseless },
            Some(1) => Matching::Regex(pcre::compile(&String::from_utf8_lossy(&expression), options)?),
            other => return Err(format!("unknown match_op {other:?}")),
        };
        let subst = match text(6) {
            Some(subst) => Some(pcre::compile(&String::from_utf8_lossy(&subst), options)?),
            None => None,
        };
        let times = match text(8) {
            Some(times) => {
                let times = String::from_utf8_lossy(&times).into_owned();
                Some(Recurrence::parse(&times).ok_or_else(|| format!("bad timerec {times}"))?)
            }
            None => None,
        };
        Ok(Rule {
            id: row.int(0).unwrap_or(0),
            priority: row.int(2).unwrap_or(0),
            matching,
            subst,
            replacement: text(7),
            attrs: row.text(10).unwrap_or_default(),
            times,
        })
    }

    fn matches(&self, input: &str, now: i64) -> bool {
        if self.times.as_ref().is_some_and(|times| !times.matches(now)) {
            return false;
        }
        match &self.matching {
            Matching::Equal { text, caseless: false } => input.as_bytes() == text,
            Matching::Equal { text, caseless: true } => input.as_bytes().eq_ignore_ascii_case(text),
            Matching::Regex(regex) => regex.is_match(input).unwrap_or(false),
        }
    }

    /// Without replacement it is empty. Without expression the replacement is all of it, else it is put
    /// together from what the expression finds.
    fn output(&self, ctx: &mut Ctx, input: &str) -> Option<Bytes> {
        let Some(replacement) = &self.replacement else { return Some(Bytes::new()) };
        let prepared = ctx.late_replacement(replacement)?;
        let Some(subst) = &self.subst else { return Some(prepared.expand_with(ctx, |_| b"")) };
        let found = subst.captures(input).ok().flatten()?;
        let mut out = BytesMut::new();
        let text = |n: usize| found.get(n).map_or(&b""[..], |m| m.as_str().as_bytes());
        out.extend_from_slice(&prepared.expand_with(ctx, text));
        Some(out.freeze())
    }
}
