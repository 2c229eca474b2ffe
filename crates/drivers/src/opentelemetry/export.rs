//! The way of spans to the collector: a bounded queue, a second at most together, one request after the other.
#![allow(
    clippy::disallowed_methods,
    reason = "connections to collectors are real I/O: they live outside the workers"
)]

use super::span::{Span, request};
use host::outage::Outage;
use host::stats::{Counter, Stats};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Spans that wait to be sent; more are lost and counted.
const MAX_QUEUE: usize = 8192;
/// Spans of one request.
const MAX_BATCH: usize = 512;
/// How long the first of a batch waits for others.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Exporter {
    queue: mpsc::Sender<Span>,
    waiting: Mutex<Option<mpsc::Receiver<Span>>>,
    counters: Mutex<Option<(Counter, Counter)>>,
    outage: Outage,
}

impl Default for Exporter {
    fn default() -> Exporter {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        Exporter {
            queue,
            waiting: Mutex::new(Some(waiting)),
            counters: Mutex::default(),
            outage: Outage::default(),
        }
    }
}

impl Exporter {
    pub fn show(&self, stats: &Stats) {
        let counters = ("spans_sent", "spans_lost");
        let counter = |name| stats.counter("opentelemetry", name);
        *self.counters.lock() = Some((counter(counters.0), counter(counters.1)));
    }

    pub fn queue(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.lose(1);
        }
    }

    fn lose(&self, count: usize) {
        if let Some((_, lost)) = &*self.counters.lock() {
            lost.add(count as i64);
        }
    }
}

/// Sends what is queued until the server ends.
pub async fn serve(exporter: Arc<Exporter>, endpoint: String, service: String) {
    let Some(mut waiting) = exporter.waiting.lock().take() else { return };
    let client = match crate::rest_client::client::plain(PATIENCE) {
        Ok(client) => client,
        Err(e) => return host::error!("opentelemetry", "cannot speak HTTP: {e}"),
    };
    while let Some(first) = waiting.recv().await {
        let mut batch = vec![first];
        let end = tokio::time::Instant::now() + TOGETHER;
        while batch.len() < MAX_BATCH {
            match tokio::time::timeout_at(end, waiting.recv()).await {
                Ok(Some(span)) => batch.push(span),
                _ => break,
            }
        }
        let body = request(&service, &batch).to_string();
        let post = client.post(&endpoint).header("Content-Type", "application/json").body(body);
        let failed = match post.send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(e) => Some(e.to_string()),
        };
        match failed {
            None => {
                if exporter.outage.ends() {
                    host::notice!("opentelemetry", "the collector {endpoint} is there again");
                }
                if let Some((sent, _)) = &*exporter.counters.lock() {
                    sent.add(batch.len() as i64);
                }
            }
            Some(why) => {
                if exporter.outage.begins() {
                    host::warn!("opentelemetry", "the collector {endpoint} takes no spans: {why}");
                }
                exporter.lose(batch.len());
            }
        }
    }
}
