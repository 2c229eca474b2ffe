//! JSON Web Tokens (RFC 7519) in their compact form, signed as RFC 7515 and RFC 7518 §3 say.

use crate::stir_shaken::trust::element;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{self as sig, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::{Map, Value as Json};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

/// A token that can be read; nobody has checked its signature.
#[derive(Debug)]
pub struct Token<'a> {
    header: Map<String, Json>,
    payload: Map<String, Json>,
    alg: Alg,
    /// What the signature is over: header and payload as they came.
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// What is signed how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Alg {
    /// Unsigned: it can be read, and is never believed.
    None,
    Secret(HmacBits),
    /// Where it stands in [`PUBLIC`].
    Public(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HmacBits {
    Sha256,
    Sha384,
    Sha512,
}

/// 1.2.840.113549.1.1.1, rsaEncryption.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Signatures with key pairs. `ring` has no curve P-521, so ES512 is none of them.
static PUBLIC: [(&str, &dyn VerificationAlgorithm); 8] = [
    ("RS256", &sig::RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &sig::RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &sig::RSA_PKCS1_2048_8192_SHA512),
    ("PS256", &sig::RSA_PSS_2048_8192_SHA256),
    ("PS384", &sig::RSA_PSS_2048_8192_SHA384),
    ("PS512", &sig::RSA_PSS_2048_8192_SHA512),
    ("ES256", &sig::ECDSA_P256_SHA256_FIXED),
    ("ES384", &sig::ECDSA_P384_SHA384_FIXED),
];

impl Alg {
    fn named(name: &str) -> Option<Alg> {
        Some(match name {
            "none" => Alg::None,
            "HS256" => Alg::Secret(HmacBits::Sha256),
            "HS384" => Alg::Secret(HmacBits::Sha384),
            "HS512" => Alg::Secret(HmacBits::Sha512),
            name => Alg::Public(PUBLIC.iter().position(|(known, _)| *known == name)?),
        })
    }
}

impl<'a> Token<'a> {
    /// Reads `header.payload.signature`; the error says what is wrong with the text.
    pub fn read(text: &'a [u8]) -> Result<Token<'a>, &'static str> {
        let mut parts = text.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a token has three parts with dots between");
        };
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| "it is not base64url");
        let object = |part: &[u8]| match serde_json::from_slice(&decoded(part)?) {
            Ok(Json::Object(object)) => Ok(object),
            _ => Err("a part of it is no object of JSON"),
        };
        let signed = &text[..header.len() + 1 + payload.len()];
        let mut header: Map<String, Json> = object(header)?;
        let alg = header.get("alg").and_then(Json::as_str).ok_or("it does not say its algorithm")?;
        let alg = Alg::named(alg).ok_or("its algorithm is not known here")?;
        if header.contains_key("crit") {
            return Err("it demands extensions (crit), and none is known here");
        }
        if alg != Alg::None {
            header.entry("typ").or_insert_with(|| "JWT".into());
        }
        Ok(Token { header, payload: object(payload)?, alg, signed, signature: decoded(signature)? })
    }

    /// A claim that is a text.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.payload.get(name)?.as_str()
    }

    /// `header.payload` as JSON, names in order.
    pub fn shown(&self) -> String {
        let text = |object: &Map<String, Json>| Json::from(sorted(object)).to_string();
        format!("{}.{}", text(&self.header), text(&self.payload))
    }

    /// The signature was made with this secret, or with the private half of this public key (PEM). A public key is
    /// never taken for a secret, whatever the token says.
    pub fn is_signed_with(&self, key: &[u8]) -> bool {
        match self.alg {
            Alg::None => false,
            Alg::Secret(bits) => {
                let algorithm = match bits {
                    HmacBits::Sha256 => hmac::HMAC_SHA256,
                    HmacBits::Sha384 => hmac::HMAC_SHA384,
                    HmacBits::Sha512 => hmac::HMAC_SHA512,
                };
                let is_public = key.trim_ascii_start().starts_with(b"-----BEGIN");
                let same =
                    || hmac::verify(&hmac::Key::new(algorithm, key), self.signed, &self.signature).is_ok();
                !key.is_empty() && !is_public && same()
            }
            Alg::Public(at) => public_key(key).is_some_and(|key| {
                UnparsedPublicKey::new(PUBLIC[at].1, key).verify(self.signed, &self.signature).is_ok()
            }),
        }
    }
}

fn sorted(object: &Map<String, Json>) -> Map<String, Json> {
    let mut pairs: Vec<(&String, &Json)> = object.iter().collect();
    pairs.sort_by_key(|(name, _)| *name);
    let value = |value: &Json| match value {
        Json::Object(inner) => sorted(inner).into(),
        other => other.clone(),
    };
    pairs.into_iter().map(|(name, found)| (name.clone(), value(found))).collect()
}

/// The key in PEM (`PUBLIC KEY`) as `ring` wants it: a point of a curve, or modulus and exponent.
fn public_key(pem: &[u8]) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let (_, info) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    Some(info.subject_public_key.data.to_vec())
}

/// A `SubjectPublicKeyInfo` as PEM, 64 characters a line.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN PUBLIC KEY-----\n{}-----END PUBLIC KEY-----\n", lines.collect::<String>())
}

/// The public key of a certificate in PEM, as PEM.
pub fn key_of_certificate(text: &[u8]) -> Option<String> {
    let der = CertificateDer::from_pem_slice(text).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(pem(certificate.public_key().raw))
}

/// A public RSA key as PEM from exponent and modulus in base64url (RFC 7518 §6.3.1).
pub fn key_of_numbers(exponent: &[u8], modulus: &[u8]) -> Option<String> {
    let number = |text: &[u8]| -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let first = bytes.iter().position(|b| *b != 0)?;
        let sign: &[u8] = if bytes[first] & 0x80 == 0 { &[] } else { &[0] };
        Some(element(0x02, &[sign, &bytes[first..]].concat()))
    };
    let key = element(0x30, &[number(modulus)?, number(exponent)?].concat());
    let kind = element(0x30, &[RSA, &[0x05, 0x00]].concat());
    let bits = element(0x03, &[&[0][..], &key].concat());
    Some(pem(&element(0x30, &[kind, bits].concat())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

    /// RFC 7515 A.1.1, and its key.
    const HS256: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const HS256_KEY: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    /// RFC 7515 A.2.1, and its key.
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbd\
        s9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZ\
        RmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs\
        98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1P\
        t0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rex\
        MdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DW\
        NmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

    fn signed(key: &KeyPair, header: &str, payload: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature =
            crate::stir_shaken::trust::sign(key.serialize_pem().as_bytes(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn examples_of_the_rfc() {
        let token = Token::read(HS256.as_bytes()).unwrap();
        assert!(token.is_signed_with(&URL_SAFE_NO_PAD.decode(HS256_KEY).unwrap()));
        assert!(!token.is_signed_with(b"another") && !token.is_signed_with(b""));
        assert_eq!(
            token.shown(),
            r#"{"alg":"HS256","typ":"JWT"}.{"exp":1300819380,"http://example.com/is_root":true,"iss":"joe"}"#
        );
        assert_eq!((token.claim("iss"), token.claim("exp"), token.claim("x")), (Some("joe"), None, None));
        let key = key_of_numbers(b"AQAB", MODULUS.as_bytes()).unwrap();
        let token = Token::read(RS256.as_bytes()).unwrap();
        assert!(token.is_signed_with(key.as_bytes()), "{key}");
        assert!(key_of_numbers(b"AQ=B", b"AQAB").is_none() && key_of_numbers(b"", b"AQAB").is_none());
    }

    #[test]
    fn keys_of_certificates_and_who_is_not_believed() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let public = key_of_certificate(certificate.pem().as_bytes()).unwrap();
        assert_eq!(public, pem(&key.subject_public_key_info()));
        let token = signed(&key, r#"{"alg":"ES256"}"#, r#"{"tag":"a"}"#);
        assert!(Token::read(token.as_bytes()).unwrap().is_signed_with(public.as_bytes()));
        // Another payload under the same signature, and a public key as the secret of an HMAC.
        let (head, rest) = token.split_once('.').unwrap();
        let forged = format!("{head}.{}.{}", URL_SAFE_NO_PAD.encode("{}"), rest.split_once('.').unwrap().1);
        assert!(!Token::read(forged.as_bytes()).unwrap().is_signed_with(public.as_bytes()));
        let text =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode("{}"));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), text.as_bytes());
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert!(!Token::read(forged.as_bytes()).unwrap().is_signed_with(public.as_bytes()));
        let unsigned = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        let unsigned = Token::read(unsigned.as_bytes()).unwrap();
        assert_eq!(unsigned.shown(), r#"{"alg":"none"}.{}"#);
        assert!(!unsigned.is_signed_with(b"x") && !unsigned.is_signed_with(b""));
    }

    #[test]
    fn what_is_no_token() {
        let crit = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["b64"]}"#));
        for text in ["", "a.b", "a.b.c.d", "e30.e30.", "W10.e30.", "e30=.e30.", "eyJhbGciOiJ4In0.e30.", &crit]
        {
            assert!(Token::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
