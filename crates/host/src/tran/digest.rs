//! Class `s`: digests, in hexadecimal, and checksums.

use super::{Tran, Word, text};
use crate::language::loader::Loader;
use md5::Digest;
use script::ast::TranSpec;
use script::{Diagnostic, Value};

fn hash<D: Digest>(value: &Value) -> Value {
    Value::Str(hex::encode(D::digest(text(value))).into())
}

pub(super) fn md5(value: Value) -> Value {
    hash::<md5::Md5>(&value)
}
pub(super) fn sha1(value: Value) -> Value {
    hash::<sha1::Sha1>(&value)
}
pub(super) fn sha224(value: Value) -> Value {
    hash::<sha2::Sha224>(&value)
}
pub(super) fn sha256(value: Value) -> Value {
    hash::<sha2::Sha256>(&value)
}
pub(super) fn sha384(value: Value) -> Value {
    hash::<sha2::Sha384>(&value)
}
pub(super) fn sha512(value: Value) -> Value {
    hash::<sha2::Sha512>(&value)
}

/// HMAC (RFC 2104) of a hash with blocks of this many bytes.
fn hmac<D: Digest>(key: &[u8], text: &[u8], block: usize) -> Vec<u8> {
    let mut padded = if key.len() > block { D::digest(key).to_vec() } else { key.to_vec() };
    padded.resize(block, 0);
    let keyed = |mask: u8, data: &[u8]| {
        let pad: Vec<u8> = padded.iter().map(|b| b ^ mask).collect();
        D::new().chain_update(pad).chain_update(data).finalize()
    };
    keyed(0x5c, &keyed(0x36, text)).to_vec()
}

fn keyed<D: Digest + 'static>(
    spec: &TranSpec,
    loader: &mut Loader,
    block: usize,
) -> Result<Tran, Diagnostic> {
    let key = Word::new(spec, 0, loader)?;
    Ok(Tran::new(move |ctx, value| {
        let Some(key) = key.get(ctx) else { return Value::Null };
        Value::Str(hex::encode(hmac::<D>(&key, &text(&value), block)).into())
    }))
}

pub(super) fn sha1_hmac(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    keyed::<sha1::Sha1>(spec, loader, 64)
}
pub(super) fn sha224_hmac(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    keyed::<sha2::Sha224>(spec, loader, 64)
}
pub(super) fn sha256_hmac(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    keyed::<sha2::Sha256>(spec, loader, 64)
}
pub(super) fn sha384_hmac(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    keyed::<sha2::Sha384>(spec, loader, 128)
}
pub(super) fn sha512_hmac(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    keyed::<sha2::Sha512>(spec, loader, 128)
}

/// CRC-32 in decimal.
pub(super) fn crc32(value: Value) -> Value {
    Value::Str(crc32_of(&text(&value)).to_string().into())
}

/// CRC-32 without its final inversion, as the reference has it.
pub fn crc32_of(text: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    let step = |crc: u32, b: &u8| TABLE[usize::from(crc as u8 ^ b)] ^ crc >> 8;
    text.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        // 0xcbf43926 is the check value of CRC-32; here it is not inverted.
        assert_eq!(crc32("123456789".into()), Value::Str((!0xcbf4_3926u32).to_string().into()));
    }

    #[test]
    fn keyed_hashes() {
        // RFC 4231 §4.7, test case 6: a key longer than a block.
        let key = [0xaa; 131];
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex::encode(hmac::<sha2::Sha256>(&key, text, 64)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
