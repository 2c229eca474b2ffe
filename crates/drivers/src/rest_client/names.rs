//! Host names through the worker's own resolver: cached by lifetime, negative answers too.

use host::Ctx;
use host::ctx::Spawn;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use sip::names::{Record, RecordKind, ResolveError};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

/// Names asked for at one time; more is an error of the request.
const PENDING: usize = 10_000;

type Ask = (String, oneshot::Sender<Result<Vec<SocketAddr>, ResolveError>>);

/// The HTTP client wants a resolver that may move between threads; the worker's stays on its own. They
/// talk over a channel.
#[derive(Clone)]
pub struct Names(mpsc::Sender<Ask>);

#[derive(Default)]
struct Local(Option<Names>);

/// This worker's resolver.
pub fn of(ctx: &mut Ctx) -> Names {
    let spawner = ctx.core.spawner.clone();
    let start = || {
        let (send, mut asks) = mpsc::channel::<Ask>(PENDING);
        spawn_local(async move {
            while let Some((name, answer)) = asks.recv().await {
                let spawner = spawner.clone();
                spawn_local(async move {
                    let _ = answer.send(lookup(&spawner, name).await);
                });
            }
        });
        Names(send)
    };
    ctx.local::<Local>().0.get_or_insert_with(start).clone()
}

async fn lookup(spawner: &Rc<dyn Spawn>, name: String) -> Result<Vec<SocketAddr>, ResolveError> {
    let (v4, v6) = futures_util::future::join(
        spawner.records(name.clone(), RecordKind::A),
        spawner.records(name, RecordKind::Aaaa),
    )
    .await;
    let failed = v4.as_ref().err().or(v6.as_ref().err()).copied();
    let records = v4.unwrap_or_default().into_iter().chain(v6.unwrap_or_default());
    let found: Vec<SocketAddr> = records
        .filter_map(|record| match record {
            Record::Address(ip) => Some(SocketAddr::new(ip, 0)),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(failed.unwrap_or(ResolveError::NoAddress)) } else { Ok(found) }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (send, receive) = oneshot::channel();
        let asked = self.0.try_send((name.as_str().to_string(), send));
        Box::pin(async move {
            asked.map_err(|_| ResolveError::Busy)?;
            let found = receive.await.map_err(|_| ResolveError::Unavailable)??;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Shared by the clients of one worker.
impl From<Names> for Arc<dyn Resolve> {
    fn from(names: Names) -> Arc<dyn Resolve> {
        Arc::new(names)
    }
}
