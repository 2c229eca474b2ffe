//! Credentials, made unreadable. Lengths stay, so that what is replayed has the same shape.

use bytes::{Bytes, BytesMut};
use host::coded::Coded;
use host::db::{DbError, DbValue, Rows};

/// Columns of databases that hold secrets.
const COLUMNS: [&str; 6] = ["password", "ha1", "ha1b", "ha1_sha256", "ha1_sha512t256", "secret"];

/// A message whose digests are crossed out: `response="..."` in Authorization and Proxy-Authorization.
pub fn message(bytes: &Bytes) -> Bytes {
    let mut out: Option<BytesMut> = None;
    let mut from = 0;
    while let Some(at) = memfind(&bytes[from..], b"uthorization:") {
        let line = from + at;
        let end = memfind(&bytes[line..], b"\r\n").map_or(bytes.len(), |n| line + n);
        let (name, closed) = (b"response=\"", b"\"");
        if let Some(value) = memfind(&bytes[line..end], name).map(|n| line + n + name.len()) {
            let stop = memfind(&bytes[value..end], closed).map_or(end, |n| value + n);
            let copy = out.get_or_insert_with(|| BytesMut::from(&bytes[..]));
            copy[value..stop].fill(b'*');
        }
        from = end;
    }
    out.map_or_else(|| bytes.clone(), BytesMut::freeze)
}

fn memfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what))
}

/// Rows of a database whose secrets are crossed out.
pub fn answer(coded: &[u8]) -> Vec<u8> {
    let Some(Ok(rows)) = Result::<Rows, DbError>::take(&mut &coded[..]) else { return coded.to_vec() };
    let secret: Vec<bool> =
        rows.columns().iter().map(|c| COLUMNS.iter().any(|s| c.eq_ignore_ascii_case(s))).collect();
    if !secret.contains(&true) {
        return coded.to_vec();
    }
    let cells = rows.iter().flat_map(|row| row.cells.iter().zip(&secret));
    let cells = cells.map(|(cell, secret)| match cell {
        DbValue::Text(text) | DbValue::Blob(text) if *secret => DbValue::Text(vec![b'*'; text.len()].into()),
        other => other.clone(),
    });
    let mut masked = Rows::new(rows.columns().to_vec(), cells.collect());
    (masked.affected, masked.insert_id) = (rows.affected, rows.insert_id);
    Ok::<Rows, DbError>(masked).coded()
}

/// A script whose passwords in URLs are crossed out ("mysql://user:secret@host/").
pub fn script(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"'/".contains(c)).unwrap_or(after.len());
        rest = after;
        if let Some(host) = after[..end].rfind('@')
            && let Some(colon) = after[..host].find(':')
        {
            out.push_str(&after[..=colon]);
            out.extend(std::iter::repeat_n('*', host - colon - 1));
            rest = &after[host..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_crossed_out() {
        for (text, expected) in [
            (
                r#"modparam("a", "db_url", "mysql://u:p:w@h/db")"#,
                r#"modparam("a", "db_url", "mysql://u:***@h/db")"#,
            ),
            ("x://h:5060 and y://u@h z://u:p@h", "x://h:5060 and y://u@h z://u:*@h"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(script(text), expected);
        }
    }

    #[test]
    fn digests_are_crossed_out() {
        let text = "REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"bob\", response=\"0123abcd\", nc=1\r\n\
                    X: response=\"kept\"\r\nPROXY-AUTHORIZATION: Digest response=\"ff\"\r\n\r\n";
        let masked = message(&Bytes::from(text));
        let expected = text.replace("0123abcd", "********").replace("\"ff\"", "\"**\"");
        assert_eq!(String::from_utf8_lossy(&masked), expected);
    }

    #[test]
    fn passwords_are_crossed_out() {
        let rows = Rows::new(vec!["username".into(), "HA1".into()], vec!["bob".into(), "0123".into()]);
        let masked = answer(&Ok::<Rows, DbError>(rows).coded());
        let rows = Result::<Rows, DbError>::take(&mut &masked[..]).unwrap().unwrap();
        let row = rows.first().unwrap();
        assert_eq!((row.string(0), row.string(1)), ("bob".to_string(), "****".to_string()));
    }
}
