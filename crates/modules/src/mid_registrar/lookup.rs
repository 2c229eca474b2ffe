//! `mid_registrar_lookup()`: a request of the main registrar finds its phones.

use super::back::id_of;
use super::forward::unescaped;
use super::{MidRegistrar, Mode};
use crate::registrar::aor::{self, Target};
use crate::registrar::flags::{Flags, LookupFlags};
use crate::registrar::lookup::{find, spread};
use crate::usrloc::{TableArg, now_s};
use host::{Call, Outcome, Text};
use sip::Uri;

/// mid_registrar_lookup(domain, [flags], [aor]): 1 found, 2 a phone is being woken, -1 nobody, -2 nobody
/// for this method, -3 error.
pub fn lookup(
    call: &mut Call<MidRegistrar>,
    table: TableArg,
    flags: Option<Flags<LookupFlags>>,
    address: Option<Text>,
) -> Outcome {
    let module = call.module.clone();
    let reg = &module.reg;
    let flags = flags.unwrap_or_default().0;
    let uri = address.map_or_else(|| call.ctx.state.current_uri(), |a| a.0);
    if module.mode != Mode::ByAor {
        let Some(id) = id_of(&module, &uri) else { return Outcome::Done(-1) };
        let Some(found) = table.0.by_id(id) else { return Outcome::Done(-1) };
        if found.1.expired(now_s(call.ctx)) {
            return Outcome::Done(-1);
        }
        return Outcome::Done(spread(call.ctx, reg, &table.0, vec![found], &flags));
    }
    let Ok(parsed) = Uri::parse(&uri) else { return Outcome::Done(-3) };
    let user = parsed.user.clone().unwrap_or_default();
    let mut key = unescaped(&user, &module.at_escape);
    if !key.contains(&b'@') && reg.usrloc().use_domain {
        // Not a contact of ours: the address itself.
        match aor::aor(&uri, true, reg) {
            Ok(whole) => key = whole,
            Err(_) => return Outcome::Done(-3),
        }
    }
    find(call.ctx, reg, &table.0, flags, Target { key, ..Target::default() })
}
