//! Rules by prefix: the longest prefix of a number decides, among millions of rules.
//!
//! A tree whose edges hold several characters, in flat arrays: a node is 16 bytes, a rule 16, its place under a prefix and
//! a group 8. Texts and lists that several rules share are kept once. Nothing here knows a message or a database.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// There is no such list.
const NONE: u32 = u32::MAX;
/// Rules of one table at most: an entry keeps one bit for itself.
pub const MAX_RULES: usize = (1 << 31) - 1;
/// Longest prefix: a table of the reference has 64.
pub const MAX_PREFIX: usize = 255;

/// The characters that a prefix may have.
#[derive(Clone, Debug)]
pub struct Alphabet([bool; 128]);

impl Alphabet {
    /// Digits, and these characters of ASCII (`extra_prefix_chars`).
    pub fn new(extra: &str) -> Alphabet {
        let mut valid = [false; 128];
        for byte in (b'0'..=b'9').chain(extra.bytes().filter(u8::is_ascii)) {
            valid[usize::from(byte)] = true;
        }
        Alphabet(valid)
    }

    pub fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|valid| *valid)
    }
}

/// Something that a rule leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Number of a gateway or carrier.
    pub which: u32,
    pub is_carrier: bool,
    pub weight: u32,
}

/// A rule as it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub id: i32,
    /// What few rules have (times, routes, an order), known to whoever built the tree.
    pub traits: u32,
    attrs: u32,
    destinations: u32,
}

/// A rule as it comes from a table.
pub struct NewRule<'a> {
    pub id: i32,
    pub groups: &'a [u32],
    pub prefix: &'a [u8],
    /// The highest comes first.
    pub priority: u32,
    pub destinations: &'a [Destination],
    pub attrs: &'a [u8],
    pub traits: u32,
}

/// Why a rule cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unfit {
    /// This byte of its prefix is none that prefixes may have.
    Prefix(u8),
    TooLong,
    TooMany,
}

/// Lists of things, each kept once.
#[derive(Default)]
struct Arena<T> {
    items: Vec<T>,
    /// Hash of a list, where one with that hash begins. Gone when the tree stands.
    known: HashMap<u64, u32>,
}

impl<T: Copy + PartialEq + Hash> Arena<T> {
    /// Where the list stands; its items follow `head`, which tells how many they are.
    fn keep(&mut self, list: &[T], head: &[T]) -> Option<u32> {
        if list.is_empty() {
            return Some(NONE);
        }
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        let hash = hasher.finish();
        let whole = head.len() + list.len();
        if let Some(at) = self.known.get(&hash) {
            let found = self.items.get(*at as usize..*at as usize + whole);
            if found.is_some_and(|found| found[..head.len()] == *head && found[head.len()..] == *list) {
                return Some(*at);
            }
        }
        let at = u32::try_from(self.items.len()).ok().filter(|at| *at != NONE)?;
        self.items.extend_from_slice(head);
        self.items.extend_from_slice(list);
        self.known.insert(hash, at);
        Some(at)
    }
}

/// Where a rule stands: under a prefix, in a group.
struct Place {
    prefix: u32,
    length: u8,
    group: u32,
    rule: u32,
    priority: u32,
}

/// Collects rules.
pub struct Builder {
    alphabet: Alphabet,
    prefixes: Vec<u8>,
    places: Vec<Place>,
    rules: Vec<Rule>,
    attrs: Arena<u8>,
    destinations: Arena<Destination>,
}

impl Builder {
    pub fn new(alphabet: Alphabet) -> Builder {
        Builder {
            alphabet,
            prefixes: Vec::new(),
            places: Vec::new(),
            rules: Vec::new(),
            attrs: Arena::default(),
            destinations: Arena::default(),
        }
    }

    pub fn add(&mut self, new: &NewRule<'_>) -> Result<(), Unfit> {
        if let Some(bad) = new.prefix.iter().find(|byte| !self.alphabet.has(**byte)) {
            return Err(Unfit::Prefix(*bad));
        }
        let length = u8::try_from(new.prefix.len().min(MAX_PREFIX + 1)).map_err(|_| Unfit::TooLong)?;
        let attrs_length = u16::try_from(new.attrs.len()).map_err(|_| Unfit::TooLong)?;
        let prefix = u32::try_from(self.prefixes.len()).map_err(|_| Unfit::TooMany)?;
        if self.rules.len() >= MAX_RULES {
            return Err(Unfit::TooMany);
        }
        let count = Destination { which: new.destinations.len() as u32, is_carrier: false, weight: 0 };
        let rule = Rule {
            id: new.id,
            traits: new.traits,
            attrs: self.attrs.keep(new.attrs, &attrs_length.to_le_bytes()).ok_or(Unfit::TooMany)?,
            destinations: self.destinations.keep(new.destinations, &[count]).ok_or(Unfit::TooMany)?,
        };
        self.prefixes.extend_from_slice(new.prefix);
        let at = self.rules.len() as u32;
        self.rules.push(rule);
        let places = new.groups.iter().map(|group| Place {
            prefix,
            length,
            group: *group,
            rule: at,
            priority: new.priority,
        });
        self.places.extend(places);
        Ok(())
    }

    /// The tree of what was added.
    pub fn build(mut self) -> Tree {
        // What only helped to collect goes before the tree is made.
        self.attrs.known = HashMap::new();
        self.destinations.known = HashMap::new();
        let prefixes = std::mem::take(&mut self.prefixes);
        let text = |p: &Place| &prefixes[p.prefix as usize..p.prefix as usize + usize::from(p.length)];
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|a, b| {
            (text(a), a.group)
                .cmp(&(text(b), b.group))
                .then(b.priority.cmp(&a.priority))
                .then(a.rule.cmp(&b.rule))
        });
        let mut tree = Tree {
            alphabet: self.alphabet,
            nodes: vec![Node::default()],
            labels: Vec::new(),
            entries: Vec::with_capacity(places.len()),
            rules: self.rules,
            attrs: self.attrs.items,
            destinations: self.destinations.items,
        };
        let mut open = vec![Range { node: 0, from: 0, to: places.len(), depth: 0 }];
        while let Some(range) = open.pop() {
            tree.grow(&places, &text, range, &mut open);
        }
        tree.nodes.shrink_to_fit();
        tree.labels.shrink_to_fit();
        tree.rules.shrink_to_fit();
        tree.attrs.shrink_to_fit();
        tree.destinations.shrink_to_fit();
        tree
    }
}

/// Places below a node: they share the first `depth` characters.
struct Range {
    node: u32,
    from: usize,
    to: usize,
    depth: usize,
}

/// A prefix, or where several part.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Its edge: the first character, and where further ones stand.
    first: u8,
    more: u8,
    children: u16,
    label: u32,
    /// The first child; its brothers follow.
    child: u32,
    /// Where its rules begin.
    entries: u32,
}

impl Default for Node {
    fn default() -> Node {
        Node { first: 0, more: 0, children: 0, label: 0, child: 0, entries: NONE }
    }
}

/// A rule of a group under a prefix. Those of one group stand together, the highest priority first.
#[derive(Clone, Copy, Debug)]
struct Entry {
    group: u32,
    /// Its number, and in the highest bit whether it is the last under this prefix.
    rule: u32,
}

const LAST: u32 = 1 << 31;

/// A rule that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub rule: &'a Rule,
    /// How much of the number its prefix is.
    pub length: usize,
    /// Where to go on under the same prefix; 0: nothing is left there.
    pub next: usize,
}

/// All rules.
pub struct Tree {
    alphabet: Alphabet,
    nodes: Vec<Node>,
    labels: Vec<u8>,
    entries: Vec<Entry>,
    rules: Vec<Rule>,
    attrs: Vec<u8>,
    destinations: Vec<Destination>,
}

impl Tree {
    fn grow<'p>(
        &mut self,
        places: &[Place],
        text: &impl Fn(&Place) -> &'p [u8],
        range: Range,
        open: &mut Vec<Range>,
    ) {
        let Range { node, mut from, to, depth } = range;
        let own = places[from..to].iter().take_while(|p| usize::from(p.length) == depth).count();
        if own > 0 {
            self.nodes[node as usize].entries = self.entries.len() as u32;
            let list = places[from..from + own].iter();
            self.entries.extend(list.map(|p| Entry { group: p.group, rule: p.rule }));
            self.entries.last_mut().expect("at least one").rule |= LAST;
            from += own;
        }
        let first_child = self.nodes.len() as u32;
        while from < to {
            let head = text(&places[from]);
            let byte = head[depth];
            let many = places[from..to].partition_point(|p| text(p)[depth] <= byte);
            // Sorted: what the first and the last share, all share.
            let tail = text(&places[from + many - 1]);
            let shared = head.iter().zip(tail).skip(depth + 1).take_while(|(a, b)| a == b).count();
            let child =
                Node { first: byte, more: shared as u8, label: self.labels.len() as u32, ..Node::default() };
            self.labels.extend_from_slice(&head[depth + 1..depth + 1 + shared]);
            let number = self.nodes.len() as u32;
            self.nodes.push(child);
            open.push(Range { node: number, from, to: from + many, depth: depth + 1 + shared });
            from += many;
        }
        let count = self.nodes.len() as u32 - first_child;
        let node = &mut self.nodes[node as usize];
        (node.child, node.children) = (first_child, count as u16);
    }

    /// The rule with the longest prefix of `number` for this group, of those that are `open` now; under each prefix
    /// the first `from` are passed over. A number with a character that no prefix has matches nothing where a longer
    /// prefix would need it, as in the reference.
    pub fn search(
        &self,
        number: &[u8],
        group: u32,
        from: usize,
        open: impl Fn(&Rule) -> bool,
    ) -> Option<Found<'_>> {
        let mut passed = [(0u32, 0u8); MAX_PREFIX];
        let (mut count, mut node, mut depth) = (0, &self.nodes[0], 0);
        'down: while depth < number.len() && node.children > 0 {
            let byte = number[depth];
            if !self.alphabet.has(byte) {
                return None;
            }
            let first = node.child as usize;
            let children = &self.nodes[first..first + usize::from(node.children)];
            let Some(child) = children.iter().find(|child| child.first == byte) else { break };
            let label = &self.labels[child.label as usize..child.label as usize + usize::from(child.more)];
            depth += 1;
            for wanted in label {
                match number.get(depth) {
                    None => break 'down,
                    Some(byte) if !self.alphabet.has(*byte) => return None,
                    Some(byte) if byte != wanted => break 'down,
                    Some(_) => depth += 1,
                }
            }
            node = child;
            if node.entries != NONE && count < MAX_PREFIX {
                passed[count] = (node.entries, depth as u8);
                count += 1;
            }
        }
        passed[..count].iter().rev().find_map(|(entries, length)| {
            let found = self.first_open(*entries, group, from, &open)?;
            Some(Found { length: usize::from(*length), ..found })
        })
    }

    /// The same among rules without a prefix.
    pub fn default_rule(&self, group: u32, from: usize, open: impl Fn(&Rule) -> bool) -> Option<Found<'_>> {
        self.first_open(self.nodes[0].entries, group, from, &open)
    }

    fn first_open(
        &self,
        entries: u32,
        group: u32,
        from: usize,
        open: &impl Fn(&Rule) -> bool,
    ) -> Option<Found<'_>> {
        let mut at = entries as usize;
        let mut seen = 0;
        loop {
            let entry = self.entries.get(at)?;
            if entry.group == group {
                seen += 1;
                let rule = &self.rules[(entry.rule & !LAST) as usize];
                if seen > from && open(rule) {
                    let is_last = entry.rule & LAST != 0;
                    let more = !is_last && self.entries.get(at + 1).is_some_and(|next| next.group == group);
                    return Some(Found { rule, length: 0, next: if more { seen } else { 0 } });
                }
            }
            if entry.rule & LAST != 0 {
                return None;
            }
            at += 1;
        }
    }

    /// In the order of the table.
    pub fn destinations(&self, rule: &Rule) -> &[Destination] {
        let at = rule.destinations as usize;
        match self.destinations.get(at) {
            Some(head) => &self.destinations[at + 1..at + 1 + head.which as usize],
            None => &[],
        }
    }

    pub fn attrs(&self, rule: &Rule) -> &[u8] {
        let at = rule.attrs as usize;
        match self.attrs.get(at..at + 2) {
            Some(head) => {
                let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
                &self.attrs[at + 2..at + 2 + length]
            }
            None => &[],
        }
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        fn of<T>(list: &Vec<T>) -> usize {
            list.capacity() * size_of::<T>()
        }
        of(&self.nodes)
            + of(&self.labels)
            + of(&self.entries)
            + of(&self.rules)
            + of(&self.attrs)
            + of(&self.destinations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules of (prefix, group, priority), numbered from 1.
    fn tree(rules: &[(&str, u32, u32)]) -> Tree {
        let mut builder = Builder::new(Alphabet::new("+"));
        for (id, (prefix, group, priority)) in (1..).zip(rules) {
            let rule = NewRule {
                id,
                groups: &[*group],
                prefix: prefix.as_bytes(),
                priority: *priority,
                destinations: &[],
                attrs: b"",
                traits: 0,
            };
            builder.add(&rule).expect("a good rule");
        }
        builder.build()
    }

    fn found(tree: &Tree, number: &str, group: u32, from: usize) -> Option<(i32, usize, usize)> {
        let found = tree.search(number.as_bytes(), group, from, |_| true)?;
        Some((found.rule.id, found.length, found.next))
    }

    #[test]
    fn the_longest_prefix_of_the_group_decides() {
        let tree =
            tree(&[("49", 1, 0), ("4930", 1, 0), ("49301", 1, 0), ("1", 1, 0), ("4930", 2, 0), ("", 1, 0)]);
        for (number, group, expected) in [
            ("4930123", 1, Some((3, 5, 0))),
            ("4930", 1, Some((2, 4, 0))),
            ("49305", 1, Some((2, 4, 0))),
            ("4931", 1, Some((1, 2, 0))),
            ("4", 1, None),
            ("5", 1, None),
            ("", 1, None),
            ("49301", 2, Some((5, 4, 0))),
            ("493", 2, None),
            ("4930", 3, None),
        ] {
            assert_eq!(found(&tree, number, group, 0), expected, "{number} in {group}");
        }
        assert_eq!(tree.default_rule(1, 0, |_| true).map(|f| (f.rule.id, f.length)), Some((6, 0)));
        assert!(tree.default_rule(2, 0, |_| true).is_none());
    }

    #[test]
    fn strange_characters_match_nothing_where_a_longer_prefix_needs_one() {
        let tree = tree(&[("49", 1, 0), ("3", 1, 0), ("3355", 1, 0), ("+1", 1, 0)]);
        assert_eq!(found(&tree, "49x", 1, 0), Some((1, 2, 0)));
        assert_eq!(found(&tree, "33x", 1, 0), None);
        assert_eq!(found(&tree, "3x", 1, 0), None);
        assert_eq!(found(&tree, "34x", 1, 0), Some((2, 1, 0)));
        assert_eq!(found(&tree, "+12", 1, 0), Some((4, 2, 0)));
        assert_eq!(found(&tree, "x", 1, 0), None);
    }

    #[test]
    fn priorities_and_what_comes_after() {
        let tree = tree(&[("49", 1, 1), ("49", 1, 9), ("49", 2, 7), ("49", 1, 9), ("4", 1, 0)]);
        assert_eq!(found(&tree, "49", 1, 0), Some((2, 2, 1)));
        assert_eq!(found(&tree, "49", 1, 1), Some((4, 2, 2)));
        assert_eq!(found(&tree, "49", 1, 2), Some((1, 2, 0)));
        assert_eq!(found(&tree, "49", 1, 3), None);
        let closed = tree.search(b"49", 1, 0, |rule| rule.id != 2 && rule.id != 4);
        assert_eq!(closed.map(|f| f.rule.id), Some(1));
        let shorter = tree.search(b"49", 1, 0, |rule| rule.id == 5);
        assert_eq!(shorter.map(|f| (f.rule.id, f.length)), Some((5, 1)));
    }

    #[test]
    fn lists_are_kept_once() {
        let mut builder = Builder::new(Alphabet::new(""));
        let to = |which| Destination { which, is_carrier: false, weight: 0 };
        let prefixes: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        for (id, prefix) in (0..).zip(&prefixes) {
            let rule = NewRule {
                id,
                groups: &[1, 2],
                prefix: prefix.as_bytes(),
                priority: 0,
                destinations: &[to(1), to(2)],
                attrs: if id % 2 == 0 { b"even" } else { b"odd" },
                traits: 0,
            };
            builder.add(&rule).expect("a good rule");
        }
        let tree = builder.build();
        let rule = tree.search(b"77", 2, 0, |_| true).expect("a rule").rule;
        assert_eq!((rule.id, tree.attrs(rule)), (77, &b"odd"[..]));
        assert_eq!(tree.destinations(rule), [to(1), to(2)]);
        assert_eq!((tree.destinations.len(), tree.attrs.len(), tree.count()), (3, 6 + 5, 1000));
    }

    #[test]
    fn every_number_finds_what_a_plain_search_finds() {
        // A fixed sequence of numbers that looks random.
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        let mut number = |longest: u64| -> String {
            let length = next(longest) + 1;
            (0..length).map(|_| char::from(b'0' + next(4) as u8)).collect()
        };
        let prefixes: Vec<String> = (0..3000).map(|_| number(7)).collect();
        let list: Vec<(&str, u32, u32)> = prefixes.iter().map(|p| (p.as_str(), 1, 0)).collect();
        let tree = tree(&list);
        for _ in 0..3000 {
            let wanted = number(9);
            let plain = prefixes.iter().filter(|p| wanted.starts_with(p.as_str())).map(String::len).max();
            assert_eq!(found(&tree, &wanted, 1, 0).map(|f| f.1), plain, "{wanted}");
        }
    }

    #[test]
    fn unfit_rules_are_refused() {
        let mut builder = Builder::new(Alphabet::new(""));
        let mut add = |prefix: &[u8]| {
            let rule = NewRule {
                id: 1,
                groups: &[1],
                prefix,
                priority: 0,
                destinations: &[],
                attrs: b"",
                traits: 0,
            };
            builder.add(&rule)
        };
        assert_eq!(add(b"49x"), Err(Unfit::Prefix(b'x')));
        assert_eq!(add(&[b'1'; 256]), Err(Unfit::TooLong));
        assert_eq!(add(&[b'1'; 255]), Ok(()));
    }
}
