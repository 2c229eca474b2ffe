//! The right to one connection, or to make one. Whatever happens to it, the pool stays right.

use super::Backend;
use super::pool::Inner;
use std::rc::Rc;
use tokio::time::Instant;

/// What a lease is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Resting,
    /// A statement is on its way: a connection dropped now has to be settled first.
    Statement,
    /// Between BEGIN and COMMIT: a connection dropped now is closed.
    Transaction,
}

/// Counts as one open connection until it is dropped.
pub struct Lease<B: Backend> {
    pub pool: Rc<Inner<B>>,
    /// `None`: room for a connection that is to be made.
    pub conn: Option<B::Conn>,
    pub doing: Use,
    /// When the connection was used last.
    pub rested: Option<Instant>,
}

impl<B: Backend> Lease<B> {
    pub fn new(pool: &Rc<Inner<B>>, conn: Option<B::Conn>, rested: Option<Instant>) -> Lease<B> {
        Lease { pool: pool.clone(), conn, doing: Use::Resting, rested }
    }

    /// Closes the connection.
    pub fn close(mut self) {
        self.conn = None;
    }
}

impl<B: Backend> Drop for Lease<B> {
    fn drop(&mut self) {
        match (self.conn.take(), self.doing) {
            (None, _) => self.pool.closed(1),
            (Some(conn), Use::Resting) => self.pool.give_back(conn),
            (Some(conn), doing) => self.pool.abandon(conn, doing),
        }
    }
}
