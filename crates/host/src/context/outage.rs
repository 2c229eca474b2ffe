//! One line when a server is lost and one when it is back, though each worker has connections of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a server is lost. Clones are about the same server.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<AtomicBool>);

impl Outage {
    /// A worker has lost the server. True: it is the first one to notice.
    pub fn begins(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The server is lost now.
    pub fn lasts(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// A worker reaches the server. True: it was lost, and this is the first one that does again.
    pub fn ends(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tells() {
        let outage = Outage::default();
        let other = outage.clone();
        assert!(!outage.ends());
        assert_eq!((outage.begins(), other.begins()), (true, false));
        assert_eq!((other.ends(), outage.ends()), (true, false));
        assert!(other.begins());
    }
}
