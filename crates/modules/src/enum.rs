//! enum: telephone numbers to URIs by DNS (RFC 6116), infrastructure ENUM, ISN. The query suspends the script.

use bytes::Bytes;
use host::registrar::Since;
use host::{Call, Ctx, Finish, Outcome, Registrar, Routes, Suspension, Text, branches};
use script::posix::{self, Case};
use sip::Uri;
use sip::names::{Record, RecordKind, ResolveError};

/// Records of one answer that are looked at.
const MAX_RECORDS: usize = 64;
/// A pause in preference costs this much q (× 1000).
const Q_STEP: i32 = 10;

pub struct Enum {
    domain_suffix: String,
    i_enum_suffix: String,
    isn_suffix: String,
    tel_uri_params: String,
    branchlabel: String,
    by_txt: bool,
}

impl Default for Enum {
    fn default() -> Enum {
        Enum {
            domain_suffix: "e164.arpa.".into(),
            i_enum_suffix: "e164.arpa.".into(),
            isn_suffix: "freenum.org.".into(),
            tel_uri_params: String::new(),
            branchlabel: "i".into(),
            by_txt: false,
        }
    }
}

pub fn register(m: &mut Registrar<Enum>) {
    m.param_text("domain_suffix", |s, v| Ok(s.domain_suffix = v.into()));
    m.param_text("i_enum_suffix", |s, v| Ok(s.i_enum_suffix = v.into()));
    m.param_text("isn_suffix", |s, v| Ok(s.isn_suffix = v.into()));
    m.param_text("tel_uri_params", |s, v| Ok(s.tel_uri_params = v.into()));
    m.param_text("branchlabel", |s, v| Ok(s.branchlabel = v.into()));
    m.param_text("bl_algorithm", |s, v| match v {
        "cc" | "txt" => Ok(s.by_txt = v == "txt"),
        "ebl" => Err("bl_algorithm ebl needs a record type that was never assigned; use txt".into()),
        _ => Err("bl_algorithm is \"cc\" or \"txt\"".into()),
    });
    m.function("enum_query", Routes::REQUEST, enum_query);
    m.function_of(Since::V21, "enum_pv_query", Routes::REQUEST, enum_pv_query);
    m.function("i_enum_query", Routes::REQUEST, i_enum_query);
    m.function("isn_query", Routes::REQUEST, isn_query);
    m.function("is_from_user_enum", Routes::REQUEST, is_from_user_enum);
}

/// `+` and 2 to 15 digits: the digits.
fn digits(number: &[u8]) -> Option<&[u8]> {
    let digits = number.strip_prefix(b"+")?;
    ((2..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

/// `1234` as labels in reverse: `4.3.2.1.`
fn reversed(digits: &[u8]) -> String {
    digits.iter().rev().flat_map(|d| [char::from(*d), '.']).collect()
}

fn user(ctx: &Ctx) -> Option<Bytes> {
    Uri::parse(&ctx.state.current_uri()).ok()?.user
}

fn suffix(given: Option<Text>, default: &str) -> String {
    given.map_or_else(|| default.to_string(), |given| given.str().into_owned())
}

/// enum_query([suffix], [service], [number])
fn enum_query(
    call: &mut Call<Enum>,
    tail: Option<Text>,
    service: Option<Text>,
    number: Option<Text>,
) -> Outcome {
    let Some(number) = number.map(|n| n.0).or_else(|| user(call.ctx)) else { return (-1).into() };
    let Some(digits) = digits(&number) else { return (-1).into() };
    let name = reversed(digits) + &suffix(tail, &call.module.domain_suffix);
    ask(call, "enum_query", name, service, number, After::Rewrite)
}

/// 2.1: enum_pv_query(number, [suffix], [service])
fn enum_pv_query(call: &mut Call<Enum>, number: Text, tail: Option<Text>, service: Option<Text>) -> Outcome {
    enum_query(call, tail, service, Some(number))
}

/// isn_query([suffix], [service]): of `number*domain`.
fn isn_query(call: &mut Call<Enum>, tail: Option<Text>, service: Option<Text>) -> Outcome {
    let Some(user) = user(call.ctx) else { return (-1).into() };
    let Some(star) = memchr::memchr(b'*', &user) else { return (-1).into() };
    let (number, domain) = (&user[..star], &user[star + 1..]);
    let all_digits =
        |text: &[u8]| !text.is_empty() && text.len() <= 32 && text.iter().all(u8::is_ascii_digit);
    if !all_digits(number) || !all_digits(domain) {
        return (-1).into();
    }
    let domain = String::from_utf8_lossy(domain);
    let name = format!("{}{domain}.{}", reversed(number), suffix(tail, &call.module.isn_suffix));
    ask(call, "isn_query", name, service, user.clone(), After::Rewrite)
}

/// is_from_user_enum([suffix], [service]): has the user of From an entry?
fn is_from_user_enum(call: &mut Call<Enum>, tail: Option<Text>, service: Option<Text>) -> Outcome {
    let from = call.ctx.state.msg.from().and_then(|from| Uri::parse(&from.uri).ok()).and_then(|uri| uri.user);
    let Some(number) = from else { return (-1).into() };
    let Some(digits) = digits(&number) else { return (-1).into() };
    let name = reversed(digits) + &suffix(tail, &call.module.domain_suffix);
    ask(call, "is_from_user_enum", name, service, number, After::Look)
}

/// i_enum_query([suffix], [service]): as `enum_query`, below the branch label.
fn i_enum_query(call: &mut Call<Enum>, tail: Option<Text>, service: Option<Text>) -> Outcome {
    let Some(number) = user(call.ctx) else { return (-1).into() };
    let Some(digits) = digits(&number).map(<[u8]>::to_vec) else { return (-1).into() };
    let tail = suffix(tail, &call.module.i_enum_suffix);
    let label = call.module.branchlabel.clone();
    let code = country_code(&digits);
    let name = move |position: usize| {
        let position = position.min(digits.len());
        format!("{}{label}.{}{tail}", reversed(&digits[position..]), reversed(&digits[..position]))
    };
    if !call.module.by_txt {
        return ask(call, "i_enum_query", name(code), service, number, After::Rewrite);
    }
    // A TXT record below the label of the country says where the label of the number stands.
    let where_to_look = name(code);
    let label_of_country = match where_to_look.find(&format!("{}.", call.module.branchlabel)) {
        Some(at) => where_to_look[at..].to_string(),
        None => where_to_look,
    };
    let spawner = call.core.spawner.clone();
    let query = Lookup::new(call, service, number, After::Rewrite);
    Suspension::future("i_enum_query", async move {
        let found = spawner.records(label_of_country, RecordKind::Txt).await.unwrap_or_default();
        let position = found.iter().find_map(|record| match record {
            Record::Txt(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        });
        let records = spawner.records(name(position.unwrap_or(code)), RecordKind::Naptr).await;
        query.finish(records)
    })
}

/// How long the country code is (ITU-T E.164): 1 and 7 are one digit; those with a zone of their own two.
fn country_code(digits: &[u8]) -> usize {
    const TWO: [u8; 44] = [
        20, 27, 28, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56,
        57, 58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 83, 84, 86, 89, 90, 91, 92, 93,
    ];
    const MORE: [u8; 3] = [94, 95, 98];
    match digits {
        [b'1' | b'7', ..] => 1,
        [a, b, ..] => {
            let code = (a - b'0') * 10 + (b - b'0');
            if TWO.contains(&code) || MORE.contains(&code) { 2 } else { 3 }
        }
        _ => digits.len(),
    }
}

/// What is done with what was found.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// The R-URI and branches come from it.
    Rewrite,
    /// Only whether there is something counts.
    Look,
}

fn ask(
    call: &mut Call<Enum>,
    what: &'static str,
    name: String,
    service: Option<Text>,
    number: Bytes,
    after: After,
) -> Outcome {
    let lookup = Lookup::new(call, service, number, after);
    let records = call.core.spawner.records(name.clone(), RecordKind::Naptr);
    Suspension::future(what, async move { lookup.finish(records.await) }).detail(name)
}

/// A query that is under way.
struct Lookup {
    /// Accepted service fields, lower case.
    services: Vec<String>,
    number: Bytes,
    params: String,
    after: After,
}

impl Lookup {
    fn new(call: &Call<Enum>, service: Option<Text>, number: Bytes, after: After) -> Lookup {
        let service = service.map_or_else(String::new, |service| service.str().to_ascii_lowercase());
        let services = match service.strip_prefix('+') {
            Some(list) => list.split('+').map(str::to_string).collect(),
            None if service.is_empty() => vec!["sip".to_string()],
            None => vec![format!("{service}:sip")],
        };
        Lookup { services, number, params: call.module.tel_uri_params.clone(), after }
    }

    /// `E2U+sip`, or the older `sip+E2U`.
    fn serves(&self, field: &str) -> bool {
        let field = field.to_ascii_lowercase();
        let offered = field.strip_prefix("e2u+").or_else(|| field.strip_suffix("+e2u"));
        offered.is_some_and(|offered| {
            self.services.iter().any(|service| service == offered)
                || offered.split('+').any(|one| self.services.iter().any(|service| service == one))
        })
    }

    fn finish(self, records: Result<Vec<Record>, ResolveError>) -> Finish {
        let uris = self.uris(records.unwrap_or_default());
        let after = self.after;
        Box::new(move |ctx| match (uris.is_empty(), after) {
            (true, _) => -1,
            (false, After::Look) => 1,
            (false, After::Rewrite) => {
                rewrite(ctx, uris);
                1
            }
        })
    }

    /// The URIs of the records that fit, best first, each with its rank: equal ranks are equally good.
    fn uris(&self, records: Vec<Record>) -> Vec<(Bytes, u32)> {
        let mut fitting: Vec<(u32, String)> = Vec::new();
        for record in records.into_iter().take(MAX_RECORDS) {
            let Record::Naptr { order, preference, flags, service, regexp, .. } = record else { continue };
            if flags.eq_ignore_ascii_case("u") && self.serves(&service) {
                fitting.push((u32::from(order) << 16 | u32::from(preference), regexp));
            }
        }
        fitting.sort_by_key(|(rank, _)| *rank);
        let uri = |(rank, regexp): (u32, String)| {
            let uri = substituted(regexp.as_bytes(), &self.number)?;
            let uri = Bytes::from([&uri[..], self.params.as_bytes()].concat());
            Uri::parse(&uri).is_ok().then_some((uri, rank))
        };
        fitting.into_iter().filter_map(uri).collect()
    }
}

/// The first becomes the R-URI, the others branches; each worse rank has a lower q.
fn rewrite(ctx: &mut Ctx, uris: Vec<(Bytes, u32)>) {
    let mut q = 1000;
    let mut last = None;
    for (uri, rank) in uris {
        match last {
            None => {
                ctx.state.ruri = Some(script::traced::on_one_line(&uri));
                ctx.state.ruri_q = q;
            }
            Some(before) => {
                if rank > before {
                    q = (q - Q_STEP).max(0);
                }
                branches::append(&mut ctx.state, uri, q);
            }
        }
        last = Some(rank);
    }
}

/// `!regexp!replacement!flags` on the number (RFC 3402 §3.2).
fn substituted(field: &[u8], number: &[u8]) -> Option<Vec<u8>> {
    let (delimiter, rest) = field.split_first()?;
    let mut parts = rest.split(|b| b == delimiter);
    let (pattern, replacement) = (parts.next()?, parts.next()?);
    let case =
        if parts.next().is_some_and(|flags| flags.contains(&b'i')) { Case::Ignore } else { Case::Sensitive };
    let found = posix::compile(pattern, case).ok()?;
    let found = found.groups_at(number, 0)?;
    let mut out = Vec::new();
    let mut bytes = replacement.iter();
    while let Some(b) = bytes.next() {
        match (b, if *b == b'\\' { bytes.next() } else { None }) {
            (_, Some(n @ b'0'..=b'9')) => {
                out.extend_from_slice(found.text(number, usize::from(n - b'0')));
            }
            (_, Some(other)) => out.push(*other),
            (b, None) => out.push(*b),
        }
    }
    let whole = found.range();
    Some([&number[..whole.start], &out, &number[whole.end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(services: &[&str], number: &'static str) -> Lookup {
        Lookup {
            services: services.iter().map(|s| s.to_string()).collect(),
            number: number.into(),
            params: ";p".into(),
            after: After::Rewrite,
        }
    }

    fn naptr(order: u16, service: &str, regexp: &str) -> Record {
        Record::Naptr {
            order,
            preference: 10,
            flags: "u".into(),
            service: service.into(),
            regexp: regexp.into(),
            replacement: String::new(),
        }
    }

    #[test]
    fn records_become_uris() {
        let records = vec![
            naptr(20, "E2U+sip", "!^.*$!sip:second@example.com!"),
            naptr(10, "sip+E2U", r"!^\+43(.*)$!sip:\1@example.com!"),
            naptr(5, "E2U+mailto", "!^.*$!mailto:x@y!"),
            naptr(5, "E2U+sip", "!^nothing$!sip:x@y!"),
            naptr(5, "E2U+sip", "!((broken!sip:x@y!"),
        ];
        let uris = lookup(&["sip"], "+4312345").uris(records);
        let texts: Vec<_> = uris.iter().map(|(uri, _)| String::from_utf8_lossy(uri).into_owned()).collect();
        assert_eq!(texts, ["sip:12345@example.com;p", "sip:second@example.com;p"]);
    }

    #[test]
    fn services() {
        let both = lookup(&["sip", "voice:sip"], "+1");
        assert!(both.serves("E2U+sip") && both.serves("e2u+Voice:SIP") && both.serves("E2U+sip+h323"));
        assert!(!both.serves("E2U+video:sip") && !both.serves("sip") && !both.serves(""));
    }

    #[test]
    fn numbers() {
        assert_eq!(digits(b"+4312345"), Some(&b"4312345"[..]));
        for bad in ["4312345", "+", "+1", "+1234567890123456", "+12a"] {
            assert_eq!(digits(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(reversed(b"431"), "1.3.4.");
        for (number, length) in [("12345", 1), ("7900", 1), ("43123", 2), ("353123", 3), ("98123", 2)] {
            assert_eq!(country_code(number.as_bytes()), length, "{number}");
        }
    }
}
