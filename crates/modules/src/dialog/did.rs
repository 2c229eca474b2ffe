//! The identity of a dialog: what scripts read as `$DLG_did`, Routes carry, and the database keeps as `dlg_id`.

use std::fmt;

/// `entry` depends on the Call-ID only, `id` is drawn: together unique. Written as two hexadecimal numbers
/// with a dot, and in the database as one of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Did {
    pub entry: u32,
    pub id: u32,
}

/// `hash_size` of the reference when it is not set.
pub const ENTRIES: u32 = 4096;

impl Did {
    pub fn new(call_id: &[u8], entries: u32, id: u32) -> Did {
        Did { entry: hash(call_id) as u32 & (entries - 1), id }
    }

    /// "1a.2b3c"; `None`: malformed.
    pub fn parse(text: &[u8]) -> Option<Did> {
        let text = std::str::from_utf8(text).ok()?;
        let (entry, id) = text.split_once('.')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        Some(Did { entry: number(entry)?, id: number(id)? })
    }

    /// As the database keeps it.
    pub fn number(self) -> i64 {
        ((u64::from(self.entry) << 32) | u64::from(self.id)) as i64
    }

    pub fn of_number(number: i64) -> Did {
        let number = number as u64;
        Did { entry: (number >> 32) as u32, id: number as u32 }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.entry, self.id)
    }
}

/// FNV-1a of a Call-ID: the same in every process, so that a restored dialog keeps its place.
pub fn hash(call_id: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let mixed = call_id.iter().fold(start, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_lead_back() {
        let did = Did::new(b"a84b4c76e66710@pc33", ENTRIES, 0x9c3f_11d0);
        assert!(did.entry < ENTRIES);
        assert_eq!(Did::parse(did.to_string().as_bytes()), Some(did));
        assert_eq!(Did::of_number(did.number()), did);
        for bad in ["", "1", "1.", ".1", "x.1", "1.123456789", "+1.2", "1.2.3"] {
            assert_eq!(Did::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
