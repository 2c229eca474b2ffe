//! A session description that puts its reader on hold.

use bytes::Bytes;

/// The same with every stream inactive. `None`: every one is already, or there is none.
pub fn inactive(sdp: &Bytes) -> Option<Bytes> {
    const MODES: [&[u8]; 4] = [b"a=sendrecv", b"a=sendonly", b"a=recvonly", b"a=inactive"];
    let lines: Vec<&[u8]> = sdp.split(|b| *b == b'\n').map(|line| line.trim_ascii_end()).collect();
    let first = lines.iter().position(|line| line.starts_with(b"m="))?;
    let mut out: Vec<u8> = Vec::with_capacity(sdp.len() + 32);
    let mut put = |line: &[u8]| {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    };
    lines[..first].iter().for_each(|line| put(line));
    let mut changed = false;
    let mut rest = &lines[first..];
    while let Some((head, after)) = rest.split_first() {
        let end = after.iter().position(|line| line.starts_with(b"m=")).unwrap_or(after.len());
        put(head);
        let mut said = false;
        for line in &after[..end] {
            match MODES.contains(line) {
                true => {
                    said = true;
                    changed |= *line != b"a=inactive";
                    put(b"a=inactive");
                }
                false if line.is_empty() => {}
                false => put(line),
            }
        }
        if !said {
            changed = true;
            put(b"a=inactive");
        }
        rest = &after[end..];
    }
    changed.then(|| out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_held() {
        let check = |text: &str, expected: Option<&str>| {
            let found = inactive(&text.replace('\n', "\r\n").into());
            let expected = expected.map(|text| text.replace('\n', "\r\n"));
            assert_eq!(found.map(|b| String::from_utf8_lossy(&b).into_owned()), expected, "{text}");
        };
        check("v=0\nm=audio 1\na=sendrecv\n", Some("v=0\nm=audio 1\na=inactive\n"));
        check(
            "v=0\nm=audio 1\nm=video 2\na=inactive\n",
            Some("v=0\nm=audio 1\na=inactive\nm=video 2\na=inactive\n"),
        );
        check("v=0\nm=audio 1\na=inactive\n", None);
        check("v=0\n", None);
        check("", None);
    }
}
