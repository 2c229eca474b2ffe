//! gflags: 32 flags that all calls share.

use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Int, Registrar, Routes};
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default)]
pub struct Gflags(AtomicU32);

pub fn register(m: &mut Registrar<Gflags>) {
    m.param_int("initial", |s, v| {
        let bits = u32::try_from(v).map_err(|_| "initial is a mask of 32 bits")?;
        s.0.store(bits, Ordering::Relaxed);
        Ok(())
    });
    m.function("set_gflag", Routes::ALL, |call: &mut Call<Gflags>, flag: Int| {
        with_bit(flag, |bit| call.module.0.fetch_or(bit, Ordering::Relaxed) | bit)
    });
    m.function("reset_gflag", Routes::ALL, |call: &mut Call<Gflags>, flag: Int| {
        with_bit(flag, |bit| !call.module.0.fetch_and(!bit, Ordering::Relaxed) | bit)
    });
    m.function("is_gflag", Routes::ALL, |call: &mut Call<Gflags>, flag: Int| {
        with_bit(flag, |bit| call.module.0.load(Ordering::Relaxed) & bit)
    });
    for name in ["set_gflag", "gflags:set"] {
        m.command(name, "sets the flags of a mask", |call, params| {
            call.module.0.fetch_or(mask(params)?, Ordering::Relaxed);
            Ok(json!("OK"))
        })
        .takes("bitmask");
    }
    for name in ["reset_gflag", "gflags:reset"] {
        m.command(name, "clears the flags of a mask", |call, params| {
            call.module.0.fetch_and(!mask(params)?, Ordering::Relaxed);
            Ok(json!("OK"))
        })
        .takes("bitmask");
    }
    for name in ["is_gflag", "gflags:check"] {
        m.command(name, "whether all flags of a mask are set", check).takes("bitmask");
    }
    for name in ["get_gflags", "gflags:get"] {
        m.command(name, "the mask of all flags", |call, _| {
            let bits = call.module.0.load(Ordering::Relaxed);
            Ok(json!({ "hex": format!("0x{bits:X}"), "dec": bits.to_string() }))
        });
    }
}

/// 1 when the result has the bit, else -1; -1 too for a flag outside 0..31.
fn with_bit(flag: Int, f: impl FnOnce(u32) -> u32) -> i32 {
    match u32::try_from(flag.0).ok().filter(|n| *n < 32) {
        Some(n) if f(1 << n) & (1 << n) != 0 => 1,
        _ => -1,
    }
}

/// Decimal, or hexadecimal with 0x.
fn mask(params: &MiParams) -> Result<u32, MiError> {
    let text = params.need("bitmask", 0)?;
    let bits = host::arg::parse_int(text.as_bytes()).and_then(|n| u32::try_from(n).ok()).filter(|n| *n != 0);
    bits.ok_or_else(|| MiError::params("bitmask must be a number of 32 bits, not 0"))
}

fn check(call: &mut Call<Gflags>, params: &MiParams) -> MiResult {
    let mask = mask(params)?;
    Ok(json!(if call.module.0.load(Ordering::Relaxed) & mask == mask { "TRUE" } else { "FALSE" }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, Server};
    use script::ast::Dialect;
    use serde_json::json;

    #[test]
    fn flags_of_all_calls() {
        let config = "loadmodule \"gflags.so\"\nmodparam(\"gflags\", \"initial\", 2)";
        for (dialect, q) in [(Dialect::V4, ""), (Dialect::V21, "\"")] {
            let body = format!(
                "if (is_gflag({q}1{q})) $avp(o) = \"initial\"; if (!is_gflag({q}4{q})) $avp(o) = \"no\"; \
                 set_gflag({q}4{q}); if (is_gflag({q}4{q})) $avp(o) = \"set\"; \
                 if (reset_gflag({q}4{q})) $avp(o) = \"reset\"; if (!is_gflag({q}4{q})) $avp(o) = \"gone\"; \
                 if (!set_gflag({q}32{q})) $avp(o) = \"bad\";"
            );
            let ran = testing::run(config, &body, dialect);
            let mut have = ran.avps("o");
            have.reverse();
            assert_eq!(have, ["initial", "no", "set", "reset", "gone", "bad"]);
        }
    }

    #[test]
    fn over_management() {
        let mut server = Server::new("loadmodule \"gflags.so\"\nroute { }", Dialect::V4);
        server.manage("set_gflag", json!(["0x410"])).unwrap();
        assert_eq!(server.manage("gflags:check", json!([1040])).unwrap(), "TRUE");
        assert_eq!(server.manage("is_gflag", json!([1041])).unwrap(), "FALSE");
        server.manage("gflags:reset", json!([1024])).unwrap();
        assert_eq!(server.manage("get_gflags", json!([])).unwrap(), json!({ "hex": "0x10", "dec": "16" }));
        assert!(server.manage("set_gflag", json!(["x"])).is_err());
    }
}
