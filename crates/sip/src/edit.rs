//! Changes to a message that are kept apart from it until it is printed.

use crate::message::Span;
use bytes::Bytes;
use smallvec::SmallVec;

/// A piece of inserted text; what depends on the sending socket is filled in when printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// What is known when it is inserted.
    Text(Bytes),
    /// host[:port] of the socket the message leaves by.
    SendHostPort,
    /// host[:port] of the socket the message came in by.
    ReceivedHostPort,
    /// `;transport=tcp` of the leaving socket; nothing for UDP.
    SendTransport,
    /// `;transport=tcp` of the socket the message came in by; nothing for UDP.
    ReceivedTransport,
    /// What is between is printed only when leaving and incoming socket differ in transport or
    /// address (double Record-Route).
    IfSocketsDiffer(Vec<Piece>),
}

/// Where a new header goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    /// Before the first header line.
    Top,
    /// After the last header line.
    End,
    /// At this byte offset of the message.
    At(u32),
}

/// Inserted text: mostly plain, without an allocation.
#[derive(Clone, Debug)]
pub(crate) enum Inserted {
    Text(Bytes),
    Pieces(Vec<Piece>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    InCallOrder,
    NewestFirst,
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Delete(Span),
    Insert(Anchor, Order, Inserted),
}

/// Recorded edits of one message ("lumps"): deletions and insertions that are applied when the
/// message is printed. A script does not see its own edits; the next hop does. Cheap to clone.
///
/// At most `Edits::MAX` are kept; further ones are dropped and counted (`overflowed`).
#[derive(Clone, Debug, Default)]
pub struct Edits {
    pub(crate) list: SmallVec<[Edit; 2]>,
    pub(crate) body: Option<Box<Bytes>>,
    overflowed: u32,
}

impl Edits {
    /// Bound on the edits of one message: a script's loops are bounded at 10,000 rounds.
    pub const MAX: usize = 16 * 1024;

    /// The message is printed as it was received.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.body.is_none()
    }

    /// How many edits were dropped because there were `MAX` already.
    pub fn overflowed(&self) -> u32 {
        self.overflowed
    }

    /// A deletion hides what begins inside it, deletions and inserted texts; what begins where it begins
    /// or ends stays.
    pub fn delete(&mut self, span: Span) {
        if !span.is_empty() {
            self.push(Edit::Delete(span));
        }
    }

    /// Repeated inserts at one place keep their call order.
    pub fn insert(&mut self, at: Anchor, text: impl Into<Bytes>) {
        self.push(Edit::Insert(at, Order::InCallOrder, Inserted::Text(text.into())));
    }

    /// Repeated inserts at one place: the newest first, before all that is there already. (OpenSIPS
    /// puts a Record-Route after an earlier `insert_hf`: that is `insert_pieces`.)
    pub fn insert_first(&mut self, at: Anchor, pieces: Vec<Piece>) {
        self.push(Edit::Insert(at, Order::NewestFirst, Inserted::Pieces(pieces)));
    }

    /// As `insert`, for text that depends on the sockets.
    pub fn insert_pieces(&mut self, at: Anchor, pieces: Vec<Piece>) {
        self.push(Edit::Insert(at, Order::InCallOrder, Inserted::Pieces(pieces)));
    }

    /// A deletion with a text in its place.
    pub fn replace(&mut self, span: Span, text: impl Into<Bytes>) {
        self.delete(span);
        self.insert(Anchor::At(span.start), text);
    }

    fn push(&mut self, edit: Edit) {
        if self.list.len() < Edits::MAX {
            self.list.push(edit);
        } else {
            self.overflowed = self.overflowed.saturating_add(1);
        }
    }

    /// The whole span lies in one deletion.
    pub fn is_deleted(&self, span: Span) -> bool {
        self.list.iter().any(|edit| matches!(edit, Edit::Delete(deleted) if deleted.contains(span)))
    }

    /// Forgets the deletions inside `span` (to replace a value that was replaced before).
    pub fn undelete(&mut self, span: Span) {
        self.list.retain(|edit| !matches!(edit, Edit::Delete(deleted) if span.contains(*deleted)));
    }

    /// Forgets what `replace` did to this very span.
    pub fn forget(&mut self, span: Span) {
        let same = |edit: &Edit| matches!(edit, Edit::Delete(deleted) if *deleted == span);
        while let Some(at) = self.list.iter().position(same) {
            self.list.remove(at);
            let its = Anchor::At(span.start);
            if matches!(self.list.get(at), Some(Edit::Insert(place, Order::InCallOrder, _)) if *place == its)
            {
                self.list.remove(at);
            }
        }
    }

    /// Forgets deletions and insertions inside `span`, at its start too.
    pub fn forget_within(&mut self, span: Span) {
        self.list.retain(|edit| match edit {
            Edit::Delete(deleted) => !span.contains(*deleted),
            Edit::Insert(Anchor::At(place), ..) => !(span.start..span.end).contains(place),
            Edit::Insert(..) => true,
        });
    }

    /// Replaces the whole body (and only it); printing writes the right Content-Length.
    pub fn set_body(&mut self, body: Bytes) {
        self.body = Some(Box::new(body));
    }

    /// The body that was set in the place of the received one.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_deref()
    }

    /// Removes the inserted texts for which `keep` is false (scripts that remove a header they
    /// added). Texts with pieces are shown with the pieces left out.
    pub fn retain_inserted(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.list.retain(|edit| match edit {
            Edit::Delete(_) => true,
            Edit::Insert(_, _, Inserted::Text(text)) => keep(text),
            Edit::Insert(_, _, Inserted::Pieces(pieces)) => keep(&plain_text(pieces)),
        });
    }

    /// Visits the inserts made of pieces, to change them in place (parameters added to a
    /// Record-Route that was inserted before).
    pub fn each_pieces(&mut self, mut change: impl FnMut(&mut Vec<Piece>)) {
        for edit in &mut self.list {
            if let Edit::Insert(_, _, Inserted::Pieces(pieces)) = edit {
                change(pieces);
            }
        }
    }

    /// The inserted texts with their places, in call order; pieces are left out of their texts.
    pub fn inserted(&self) -> impl Iterator<Item = (Anchor, Bytes)> + '_ {
        self.list.iter().filter_map(|edit| match edit {
            Edit::Delete(_) => None,
            Edit::Insert(at, _, Inserted::Text(text)) => Some((*at, text.clone())),
            Edit::Insert(at, _, Inserted::Pieces(pieces)) => Some((*at, plain_text(pieces).into())),
        })
    }
}

fn plain_text(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::IfSocketsDiffer(inner) => out.extend_from_slice(&plain_text(inner)),
            _ => {}
        }
    }
    out
}
