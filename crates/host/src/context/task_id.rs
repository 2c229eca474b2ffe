//! Which operation.

/// A suspended script, or any operation that a script or module waits for; stale copies find nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TaskId {
    pub index: u32,
    pub generation: u32,
}
