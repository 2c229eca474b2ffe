//! The words of the modules: what is said about each thing that a module registers. Types, routes, numbers of
//! arguments and what waits are not in there; they come from the registrar.
//!
//! One file a module, `crates/CRATE/manual/NAME.txt`; `crates/host/manual` has the variables and transformations of the
//! core:
//!
//! ```text
//! What the module is for. Markdown, until the first entry.
//!
//! see registrar
//!
//! param max_limit = 256 hops: What it sets. After `=` the default and its unit.
//! function is_maxfwd_lt(hops): What it does; the names of the arguments are those of its longest form.
//!   1: lower | -1: not
//! variable rtimer: What it reads.
//! statistic sent_replies: What it counts.
//! event E_PIKE_BLOCKED(ip): When it is raised, and its values.
//! ```
//!
//! Several names may share an entry: `function setuser, setu(user): ...`. `see registrar`: names that have no entry here and the same kind there are explained there. Indented lines go on
//! with the text, those that begin with a number and a colon are return codes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    Param,
    Function,
    Variable,
    Statistic,
    Event,
    Transformation,
}

impl About {
    const WORDS: [(&'static str, About); 6] = [
        ("param ", About::Param),
        ("function ", About::Function),
        ("variable ", About::Variable),
        ("statistic ", About::Statistic),
        ("event ", About::Event),
        ("transformation ", About::Transformation),
    ];
}

/// What is said about one thing.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Names of a function's arguments, of an event's values.
    pub args: Vec<&'static str>,
    /// Of a parameter, with its unit.
    pub default: Option<&'static str>,
    pub text: String,
    /// Return codes of a function and what each means.
    pub returns: Vec<(&'static str, &'static str)>,
}

/// What is said about one module.
#[derive(Debug, Default)]
pub struct Words {
    pub intro: String,
    /// Modules whose entries count here as well.
    see: Vec<&'static str>,
    pub entries: BTreeMap<(About, &'static str), Entry>,
}

/// File stem and text of each module's words.
static FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/words.rs"));

static ALL: LazyLock<BTreeMap<&str, Words>> = LazyLock::new(|| {
    let parsed = |(name, text): &(&'static str, &'static str)| match parse(text) {
        Ok(words) => (*name, words),
        // The test below reads each file; this program was built from files that it has seen.
        Err(why) => panic!("manual/{name}.txt: {why}"),
    };
    FILES.iter().map(parsed).collect()
});

/// The words of a module; `None`: it has none.
pub fn of(module: &str) -> Option<&'static Words> {
    ALL.get(module)
}

/// What is said about one thing of a module, there or where it says `see`.
pub fn entry(module: &str, about: About, name: &str) -> Option<&'static Entry> {
    let words = of(module)?;
    let found = words.entries.iter().find(|((a, n), _)| (*a, *n) == (about, name)).map(|(_, entry)| entry);
    found.or_else(|| words.see.iter().find_map(|other| entry(other, about, name)))
}

/// The error begins with the number of the line.
fn parse(text: &'static str) -> Result<Words, String> {
    let mut words = Words::default();
    // The entry that indented lines go on with, under each of its names.
    let mut last: Vec<(About, &'static str)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |why: &str| format!("line {}: {why}: {line}", number + 1);
        if let Some(other) = line.strip_prefix("see ") {
            words.see.extend(other.split([',', ' ']).filter(|name| !name.is_empty()));
        } else if let Some((begin, about)) = About::WORDS.iter().find(|(begin, _)| line.starts_with(begin)) {
            let (names, entry) =
                head(*about, &line[begin.len()..]).ok_or_else(|| wrong("no `: ` and text"))?;
            last = names.split(", ").map(|name| (*about, name.trim())).collect();
            for key in &last {
                if words.entries.insert(*key, entry.clone()).is_some() {
                    return Err(wrong("twice"));
                }
            }
        } else if line.starts_with(' ') {
            if last.is_empty() {
                return Err(wrong("belongs to no entry"));
            }
            for key in &last {
                let entry = words.entries.get_mut(key).expect("made above");
                go_on(entry, line.trim_start()).ok_or_else(|| wrong("a return code without a text"))?;
            }
        } else if !line.trim().is_empty() && !last.is_empty() {
            return Err(wrong("neither an entry nor indented"));
        } else if last.is_empty() {
            words.intro.push_str(line);
            words.intro.push('\n');
        }
    }
    words.intro = words.intro.trim().to_owned();
    match words.intro.is_empty() {
        true => Err("line 1: what the module is for is missing".to_owned()),
        false => Ok(words),
    }
}

/// `names(args): text` or `names = default: text`.
fn head(about: About, line: &'static str) -> Option<(&'static str, Entry)> {
    let (head, text) = line.split_once(": ")?;
    let mut entry = Entry { text: text.trim().to_owned(), ..Entry::default() };
    let names = match about {
        About::Param => {
            let (names, default) = head.split_once(" = ").map_or((head, None), |(n, d)| (n, Some(d)));
            entry.default = default;
            names
        }
        About::Function | About::Event | About::Transformation => {
            let (names, args) = head.split_once('(').unwrap_or((head, ")"));
            entry.args = args.strip_suffix(')')?.split(", ").filter(|arg| !arg.is_empty()).collect();
            names
        }
        About::Variable | About::Statistic => head,
    };
    Some((names, entry))
}

fn go_on(entry: &mut Entry, line: &'static str) -> Option<()> {
    let code = |part: &'static str| {
        let (code, what) = part.trim().split_once(": ")?;
        let number = !code.is_empty() && code.bytes().all(|b| b.is_ascii_digit() || b"-.<> ".contains(&b));
        number.then_some((code, what))
    };
    if code(line).is_some() {
        entry.returns.extend(line.split(" | ").map(code).collect::<Option<Vec<_>>>()?);
    } else {
        entry.text.push(' ');
        entry.text.push_str(line.trim_end());
    }
    Some(())
}

#[cfg(test)]
pub fn files() -> impl Iterator<Item = (&'static str, Result<Words, String>)> {
    FILES.iter().map(|(name, text)| (*name, parse(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let words = parse(
            "Hops.\n\nMore.\n\nsee rr\n\nparam a = 5 seconds: The a.\n  And more.\n\
             function f(x, y): Does it.\n  1: done | -1: not: at all\n  Always.\n",
        )
        .unwrap();
        assert_eq!(words.intro, "Hops.\n\nMore.");
        assert_eq!(words.see, ["rr"]);
        let a = &words.entries[&(About::Param, "a")];
        assert_eq!((a.default, &*a.text), (Some("5 seconds"), "The a. And more."));
        let f = &words.entries[&(About::Function, "f")];
        assert_eq!((&*f.args, &*f.text), (&["x", "y"][..], "Does it. Always."));
        assert_eq!(f.returns, [("1", "done"), ("-1", "not: at all")]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, want) in [
            ("", "line 1: what the module"),
            ("Hops.\nparam a\n", "line 2: no `: `"),
            ("Hops.\nparam a: b\nparam a: c\n", "line 3: twice"),
            ("Hops.\n  more\n", "line 2: belongs to no entry"),
            ("Hops.\nparam a: b\nmore\n", "line 3: neither"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(want), "{text:?}: {why}");
        }
    }
}
