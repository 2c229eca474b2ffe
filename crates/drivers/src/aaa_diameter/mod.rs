//! aaa_diameter: requests to a Diameter peer (RFC 6733) over one connection, which scripts wait for.

mod config;
mod dictionary;
mod peer;
mod wire;

use config::Config;
use host::load::{LoadError, Loader};
use host::outage::Outage;
use host::registrar::Stage;
use host::{Accepts, Call, Ctx, Finish, InParam, Int, OutVar, Outcome, Registrar, Routes, Suspension, Text};
use parking_lot::Mutex;
use peer::{Ask, MAX_REQUESTS};
use serde_json::Value as Json;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use wire::{Avp, Message};

const INTERNAL: i32 = -1;
const TIMED_OUT: i32 = -2;

pub struct Diameter {
    url: Option<String>,
    realm: Option<String>,
    peer: String,
    /// Milliseconds.
    timeout: u64,
    client: Option<Client>,
}

impl Default for Diameter {
    fn default() -> Diameter {
        Diameter { url: None, realm: None, peer: "server".into(), timeout: 2000, client: None }
    }
}

pub fn register(m: &mut Registrar<Diameter>) {
    m.stage(Stage::Driver);
    m.param_text("aaa_url", |s, url| Ok(s.url = Some(url.to_string()).filter(|url| !url.is_empty())));
    m.param_text("realm", |s, realm| Ok(s.realm = Some(realm.into())));
    m.param_text("peer_identity", |s, name| Ok(s.peer = name.into()));
    m.param_int("answer_timeout", |s, ms| Ok(s.timeout = ms as u64));
    m.accepts(Accepts::from(1).unit("ms"), &["answer_timeout"]);
    m.ignored(&["fd_log_level"], "there is no library with a log of its own");
    m.ignored(&["max_json_log_size"], "messages about wrong JSON say where it is wrong");
    m.function("dm_send_request", Routes::ALL, send_request);
    m.init_with_files(init);
    m.ready(|module, hooks, _| {
        let Some(client) = module.client.clone() else { return };
        hooks.services.push(Arc::new(move |_| Box::pin(client.clone().serve())));
    });
}

fn init(s: &mut Diameter, _: &mut Loader) -> Result<(), LoadError> {
    let Some(url) = &s.url else { return Ok(()) };
    let mut config = config_of(url)?;
    let wanted = match &s.realm {
        Some(realm) => format!("{}.{realm}", s.peer),
        None => format!("{}.{}", s.peer, config.realm),
    };
    // The one that the script names is tried first.
    config.peers.sort_by_key(|place| place.identity != wanted && place.identity != s.peer);
    s.client = Some(Client::new(config, s.timeout));
    Ok(())
}

/// What the file of a URL says.
fn config_of(url: &str) -> Result<Config, LoadError> {
    let rest = url.trim().strip_prefix("diameter:").ok_or("it begins with diameter:").in_param("aaa_url")?;
    Config::load(rest).in_param("aaa_url")
}

/// Whoever asks the peer; clones use the same connection.
#[derive(Clone)]
pub struct Client {
    config: Arc<Config>,
    /// Milliseconds.
    timeout: u64,
    send: mpsc::Sender<Ask>,
    receive: Arc<Mutex<Option<mpsc::Receiver<Ask>>>>,
    outage: Outage,
}

/// An answer: its attributes as JSON. The error says what went wrong.
pub type Answer = Pin<Box<dyn Future<Output = Result<Json, String>>>>;

impl Client {
    fn new(config: Config, timeout: u64) -> Client {
        let (send, receive) = mpsc::channel(MAX_REQUESTS);
        let receive = Arc::new(Mutex::new(Some(receive)));
        Client { config: Arc::new(config), timeout, send, receive, outage: Outage::default() }
    }

    /// A client of another module, with a URL of its own.
    pub fn open(url: &str, timeout_ms: u64) -> Result<Client, LoadError> {
        Ok(Client::new(config_of(url)?, timeout_ms))
    }

    /// Keeps the connection; the program runs it as one of its services.
    pub async fn serve(self) {
        let receive = self.receive.lock().take();
        if let Some(asks) = receive {
            peer::run(self.config, self.outage, asks).await;
        }
    }

    /// Our Diameter identity and realm.
    pub fn names(&self) -> (&str, &str) {
        (&self.config.identity, &self.config.realm)
    }

    /// The dictionary describes this request.
    pub fn has_command(&self, code: u32) -> bool {
        self.config.dictionary.has_command(code)
    }

    /// Asks the peer. A request without Session-Id gets one (RFC 6733 §8.8).
    pub fn ask(&self, ctx: &mut Ctx, app: u32, command: u32, avps: &Json) -> Result<Answer, String> {
        let mut avps = self.config.dictionary.avps(avps)?;
        let named = |avp: &Avp| avp.vendor == 0 && matches!(avp.code, 263);
        match avps.iter().position(named) {
            Some(at) => avps[..=at].rotate_right(1),
            None => {
                let (high, low) = (ctx.core.wall_us / 1_000_000, ctx.core.rng.next_u64() >> 32);
                avps.insert(0, Avp::new(263, format!("{};{high};{low}", self.config.identity)));
            }
        }
        let (back, answer) = oneshot::channel();
        let message = Message::request(app, command, avps);
        if message.print().is_none() {
            return Err("the request is too large".into());
        }
        self.send.try_send(Ask { message, back }).map_err(|_| "too many requests wait to be sent")?;
        let config = self.config.clone();
        Ok(Box::pin(async move {
            match answer.await {
                Ok(Ok(message)) => Ok(config.dictionary.json(&message.avps)),
                Ok(Err(why)) => Err(why),
                Err(_) => Err("the connection was lost before an answer came".into()),
            }
        }))
    }
}

/// dm_send_request(app_id, cmd_code, avps_json, [rpl_avps_pv])
fn send_request(
    call: &mut Call<Diameter>,
    app: Int,
    command: Int,
    avps: Text,
    out: Option<OutVar>,
) -> Outcome {
    let module = call.module.clone();
    let Some(client) = &module.client else {
        host::complain!(call.ctx, "aaa_diameter", "dm_send_request: aaa_url says where the peer is: set it");
        return INTERNAL.into();
    };
    let (Ok(app), Ok(command)) = (u32::try_from(app.0), u32::try_from(command.0)) else {
        host::complain!(call.ctx, "aaa_diameter", "dm_send_request: application and command are positive");
        return INTERNAL.into();
    };
    let avps = serde_json::from_slice::<Json>(&avps).map_err(|error| format!("the JSON is wrong: {error}"));
    let answer = match avps.and_then(|avps| client.ask(call.ctx, app, command, &avps)) {
        Ok(answer) => answer,
        Err(why) => {
            host::complain!(call.ctx, "aaa_diameter", "dm_send_request: {why}");
            return INTERNAL.into();
        }
    };
    Suspension::future("dm_send_request", async move {
        let answer = answer.await;
        Box::new(move |ctx: &mut Ctx| match answer {
            Ok(list) => {
                let written = out.is_none_or(|out| out.set(ctx, list.to_string()));
                if written { 1 } else { INTERNAL }
            }
            Err(why) => {
                host::complain!(ctx, "aaa_diameter", "dm_send_request: {why}");
                INTERNAL
            }
        }) as Finish
    })
    .detail(format!("{app} {command}"))
    .limit(client.timeout, TIMED_OUT)
}

#[cfg(test)]
mod tests;
