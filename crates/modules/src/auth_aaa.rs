//! auth_aaa: digest authentication by an AAA server (RADIUS, RFC 5090): the server knows the secret, the nonce is
//! checked here. Scripts wait for the answer without blocking.

use crate::auth::{Auth, ChallengeKind, Offered, rc};
use crate::subjects::Subject;
use bytes::Bytes;
use host::aaa::{Aaa, AaaKind, AaaRequest};
use host::load::Loader;
use host::{Accepts, InParam, LoadError};
use host::{Call, Outcome, Registrar, Routes, Text};
use sip::digest::{Algorithm, Credentials, Qop};
use std::sync::Arc;

#[derive(Default)]
pub struct AuthAaa {
    url: String,
    aaa: Option<Aaa>,
    auth: Option<Arc<Auth>>,
    service: Option<i64>,
    check_service: Option<i64>,
    /// Name of the message flag that says: the R-URI counts, not the URI of the credentials.
    ruri_flag: Option<String>,
    ruri_bit: u32,
}

pub fn register(m: &mut Registrar<AuthAaa>) {
    m.param_text("aaa_url", |s, v| {
        s.url = v.into();
        Ok(())
    });
    m.param_int("auth_service_type", |s, v| {
        s.service = Some(v);
        Ok(())
    });
    m.param_int("service_type", |s, v| {
        s.service = Some(v);
        Ok(())
    });
    m.param_int("check_service_type", |s, v| {
        s.check_service = Some(v);
        Ok(())
    });
    m.accepts(Accepts::from(-1), &["auth_service_type", "check_service_type", "service_type"]);
    m.param_text("use_ruri_flag", |s, v| {
        s.ruri_flag = Some(v.into()).filter(|v: &String| !v.is_empty() && v != "NULL");
        Ok(())
    });
    for name in ["aaa_www_authorize", "radius_www_authorize"] {
        m.function(name, Routes::REQUEST, |call: &mut Call<AuthAaa>, realm: Text, user: Option<Text>| {
            authorize(call, &realm, user, ChallengeKind::Www)
        });
    }
    for name in ["aaa_proxy_authorize", "radius_proxy_authorize"] {
        m.function(name, Routes::REQUEST, |call: &mut Call<AuthAaa>, realm: Text, user: Option<Text>| {
            authorize(call, &realm, user, ChallengeKind::Proxy)
        });
    }
    m.function("aaa_does_uri_exist", Routes::REQUEST, |call: &mut Call<AuthAaa>, uri: Option<Text>| {
        exists(call, uri, Asked::Uri)
    });
    m.function("aaa_does_uri_user_exist", Routes::REQUEST, |call: &mut Call<AuthAaa>, uri: Option<Text>| {
        exists(call, uri, Asked::User)
    });
    m.needs(&["auth"]);
    m.init_or(init);
}

const ATTRIBUTES: [&str; 12] = [
    "User-Name",
    "Service-Type",
    "Digest-Username",
    "Digest-Realm",
    "Digest-Nonce",
    "Digest-URI",
    "Digest-Method",
    "Digest-QOP",
    "Digest-Nonce-Count",
    "Digest-CNonce",
    "Digest-Response",
    "Digest-Algorithm",
];

/// Names differ between dictionaries of RADIUS servers: the first that is there is used.
const OTHER_NAMES: [(&str, &str); 2] =
    [("Digest-Username", "Digest-User-Name"), ("Digest-QOP", "Digest-Qop")];

fn name_of(aaa: &Aaa, name: &'static str) -> Result<&'static str, String> {
    let other = OTHER_NAMES.iter().find(|(n, _)| *n == name).map(|(_, other)| *other);
    match (aaa.attribute(name), other) {
        (Ok(()), _) => Ok(name),
        (Err(_), Some(other)) if aaa.attribute(other).is_ok() => Ok(other),
        (Err(error), _) => Err(error),
    }
}

fn init(s: &mut AuthAaa, loader: &mut Loader) -> Result<(), LoadError> {
    if s.url.trim().is_empty() {
        return Err("aaa_url is not set".into());
    }
    let aaa = loader.aaa(&s.url).in_param("aaa_url")?;
    for name in ATTRIBUTES {
        name_of(&aaa, name).in_param("aaa_url")?;
    }
    s.service = s.service.or_else(|| aaa.value("Service-Type", "Sip-Session").ok()).or(Some(15));
    s.check_service = s.check_service.or_else(|| aaa.value("Service-Type", "Call-Check").ok()).or(Some(10));
    if let Some(flag) = &s.ruri_flag {
        s.ruri_bit = loader.flag(flag.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
    }
    s.auth = loader.module::<Auth>();
    s.aaa = Some(aaa);
    Ok(())
}

fn authorize(call: &mut Call<AuthAaa>, realm: &Text, user: Option<Text>, kind: ChallengeKind) -> Outcome {
    let module = call.module.clone();
    let (Some(auth), Some(aaa)) = (module.auth.clone(), &module.aaa) else { return rc::ERROR.into() };
    let Some(realm) = auth.realm(call.ctx, &realm.0) else { return rc::ERROR.into() };
    let credentials = match auth.offered(call.ctx, kind, &realm) {
        Offered::Verdict(rc) => return rc.into(),
        Offered::Credentials(found) => found,
    };
    if let Err(rc) = auth.admissible(call.ctx, &credentials) {
        return rc.into();
    }
    let to_user = || call.ctx.state.msg.to().and_then(|to| Subject::of_uri(&to.uri)).map(|s| s.user);
    let uri_user = user.map(|u| u.0).or_else(to_user);
    let instead = call.ctx.state.flags & module.ruri_bit != 0;
    let uri = if instead { call.ctx.state.msg.request_uri() } else { credentials.uri.clone() };
    let msg = call.ctx.state.msg.clone();
    let body = msg.bytes(msg.body());
    let asked = Question { method: msg.method_text(), uri, uri_user, body };
    let request = match question(&module, aaa, &credentials, &realm, asked) {
        Ok(request) => request,
        Err(error) => {
            host::error!("auth_aaa", "{error}");
            return rc::ERROR.into();
        }
    };
    aaa.suspend(call.ctx, "aaa_authorize", request, move |ctx, answer| match answer {
        Ok(answer) if answer.accepted => {
            let rc = auth.spend(ctx, &credentials);
            if rc == rc::OK {
                answer.sip_avps(ctx);
            }
            rc
        }
        Ok(_) => rc::INVALID_PASSWORD,
        Err(error) => {
            host::error!("auth_aaa", "{error}");
            rc::ERROR
        }
    })
}

/// What of the request the server is told.
struct Question<'a> {
    method: Bytes,
    uri: Bytes,
    uri_user: Option<Bytes>,
    body: &'a [u8],
}

fn question(
    module: &AuthAaa,
    aaa: &Aaa,
    credentials: &Credentials,
    realm: &Bytes,
    asked: Question<'_>,
) -> Result<AaaRequest, String> {
    let mut request = AaaRequest::new(AaaKind::Auth);
    let (user, domain) = credentials.user_and_domain();
    let domain = domain.unwrap_or_else(|| realm.clone());
    request.add("User-Name", Bytes::from([&user[..], b"@", &domain].concat()));
    request.add(name_of(aaa, "Digest-Username")?, credentials.username.clone());
    request.add("Digest-Realm", realm.clone());
    request.add("Digest-Nonce", credentials.nonce.clone());
    request.add("Digest-URI", asked.uri);
    request.add("Digest-Method", asked.method);
    if let Some(algorithm) = credentials.algorithm.filter(|a| *a != Algorithm::Md5) {
        request.add("Digest-Algorithm", algorithm.as_str());
    }
    if let Some(qop) = credentials.qop {
        request.add(name_of(aaa, "Digest-QOP")?, qop.as_str());
        request.add("Digest-Nonce-Count", credentials.nc.clone());
        request.add("Digest-CNonce", credentials.cnonce.clone());
        if qop == Qop::AuthInt {
            aaa.attribute("Digest-Body-Digest")?;
            let algorithm = credentials.algorithm.unwrap_or(Algorithm::Md5);
            request.add("Digest-Body-Digest", algorithm.hash(&[asked.body]));
        }
    }
    if let Some(opaque) = &credentials.opaque
        && aaa.attribute("Digest-Opaque").is_ok()
    {
        request.add("Digest-Opaque", opaque.clone());
    }
    request.add("Digest-Response", credentials.response.clone());
    request.add("Service-Type", module.service.unwrap_or(15));
    if let Some(user) = asked.uri_user {
        for name in ["Sip-Uri-User", "SIP-URI-User"] {
            if aaa.attribute(name).is_ok() {
                request.add(name, user);
                break;
            }
        }
    }
    Ok(request)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Uri,
    User,
}

fn exists(call: &mut Call<AuthAaa>, uri: Option<Text>, asked: Asked) -> Outcome {
    let module = call.module.clone();
    let Some(aaa) = &module.aaa else { return (-2).into() };
    let uri = uri.map_or_else(|| call.state.current_uri(), |u| u.0);
    let Some(who) = Subject::of_uri(&uri) else { return (-1).into() };
    let name = match asked {
        Asked::Uri => Bytes::from([&who.user[..], b"@", &who.domain].concat()),
        Asked::User => who.user,
    };
    let mut request = AaaRequest::new(AaaKind::Auth);
    request.add("User-Name", name);
    request.add("Service-Type", module.check_service.unwrap_or(10));
    aaa.suspend(call.ctx, "aaa_does_uri_exist", request, |ctx, answer| match answer {
        Ok(answer) if answer.accepted => {
            answer.sip_avps(ctx);
            1
        }
        Ok(_) => -1,
        Err(_) => -2,
    })
}
