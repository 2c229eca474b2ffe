//! When something last moved on a connection, so that idle ones end.
#![expect(clippy::disallowed_methods, reason = "a management connection is no part of any call")]

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What happens on one connection.
pub(super) struct Activity {
    since: Instant,
    /// Milliseconds after `since` when bytes last came or went, or a page was done.
    last: AtomicU64,
    /// Pages that are being made: they may wait for as long as they like.
    busy: AtomicUsize,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity { since: Instant::now(), last: AtomicU64::new(0), busy: AtomicUsize::new(0) }
    }
}

/// A page is being made until this is dropped.
pub(super) struct Busy<'a>(&'a Activity);

impl Activity {
    fn note(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn busy(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// Returns once nothing has happened for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let end = match self.busy.load(Ordering::Relaxed) {
                0 => self.since + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit,
                _ => Instant::now() + limit,
            };
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.note();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that notes its activity.
pub(super) struct Watched {
    pub stream: TcpStream,
    pub activity: Arc<Activity>,
}

impl Watched {
    fn noted<T>(&self, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.noted(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, buf: &[u8]) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
        slices: &[IoSlice],
    ) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_is_when_nothing_moves_and_no_page_is_made() {
        let activity = Activity::default();
        let limit = Duration::from_secs(30);
        let begin = Instant::now();
        tokio::join!(activity.idle_for(limit), async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            activity.note();
            tokio::time::sleep(Duration::from_secs(20)).await;
            let busy = activity.busy();
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(busy);
        });
        let took = begin.elapsed().as_secs();
        assert!((170..=200).contains(&took), "{took}");
    }
}
