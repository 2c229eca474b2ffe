//! Documents of users that say who may watch them and what each is shown. `presence` asks; a module like `presence_xml` has
//! them.

use super::subscription::{Reason, Status};
use bytes::Bytes;
use host::Ctx;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// An answer that may have to be fetched, on one worker.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>>>>;

/// Where documents are.
pub trait Documents: Send + Sync {
    /// A reader for futures of this worker.
    fn open(&self, ctx: &mut Ctx) -> Rc<dyn Reader>;
}

/// Reads documents of one user after the other.
pub trait Reader {
    fn policy(&self, user: &Bytes, domain: &Bytes) -> Answer<Policy>;
    /// What is shown while nothing is published.
    fn permanent(&self, user: &Bytes, domain: &Bytes) -> Answer<Option<Bytes>>;
}

/// What the documents of a user say.
#[derive(Clone)]
pub enum Policy {
    /// Nobody is asked.
    Everybody,
    /// The user has no document.
    Unsaid,
    Rules(Arc<dyn Rules>),
}

/// Somebody who watches.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    pub user: Bytes,
    pub domain: Bytes,
    /// Where the watched user is now (RFC 4480 sphere), if that is known.
    pub sphere: Option<String>,
    /// Unix seconds.
    pub now: i64,
}

/// What a rule says of a subscription (RFC 5025 §3.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Handling {
    Block,
    Confirm,
    PoliteBlock,
    Allow,
}

/// A document with rules, read.
pub trait Rules: Send + Sync {
    /// `None`: no rule is about this watcher.
    fn handling(&self, watcher: &Watcher) -> Option<Handling>;
    /// The body as this watcher may see it; `None`: as it is.
    fn shown(&self, watcher: &Watcher, body: &Bytes) -> Option<Bytes>;
}

impl Policy {
    /// The state of a subscription, which was `before` until now.
    pub fn decide(&self, watcher: &Watcher, before: Status) -> (Status, Reason) {
        let rules = match self {
            Policy::Everybody => return (Status::Active, Reason::NONE),
            Policy::Unsaid => return (Status::Pending, Reason::NONE),
            Policy::Rules(rules) => rules,
        };
        match rules.handling(watcher) {
            None if before == Status::Pending => (Status::Pending, Reason::NONE),
            None => (Status::Terminated, Reason::DEACTIVATED),
            Some(Handling::Block) => (Status::Terminated, Reason::REJECTED),
            Some(Handling::Confirm) => (Status::Pending, Reason::NONE),
            Some(Handling::PoliteBlock) => (Status::Active, Reason::POLITE_BLOCK),
            Some(Handling::Allow) => (Status::Active, Reason::NONE),
        }
    }

    pub fn shown(&self, watcher: &Watcher, body: &Bytes) -> Bytes {
        match self {
            Policy::Rules(rules) => rules.shown(watcher, body).unwrap_or_else(|| body.clone()),
            Policy::Everybody | Policy::Unsaid => body.clone(),
        }
    }
}
