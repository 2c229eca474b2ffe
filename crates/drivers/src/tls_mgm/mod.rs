//! tls_mgm: TLS domains, sets of certificates and rules by name. Modules that open TLS connections ask
//! for a client domain; proto_tls and proto_wss for the one that fits an address and a name.

mod live;
mod table;
mod vars;

use crate::tls::{Ask, Check, ClientTls, Pem, ServerTls};
use host::avp::AvpName;
use host::load::LoadError;
use host::mi::{MiParams, MiResult};
use host::registrar::Stage;
use host::streams::StreamSettings;
use host::{Call, Registrar, Routes};
use live::Live;
use net::link::TlsSetup;
use serde_json::{Value as Json, json};
use sip::Transport;
use std::path::PathBuf;
use std::sync::Arc;

/// One `client_domain` or `server_domain`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domain {
    pub name: String,
    /// "10.0.0.1:5061" or "*".
    pub match_ip_address: Vec<String>,
    /// Names of SIP domains, "*" or "none".
    pub match_sip_domain: Vec<String>,
    pub tls_method: Option<String>,
    pub verify_cert: Option<bool>,
    /// The certificate of a named next hop must be for that name; on unless said otherwise. Fermata's own.
    pub verify_hostname: Option<bool>,
    pub require_cert: Option<bool>,
    pub certificate: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    pub ca_list: Option<PathBuf>,
    pub ca_dir: Option<PathBuf>,
    pub crl_dir: Option<PathBuf>,
    /// What a database holds in place of files.
    pub pem: Option<Pem>,
}

#[derive(Default)]
pub struct TlsMgm {
    pub clients: Vec<Domain>,
    pub servers: Vec<Domain>,
    /// What is set without naming a domain.
    pub default: Domain,
    pub client_tls_domain_avp: Option<AvpName>,
    pub client_sip_domain_avp: Option<AvpName>,
    /// Milliseconds; `tls_handshake_timeout` of proto_tls, which was here once.
    pub handshake_ms: Option<u64>,
    live: Live,
    table: table::Table,
    /// Settings of domains by name, in the order of the file.
    pending: Vec<(&'static str, String)>,
}

/// A certificate of a domain.
pub struct Shown {
    pub domain: String,
    pub file: PathBuf,
    /// When it ends, Unix seconds; `None`: it cannot be read.
    pub ends: Option<i64>,
}

impl TlsMgm {
    /// Certificates in files of all domains.
    pub fn certificates(&self) -> Vec<Shown> {
        let domains = self.servers.iter().chain(&self.clients).chain([&self.default]);
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for domain in domains {
            let Some(file) = domain.certificate.clone() else { continue };
            if !files.iter().any(|(_, known)| *known == file) {
                let name = if domain.name.is_empty() { "default" } else { &domain.name };
                files.push((name.to_owned(), file));
            }
        }
        files
            .into_iter()
            .map(|(domain, file)| {
                let der = crate::tls::first_certificate(&file);
                let parsed = der.as_deref().and_then(|der| x509_parser::parse_x509_certificate(der).ok());
                let ends = parsed.map(|(_, c)| c.validity().not_after.timestamp());
                Shown { domain, file, ends }
            })
            .collect()
    }
}

type Setter = fn(&mut Domain, &str) -> Result<(), String>;

/// What a domain can be told, one list for all.
const SETTINGS: &[(&str, Setter)] = &[
    ("match_ip_address", |d, v| Ok(d.match_ip_address = list(v))),
    ("match_sip_domain", |d, v| Ok(d.match_sip_domain = list(v))),
    ("tls_method", |d, v| {
        if versions(v)?.iter().all(|v| v.version == rustls::ProtocolVersion::TLSv1_2) && !v.contains("v1_2") {
            host::warn!("tls_mgm", "tls_method {v}: TLS below 1.2 is not spoken, 1.2 is");
        }
        Ok(d.tls_method = Some(v.to_string()))
    }),
    ("verify_cert", |d, v| Ok(d.verify_cert = Some(switch(v)?))),
    ("verify_hostname", |d, v| Ok(d.verify_hostname = Some(switch(v)?))),
    ("require_cert", |d, v| Ok(d.require_cert = Some(switch(v)?))),
    ("certificate", |d, v| Ok(d.certificate = Some(v.into()))),
    ("private_key", |d, v| Ok(d.private_key = Some(v.into()))),
    ("ca_list", |d, v| Ok(d.ca_list = Some(v.into()))),
    ("ca_dir", |d, v| Ok(d.ca_dir = Some(v.into()))),
    ("crl_dir", |d, v| Ok(d.crl_dir = Some(v.into()))),
];

macro_rules! settings {
    ($m:ident: $($name:literal),*) => {
        $($m.param($name, host::registrar::ParamFn::Any(|m: &mut M, value| {
            m.domains().pending.push(($name, text_of(value)));
            Ok(())
        }));)*
    };
}

/// A module with the parameters of TLS domains: tls_mgm, in 2.1 proto_tls.
pub trait HasDomains: Default + Send + Sync + 'static {
    fn domains(&mut self) -> &mut TlsMgm;
}

impl HasDomains for TlsMgm {
    fn domains(&mut self) -> &mut TlsMgm {
        self
    }
}

fn text_of(value: &script::ast::ParamValue) -> String {
    match value {
        script::ast::ParamValue::Int(n) => n.to_string(),
        script::ast::ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
    }
}

pub fn register(m: &mut Registrar<TlsMgm>) {
    m.stage(Stage::Ground);
    params(m);
    m.param_int("tls_handshake_timeout", |m, v| Ok(m.handshake_ms = u64::try_from(v).ok()));
    m.param_text("client_tls_domain_avp", |m, name| Ok(m.client_tls_domain_avp = Some(avp(name))));
    m.param_text("client_sip_domain_avp", |m, name| Ok(m.client_sip_domain_avp = Some(avp(name))));
    m.ignored(&["tls_library"], "there is one TLS library, rustls");
    for name in ["tls_list", "tls_mgm:list"] {
        m.command(name, "TLS domains", tls_list).takes("");
    }
    table::register(m);
    m.init_with_files(|m, loader| {
        m.table.open(loader)?;
        m.finish()
    });
    m.ready(|module, hooks, _| {
        for transport in [Transport::Tls, Transport::Wss] {
            let handshake_ms = module.handshake_ms;
            hooks.list().push(StreamSettings { handshake_ms, ..StreamSettings::of(transport) });
        }
        // Before the domains that proto_tls has in 2.1.
        hooks.list::<Arc<dyn TlsSetup>>().insert(0, module.clone());
        let module = module.clone();
        hooks.tls_hints.push(Arc::new(move |ctx, state, host| module.hint(ctx, state, host)));
    });
}

/// What tls_mgm and the proto_tls of 2.1 share.
pub fn params<M: HasDomains>(m: &mut Registrar<M>) {
    m.param_text("client_domain", |m, text| Ok(add(&mut m.domains().clients, text)));
    m.param_text("server_domain", |m, text| Ok(add(&mut m.domains().servers, text)));
    settings!(m: "match_ip_address", "match_sip_domain", "tls_method", "verify_cert", "verify_hostname", "require_cert",
        "certificate", "private_key", "ca_list", "ca_dir", "crl_dir");
    m.ignored(&["tls_send_timeout"], "writing never blocks");
    m.ignored(&["ciphers_list", "dh_params", "ec_curve"], "rustls offers only what is safe");
    m.ignored(&["crl_check_all"], "the whole chain is always checked");
    m.function("is_peer_verified", Routes::REQUEST, vars::is_peer_verified);
    vars::register(m);
}

/// The name of an AVP: "name", "$avp(name)" or "i:5".
pub(crate) fn avp(text: &str) -> AvpName {
    let name = text.trim().trim_start_matches("$avp(").trim_end_matches(')');
    AvpName::new(name.strip_prefix("s:").unwrap_or(name).as_bytes())
}

fn tls_list(call: &mut Call<TlsMgm>, _: &MiParams) -> MiResult {
    let show = |kind: &str, domain: &Domain| {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        json!({
            "ID": domain.name,
            "Type": kind,
            "IP ADDRESS FILTERS": filters(&domain.match_ip_address),
            "SIP DOMAIN FILTERS": filters(&domain.match_sip_domain),
            "METHOD": domain.tls_method.as_deref().unwrap_or("SSLv23"),
            "VERIFY_CERT": domain.verify_cert.unwrap_or(true),
            "REQ_CLI_CERT": domain.require_cert.unwrap_or(true),
            "CERT_FILE": path(&domain.certificate),
            "CRL_DIR": path(&domain.crl_dir),
            "CA_FILE": path(&domain.ca_list),
            "CA_DIR": path(&domain.ca_dir),
            "PKEY_FILE": path(&domain.private_key),
        })
    };
    let module = &call.module;
    let servers = module.servers.iter().map(|d| show("TLS_DOMAIN_SRV", d));
    let clients = module.clients.iter().map(|d| show("TLS_DOMAIN_CLI", d));
    let stored = module.live.stored();
    let kind = |server: bool| if server { "TLS_DOMAIN_SRV" } else { "TLS_DOMAIN_CLI" };
    let stored = stored.iter().map(|(server, d)| show(kind(*server), d));
    Ok(json!({ "Domains": servers.chain(clients).chain(stored).collect::<Vec<_>>() }))
}

fn filters(list: &[String]) -> Json {
    if list.is_empty() { json!(["*"]) } else { json!(list) }
}

/// "dom", or "dom=10.0.0.1:5061" of 2.x.
fn add(domains: &mut Vec<Domain>, text: &str) {
    let (name, address) = text.split_once('=').unwrap_or((text, ""));
    let match_ip_address = list(address);
    if !domains.iter().any(|d| d.name == name.trim()) {
        domains.push(Domain { name: name.trim().to_string(), match_ip_address, ..Domain::default() });
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_string).collect()
}

fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "0" | "no" => Ok(false),
        "1" | "yes" => Ok(true),
        other => Err(format!("`{other}` is neither 0 nor 1")),
    }
}

/// "[dom]value", or "dom:value" of 2.x when there is such a domain.
fn split(text: &str, known: impl Fn(&str) -> bool) -> (Option<&str>, &str) {
    if let Some((name, value)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        return (Some(name.trim()), value.trim());
    }
    match text.split_once([':', '=']) {
        Some((name, value)) if known(name.trim()) => (Some(name.trim()), value.trim()),
        _ => (None, text.trim()),
    }
}

/// TLS versions of "TLSv1_2", "TLSv1_2-TLSv1_3", "TLSv1-", "SSLv23". What is older than 1.2 is not
/// spoken: a range that ends below it is 1.2.
pub fn versions(method: &str) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, String> {
    const ORDER: [&str; 4] = ["TLSV1", "TLSV1_1", "TLSV1_2", "TLSV1_3"];
    let place = |name: &str, otherwise: usize| match name.trim().to_ascii_uppercase().as_str() {
        "" => Ok(otherwise),
        name => ORDER.iter().position(|o| *o == name).ok_or_else(|| format!("`{method}` is no TLS method")),
    };
    let (low, high) = match method.trim().to_ascii_uppercase().as_str() {
        "SSLV23" | "-" => (0, 3),
        _ => match method.split_once('-') {
            Some((low, high)) => (place(low, 0)?, place(high, 3)?),
            None => (place(method, 3)?, place(method, 3)?),
        },
    };
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let chosen: Vec<_> = all.iter().filter(|(n, _)| (low..=high).contains(n)).map(|(_, v)| *v).collect();
    Ok(if chosen.is_empty() { vec![&rustls::version::TLS12] } else { chosen })
}

impl Domain {
    /// Certificates of next hops that have a name must be for that name.
    pub fn checks_names(&self) -> bool {
        self.verify_cert.unwrap_or(true) && self.verify_hostname.unwrap_or(true)
    }

    /// The client's side of this domain towards an address: there is no name to check.
    pub fn client(&self) -> ClientTls {
        let authorities = self.ca_list.iter().chain(&self.ca_dir).cloned().collect();
        ClientTls {
            check: if self.verify_cert.unwrap_or(true) { Check::Chain } else { Check::Nothing },
            authorities,
            identity: self.identity(),
            revoked: self.crl_dir.clone(),
            versions: self.tls_method.as_deref().and_then(|m| versions(m).ok()).unwrap_or_default(),
            alpn: Vec::new(),
            pem: self.pem.clone(),
        }
    }

    /// The server's side.
    pub fn server(&self) -> Result<ServerTls, LoadError> {
        let identity = match &self.pem {
            Some(pem) if !pem.certificate.is_empty() => Default::default(),
            _ => self.identity().ok_or("it has no certificate and private_key")?,
        };
        Ok(ServerTls {
            ask: match (self.verify_cert.unwrap_or(true), self.require_cert.unwrap_or(true)) {
                (false, _) => Ask::Nothing,
                (true, false) => Ask::IfShown,
                (true, true) => Ask::Always,
            },
            authorities: self.ca_list.iter().chain(&self.ca_dir).cloned().collect(),
            revoked: self.crl_dir.clone(),
            versions: self.tls_method.as_deref().and_then(|m| versions(m).ok()).unwrap_or_default(),
            identity,
            pem: self.pem.clone(),
        })
    }

    /// The certificate that is shown, DER.
    fn shown(&self) -> Option<Arc<[u8]>> {
        let written = self.pem.as_ref().and_then(Pem::first);
        written.or_else(|| self.certificate.as_deref().and_then(crate::tls::first_certificate))
    }

    /// Files of the certificate and its key.
    pub fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        self.certificate.clone().zip(self.private_key.clone())
    }
}

impl TlsMgm {
    /// Something was set.
    pub fn is_set(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Applies what was set, in the order of the file, and reads all files.
    pub fn finish(&mut self) -> Result<(), LoadError> {
        let m = self;
        crate::tls::install_provider();
        for (param, text) in std::mem::take(&mut m.pending) {
            let known = |name: &str| m.clients.iter().chain(&m.servers).any(|d| d.name == name);
            let (name, value) = split(&text, known);
            let set = SETTINGS.iter().find(|(n, _)| *n == param).expect("one list").1;
            let Some(name) = name else {
                set(&mut m.default, value).map_err(|e| format!("{param}: {e}"))?;
                continue;
            };
            let mut found = false;
            for domain in m.clients.iter_mut().chain(&mut m.servers).filter(|d| d.name == name) {
                set(domain, value).map_err(|e| format!("{param} of domain {name}: {e}"))?;
                found = true;
            }
            if !found {
                let text = format!("{param}: there is no client_domain or server_domain `{name}` above it");
                return Err(text.into());
            }
        }
        m.read_files()
    }

    /// A client's domain by name, of the script or of the database.
    pub fn client_now(&self, name: &str) -> Option<Domain> {
        let of_rows =
            |(server, domain): &(bool, Domain)| (!server && domain.name == name).then(|| domain.clone());
        self.client(name).cloned().or_else(|| self.live.stored().iter().find_map(of_rows))
    }

    /// The same of the script, for those who need it before the server runs.
    pub fn client(&self, name: &str) -> Option<&Domain> {
        self.clients.iter().find(|d| d.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        for (method, expected) in [
            ("SSLv23", Some(2)),
            ("TLSv1_2", Some(1)),
            ("TLSv1_3", Some(1)),
            ("TLSv1-TLSv1_3", Some(2)),
            ("TLSv1_3-", Some(1)),
            ("-TLSv1_2", Some(1)),
            ("-", Some(2)),
            ("TLSv1", Some(1)),
            ("TLSv9", None),
        ] {
            assert_eq!(versions(method).ok().map(|v| v.len()), expected, "{method}");
        }
    }

    #[test]
    fn domains_of_values() {
        let known = |name: &str| name == "dom";
        assert_eq!(split("[dom]/a/b.pem", known), (Some("dom"), "/a/b.pem"));
        assert_eq!(split("dom:/a/b.pem", known), (Some("dom"), "/a/b.pem"));
        assert_eq!(split("/a:b.pem", known), (None, "/a:b.pem"));
    }
}
