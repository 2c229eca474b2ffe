//! The world outside of the server as a test of a script gives it: whoever asks for an HTTP answer or a process asks
//! [`Outside`] first, when there is one. Databases and stores have stand-ins of their own
//! (`Loader::databases_instead`, `Loader::stores_instead`), names come from `Spawn`.

use crate::context::ctx::Ctx;
use bytes::Bytes;
use script::End;
use std::pin::Pin;

/// An answer that is awaited; dropping it takes the question back.
pub type Awaited<T> = Pin<Box<dyn Future<Output = T>>>;

/// A request of a script to an HTTP server.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// "GET"
    pub method: String,
    pub url: String,
    pub body: Bytes,
    /// Milliseconds that a connection may take to come up; `None`: any time.
    pub connect_ms: Option<u64>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum HttpAnswer {
    Answered {
        status: u16,
        ctype: Bytes,
        body: Bytes,
    },
    /// No connection: refused.
    Refused,
    /// No connection within `connect_ms`.
    Unreachable,
    /// The connection broke.
    Broken,
}

/// A command of a script.
#[derive(Clone, Debug)]
pub struct ProcessRequest {
    /// As a shell would get it; with `args`, the program.
    pub command: String,
    pub args: Option<Vec<String>>,
    pub stdin: Bytes,
}

/// What a command left behind.
#[derive(Clone, Debug, Default)]
pub struct ProcessAnswer {
    pub stdout: Bytes,
    pub stderr: Bytes,
    /// It ended with status 0.
    pub success: bool,
}

/// Stands in for everything outside. Asked on the worker's thread; futures run there too.
pub trait Outside: Send + Sync {
    fn http(&self, request: HttpRequest) -> Awaited<HttpAnswer>;
    /// `None`: it cannot be started.
    fn process(&self, request: ProcessRequest) -> Awaited<Option<ProcessAnswer>>;
    /// A statement begins (`ctx.state.task.loc()`); only in programs that were compiled with probes.
    fn statement(&self, ctx: &mut Ctx);
    /// A script has ended; its message is the current one.
    fn ended(&self, ctx: &mut Ctx, end: End);
}
