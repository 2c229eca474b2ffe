//! What `create_dialog` was asked for, and what a dialog remembers of its course.

/// A set of bits; the first eight are asked for by name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(pub u32);

impl Flags {
    pub const BYE_ON_TIMEOUT: Flags = Flags(1 << 0);
    pub const OPTIONS_CALLER: Flags = Flags(1 << 1);
    pub const OPTIONS_CALLEE: Flags = Flags(1 << 2);
    pub const REINVITE_CALLER: Flags = Flags(1 << 3);
    pub const REINVITE_CALLEE: Flags = Flags(1 << 4);
    pub const END_ON_RACE: Flags = Flags(1 << 5);
    pub const AUTO_PRACK: Flags = Flags(1 << 6);
    /// What a second `create_dialog` replaces.
    pub const ASKED: Flags = Flags(0x7f & !(1 << 5));
    /// The caller sent a CANCEL.
    pub const CANCELLED: Flags = Flags(1 << 8);
    /// A BYE was seen.
    pub const SAID_BYE: Flags = Flags(1 << 9);
    /// A CANCEL or an early BYE crossed the answer (RFC 5407), and the call is ended for it.
    pub const RACED: Flags = Flags(1 << 10);
    /// BYEs of ours are on their way.
    pub const ENDING: Flags = Flags(1 << 11);
    /// End it as soon as there is something to cancel.
    pub const CANCEL_SOON: Flags = Flags(1 << 12);
    /// Headers were rewritten by topology_hiding.
    pub const HIDDEN: Flags = Flags(1 << 13);
    /// What topology_hiding was asked for: contacts keep their user (`U`), the Call-ID is masked (`C`), the identity
    /// stands in the user of contacts (`D`), the caller (`a`) or the callee (`A`) is shown the same contact all along.
    pub const KEEP_USER: Flags = Flags(1 << 14);
    pub const MASK_CALL_ID: Flags = Flags(1 << 15);
    pub const DID_IN_USER: Flags = Flags(1 << 16);
    pub const KEEP_TO_CALLER: Flags = Flags(1 << 17);
    pub const KEEP_TO_CALLEE: Flags = Flags(1 << 18);

    const NAMES: [(&str, Flags); 7] = [
        ("bye-on-timeout", Flags::BYE_ON_TIMEOUT),
        ("options-ping-caller", Flags::OPTIONS_CALLER),
        ("options-ping-callee", Flags::OPTIONS_CALLEE),
        ("reinvite-ping-caller", Flags::REINVITE_CALLER),
        ("reinvite-ping-callee", Flags::REINVITE_CALLEE),
        ("end-on-race-condition", Flags::END_ON_RACE),
        ("auto-prack", Flags::AUTO_PRACK),
    ];

    /// A list of names with commas, in any case; the error is the word that is none.
    pub fn parse(text: &str) -> Result<Flags, &str> {
        let mut flags = Flags::default();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let found = Flags::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
            flags = flags.with(found.ok_or(word)?.1);
        }
        Ok(flags)
    }

    /// The letters of 2.1; others mean nothing there.
    pub fn parse_letters(text: &str) -> Flags {
        text.chars().fold(Flags::default(), |flags, letter| match letter {
            'B' => flags.with(Flags::BYE_ON_TIMEOUT),
            'P' => flags.with(Flags::OPTIONS_CALLER),
            'p' => flags.with(Flags::OPTIONS_CALLEE),
            'R' => flags.with(Flags::REINVITE_CALLER),
            'r' => flags.with(Flags::REINVITE_CALLEE),
            'E' => flags.with(Flags::END_ON_RACE),
            _ => flags,
        })
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        Flags::NAMES.iter().map(|(name, _)| *name)
    }

    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
    /// Any of these.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
    pub fn set(&mut self, other: Flags) {
        *self = self.with(other);
    }
    pub fn clear(&mut self, other: Flags) {
        *self = self.without(other);
    }
    /// Pings with OPTIONS: both kinds asked for on one side means re-INVITEs.
    pub fn options(self) -> bool {
        self.has(Flags::OPTIONS_CALLER.with(Flags::OPTIONS_CALLEE))
    }
    pub fn reinvites(self) -> bool {
        self.has(Flags::REINVITE_CALLER.with(Flags::REINVITE_CALLEE))
    }
    /// The same without OPTIONS where re-INVITEs are sent.
    pub fn settled(self) -> Flags {
        let mut flags = self;
        if self.has(Flags::REINVITE_CALLER) {
            flags.clear(Flags::OPTIONS_CALLER);
        }
        if self.has(Flags::REINVITE_CALLEE) {
            flags.clear(Flags::OPTIONS_CALLEE);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names() {
        let check =
            |text: &str, expected: Result<Flags, &str>| assert_eq!(Flags::parse(text), expected, "{text}");
        check("bye-on-timeout", Ok(Flags::BYE_ON_TIMEOUT));
        check(" BYE-on-timeout , auto-prack", Ok(Flags::BYE_ON_TIMEOUT.with(Flags::AUTO_PRACK)));
        check("", Ok(Flags::default()));
        check("B", Err("B"));
        check("bye-on-timeout,x", Err("x"));
        assert_eq!(Flags::parse_letters("Bp"), Flags::BYE_ON_TIMEOUT.with(Flags::OPTIONS_CALLEE));
    }

    #[test]
    fn reinvites_replace_options_on_their_side() {
        let both = Flags::OPTIONS_CALLER.with(Flags::OPTIONS_CALLEE).with(Flags::REINVITE_CALLER);
        assert_eq!(both.settled(), Flags::OPTIONS_CALLEE.with(Flags::REINVITE_CALLER));
    }
}
