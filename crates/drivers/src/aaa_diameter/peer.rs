//! The connection to the peer: one for the whole program, since a Diameter identity has one. Workers put their requests
//! into a queue and wait for the answers without it.
//!
//! ```text
//!            CER ▶ CEA                    DWR ▶ nothing, closed, broken
//!  Connecting ─────────────▶ Open ──────────────────────────────┐
//!      ▲ refused: pauses grow │ requests, answers, watchdog       │
//!      └──────────────────────┴───────────────────────────────────┘ requests fail at once meanwhile
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "how long a connection lasted, and when the watchdog asks, is no time of the core"
)]

use super::config::{Config, Place};
use super::wire::{Avp, Message};
use ahash::AHashMap;
use host::outage::Outage;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval_at, sleep, timeout};

/// Requests that wait to be sent, and requests whose answers are awaited; more are refused.
pub const MAX_REQUESTS: usize = 10_000;
/// To connect and to exchange capabilities, and to write.
const CONNECT: Duration = Duration::from_secs(5);
/// Tw of RFC 3539 §3.4.1.
const WATCHDOG: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

const CAPABILITIES: u32 = 257;
const WATCH: u32 = 280;
const DISCONNECT: u32 = 282;
const SUCCESS: u32 = 2001;
const COMMAND_UNSUPPORTED: u32 = 3001;
/// RFC 6733 §2.4: all applications.
const RELAY: u32 = 0xffff_ffff;

/// A request, and who waits for its answer.
pub struct Ask {
    pub message: Message,
    pub back: oneshot::Sender<Result<Message, String>>,
}

/// Serves the queue until the program ends.
pub async fn run(config: Arc<Config>, outage: Outage, mut asks: mpsc::Receiver<Ask>) {
    let mut pause = FIRST_PAUSE;
    for turn in 0.. {
        let place = &config.peers[turn % config.peers.len()];
        let name = format!("{} ({})", place.identity, place.address);
        let since = Instant::now();
        let why = match timeout(CONNECT, connect(&config, place)).await {
            Ok(Ok((stream, bytes))) => {
                if outage.ends() {
                    host::notice!("aaa_diameter", "{name} is back");
                }
                serve(&config, stream, bytes, &mut asks).await
            }
            Ok(Err(why)) => why,
            Err(_) => "it does not answer".into(),
        };
        if asks.is_closed() && asks.is_empty() {
            return;
        }
        if outage.begins() {
            host::error!("aaa_diameter", "{name} is unreachable: {why}");
        }
        pause = if since.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        let rest = sleep(pause);
        tokio::pin!(rest);
        loop {
            tokio::select! {
                () = &mut rest => break,
                ask = asks.recv() => match ask {
                    Some(ask) => drop(ask.back.send(Err(format!("{name}: {why}")))),
                    None => return,
                },
            }
        }
    }
}

fn ourselves(config: &Config) -> Vec<Avp> {
    vec![Avp::new(264, config.identity.clone()), Avp::new(296, config.realm.clone())]
}

/// Our side of the exchange of capabilities (RFC 6733 §5.3).
fn capabilities(config: &Config, own: IpAddr) -> Vec<Avp> {
    let address = match own {
        IpAddr::V4(ip) => [&[0, 1][..], &ip.octets()].concat(),
        IpAddr::V6(ip) => [&[0, 2][..], &ip.octets()].concat(),
    };
    let mut avps = ourselves(config);
    avps.extend([Avp::new(257, address), Avp::number(266, 0), Avp::new(269, "Fermata")]);
    let applications = &config.dictionary.applications;
    for vendor in applications.iter().map(|app| app.vendor).filter(|vendor| *vendor != 0) {
        let known = Avp::number(265, vendor);
        if !avps.contains(&known) {
            avps.push(known);
        }
    }
    for app in applications {
        let id = Avp::number(if app.accounting { 259 } else { 258 }, app.id);
        avps.push(match app.vendor {
            0 => id,
            vendor => Avp::group(260, &[Avp::number(266, vendor), id]),
        });
    }
    if applications.is_empty() {
        avps.push(Avp::number(258, RELAY));
    }
    avps
}

/// A connection whose capabilities are exchanged, and what came after them.
async fn connect(config: &Config, place: &Place) -> Result<(TcpStream, Vec<u8>), String> {
    let mut stream = TcpStream::connect(&place.address).await.map_err(|e| e.to_string())?;
    let own = stream.local_addr().map_err(|e| e.to_string())?.ip();
    let request = Message::request(0, CAPABILITIES, capabilities(config, own));
    write(&mut stream, &request).await?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.map_err(|e| e.to_string())? == 0 {
            return Err("it closed the connection instead of an answer to our capabilities".into());
        }
        if let Some(answer) = Message::take(&mut bytes)? {
            let code = answer.avp(268).and_then(Avp::as_number).unwrap_or_default();
            if answer.request || answer.command != CAPABILITIES || code != SUCCESS {
                return Err(format!("it does not take our capabilities (Result-Code {code})"));
            }
            return Ok((stream, bytes));
        }
    }
}

async fn write(stream: &mut TcpStream, message: &Message) -> Result<(), String> {
    let bytes = message.print().ok_or("the message is too large")?;
    match timeout(CONNECT, stream.write_all(&bytes)).await {
        Ok(sent) => sent.map_err(|e| e.to_string()),
        Err(_) => Err("it does not read".into()),
    }
}

/// Carries requests and answers until the connection ends; says why it did.
async fn serve(
    config: &Config,
    mut stream: TcpStream,
    mut bytes: Vec<u8>,
    asks: &mut mpsc::Receiver<Ask>,
) -> String {
    let mut pending: AHashMap<u32, oneshot::Sender<Result<Message, String>>> = AHashMap::new();
    let (mut hop, mut heard, mut asked) = (1u32, true, false);
    let mut watch = interval_at(Instant::now() + WATCHDOG, WATCHDOG);
    loop {
        loop {
            match Message::take(&mut bytes) {
                Err(why) => return why.into(),
                Ok(None) => break,
                Ok(Some(message)) if message.request => {
                    let leaves = message.command == DISCONNECT;
                    if let Err(why) = write(&mut stream, &answered(config, &message)).await {
                        return why;
                    }
                    if leaves {
                        return "it closes the connection".into();
                    }
                }
                Ok(Some(message)) => {
                    if let Some(back) = pending.remove(&message.hop) {
                        // Whoever asked may have gone.
                        let _ = back.send(Ok(message));
                    }
                }
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut bytes) => match read {
                Ok(0) => return "it closed the connection".into(),
                Ok(_) => (heard, asked) = (true, false),
                Err(error) => return error.to_string(),
            },
            ask = asks.recv() => {
                let Some(mut ask) = ask else { return "the program ends".into() };
                if pending.len() >= MAX_REQUESTS {
                    pending.retain(|_, back| !back.is_closed());
                }
                if pending.len() >= MAX_REQUESTS {
                    let _ = ask.back.send(Err("too many requests wait for their answers".into()));
                    continue;
                }
                hop = hop.wrapping_add(1);
                (ask.message.hop, ask.message.end) = (hop, hop);
                let sent = write(&mut stream, &ask.message).await;
                pending.insert(hop, ask.back);
                if let Err(why) = sent {
                    return why;
                }
            }
            _ = watch.tick() => {
                pending.retain(|_, back| !back.is_closed());
                if asked {
                    return "it does not answer the watchdog".into();
                }
                if !std::mem::replace(&mut heard, false) {
                    hop = hop.wrapping_add(1);
                    let mut question = Message::request(0, WATCH, ourselves(config));
                    (question.hop, question.end) = (hop, hop);
                    if let Err(why) = write(&mut stream, &question).await {
                        return why;
                    }
                    asked = true;
                }
            }
        }
    }
}

/// What a request of the peer is told: watchdog and farewell succeed, nothing else is served.
fn answered(config: &Config, request: &Message) -> Message {
    let known = matches!(request.command, WATCH | DISCONNECT);
    let code = if known { SUCCESS } else { COMMAND_UNSUPPORTED };
    let session = request.avp(263).cloned();
    let mut avps: Vec<Avp> = session.into_iter().collect();
    avps.push(Avp::number(268, code));
    avps.extend(ourselves(config));
    request.answer(!known, avps)
}
