//! uuid: unique identifiers (RFC 9562).

use bytes::Bytes;
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Ctx, Int, OutVar, Registrar, Routes, Text, Value};
use md5::{Digest, Md5};
use sha1::Sha1;

/// The module keeps nothing.
#[derive(Default)]
pub struct Uuid;

pub fn register(m: &mut Registrar<Uuid>) {
    m.function("uuid", Routes::ALL, uuid);
    m.variable_class("uuid", |spec, loader, _| {
        let version = Name::optional(spec, loader)?;
        Ok(VarKind::Other(Box::new(New(version))))
    });
}

/// uuid(variable, [version], [namespace], [name])
fn uuid(
    call: &mut Call<Uuid>,
    out: OutVar,
    version: Option<Int>,
    space: Option<Text>,
    name: Option<Text>,
) -> i32 {
    let version = version.map_or(0, |version| version.0);
    let id = match version {
        3 | 5 => {
            let (Some(space), Some(name)) = (space.as_ref().and_then(|space| parse(&space.str())), name)
            else {
                host::error!("uuid", "versions 3 and 5 need a namespace, which is a UUID, and a name");
                return -1;
            };
            Some(named(version, space, &name))
        }
        version => unnamed(call.ctx, version),
    };
    match id {
        Some(id) if out.set(call.ctx, text(id)) => 1,
        Some(_) => -1,
        None => {
            host::error!("uuid", "there is no version {version} here: 0, 1, 3, 4, 5 and 7 are");
            -1
        }
    }
}

/// `$uuid`, `$uuid(7)`
struct New(Option<Name>);

impl Variable for New {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let version = match &self.0 {
            None => Some(0),
            Some(name) => name.number(ctx),
        };
        version.and_then(|version| unnamed(ctx, version)).map_or(Value::Null, |id| Value::Str(text(id)))
    }
}

fn unnamed(ctx: &mut Ctx, version: i64) -> Option<[u8; 16]> {
    let random = u128::from(ctx.core.rng.next_u64()) << 64 | u128::from(ctx.core.rng.next_u64());
    match version {
        0 | 4 => Some(marked(random, 4)),
        1 => Some(timed(ctx.core.wall_us, random)),
        7 => Some(marked(u128::from(ctx.core.wall_us / 1000) << 80 | (random >> 48), 7)),
        _ => None,
    }
}

/// With version and variant where they belong.
fn marked(bits: u128, version: u128) -> [u8; 16] {
    let clean = bits & !(0xf << 76) & !(0x3 << 62);
    (clean | version << 76 | 0x2 << 62).to_be_bytes()
}

/// Version 1; the node is random and marked as such, so that no address of this machine is told.
fn timed(wall_us: u64, random: u128) -> [u8; 16] {
    // 100 ns since 15 October 1582.
    let ticks = u128::from(wall_us) * 10 + 0x01b2_1dd2_1381_4000;
    let (low, mid, high) = (ticks & 0xffff_ffff, (ticks >> 32) & 0xffff, (ticks >> 48) & 0xfff);
    let node = (random & 0xffff_ffff_ffff) | 0x0100_0000_0000;
    let clock = (random >> 48) & 0x3fff;
    marked(low << 96 | mid << 80 | high << 64 | clock << 48 | node, 1)
}

fn named(version: i64, space: [u8; 16], name: &[u8]) -> [u8; 16] {
    let hash: [u8; 16] = if version == 3 {
        Md5::new().chain_update(space).chain_update(name).finalize().into()
    } else {
        let hash = Sha1::new().chain_update(space).chain_update(name).finalize();
        std::array::from_fn(|i| hash[i])
    };
    marked(u128::from_be_bytes(hash), version as u128)
}

fn text(id: [u8; 16]) -> Bytes {
    let hex = hex::encode(id);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).into()
}

fn parse(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let dashes = [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
    if text.len() != 36 || !dashes {
        return None;
    }
    hex::decode(text.replace('-', "")).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let dns = parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap();
        // RFC 9562, appendices A.2 and A.4.
        assert_eq!(text(named(3, dns, b"www.example.com")), "5df41881-3aed-3515-88a7-2f4a814cf09e");
        assert_eq!(text(named(5, dns, b"www.example.com")), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
        assert!(parse("6ba7b810-9dad-11d1-80b4-00c04fd430c").is_none());
        assert!(parse("x").is_none());
    }

    #[test]
    fn versions_and_variants() {
        assert_eq!(text(marked(u128::MAX, 4)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(text(marked(0, 7)), "00000000-0000-7000-8000-000000000000");
        // RFC 9562 A.1: 2022-02-22 19:22:22 UTC.
        let id = text(timed(1_645_557_742_000_000, 0));
        assert!(id.starts_with(b"c232ab00-9414-11ec-8"), "{id:?}");
    }
}
