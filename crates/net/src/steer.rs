//! The kernel chooses the worker: a classic BPF program for sockets that share an address by `SO_REUSEPORT`.
//!
//! The program finds `Call-ID: ` in a datagram, computes `sip::call_hash` of what follows and returns the number of the
//! socket. It needs no privilege. Classic BPF has no loops, so the search is unrolled: a word is looked at in every
//! seventh place, because the ten bytes of a line end, the name and a blank hold one of their seven words there,
//! wherever they begin. Where such a word turns out to be something else (`Remote-Party-ID: `, a caller named `Call
//! Center`), the search goes on with the next group of places. What it does not find (the compact form, odd spellings, a
//! head that is longer than its reach) is left to the kernel, which then goes by the addresses, and the worker that gets
//! it hands it over.

use sip::call_hash::{BLANKS, FIRST_TEXT, HASHED, HIGH, MULTIPLIER, SEED, SHIFT};

/// One instruction: `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// The line as nearly everybody writes it.
const LINE: &[u8; 10] = b"\nCall-ID: ";
/// Words within `LINE`, and so the distance of the places that are looked at.
const STRIDE: usize = LINE.len() - 3;
/// The first place; no start line is shorter.
const FIRST: usize = 14;
/// Places between two looks at the length of the datagram: reading behind its end would end the program with 0. A
/// Call-ID that begins in the last bytes is not found, but a CSeq follows it in nearly all messages.
const PLACES_PER_CHECK: usize = 4;
/// Checks after which words that were found are examined. A conditional jump reaches 255 instructions, and after a
/// wrong find the rest of its group is passed over.
const CHECKS_PER_GROUP: usize = 3;
/// What no socket has as its number: the kernel goes by the addresses.
const NO_SOCKET: u32 = u32::MAX;

/// How far the program searches, in bytes; the first one that the kernel takes is used. Kernels before 6.8 take programs
/// of 20 KiB (net.core.optmem_max), in their own form, newer ones of 128 KiB.
pub const REACHES: [usize; 2] = [1_500, 540];

// Codes of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_LENGTH: u16 = 0x80;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_CELL: u16 = 0x60;
const LOAD_NUMBER: u16 = 0x00;
const X_FROM_NUMBER: u16 = 0x01;
const X_FROM_CELL: u16 = 0x61;
const STORE: u16 = 0x02;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const ADD: u16 = 0x04;
const SUBTRACT: u16 = 0x14;
const SUBTRACT_X: u16 = 0x1c;
const MULTIPLY: u16 = 0x24;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const XOR_X: u16 = 0xac;
const RETURN_NUMBER: u16 = 0x06;
const RETURN_A: u16 = 0x16;
const X_FROM_A: u16 = 0x07;
const A_FROM_X: u16 = 0x87;

/// Cells of the program's memory.
const HASH: u32 = 0;
const WORD: u32 = 1;
const VALUE: u32 = 2;

/// A place that is jumped to, known before it is reached.
#[derive(Clone, Copy)]
struct Label(usize);

/// Where a jump goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    Label(Label),
}

#[derive(Default)]
struct Assembler {
    code: Vec<(u16, u32, To, To)>,
    /// Where labels stand, once they are put.
    places: Vec<usize>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    fn put(&mut self, label: Label) {
        self.places[label.0] = self.code.len();
    }

    fn op(&mut self, code: u16, k: u32) {
        self.code.push((code, k, To::Next, To::Next));
    }

    fn jump(&mut self, to: Label) {
        self.code.push((JUMP, 0, To::Label(to), To::Next));
    }

    fn branch(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.code.push((code, k, yes, no));
    }

    fn finish(self) -> Vec<Instruction> {
        let distance = |at: usize, to: To| match to {
            To::Next => 0,
            To::Label(label) => self.places[label.0] - at - 1,
        };
        let near = |at, to| u8::try_from(distance(at, to)).expect("groups are short");
        let made = self.code.iter().enumerate().map(|(at, &(code, k, yes, no))| match code {
            JUMP => Instruction { code, jump_true: 0, jump_false: 0, k: distance(at, yes) as u32 },
            _ => Instruction { code, jump_true: near(at, yes), jump_false: near(at, no), k },
        });
        made.collect()
    }
}

fn word(at: usize) -> u32 {
    u32::from_be_bytes([LINE[at], LINE[at + 1], LINE[at + 2], LINE[at + 3]])
}

/// The program for so many sockets, which are numbered in the order they were bound in.
pub fn program(sockets: u32, reach: usize) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let (found, lost) = (asm.label(), asm.label());
    let places: Vec<usize> = (FIRST..reach).step_by(STRIDE).collect();
    for group in places.chunks(PLACES_PER_CHECK * CHECKS_PER_GROUP) {
        search(&mut asm, group, found, lost);
    }
    asm.put(lost);
    asm.op(RETURN_NUMBER, NO_SOCKET);
    asm.put(found);
    hash(&mut asm, sockets);
    asm.finish()
}

/// Looks at a word in each of `places`; goes on behind when there is nothing. X at `found`: where the line begins.
fn search(asm: &mut Assembler, places: &[usize], found: Label, lost: Label) {
    let near = [(); STRIDE].map(|()| asm.label());
    let (examine, near_lost, over) = (asm.label(), asm.label(), asm.label());
    for some in places.chunks(PLACES_PER_CHECK) {
        let end = some.last().map_or(0, |last| last + 4);
        asm.op(LOAD_LENGTH, 0);
        asm.branch(IF_AT_LEAST, end as u32, To::Next, To::Label(near_lost));
        for place in some {
            asm.op(X_FROM_NUMBER, *place as u32);
            asm.op(LOAD_WORD, *place as u32);
            for (before, label) in near.iter().enumerate() {
                asm.branch(IF_EQUAL, word(before), To::Label(*label), To::Next);
            }
        }
    }
    asm.jump(over);
    asm.put(near_lost);
    asm.jump(lost);
    // X is where a word was found; the line begins so many bytes before.
    for (before, label) in near.into_iter().enumerate() {
        asm.put(label);
        asm.op(LOAD_NUMBER, before as u32);
        asm.jump(examine);
    }
    asm.put(examine);
    asm.op(STORE, WORD);
    asm.op(A_FROM_X, 0);
    asm.op(X_FROM_CELL, WORD);
    asm.op(SUBTRACT_X, 0);
    asm.op(X_FROM_A, 0);
    for at in [0, 4] {
        asm.op(LOAD_WORD_AT_X, at);
        asm.branch(IF_EQUAL, word(at as usize), To::Next, To::Label(over));
    }
    asm.jump(found);
    asm.put(over);
}

/// Hashes what follows the line that X leads to; returns the number of the socket.
fn hash(asm: &mut Assembler, sockets: u32) {
    let (rest, done) = (asm.label(), asm.label());
    asm.op(LOAD_NUMBER, SEED);
    asm.op(STORE, HASH);
    asm.op(A_FROM_X, 0);
    asm.op(ADD, LINE.len() as u32);
    for _ in (0..HASHED).step_by(4) {
        asm.op(STORE, VALUE);
        asm.op(X_FROM_A, 0);
        asm.op(LOAD_WORD_AT_X, 0);
        asm.op(STORE, WORD);
        asm.op(SUBTRACT, BLANKS);
        asm.op(AND, HIGH);
        asm.branch(IF_EQUAL, 0, To::Next, To::Label(rest));
        mix(asm);
        asm.op(LOAD_CELL, VALUE);
        asm.op(ADD, 4);
    }
    asm.jump(done);
    // The word at `VALUE` is not all text.
    asm.put(rest);
    for at in 0..3 {
        asm.op(X_FROM_CELL, VALUE);
        asm.op(LOAD_BYTE_AT_X, at);
        asm.op(STORE, WORD);
        asm.branch(IF_AT_LEAST, FIRST_TEXT.into(), To::Next, To::Label(done));
        mix(asm);
    }
    asm.put(done);
    asm.op(LOAD_NUMBER, 0);
    asm.op(STORE, WORD);
    mix(asm);
    asm.op(LOAD_CELL, HASH);
    asm.op(MODULO, sockets);
    asm.op(RETURN_A, 0);
}

/// `sip::call_hash`'s step: `WORD` into `HASH`.
fn mix(asm: &mut Assembler) {
    asm.op(LOAD_CELL, HASH);
    asm.op(X_FROM_CELL, WORD);
    asm.op(XOR_X, 0);
    asm.op(MULTIPLY, MULTIPLIER);
    asm.op(X_FROM_A, 0);
    asm.op(SHIFT_RIGHT, SHIFT);
    asm.op(XOR_X, 0);
    asm.op(STORE, HASH);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoundUdp, UdpOptions};

    const SOCKETS: u32 = 4;

    /// Numbers of the sockets that datagrams arrive at, sent in this order from one address.
    fn arrivals(datagrams: &[Vec<u8>]) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let options = UdpOptions::default();
        let first = BoundUdp::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let mut bound = vec![first];
        for _ in 1..SOCKETS {
            bound.push(BoundUdp::bind(bound[0].local(), &options).unwrap());
        }
        bound[0].steer(SOCKETS as usize).unwrap();
        let sockets: Vec<_> = bound.into_iter().map(|b| b.open().unwrap()).collect();
        let (sender, mut arena) =
            (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), crate::RecvArena::default());
        let arrived = datagrams.iter().map(|datagram| {
            sender.send_to(datagram, sockets[0].local()).unwrap();
            let mut got = Vec::new();
            let took = |s: &crate::UdpSocket| s.try_recv_batch(&mut arena, &mut got).is_ok_and(|n| n > 0);
            sockets.iter().position(took).expect("on the loopback it is there at once")
        });
        arrived.collect()
    }

    fn message(before: &str, call_id: &str) -> Vec<u8> {
        format!(
            "BYE sip:b@x SIP/2.0\r\n{before}{call_id}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\nUser-Agent: x\r\n\r\n"
        )
        .into()
    }

    fn owner(call_id: &str) -> usize {
        (sip::call_hash(call_id.as_bytes()) % SOCKETS) as usize
    }

    #[test]
    fn the_kernel_says_what_the_hash_says() {
        let ids = ["1-4711@127.0.0.1", "a", "abcd", "abcdefg", "é-and-more-than-a-word", ""];
        let ids = ids.iter().map(|id| id.to_string());
        let ids: Vec<String> =
            ids.chain((0..40).map(|n| format!("00082fb6-a05b{n:04x}-{n}@10.1.1.20"))).collect();
        // Every place that the line may begin in, within the reach.
        let messages: Vec<Vec<u8>> = ids
            .iter()
            .enumerate()
            .flat_map(|(n, id)| {
                [0, n, 8 * n, 1_300 + n]
                    .map(|pad| message(&format!("X: {}\r\n", "x".repeat(pad)), &format!("Call-ID: {id}")))
            })
            .collect();
        let want: Vec<usize> = ids.iter().flat_map(|id| [owner(id); 4]).collect();
        assert_eq!(arrivals(&messages), want);
        assert!((0..SOCKETS as usize).all(|socket| want.contains(&socket)));
    }

    #[test]
    fn what_is_not_found_goes_by_the_addresses() {
        let pad = "x".repeat(2_000);
        let messages = [
            message("", "i: a-call-of-the-compact-form"),
            message("", "CALL-ID: another"),
            message("", "Call-Info: <http://x>\r\ncall-id: y"),
            message(&format!("X: {pad}\r\n"), "Call-ID: far"),
            b"\r\n\r\n".to_vec(),
            vec![0; 4],
            b"BYE sip:b@x SIP/2.0\r\nVia: x\r\n\r\n".to_vec(),
        ];
        let arrived = arrivals(&messages);
        assert!(arrived.iter().all(|socket| *socket == arrived[0]), "one sender, one socket: {arrived:?}");
    }

    #[test]
    fn what_looks_like_it_is_passed_over() {
        let pad = "x".repeat(80);
        let id = "1-4711@127.0.0.1";
        // In each of the seven places that are possible.
        for n in 0..STRIDE {
            let before = format!(
                "X: {}\r\nRemote-Party-ID: <sip:a@b>\r\nX: {pad}\r\nCall-Info: <http://x>\r\nX: {pad}\r\n\
                 From: \"Call Center\" <sip:call-1@x>\r\nX: {pad}\r\n",
                "x".repeat(n)
            );
            assert_eq!(arrivals(&[message(&before, &format!("Call-ID: {id}"))]), [owner(id)], "{n}");
        }
    }

    /// Kernels before 6.8 give a program 20 KiB, in their own form: there a look at a place takes 14 instructions of 8
    /// bytes, one at a place that X tells 16.
    #[test]
    fn programs_fit_kernels() {
        let size = |i: &Instruction| match i.code {
            LOAD_WORD => 14,
            LOAD_WORD_AT_X | LOAD_BYTE_AT_X => 16,
            RETURN_NUMBER | RETURN_A => 2,
            _ => 1,
        };
        let in_kernel = program(64, REACHES[1]).iter().map(size).sum::<usize>() + 16;
        assert!(in_kernel * 8 + 100 <= 20_480, "{in_kernel} instructions");
        assert!(program(64, REACHES[0]).len() <= 4_096, "BPF_MAXINSNS");
    }
}
