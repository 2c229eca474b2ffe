//! What other modules use: calls that they may follow, and things that they keep with them.
//!
//! A module says in its `start` what it wants to hear ([`listen`]). Its listener runs on the worker of the call,
//! with the message of the moment as the current one, and must not wait; a module that wants to hear of some calls
//! only keeps a value of its own with them ([`Dialog::ext`]) and looks for it. What must outlive a restart goes
//! into values ([`set_val`]), which scripts see as `$dlg_val`.

use super::cell::{LegNo, Val};
use super::table;
use super::{Dialog, Dlg, Flags, Key, context, create, end, link, matching, within};
use bytes::Bytes;
use host::Ctx;
use sip::Message;
use std::rc::Rc;
use std::sync::Arc;

/// Moments of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A script created it; the INVITE is the current message.
    Created,
    /// It came back from the database or from another node.
    Loaded,
    /// The first provisional reply goes upstream.
    Early,
    /// A 2xx goes upstream.
    Confirmed,
    /// A request inside the dialog was found to be one; it is the current message.
    RequestWithin,
    /// A reply to such a request goes upstream.
    ReplyWithin,
    /// Ends, values or timers changed.
    Updated,
    /// An answered call ended by a BYE, of the ends or of the server.
    Terminated,
    /// Its time was over and nobody is told (no `bye-on-timeout`).
    Expired,
    /// It was never answered.
    Failed,
    /// It leaves the memory.
    Gone,
}

/// What a listener is told. `reply`: the reply of the moment, as it goes out.
pub struct Told<'a> {
    pub key: Key,
    pub event: Event,
    pub reply: Option<&'a Message>,
}

pub type Listener = Rc<dyn Fn(&mut Ctx, &Told)>;

#[derive(Default)]
struct Listeners(Rc<Vec<Listener>>);

/// Adds a listener of this worker. Listeners hear in the order in which they were added.
pub fn listen(ctx: &mut Ctx, listener: Listener) {
    Rc::make_mut(&mut ctx.local::<Listeners>().0).push(listener);
}

pub(super) fn tell(ctx: &mut Ctx, key: Key, event: Event, reply: Option<&Message>) {
    let listeners = ctx.local::<Listeners>().0.clone();
    let told = Told { key, event, reply };
    listeners.iter().for_each(|listener| listener(ctx, &told));
}

/// Something of the dialog changed.
pub(super) fn changed(ctx: &mut Ctx, key: Key) {
    tell(ctx, key, Event::Updated, None);
}

/// The module, when it is loaded.
pub fn module(ctx: &Ctx) -> Option<Arc<Dlg>> {
    ctx.shared().module::<Dlg>()
}

/// The dialog of the current message, whatever context a script has loaded, and the end that it goes to.
pub fn current(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    link::own(ctx)
}

/// The dialog of the current INVITE, created when there is none (`create_dialog`).
pub fn create(ctx: &mut Ctx, flags: Flags) -> Option<Key> {
    let module = module(ctx)?;
    if create::create(ctx, &module, flags) < 0 {
        return None;
    }
    current(ctx).map(|(key, _)| key)
}

/// A dialog by its key. Changes of data that must reach the database go through [`set_val`] or say [`touch`].
pub fn get(ctx: &mut Ctx, key: Key) -> Option<&mut Dialog> {
    table::of(ctx).get_mut(key)
}

/// The dialog has changed: the database and other nodes are to learn of it.
pub fn touch(ctx: &mut Ctx, key: Key) {
    table::of(ctx).touch(key);
    changed(ctx, key);
}

/// Keeps a value with the dialog; it outlives a restart. `None` removes it.
pub fn set_val(ctx: &mut Ctx, key: Key, name: &[u8], value: Option<Val>) {
    if let Some(dialog) = get(ctx, key) {
        dialog.set_val(name, value);
    }
    table::of(ctx).touch(key);
}

pub fn val(ctx: &mut Ctx, key: Key, name: &[u8]) -> Option<Val> {
    get(ctx, key)?.val(name).cloned()
}

/// Changes how long the call may last: seconds from now, or from its answer.
pub fn set_lifetime(ctx: &mut Ctx, key: Key, seconds: u32) {
    if let Some(module) = module(ctx) {
        context::apply(ctx, &module, key, context::Change::Timeout(seconds));
    }
}

/// Finds the dialog of the current request by an identity that stands elsewhere than in our Route, or by Call-ID
/// and tags, and takes the request in as one of it.
pub fn match_request(ctx: &mut Ctx, did: Option<&[u8]>) -> Option<(Key, LegNo)> {
    let module = module(ctx)?;
    within::match_request(ctx, &module, module.mode, did);
    current(ctx)
}

/// The dialog of the current message by Call-ID and tags, without taking it in.
pub fn find_by_elements(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    matching::by_elements(ctx)
}

/// Ends the call: BYE both ways, or CANCEL before its answer. False: it has ended.
pub fn end(ctx: &mut Ctx, key: Key, reason: &str) -> bool {
    let Some(module) = module(ctx) else { return false };
    end::end(ctx, &module, key, reason, &Bytes::new())
}
