//! What other modules use: calls that they may follow, and things that they keep with them.
//!
//! A module says in its `start` what it wants to hear ([`listen`]). Its listener runs on the worker of the call,
//! with the message of the moment as the current one, and must not wait; a module that wants to hear of some calls
//! only keeps a value of its own with them ([`Dialog::ext`]) and looks for it. What must outlive a restart goes
//! into values ([`set_val`]), which scripts see as `$dlg_val`.

use super::cell::{Leg, LegNo, Membership, Val};
use super::context::{Change, apply};
use super::profile::Sharing;
use super::table;
use super::{
    Dialog, Did, Dlg, Flags, Key, MatchMode, context, create, cseq, end, handover, link, matching, request,
    validate,
};

use bytes::Bytes;
use host::tm::Answer;
use host::{Ctx, Outcome};
use sip::Message;
use std::rc::Rc;
use std::sync::Arc;

pub use super::context::ask_all;
pub use super::request::Inside;

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
    table::touch(ctx, key);
    changed(ctx, key);
}

/// Keeps a value with the dialog; it outlives a restart. `None` removes it.
pub fn set_val(ctx: &mut Ctx, key: Key, name: &[u8], value: Option<Val>) {
    if let Some(dialog) = get(ctx, key) {
        dialog.set_val(name, value);
    }
    table::touch(ctx, key);
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

/// Finds the dialog of the current request as `match_dialog` does, and takes the request in as one of it; `finish`
/// gives the return code. It waits when another node may know the dialog.
pub fn match_request(
    ctx: &mut Ctx,
    mode: MatchMode,
    finish: impl FnOnce(&mut Ctx) -> i32 + 'static,
) -> Outcome {
    match module(ctx) {
        Some(module) => handover::match_request(ctx, &module, mode, finish),
        None => finish(ctx).into(),
    }
}

/// The dialog of the current message by Call-ID and tags, without taking it in.
pub fn find_by_elements(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    matching::by_elements(ctx)
}

/// The current request inside a dialog goes to its end again, with an answer to a challenge: it gets the next CSeq,
/// and so do those that follow. False: there is no dialog to do it.
pub fn number_again(ctx: &mut Ctx) -> bool {
    module(ctx).is_some() && cseq::again(ctx)
}

/// Sends the current request to an end of its dialog, by the route set that is known (`fix_route_dialog`), from the
/// socket that the end is reached by.
pub fn route_to(ctx: &mut Ctx, key: Key, leg: LegNo) {
    if let Some(leg) = get(ctx, key).and_then(|d| d.leg(leg)).cloned() {
        validate::route_to(ctx, &leg);
        ctx.state.socket = Some(leg.socket);
    }
}

/// Sends the current request to this target by these routes (`<sip:a;lr>,<sip:b;lr>`), whatever Routes it has.
pub fn route_by(ctx: &mut Ctx, target: &[u8], routes: &[u8]) {
    validate::route_to(ctx, &Leg { contact: target.into(), routes: routes.into(), ..Leg::default() });
}

/// How the identity of dialogs is called in URIs (`rr_param`).
pub fn did_param(ctx: &Ctx) -> String {
    module(ctx).map_or_else(String::new, |module| module.rr_param.clone())
}

/// The mode of matching that a word of a script means; `None`: the configured one.
pub fn match_mode(ctx: &Ctx, word: Option<&[u8]>) -> Option<MatchMode> {
    let module = module(ctx)?;
    Some(word.map_or(module.mode, MatchMode::parse))
}

/// The dialog in whose context a script runs (`load_dialog_ctx`), when it lives on this worker; and the end that the
/// message goes to.
pub fn in_context(ctx: &mut Ctx) -> Option<(Key, LegNo)> {
    let towards = link::own(ctx).map_or(1, |(_, towards)| towards);
    match link::current(ctx)? {
        link::Current::Here(key) => Some((key, towards)),
        link::Current::Copy(_) => None,
    }
}

/// A dialog of this worker with this Call-ID, one that lives before one that has ended.
pub fn find_by_call_id(ctx: &mut Ctx, call_id: &[u8]) -> Option<Key> {
    context::Name::CallId(call_id.into()).find(ctx)
}

pub fn find_by_did(ctx: &mut Ctx, did: Did) -> Option<Key> {
    table::of(ctx).by_did(did)
}

/// Sends a request to an end; see [`request::send`].
pub fn send(ctx: &mut Ctx, key: Key, what: Inside, done: impl FnOnce(&mut Ctx, Answer) + 'static) -> bool {
    request::send(ctx, key, what, done)
}

/// The session description that an end was sent last.
pub fn sent_last(ctx: &mut Ctx, key: Key, leg: LegNo) -> Option<Bytes> {
    super::ping::sent_last(ctx, key, leg).map(|text| Bytes::from(text.into_vec()))
}

/// The dialogs of this worker.
pub fn keys(ctx: &mut Ctx) -> Vec<Key> {
    table::of(ctx).keys().collect()
}

/// The body of a message when it is a session description.
pub fn description(msg: &Message) -> Option<Box<[u8]>> {
    create::body(msg)
}

/// Ends the call: BYE both ways, or CANCEL before its answer. False: it has ended.
pub fn end(ctx: &mut Ctx, key: Key, reason: &str) -> bool {
    let Some(module) = module(ctx) else { return false };
    end::end(ctx, &module, key, reason, &Bytes::new())
}

/// Profiles that count load begin with this (`load_balancer`): dialogs that come back from the database find them also
/// before that module has read its table.
pub const LOAD_PREFIX: &str = "lbX";

/// Where a profile that a module adds is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// On this server, unless the configuration declares a profile of this name that is shared.
    AsDeclared,
    /// In the store of `cachedb_url`, when there is one.
    Shared,
}

/// The profile of this name, with values; made when there is none.
pub fn load_profile(ctx: &Ctx, name: &str, counted: Counted) -> Option<u16> {
    let module = module(ctx)?;
    let shared = counted == Counted::Shared && module.shared.cache.is_some();
    module.profiles.find_or_add(name, if shared { Sharing::Store } else { Sharing::Own })
}

/// Several servers count into the profile: its sizes are those of [`shared_sizes`].
pub fn is_shared(ctx: &Ctx, profile: u16) -> bool {
    module(ctx).is_some_and(|module| super::shared::is_shared(&module, profile))
}

/// Dialogs of this server with a value of a profile.
pub fn profile_size(ctx: &Ctx, profile: u16, value: &[u8]) -> i64 {
    let profile = module(ctx).and_then(|module| module.profiles.at(profile));
    profile.map_or(0, |profile| profile.size(Some(value)))
}

/// The same over all servers; `None` where the store does not say.
pub fn shared_sizes(
    ctx: &mut Ctx,
    asked: Vec<(u16, Box<[u8]>)>,
) -> impl Future<Output = Vec<Option<i64>>> + use<> {
    let sizes = module(ctx).map(|module| super::shared::sizes(ctx, &module, &asked));
    async move {
        match sizes {
            Some(sizes) => sizes.await,
            None => vec![None; asked.len()],
        }
    }
}

/// The store that servers share (`cachedb_url`).
pub fn shared_store(ctx: &Ctx) -> Option<host::cachedb::Cache> {
    module(ctx)?.shared.cache.clone()
}

/// Counts a dialog into a profile, once more when it is there.
pub fn join(ctx: &mut Ctx, key: Key, profile: u16, value: &[u8]) {
    if let Some(module) = module(ctx) {
        apply(ctx, &module, key, Change::Join(Membership { profile, value: value.into() }));
    }
}

/// Takes it out again, once.
pub fn leave(ctx: &mut Ctx, key: Key, profile: u16, value: &[u8]) {
    if let Some(module) = module(ctx) {
        apply(ctx, &module, key, Change::Leave(profile, Some(value.into()), false));
    }
}
