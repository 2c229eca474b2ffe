//! Columns and filters as the structured functions take them.

use host::db::{Cond, DbValue, Name, Op};
use serde_json::Value as Json;

fn parse(text: &[u8]) -> Result<Vec<Json>, String> {
    match serde_json::from_slice(text) {
        Ok(Json::Array(list)) => Ok(list),
        Ok(_) => Err(format!("this is no JSON array: {}", String::from_utf8_lossy(text))),
        Err(error) => Err(format!("{error}: {}", String::from_utf8_lossy(text))),
    }
}

/// `["a", "b"]`; nothing is all columns.
pub fn columns(text: Option<&bytes::Bytes>) -> Result<Vec<Name>, String> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Vec::new()) };
    let name = |json: Json| match json {
        Json::String(name) => Ok(Name::from(name)),
        other => Err(format!("a column is a string, not {other}")),
    };
    parse(text)?.into_iter().map(name).collect()
}

fn value(json: Json) -> Result<DbValue, String> {
    Ok(match json {
        Json::Null => DbValue::Null,
        Json::Bool(b) => DbValue::Int(i64::from(b)),
        Json::String(text) => DbValue::from(text),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => DbValue::Int(n),
            (None, Some(x)) => DbValue::Real(x),
            (None, None) => return Err(format!("{n} is out of range")),
        },
        other => return Err(format!("a value is a string, a number or null, not {other}")),
    })
}

/// The fields of `[{"a": 1}, {"b": 2}]`, in order.
fn fields(text: &[u8]) -> Result<Vec<(Name, Json)>, String> {
    let mut all = Vec::new();
    for item in parse(text)? {
        let Json::Object(object) = item else {
            return Err(format!("{{\"column\": value}} is wanted, not {item}"));
        };
        all.extend(object.into_iter().map(|(column, json)| (Name::from(column), json)));
    }
    Ok(all)
}

/// `[{"column": value}, ...]`
pub fn values(text: &[u8]) -> Result<Vec<(Name, DbValue)>, String> {
    let all = fields(text)?.into_iter().map(|(column, json)| Ok((column, value(json)?)));
    let all: Vec<_> = all.collect::<Result<_, String>>()?;
    if all.is_empty() { Err("no columns are given".to_string()) } else { Ok(all) }
}

/// `[{"column": value}, {"column": {"operator": value}}, ...]`; nothing is all rows.
pub fn filter(text: Option<&bytes::Bytes>) -> Result<Vec<Cond>, String> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (column, json) in fields(text)? {
        match json {
            Json::Object(tests) => {
                for (op, json) in tests {
                    all.push(Cond { column: column.clone(), op: operator(op)?, value: value(json)? });
                }
            }
            json => all.push(Cond { column, op: Op::Eq, value: value(json)? }),
        }
    }
    Ok(all)
}

/// Operators stand in the statement as they are, so only words and signs may.
fn operator(text: String) -> Result<Op, String> {
    Ok(match text.trim() {
        "=" => Op::Eq,
        "!=" | "<>" => Op::Ne,
        "<" => Op::Lt,
        "<=" => Op::Le,
        ">" => Op::Gt,
        ">=" => Op::Ge,
        other
            if !other.is_empty()
                && other.bytes().all(|b| b.is_ascii_alphabetic() || b" ~*!=<>^&|#@".contains(&b)) =>
        {
            Op::Other(Name::from(other.to_string()))
        }
        other => return Err(format!("`{other}` is no operator")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, expected: Result<&[(&'static str, Op, DbValue)], ()>) {
        let found = filter(Some(&bytes::Bytes::from_static(text.as_bytes())));
        let Ok(expected) = expected else {
            assert!(found.is_err(), "{text}");
            return;
        };
        let found: Vec<_> =
            found.expect(text).into_iter().map(|c| (c.column.to_string(), c.op, c.value)).collect();
        let expected: Vec<_> =
            expected.iter().map(|(c, o, v)| (c.to_string(), o.clone(), v.clone())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn filters() {
        check(
            r#"[{"username": "a'b"}, {"domain": {"!=": null}}]"#,
            Ok(&[("username", Op::Eq, "a'b".into()), ("domain", Op::Ne, DbValue::Null)]),
        );
        check(
            r#"[{"n": {">": 5}}, {"name": {"like": "x%"}}]"#,
            Ok(&[("n", Op::Gt, 5.into()), ("name", Op::Other("like".into()), "x%".into())]),
        );
        check("[]", Ok(&[]));
        check("", Ok(&[]));
        for bad in ["{}", "[1]", "[{\"a\": [1]}]", r#"[{"a": {"= 1; drop table t": 1}}]"#, "[{\"a\":"] {
            check(bad, Err(()));
        }
    }

    #[test]
    fn lists_of_columns_and_values() {
        let names = columns(Some(&bytes::Bytes::from_static(b"[\"a\",\"count(*)\"]"))).expect("names");
        assert_eq!(names, [Name::from("a"), Name::from("count(*)")]);
        assert!(columns(None).expect("all").is_empty());
        let pairs = values(br#"[{"a": "x"}, {"b": 2.5, "c": null}]"#).expect("values");
        let expected =
            [("a".into(), "x".into()), ("b".into(), DbValue::Real(2.5)), ("c".into(), DbValue::Null)];
        assert_eq!(pairs, expected);
        assert!(values(b"[]").is_err());
    }
}
