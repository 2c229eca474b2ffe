//! Whom a function means: "Request-URI", "To", "From", "Credentials", or a URI.

use bytes::Bytes;
use host::Ctx;
use sip::Uri;

/// A user and a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub user: Bytes,
    pub domain: Bytes,
}

impl Subject {
    /// Of a URI; `None` when it has no user or cannot be read.
    pub fn of_uri(uri: &Bytes) -> Option<Subject> {
        let uri = Uri::parse(uri).ok()?;
        Some(Subject { user: uri.user.filter(|u| !u.is_empty())?, domain: uri.host })
    }
}

/// Reads one of the words or a URI (also the 1.x forms with their case as it comes).
pub fn subject(ctx: &Ctx, word: &Bytes) -> Option<Subject> {
    match word.to_ascii_lowercase().as_slice() {
        b"request-uri" => Subject::of_uri(&ctx.state.current_uri()),
        b"to" => Subject::of_uri(&ctx.state.msg.to()?.uri),
        b"from" => Subject::of_uri(&ctx.state.msg.from()?.uri),
        b"credentials" => {
            let found = host::vars::auth::verified(ctx, "group")?;
            let (user, domain) = found.user_and_domain();
            Some(Subject { user, domain: domain.unwrap_or_else(|| found.realm.clone()) })
        }
        _ => Subject::of_uri(word),
    }
}
