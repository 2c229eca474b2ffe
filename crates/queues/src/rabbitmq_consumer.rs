//! rabbitmq_consumer: messages of RabbitMQ's queues as events.

use crate::rabbitmq::{Broker, parts};
use bytes::Bytes;
use futures_util::StreamExt;
use host::events::{EventParams, ScriptEvents};
use host::load::Loader;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Ctx, Registrar, Value};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use std::sync::Arc;
use std::time::Duration;

/// Messages that a broker sends before the first of them is acknowledged.
const AHEAD: u16 = 100;
/// A worker whose mailbox is full is offered the message again after this long.
const AGAIN: Duration = Duration::from_millis(10);

/// A queue and what becomes of its messages.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    broker: Broker,
    queue: String,
    event: Bytes,
    acknowledges: bool,
    exclusive: bool,
}

impl Source {
    fn parse(text: &str) -> Result<Source, String> {
        let (mut broker, mut has_uri) = (Broker::new(AMQPUri::default()), false);
        // Off unless it is asked for; the broker would want one.
        broker.uri.query.heartbeat = Some(0);
        let (mut queue, mut event, mut acknowledges, mut exclusive) = (None, None, false, false);
        for part in parts(text) {
            has_uri |= part.0 == "uri";
            if broker.set(part)? {
                continue;
            }
            match part {
                ("queue", Some(name)) => queue = Some(name.to_owned()),
                ("event", Some(name)) => event = Some(Bytes::from(name.to_owned())),
                ("ack", None) => acknowledges = true,
                ("exclusive", None) => exclusive = true,
                (name, _) => return Err(format!("a connection has no `{name}`")),
            }
        }
        match (has_uri, queue, event) {
            (true, Some(queue), Some(event)) => Ok(Source { broker, queue, event, acknowledges, exclusive }),
            _ => Err("a connection needs uri, queue and event".into()),
        }
    }
}

pub struct RabbitmqConsumer {
    connect_ms: u64,
    retry_ms: u64,
    use_tls: bool,
    sources: Vec<Source>,
}

impl Default for RabbitmqConsumer {
    fn default() -> RabbitmqConsumer {
        RabbitmqConsumer { connect_ms: 500, retry_ms: 5000, use_tls: false, sources: Vec::new() }
    }
}

pub fn register(m: &mut Registrar<RabbitmqConsumer>) {
    m.param_text("connection_id", |s, v| Ok(s.sources.push(Source::parse(v)?)));
    m.param_int("connect_timeout", |s, n| Ok(s.connect_ms = n.max(1) as u64));
    m.param_int("retry_timeout", |s, n| Ok(s.retry_ms = n.max(1) as u64));
    m.param_int("use_tls", |s, n| Ok(s.use_tls = n != 0));
    m.init(init);
    m.ready(ready);
}

fn init(s: &mut RabbitmqConsumer, loader: &mut Loader) -> Result<(), String> {
    if s.use_tls && loader.module::<drivers::tls_mgm::TlsMgm>().is_none() {
        return Err("use_tls needs module tls_mgm".into());
    }
    for source in &mut s.sources {
        source.broker.check(s.use_tls).map_err(|why| format!("connection_id of {}: {why}", source.queue))?;
        source.broker.connect_ms = s.connect_ms;
        loader.part::<ScriptEvents>().0.push(source.event.clone());
    }
    Ok(())
}

fn ready(module: &Arc<RabbitmqConsumer>, hooks: &mut Hooks, _: &Stats) {
    for source in &module.sources {
        let (source, retry) = (Arc::new(source.clone()), Duration::from_millis(module.retry_ms));
        hooks.services.push(Arc::new(move |shared| Box::pin(consume(shared, source.clone(), retry))));
    }
}

async fn consume(shared: Arc<Shared>, source: Arc<Source>, retry: Duration) {
    let (mut told, mut number) = (false, 0);
    loop {
        let ended = session(&shared, &source, &mut told, &mut number).await;
        // Said once for each outage.
        if !std::mem::replace(&mut told, true) {
            let place = source.broker.place();
            host::warn!("rabbitmq_consumer", "no messages of queue {} at {place}: {ended}", source.queue);
        }
        tokio::time::sleep(retry).await;
    }
}

/// One connection, to its end; says why it ended.
async fn session(shared: &Arc<Shared>, source: &Source, told: &mut bool, number: &mut usize) -> String {
    match listen(shared, source, told, number).await {
        Ok(()) => "the broker ended it".into(),
        Err(why) => why,
    }
}

async fn listen(
    shared: &Arc<Shared>,
    source: &Source,
    told: &mut bool,
    number: &mut usize,
) -> Result<(), String> {
    let said = |error: lapin::Error| error.to_string();
    let connection = source.broker.connect(shared).await?;
    let channel = connection.create_channel().await.map_err(said)?;
    if source.acknowledges {
        channel.basic_qos(AHEAD, BasicQosOptions::default()).await.map_err(said)?;
    }
    let options = BasicConsumeOptions {
        no_ack: !source.acknowledges,
        exclusive: source.exclusive,
        ..BasicConsumeOptions::default()
    };
    let consumed =
        channel.basic_consume(source.queue.as_str().into(), "".into(), options, FieldTable::default());
    let mut messages = consumed.await.map_err(said)?;
    if std::mem::take(told) {
        host::notice!("rabbitmq_consumer", "messages of queue {} come again", source.queue);
    }
    while let Some(message) = messages.next().await {
        let message = message.map_err(said)?;
        raise(shared, source, Bytes::from(message.data.clone()), number).await;
        if source.acknowledges {
            message.ack(BasicAckOptions::default()).await.map_err(said)?;
        }
    }
    Ok(())
}

/// Hands a message to the workers, one after the other; waits while the mailbox of its worker is full.
async fn raise(shared: &Arc<Shared>, source: &Source, body: Bytes, number: &mut usize) {
    let Some(dispatch) = shared.dispatch.get() else { return };
    *number += 1;
    loop {
        let (event, body) = (source.event.clone(), body.clone());
        let job = Box::new(move |ctx: &mut Ctx| {
            let params: EventParams = [("body", Value::Str(body))].into_iter().collect();
            host::events::raise(ctx, event, params);
        });
        if dispatch.run_on(*number % dispatch.workers().max(1), job) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{refused, run};
    use script::ast::Dialect;

    #[test]
    fn definitions() {
        let source =
            Source::parse("uri = amqp://127.0.0.1; queue = q; event = E_Q; heartbeat = 5; ack; exclusive;")
                .unwrap();
        assert_eq!((source.queue.as_str(), &source.event[..]), ("q", &b"E_Q"[..]));
        assert!(source.acknowledges && source.exclusive);
        assert_eq!(source.broker.uri.query.heartbeat, Some(5));
        for (text, why) in [
            ("uri = amqp://h; queue = q", "needs uri, queue and event"),
            ("queue = q; event = E", "needs uri"),
            ("uri = amqp://h; queue = q; event = E; colour = red", "colour"),
        ] {
            assert!(Source::parse(text).unwrap_err().contains(why), "{text}");
        }
        let config = "loadmodule \"rabbitmq_consumer.so\"\nmodparam(\"rabbitmq_consumer\", \"connection_id\", \
                      \"uri = amqp://127.0.0.1; queue = q; event = E_Q\")\n";
        run(config, "exit;", Dialect::V4);
        let tls = config.replace("amqp:", "amqps:");
        assert!(refused(&tls, "exit;", Dialect::V4).contains("tls_domain"));
    }
}
