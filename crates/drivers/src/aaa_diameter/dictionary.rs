//! What attributes are called: those of the base protocol (RFC 6733 §4.5), and those of a file in the form of the
//! reference. Attributes as JSON: a list of objects with one name each.

use super::wire::{Avp, printed, read};
use ahash::AHashMap;
use serde_json::{Value as Json, json};

/// How deep groups may be nested.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AvpKind {
    Text,
    /// Bytes that JSON shows in hexadecimal.
    Hex,
    Signed32,
    Signed64,
    Unsigned32,
    Unsigned64,
    Float32,
    Float64,
    Group,
}

impl AvpKind {
    fn named(word: &str) -> Option<AvpKind> {
        Some(match word.to_ascii_lowercase().as_str() {
            "string" | "utf8string" | "octetstring" | "identity" | "diameteridentity" | "uri"
            | "diameteruri" | "ipfilterrule" | "filterrule" => AvpKind::Text,
            "hexstring" | "address" => AvpKind::Hex,
            "integer" | "integer32" | "enumerated" => AvpKind::Signed32,
            "integer64" => AvpKind::Signed64,
            "unsigned32" | "time" => AvpKind::Unsigned32,
            "unsigned64" => AvpKind::Unsigned64,
            "float32" => AvpKind::Float32,
            "float64" => AvpKind::Float64,
            "grouped" => AvpKind::Group,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    code: u32,
    vendor: u32,
    kind: AvpKind,
}

/// RFC 6733 §4.5 and §9, and what RFC 4006 has beside it most often.
const BASE: &[(&str, u32, AvpKind)] = &[
    ("User-Name", 1, AvpKind::Text),
    ("Class", 25, AvpKind::Text),
    ("Session-Timeout", 27, AvpKind::Unsigned32),
    ("Proxy-State", 33, AvpKind::Text),
    ("Acct-Session-Id", 44, AvpKind::Text),
    ("Acct-Multi-Session-Id", 50, AvpKind::Text),
    ("Event-Timestamp", 55, AvpKind::Unsigned32),
    ("Acct-Interim-Interval", 85, AvpKind::Unsigned32),
    ("Host-IP-Address", 257, AvpKind::Hex),
    ("Auth-Application-Id", 258, AvpKind::Unsigned32),
    ("Acct-Application-Id", 259, AvpKind::Unsigned32),
    ("Vendor-Specific-Application-Id", 260, AvpKind::Group),
    ("Redirect-Host-Usage", 261, AvpKind::Signed32),
    ("Redirect-Max-Cache-Time", 262, AvpKind::Unsigned32),
    ("Session-Id", 263, AvpKind::Text),
    ("Origin-Host", 264, AvpKind::Text),
    ("Supported-Vendor-Id", 265, AvpKind::Unsigned32),
    ("Vendor-Id", 266, AvpKind::Unsigned32),
    ("Firmware-Revision", 267, AvpKind::Unsigned32),
    ("Result-Code", 268, AvpKind::Unsigned32),
    ("Product-Name", 269, AvpKind::Text),
    ("Session-Binding", 270, AvpKind::Unsigned32),
    ("Session-Server-Failover", 271, AvpKind::Signed32),
    ("Multi-Round-Time-Out", 272, AvpKind::Unsigned32),
    ("Disconnect-Cause", 273, AvpKind::Signed32),
    ("Auth-Request-Type", 274, AvpKind::Signed32),
    ("Auth-Grace-Period", 276, AvpKind::Unsigned32),
    ("Auth-Session-State", 277, AvpKind::Signed32),
    ("Origin-State-Id", 278, AvpKind::Unsigned32),
    ("Failed-AVP", 279, AvpKind::Group),
    ("Proxy-Host", 280, AvpKind::Text),
    ("Error-Message", 281, AvpKind::Text),
    ("Route-Record", 282, AvpKind::Text),
    ("Destination-Realm", 283, AvpKind::Text),
    ("Proxy-Info", 284, AvpKind::Group),
    ("Re-Auth-Request-Type", 285, AvpKind::Signed32),
    ("Accounting-Sub-Session-Id", 287, AvpKind::Unsigned64),
    ("Authorization-Lifetime", 291, AvpKind::Unsigned32),
    ("Redirect-Host", 292, AvpKind::Text),
    ("Destination-Host", 293, AvpKind::Text),
    ("Error-Reporting-Host", 294, AvpKind::Text),
    ("Termination-Cause", 295, AvpKind::Signed32),
    ("Origin-Realm", 296, AvpKind::Text),
    ("Experimental-Result", 297, AvpKind::Group),
    ("Experimental-Result-Code", 298, AvpKind::Unsigned32),
    ("Inband-Security-Id", 299, AvpKind::Unsigned32),
    ("CC-Request-Number", 415, AvpKind::Unsigned32),
    ("CC-Request-Type", 416, AvpKind::Signed32),
    ("Accounting-Record-Type", 480, AvpKind::Signed32),
    ("Accounting-Realtime-Required", 483, AvpKind::Signed32),
    ("Accounting-Record-Number", 485, AvpKind::Unsigned32),
];

/// An application that requests may be of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Application {
    pub id: u32,
    /// 0: of nobody in particular.
    pub vendor: u32,
    pub accounting: bool,
}

#[derive(Clone, Debug)]
pub struct Dictionary {
    by_name: AHashMap<String, usize>,
    by_code: AHashMap<(u32, u32), usize>,
    entries: Vec<Entry>,
    pub applications: Vec<Application>,
    /// Requests that the file describes.
    commands: Vec<u32>,
}

impl Default for Dictionary {
    fn default() -> Dictionary {
        let mut dictionary = Dictionary {
            by_name: AHashMap::new(),
            by_code: AHashMap::new(),
            entries: Vec::new(),
            applications: Vec::new(),
            commands: Vec::new(),
        };
        for (name, code, kind) in BASE {
            dictionary.add(Entry { name: (*name).into(), code: *code, vendor: 0, kind: *kind });
        }
        dictionary
    }
}

impl Dictionary {
    fn add(&mut self, entry: Entry) {
        let at = self.entries.len();
        self.by_name.insert(entry.name.clone(), at);
        self.by_code.insert((entry.code, entry.vendor), at);
        self.entries.push(entry);
    }

    /// The file describes this request.
    pub fn has_command(&self, code: u32) -> bool {
        self.commands.contains(&code)
    }

    /// Reads a file of attributes, applications and commands. What a group or command is made of is not checked: the
    /// peer does that. The error names the line.
    pub fn parse(&mut self, text: &str) -> Result<(), String> {
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            let wrong = |what: &str| Err(format!("line {}: {what}", number + 1));
            if inside || words.is_empty() || line.starts_with('{') {
                inside = (inside || line.starts_with('{')) && !line.contains('}');
                continue;
            }
            match words[0].to_ascii_uppercase().as_str() {
                "VENDOR" => {}
                "ATTRIBUTE" => {
                    let [_, name, code, kind, rest @ ..] = &words[..] else {
                        return wrong("written as ATTRIBUTE name code type [vendor]");
                    };
                    let vendor =
                        rest.first().filter(|word| !word.starts_with('{')).map_or(Ok(0), |v| v.parse());
                    let (Ok(code), Ok(vendor)) = (code.parse(), vendor) else {
                        return wrong("code and vendor of an attribute are numbers");
                    };
                    let Some(kind) = AvpKind::named(kind) else {
                        return wrong(&format!("{kind} is no type of attributes"));
                    };
                    self.add(Entry { name: (*name).into(), code, vendor, kind });
                }
                word @ ("APPLICATION" | "APPLICATION-AUTH" | "APPLICATION-ACCT") => {
                    let id = words.get(1).copied().unwrap_or_default();
                    let (id, vendor) = id.split_once('/').unwrap_or((id, "0"));
                    let (Ok(id), Ok(vendor)) = (id.parse(), vendor.parse()) else {
                        return wrong("written as APPLICATION number[/vendor] name");
                    };
                    let accounting = word == "APPLICATION-ACCT";
                    self.applications.push(Application { id, vendor, accounting });
                }
                "REQUEST" => match words.get(1).map(|code| code.parse()) {
                    Some(Ok(code)) => self.commands.push(code),
                    _ => return wrong("written as REQUEST code name"),
                },
                "ANSWER" => {}
                other => return wrong(&format!("{other} is not known here")),
            }
            inside = line.contains('{') && !line.contains('}');
        }
        Ok(())
    }

    /// Attributes that JSON lists. The error says which one does not fit.
    pub fn avps(&self, list: &Json) -> Result<Vec<Avp>, String> {
        self.avps_at(list, 0)
    }

    fn avps_at(&self, list: &Json, depth: usize) -> Result<Vec<Avp>, String> {
        let list = list.as_array().filter(|_| depth < MAX_DEPTH).ok_or("attributes are a list of JSON")?;
        let mut avps = Vec::with_capacity(list.len());
        for item in list {
            let object =
                item.as_object().ok_or("each attribute is an object of JSON, its name and its value")?;
            for (name, value) in object {
                let at = self
                    .by_name
                    .get(name)
                    .ok_or_else(|| format!("the dictionary has no attribute {name}"))?;
                let entry = &self.entries[*at];
                let data = self.data(entry, value, depth).map_err(|why| format!("{name}: {why}"))?;
                avps.push(Avp { code: entry.code, vendor: entry.vendor, data });
            }
        }
        Ok(avps)
    }

    fn data(&self, entry: &Entry, value: &Json, depth: usize) -> Result<Vec<u8>, String> {
        let number = || value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let unsigned = || value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let float = || value.as_f64().or_else(|| value.as_str()?.parse().ok());
        let wrong = || format!("{value} is not what it takes ({:?})", entry.kind);
        let data = match entry.kind {
            AvpKind::Text => match value {
                Json::String(text) => Some(text.clone().into_bytes()),
                Json::Number(number) => Some(number.to_string().into_bytes()),
                _ => None,
            },
            AvpKind::Hex => value.as_str().and_then(|text| hex::decode(text).ok()),
            AvpKind::Signed32 => {
                number().and_then(|n| i32::try_from(n).ok()).map(|n| n.to_be_bytes().to_vec())
            }
            AvpKind::Signed64 => number().map(|n| n.to_be_bytes().to_vec()),
            AvpKind::Unsigned32 => {
                unsigned().and_then(|n| u32::try_from(n).ok()).map(|n| n.to_be_bytes().to_vec())
            }
            AvpKind::Unsigned64 => unsigned().map(|n| n.to_be_bytes().to_vec()),
            AvpKind::Float32 => float().map(|n| (n as f32).to_be_bytes().to_vec()),
            AvpKind::Float64 => float().map(|n| n.to_be_bytes().to_vec()),
            AvpKind::Group => return self.avps_at(value, depth + 1).map(|avps| printed(&avps)),
        };
        data.ok_or_else(wrong)
    }

    /// Attributes as a list of JSON. Those that the dictionary does not know, or that are not of their type, are left out.
    pub fn json(&self, avps: &[Avp]) -> Json {
        self.json_at(avps, 0)
    }

    fn json_at(&self, avps: &[Avp], depth: usize) -> Json {
        let shown = |avp: &Avp| -> Option<Json> {
            let entry = &self.entries[*self.by_code.get(&(avp.code, avp.vendor))?];
            let data = &avp.data[..];
            let value = match entry.kind {
                AvpKind::Text => String::from_utf8_lossy(data).into_owned().into(),
                AvpKind::Hex => hex::encode(data).into(),
                AvpKind::Signed32 => i32::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Signed64 => i64::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Unsigned32 => u32::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Unsigned64 => u64::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Float32 => f32::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Float64 => f64::from_be_bytes(data.try_into().ok()?).into(),
                AvpKind::Group if depth < MAX_DEPTH => self.json_at(&read(data)?, depth + 1),
                AvpKind::Group => return None,
            };
            let name = &entry.name;
            Some(json!({ name: value }))
        };
        avps.iter().filter_map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment
        VENDOR 10415 TGPP
        ATTRIBUTE out_gw 232 string
        ATTRIBUTE Key 626 hexstring 10415
        ATTRIBUTE Digits 447 integer64
        ATTRIBUTE Cost 424 grouped
        {
            Digits | REQUIRED | 1
        }
        APPLICATION-AUTH 16777216/10415 3GPP Cx
        APPLICATION 42 My Application
        REQUEST 92001 My-Request { out_gw | REQUIRED | 1 }
        ANSWER 92001 My-Answer
        {
            Result-Code | REQUIRED | 1
        }";

    #[test]
    fn there_and_back() {
        let mut dictionary = Dictionary::default();
        dictionary.parse(FILE).unwrap();
        let cx = Application { id: 16_777_216, vendor: 10415, accounting: false };
        assert_eq!(dictionary.applications, [cx, Application { id: 42, vendor: 0, accounting: false }]);
        assert!(dictionary.has_command(92001) && !dictionary.has_command(303));
        let list = json!([{"Session-Id": "a;b"}, {"out_gw": "GW"}, {"Key": "00ff"}, {"Result-Code": 2001},
            {"Cost": [{"Digits": -5}]}]);
        let avps = dictionary.avps(&list).unwrap();
        assert_eq!(avps[2], Avp { code: 626, vendor: 10415, data: vec![0, 255] });
        assert_eq!(dictionary.json(&avps), list);
        assert_eq!(dictionary.json(&[Avp::new(99_999, "x"), Avp::new(268, "short")]), json!([]));
    }

    #[test]
    fn what_does_not_fit() {
        let dictionary = Dictionary::default();
        for (list, why) in [
            (json!({}), "a list of JSON"),
            (json!(["x"]), "an object of JSON"),
            (json!([{"Nobody": 1}]), "no attribute Nobody"),
            (json!([{"Result-Code": -1}]), "Result-Code: -1 is not"),
            (json!([{"Failed-AVP": [{"Nobody": 1}]}]), "Failed-AVP: the dictionary"),
        ] {
            assert!(dictionary.avps(&list).unwrap_err().contains(why), "{list}");
        }
        for text in ["ATTRIBUTE a", "ATTRIBUTE a x string", "ATTRIBUTE a 1 thing", "APPLICATION x", "WHAT 1"]
        {
            assert!(Dictionary::default().parse(text).unwrap_err().starts_with("line 1:"), "{text}");
        }
    }
}
