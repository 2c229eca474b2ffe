//! How far a request is: whether it needed a connection of its own, and whether that was made. The HTTP client makes
//! connections inside the request that wants one, so a value of that task tells.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// No connection was made for it: it has one that others left.
    #[default]
    Kept,
    Connecting,
    Connected,
}

tokio::task_local! {
    static PHASE: Cell<Phase>;
}

/// Runs a request; what comes out with it is how far it was when it ended.
pub async fn watch<T>(request: impl Future<Output = T>) -> (T, Phase) {
    PHASE.scope(Cell::default(), async move { (request.await, now()) }).await
}

/// How far the request of the current task is.
pub fn now() -> Phase {
    PHASE.try_with(Cell::get).unwrap_or_default()
}

fn note(phase: Phase) {
    // A connection that outlives the wish for it is nobody's.
    let _ = PHASE.try_with(|now| now.set(phase));
}

/// Sees connections being made.
#[derive(Clone, Copy, Default)]
pub struct Watch;

#[derive(Clone)]
pub struct Watched<S>(S);

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched(inner)
    }
}

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        note(Phase::Connecting);
        let made = self.0.call(request);
        Box::pin(async move {
            let made = made.await;
            if made.is_ok() {
                note(Phase::Connected);
            }
            made
        })
    }
}
