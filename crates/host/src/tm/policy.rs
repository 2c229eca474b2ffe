//! What a configuration says about how requests and replies are handled. Workers take it when they start.

use super::Settings;
use super::blacklist::{Blacklist, Blacklists};
use super::reply::Signature;
use crate::context::shared::Shared;
use crate::language::loader::Loader;
use std::sync::Arc;

/// The same for all workers.
pub struct Policy {
    pub settings: Settings,
    pub signature: Signature,
    pub blacklists: Arc<Blacklists>,
    /// Replies of no transaction are sent on: the script uses `forward()`, or `disable_stateless_fwd=no`.
    pub forwards: bool,
    /// `disable_503_translation`: a 503 goes upstream as it is.
    pub keeps_503: bool,
    /// `sip_warning`: replies made here explain themselves in a Warning header.
    pub warns: bool,
    /// `mhomed`: the route to the destination chooses the socket.
    pub mhomed: bool,
    /// `reply_to_via`: replies go to the address in the Via.
    pub reply_to_via: bool,
    /// `disable_dns_failover`: a branch tries one address only.
    pub no_failover: bool,
    /// `check_via`: replies are sent on only when they came to the address in their Via.
    pub check_via: bool,
    /// `udp_mtu`: longer requests leave by TCP; `usize::MAX`: none.
    pub longest_datagram: usize,
}

/// A function that forwards without a transaction is used.
#[derive(Clone, Copy, Default)]
struct Forwards(bool);

impl Loader {
    /// What module tm was told.
    pub fn set_transactions(&mut self, settings: Settings) {
        *self.part() = settings;
    }

    /// The script forwards without transactions.
    pub fn use_forward(&mut self) {
        self.part::<Forwards>().0 = true;
    }

    /// It does.
    pub(crate) fn uses_forward(&self) -> bool {
        self.find_part::<Forwards>().is_some_and(|forwards| forwards.0)
    }

    /// The lists of `dst_blacklist` and of modules.
    pub fn blacklists(&mut self) -> &Arc<Blacklists> {
        self.part()
    }

    /// Makes a list that a module fills; its place. The error is what a user should read.
    pub fn add_blacklist(&mut self, name: &str, owner: &'static str) -> Result<usize, String> {
        let lists = self.part::<Arc<Blacklists>>();
        let lists = Arc::get_mut(lists).expect("shared once everything is loaded");
        if lists.push(Blacklist::of_module(name, owner)) {
            return Ok(lists.all().count() - 1);
        }
        Err(format!("blacklist {name} exists already, or there are more than 64"))
    }
}

impl Shared {
    pub fn policy(&self) -> &Arc<Policy> {
        self.part()
    }
}

impl Policy {
    pub(crate) fn new(loader: &mut Loader) -> Policy {
        let core = loader.globals.core.clone();
        Policy {
            signature: Signature::new(&core),
            forwards: loader.uses_forward() || core.disable_stateless_fwd == Some(false),
            keeps_503: core.disable_503_translation,
            warns: core.sip_warning,
            mhomed: core.mhomed,
            reply_to_via: core.reply_to_via,
            no_failover: core.disable_dns_failover,
            check_via: core.check_via,
            longest_datagram: match core.udp_mtu {
                0 => usize::MAX,
                bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            blacklists: loader.blacklists().clone(),
            settings: loader.part::<Settings>().clone(),
        }
    }
}
