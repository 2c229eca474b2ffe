//! event_rabbitmq: events and messages of scripts to RabbitMQ, `rabbitmq:guest:guest@127.0.0.1:5672/queue`.

use crate::outlet::{Outlet, wall_ms};
use crate::rabbitmq::{Broker, number, parts};
use host::avp::AvpName;
use host::events::{Event, EventTransport};
use host::load::Loader;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::var::VarKind;
use host::{Arg, Call, Ctx, Registrar, Routes, Text};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Connection};
use script::Diagnostic;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// How messages go to one server or subscriber.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    broker: Broker,
    exchange: String,
    /// A subscriber's; that of a server comes with each message.
    routing_key: String,
    options: BasicPublishOptions,
    persistent: bool,
    /// Further attempts on new connections.
    retries: u32,
}

impl Target {
    fn new(uri: AMQPUri) -> Target {
        Target {
            broker: Broker::new(uri),
            exchange: String::new(),
            routing_key: String::new(),
            options: BasicPublishOptions::default(),
            persistent: false,
            retries: 0,
        }
    }

    /// `uri = amqp://...; exchange = x; ...`
    fn server(text: &str) -> Result<Target, String> {
        let mut target = Target { persistent: true, ..Target::new(AMQPUri::default()) };
        let mut has_uri = false;
        for part in parts(text) {
            has_uri |= part.0 == "uri";
            if target.broker.set(part)? {
                continue;
            }
            match part {
                ("exchange", Some(name)) => target.exchange = name.to_owned(),
                ("retries", _) => target.retries = number(part)?,
                ("immediate", None) => target.options.immediate = true,
                ("mandatory", None) => target.options.mandatory = true,
                ("non-persistent", None) => target.persistent = false,
                (name, _) => return Err(format!("a server has no `{name}`")),
            }
        }
        if has_uri { Ok(target) } else { Err("a server needs a uri".into()) }
    }

    /// `[user[:password]@]host[:port]/[params?]routing_key`
    fn subscriber(address: &str) -> Result<Target, String> {
        let mut target = Target::new(AMQPUri::default());
        let (place, rest) = address.split_once('/').ok_or("the routing key is missing: host/key")?;
        let (who, place) = place.rsplit_once('@').map_or((None, place), |(who, place)| (Some(who), place));
        let plain = |text: &str| {
            String::from_utf8_lossy(&sip::unescape(&bytes::Bytes::copy_from_slice(text.as_bytes())))
                .into_owned()
        };
        let authority = &mut target.broker.uri.authority;
        if let Some(who) = who {
            let (user, password) = who.split_once(':').map_or((who, None), |(u, p)| (u, Some(p)));
            authority.userinfo.username = plain(user);
            if let Some(password) = password {
                authority.userinfo.password = plain(password);
            }
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("`{port}` is no port"))?)
            }
            _ => (place, 5672),
        };
        if host.is_empty() {
            return Err("the host is missing".into());
        }
        (authority.host, authority.port) = (host.to_owned(), port);
        let (params, key) = rest.rsplit_once('?').map_or((None, rest), |(params, key)| (Some(params), key));
        target.routing_key = plain(key);
        for part in params.map(parts).into_iter().flatten() {
            match part {
                ("exchange", Some(name)) => target.exchange = plain(name),
                ("tls_domain", Some(name)) => target.broker.tls_domain = Some(name.to_owned()),
                ("persistent", None) => target.persistent = true,
                // Before there were parameters, this was the exchange.
                (name, None) => target.exchange = plain(name),
                (name, _) => return Err(format!("a subscriber has no `{name}`")),
            }
        }
        if target.broker.tls_domain.is_some() {
            target.broker.uri.scheme = AMQPScheme::AMQPS;
        }
        Ok(target)
    }
}

/// A message under way.
struct Message {
    routing_key: String,
    body: Vec<u8>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
}

pub struct EventRabbitmq {
    /// Seconds; 0: none.
    heartbeat: u16,
    connect_ms: u64,
    use_tls: bool,
    /// Of one message; 0: as long as it takes.
    timeout_ms: u64,
    servers: Vec<(String, Arc<Target>)>,
    outlet: OnceLock<Arc<Outlet<Message>>>,
}

impl Default for EventRabbitmq {
    fn default() -> EventRabbitmq {
        EventRabbitmq {
            heartbeat: 0,
            connect_ms: 500,
            use_tls: false,
            timeout_ms: 0,
            servers: Vec::new(),
            outlet: OnceLock::new(),
        }
    }
}

pub fn register(m: &mut Registrar<EventRabbitmq>) {
    m.param_int("heartbeat", |s, n| Ok(s.heartbeat = u16::try_from(n.max(0)).unwrap_or(u16::MAX)));
    m.param_int("connect_timeout", |s, n| Ok(s.connect_ms = n.max(1) as u64));
    m.param_int("use_tls", |s, n| Ok(s.use_tls = n != 0));
    m.param_int("timeout", |s, n| Ok(s.timeout_ms = n.max(0) as u64));
    m.ignored(&["sync_mode"], "events are delivered beside the workers, and nobody waits for them");
    m.param_text("server_id", |s, v| {
        let (id, rest) = v
            .trim()
            .strip_prefix('[')
            .and_then(|v| v.split_once(']'))
            .ok_or("server_id: [name] uri = ...")?;
        if s.servers.iter().any(|(known, _)| known == id.trim()) {
            return Err(format!("there is a server {} already", id.trim()));
        }
        Ok(s.servers.push((id.trim().to_owned(), Arc::new(Target::server(rest)?))))
    });
    m.init(init);
    m.ready(ready);
    m.function("rabbitmq_publish", Routes::ALL, publish);
}

fn init(s: &mut EventRabbitmq, loader: &mut Loader) -> Result<(), String> {
    if s.use_tls && loader.module::<drivers::tls_mgm::TlsMgm>().is_none() {
        return Err("use_tls needs module tls_mgm".into());
    }
    for (id, target) in &mut s.servers {
        target.broker.check(s.use_tls).map_err(|why| format!("server_id [{id}]: {why}"))?;
        Arc::make_mut(target).broker.connect_ms = s.connect_ms;
    }
    Ok(())
}

fn ready(module: &Arc<EventRabbitmq>, hooks: &mut Hooks, stats: &Stats) {
    let outlet = Outlet::new("event_rabbitmq", stats);
    let (of, losses) = (module.clone(), outlet.clone());
    outlet.serve(hooks, move |shared, name, queue| deliver(of.clone(), losses.clone(), shared, name, queue));
    hooks.event_transport(Arc::new(Transport { module: module.clone(), outlet: outlet.clone() }));
    // Made once, before the workers.
    let _ = module.outlet.set(outlet);
}

struct Transport {
    module: Arc<EventRabbitmq>,
    outlet: Arc<Outlet<Message>>,
}

impl EventTransport for Transport {
    fn scheme(&self) -> &'static str {
        "rabbitmq"
    }

    fn check(&self, address: &str) -> Result<(), String> {
        Target::subscriber(address)?.broker.check(self.module.use_tls)
    }

    fn send(&self, ctx: &mut Ctx, address: &str, event: &Event) {
        let Ok(target) = Target::subscriber(address) else { return };
        let method = String::from_utf8_lossy(&event.name);
        let body = json!({"jsonrpc": "2.0", "method": method, "params": event.json(None)}).to_string();
        let message = Message {
            routing_key: target.routing_key,
            body: body.into_bytes(),
            content_type: None,
            headers: Vec::new(),
        };
        self.outlet.give(ctx.core.wall_us / 1000, address, message);
    }
}

/// The values of an AVP, all of them.
pub struct Values(AvpName);

impl Arg<EventRabbitmq> for Values {
    type Prepared = AvpName;
    const WHAT: &'static str = "an AVP";

    fn prepare(
        arg: Option<&script::ast::Arg>,
        site: script::Loc,
        loader: &mut Loader,
        module: &Arc<EventRabbitmq>,
    ) -> Result<AvpName, Diagnostic> {
        let var = <host::arg::AnyVar as Arg<EventRabbitmq>>::prepare(arg, site, loader, module)?;
        match var.kind {
            VarKind::Avp(name) => Ok(name),
            _ => Err(Diagnostic::error(arg.map_or(site, |arg| arg.loc), "this must be an AVP".to_owned())),
        }
    }

    fn eval(name: &AvpName, _: &mut Call<'_, EventRabbitmq>) -> Result<Values, i32> {
        Ok(Values(*name))
    }
}

impl Values {
    fn read(&self, ctx: &Ctx) -> Vec<String> {
        let avps = ctx.state.avps.borrow();
        avps.values(self.0).map(|v| String::from_utf8_lossy(&v.to_text()).into_owned()).collect()
    }
}

/// rabbitmq_publish(server_id, routing_key, message, [content_type], [headers, headers_vals])
fn publish(
    call: &mut Call<EventRabbitmq>,
    id: Text,
    routing_key: Text,
    body: Text,
    content_type: Option<Text>,
    names: Option<Values>,
    values: Option<Values>,
) -> i32 {
    let id = id.str().into_owned();
    if !call.module.servers.iter().any(|(known, _)| *known == id) {
        host::complain!(call.ctx, "event_rabbitmq", "there is no server_id [{id}]");
        return -1;
    }
    let headers = match (names, values) {
        (None, None) => Vec::new(),
        (Some(names), Some(values)) => {
            let (names, values) = (names.read(call.ctx), values.read(call.ctx));
            if names.len() != values.len() {
                host::complain!(
                    call.ctx,
                    "event_rabbitmq",
                    "{} headers have {} values",
                    names.len(),
                    values.len()
                );
                return -1;
            }
            // AVPs are read newest first.
            names.into_iter().zip(values).rev().collect()
        }
        _ => {
            host::complain!(call.ctx, "event_rabbitmq", "headers and headers_vals come together");
            return -1;
        }
    };
    let message = Message {
        routing_key: routing_key.str().into_owned(),
        body: body.to_vec(),
        content_type: content_type.map(|kind| kind.str().into_owned()),
        headers,
    };
    let now_ms = call.ctx.core.wall_us / 1000;
    let given =
        call.module.outlet.get().is_some_and(|outlet| outlet.give(now_ms, &format!("[{id}]"), message));
    if given { 1 } else { -1 }
}

/// Messages of one server or subscriber, in order.
async fn deliver(
    module: Arc<EventRabbitmq>,
    losses: Arc<Outlet<Message>>,
    shared: Arc<Shared>,
    name: String,
    mut queue: mpsc::Receiver<Message>,
) {
    let Some(target) = target(&module, &name) else { return };
    let mut open: Option<(Connection, Channel)> = None;
    while let Some(message) = queue.recv().await {
        // One that stood unused may have ended unnoticed: that attempt does not count.
        let mut left = target.retries + u32::from(open.is_some());
        loop {
            let sent = send(&module, &shared, &target, &mut open, &message).await;
            let Err(why) = sent else { break };
            open = None;
            if left == 0 {
                losses.lost(wall_ms(), &name, why);
                break;
            }
            left -= 1;
        }
    }
}

/// `[id]` is a server, anything else a subscriber.
fn target(module: &EventRabbitmq, name: &str) -> Option<Target> {
    if let Some(id) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return module.servers.iter().find(|(known, _)| known == id).map(|(_, target)| Target::clone(target));
    }
    let mut target = Target::subscriber(name).ok()?;
    target.broker.connect_ms = module.connect_ms;
    target.broker.uri.query.heartbeat = Some(module.heartbeat);
    Some(target)
}

async fn send(
    module: &EventRabbitmq,
    shared: &Shared,
    target: &Target,
    open: &mut Option<(Connection, Channel)>,
    message: &Message,
) -> Result<(), String> {
    if open.as_ref().is_some_and(|(connection, channel)| {
        !connection.status().connected() || !channel.status().connected()
    }) {
        *open = None;
    }
    let (_, channel) = match open {
        Some(open) => open,
        None => {
            let connection = target.broker.connect(shared).await?;
            let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
            open.insert((connection, channel))
        }
    };
    let mut properties = BasicProperties::default();
    if target.persistent {
        properties = properties.with_delivery_mode(2);
    }
    if let Some(kind) = &message.content_type {
        properties = properties.with_content_type(kind.as_str().into());
    }
    if !message.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in &message.headers {
            table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
        properties = properties.with_headers(table);
    }
    let sent = channel.basic_publish(
        target.exchange.as_str().into(),
        message.routing_key.as_str().into(),
        target.options,
        &message.body,
        properties,
    );
    let sent = match module.timeout_ms {
        0 => sent.await,
        ms => tokio::time::timeout(Duration::from_millis(ms), sent)
            .await
            .map_err(|_| format!("the server took no message within {ms} ms"))?,
    };
    sent.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{refused, run};
    use script::ast::Dialect;

    #[test]
    fn subscribers() {
        for (address, user, password, place, exchange, key) in [
            ("127.0.0.1/pike", "guest", "guest", "127.0.0.1:5672", "", "pike"),
            ("u:p%40@h:1/exchange=x;persistent?a.b", "u", "p@", "h:1", "x", "a.b"),
            ("u@h/old?key", "u", "guest", "h:5672", "old", "key"),
        ] {
            let target = Target::subscriber(address).unwrap();
            let who = &target.broker.uri.authority.userinfo;
            assert_eq!((who.username.as_str(), who.password.as_str()), (user, password));
            assert_eq!(
                (target.broker.place().as_str(), target.exchange.as_str(), target.routing_key.as_str()),
                (place, exchange, key)
            );
            assert_eq!(target.persistent, address.contains("persistent"));
        }
        for bad in ["127.0.0.1", "/key", "h:x/key", "h/a=b?key"] {
            assert!(Target::subscriber(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn servers() {
        let target =
            Target::server("uri = amqp://h; retries = 3; mandatory; non-persistent; exchange = x").unwrap();
        assert_eq!((target.retries, target.persistent, target.exchange.as_str()), (3, false, "x"));
        assert!(target.options.mandatory && !target.options.immediate);
        assert!(Target::server("uri = amqp://h").unwrap().persistent);
        assert!(Target::server("exchange = x").unwrap_err().contains("uri"));
        assert!(Target::server("uri = amqp://h; colour = red").unwrap_err().contains("colour"));
    }

    #[test]
    fn scripts() {
        let config = "loadmodule \"event_rabbitmq.so\"\nmodparam(\"event_rabbitmq\", \"server_id\", \"[A] uri = amqp://127.0.0.1:1\")\n";
        let body = r#"
            rabbitmq_publish("A", "key", "text"); $avp(rc) = $rc; rabbitmq_publish("B", "key", "text"); $avp(rc) = $rc;
            $avp(n) = "a"; $avp(n) = "b"; $avp(v) = 1; rabbitmq_publish("A", "key", "text", "x/y", $avp(n), $avp(v)); $avp(rc) = $rc;
            $avp(v) = 2; rabbitmq_publish("A", "key", "text", , $avp(n), $avp(v)); $avp(rc) = $rc;
        "#;
        assert_eq!(run(config, body, Dialect::V4).avps("rc"), ["1", "-1", "-1", "1"]);
        let twice = format!("{config}modparam(\"event_rabbitmq\", \"server_id\", \"[A] uri = amqp://h\")");
        assert!(refused(&twice, "exit;", Dialect::V4).contains("already"));
        let tls = "loadmodule \"event_rabbitmq.so\"\nmodparam(\"event_rabbitmq\", \"server_id\", \"[A] uri = amqps://h\")";
        assert!(refused(tls, "exit;", Dialect::V4).contains("tls_domain"));
    }
}
