//! The tables presentity, active_watchers and watchers.

use super::subscription::{Dialog, Field, NO_SOCKET, Reason, Status, Subscription, Texts, Unwritten};
use super::table::Key;
use bytes::Bytes;
use host::Shared;
use host::db::{DbValue, Name, Op, Query, Row};
use modules::usrloc::sql::{socket_index, socket_text};

/// Names of the tables.
pub struct Tables {
    pub presentity: Name,
    pub active_watchers: Name,
    pub watchers: Name,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            presentity: "presentity".into(),
            active_watchers: "active_watchers".into(),
            watchers: "watchers".into(),
        }
    }
}

/// A published state as it is written.
pub struct PublishedState<'a> {
    pub etag: &'a Bytes,
    /// Unix seconds.
    pub expires: i64,
    pub received: i64,
    pub sender: &'a Bytes,
    /// `None`: stays as it is.
    pub body: Option<&'a Bytes>,
    pub headers: Option<&'a Bytes>,
}

/// Whose state: user, domain, event.
pub struct Owner<'a> {
    pub user: &'a Bytes,
    pub domain: &'a Bytes,
    pub event: &'static str,
}

/// Columns of [`Tables::subscriptions`].
const COLUMNS: [&str; 20] = [
    "presentity_uri",
    "event",
    "expires",
    "status",
    "local_cseq",
    "remote_cseq",
    "version",
    "socket_info",
    "watcher_username",
    "watcher_domain",
    "to_user",
    "to_domain",
    "callid",
    "to_tag",
    "from_tag",
    "contact",
    "record_route",
    "local_contact",
    "event_id",
    "reason",
];
/// The texts among them begin here, in the order of [`Field`].
const TEXTS: usize = 8;

fn text(bytes: &[u8]) -> DbValue {
    DbValue::Text(Bytes::copy_from_slice(bytes))
}

impl Tables {
    fn of_owner(query: Query, owner: &Owner<'_>) -> Query {
        query.eq("domain", owner.domain.clone()).eq("username", owner.user.clone()).eq("event", owner.event)
    }

    /// body, extra_hdrs, expires, etag, oldest first.
    pub fn published(&self, owner: &Owner<'_>) -> Query {
        let columns = ["body", "extra_hdrs", "expires", "etag"];
        Tables::of_owner(Query::select(&self.presentity).columns(columns), owner).order("received_time, id")
    }

    pub fn insert_state(&self, owner: &Owner<'_>, state: &PublishedState<'_>) -> Query {
        let insert = Query::insert(&self.presentity)
            .set("domain", owner.domain.clone())
            .set("username", owner.user.clone())
            .set("event", owner.event);
        let body = state.body.cloned().unwrap_or_default();
        Tables::set_state(insert, &PublishedState { body: Some(&body), ..*state })
    }

    /// Changes the state that has this tag.
    pub fn update_state(&self, owner: &Owner<'_>, etag: &Bytes, state: &PublishedState<'_>) -> Query {
        let update = Tables::set_state(Query::update(&self.presentity), state);
        Tables::of_owner(update, owner).eq("etag", etag.clone())
    }

    fn set_state(query: Query, state: &PublishedState<'_>) -> Query {
        let mut query = query
            .set("etag", state.etag.clone())
            .set("expires", state.expires)
            .set("received_time", state.received)
            .set("sender", state.sender.clone());
        for (column, value) in [("body", state.body), ("extra_hdrs", state.headers)] {
            if let Some(value) = value {
                query = query.set(column, DbValue::Blob(value.clone()));
            }
        }
        query
    }

    pub fn delete_state(&self, owner: &Owner<'_>, etag: &Bytes) -> Query {
        Tables::of_owner(Query::delete(&self.presentity), owner).eq("etag", etag.clone())
    }

    /// username, domain, etag, event of what ended between two moments.
    pub fn ended(&self, after: i64, before: i64) -> Query {
        Query::select(&self.presentity)
            .columns(["username", "domain", "etag", "event"])
            .filter("expires", Op::Gt, after)
            .filter("expires", Op::Lt, before)
            .order("username")
    }

    pub fn delete_ended(&self, before: i64) -> Query {
        Query::delete(&self.presentity).filter("expires", Op::Lt, before)
    }

    /// username, domain, event, expires, etag, body.
    pub fn states(&self) -> Query {
        Query::select(&self.presentity).columns(["username", "domain", "event", "expires", "etag", "body"])
    }

    /// The rows of watchers of one user and package, in that order: status, reason, watcher_username,
    /// watcher_domain.
    pub fn known_watchers(&self, key: &Key, event: &'static str) -> Query {
        Query::select(&self.watchers)
            .columns(["status", "reason", "watcher_username", "watcher_domain"])
            .eq("presentity_uri", key.uri.clone())
            .eq("event", event)
    }

    pub fn known_watcher(&self, key: &Key, event: &'static str, user: &Bytes, domain: &Bytes) -> Query {
        self.known_watchers(key, event)
            .eq("watcher_username", user.clone())
            .eq("watcher_domain", domain.clone())
    }

    pub fn insert_watcher(
        &self,
        key: &Key,
        event: &'static str,
        watcher: (&Bytes, &Bytes),
        decided: (Status, &Reason),
        now: i64,
    ) -> Query {
        Query::insert(&self.watchers)
            .set("presentity_uri", key.uri.clone())
            .set("watcher_username", watcher.0.clone())
            .set("watcher_domain", watcher.1.clone())
            .set("event", event)
            .set("status", decided.0 as i64)
            .set("inserted_time", now)
            .set("reason", decided.1.0.clone())
    }

    /// Writes what was decided about a watcher; one who is no longer one is forgotten.
    pub fn change_watcher(
        &self,
        key: &Key,
        event: &'static str,
        watcher: (&Bytes, &Bytes),
        decided: (Status, &Reason),
    ) -> Query {
        let (status, reason) = decided;
        let query = match status == Status::Terminated && *reason == Reason::DEACTIVATED {
            true => Query::delete(&self.watchers),
            false => {
                Query::update(&self.watchers).set("status", status as i64).set("reason", reason.0.clone())
            }
        };
        query
            .eq("presentity_uri", key.uri.clone())
            .eq("event", event)
            .eq("watcher_username", watcher.0.clone())
            .eq("watcher_domain", watcher.1.clone())
    }

    /// Those who wait since before a moment and nobody has decided about.
    pub fn delete_pending(&self, before: i64) -> Query {
        Query::delete(&self.watchers)
            .filter("inserted_time", Op::Lt, before)
            .eq("status", Status::Pending as i64)
    }

    /// All subscriptions, for [`Tables::read`].
    pub fn subscriptions(&self) -> Query {
        Query::select(&self.active_watchers).columns(COLUMNS)
    }

    /// Subscriptions of one user and package that are told of changes; `sender` is the Contact of who made one.
    pub fn open_subscriptions(&self, key: &Key, event: &'static str, sender: &Bytes) -> Query {
        self.subscriptions()
            .eq("presentity_uri", key.uri.clone())
            .eq("event", event)
            .eq("status", Status::Active as i64)
            .filter("contact", Op::Ne, sender.clone())
    }

    pub fn subscriptions_of(&self, key: &Key, event: &'static str) -> Query {
        self.subscriptions().eq("presentity_uri", key.uri.clone()).eq("event", event)
    }

    pub fn subscription(&self, dialog: &Dialog, event: &'static str) -> Query {
        Tables::of_dialog(self.subscriptions(), dialog).eq("event", event)
    }

    fn of_dialog(query: Query, dialog: &Dialog) -> Query {
        query
            .eq("callid", dialog.call_id.clone())
            .eq("to_tag", dialog.to_tag.clone())
            .eq("from_tag", dialog.from_tag.clone())
    }

    pub fn insert_subscription(
        &self,
        shared: &Shared,
        key: &Key,
        event: &'static str,
        s: &Subscription,
    ) -> Query {
        let socket = if s.socket == NO_SOCKET { None } else { socket_text(shared, s.socket) };
        let mut insert = Query::insert(&self.active_watchers)
            .set("presentity_uri", key.uri.clone())
            .set("event", event)
            .set("expires", i64::from(s.expires))
            .set("status", s.status as i64)
            .set("local_cseq", i64::from(s.local_cseq))
            .set("remote_cseq", i64::from(s.remote_cseq))
            .set("version", i64::from(s.version))
            .set("socket_info", socket.unwrap_or_default());
        for (column, field) in COLUMNS[TEXTS..].iter().zip(Field::ALL) {
            insert = insert.set(*column, text(s.get(field)));
        }
        insert
    }

    pub fn update_subscription(&self, key: &Key, event: &'static str, s: &Subscription) -> Query {
        let update = Query::update(&self.active_watchers)
            .set("expires", i64::from(s.expires))
            .set("status", s.status as i64)
            .set("reason", text(s.get(Field::Reason)))
            .set("remote_cseq", i64::from(s.remote_cseq))
            .set("local_cseq", i64::from(s.local_cseq))
            .set("contact", text(s.get(Field::Contact)))
            .set("version", i64::from(s.version))
            .eq("presentity_uri", key.uri.clone())
            .eq("event", event);
        Tables::of_dialog(update, &s.dialog())
    }

    pub fn delete_subscription(&self, key: &Key, event: &'static str, to_tag: &Bytes) -> Query {
        Query::delete(&self.active_watchers)
            .eq("presentity_uri", key.uri.clone())
            .eq("event", event)
            .eq("to_tag", to_tag.clone())
    }

    pub fn delete_expired(&self, now: i64) -> Query {
        Query::delete(&self.active_watchers).filter("expires", Op::Lt, now)
    }
}

/// (URI of the watched, event, subscription) of a row of [`Tables::subscriptions`]; `None`: it is no subscription.
pub fn read(shared: &Shared, row: &Row<'_>) -> Option<(Bytes, String, Subscription)> {
    let number = |at: usize| row.int(at).unwrap_or(0).clamp(0, i64::from(u32::MAX)) as u32;
    let uri = row.text(0).filter(|uri| !uri.is_empty())?;
    let texts: Texts = std::array::from_fn(|i| row.text(TEXTS + i).unwrap_or_default());
    let status = Status::of_number(row.int(3)?)?;
    let mut s = Subscription::new(&texts, number(2), status);
    (s.local_cseq, s.remote_cseq, s.version) = (number(4), number(5), number(6));
    s.socket = socket_index(shared, &row.text(7).unwrap_or_default()).unwrap_or(NO_SOCKET);
    s.unwritten = Unwritten::Nothing;
    let is_dialog = !s.get(Field::CallId).is_empty() && !s.get(Field::ToTag).is_empty();
    is_dialog.then(|| (uri, row.string(1), s))
}
