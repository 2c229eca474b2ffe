//! Damaged answers and notifications of engines, damaged flags of scripts: nothing panics, and what is read says itself
//! again the same. `MUTATIONS=1000000 SEED=7 cargo test -p media mutations` runs long.

#[path = "../../../../fuzz/checks/mutate.rs"]
#[allow(dead_code, reason = "its seeds from files are for other tests")]
mod mutate;

use super::{bencode, brackets};
use bytes::Bytes;

fn check(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    if let Some(dict) = bencode::decode(&text) {
        let again = dict.encode();
        let read = bencode::decode(&again).expect("what was written is read");
        assert_eq!(read.encode(), again);
        let _ = (
            dict.to_json(),
            dict.text("result"),
            dict.int("created"),
            dict.list("tags"),
            dict.dict("totals"),
        );
    }
    if let Some(value) = brackets::parse(data) {
        let _ = value.to_json();
    }
}

#[test]
fn answers_and_flags() {
    let seeds: [&[u8]; 4] = [
        b"d3:sdp6:v=0\r\nx6:result2:ok7:createdi1700000000e4:tagsld3:tag1:aed3:tag1:beee",
        b"d12:error-reason15:Unknown call-id6:result5:errore",
        b"d6:totalsd4:rtpsd7:packetsi-12e5:bytesi9223372036854775807eeee",
        b"transcode=[PCMA PCMU] strip=[EVS [a=b c=[d e]]] mask",
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let words = "\"d\"\n\"e\"\n\"l\"\n\"i-0e\"\n\"99999999999999999999:\"\n\"0:\"\n\"[\"\n\"]\"\n\"i9223372036854775808e\"\n\"dddddddddddd\"";
    mutate::run(&seeds, words, 20_000, check);
}
