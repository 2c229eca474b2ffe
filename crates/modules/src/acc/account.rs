//! What accounting knows of one transaction: what to report where, extra values, legs.

use super::Acc;
use bytes::Bytes;
use host::Ctx;
use std::cell::RefCell;
use std::rc::Rc;
use transaction::TxnId;

/// Where reports go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Log,
    Db,
    Aaa,
    Evi,
}

impl Backend {
    pub const ALL: [Backend; 4] = [Backend::Log, Backend::Db, Backend::Aaa, Backend::Evi];

    pub fn parse(word: &[u8]) -> Option<Backend> {
        const WORDS: [(&[u8], Backend); 4] =
            [(b"log", Backend::Log), (b"db", Backend::Db), (b"aaa", Backend::Aaa), (b"evi", Backend::Evi)];
        WORDS.iter().find(|(w, _)| w.eq_ignore_ascii_case(word)).map(|(_, b)| *b)
    }
}

/// What is reported to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Completed transactions.
    Answered,
    /// One record for a whole call.
    Cdr,
    Missed,
    /// Completed transactions also when they failed.
    Failed,
}

impl What {
    pub fn parse(word: &[u8]) -> Option<What> {
        const WORDS: [(&[u8], What); 3] =
            [(b"cdr", What::Cdr), (b"missed", What::Missed), (b"failed", What::Failed)];
        WORDS.iter().find(|(w, _)| w.eq_ignore_ascii_case(word)).map(|(_, w)| *w)
    }
}

/// A set of (backend, what): four bits for each backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks(u16);

impl Marks {
    pub fn of(backend: Backend, what: What) -> Marks {
        Marks(1 << (backend as u16 * 4 + what as u16))
    }
    pub fn all_of(backend: Backend) -> Marks {
        Marks(0xf << (backend as u16 * 4))
    }
    /// As it is kept with a call.
    pub fn bits(self) -> u16 {
        self.0
    }
    pub fn of_bits(bits: u16) -> Marks {
        Marks(bits)
    }
    pub fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }
    pub fn without(self, other: Marks) -> Marks {
        Marks(self.0 & !other.0)
    }
    pub fn has(self, backend: Backend, what: What) -> bool {
        self.0 & Marks::of(backend, what).0 != 0
    }
    /// For any backend.
    pub fn any(self, what: What) -> bool {
        Backend::ALL.iter().any(|b| self.has(*b, what))
    }
}

/// The accounting of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub marks: Marks,
    /// Table of completed transactions; `None`: `db_table_acc`.
    pub table: Option<Bytes>,
    /// Unix seconds when the request came in.
    pub created: u64,
    /// Values by the index of their tag.
    pub extra: Vec<Option<Bytes>>,
    pub legs: Vec<Vec<Option<Bytes>>>,
}

/// Legs of one call; a script that loops does not get more.
pub const MAX_LEGS: usize = 1000;

impl Account {
    fn new(module: &Acc, created: u64) -> Account {
        let legs =
            if module.legs.tags.is_empty() { Vec::new() } else { vec![vec![None; module.legs.tags.len()]] };
        Account { created, extra: vec![None; module.extra.tags.len()], legs, ..Account::default() }
    }
}

pub type Shared = Rc<RefCell<Account>>;

/// The account of a message, kept with it.
#[derive(Clone, Default)]
struct Link(Option<Shared>);

/// The account of the current message or its transaction, if there is one.
pub fn find(ctx: &mut Ctx) -> Option<Shared> {
    if let Some(account) = ctx.state.ext.find::<Link>().and_then(|link| link.0.clone()) {
        return Some(account);
    }
    let of_txn = ctx.state.txn.and_then(|id| of(ctx, id));
    of_txn.or_else(|| super::cdr::account_of(ctx))
}

/// The same, made when there is none.
pub fn entry(ctx: &mut Ctx, module: &Acc) -> Shared {
    if let Some(account) = find(ctx) {
        keep(ctx, &account);
        return account;
    }
    let account = fresh(ctx, module);
    keep(ctx, &account);
    account
}

/// An account of this message alone, whatever its call has.
pub fn own(ctx: &mut Ctx, module: &Acc) -> Shared {
    let linked = ctx.state.ext.find::<Link>().and_then(|link| link.0.clone());
    if let Some(account) = linked {
        return account;
    }
    let account = fresh(ctx, module);
    keep(ctx, &account);
    account
}

fn fresh(ctx: &mut Ctx, module: &Acc) -> Shared {
    let waited_ms = ctx.core.now.0.saturating_sub(ctx.state.received_at.0);
    let created = (ctx.core.wall_us / 1000).saturating_sub(waited_ms) / 1000;
    Rc::new(RefCell::new(Account::new(module, created)))
}

/// Links an account with the current message and its transaction.
fn keep(ctx: &mut Ctx, account: &Shared) {
    ctx.state.ext.set(Link(Some(account.clone())));
    if let Some(id) = ctx.state.txn {
        link(ctx, id, account);
    }
}

fn link(ctx: &mut Ctx, id: TxnId, account: &Shared) {
    if let Some(ext) = ctx.ext_of(id) {
        ext.set(Link(Some(account.clone())));
    }
}

/// The account of a transaction.
pub fn of(ctx: &mut Ctx, id: TxnId) -> Option<Shared> {
    ctx.ext_of(id)?.find::<Link>()?.0.clone()
}

/// The transaction of the current message was made: routes of its replies find the account too.
pub fn adopt(ctx: &mut Ctx, id: TxnId) {
    if let Some(account) = ctx.state.ext.find::<Link>().and_then(|link| link.0.clone()) {
        link(ctx, id, &account);
    }
}
