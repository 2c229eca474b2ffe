//! Flags of `save()` and `lookup()`: words of 3.x/4.x, or the letters of 2.x.

use super::agents::Filter;
use crate::usrloc::table::Matching;
use bytes::Bytes;
use host::arg::{Arg, format_of};
use host::load::Loader;
use host::{Call, Format};
use script::ast::Dialect;
use script::posix;
use script::{Diagnostic, Loc, ast};
use std::sync::Arc;

/// What is done with Path (RFC 3327).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Path {
    /// Not saved.
    #[default]
    None,
    /// Saved, never in the reply.
    Off,
    /// Saved, in the reply when the client supports it.
    Lazy,
    /// Refused when the client does not support it.
    Strict,
}

/// Flags of `save()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SaveFlags {
    pub memory_only: bool,
    pub no_reply: bool,
    pub max_contacts: Option<usize>,
    pub force: bool,
    pub matching: Option<Matching>,
    pub path: Path,
    pub path_received: bool,
    pub only_request_contacts: bool,
    pub socket_header: bool,
    pub min_expires: Option<u32>,
    pub max_expires: Option<u32>,
}

/// Flags of `lookup()`.
#[derive(Clone, Debug, Default)]
pub struct LookupFlags {
    pub no_branches: bool,
    pub to_branches_only: bool,
    pub expand_branches: bool,
    pub method_filtering: bool,
    /// Set when only some user agents are wanted.
    pub agents: Option<posix::Pattern>,
    /// `global`: contacts that other servers of a federation have, too.
    pub global: bool,
    pub max_ping_latency_us: Option<u32>,
    pub sort_by_latency: bool,
}

pub fn matching(value: &str) -> Option<Matching> {
    match value {
        "0" => Some(Matching::Uri),
        "1" => Some(Matching::UriAndCallId),
        param => {
            let name = param.strip_prefix('<')?.strip_suffix('>')?;
            Some(Matching::Params(vec![Bytes::copy_from_slice(name.as_bytes())]))
        }
    }
}

/// Words are told from letters by the `-` inside; parameters of letters do not count.
fn is_words(text: &str) -> bool {
    let name = text.split(['=', '<', '/', ',']).next().unwrap_or("");
    name.contains('-')
}

/// 2.x passes over letters that it does not know, and says so.
fn unknown_letter(letter: char, dialect: Dialect) -> Result<(), String> {
    let why = unknown(&letter.to_string());
    if dialect != Dialect::V21 {
        return Err(why);
    }
    host::warn!("registrar", "{why}");
    Ok(())
}

fn unknown(word: &str) -> String {
    format!("unknown flag `{word}`")
}

impl SaveFlags {
    pub fn parse(text: &str, dialect: Dialect) -> Result<SaveFlags, String> {
        let mut flags = SaveFlags::default();
        let text = text.trim();
        if !is_words(text) {
            flags.letters(text, dialect)?;
            return Ok(flags);
        }
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.trim().parse::<u32>().map_err(|_| format!("{name} needs a number"));
            match name {
                "memory-only" => flags.memory_only = true,
                "no-reply" => flags.no_reply = true,
                "max-contacts" => flags.max_contacts = Some(number()? as usize),
                "force-registration" => flags.force = true,
                "matching-mode" => flags.matching = Some(matching(value).ok_or_else(|| unknown(word))?),
                "path-off" => flags.path = Path::Off,
                "path-lazy" => flags.path = Path::Lazy,
                "path-strict" => flags.path = Path::Strict,
                "path-received" => flags.path_received = true,
                "only-request-contacts" => flags.only_request_contacts = true,
                "socket-header" => flags.socket_header = true,
                "min-expires" => flags.min_expires = Some(number()?),
                "max-expires" => flags.max_expires = Some(number()?),
                _ => return Err(unknown(word)),
            }
        }
        Ok(flags)
    }

    fn letters(&mut self, text: &str, dialect: Dialect) -> Result<(), String> {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number = rest[..digits].parse::<u32>().unwrap_or(0);
            let mut used = 0;
            match letter {
                'm' => self.memory_only = true,
                'r' => self.no_reply = true,
                'c' => (self.max_contacts, used) = (Some(number as usize), digits),
                'f' => self.force = true,
                'M' if rest.starts_with('<') => {
                    used = rest.find('>').map_or(rest.len(), |end| end + 1);
                    self.matching = matching(&rest[..used]);
                }
                'M' => (self.matching, used) = (matching(&rest[..digits]), digits),
                'p' => {
                    used = digits;
                    self.path = match number {
                        0 => Path::Off,
                        1 => Path::Lazy,
                        _ => Path::Strict,
                    };
                }
                'v' => self.path_received = true,
                'o' => self.only_request_contacts = true,
                's' => self.socket_header = true,
                'e' => (self.min_expires, used) = (Some(number), digits),
                'E' => (self.max_expires, used) = (Some(number), digits),
                ' ' | ',' => {}
                other => unknown_letter(other, dialect)?,
            }
            rest = &rest[used..];
        }
        Ok(())
    }
}

impl LookupFlags {
    pub fn parse(text: &str, dialect: Dialect) -> Result<LookupFlags, String> {
        let mut flags = LookupFlags::default();
        let text = text.trim();
        let mut filter = Filter::default();
        if is_words(text) || text.split(',').any(|w| matches!(w.trim(), "branch" | "global")) {
            flags.words(text, &mut filter)?;
        } else {
            flags.letters(text, &mut filter, dialect)?;
        }
        flags.agents = filter.build()?;
        Ok(flags)
    }

    fn words(&mut self, text: &str, filter: &mut Filter) -> Result<(), String> {
        let flags = self;
        for word in split_words(text) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "no-branches" => flags.no_branches = true,
                "to-branches-only" => flags.to_branches_only = true,
                "branch" => flags.expand_branches = true,
                "method-filtering" => flags.method_filtering = true,
                "ua-filtering" => filter.read(value)?,
                "case-insensitive" => filter.any_case = true,
                "extended-regexp" => filter.extended = true,
                "global" => flags.global = true,
                "max-ping-latency" => {
                    let latency = value.parse().map_err(|_| "max-ping-latency needs a number".to_string())?;
                    flags.max_ping_latency_us = Some(latency);
                }
                "sort-by-latency" => flags.sort_by_latency = true,
                _ => return Err(unknown(word)),
            }
        }
        Ok(())
    }

    fn letters(&mut self, text: &str, filter: &mut Filter, dialect: Dialect) -> Result<(), String> {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                'b' => self.no_branches = true,
                'B' => self.to_branches_only = true,
                'r' => self.expand_branches = true,
                'm' => self.method_filtering = true,
                'i' => filter.any_case = true,
                'e' => filter.extended = true,
                ' ' | ',' => {}
                'g' => self.global = true,
                'u' => {
                    let end = rest.rfind('/').map_or(rest.len(), |e| e + 1);
                    filter.read(&rest[..end])?;
                    rest = &rest[end..];
                }
                'y' => {
                    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                    self.max_ping_latency_us = rest[..digits].parse().ok();
                    rest = &rest[digits..];
                }
                'Y' => self.sort_by_latency = true,
                other => unknown_letter(other, dialect)?,
            }
        }
        Ok(())
    }
}

/// Prepared flags: those of a constant are checked when the script is loaded.
pub enum Prepared<F> {
    Constant(Arc<F>),
    Text(Format),
}

/// A set of flags that a script writes as a text.
pub trait FlagText: Sized + Send + Sync + 'static {
    const WHAT: &'static str;
    /// The error is what a user should read.
    fn read(text: &str, dialect: Dialect) -> Result<Self, String>;
}

impl FlagText for SaveFlags {
    const WHAT: &'static str = "flags of save()";
    fn read(text: &str, dialect: Dialect) -> Result<SaveFlags, String> {
        SaveFlags::parse(text, dialect)
    }
}

impl FlagText for LookupFlags {
    const WHAT: &'static str = "flags of lookup()";
    fn read(text: &str, dialect: Dialect) -> Result<LookupFlags, String> {
        LookupFlags::parse(text, dialect)
    }
}

/// Flags as an argument.
#[derive(Clone, Default)]
pub struct Flags<F>(pub Arc<F>);

impl<M: Send + Sync + 'static, F: FlagText> Arg<M> for Flags<F> {
    type Prepared = Prepared<F>;
    const WHAT: &'static str = F::WHAT;

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<Self::Prepared, Diagnostic> {
        let missing = || Diagnostic::error(site, format!("a parameter is missing here: {}", F::WHAT));
        let arg = arg.ok_or_else(missing)?;
        let format = format_of(arg, loader)?;
        let Some(text) = format.constant() else { return Ok(Prepared::Text(format)) };
        let flags = F::read(&String::from_utf8_lossy(text), loader.dialect);
        flags.map(|f| Prepared::Constant(Arc::new(f))).map_err(|why| Diagnostic::error(arg.loc, why))
    }

    fn eval(prepared: &Self::Prepared, call: &mut Call<'_, M>) -> Result<Self, i32> {
        let format = match prepared {
            Prepared::Constant(flags) => return Ok(Flags(flags.clone())),
            Prepared::Text(format) => format,
        };
        let text = format.text(call.ctx);
        F::read(&String::from_utf8_lossy(&text), call.shared().dialect).map(|f| Flags(Arc::new(f))).map_err(
            |why| {
                host::error!("registrar", "{why}");
                -1
            },
        )
    }
}

/// Splits at commas outside of `/.../`.
fn split_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            '/' => inside = !inside,
            ',' if !inside => {
                words.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    words.push(text[start..].trim());
    words.retain(|w| !w.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_letters_say_the_same() {
        for (words, letters) in [
            ("memory-only, max-contacts=5", "mc5"),
            ("no-reply,force-registration", "rf"),
            ("path-strict,path-received", "p2v"),
            ("matching-mode=<rinstance>, min-expires=30", "M<rinstance>e30"),
            ("path-off", "p0"),
        ] {
            assert_eq!(
                SaveFlags::parse(words, Dialect::V4),
                SaveFlags::parse(letters, Dialect::V4),
                "{words}"
            );
        }
        for (words, letters) in [
            ("method-filtering", "m"),
            ("branch", "r"),
            ("ua-filtering=/phone, x/i", "u/phone, x/i"),
            ("no-branches", "b"),
        ] {
            let seen = |text| {
                let f = LookupFlags::parse(text, Dialect::V4).expect("correct flags");
                let filter = f.agents.map(|a| String::from_utf8_lossy(a.source()).into_owned());
                (filter, f.method_filtering, f.expand_branches, f.no_branches)
            };
            assert_eq!(seen(words), seen(letters), "{words}");
        }
        assert!(SaveFlags::parse("memory-onyl", Dialect::V4).is_err());
        assert!(LookupFlags::parse("x", Dialect::V4).is_err());
        assert!(LookupFlags::parse("x", Dialect::V21).is_ok());
    }
}
