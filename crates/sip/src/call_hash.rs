//! Which worker a call belongs to: a hash of the beginning of its Call-ID that the kernel can compute as well
//! (`net::steer` writes the same as a classic BPF program), so that a datagram reaches its worker without a hop.

/// Bytes of a Call-ID that count. What telephones put first is often the same for all their calls (a MAC address, the
/// time): the part that differs must lie within.
pub const HASHED: usize = 32;
/// What the hash is before the first word.
pub const SEED: u32 = 0x5f3a_2d61;
/// Each word is mixed in by `h = (h ^ word) * MULTIPLIER`, then `h ^= h >> SHIFT`.
pub const MULTIPLIER: u32 = 0x9e37_79b1;
/// See `MULTIPLIER`.
pub const SHIFT: u32 = 15;
/// A word `w` is text when `(w - BLANKS) & HIGH` is 0, wrapping: no control character, nothing above ASCII.
pub const BLANKS: u32 = 0x2020_2020;
/// See `BLANKS`.
pub const HIGH: u32 = 0x8080_8080;

/// A byte below this ends the bytes that are left over behind whole words.
pub const FIRST_TEXT: u8 = b' ';

/// Hash of a Call-ID (without the blanks around it): of its first `HASHED` bytes, four at a time with the first byte on
/// top, up to a word that is not all ASCII text; then up to three bytes of what is left, each by itself; then 0. The
/// worker of the call is `call_hash(id) % workers`; `host::worker::owner` says it.
pub fn call_hash(call_id: &[u8]) -> u32 {
    let mut rest = &call_id[..call_id.len().min(HASHED)];
    let mut hash = SEED;
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u32::from_be_bytes(*word);
        if word.wrapping_sub(BLANKS) & HIGH != 0 {
            break;
        }
        hash = mix(hash, word);
        rest = after;
    }
    let text = rest.iter().take(3).take_while(|b| **b >= FIRST_TEXT);
    // Once more, so that the lowest bits see the last byte well.
    mix(text.fold(hash, |hash, b| mix(hash, u32::from(*b))), 0)
}

fn mix(hash: u32, part: u32) -> u32 {
    let mixed = (hash ^ part).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> SHIFT)
}

#[cfg(test)]
mod tests {
    use super::call_hash;

    /// Numbers that look random, the same in every run.
    fn random(n: u64) -> u64 {
        let z = (n ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Every worker gets its share of the calls that such telephones make, to within a tenth (8,000 calls, so that chance
    /// alone stays below).
    fn check(who: &str, call_id: impl Fn(u64) -> String) {
        for workers in [2, 3, 4, 8] {
            let mut calls = vec![0u32; workers];
            for n in 0..8_000 {
                calls[call_hash(call_id(n).as_bytes()) as usize % workers] += 1;
            }
            let fair = 8_000 / workers as u32;
            assert!(
                calls.iter().all(|n| n.abs_diff(fair) < fair / 10),
                "{who}, {workers} workers: {calls:?}, such as {}",
                call_id(7)
            );
        }
    }

    #[test]
    fn call_ids_of_telephones_spread() {
        let letters = |n: u64, count: u64| -> String {
            let of = |i| {
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~"
                    [(random(n * 64 + i) % 64) as usize]
            };
            (0..count).map(|i| of(i) as char).collect()
        };
        check("SIPp", |n| format!("{}-4711@127.0.0.1", n + 1));
        check("SIPp, later", |n| format!("{}-31337@192.168.100.200", 1_000_000 + n));
        check("Linphone", |n| letters(n, 10));
        check("baresip", |n| format!("{:016x}", random(n)));
        check("Asterisk chan_pjsip", |n| {
            let (a, b) = (random(n), random(n + 1_000_000));
            format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                a >> 32,
                (a >> 16) & 0xffff,
                a & 0xffff,
                b >> 48,
                b & 0xffff_ffff_ffff
            )
        });
        check("Asterisk chan_sip", |n| {
            format!("{:016x}{:016x}@10.0.0.5:5060", random(n), random(n + 1_000_000))
        });
        // The MAC address of one telephone, a counter, and what is random.
        check("Cisco telephone", |n| {
            format!("00082fb6-a05b{:04x}-{:08x}-{:08x}@10.1.1.20", n % 40, random(n) >> 32, random(n) as u32)
        });
        check("Cisco Unified CM", |n| {
            format!("{:x}00-5c81e3f1-{:x}-1400a8c0@192.168.0.20", 0x5c80_0000 + n, n)
        });
        check("Yealink", |n| format!("{}_{}@192.168.1.77", n % 10, random(n) % 4_294_967_296));
        // The time as text in hexadecimal digits.
        check("Snom", |n| {
            let hex: String =
                format!("{}", 1_600_000_000_000_000 + n * 977).bytes().map(|b| format!("{b:02x}")).collect();
            format!("{}-{}", &hex[..28], letters(n, 12).to_lowercase())
        });
        check("by hand", |n| format!("call-{n}"));
        check("this server", |n| format!("{:016x}-{}@192.0.2.1", random(n), random(n + 1_000_000) as u32));
    }

    #[test]
    fn what_counts() {
        let same = |a: &str, b: &str| assert_eq!(call_hash(a.as_bytes()), call_hash(b.as_bytes()), "{a} {b}");
        same("abcd\u{1}zzz", "abcd\u{2}yyy");
        same("abcd\u{e9}99", "abcd\u{e9}98");
        let long = "0123456789abcdef0123456789abcdef";
        same(long, &format!("{long}4711"));
        for (a, b) in
            [("abcdefgh", "abcdefgi"), ("abcde", "abcdf"), ("a", "b"), ("a", ""), ("abcdefg", "abcdefh")]
        {
            assert_ne!(call_hash(a.as_bytes()), call_hash(b.as_bytes()), "{a} {b}");
        }
    }
}
