//! aka_av_diameter: vectors for auth_aka from an HSS, over Cx (3GPP TS 29.228 §6.3, TS 29.229): Multimedia-Auth.

use crate::auth_aka::vectors::Vector;
use crate::auth_aka::{AuthAka, Coming, Manager, Wanted};
use drivers::aaa_diameter::Client;
use host::load::{LoadError, Loader};
use host::{Ctx, Registrar};
use serde_json::{Value as Json, json};
use sip::digest::Algorithm;
use std::sync::Arc;

/// The application Cx, its vendor, and Multimedia-Auth (TS 29.229 §6).
const CX: u32 = 16_777_216;
const TGPP: u32 = 10415;
const MULTIMEDIA_AUTH: u32 = 303;
/// Nobody waits longer for vectors than auth_aka does.
const TIMEOUT_MS: u64 = 60_000;

pub struct AkaAvDiameter {
    url: Option<String>,
    realm: String,
    server: String,
    client: Option<Client>,
}

impl Default for AkaAvDiameter {
    fn default() -> AkaAvDiameter {
        AkaAvDiameter { url: None, realm: "diameter.test".into(), server: String::new(), client: None }
    }
}

pub fn register(m: &mut Registrar<AkaAvDiameter>) {
    m.param_text("aaa_url", |s, v| Ok(s.url = Some(v.to_string()).filter(|v| !v.is_empty())));
    m.param_text("realm", |s, v| Ok(s.realm = v.into()));
    m.param_text("server_uri", |s, v| Ok(s.server = v.into()));
    m.needs(&["auth_aka", "aaa_diameter"]);
    m.init_with_files(init);
    m.ready(|module, hooks, _| {
        let Some(client) = module.client.clone() else { return };
        hooks.services.push(Arc::new(move |_| Box::pin(client.clone().serve())));
    });
}

fn init(s: &mut AkaAvDiameter, loader: &mut Loader) -> Result<(), LoadError> {
    let url = s.url.as_deref().ok_or("aaa_url names the file of the Diameter client: set it")?;
    let client = Client::open(url, TIMEOUT_MS)?;
    if !client.has_command(MULTIMEDIA_AUTH) {
        return Err("aaa_url: the dictionary (extra-avps-file) has no REQUEST 303, Multimedia-Auth".into());
    }
    if s.server.is_empty() {
        s.server = format!("sip:{}", s.realm);
    }
    if let Some(aka) = loader.module::<AuthAka>() {
        let (realm, server) = (s.realm.clone(), s.server.clone());
        aka.offers("diameter", Arc::new(Hss { client: client.clone(), realm, server }));
    }
    s.client = Some(client);
    Ok(())
}

struct Hss {
    client: Client,
    realm: String,
    server: String,
}

impl Manager for Hss {
    fn fetch(&self, ctx: &mut Ctx, wanted: &Wanted) -> Result<Coming, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let realm = text(&wanted.realm);
        let scheme = format!("Digest-AKAv1-{}", wanted.algorithm.as_str());
        let mut item = vec![json!({"3GPP-SIP-Authentication-Scheme": scheme})];
        if let Some(resync) = &wanted.resync {
            item.push(json!({"3GPP-SIP-Authorization": hex::encode(resync)}));
        }
        let request = json!([
            {"Origin-Host": self.realm},
            {"Origin-Realm": realm},
            {"Destination-Realm": realm},
            {"Vendor-Specific-Application-Id": [{"Vendor-Id": TGPP}, {"Auth-Application-Id": CX}]},
            {"Auth-Session-State": 1},
            {"User-Name": text(&wanted.user.1)},
            {"Public-Identity": text(&wanted.user.0)},
            {"Server-Name": self.server},
            {"3GPP-SIP-Number-Auth-Items": 1},
            {"3GPP-SIP-Auth-Data-Item": item},
        ]);
        let answer = self.client.ask(ctx, CX, MULTIMEDIA_AUTH, &request)?;
        Ok(Box::pin(async move { vectors(&answer.await?) }))
    }
}

/// All members of this name in a list of attributes.
fn named<'a>(list: &'a Json, name: &'a str) -> impl Iterator<Item = &'a Json> {
    list.as_array().into_iter().flatten().filter_map(move |item| item.get(name))
}

/// The vectors of an answer, in the order of their numbers.
fn vectors(answer: &Json) -> Result<Vec<Vector>, String> {
    let mut found: Vec<(u64, Vector)> = Vec::new();
    for item in named(answer, "3GPP-SIP-Auth-Data-Item") {
        let text = |name| named(item, name).next().and_then(Json::as_str).unwrap_or_default();
        let number = named(item, "3GPP-SIP-Item-Number").next().and_then(Json::as_u64).unwrap_or_default();
        let scheme = text("3GPP-SIP-Authentication-Scheme");
        let algorithm = scheme.trim_start_matches("Digest-").strip_prefix("AKAv1-");
        let keys = [text("Confidentiality-Key"), text("Integrity-Key")];
        let [authenticate, authorize] = [text("3GPP-SIP-Authenticate"), text("3GPP-SIP-Authorization")];
        let algorithm = algorithm.and_then(|name| Algorithm::parse(name.as_bytes()));
        let vector = Vector::read(
            authenticate.as_bytes(),
            authorize.as_bytes(),
            keys[0].as_bytes(),
            keys[1].as_bytes(),
        );
        let whole = !authenticate.is_empty() && !authorize.is_empty();
        if let (Some(algorithm), Some(vector)) = (algorithm, vector.filter(|_| whole)) {
            found.push((number, Vector { algorithm: Some(algorithm), ..vector }));
        }
    }
    if found.is_empty() {
        let code = named(answer, "Result-Code").next().map(Json::to_string).unwrap_or_default();
        return Err(format!("the answer of the HSS has none (Result-Code {code})"));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, vector)| vector).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_an_hss() {
        let item = |number: u32, scheme: &str| {
            json!({"3GPP-SIP-Auth-Data-Item": [{"3GPP-SIP-Item-Number": number},
                {"3GPP-SIP-Authentication-Scheme": scheme}, {"3GPP-SIP-Authenticate": "00ff"},
                {"3GPP-SIP-Authorization": format!("0{number}")}, {"Confidentiality-Key": "aa"}, {"Integrity-Key": "bb"}]})
        };
        let answer = json!([{"Result-Code": 2001}, item(2, "Digest-AKAv1-MD5"), item(1, "Digest-AKAv1-SHA-256"),
            item(3, "Unknown"), {"3GPP-SIP-Auth-Data-Item": []}]);
        let found = vectors(&answer).unwrap();
        let shown: Vec<_> = found.iter().map(|v| (v.expected[0], v.algorithm)).collect();
        assert_eq!(shown, [(1, Some(Algorithm::Sha256)), (2, Some(Algorithm::Md5))]);
        assert!(vectors(&json!([{"Result-Code": 5001}])).unwrap_err().contains("5001"));
    }
}
