//! Attribute-value pairs: named stacks of values shared by a transaction and its messages.

use crate::context::ctx::Ctx;
use crate::context::var::At;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::RwLock;
use script::Value;
use script::ast::{AssignOp, Dialect};
use std::sync::LazyLock;

/// An interned AVP name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AvpName(pub u32);

/// Names are few and come from scripts; those built at run time (`$(avp($var(x)))`) are bounded by this. What is more
/// is [`AvpName::NONE`], and told once.
const MAX_NAMES: usize = 1 << 20;

#[derive(Default)]
struct Names {
    ids: AHashMap<Bytes, u32>,
    texts: Vec<Bytes>,
    /// The bound was reached, and told.
    full: bool,
}

static NAMES: LazyLock<RwLock<Names>> = LazyLock::new(Default::default);

impl AvpName {
    /// A name for which there was no room: it never has a value.
    pub const NONE: AvpName = AvpName(u32::MAX);

    /// The name's number; the same text always gives the same one.
    pub fn new(name: &[u8]) -> AvpName {
        if let Some(id) = NAMES.read().ids.get(name) {
            return AvpName(*id);
        }
        let mut names = NAMES.write();
        if let Some(id) = names.ids.get(name) {
            return AvpName(*id);
        }
        if names.texts.len() >= MAX_NAMES {
            if !std::mem::replace(&mut names.full, true) {
                crate::error!(
                    "core",
                    "{MAX_NAMES} names of AVPs are in use: $avp({}) and other new ones are not kept; names that are made \
                     of values of messages never end",
                    String::from_utf8_lossy(name)
                );
            }
            return AvpName::NONE;
        }
        let id = names.texts.len() as u32;
        let name = Bytes::copy_from_slice(name);
        names.texts.push(name.clone());
        names.ids.insert(name, id);
        AvpName(id)
    }

    pub fn text(self) -> Bytes {
        NAMES.read().texts.get(self.0 as usize).cloned().unwrap_or_default()
    }
}

/// The AVPs of one message or transaction. Index 0 is the value added last.
#[derive(Clone, Debug, Default)]
pub struct Avps {
    /// Oldest first.
    list: Vec<(AvpName, Value)>,
    /// Those that are in a database, where they were loaded from or stored.
    stored: Vec<(AvpName, Value)>,
}

impl Avps {
    pub fn add(&mut self, name: AvpName, value: Value) {
        if name == AvpName::NONE {
            return;
        }
        if self.list.capacity() == 0 {
            // Most calls have one or two, and each of many waiting calls keeps its own.
            self.list.reserve_exact(1);
        }
        self.list.push((name, value));
    }

    /// Adds as the oldest: it becomes the last index.
    pub fn add_last(&mut self, name: AvpName, value: Value) {
        if name != AvpName::NONE {
            self.list.insert(0, (name, value));
        }
    }

    /// Values, newest first.
    pub fn values(&self, name: AvpName) -> impl Iterator<Item = &Value> {
        self.list.iter().rev().filter(move |(n, _)| *n == name).map(|(_, v)| v)
    }

    pub fn first(&self, name: AvpName) -> Option<&Value> {
        self.values(name).next()
    }

    pub fn at(&self, name: AvpName, index: i32) -> Option<&Value> {
        if index >= 0 {
            self.values(name).nth(index as usize)
        } else {
            // -1 is the oldest
            self.list.iter().filter(|(n, _)| *n == name).map(|(_, v)| v).nth((-(index + 1)) as usize)
        }
    }

    pub fn count(&self, name: AvpName) -> usize {
        self.list.iter().filter(|(n, _)| *n == name).count()
    }

    /// Replaces the i-th value (0 newest); false when there is none.
    pub fn replace(&mut self, name: AvpName, index: i32, value: Value) -> bool {
        match self.position(name, index) {
            Some(at) => {
                self.list[at].1 = value;
                true
            }
            None => false,
        }
    }

    pub fn remove(&mut self, name: AvpName, index: i32) -> bool {
        match self.position(name, index) {
            Some(at) => {
                self.list.remove(at);
                true
            }
            None => false,
        }
    }

    /// Removes all values of a name; how many there were.
    pub fn remove_all(&mut self, name: AvpName) -> usize {
        let before = self.list.len();
        self.list.retain(|(n, _)| *n != name);
        before - self.list.len()
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Puts a value behind the one at `index - 1`, so that it gets this index; behind the last when
    /// there are fewer.
    pub fn insert(&mut self, name: AvpName, index: usize, value: Value) {
        let before = index.min(self.count(name));
        let at = match before {
            0 => None,
            n => self.position(name, n as i32 - 1),
        };
        if name != AvpName::NONE {
            self.list.insert(at.unwrap_or(self.list.len()), (name, value));
        }
    }

    /// Notes that a database has this pair.
    pub fn mark_stored(&mut self, name: AvpName, value: Value) {
        self.stored.push((name, value));
    }

    /// Pairs that no database has, newest first.
    pub fn unstored(&self) -> Vec<(AvpName, Value)> {
        let mut stored = self.stored.clone();
        let known = |pair: &(AvpName, Value), stored: &mut Vec<_>| {
            let at = stored.iter().position(|s| s == pair);
            at.map(|at| stored.swap_remove(at)).is_some()
        };
        self.iter().filter(|pair| !known(pair, &mut stored)).cloned().collect()
    }

    /// All pairs, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &(AvpName, Value)> {
        self.list.iter().rev()
    }

    fn position(&self, name: AvpName, index: i32) -> Option<usize> {
        let mut found = self.list.iter().enumerate().filter(|(_, (n, _))| *n == name).map(|(i, _)| i);
        if index >= 0 { found.rev().nth(index as usize) } else { found.nth((-(index + 1)) as usize) }
    }
}

/// Reads by index: none is the newest, `[*]` joins all.
pub fn read(ctx: &mut Ctx, name: AvpName, at: At) -> Value {
    let avps = ctx.state.avps.borrow();
    match at {
        At::None => avps.first(name).cloned().unwrap_or_default(),
        At::Index(n) => avps.at(name, n).cloned().unwrap_or_default(),
        At::Append => Value::Null,
        At::All => crate::context::list::join(avps.values(name).cloned()),
    }
}

/// `=` adds, with an index it replaces, and so do `+=` and its like; NULL removes one (`:=` or `[*]`: all).
pub fn assign(ctx: &mut Ctx, name: AvpName, at: At, op: AssignOp, value: Value) -> bool {
    let old = ctx.core.shared.dialect == Dialect::V21;
    let from_end = matches!(at, At::Index(..0)) && value.is_null();
    // 2.1 knows no negative index when it removes.
    !(old && from_end) && change(&mut ctx.state.avps.borrow_mut(), name, at, op, value)
}

/// The same in any list.
pub fn change(avps: &mut Avps, name: AvpName, at: At, op: AssignOp, value: Value) -> bool {
    match (at, value.is_null()) {
        (At::All, true) => {
            avps.remove_all(name);
            true
        }
        (At::Append, true) => false,
        (At::Append, false) => {
            avps.add_last(name, value);
            true
        }
        (At::Index(n), true) => avps.remove(name, n),
        (At::Index(n), false) => avps.replace(name, n, value),
        (At::All, false) => {
            avps.remove_all(name);
            avps.add(name, value);
            true
        }
        (At::None, null) => {
            match op {
                AssignOp::SetOver => {
                    avps.remove_all(name);
                }
                // The result takes the place of the value it was made from.
                AssignOp::Set if null => {
                    avps.remove(name, 0);
                }
                AssignOp::Set => {}
                _ => {
                    avps.remove(name, 0);
                }
            }
            if !null {
                avps.add(name, value);
            }
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(avps: &Avps, name: AvpName) -> Vec<i64> {
        avps.values(name).filter_map(Value::int).collect()
    }

    #[test]
    fn values_are_inserted_by_index() {
        let (x, y) = (AvpName::new(b"insert_x"), AvpName::new(b"insert_y"));
        for (index, expected) in [(0, [9, 3, 2, 1]), (1, [3, 9, 2, 1]), (3, [3, 2, 1, 9]), (7, [3, 2, 1, 9])]
        {
            let mut avps = Avps::default();
            for n in 1..4 {
                avps.add(x, n.into());
                avps.add(y, n.into());
            }
            avps.insert(x, index, 9.into());
            assert_eq!(list(&avps, x), expected);
            assert_eq!(list(&avps, y), [3, 2, 1]);
        }
        let mut avps = Avps::default();
        avps.insert(x, 5, 1.into());
        assert_eq!(list(&avps, x), [1]);
    }

    #[test]
    fn what_a_database_has_is_known_by_its_value() {
        let x = AvpName::new(b"stored_x");
        let mut avps = Avps::default();
        avps.add(x, 1.into());
        avps.mark_stored(x, 1.into());
        avps.add(x, 2.into());
        avps.add(x, 1.into());
        assert_eq!(avps.unstored(), [(x, 2.into()), (x, 1.into())]);
    }
}
