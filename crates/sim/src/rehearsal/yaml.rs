//! YAML as a tree that remembers its lines: scalars stay the text that was written.

use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Lists and maps in each other; more is refused.
const MAX_DEPTH: usize = 50;

/// Values of one file, those that aliases repeat among them; more is refused.
const MAX_NODES: usize = 100_000;

/// What is wrong with a file of scenarios, and on which line (from 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub line: usize,
    pub text: String,
}

impl Problem {
    pub fn new(line: usize, text: impl Into<String>) -> Problem {
        Problem { line, text: text.into() }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub line: usize,
    pub kind: NodeKind,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Nothing, `~` or `null`.
    Null,
    Text(String),
    List(Vec<Node>),
    /// (key, its line, value), as written.
    Map(Vec<(String, usize, Node)>),
}

type Entries<'a> = &'a [(String, usize, Node)];

impl Node {
    pub fn text(&self, what: &str) -> Result<&str, Problem> {
        match &self.kind {
            NodeKind::Text(text) => Ok(text),
            NodeKind::Null => Ok(""),
            _ => Err(Problem::new(self.line, format!("{what} is a text here"))),
        }
    }

    pub fn map(&self, what: &str) -> Result<Entries<'_>, Problem> {
        match &self.kind {
            NodeKind::Map(entries) => Ok(entries),
            NodeKind::Null => Ok(&[]),
            _ => Err(Problem::new(self.line, format!("{what} is a map here (name: value)"))),
        }
    }

    pub fn list(&self, what: &str) -> Result<&[Node], Problem> {
        match &self.kind {
            NodeKind::List(list) => Ok(list),
            NodeKind::Null => Ok(&[]),
            _ => Err(Problem::new(self.line, format!("{what} is a list here (lines that begin with `- `)"))),
        }
    }

    /// It and all values in it.
    fn count(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Null | NodeKind::Text(_) => 0,
            NodeKind::List(list) => list.iter().map(Node::count).sum(),
            NodeKind::Map(entries) => entries.iter().map(|(.., node)| node.count()).sum(),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Map(entries) => entries.iter().find(|(k, ..)| k == key).map(|(.., node)| node),
            _ => None,
        }
    }

    /// Refuses keys that mean nothing, with the nearest that does.
    pub fn only(&self, what: &str, known: &[&str]) -> Result<(), Problem> {
        for (key, line, _) in self.map(what)? {
            if !known.contains(&key.as_str()) {
                let hint = match script::nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are {}", known.join(", ")),
                };
                return Err(Problem::new(*line, format!("{what} knows no `{key}`: {hint}")));
            }
        }
        Ok(())
    }
}

/// What is being built.
enum Open {
    List(usize, Vec<Node>),
    /// The key that waits for its value.
    Map(usize, Vec<(String, usize, Node)>, Option<(String, usize)>),
}

/// Reads the first document of a text.
pub fn parse(text: &str) -> Result<Node, Problem> {
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut nodes = 0;
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| Problem::new(e.marker().line(), format!("this is no YAML: {}", e.info())))?;
        let line = span.start.line();
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let kind = if null { NodeKind::Null } else { NodeKind::Text(text.into_owned()) };
                (Node { line, kind }, anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some((node, count)) => {
                    nodes += count;
                    if nodes > MAX_NODES {
                        return Err(Problem::new(
                            line,
                            format!("more than {MAX_NODES} values, with what aliases repeat"),
                        ));
                    }
                    (node.clone(), 0)
                }
                None => return Err(Problem::new(line, "this alias has no anchor")),
            },
            Event::SequenceStart(anchor, _) => {
                open.push((Open::List(line, Vec::new()), anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push((Open::Map(line, Vec::new(), None), anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((Open::List(line, list), anchor)) => (Node { line, kind: NodeKind::List(list) }, anchor),
                Some((Open::Map(line, map, _), anchor)) => (Node { line, kind: NodeKind::Map(map) }, anchor),
                None => continue,
            },
            Event::DocumentEnd => break,
            _ => continue,
        };
        if open.len() > MAX_DEPTH {
            return Err(Problem::new(line, "nested too deep"));
        }
        if anchor > 0 {
            let count = node.count();
            nodes += count;
            anchors.insert(anchor, (node.clone(), count));
        }
        match open.last_mut() {
            None => root = Some(node),
            Some((Open::List(_, list), _)) => list.push(node),
            Some((Open::Map(_, map, key), _)) => match key.take() {
                None => *key = Some((node.text("a key")?.to_string(), node.line)),
                Some((name, at)) if map.iter().any(|(known, ..)| *known == name) => {
                    return Err(Problem::new(at, format!("`{name}` stands here twice")));
                }
                Some((name, at)) => map.push((name, at, node)),
            },
        }
    }
    root.ok_or_else(|| Problem::new(1, "the file is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_texts_stay_as_written() {
        let tree =
            parse("a: 0123\nb:\n  - x y: |\n      one\n      two\n  - &n {k: 'null'}\n  - *n\nc:\n").unwrap();
        assert_eq!(tree.get("a").unwrap().text("a").unwrap(), "0123");
        let list = tree.get("b").unwrap().list("b").unwrap();
        assert_eq!((list[0].line, list[0].get("x y").unwrap().text("x").unwrap()), (3, "one\ntwo\n"));
        assert_eq!(list[2].get("k").unwrap().text("k").unwrap(), "null");
        assert!(tree.get("c").unwrap().is_null());
    }

    /// Each level repeats the one before ten times.
    #[test]
    fn aliases_do_not_multiply_for_ever() {
        let mut text = String::from("a0: &a0 [x]\n");
        for n in 1..12 {
            let before = format!("*a{},", n - 1).repeat(10);
            text += &format!("a{n}: &a{n} [{before}]\n");
        }
        let problem = parse(&text).unwrap_err();
        assert!(problem.text.contains("aliases repeat"), "{problem:?}");
    }

    #[test]
    fn problems_name_their_line() {
        for (text, line, words) in [("a: [1, 2", 1, "no YAML"), ("a: 1\na: 2", 2, "twice"), ("", 1, "empty")]
        {
            let problem = parse(text).unwrap_err();
            assert!(problem.line >= line && problem.text.contains(words), "{problem:?}");
        }
        let wrong = parse("scenarois: 1").unwrap().only("the file", &["scenarios"]).unwrap_err();
        assert!(wrong.text.contains("did you mean `scenarios`?"), "{wrong:?}");
    }
}
