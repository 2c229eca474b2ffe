//! Copies of a URI with a part replaced. What is not replaced is kept byte for byte.

use crate::scan::{self, trim};
use crate::uri::{Scheme, Uri};
use bytes::Bytes;

impl Uri {
    /// Replaces the user and keeps the password; empty removes user and password. On a `tel:` URI
    /// this prints `tel:user@;params`, as the reference does.
    pub fn with_user(&self, user: &[u8]) -> Bytes {
        let mut info = user.to_vec();
        if let (Some(password), false) = (&self.password, user.is_empty()) {
            info.push(b':');
            info.extend_from_slice(password);
        }
        self.with_userinfo(&info)
    }

    /// Replaces all that stands before the `@` (OpenSIPS `setuserpass`); empty removes it and the `@`.
    pub fn with_userinfo(&self, info: &[u8]) -> Bytes {
        let at: &[u8] = if info.is_empty() { b"" } else { b"@" };
        join(&[&self.text[..self.layout.start], info, at, &self.text[self.layout.host..]])
    }

    /// Sets or (empty) removes the password. A URI without user is returned as it is.
    pub fn with_password(&self, password: &[u8]) -> Bytes {
        match &self.user {
            Some(user) if !matches!(self.scheme, Scheme::Tel | Scheme::Tels) => {
                let colon: &[u8] = if password.is_empty() { b"" } else { b":" };
                self.with_userinfo(&join(&[user, colon, password]))
            }
            _ => self.text.clone(),
        }
    }

    /// Replaces the host; port and parameters stay, except `maddr`, which would override it.
    pub fn with_host(&self, host: &[u8]) -> Bytes {
        self.with_address(host, self.layout.host_end)
    }

    /// Replaces host and port; `maddr` goes.
    pub fn with_hostport(&self, hostport: &[u8]) -> Bytes {
        self.with_address(hostport, self.layout.hostport_end)
    }

    fn with_address(&self, address: &[u8], kept_from: usize) -> Bytes {
        let Layouted { before, params, after } = self.around_params();
        let (kept, port) = (&before[..self.layout.host], &before[kept_from..]);
        let params = without_param(params, b"maddr");
        join(&[kept, self.at_sign(), address, port, &params, after])
    }

    /// Sets or removes the port.
    pub fn with_port(&self, port: Option<u16>) -> Bytes {
        let mut digits = itoa::Buffer::new();
        let (colon, digits): (&[u8], &str) = match port {
            Some(port) => (b":", digits.format(port)),
            None => (b"", ""),
        };
        let rest = &self.text[self.layout.hostport_end..];
        join(&[&self.text[..self.layout.host_end], self.at_sign(), colon, digits.as_bytes(), rest])
    }

    /// Sets, replaces or (`None`) removes one parameter; `Some(None)` is a flag. A replaced
    /// parameter goes to the end; all of the same name are replaced.
    pub fn with_param(&self, name: &[u8], value: Option<Option<&[u8]>>) -> Bytes {
        let Layouted { before, params, after } = self.around_params();
        let mut params = without_param(params, name);
        if let Some(value) = value {
            params.push(b';');
            params.extend_from_slice(name);
            if let Some(value) = value {
                params.push(b'=');
                params.extend_from_slice(value);
            }
        }
        join(&[before, &params, after])
    }

    /// Removes the first parameter of this name, in this case.
    pub fn without_param_exact(&self, name: &[u8]) -> Bytes {
        let Layouted { before, params, after } = self.around_params();
        let mut out = Vec::with_capacity(params.len());
        let mut found = false;
        for param in params.split(|&b| b == b';').skip(1) {
            let label = param.split(|&b| b == b'=').next().unwrap_or(param);
            if !found && trim(label) == name {
                found = true;
                continue;
            }
            out.push(b';');
            out.extend_from_slice(param);
        }
        join(&[before, &out, after])
    }

    /// A `tel:` URI that is given a host or port gets an `@` first, as in the reference.
    fn at_sign(&self) -> &'static [u8] {
        let bare =
            matches!(self.scheme, Scheme::Tel | Scheme::Tels) && self.layout.host == self.layout.host_end;
        if bare { b"@" } else { b"" }
    }

    /// Removes the headers (`?..`), which have no place in a Request-URI (RFC 3261 §19.1.1).
    pub fn without_headers(&self) -> Bytes {
        self.text.slice(..self.layout.params_end)
    }

    /// The text split into all before the parameters, the parameters with their first `;`, the rest.
    fn around_params(&self) -> Layouted<'_> {
        let (at, end) = (self.layout.hostport_end, self.layout.params_end);
        Layouted { before: &self.text[..at], params: &self.text[at..end], after: &self.text[end..] }
    }
}

struct Layouted<'a> {
    before: &'a [u8],
    params: &'a [u8],
    after: &'a [u8],
}

/// `;a=1;b` without the parameters of this name.
fn without_param(params: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(params.len() + name.len() + 16);
    for param in params.split(|&b| b == b';').skip(1) {
        let label = param.split(|&b| b == b'=').next().unwrap_or(param);
        if !trim(label).eq_ignore_ascii_case(name) {
            out.push(b';');
            out.extend_from_slice(param);
        }
    }
    out
}

fn join(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

/// Decodes `%41`; a `%` without two hexadecimal digits stays.
pub fn unescape(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if scan::find(text, [b'%']).is_none() {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        match escaped(&text[i..]) {
            Some(b) => {
                out.push(b);
                i += 3;
            }
            None => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out.into()
}

/// The byte of the escape that `text` begins with.
pub(crate) fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    match text {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Escapes what may not stand in the user part of a SIP URI (RFC 3261 §25.1 `user`).
pub fn escape_user(text: &[u8]) -> Vec<u8> {
    escape(text, b"-_.!~*'()&=+$,;?/")
}

/// Escapes what may not stand in the name or value of a URI parameter (RFC 3261 §25.1 `paramchar`).
pub fn escape_param(text: &[u8]) -> Vec<u8> {
    escape(text, b"-_.!~*'()[]/:&+$")
}

fn escape(text: &[u8], plain: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for &b in text {
        if b.is_ascii_alphanumeric() || plain.contains(&b) {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, edit: impl Fn(&Uri) -> Bytes, want: &str) {
        let uri = Uri::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        assert_eq!(edit(&uri), want, "{text}");
    }

    #[test]
    fn users_and_passwords() {
        check("sip:bob:s@h;a=b?H=1", |u| u.with_user(b"dan"), "sip:dan:s@h;a=b?H=1");
        check("sip:h", |u| u.with_user(b"123"), "sip:123@h");
        check("sip:bob:s@h;p=1", |u| u.with_user(b""), "sip:h;p=1");
        check("sip:bob@h", |u| u.with_userinfo(b"pw2"), "sip:pw2@h");
        check("sip:bob@h", |u| u.with_password(b"x"), "sip:bob:x@h");
        check("sip:bob:y@h", |u| u.with_password(b""), "sip:bob@h");
        check("sip:h", |u| u.with_password(b"x"), "sip:h");
        check("tel:+49;phone-context=e", |u| u.with_user(b"555"), "tel:555@;phone-context=e");
        check("sip:bob@[2001:db8::1]:5062;x", |u| u.with_user(b"amy"), "sip:amy@[2001:db8::1]:5062;x");
    }

    #[test]
    fn hosts_and_ports() {
        check("sip:a@b:5;maddr=1.1.1.1;user=phone", |u| u.with_host(b"x.org"), "sip:a@x.org:5;user=phone");
        check("sip:a@b:5;a=b", |u| u.with_hostport(b"x.org"), "sip:a@x.org;a=b");
        check("sip:a@b;maddr=1.1.1.1", |u| u.with_port(Some(99)), "sip:a@b:99;maddr=1.1.1.1");
        check("sip:a@b:5?x", |u| u.with_port(None), "sip:a@b?x");
        check("sip:a@b:", |u| u.with_port(Some(7)), "sip:a@b:7");
        check("tel:+49;x", |u| u.with_host(b"h"), "tel:+49@h;x");
        check("tel:+49;x", |u| u.with_port(Some(7)), "tel:+49@:7;x");
    }

    #[test]
    fn parameters() {
        check("sip:a@b?h=1", |u| u.with_param(b"lr", Some(None)), "sip:a@b;lr?h=1");
        check("sip:a@b;X=1;y", |u| u.with_param(b"x", Some(Some(b"2"))), "sip:a@b;y;x=2");
        check("sip:a@b;a=1;b=2;c=3", |u| u.with_param(b"b", None), "sip:a@b;a=1;c=3");
        check("tel:1;a", |u| u.with_param(b"a", None), "tel:1");
        check("sip:a@b;A=1;a=2;a=3", |u| u.without_param_exact(b"a"), "sip:a@b;A=1;a=3");
        check("sip:a@b;c?h=1", |u| u.without_headers(), "sip:a@b;c");
    }

    #[test]
    fn escapes() {
        assert_eq!(&*unescape(b"b%6Fb%40x%zz%4"), b"bob@x%zz%4");
        assert_eq!(escape_user(b"a b@c;d"), b"a%20b%40c;d");
        assert_eq!(escape_param(b"sip:h;t=1"), b"sip:h%3Bt%3D1");
        assert_eq!(&*unescape(&escape_param("ü%".as_bytes())), "ü%".as_bytes());
    }
}
