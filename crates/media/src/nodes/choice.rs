//! Which engine of a set a call gets: by its Call-ID and the weights, so that every command of a call finds the same one.

use super::{Node, Set};
use std::sync::Arc;

/// The engine for a Call-ID; `None`: none is in order. `passed_over`: those that have refused this call.
pub fn choose(set: &Set, call_id: &[u8], passed_over: impl Fn(&Node) -> bool) -> Option<Arc<Node>> {
    let usable = |node: &Node| !node.is_disabled() && !passed_over(node);
    if let [only] = &set.nodes[..] {
        return usable(only).then(|| only.clone());
    }
    let sum = call_id.iter().fold(0_u32, |sum, b| sum.wrapping_add(u32::from(*b))) & 0xff;
    let sum = i64::from(sum);
    let all: i64 = set.nodes.iter().map(|node| i64::from(node.weight)).sum();
    let left: i64 = set.nodes.iter().filter(|node| usable(node)).map(|node| i64::from(node.weight)).sum();
    if !set.nodes.iter().any(|node| usable(node)) {
        return None;
    }
    let mut cut = if left > 0 { sum % all } else { -1 };
    let mut again = false;
    let mut at = 0;
    while let Some(node) = set.nodes.get(at) {
        if cut < i64::from(node.weight) {
            if usable(node) {
                return Some(node.clone());
            }
            if !again {
                // The right one is out of order: its calls are spread over those that are left.
                (cut, at, again) = (if left > 0 { sum % left } else { -1 }, 0, true);
                continue;
            }
        }
        if !node.is_disabled() || !again {
            cut -= i64::from(node.weight);
        }
        at += 1;
    }
    None
}
