//! Module `sim_ua`: requests that are held and answered later, and what the owner of a handle hears.

use host::tm::ua::{Ear, Heard};
use host::{Call, Ctx, Registrar, Routes};
use std::cell::{Cell, RefCell};
use transaction::TxnId;

thread_local! {
    static HEARD: RefCell<Vec<String>> = RefCell::default();
    static HELD: Cell<Option<TxnId>> = const { Cell::new(None) };
    static REPLIES: RefCell<Vec<sip::Message>> = RefCell::default();
}

/// What was heard since the last time.
pub fn heard() -> Vec<String> {
    HEARD.take()
}

/// The request that `hold_call()` took last.
pub fn held() -> Option<TxnId> {
    HELD.get()
}

/// Replies that were heard since the last time.
pub fn replies() -> Vec<sip::Message> {
    REPLIES.take()
}

/// Writes down what it hears, after this word.
pub fn ear(word: &'static str) -> Ear {
    Box::new(move |_: &mut Ctx, _, heard| {
        let line = match heard {
            Heard::Reply(answer) => {
                if let Some(reply) = &answer.reply {
                    REPLIES.with_borrow_mut(|all| all.push((**reply).clone()));
                }
                let from = if answer.reply.is_some() { "" } else { " made here" };
                format!("{word} {}{from}", answer.status)
            }
            Heard::Acked(_) => format!("{word} acked"),
            Heard::Pracked(_) => format!("{word} pracked"),
            Heard::Cancelled => format!("{word} cancelled"),
            Heard::Unacknowledged => format!("{word} unacknowledged"),
            Heard::Over => format!("{word} over"),
        };
        HEARD.with_borrow_mut(|all| all.push(line));
    })
}

#[derive(Default)]
pub struct Ends;

pub fn register(m: &mut Registrar<Ends>) {
    m.function("hold_call", Routes::REQUEST, hold_call);
}

/// hold_call(): the request is answered by the test.
fn hold_call(call: &mut Call<Ends>) -> bool {
    let id = host::tm::ua::take(call.ctx, ear("held"));
    HELD.set(id);
    id.is_some()
}
