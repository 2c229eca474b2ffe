//! Whether something may be chosen, and who has still to hear of it: the table, the other servers.

use super::State;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The state of a destination, or of a carrier. Shared by all workers.
pub struct Standing {
    state: AtomicU8,
    /// It changed since the table was written.
    unsaved: AtomicBool,
    /// It changed since other servers were told (`SharedStates`).
    untold: AtomicBool,
}

impl Standing {
    pub fn new(state: State) -> Standing {
        let clean = || AtomicBool::new(false);
        Standing { state: AtomicU8::new(state as u8), unsaved: clean(), untold: clean() }
    }

    pub fn state(&self) -> State {
        State::of_column(self.state.load(Ordering::Relaxed).into()).unwrap_or(State::Active)
    }

    /// Changes the state, to be saved and told; false: it was that already.
    pub fn set(&self, state: State) -> bool {
        let changed = self.state.swap(state as u8, Ordering::Relaxed) != state as u8;
        if changed {
            self.unsaved.store(true, Ordering::Relaxed);
            self.untold.store(true, Ordering::Relaxed);
        }
        changed
    }

    /// The state that the table says.
    pub fn load(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.unsaved.store(false, Ordering::Relaxed);
        self.untold.store(false, Ordering::Relaxed);
    }

    /// It must be saved; it counts as saved from here on.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::Relaxed)
    }

    /// It could not be saved.
    pub fn note_unsaved(&self) {
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// Other servers must be told; they count as told from here on.
    pub(super) fn take_untold(&self) -> bool {
        self.untold.swap(false, Ordering::Relaxed)
    }

    /// They could not be told.
    pub(super) fn note_untold(&self) {
        self.untold.store(true, Ordering::Relaxed);
    }

    /// They are still to be told.
    pub(super) fn is_untold(&self) -> bool {
        self.untold.load(Ordering::Relaxed)
    }
}
