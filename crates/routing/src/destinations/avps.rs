//! AVPs in which modules keep what a transaction must remember.

use host::avp::AvpName;
use script::Loc;

/// The AVP that a parameter names, `$avp(name)`.
pub fn avp_of_param(name: &str, text: &str) -> Result<AvpName, String> {
    let wrong = || format!("{name} takes an AVP, as in $avp(name), and not `{text}`");
    let spec = script::parse_variable(&bytes::Bytes::copy_from_slice(text.trim().as_bytes()), Loc::default());
    let spec = spec.map_err(|_| wrong())?;
    match spec.inner {
        Some(inner) if &spec.name[..] == b"avp" && spec.index.is_none() => {
            Ok(AvpName::new(inner.trim_ascii()))
        }
        _ => Err(wrong()),
    }
}
