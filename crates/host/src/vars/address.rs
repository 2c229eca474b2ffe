//! Who is in a message: `$fu`, `$tu`, `$ai`, `$pu`, `$re`, `$rt`, `$di` and their parts.

use super::{error, text_or_null};
use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::var::{At, Variable};
use bytes::Bytes;
use script::Value;
use sip::{HeaderName, NameAddr};

/// (name, header, part) of all variables here.
const NAMES: [(&str, HeaderName, Part); 25] = {
    use HeaderName::*;
    use Part::*;
    [
        ("fu", From, Uri),
        ("from", From, Uri),
        ("fU", From, User),
        ("from.user", From, User),
        ("fd", From, Host),
        ("from.domain", From, Host),
        ("fn", From, Display),
        ("ft", From, Tag),
        ("tu", To, Uri),
        ("to", To, Uri),
        ("tU", To, User),
        ("to.user", To, User),
        ("td", To, Host),
        ("to.domain", To, Host),
        ("tn", To, Display),
        ("tt", To, Tag),
        ("ai", PAssertedIdentity, Uri),
        ("pu", PPreferredIdentity, Uri),
        ("pU", PPreferredIdentity, User),
        ("pd", PPreferredIdentity, Host),
        ("pn", PPreferredIdentity, Display),
        ("re", RemotePartyId, Uri),
        ("di", Diversion, Uri),
        ("dir", Diversion, Param("reason")),
        ("dip", Diversion, Param("privacy")),
    ]
};

pub fn register(table: &mut VarTable) {
    for (name, header, part) in NAMES {
        table.simple(name, Address { header, part });
    }
    table.simple("rt", Address { header: HeaderName::ReferTo, part: Part::Uri });
}

#[derive(Clone, Copy)]
enum Part {
    Uri,
    User,
    Host,
    Display,
    Tag,
    Param(&'static str),
}

#[derive(Clone, Copy)]
struct Address {
    header: HeaderName,
    part: Part,
}

impl Variable for Address {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(address) = first(ctx, self.header) else { return Value::Null };
        match self.part {
            Part::Uri => text_or_null(address.uri),
            Part::User => user(&address.uri),
            Part::Host => super::uri::parse(&address.uri).map_or(Value::Null, |uri| text_or_null(uri.host)),
            Part::Display => text_or_null(address.display),
            Part::Tag => address.tag().map_or(Value::Null, text_or_null),
            Part::Param(name) => address.params.value(name.as_bytes()).map_or(Value::Null, text_or_null),
        }
    }
}

fn user(uri: &Bytes) -> Value {
    super::uri::parse(uri).and_then(|uri| uri.user).map_or(Value::Null, text_or_null)
}

/// The first address of a header. A From or To that cannot be read is an error of the message.
pub(super) fn first(ctx: &mut Ctx, header: HeaderName) -> Option<NameAddr> {
    let msg = ctx.state.msg.clone();
    let value = msg.value(header)?;
    let found = match header {
        HeaderName::From => msg.from(),
        HeaderName::To => msg.to(),
        _ => NameAddr::parse_list(&value).and_then(|list| list.into_iter().next()),
    };
    if found.is_none() {
        error::bad_header(ctx, header);
    }
    found
}
