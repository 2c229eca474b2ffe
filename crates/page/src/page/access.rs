//! Who may see the page: without a token those on this machine, with one those who know it, on this machine too.

use super::text;
use host::Shared;
use modules::httpd::{Answer, Query, is_own_name, same};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// From another machine, and there is no token.
    NoToken,
    /// Under a name that somebody else may have made to point here.
    ForeignName,
    WrongToken,
    NotJson,
}

impl Refused {
    pub fn answer(self) -> Answer {
        match self {
            Refused::NoToken => text(
                403,
                "the page is for this machine only: modparam(\"page\", \"token\", \"...\") opens it for those who know the token",
            ),
            Refused::ForeignName => text(
                403,
                "the page is not served under this name: use the address, or an alias of the script",
            ),
            Refused::WrongToken => text(401, "the token is missing or wrong"),
            Refused::NotJson => text(415, "the Content-Type must be application/json"),
        }
    }
}

/// The page without its numbers.
pub fn may_enter(token: &str, query: &Query, shared: &Shared) -> Result<(), Refused> {
    if !token.is_empty() {
        return Ok(());
    }
    if !query.peer.to_canonical().is_loopback() {
        return Err(Refused::NoToken);
    }
    // Whoever has made a browser believe that his name is this machine cannot be told from its user otherwise.
    if !is_own_name(&query.host, shared) {
        return Err(Refused::ForeignName);
    }
    Ok(())
}

/// The numbers.
pub fn may_ask(token: &str, query: &Query) -> Result<(), Refused> {
    let kind = query.content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refused::NotJson);
    }
    if token.is_empty() || same(query.token.as_bytes(), token.as_bytes()) {
        Ok(())
    } else {
        Err(Refused::WrongToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(peer: &str, kind: &str, token: &str) -> Query {
        Query {
            method: "POST".into(),
            path: "/page/api".into(),
            query: String::new(),
            content_type: kind.into(),
            origin: None,
            host: "127.0.0.1:8888".into(),
            peer: peer.parse().unwrap(),
            token: token.into(),
            body: Default::default(),
        }
    }

    #[test]
    fn the_token_opens() {
        let json = "application/json";
        let check = |token: &str, kind: &str, given: &str, expected: Result<(), Refused>| {
            assert_eq!(may_ask(token, &query("127.0.0.1", kind, given)), expected, "{token} {kind} {given}");
        };
        check("", json, "", Ok(()));
        check("secret", json, "secret", Ok(()));
        check("secret", "application/json; charset=utf-8", "secret", Ok(()));
        check("secret", json, "", Err(Refused::WrongToken));
        check("secret", json, "secreT", Err(Refused::WrongToken));
        check("", "text/plain", "", Err(Refused::NotJson));
    }
}
