//! What a pool does beside queries: finding its server again, and settling connections that were left in
//! the middle of a statement.

use super::Backend;
use super::lease::{Lease, Use};
use super::pool::{Health, Inner};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long an abandoned statement may go on before its connection is closed under it.
const GRACE: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Tries until the server is back.
pub async fn reconnect<B: Backend>(pool: Weak<Inner<B>>) {
    let mut pause = FIRST_RETRY;
    loop {
        sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        pause = (pause * 2).min(LAST_RETRY);
        let mut lease = {
            let mut state = pool.state.borrow_mut();
            if !matches!(state.health, Health::Down(_)) {
                state.reconnecting = false;
                return;
            }
            pool.count_open(&mut state);
            Lease::new(&pool, None, None)
        };
        match pool.backend.connect().await {
            Ok(conn) => {
                pool.state.borrow_mut().reconnecting = false;
                pool.is_up();
                lease.conn = Some(conn);
                return;
            }
            Err(why) => pool.state.borrow_mut().health = Health::Down(why),
        }
    }
}

/// Looks after connections whose statements nobody waits for.
pub async fn settle_all<B: Backend>(
    pool: Weak<Inner<B>>,
    mut abandoned: mpsc::UnboundedReceiver<(B::Conn, Use)>,
) {
    while let Some((conn, doing)) = abandoned.recv().await {
        let Some(pool) = pool.upgrade() else { return };
        tokio::task::spawn_local(settle(pool, conn, doing));
    }
}

async fn settle<B: Backend>(pool: Rc<Inner<B>>, mut conn: B::Conn, doing: Use) {
    let settled =
        doing == Use::Statement && timeout(GRACE, pool.backend.ping(&mut conn)).await.unwrap_or(false);
    if settled {
        return pool.give_back(conn);
    }
    // A connection that says nothing may be the first sign that the server is gone: the rest would hang
    // until their deadlines too.
    match pool.backend.replace(conn).await {
        Ok(conn) => pool.give_back(conn),
        Err(why) => {
            let last = pool.state.borrow().open <= 1;
            match last {
                true => pool.is_down(&why),
                false => pool.grows_no_more(&why),
            }
            pool.closed(1);
        }
    }
}

/// A pool that has grown with need shrinks when the need is over.
pub async fn thin_out<B: Backend>(pool: Weak<Inner<B>>, may_rest: Duration) {
    loop {
        sleep(may_rest / 2).await;
        match pool.upgrade() {
            Some(pool) if pool.close_resting(may_rest) => {}
            _ => return,
        }
    }
}
