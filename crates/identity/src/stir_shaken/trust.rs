//! Certificates and keys: PEM texts of scripts, and the authorities that are trusted (RFC 8226).

use host::load::LoadError;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, UnixTime};
use std::path::Path;
use std::time::Duration;
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// TNAuthorizationList (RFC 8226 §9): the certificate speaks for telephone numbers.
const TN_AUTH_LIST: &str = "1.3.6.1.5.5.7.1.26";
/// Extended key usage that is not asked for: any certificate without one passes, and with this one.
const USAGE: KeyUsage = KeyUsage::client_auth();

/// A certificate, and those behind it that the text brought along.
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
}

impl Chain {
    /// From PEM; the first is the one that signs. `None`: there is no certificate in it.
    pub fn read(pem: &[u8]) -> Option<Chain> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = Chain { certificates: all.ok()? };
        chain.first()?;
        Some(chain)
    }

    fn first(&self) -> Option<X509Certificate<'_>> {
        let (_, first) = X509Certificate::from_der(self.certificates.first()?).ok()?;
        Some(first)
    }

    /// A moment, Unix seconds, lies between the ends of the certificate's validity.
    pub fn is_valid_at(&self, moment: i64) -> bool {
        self.first().is_some_and(|first| {
            let validity = first.validity();
            validity.not_before.timestamp() <= moment && moment < validity.not_after.timestamp()
        })
    }

    fn speaks_for_numbers(&self) -> bool {
        self.first().is_some_and(|first| {
            first.extensions().iter().any(|extension| extension.oid.to_id_string() == TN_AUTH_LIST)
        })
    }

    /// ES256 over `signed` by the key of the certificate.
    pub fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        self.first().is_some_and(|first| {
            let key = first.public_key().subject_public_key.data.to_vec();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed, signature).is_ok()
        })
    }
}

/// Signs ES256 with a key in PEM, PKCS #8 or SEC 1 (`EC PRIVATE KEY`): r and s, 32 bytes each.
pub fn sign(pem: &[u8], text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no private key in the text")?;
    let pkcs8 = match &key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Sec1(key) => wrapped(key.secret_sec1_der()),
        _ => return Err("the private key is none for ES256"),
    };
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
        .map_err(|_| "the private key is none of the curve P-256")?;
    let signature = pair.sign(&random, text).map_err(|_| "signing failed")?;
    Ok(signature.as_ref().to_vec())
}

/// A SEC 1 key as PKCS #8 (RFC 5958): version 0, id-ecPublicKey with prime256v1, the key.
fn wrapped(sec1: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 24] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
        0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let key = element(0x04, sec1);
    element(0x30, &[&HEAD[..], &key].concat())
}

/// An element of DER: tag, length, value.
pub(crate) fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = match value.len() {
        n @ 0..0x80 => vec![n as u8],
        n @ 0x80..0x100 => vec![0x81, n as u8],
        n => vec![0x82, (n >> 8) as u8, n as u8],
    };
    [&[tag][..], &length, value].concat()
}

/// Authorities, and what they took back.
#[derive(Default)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// The authorities as they are: one may have signed itself what it signs calls with.
    own: Vec<CertificateDer<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    /// Lists are asked, also when there is none for an authority.
    asks_lists: bool,
}

/// Why a certificate is not trusted; shown to the operator.
pub type Distrust = String;

impl Trust {
    /// Reads files and folders; those that are not set are `None`.
    pub fn read(authorities: [Option<&str>; 2], lists: [Option<&str>; 2]) -> Result<Trust, LoadError> {
        let mut trust = Trust { asks_lists: lists.iter().any(Option::is_some), ..Trust::default() };
        for path in authorities.into_iter().flatten() {
            for pem in texts(path)? {
                for der in CertificateDer::pem_slice_iter(&pem) {
                    let der = der.map_err(|error| format!("{path}: {error}"))?;
                    if !trust.own.contains(&der) {
                        let anchor =
                            anchor_from_trusted_cert(&der).map_err(|error| format!("{path}: {error}"))?;
                        trust.anchors.push(anchor.to_owned());
                        trust.own.push(der);
                    }
                }
            }
            if trust.own.is_empty() {
                return Err(format!("{path}: there is no certificate in it (PEM)").into());
            }
        }
        for path in lists.into_iter().flatten() {
            for pem in texts(path)? {
                for der in CertificateRevocationListDer::pem_slice_iter(&pem) {
                    let der = der.map_err(|error| format!("{path}: {error}"))?;
                    let list = OwnedCertRevocationList::from_der(&der);
                    trust.lists.push(list.map_err(|error| format!("{path}: {error}"))?.into());
                }
            }
        }
        Ok(trust)
    }

    /// The certificate speaks for telephone numbers, an authority of ours stands behind it at this moment (Unix seconds),
    /// and nobody took it back.
    pub fn check(&self, chain: &Chain, now: i64) -> Result<(), Distrust> {
        if !chain.speaks_for_numbers() {
            return Err("it has no TNAuthList".into());
        }
        let Some((first, rest)) = chain.certificates.split_first() else {
            return Err("it is missing".into());
        };
        if self.own.contains(first) && chain.is_valid_at(now) {
            return Ok(());
        }
        let said = |error: webpki::Error| error.to_string();
        let certificate = EndEntityCert::try_from(first).map_err(said)?;
        let lists: Vec<_> = self.lists.iter().collect();
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) => Some(
                options
                    .with_depth(RevocationCheckDepth::Chain)
                    .with_status_policy(UnknownStatusPolicy::Deny)
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build(),
            ),
            Err(_) if self.asks_lists => return Err("there are no revocation lists to ask".into()),
            Err(_) => None,
        };
        let moment = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0) as u64));
        certificate
            .verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, rest, moment, USAGE, revocation, None)
            .map_err(said)?;
        Ok(())
    }
}

/// The texts of a file, or of all files of a folder.
fn texts(path: &str) -> Result<Vec<Vec<u8>>, LoadError> {
    let failed = |error: std::io::Error| LoadError::of_file(path, &error);
    if !Path::new(path).is_dir() {
        return Ok(vec![std::fs::read(path).map_err(failed)?]);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.path());
    }
    names.sort();
    names.iter().filter(|name| name.is_file()).map(|name| std::fs::read(name).map_err(failed)).collect()
}
