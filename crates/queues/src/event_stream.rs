//! event_stream: events to other programs as JSON-RPC over TCP, `tcp:127.0.0.1:8080/method`.

use crate::outlet::{Outlet, wall_ms};
use crate::rpc::{self, Stream};
use host::events::{Event, EventTransport};
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Ctx, Registrar};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub struct EventStream(pub(crate) Settings);

/// Of event_stream and of event_jsonrpc, its older name.
#[derive(Clone)]
pub struct Settings {
    module: &'static str,
    scheme: &'static str,
    /// Each event waits for its answer.
    pub reliable: bool,
    pub timeout_ms: u64,
    /// What the name of the event is called among the parameters.
    pub event_param: Option<String>,
}

impl Settings {
    pub fn new(module: &'static str, scheme: &'static str) -> Settings {
        Settings { module, scheme, reliable: false, timeout_ms: 1000, event_param: None }
    }

    pub fn set_timeout(&mut self, ms: i64) -> Result<(), String> {
        self.timeout_ms =
            u64::try_from(ms).ok().filter(|ms| *ms > 0).ok_or("timeout is above 0 milliseconds")?;
        Ok(())
    }

    /// Offers the transport, and delivers.
    pub fn ready(&self, hooks: &mut Hooks, stats: &Stats) {
        let outlet = Outlet::new(self.module, stats);
        let (settings, losses) = (self.clone(), outlet.clone());
        outlet
            .serve(hooks, move |_, address, queue| deliver(settings.clone(), losses.clone(), address, queue));
        hooks.event_transport(Arc::new(Transport { settings: self.clone(), outlet }));
    }
}

impl Default for EventStream {
    fn default() -> EventStream {
        EventStream(Settings::new("event_stream", "tcp"))
    }
}

pub fn register(m: &mut Registrar<EventStream>) {
    m.param("reliable_mode", ParamFn::Any(|s, v| Ok(s.0.reliable = host::registrar::truth(v))));
    m.param_int("timeout", |s, ms| s.0.set_timeout(ms));
    m.param_text("event_param", |s, v| Ok(s.0.event_param = Some(v.into())));
    m.ready(|module, hooks, stats| module.0.ready(hooks, stats));
}

struct Transport {
    settings: Settings,
    outlet: Arc<Outlet<Event>>,
}

/// `host:port` and the method, if there is one.
fn parts(address: &str) -> (&str, Option<&str>) {
    match address.split_once('/') {
        Some((place, method)) => (place, Some(method).filter(|method| !method.is_empty())),
        None => (address, None),
    }
}

impl EventTransport for Transport {
    fn scheme(&self) -> &'static str {
        self.settings.scheme
    }

    fn check(&self, address: &str) -> Result<(), String> {
        let (place, _) = parts(address);
        let port = place.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(port) if port > 0 => Ok(()),
            _ => Err(format!("`{place}` is not host:port")),
        }
    }

    fn send(&self, ctx: &mut Ctx, address: &str, event: &Event) {
        self.outlet.give(ctx.core.wall_us / 1000, address, event.clone());
    }
}

/// One connection, kept as long as it lasts; a broken one is made anew for the next event.
async fn deliver(
    settings: Settings,
    losses: Arc<Outlet<Event>>,
    address: String,
    mut queue: mpsc::Receiver<Event>,
) {
    let (place, method) = parts(&address);
    let limit = Duration::from_millis(settings.timeout_ms);
    let mut stream = None;
    let mut id = u64::from(std::process::id()) << 20;
    while let Some(event) = queue.recv().await {
        id += 1;
        let name = String::from_utf8_lossy(&event.name);
        let params = event.json(settings.event_param.as_deref());
        let text = rpc::command(method.unwrap_or(&name), params, settings.reliable.then_some(id));
        let asked = settings.reliable.then_some(id);
        let mut sent = timed(limit, exchange(&mut stream, place, &text, asked)).await;
        // One that stood unused may have ended unnoticed.
        if stream.is_some() && sent.as_ref().is_err_and(ended) {
            stream = None;
            sent = timed(limit, exchange(&mut stream, place, &text, asked)).await;
        }
        if let Err(why) = sent {
            stream = None;
            losses.lost(wall_ms(), &address, why);
        }
    }
}

fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn timed(limit: Duration, what: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(limit, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(slot: &mut Option<Stream>, place: &str, text: &str, id: Option<u64>) -> io::Result<()> {
    let stream = match slot {
        Some(stream) => stream,
        None => slot.insert(Stream::connect(place).await?),
    };
    stream.send(text).await?;
    let Some(id) = id else { return Ok(()) };
    let answer = stream.answer_to(id).await?;
    match answer.get("error").filter(|error| !error.is_null()) {
        Some(error) => Err(io::Error::other(format!("the server says {error}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::Value;
    use host::stats::Stats;
    use serde_json::{Value as Json, json};
    use std::net::TcpListener;

    fn event(n: i64) -> Event {
        Event { name: "E_X".into(), params: [("n", Value::Int(n))].into_iter().collect() }
    }

    /// Gives events to one destination; each connection is answered by `server`, which gives what it read.
    fn run(
        settings: Settings,
        events: &[i64],
        server: impl Fn(usize, TcpListener) -> Vec<Json> + Send + 'static,
    ) -> (Vec<Json>, i64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("{}/handle", listener.local_addr().unwrap());
        let wanted = events.len();
        let server = std::thread::spawn(move || server(wanted, listener));
        let stats = Stats::default();
        let outlet = Outlet::new("event_stream", &stats);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (send, queue) = mpsc::channel(10);
            for n in events {
                send.send(event(*n)).await.unwrap();
            }
            drop(send);
            deliver(settings, outlet, address, queue).await;
        });
        (server.join().unwrap(), stats.value("events_lost").unwrap())
    }

    fn read(
        stream: &std::net::TcpStream,
    ) -> serde_json::StreamDeserializer<'_, serde_json::de::IoRead<&std::net::TcpStream>, Json> {
        serde_json::Deserializer::from_reader(stream).into_iter()
    }

    #[test]
    fn notifications_share_a_connection() {
        let mut settings = Settings::new("event_stream", "tcp");
        settings.event_param = Some("event".into());
        let (got, lost) = run(settings, &[1, 2], |wanted, listener| {
            let (stream, _) = listener.accept().unwrap();
            read(&stream).take(wanted).map(Result::unwrap).collect()
        });
        let want = |n| json!({"jsonrpc": "2.0", "method": "handle", "params": {"event": "E_X", "n": n}});
        assert_eq!((got, lost), (vec![want(1), want(2)], 0));
    }

    #[test]
    fn requests_wait_for_their_answers() {
        let mut settings = Settings::new("event_stream", "tcp");
        (settings.reliable, settings.timeout_ms) = (true, 10_000);
        let (got, lost) = run(settings, &[1, 2, 3], |_, listener| {
            use std::io::Write;
            let mut all = Vec::new();
            // The first connection ends after one answer; an error is an answer, too.
            for answers in [&["result"][..], &["error", "result"]] {
                let (stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let request = read(&stream).next().unwrap().unwrap();
                    let text = json!({"jsonrpc": "2.0", "id": request["id"], *answer: 8}).to_string();
                    (&stream).write_all(text.as_bytes()).unwrap();
                    all.push(request);
                    if *answer == "error" {
                        break;
                    }
                }
            }
            let (stream, _) = listener.accept().unwrap();
            let request = read(&stream).next().unwrap().unwrap();
            let text = json!({"jsonrpc": "2.0", "id": request["id"], "result": 1}).to_string();
            (&stream).write_all(text.as_bytes()).unwrap();
            all.push(request);
            all
        });
        let numbers: Vec<_> = got.iter().map(|request| request["params"]["n"].as_i64().unwrap()).collect();
        assert_eq!((numbers, lost), (vec![1, 2, 3], 1));
    }

    #[test]
    fn addresses() {
        let stats = Stats::default();
        let settings = Settings::new("event_stream", "tcp");
        let transport = Transport { outlet: Outlet::new("event_stream", &stats), settings };
        for (address, good) in [
            ("127.0.0.1:80", true),
            ("localhost:80/m", true),
            ("[::1]:80", true),
            ("127.0.0.1", false),
            (":80", false),
            ("a:0", false),
        ] {
            assert_eq!(transport.check(address).is_ok(), good, "{address}");
        }
    }
}
