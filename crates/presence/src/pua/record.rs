//! What this server has published or subscribed to itself.

use bytes::Bytes;
use host::tm::Answer;
use host::{Ctx, tm::ua::Side};
use std::collections::VecDeque;

/// Events, with the numbers of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub number: u32,
    pub name: &'static str,
    /// Empty: PUBLISH needs no body.
    pub content_type: &'static str,
}

pub const EVENTS: [Event; 7] = [
    Event { number: 1, name: "presence", content_type: "application/pidf+xml" },
    Event { number: 2, name: "presence.winfo", content_type: "" },
    Event { number: 4, name: "dialog;sla", content_type: "application/dialog-info+xml" },
    Event { number: 8, name: "message-summary", content_type: "application/simple-message-summary" },
    Event { number: 32, name: "xcap-diff", content_type: "application/xcap-diff+xml" },
    Event { number: 64, name: "dialog", content_type: "application/dialog-info+xml" },
    Event { number: 256, name: "reg", content_type: "application/reginfo+xml" },
];

pub fn event_named(name: &str) -> Option<Event> {
    EVENTS.into_iter().find(|event| event.name == name)
}

pub fn event_numbered(number: i64) -> Option<Event> {
    EVENTS.into_iter().find(|event| i64::from(event.number) == number)
}

/// Who wants it, with the numbers of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Usrloc = 1,
    /// Of a shared line, as one of its phones told it.
    Line = 1 << 1,
    /// To a phone of a shared line.
    LinePhone = 1 << 2,
    Publish = 1 << 6,
    Subscribe = 1 << 8,
    Lists = 1 << 9,
    Dialog = 1 << 10,
    OtherRegistrar = 1 << 12,
    Registrations = 1 << 13,
}

impl Source {
    pub fn of_number(number: i64) -> Option<Source> {
        let all = [
            Source::Usrloc,
            Source::Line,
            Source::LinePhone,
            Source::Publish,
            Source::Subscribe,
            Source::Lists,
            Source::Dialog,
            Source::OtherRegistrar,
            Source::Registrations,
        ];
        all.into_iter().find(|source| *source as i64 == number)
    }
}

/// Hears the final reply.
pub type Done = Box<dyn FnOnce(&mut Ctx, &Answer) + Send>;

/// A PUBLISH that somebody wants sent.
pub struct Publication {
    /// Whose state it is.
    pub uri: Bytes,
    /// What tells states of one user and source apart; empty: there is one.
    pub id: Bytes,
    pub event: Event,
    pub source: Source,
    /// Seconds; below 0: as long as usual.
    pub expires: i64,
    pub body: Option<Bytes>,
    /// Empty: the event's own.
    pub content_type: Bytes,
    /// The state must have this tag.
    pub etag: Option<Bytes>,
    /// Whole lines.
    pub headers: Bytes,
    /// URI of the server to send it to.
    pub proxy: Option<Bytes>,
    /// It is another state, whatever there is.
    pub is_new: bool,
    pub done: Option<Done>,
}

/// A state or subscription of this server's.
pub struct Record {
    /// Of all records of this run.
    pub number: u64,
    pub uri: Bytes,
    pub id: Bytes,
    pub event: Event,
    pub source: Source,
    pub etag: Bytes,
    /// Unix seconds; 0: not answered yet.
    pub expires: i64,
    /// Unix seconds until when somebody wants it; 0: for good.
    pub desired: i64,
    pub tuple_id: String,
    pub headers: Bytes,
    pub proxy: Option<Bytes>,
    pub version: u32,
    /// A request is under way.
    pub waits: bool,
    /// What is sent after it.
    pub pending: VecDeque<Publication>,
    /// The row is older than this.
    pub unwritten: bool,
    /// `None`: it is a published state.
    pub watch: Option<Watch>,
}

/// Of a subscription.
#[derive(Clone, Debug)]
pub struct Watch {
    pub watcher: Bytes,
    pub to: Bytes,
    pub contact: Bytes,
    /// Of the first request, and of the dialog that it begins.
    pub call_id: Bytes,
    /// The dialog, once there is one.
    pub side: Option<Side>,
}

impl Record {
    pub fn is_of(&self, uri: &Bytes, source: Source, event: Event) -> bool {
        self.uri == *uri && self.source == source && self.event == event
    }
}
