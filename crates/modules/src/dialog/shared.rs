//! Profiles that several servers count into: their numbers are kept in the key-value store of `cachedb_url`.

use super::Dlg;
use super::cell::Membership;
use super::profile::{Profile, Sharing};
use bytes::Bytes;
use host::Ctx;
use host::cachedb::{Cache, CacheError};
use host::load::Loader;
use host::{InParam, LoadError};
use host::{Outcome, Registrar};

/// What the parameters say of the store.
pub struct Store {
    url: Option<String>,
    pub cache: Option<Cache>,
    /// Before names with values, names without, and totals of names with values.
    value_prefix: String,
    plain_prefix: String,
    size_prefix: String,
    /// Seconds that a number stays when nobody changes it.
    timeout: u32,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            url: None,
            cache: None,
            value_prefix: "dlg_val_".into(),
            plain_prefix: "dlg_noval_".into(),
            size_prefix: "dlg_size_".into(),
            timeout: 86_400,
        }
    }
}

pub fn register(m: &mut Registrar<Dlg>) {
    m.param_text("cachedb_url", |s, v| Ok(s.shared.url = Some(v.into())));
    m.param_text("profile_value_prefix", |s, v| Ok(s.shared.value_prefix = v.into()));
    m.param_text("profile_no_value_prefix", |s, v| Ok(s.shared.plain_prefix = v.into()));
    m.param_text("profile_size_prefix", |s, v| Ok(s.shared.size_prefix = v.into()));
    m.param_int("profile_timeout", |s, v| match u32::try_from(v) {
        Ok(n) if n > 0 => Ok(s.shared.timeout = n),
        _ => Err("profile_timeout is a number of seconds".into()),
    });
}

pub fn init(s: &mut Dlg, loader: &mut Loader) -> Result<(), LoadError> {
    s.shared.cache =
        s.shared.url.as_deref().map(|url| loader.cache(url)).transpose().in_param("cachedb_url")?;
    let all = s.profiles.all();
    if let (None, Some(profile)) = (&s.shared.cache, all.iter().find(|p| p.sharing == Sharing::Store)) {
        let why = format!("{} is marked with /s: set cachedb_url to the store that is shared", profile.name);
        let param = if profile.has_value { "profiles_with_value" } else { "profiles_no_value" };
        return Err(LoadError::from(why).in_param(param));
    }
    for profile in all.iter().filter(|p| p.sharing == Sharing::Cluster) {
        host::warn!(
            "dialog",
            "profile {} is counted on this server only: mark it with /s and set cachedb_url to share it",
            profile.name
        );
    }
    Ok(())
}

impl Store {
    /// The number of one value, or of all dialogs in the profile.
    fn key(&self, profile: &Profile, value: Option<&[u8]>) -> Bytes {
        let name = profile.name.as_bytes();
        match value.filter(|_| profile.has_value) {
            Some(value) => [self.value_prefix.as_bytes(), name, b"_", value].concat().into(),
            None if profile.has_value => [self.size_prefix.as_bytes(), name].concat().into(),
            None => [self.plain_prefix.as_bytes(), name].concat().into(),
        }
    }
}

/// A dialog joined (1) or left (-1) a profile: what is shared is changed beside everything else.
pub fn changed(ctx: &mut Ctx, module: &Dlg, membership: &Membership, by: i64) {
    let Some(profile) = module.profiles.at(membership.profile) else { return };
    let (Some(cache), Sharing::Store) = (&module.shared.cache, profile.sharing) else { return };
    let mut keys = vec![module.shared.key(&profile, None)];
    if profile.has_value {
        keys.push(module.shared.key(&profile, Some(&membership.value)));
    }
    for key in keys {
        let timeout = module.shared.timeout;
        cache.spawn(
            ctx,
            "dialog profile",
            |store| store.add(key, by, timeout),
            |_, result| {
                if let Err(error) = result {
                    host::error!("dialog", "a shared profile is not counted right: {error}");
                }
            },
        );
    }
}

/// The size of a profile: from the store when it is shared, else as this server counts.
pub fn size(
    ctx: &mut Ctx,
    module: &Dlg,
    profile: u16,
    value: Option<&[u8]>,
    finish: impl FnOnce(&mut Ctx, Result<i64, CacheError>) -> i32 + 'static,
) -> Outcome {
    let Some(profile) = module.profiles.at(profile) else { return (-1).into() };
    match (&module.shared.cache, profile.sharing) {
        (Some(cache), Sharing::Store) => {
            let key = module.shared.key(&profile, value);
            let done = |ctx: &mut Ctx, found: Result<Option<i64>, CacheError>| {
                finish(ctx, found.map(|n| n.unwrap_or(0)))
            };
            cache.suspend(ctx, "get_profile_size", key.clone(), |store| store.counter(key), done)
        }
        _ => {
            let count = profile.size(value);
            finish(ctx, Ok(count)).into()
        }
    }
}

/// The profile is counted in the store.
pub fn is_shared(module: &Dlg, profile: u16) -> bool {
    module.shared.cache.is_some()
        && module.profiles.at(profile).is_some_and(|profile| profile.sharing == Sharing::Store)
}

/// Sizes of several profiles and values, as the store has them; `None` where it does not say.
pub fn sizes(
    ctx: &mut Ctx,
    module: &Dlg,
    asked: &[(u16, Box<[u8]>)],
) -> impl Future<Output = Vec<Option<i64>>> + use<> {
    let keys = asked.iter().map(|(profile, value)| {
        module.profiles.at(*profile).map(|profile| module.shared.key(&profile, Some(value)))
    });
    let store = module.shared.cache.as_ref().map(|cache| cache.on(ctx));
    // All questions go out before the first answer is waited for.
    let replies: Vec<_> = keys.map(|key| Some(store.as_ref()?.counter(key?))).collect();
    async move {
        let mut sizes = Vec::with_capacity(replies.len());
        for reply in replies {
            let answer = match reply {
                Some(reply) => reply.get().await.ok().map(|number| number.unwrap_or(0)),
                None => None,
            };
            sizes.push(answer);
        }
        sizes
    }
}
