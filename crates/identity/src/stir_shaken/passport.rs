//! The Identity header (RFC 8224 §4) and the PASSporT in it (RFC 8225, RFC 8588).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use sip::Params;

/// The only algorithm there is (RFC 8225 §8).
pub const ALG: &str = "ES256";
/// The extension that is spoken here (RFC 8588).
pub const PPT: &str = "shaken";

/// An Identity header in its full form.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The header of the PASSporT, decoded.
    pub header_text: Bytes,
    /// Its payload, decoded.
    pub payload_text: Bytes,
    header: Json,
    payload: Json,
    /// What the signature is over: header and payload as they came.
    pub signed: Bytes,
    pub signature: Vec<u8>,
    /// Parameters of the SIP header.
    pub alg: Option<Bytes>,
    pub ppt: Option<Bytes>,
}

/// What a PASSporT must say (RFC 8588 §4), all of the right types.
#[derive(Debug, PartialEq)]
pub struct Claims<'a> {
    pub orig: &'a str,
    pub dest: &'a str,
    /// Unix seconds.
    pub iat: i64,
}

impl Identity {
    /// The error says what is wrong with the text.
    pub fn parse(value: &Bytes) -> Result<Identity, &'static str> {
        let text = value.slice_ref(value.trim_ascii());
        let semicolon = text.iter().position(|b| *b == b';').ok_or("its parameters are missing")?;
        let token = text.slice_ref(text[..semicolon].trim_ascii());
        let params = Params { text: text.slice(semicolon + 1..) };
        if params.iter().next().is_none() {
            return Err("its parameters are missing");
        }
        let first = token.iter().position(|b| *b == b'.').ok_or("it has no payload")?;
        let second = token.iter().skip(first + 1).position(|b| *b == b'.').ok_or("it has no signature")?;
        let second = first + 1 + second;
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| "it is not base64url");
        let header_text = Bytes::from(decoded(&token[..first])?);
        let payload_text = Bytes::from(decoded(&token[first + 1..second])?);
        let object = |text: &Bytes| serde_json::from_slice::<Json>(text).ok().filter(Json::is_object);
        let signature = decoded(&token[second + 1..])?;
        if signature.is_empty() {
            return Err("its signature is empty");
        }
        Ok(Identity {
            header: object(&header_text).ok_or("the header of its PASSporT is no JSON object")?,
            payload: object(&payload_text).ok_or("the payload of its PASSporT is no JSON object")?,
            header_text,
            payload_text,
            signed: token.slice(..second),
            signature,
            alg: params.value(b"alg"),
            ppt: params.value(b"ppt"),
        })
    }

    /// Of our extension.
    pub fn is_shaken(&self) -> bool {
        self.ppt.as_deref() == Some(PPT.as_bytes())
    }

    /// The `alg` parameter names another algorithm.
    pub fn is_of_other_algorithm(&self) -> bool {
        self.alg.as_deref().is_some_and(|alg| alg != ALG.as_bytes())
    }

    pub fn x5u(&self) -> Option<&str> {
        self.header["x5u"].as_str()
    }

    pub fn attest(&self) -> Option<&str> {
        self.payload["attest"].as_str()
    }

    pub fn origid(&self) -> Option<&str> {
        self.payload["origid"].as_str()
    }

    pub fn orig(&self) -> Option<&str> {
        self.payload["orig"]["tn"].as_str()
    }

    /// The first number that was called.
    pub fn dest(&self) -> Option<&str> {
        self.payload["dest"]["tn"].get(0)?.as_str()
    }

    /// Unix seconds.
    pub fn iat(&self) -> Option<i64> {
        self.payload["iat"].as_i64().or_else(|| self.payload["iat"].as_f64().map(|n| n as i64))
    }

    /// The error names the claim that is missing or of another type.
    pub fn claims(&self) -> Result<Claims<'_>, &'static str> {
        let is = |claim: &str, value: &str| self.header[claim].as_str() == Some(value);
        let there = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        for (fits, claim) in [
            (is("alg", ALG), "alg"),
            (is("ppt", PPT), "ppt"),
            (is("typ", "passport"), "typ"),
            (there(self.x5u()), "x5u"),
            (there(self.attest()), "attest"),
            (there(self.origid()), "origid"),
        ] {
            if !fits {
                return Err(claim);
            }
        }
        Ok(Claims {
            dest: self.dest().filter(|tn| !tn.is_empty()).ok_or("dest")?,
            iat: self.iat().ok_or("iat")?,
            orig: self.orig().filter(|tn| !tn.is_empty()).ok_or("orig")?,
        })
    }
}

/// What is signed: a PASSporT with its claims in the order of RFC 8225 §9, without blanks.
pub struct New<'a> {
    pub attest: &'a str,
    pub orig: &'a str,
    pub dest: &'a str,
    /// Unix seconds.
    pub iat: i64,
    pub origid: &'a str,
    pub x5u: &'a str,
}

impl New<'_> {
    /// `base64url(header).base64url(payload)`
    pub fn unsigned(&self) -> String {
        let header = json!({"alg": ALG, "ppt": PPT, "typ": "passport", "x5u": self.x5u});
        let payload = json!({
            "attest": self.attest,
            "dest": {"tn": [self.dest]},
            "iat": self.iat,
            "orig": {"tn": self.orig},
            "origid": self.origid,
        });
        let encoded = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}", encoded(header), encoded(payload))
    }

    /// The header line, with its line end.
    pub fn line(&self, unsigned: &str, signature: &[u8]) -> String {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("Identity: {unsigned}.{signature};info=<{}>;alg={ALG};ppt={PPT}\r\n", self.x5u)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_identity() {
        let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let (header, payload) = (b64("{\"x5u\":\"u\"}"), b64("{\"iat\":1}"));
        for (text, why) in [
            (String::new(), "its parameters are missing"),
            ("a.b.c".into(), "its parameters are missing"),
            ("a.b.c;".into(), "its parameters are missing"),
            ("a;ppt=shaken".into(), "it has no payload"),
            ("a.b;ppt=shaken".into(), "it has no signature"),
            ("%.b.c;ppt=shaken".into(), "it is not base64url"),
            (format!("{header}.{payload}.;ppt=shaken"), "its signature is empty"),
            (
                format!("{}.{payload}.aaaa;ppt=shaken", b64("[]")),
                "the header of its PASSporT is no JSON object",
            ),
            (
                format!("{header}.{}.aaaa;ppt=shaken", b64("{")),
                "the payload of its PASSporT is no JSON object",
            ),
        ] {
            assert_eq!(Identity::parse(&text.clone().into()).unwrap_err(), why, "{text}");
        }
        let text = format!("  {header}.{payload}.aaaa;info=<https://a;b>;alg=ES256;ppt=\"shaken\"");
        let identity = Identity::parse(&text.into()).unwrap();
        assert!(identity.is_shaken() && !identity.is_of_other_algorithm());
        assert_eq!((identity.x5u(), identity.iat(), identity.orig()), (Some("u"), Some(1), None));
        assert_eq!(identity.claims().unwrap_err(), "alg");
    }

    #[test]
    fn claims_that_are_missing_are_named() {
        let base = New { attest: "A", orig: "12", dest: "34", iat: 5, origid: "o", x5u: "https://x" };
        let line = base.line(&base.unsigned(), &[0; 64]);
        let value = Bytes::from(line.strip_prefix("Identity: ").unwrap().to_owned());
        let good = Identity::parse(&value).unwrap();
        assert_eq!(good.claims(), Ok(Claims { orig: "12", dest: "34", iat: 5 }));
        assert_eq!(good.header_text, r#"{"alg":"ES256","ppt":"shaken","typ":"passport","x5u":"https://x"}"#);
        assert_eq!(
            good.payload_text,
            r#"{"attest":"A","dest":{"tn":["34"]},"iat":5,"orig":{"tn":"12"},"origid":"o"}"#
        );
        for claim in ["attest", "dest", "iat", "orig", "origid"] {
            let mut bad = good.clone();
            bad.payload.as_object_mut().unwrap().remove(claim);
            assert_eq!(bad.claims(), Err(claim));
            bad.payload[claim] = json!([1]);
            assert_eq!(bad.claims(), Err(claim));
        }
        for claim in ["alg", "ppt", "typ", "x5u"] {
            let mut bad = good.clone();
            bad.header[claim] = json!("");
            assert_eq!(bad.claims(), Err(claim));
        }
    }
}
