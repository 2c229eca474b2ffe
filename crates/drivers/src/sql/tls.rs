//! TLS to a database server, as its URL asks for it.

use crate::tls_mgm::TlsMgm;
use host::Ctx;
use host::db::DbUrl;
use std::path::{Path, PathBuf};

/// What is checked of the server's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// No TLS.
    #[default]
    Off,
    /// TLS when the server has it.
    Prefer,
    /// TLS, whoever the server is.
    Nothing,
    /// It is signed by one of ours.
    Chain,
    /// And it names the host of the URL.
    Name,
}

/// `?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/client.pem&sslkey=/client.key`, the names that libpq has,
/// for all kinds of servers. Without `sslrootcert` the system's authorities count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    pub verify: Verify,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Tls {
    /// `default`: what the module's own parameters say. The error is what a user should read.
    pub fn of(url: &DbUrl, default: Verify) -> Result<Tls, String> {
        let ca = file(url, "sslrootcert")?;
        let verify = match url.param("sslmode") {
            None if ca.is_some() => Verify::Chain,
            None => default,
            Some("disable") => Verify::Off,
            Some("allow" | "prefer") => Verify::Prefer,
            Some("require") if ca.is_some() => Verify::Chain,
            Some("require") => Verify::Nothing,
            Some("verify-ca") => Verify::Chain,
            Some("verify-full") => Verify::Name,
            Some(other) => {
                return Err(format!(
                    "sslmode={other} is unknown: disable, prefer, require, verify-ca or verify-full"
                ));
            }
        };
        let (cert, key) = (file(url, "sslcert")?, file(url, "sslkey")?);
        if cert.is_some() != key.is_some() {
            return Err("sslcert and sslkey belong together".to_string());
        }
        Ok(Tls { verify, ca, cert, key })
    }
}

impl Tls {
    /// The same, completed by the client domain of tls_mgm that the URL names (`tls_domain=`).
    pub fn with_domain(url: &DbUrl, default: Verify, ctx: &Ctx) -> Result<Tls, String> {
        let mut tls = Tls::of(url, default)?;
        let Some(name) = url.param("tls_domain").filter(|_| tls.verify != Verify::Off) else {
            return Ok(tls);
        };
        let mgm = ctx.shared().module::<TlsMgm>().ok_or("tls_domain needs module tls_mgm")?;
        let domain = mgm.client(name).ok_or_else(|| format!("tls_mgm has no client_domain {name}"))?;
        if url.param("sslmode").is_none() {
            // With authorities the server has to be one of theirs, whatever its name, as in the reference.
            let checked = domain.verify_cert.unwrap_or(true) && domain.ca_list.is_some();
            tls.verify = if checked { Verify::Chain } else { Verify::Nothing };
        }
        tls.ca = tls.ca.or_else(|| domain.ca_list.clone());
        if let (None, Some((cert, key))) = (&tls.cert, domain.identity()) {
            (tls.cert, tls.key) = (Some(cert), Some(key));
        }
        Ok(tls)
    }
}

fn file(url: &DbUrl, name: &str) -> Result<Option<PathBuf>, String> {
    match url.param(name) {
        None | Some("") => Ok(None),
        Some(path) if Path::new(path).is_file() => Ok(Some(path.into())),
        Some(path) => Err(format!("{name}={path}: there is no such file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(params: &str, expected: Result<Verify, &str>) {
        let url = DbUrl::parse(&format!("postgres://u@h/d?{params}")).expect("a URL");
        let found = Tls::of(&url, Verify::Prefer).map(|tls| tls.verify);
        match expected {
            Ok(verify) => assert_eq!(found, Ok(verify), "{params}"),
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{params}: {found:?}"),
        }
    }

    #[test]
    fn modes() {
        check("", Ok(Verify::Prefer));
        check("sslmode=disable", Ok(Verify::Off));
        check("sslmode=require", Ok(Verify::Nothing));
        check("sslmode=verify-full", Ok(Verify::Name));
        check("sslmode=maybe", Err("sslmode=maybe"));
        check("sslrootcert=/absent.pem", Err("no such file"));
        check(&format!("sslrootcert={}", file!()), Err("no such file"));
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        check(&format!("sslrootcert={here}"), Ok(Verify::Chain));
        check(&format!("sslmode=require&sslrootcert={here}"), Ok(Verify::Chain));
        check(&format!("sslcert={here}"), Err("belong together"));
    }
}
