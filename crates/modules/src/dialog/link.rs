//! Which dialog a message belongs to: kept with the message, its copies and its transaction.

use super::cell::{CALLER, Data, Direction, LegNo};
use super::table::{self, Key};
use host::Ctx;
use script::ast::RouteKind;
use transaction::TxnId;

/// What a message knows of its dialog, and what the script set before there was one.
#[derive(Clone, Default, Debug)]
pub struct Link {
    pub key: Option<Key>,
    /// The end that the request goes to.
    pub towards: Option<LegNo>,
    /// `$DLG_timeout`, `$DLG_options_ping_interval`, `$DLG_reinvite_ping_interval` set in advance; seconds.
    pub timeout: Option<u32>,
    pub options: Option<u32>,
    pub reinvites: Option<u32>,
    /// A request inside the dialog that was given another CSeq: the one it came with.
    pub came_with_cseq: Option<u32>,
    /// The context of another dialog (`load_dialog_ctx`); while it is there it is the current one.
    pub loaded: Option<Loaded>,
}

/// A dialog whose context the script looks at.
#[derive(Clone, Debug)]
pub enum Loaded {
    Here(Key),
    /// It lives on another worker: a copy, and who gets the changes.
    Copy(std::rc::Rc<super::context::Copy>),
}

/// The dialog that a script's functions and variables mean.
#[derive(Clone, Debug)]
pub enum Current {
    Here(Key),
    Copy(std::rc::Rc<super::context::Copy>),
}

/// Sets the dialog of the current message and, if there is one, of its transaction.
pub fn set(ctx: &mut Ctx, key: Key, towards: LegNo) {
    let link = ctx.state.ext.entry::<Link>();
    (link.key, link.towards) = (Some(key), Some(towards));
    keep(ctx);
}

/// What the current message knows goes to its transaction.
pub fn keep(ctx: &mut Ctx) {
    let Some(id) = ctx.state.txn else { return };
    let Some(link) = ctx.state.ext.find::<Link>().filter(|link| link.key.is_some()) else { return };
    let link = Link { loaded: None, ..link.clone() };
    if let Some(ext) = ctx.ext_of(id) {
        ext.set(link);
    }
}

/// What a transaction knows.
fn kept(ctx: &mut Ctx, id: TxnId) -> Option<Link> {
    ctx.ext_of(id)?.find::<Link>().cloned()
}

/// The link of the current message: its own, that of its transaction, or, for a request that the server makes,
/// that of the dialog it is sent in.
pub fn find(ctx: &mut Ctx) -> Option<Link> {
    if let Some(link) = ctx.state.ext.find::<Link>()
        && (link.key.is_some() || link.loaded.is_some())
    {
        return Some(link.clone());
    }
    if let Some(id) = ctx.state.txn
        && let Some(link) = kept(ctx, id)
    {
        return Some(link);
    }
    if ctx.state.kind == RouteKind::Local {
        let (key, towards) = super::matching::by_elements(ctx)?;
        return Some(Link { key: Some(key), towards: Some(towards), ..Link::default() });
    }
    None
}

/// The dialog in whose context the script runs.
pub fn current(ctx: &mut Ctx) -> Option<Current> {
    let link = find(ctx)?;
    match link.loaded {
        Some(Loaded::Here(key)) => Some(Current::Here(key)),
        Some(Loaded::Copy(copy)) => Some(Current::Copy(copy)),
        None => link.key.map(Current::Here),
    }
    .filter(|current| match current {
        Current::Here(key) => table::of(ctx).get(*key).is_some(),
        Current::Copy(_) => true,
    })
}

/// The dialog of the current message itself, whatever context is loaded.
pub fn own(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    let link = find(ctx)?;
    let key = link.key?;
    table::of(ctx).get(key)?;
    Some((key, link.towards.unwrap_or(1)))
}

/// Reads the current dialog.
pub fn read<T>(ctx: &mut Ctx, look: impl FnOnce(&Data) -> T) -> Option<T> {
    match current(ctx)? {
        Current::Here(key) => table::of(ctx).get(key).map(|dialog| look(&dialog.data)),
        Current::Copy(copy) => Some(look(&copy.dialog.borrow())),
    }
}

/// Which way the current message goes; replies go against their request. `None` in a loaded context.
pub fn direction(ctx: &mut Ctx) -> Option<Direction> {
    let link = find(ctx)?;
    if link.loaded.is_some() {
        return None;
    }
    let towards = link.towards?;
    let is_reply = !ctx.state.msg.is_request();
    let towards = match (is_reply, towards) {
        (false, leg) => leg,
        (true, CALLER) => 1,
        (true, _) => CALLER,
    };
    Some(Direction::towards(towards))
}

/// The dialog of a transaction.
pub fn of_txn(ctx: &mut Ctx, id: TxnId) -> Option<(Key, Link)> {
    let link = kept(ctx, id)?;
    let key = link.key?;
    table::of(ctx).get(key)?;
    Some((key, link))
}
