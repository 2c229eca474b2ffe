//! The file of routes (`config_source` "file"): domains, prefixes and targets in braces, as libconfuse reads them.
//!
//! ```text
//! domain proxy {
//!    prefix 49 {
//!      max_targets = 2
//!      target proxy1.localdomain { prob = 0.5  hash_index = 1  status = 1  comment = "first" }
//!    }
//! }
//! ```

use super::trees::{Carrier, Rule, Trees};
use bytes::Bytes;
use std::fmt::Write;

/// The word for an empty prefix or host.
const EMPTY: &str = "NULL";

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Mark(char),
}

impl Lexer<'_> {
    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    /// `None`: the end.
    fn next(&mut self) -> Result<Option<Token>, String> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.skip(blank);
            let end = if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                self.rest.find("*/").map(|at| at + 2).ok_or_else(|| self.wrong("a comment has no end"))?
            } else {
                break;
            };
            self.skip(end);
        }
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        if "{}=,:".contains(first) {
            self.skip(1);
            return Ok(Some(Token::Mark(first)));
        }
        if first == '"' || first == '\'' {
            return self.quoted(first).map(Some);
        }
        let stops = |c: char| c.is_whitespace() || "{}=,\"'#".contains(c);
        let end = self.rest.find(stops).unwrap_or(self.rest.len());
        let word = self.rest[..end].trim_end_matches(':').to_owned();
        self.skip(word.len());
        Ok(Some(Token::Word(word)))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c if c == quote => {
                    self.skip(at + 1);
                    return Ok(Token::Word(text));
                }
                c => text.push(c),
            }
        }
        Err(self.wrong("a text has no end"))
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.line)
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        match self.next()? {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(self.wrong(&format!("{what} is missing"))),
        }
    }

    fn mark(&mut self, wanted: char) -> Result<(), String> {
        match self.next()? {
            Some(Token::Mark(mark)) if mark == wanted => Ok(()),
            _ => Err(self.wrong(&format!("`{wanted}` is missing"))),
        }
    }

    /// The next word inside braces; `None`: they end.
    fn inside(&mut self) -> Result<Option<String>, String> {
        match self.next()? {
            Some(Token::Word(word)) => Ok(Some(word)),
            Some(Token::Mark('}')) => Ok(None),
            _ => Err(self.wrong("a name or `}` is missing")),
        }
    }

    /// `= value`, `= {1, 2}`; the reference writes `:` in one place.
    fn value(&mut self) -> Result<String, String> {
        match self.next()? {
            Some(Token::Mark('=' | ':')) => {}
            _ => return Err(self.wrong("`=` is missing")),
        }
        match self.next()? {
            Some(Token::Word(word)) => Ok(word),
            Some(Token::Mark('{')) => {
                while !matches!(self.next()?, Some(Token::Mark('}')) | None) {}
                Ok(String::new())
            }
            _ => Err(self.wrong("a value is missing")),
        }
    }
}

fn number<T: std::str::FromStr>(lexer: &Lexer<'_>, key: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| lexer.wrong(&format!("{key} is no number: `{text}`")))
}

fn unless_empty(word: &str) -> Bytes {
    if word.eq_ignore_ascii_case(EMPTY) { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}

/// Reads the routes of the only carrier. The error names the line.
pub fn parse(text: &str, carrier: &str) -> Result<Trees, String> {
    let mut lexer = Lexer { rest: text, line: 1 };
    let name = Bytes::copy_from_slice(carrier.as_bytes());
    let mut carrier = Carrier { id: 1, name, domains: Vec::new() };
    while let Some(token) = lexer.next()? {
        if token != Token::Word("domain".into()) {
            return Err(lexer.wrong("`domain` is missing"));
        }
        let domain = Bytes::from(lexer.word("the name of a domain")?);
        carrier.domain_mut(&domain);
        lexer.mark('{')?;
        while let Some(word) = lexer.inside()? {
            if word != "prefix" {
                return Err(lexer.wrong(&format!("a domain has no `{word}`")));
            }
            let prefix = unless_empty(&lexer.word("a prefix")?);
            lexer.mark('{')?;
            let (mut max, mut rules) = (0, Vec::new());
            while let Some(word) = lexer.inside()? {
                match word.as_str() {
                    "max_targets" => {
                        let value = lexer.value()?;
                        max = number::<i64>(&lexer, "max_targets", &value)?.max(0) as usize;
                    }
                    "target" => rules.push(target(&mut lexer)?),
                    _ => return Err(lexer.wrong(&format!("a prefix has no `{word}`"))),
                }
            }
            let targets = carrier.domain_mut(&domain).targets(prefix, 0, 0);
            targets.max = max;
            rules.into_iter().for_each(|rule| targets.add(rule));
        }
    }
    let mut trees = Trees { carriers: vec![carrier] };
    trees.settle(Err)?;
    Ok(trees)
}

fn target(lexer: &mut Lexer<'_>) -> Result<Rule, String> {
    let mut rule =
        Rule { host: unless_empty(&lexer.word("the host of a target")?), on: true, ..Rule::default() };
    lexer.mark('{')?;
    while let Some(key) = lexer.inside()? {
        let value = lexer.value()?;
        match key.as_str() {
            "prob" => rule.given = number(lexer, &key, &value)?,
            "strip" => rule.strip = number(lexer, &key, &value)?,
            "hash_index" => rule.index = number(lexer, &key, &value)?,
            "status" => rule.on = number::<i64>(lexer, &key, &value)? != 0,
            "backup" => rule.backup = usize::try_from(number::<i64>(lexer, &key, &value)?).ok(),
            "rewrite_prefix" => rule.prefix = value.into(),
            "rewrite_suffix" => rule.suffix = value.into(),
            "comment" => rule.comment = value.into(),
            // Whose backup a target is follows from the others.
            "backed_up" => {}
            _ => return Err(lexer.wrong(&format!("a target has no `{key}`"))),
        }
    }
    rule.prob = if rule.on || rule.backup.is_some() { rule.given } else { 0.0 };
    Ok(rule)
}

/// The text that `parse` reads.
pub fn print(trees: &Trees) -> String {
    let mut out = String::new();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"");
    let or_empty = |bytes: &Bytes| if bytes.is_empty() { EMPTY.to_owned() } else { text(bytes) };
    // Writing into a string does not fail.
    for (name, domain) in trees.carriers.iter().flat_map(|carrier| &carrier.domains) {
        let _ = writeln!(out, "domain {} {{", text(name));
        for (prefix, targets) in domain.routes.iter().flat_map(|(p, list)| list.iter().map(move |t| (p, t))) {
            let _ = writeln!(
                out,
                "\tprefix {} {{\n\t\tmax_targets = {}\n",
                or_empty(prefix),
                targets.rules.len()
            );
            for rule in &targets.rules {
                let _ =
                    writeln!(out, "\t\ttarget {} {{\n\t\t\tprob = {:.6}", or_empty(&rule.host), rule.given);
                let _ =
                    writeln!(out, "\t\t\thash_index = {}\n\t\t\tstatus = {}", rule.index, u8::from(rule.on));
                if rule.strip > 0 {
                    let _ = writeln!(out, "\t\t\tstrip = {}", rule.strip);
                }
                if let Some(backup) = rule.backup {
                    let _ = writeln!(out, "\t\t\tbackup = {backup}");
                }
                let texts = [
                    ("rewrite_prefix", &rule.prefix),
                    ("rewrite_suffix", &rule.suffix),
                    ("comment", &rule.comment),
                ];
                for (key, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
                    let _ = writeln!(out, "\t\t\t{key} = \"{}\"", text(value));
                }
                out.push_str("\t\t}\n");
            }
            out.push_str("\t}\n");
        }
        out.push_str("}\n\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# routes\ndomain proxy {\n   prefix 49 {\n     max_targets = 2\n      target proxy1.localdomain {\n\
        prob = 0.500000\n hash_index = 1\n status = 1\n comment = \"test target 1\"\n }\n target proxy2 { prob = 0.5 \
        hash_index = 2 status = 0 backup = 1 strip = \"2\" rewrite_prefix = '00' rewrite_suffix: \"x\" }\n   }\n}\n\
        domain register { prefix NULL { max_targets = 1 target r1 { prob = 1 backed_up = {1, 2} } } }\n";

    #[test]
    fn files_are_read_and_written() {
        let trees = parse(FILE, "default").expect("sound");
        let proxy =
            trees.named(b"default").and_then(|carrier| carrier.domain(b"proxy")).expect("it is there");
        let targets = proxy.find(b"49721", 0).expect("a prefix");
        let second = &targets.rules[1];
        assert_eq!(
            (&second.host[..], second.strip, second.backup, second.on),
            (&b"proxy2"[..], 2, Some(1), false)
        );
        assert_eq!((&second.prefix[..], &second.suffix[..]), (&b"00"[..], &b"x"[..]));
        let again = parse(&print(&trees), "default").expect("what was written is sound");
        assert_eq!(print(&again), print(&trees));
        assert!(again.carriers[0].domain(b"register").is_some_and(|domain| domain.find(b"", 0).is_some()));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, why) in [
            ("domain a {\n prefix 1 {\n max_targets = x } }", "line 3"),
            ("route a {}", "line 1: `domain` is missing"),
            ("domain a { prefix 1 { max_targets = 2 target h { prob = 1 } } }", "max_targets is 2"),
            ("domain a { prefix 1 { target h { prob = 1 ", "name or `}`"),
            ("domain a { prefix 1 { target h { colour = red } } }", "no `colour`"),
            ("domain \"a", "no end"),
        ] {
            let error = parse(text, "default").expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
