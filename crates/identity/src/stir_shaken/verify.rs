//! What others signed: the steps of RFC 8224 §6.2, with the reply that a refusal deserves.

use super::{Chain, Dated, Found, Numbers, StirShaken, date, identity, now};
use bytes::Bytes;
use host::{Call, OutVar, Text, Value};
use sip::{HeaderName, Message, Scheme, Uri};

/// Why a call's identity is not believed: the return code, and what to answer.
struct Refusal {
    rc: i32,
    status: i64,
    reason: &'static str,
}

const INVALID: (i64, &str) = (438, "Invalid Identity Header");

fn refusal(rc: i32, (status, reason): (i64, &'static str)) -> Refusal {
    Refusal { rc, status, reason }
}

/// Who a message says that it is from or for.
pub enum Party {
    /// The header is missing or cannot be read.
    Unknown,
    Uri(Box<Uri>),
}

/// The caller: P-Asserted-Identity, else From.
pub fn caller(msg: &Message) -> Party {
    match msg.header(HeaderName::PAssertedIdentity) {
        Some(_) => party(
            msg.addresses(HeaderName::PAssertedIdentity).ok().and_then(|all| Some(all.first()?.uri.clone())),
        ),
        None => party(msg.from().map(|from| from.uri)),
    }
}

/// The called number: To.
pub fn called(msg: &Message) -> Party {
    party(msg.to().map(|to| to.uri))
}

fn party(uri: Option<Bytes>) -> Party {
    uri.and_then(|uri| Uri::parse(&uri).ok()).map_or(Party::Unknown, |uri| Party::Uri(Box::new(uri)))
}

/// A telephone number without its `+`, as a PASSporT has it: what the script gave, else that of the message. Errors are
/// return codes: -1 the message cannot be read, -3 this is no number.
pub fn number(
    given: Option<&Text>,
    of_message: impl FnOnce() -> Party,
    rules: Numbers,
) -> Result<String, i32> {
    let text = match given {
        Some(text) => text.0.clone(),
        None => match of_message() {
            Party::Unknown => return Err(-1),
            Party::Uri(uri) => user_of(&uri, rules).ok_or(-3)?,
        },
    };
    digits(&text, rules).ok_or_else(|| {
        host::notice!("stir_shaken", "{} is no telephone number", String::from_utf8_lossy(&text));
        -3
    })
}

fn user_of(uri: &Uri, rules: Numbers) -> Option<Bytes> {
    let fits = match uri.scheme {
        Scheme::Tel | Scheme::Tels => true,
        Scheme::Sip | Scheme::Sips => {
            !rules.strict || uri.params.value(b"user").is_some_and(|user| user.eq_ignore_ascii_case(b"phone"))
        }
        Scheme::Urn => false,
    };
    let user = uri.user.clone().filter(|_| fits)?;
    let end = user.iter().position(|b| *b == b';').unwrap_or(user.len());
    Some(user.slice(..end))
}

/// The digits of an E.164 number, in its canonical form (RFC 8224 §8.3): without `+` and what only the eye needs.
fn digits(text: &[u8], rules: Numbers) -> Option<String> {
    let number = match text.strip_prefix(b"+") {
        Some(number) => number,
        None if rules.strict => return None,
        None => text,
    };
    let digits: Vec<u8> = number.iter().copied().filter(|b| !b"-.()".contains(b)).collect();
    let fits = digits.iter().all(u8::is_ascii_digit) && (2..=rules.longest).contains(&digits.len());
    fits.then(|| String::from_utf8(digits).ok()).flatten()
}

/// stir_shaken_verify(cert, err_code, err_reason, [orig], [dest])
pub fn verify(
    call: &mut Call<StirShaken>,
    cert: Text,
    err_code: OutVar,
    err_reason: OutVar,
    orig: Option<Text>,
    dest: Option<Text>,
) -> i32 {
    match believed(call, &cert, orig.as_ref(), dest.as_ref()) {
        Ok(()) => 1,
        Err(Refusal { rc, status, reason }) => {
            let set = err_code.set(call.ctx, Value::Int(status)) && err_reason.set(call.ctx, reason);
            if set { rc } else { -1 }
        }
    }
}

fn believed(
    call: &Call<StirShaken>,
    cert: &Text,
    orig: Option<&Text>,
    dest: Option<&Text>,
) -> Result<(), Refusal> {
    let (module, msg, moment) = (call.module, &call.state.msg, now(call.ctx));
    let blame = |given: Option<&Text>, reason: &'static str| match given {
        Some(_) => (500, "Server Internal Error"),
        None => (400, reason),
    };
    let orig = number(orig, || caller(msg), module.numbers)
        .map_err(|rc| refusal(rc, blame(orig, "Bad Request (PAI/From Number)")))?;
    let dest = number(dest, || called(msg), module.numbers)
        .map_err(|rc| refusal(rc, blame(dest, "Bad Request (To Number)")))?;
    let identity = match identity(msg) {
        Found::One(identity) if identity.is_of_other_algorithm() => return Err(refusal(-5, INVALID)),
        Found::One(identity) => identity,
        Found::Unsupported => return Err(refusal(-5, INVALID)),
        Found::None => return Err(refusal(-2, INVALID)),
        Found::Broken => return Err(refusal(-4, INVALID)),
    };
    let claims = identity.claims().map_err(|claim| {
        host::notice!("stir_shaken", "the claim {claim} of a PASSporT is missing or wrong");
        refusal(-4, INVALID)
    })?;
    let dated = match date(msg) {
        Dated::Absent if module.require_date => {
            return Err(refusal(-2, (400, "Bad Request (Missing Date)")));
        }
        Dated::Absent => None,
        Dated::Unreadable => {
            return Err(refusal(-1, (500, "Failed to get UNIX time from Date header")));
        }
        Dated::At(date) => Some(date),
    };
    let fresh = |seconds: i64| (moment - seconds).abs() <= module.verify_freshness;
    if !fresh(dated.unwrap_or(claims.iat)) {
        return Err(refusal(-6, (403, "Stale Date")));
    }
    if claims.orig != orig || claims.dest != dest {
        host::notice!(
            "stir_shaken",
            "a PASSporT is of {} for {}, the call of {orig} for {dest}",
            claims.orig,
            claims.dest
        );
        return Err(refusal(-9, INVALID));
    }
    let chain = Chain::read(cert).ok_or_else(|| refusal(-1, (500, "Failed to load certificate")))?;
    if !chain.is_valid_at(dated.unwrap_or(claims.iat)) {
        return Err(refusal(-7, (438, "Invalid Identity Header (cert validity)")));
    }
    let trust = module.trust.read().clone();
    trust.check(&chain, moment).map_err(|why| {
        host::info!("stir_shaken", "a certificate is not trusted: {why}");
        refusal(-8, (437, "Unsupported Credential"))
    })?;
    // A PASSporT of another time than Date's is one that somebody kept.
    let of_this_call = dated.is_none_or(|date| date == claims.iat) || fresh(claims.iat);
    if !of_this_call || !chain.verifies(&identity.signed, &identity.signature) {
        return Err(refusal(-9, (438, "Invalid Identity Header (bad signature)")));
    }
    Ok(())
}

/// stir_shaken_check()
pub fn check(call: &mut Call<StirShaken>) -> i32 {
    match identity(&call.state.msg) {
        Found::One(identity) if identity.is_of_other_algorithm() => -4,
        Found::One(identity) => match identity.claims() {
            Ok(_) => 1,
            Err(claim) => {
                host::info!("stir_shaken", "the claim {claim} of a PASSporT is missing or wrong");
                -3
            }
        },
        Found::Unsupported => -4,
        Found::None => -2,
        Found::Broken => -3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let loose = Numbers { strict: false, longest: 15 };
        let strict = Numbers { strict: true, ..loose };
        for (text, want, wanted_strictly) in [
            ("+12025551000", Some("12025551000"), Some("12025551000")),
            ("12025551000", Some("12025551000"), None),
            ("+1-202.555(1000)", Some("12025551000"), Some("12025551000")),
            ("+1", None, None),
            ("1234567890123456", None, None),
            ("alice", None, None),
            ("", None, None),
        ] {
            assert_eq!(digits(text.as_bytes(), loose).as_deref(), want, "{text}");
            assert_eq!(digits(text.as_bytes(), strict).as_deref(), wanted_strictly, "{text}");
        }
        let user = |uri: &str, rules| user_of(&Uri::parse(&Bytes::from(uri.to_owned())).unwrap(), rules);
        assert_eq!(user("sip:+12;a=b@x", loose).as_deref(), Some(&b"+12"[..]));
        assert_eq!(user("sip:+12@x", strict), None);
        assert_eq!(user("sip:+12@x;user=phone", strict).as_deref(), Some(&b"+12"[..]));
        assert_eq!(user("tel:+12", strict).as_deref(), Some(&b"+12"[..]));
        assert_eq!(user("urn:service:sos", loose), None);
    }
}
