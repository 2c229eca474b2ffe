//! mmgeoip: where an IP address is, from a database of MaxMind (GeoLite2 City, GeoIP2 City).

use host::arg::AnyVar;
use host::load::LoadError;
use host::var::VarKind;
use host::{Call, Registrar, Routes, Text, Value};
use maxminddb::Reader;
use serde_json::Value as Json;
use std::net::IpAddr;

#[derive(Default)]
pub struct Mmgeoip {
    path: Option<String>,
    database: Option<Reader<Vec<u8>>>,
}

/// Steps of a path into a record.
const MAX_DEPTH: usize = 32;

pub fn register(m: &mut Registrar<Mmgeoip>) {
    m.param_text("mmgeoip_city_db_path", |s, v| Ok(s.path = Some(v.into())));
    m.ignored(&["cache_type"], "the database is read into memory when the server starts");
    m.init_with_files(|s, _| {
        let path = s.path.as_deref().ok_or("mmgeoip_city_db_path is not set")?;
        let bytes = std::fs::read(path).map_err(|error| LoadError::of_file(path, &error))?;
        let database = Reader::from_source(bytes).map_err(|error| {
            format!("{path}: {error} (databases of GeoIP 1, *.dat, are no longer made: get a *.mmdb)")
        })?;
        Ok(s.database = Some(database))
    });
    m.function("mmg_lookup", Routes::ALL, |call: &mut Call<Mmgeoip>, ip: Text, out: AnyVar| {
        lookup(call, "country.iso_code", &ip, &out)
    });
    m.function(
        "mmg_lookup",
        Routes::ALL,
        |call: &mut Call<Mmgeoip>, fields: Option<Text>, ip: Text, out: AnyVar| {
            let fields = fields.map_or_else(|| "country.iso_code".to_owned(), |f| f.str().into_owned());
            lookup(call, &fields, &ip, &out)
        },
    );
}

/// The names that were used before there were paths.
const SHORT: [(&str, &str); 10] = [
    ("cc", "country.iso_code"),
    ("city", "city.names.en"),
    ("cont", "continent.names.en"),
    ("dma", "location.metro_code"),
    ("lat", "location.latitude"),
    ("lon", "location.longitude"),
    ("pc", "postal.code"),
    ("reg", "subdivisions.0.iso_code"),
    ("rn", "subdivisions.0.names.en"),
    ("tz", "location.time_zone"),
];

/// mmg_lookup([fields], ip, avp): each value goes before those that the AVP has.
fn lookup(call: &mut Call<Mmgeoip>, fields: &str, ip: &Text, out: &AnyVar) -> i32 {
    let VarKind::Avp(name) = out.0.kind else {
        host::complain!(call.ctx, "mmgeoip", "mmg_lookup writes to an AVP only");
        return -1;
    };
    let address = ip.str();
    let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() else {
        host::complain!(call.ctx, "mmgeoip", "`{address}` is no IP address");
        return -1;
    };
    let Some(record) = call.module.record(address) else { return -1 };
    for field in fields.split([':', '|', ',', '/', ' ']).filter(|field| !field.is_empty()) {
        let path = SHORT.iter().find(|(short, _)| *short == field).map_or(field, |(_, path)| path);
        let Some(value) = value_of(&record, path) else {
            host::complain!(call.ctx, "mmgeoip", "{address} has no {field}");
            return -1;
        };
        call.ctx.state.avps.borrow_mut().add(name, Value::from(value));
    }
    1
}

impl Mmgeoip {
    fn record(&self, address: IpAddr) -> Option<Json> {
        self.database.as_ref()?.lookup(address).ok()?.decode().ok()?
    }
}

fn value_of(record: &Json, path: &str) -> Option<String> {
    let mut found = record;
    for (depth, step) in path.split('.').enumerate() {
        found = match found {
            _ if depth >= MAX_DEPTH => return None,
            Json::Array(list) => list.get(step.parse::<usize>().ok()?)?,
            other => other.get(step)?,
        };
    }
    match found {
        Json::String(text) => Some(text.clone()),
        Json::Bool(yes) => Some(yes.to_string()),
        Json::Number(n) if n.is_f64() => Some(format!("{:.6}", n.as_f64()?)),
        Json::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, refused, run};
    use script::ast::Dialect;

    /// A value as a MaxMind DB has it: a type in three bits, a length in five, what follows.
    fn head(kind: u8, length: usize) -> Vec<u8> {
        match kind {
            1..8 => vec![kind << 5 | length as u8],
            _ => vec![length as u8, kind - 7],
        }
    }
    fn text(text: &str) -> Vec<u8> {
        [head(2, text.len()), text.into()].concat()
    }
    fn double(n: f64) -> Vec<u8> {
        [head(3, 8), n.to_be_bytes().into()].concat()
    }
    fn number(kind: u8, n: u64, bytes: usize) -> Vec<u8> {
        [head(kind, bytes), n.to_be_bytes()[8 - bytes..].into()].concat()
    }
    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let inside = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
        head(7, entries.len()).into_iter().chain(inside).collect()
    }
    fn list(items: &[Vec<u8>]) -> Vec<u8> {
        [head(11, items.len()), items.concat()].concat()
    }

    /// Addresses whose first bit is 0 are in Romania, others nowhere.
    fn database() -> Vec<u8> {
        let record = map(&[
            ("country", map(&[("iso_code", text("RO")), ("is_in_european_union", head(14, 1))])),
            ("location", map(&[("latitude", double(44.4167)), ("metro_code", number(5, 7, 2))])),
            ("subdivisions", list(&[map(&[("iso_code", text("B"))])])),
        ]);
        // One node: 0 leads to the data, 1 to nothing.
        let tree = [0, 0, 1 + 16, 0, 0, 1];
        let about = map(&[
            ("binary_format_major_version", number(5, 2, 2)),
            ("binary_format_minor_version", number(5, 0, 2)),
            ("build_epoch", number(9, 1, 8)),
            ("database_type", text("Test")),
            ("description", map(&[("en", text("test"))])),
            ("ip_version", number(5, 4, 2)),
            ("languages", list(&[text("en")])),
            ("node_count", number(6, 1, 4)),
            ("record_size", number(5, 24, 2)),
        ]);
        [&tree[..], &[0; 16], &record, b"\xab\xcd\xefMaxMind.com", &about].concat()
    }

    #[test]
    fn addresses_are_found() {
        let folder = Folder::new("mmgeoip");
        let path = folder.0.join("city.mmdb").display().to_string();
        std::fs::write(&path, database()).unwrap();
        let config = format!(
            "loadmodule \"mmgeoip.so\"\nmodparam(\"mmgeoip\", \"mmgeoip_city_db_path\", \"{path}\")\n"
        );
        let body = r#"
            mmg_lookup("cc:lat|dma,reg country.is_in_european_union", "10.0.0.1", $avp(a)); $avp(rc) = $rc;
            mmg_lookup("10.0.0.1", $avp(b)); $avp(rc) = $rc;
            mmg_lookup("cc:city", "10.0.0.1", $avp(c)); $avp(rc) = $rc;
            mmg_lookup("cc", "200.0.0.1", $avp(d)); $avp(rc) = $rc; mmg_lookup("cc", "no address", $avp(d)); $avp(rc) = $rc;
        "#;
        let ran = run(&config, body, Dialect::V4);
        assert_eq!(ran.avps("a"), ["true", "B", "7", "44.416700", "RO"]);
        assert_eq!((ran.avps("b"), ran.avps("c")), (vec!["RO".into()], vec!["RO".into()]));
        assert_eq!(ran.avps("rc"), ["-1", "-1", "-1", "1", "1"]);
        assert!(ran.avps("d").is_empty());
        std::fs::write(&path, "GeoIP 1").unwrap();
        assert!(refused(&config, "exit;", Dialect::V4).contains("get a *.mmdb"));
        assert!(refused("loadmodule \"mmgeoip.so\"", "exit;", Dialect::V4).contains("is not set"));
    }
}
