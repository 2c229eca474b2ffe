//! The states of a dialog as scripts count them (`$DLG_status`), and what moves it from one to the next.
//!
//! ```text
//!               1xx                2xx               ACK
//! 1 Unconfirmed ────▶ 2 Early ──────────▶ 3 Answered ────▶ 4 Confirmed
//!      │   └──────────────┼──── 2xx ──────────▲                │
//!      │                  │                   │ BYE            │ BYE
//!      └──── 3xx-6xx, end of the transaction ─┴───▶ 5 Ended ◀──┘
//!                                                  │  a 2xx that lost against a refusal
//!                                                  └──▶ 3 Answered
//! ```

/// Names follow the meaning, numbers the reference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// No reply yet.
    Unconfirmed = 1,
    /// A provisional reply went upstream.
    Early = 2,
    /// A 2xx went upstream, its ACK has not come.
    Answered = 3,
    Confirmed = 4,
    Ended = 5,
}

/// What happened to the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    Provisional,
    Success,
    Refused,
    /// The INVITE's transaction ended.
    TransactionEnd,
    Ack,
    Bye,
    /// Time is over, or a command ends the call.
    End,
}

impl State {
    pub fn of_number(number: i64) -> Option<State> {
        [State::Unconfirmed, State::Early, State::Answered, State::Confirmed, State::Ended]
            .into_iter()
            .find(|s| *s as i64 == number)
    }

    /// A 2xx came, and no end.
    pub fn is_answered(self) -> bool {
        matches!(self, State::Answered | State::Confirmed)
    }

    pub fn is_early(self) -> bool {
        matches!(self, State::Unconfirmed | State::Early)
    }

    /// `said_bye`: somebody hung up already, so that a late 2xx brings nothing back.
    pub fn next(self, happened: Happened, said_bye: bool) -> State {
        use Happened as H;
        use State as S;
        match (self, happened) {
            (S::Unconfirmed | S::Early, H::Provisional) => S::Early,
            (S::Unconfirmed | S::Early, H::Success) => S::Answered,
            (S::Unconfirmed | S::Early, H::Refused | H::TransactionEnd | H::End) => S::Ended,
            (S::Answered, H::Ack) => S::Confirmed,
            (S::Answered | S::Confirmed, H::Bye | H::End) => S::Ended,
            (S::Ended, H::Success) if !said_bye => S::Answered,
            (same, _) => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Happened as H;
    use super::State as S;

    #[test]
    fn calls_go_their_ways() {
        let check = |happened: &[H], expected: &[S]| {
            let mut state = S::Unconfirmed;
            let said_bye = happened.contains(&H::Bye);
            let seen: Vec<S> = happened
                .iter()
                .map(|h| {
                    state = state.next(*h, said_bye);
                    state
                })
                .collect();
            assert_eq!(seen, expected, "{happened:?}");
        };
        check(
            &[H::Provisional, H::Success, H::Ack, H::Bye],
            &[S::Early, S::Answered, S::Confirmed, S::Ended],
        );
        check(&[H::Success, H::Bye, H::Ack], &[S::Answered, S::Ended, S::Ended]);
        check(&[H::Provisional, H::Refused, H::TransactionEnd], &[S::Early, S::Ended, S::Ended]);
        // A BYE in an early dialog does not end it; the answer may still come.
        check(&[H::Provisional, H::Bye, H::Success], &[S::Early, S::Early, S::Answered]);
        // A 2xx that crossed a refusal brings the dialog back, a hung up one stays ended.
        check(&[H::Refused, H::Success, H::Ack], &[S::Ended, S::Answered, S::Confirmed]);
        check(&[H::Success, H::Bye, H::Success], &[S::Answered, S::Ended, S::Ended]);
        check(
            &[H::Success, H::Ack, H::Provisional, H::Success],
            &[S::Answered, S::Confirmed, S::Confirmed, S::Confirmed],
        );
        check(&[H::TransactionEnd], &[S::Ended]);
    }
}
