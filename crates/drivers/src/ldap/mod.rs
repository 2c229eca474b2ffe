//! ldap: searches in directories. The result stays with the message until the next search.

mod config;
mod result;
mod session;
mod taped;
mod tls;
mod url;

use ahash::AHashMap;
use config::Settings;
use host::call::Finish;
use host::load::LoadError;
use host::{Call, Ctx, Outcome, Registrar, Routes, Suspension, Traced};
use result::{AttributeFound, Result as Stored};
use script::Value;
use session::{Problem, Session, Told};
use std::rc::Rc;
use taped::Entries;
use url::Search;

/// Longest a search may take, connecting to every server included.
const LIMIT_MS: u64 = 20_000;
const ERROR: i32 = -2;
const NOTHING: i32 = -1;

#[derive(Default)]
pub struct Ldap {
    config_file: Option<String>,
    sessions: Vec<(Settings, Told)>,
}

/// A worker's connections, by session.
#[derive(Default)]
struct Sessions(AHashMap<String, Rc<Session>>);

pub fn register(m: &mut Registrar<Ldap>) {
    m.param_text("config_file", |m, path| {
        m.config_file = Some(path.to_string());
        Ok(())
    });
    m.ignored(&["max_async_connections"], "one connection carries any number of searches at once");
    m.init_with_files(|m, _| {
        let path = m.config_file.as_deref().unwrap_or("/usr/local/etc/opensips/ldap.cfg");
        let text = std::fs::read_to_string(path)
            .map_err(|e| LoadError::of_file(format!("config_file {path}"), &e))?;
        let sessions = config::parse(&text).map_err(|why| format!("config_file {path}: {why}"))?;
        m.sessions = sessions.into_iter().map(|settings| (settings, Told::default())).collect();
        for tls in m.sessions.iter().filter_map(|(settings, _)| settings.tls.as_ref()) {
            tls::client(tls).map_err(|why| why.about(format!("config_file {path}")))?;
        }
        Ok(())
    });
    m.function("ldap_search", Routes::ALL, search);
    m.function("ldap_result_next", Routes::ALL, next);
    result::register(m);
}

/// ldap_search(url): the number of entries, -1 for none, -2 on errors.
fn search(call: &mut Call<Ldap>, url: Traced) -> Outcome {
    call.state.ext.remove::<Stored>();
    let search = match Search::parse(&String::from_utf8_lossy(&url::filled(&url))) {
        Ok(search) => search,
        Err(why) => {
            host::complain!(call.ctx, "ldap", "ldap_search: {why}");
            return Outcome::Done(ERROR);
        }
    };
    let Some((settings, told)) = call.module.sessions.iter().find(|(s, _)| s.name == search.session) else {
        host::complain!(call.ctx, "ldap", "ldap_search: the config_file has no section [{}]", search.session);
        return Outcome::Done(ERROR);
    };
    let sessions = call.ctx.local::<Sessions>();
    let session = match sessions.0.get(&settings.name) {
        Some(session) => session.clone(),
        None => {
            let session = Rc::new(Session::new(settings.clone(), told.clone()));
            sessions.0.insert(settings.name.clone(), session.clone());
            session
        }
    };
    let future = async move {
        let asked = format!("{search:?}");
        let live = async move { session.search(search).await.map(Entries) };
        let absent = || Err(Problem::Failed(host::db::NOT_RECORDED.to_string()));
        let entries = host::tape::awaited("ldap", || asked, live, absent).await;
        Box::new(move |ctx: &mut Ctx| match entries {
            Ok(Entries(entries)) if entries.is_empty() => NOTHING,
            Ok(Entries(entries)) => {
                let count = entries.len() as i32;
                ctx.state.ext.set(Stored::new(entries));
                count
            }
            Err(Problem::Down) => ERROR,
            Err(Problem::Failed(why)) => {
                host::complain!(ctx, "ldap", "ldap_search: {why}");
                ERROR
            }
        }) as Finish
    };
    Suspension::future("ldap_search", future).detail(url.text).limit(LIMIT_MS, ERROR)
}

/// ldap_result_next(): the functions on results look at the next entry.
fn next(call: &mut Call<Ldap>) -> i32 {
    match call.state.ext.find::<Stored>().cloned() {
        None => ERROR,
        Some(mut stored) => {
            let there = stored.next();
            call.state.ext.set(stored);
            if there { 1 } else { NOTHING }
        }
    }
}

/// The values of an attribute of the entry that is looked at.
fn values(call: &Call<Ldap>, attribute: &[u8]) -> AttributeFound {
    call.state.ext.find::<Stored>().map_or(AttributeFound::NoResult, |stored| stored.values(attribute))
}

/// A text as an AVP keeps it.
fn text(value: Vec<u8>) -> Value {
    Value::Str(value.into())
}

#[cfg(test)]
mod tests;
