//! Looks at the server through its management interface: what is waiting, again and again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Milliseconds between two looks.
const EVERY: u64 = 25;

/// One look: how many scripts were waiting, by what they waited for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub at: Duration,
    pub waiting: BTreeMap<String, usize>,
}

impl Look {
    pub fn total(&self) -> usize {
        self.waiting.values().sum()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub looks: Vec<Look>,
}

impl Seen {
    /// Scripts that waited at the last look.
    pub fn now(&self) -> usize {
        self.looks.last().map_or(0, Look::total)
    }

    /// The look with the most waiting scripts.
    pub fn peak(&self) -> Option<&Look> {
        self.looks.iter().max_by_key(|l| l.total())
    }
}

pub struct Watch {
    pub seen: Rc<RefCell<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn stop(self) -> Seen {
        self.task.abort();
        self.seen.borrow().clone()
    }
}

/// Looks until it is stopped.
pub fn start(port: u16, started: Instant) -> Watch {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let into = seen.clone();
    let task = tokio::task::spawn_local(async move {
        loop {
            if let Ok(waiting) = look(port).await {
                into.borrow_mut().looks.push(Look { at: started.elapsed(), waiting });
            }
            tokio::time::sleep(Duration::from_millis(EVERY)).await;
        }
    });
    Watch { seen, task }
}

/// The command `async_list`, over HTTP as an operator's tool sends it.
async fn look(port: u16) -> std::io::Result<BTreeMap<String, usize>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let body = r#"{"jsonrpc":"2.0","method":"async_list","id":1}"#;
    let request = format!(
        "POST /mi HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let start = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    Ok(count(&answer[start..]))
}

fn count(json: &[u8]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let answer: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    for operation in answer["result"]["Operations"].as_array().into_iter().flatten() {
        if let Some(name) = operation["Operation"].as_str() {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_name() {
        let text = br#"{"jsonrpc":"2.0","id":1,"result":{"Operations":[{"Operation":"rest_get"},
            {"Operation":"sql_query"},{"Operation":"rest_get"}]}}"#;
        let expected = BTreeMap::from([("rest_get".to_owned(), 2), ("sql_query".to_owned(), 1)]);
        assert_eq!(count(text), expected);
        assert_eq!(count(b"nonsense"), BTreeMap::new());
    }
}
