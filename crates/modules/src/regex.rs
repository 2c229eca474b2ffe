//! regex: expressions of PCRE on texts, alone or in groups of a file.

use crate::pcre::{self, Options};
use bytes::{Bytes, BytesMut};
use fancy_regex::Regex;
use host::Accepts;
use host::arg::OutVar;
use host::ctx::Ctx;
use host::load::{LoadError, Loader};
use host::mi::{MiError, MiParams, MiResult};
use host::tran::{Tran, Word};
use host::{Call, Int, Registrar, Routes, Text, Value};
use parking_lot::RwLock;
use script::Diagnostic;
use script::ast::TranSpec;
use serde_json::json;
use std::sync::Arc;

/// Result of one substitution.
const MAX_RESULT: usize = 1 << 20;

pub struct Regexes {
    file: Option<String>,
    max_groups: usize,
    group_max_size: usize,
    options: Options,
    groups: RwLock<Arc<[Regex]>>,
}

impl Default for Regexes {
    fn default() -> Regexes {
        Regexes {
            file: None,
            max_groups: 20,
            group_max_size: 8192,
            options: Options::default(),
            groups: RwLock::new(Arc::new([])),
        }
    }
}

pub fn register(m: &mut Registrar<Regexes>) {
    m.param_text("file", |s, v| Ok(s.file = Some(v.to_string())));
    m.param_int("max_groups", |s, v| Ok(s.max_groups = v.clamp(1, 10_000) as usize));
    m.param_int("group_max_size", |s, v| Ok(s.group_max_size = v.clamp(1, 1 << 20) as usize));
    m.param_int("pcre_caseless", |s, v| Ok(s.options.caseless = v != 0));
    m.param_int("pcre_multiline", |s, v| Ok(s.options.multiline = v != 0));
    m.param_int("pcre_dotall", |s, v| Ok(s.options.dotall = v != 0));
    m.param_int("pcre_extended", |s, v| Ok(s.options.extended = v != 0));
    m.accepts(Accepts::from(1), &["group_max_size", "max_groups"]);
    m.init_with_files(|s, _| s.reload());
    m.function("pcre_match", Routes::ALL, pcre_match);
    m.function("pcre_match_group", Routes::ALL, pcre_match_group);
    m.transformation("pcre", transformation);
    m.command("regex:reload regex_reload", "reads the file of groups again", reload).takes("");
    m.command("regex:match regex_match", "tests a text", match_command).takes("string pcre_regex");
    m.command("regex:match_group regex_match_group", "tests a text against a group", match_group_command)
        .takes("string group");
}

impl Regexes {
    fn reload(&self) -> Result<(), LoadError> {
        let Some(file) = &self.file else { return Ok(()) };
        let text = std::fs::read_to_string(file).map_err(|e| LoadError::of_file(file, &e))?;
        let groups = self.groups_of(&text).map_err(|e| format!("{file}: {e}"))?;
        *self.groups.write() = groups.into();
        Ok(())
    }

    /// One expression per line, in groups that begin with `[number]`; a group matches when one of its
    /// expressions does.
    fn groups_of(&self, text: &str) -> Result<Vec<Regex>, String> {
        let mut groups: Vec<Vec<&str>> = Vec::new();
        for line in text.lines() {
            match (line.chars().next(), groups.last_mut()) {
                (None | Some(' ' | '\t' | '\r' | '#'), _) => {}
                (Some('['), _) => groups.push(Vec::new()),
                (Some(_), Some(group)) => group.push(line.trim_end()),
                (Some(_), None) => return Err("the first line must be a [group]".to_string()),
            }
        }
        if groups.len() > self.max_groups {
            return Err(format!("{} groups, max_groups is {}", groups.len(), self.max_groups));
        }
        groups.iter().filter(|group| !group.is_empty()).map(|group| self.group(group)).collect()
    }

    fn group(&self, lines: &[&str]) -> Result<Regex, String> {
        let pattern = lines.iter().map(|line| format!("({line})")).collect::<Vec<_>>().join("|");
        if pattern.len() > self.group_max_size {
            return Err(format!(
                "a group of {} bytes, group_max_size is {}",
                pattern.len(),
                self.group_max_size
            ));
        }
        pcre::compile(&pattern, self.options)
    }

    fn group_matches(&self, text: &[u8], group: i64) -> bool {
        let groups = self.groups.read().clone();
        let group = usize::try_from(group).ok().and_then(|group| groups.get(group));
        group.is_some_and(|group| group.is_match(&*String::from_utf8_lossy(text)).unwrap_or(false))
    }
}

/// pcre_match(text, expression, [what matched])
fn pcre_match(call: &mut Call<Regexes>, text: Text, pattern: Text, out: Option<OutVar>) -> bool {
    let options = call.module.options;
    let Some(regex) = pcre::compiled(call.ctx, &pattern, options) else { return false };
    let text = text.str();
    let found = regex.find(&*text).ok().flatten().map(|m| m.as_str().to_string());
    let matches = found.is_some();
    if let Some(out) = out {
        out.set(call.ctx, found.map_or(Value::Null, Value::from));
    }
    matches
}

/// pcre_match_group(text, [group]): groups are counted from 0.
fn pcre_match_group(call: &mut Call<Regexes>, text: Text, group: Option<Int>) -> bool {
    call.module.group_matches(&text, group.map_or(0, |g| g.0))
}

fn reload(call: &mut Call<Regexes>, _: &MiParams) -> MiResult {
    if call.module.file.is_none() {
        return Err(MiError::new(403, "Group matching not enabled"));
    }
    call.module.reload().map(|()| json!("OK")).map_err(|e| MiError::new(500, e))
}

fn answer(matches: bool) -> MiResult {
    Ok(json!(if matches { "Match" } else { "Not Match" }))
}

fn match_command(call: &mut Call<Regexes>, params: &MiParams) -> MiResult {
    let (text, pattern) = (params.need("string", 0)?, params.need("pcre_regex", 1)?);
    let regex = pcre::compile(&pattern, call.module.options).map_err(MiError::params)?;
    answer(regex.is_match(&text).unwrap_or(false))
}

fn match_group_command(call: &mut Call<Regexes>, params: &MiParams) -> MiResult {
    let text = params.need("string", 0)?;
    let group = params.int("group", 1)?.unwrap_or(0);
    answer(call.module.group_matches(text.as_bytes(), group))
}

/// `{pcre.subst,/expression/replacement/flags}`, or the same in a variable.
fn transformation(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    if !spec.name.eq_ignore_ascii_case(b"subst") {
        let error = Diagnostic::error(spec.loc, "the transformation of pcre is {pcre.subst}");
        return Err(error);
    }
    let expression = spec.params.first().map(|p| p.slice_ref(p.trim_ascii_start())).unwrap_or_default();
    if expression.starts_with(b"$") {
        let held = Word::new(spec, 0, loader)?;
        return Ok(Tran::new(move |ctx, value| {
            held.get(ctx).and_then(|text| substituted(ctx, &text, &value)).unwrap_or_default()
        }));
    }
    let Some((pattern, _, flags)) = pcre::split(&expression) else {
        let error = Diagnostic::error(spec.loc, "this is no substitution");
        return Err(error.hint("write it as /expression/replacement/flags"));
    };
    options_of(&flags)
        .ok_or_else(|| "unknown flag".to_string())
        .and_then(|(options, _)| pcre::compile(&String::from_utf8_lossy(&pattern), options))
        .map_err(|e| Diagnostic::error(spec.loc, e))?;
    Ok(Tran::new(move |ctx, value| substituted(ctx, &expression, &value).unwrap_or_default()))
}

/// Options, and whether all matches are replaced.
fn options_of(flags: &[u8]) -> Option<(Options, bool)> {
    let (mut options, mut all) = (Options::default(), false);
    for flag in flags {
        match flag {
            b'i' => options.caseless = true,
            b's' => options.dotall = true,
            b'm' => options.multiline = true,
            b'x' => options.extended = true,
            b'g' => all = true,
            _ => return None,
        }
    }
    Some((options, all))
}

/// `None`: the substitution is malformed, or matches nothing somewhere.
fn substituted(ctx: &mut Ctx, expression: &Bytes, value: &Value) -> Option<Value> {
    let text = value.text().filter(|t| !t.is_empty())?;
    let (pattern, replacement, flags) = pcre::split(expression)?;
    let (options, all) = options_of(&flags)?;
    let regex = pcre::compiled(ctx, &pattern, options)?;
    let replacement = ctx.late_replacement(&replacement)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut out = BytesMut::new();
    let mut from = 0;
    while let Some(found) = regex.captures_from_pos(&text, from).ok()? {
        let range = found.get(0)?.range();
        if range.is_empty() {
            return None;
        }
        out.extend_from_slice(&text.as_bytes()[from..range.start]);
        out.extend_from_slice(
            &replacement.expand_with(ctx, |n| found.get(n).map_or(&b""[..], |m| m.as_str().as_bytes())),
        );
        from = range.end;
        if !all || out.len() > MAX_RESULT {
            break;
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    Some(Value::Str(out.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use script::ast::Dialect;

    #[test]
    fn groups_of_files() {
        let module = Regexes::default();
        let groups = module.groups_of("# c\n[0]\n^100\n^1[0-9]$\n\n[1]\n^bob$\n").unwrap();
        assert_eq!(groups.len(), 2);
        for (group, text, want) in [(0, "100", true), (0, "15", true), (0, "200", false), (1, "bob", true)] {
            assert_eq!(groups[group].is_match(text).unwrap(), want, "{text}");
        }
        assert!(module.groups_of("^a\n").is_err());
        assert!(module.groups_of("[0]\na(\n").is_err());
    }

    #[test]
    fn substitutions() {
        let body = r#"
            $var(x) = "sip:+123@h"; $var(re) = "/\\Q+123\\E/\\0$avp(n)/"; $avp(n) = "9";
            $avp(a) = $(var(x){pcre.subst,$var(re)});
            $avp(b) = $(var(x){pcre.subst,/(?<=sip:)\+//});
            $avp(c) = $(var(x){pcre.subst,/[0-9]/x/g});
            $avp(d) = $(var(x){pcre.subst,/SIP/y/});
            if ($(var(x){pcre.subst,/x*/y/}) == NULL) $avp(e) = "null";
        "#;
        let ran = testing::run("loadmodule \"regex.so\"", body, Dialect::V4);
        for (name, want) in [
            ("a", "sip:+1239@h"),
            ("b", "sip:123@h"),
            ("c", "sip:+xxx@h"),
            ("d", "sip:+123@h"),
            ("e", "null"),
        ] {
            assert_eq!(ran.avps(name), [want], "{name}");
        }
    }
}
