//! Sets: which attributes come from which variables, or go into which.

use super::Radius;
use super::dictionary::Dictionary;
use bytes::Bytes;
use host::aaa::{AaaAnswer, AaaKind, AaaRequest};
use host::load::Loader;
use host::{Arg, Call, Ctx, Format, Var};
use script::ast::{self, AssignOp};
use script::{Diagnostic, Loc};
use std::sync::Arc;

/// As the parameter `sets` has it: a name and pairs of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub name: String,
    pub pairs: Vec<(String, Bytes)>,
}

impl Written {
    /// `name = ( Attribute = $variable, ... )`
    pub fn parse(text: &str) -> Result<Written, String> {
        let bad = |why: &str| format!("sets: `{text}`: {why}");
        let (name, rest) = text.split_once('=').ok_or_else(|| bad("there is no `=`"))?;
        let inside = rest.trim().strip_prefix('(').and_then(|r| r.strip_suffix(')'));
        let inside = inside.ok_or_else(|| bad("the attributes stand in parentheses"))?;
        let mut pairs = Vec::new();
        let mut rest = Bytes::copy_from_slice(inside.as_bytes());
        loop {
            rest = rest.slice_ref(rest.trim_ascii_start());
            if rest.is_empty() {
                break;
            }
            let equals =
                rest.iter().position(|b| *b == b'=').ok_or_else(|| bad("an attribute has no variable"))?;
            let attribute = String::from_utf8_lossy(rest[..equals].trim_ascii()).into_owned();
            rest = rest.slice_ref(rest[equals + 1..].trim_ascii_start());
            let (_, length) = script::parse_leading_variable(&rest, Loc::default())
                .map_err(|e| bad(&format!("{attribute}: {}", e.message)))?;
            pairs.push((attribute, rest.slice(..length)));
            rest = rest.slice_ref(rest[length..].trim_ascii_start());
            match rest.first() {
                None => break,
                Some(b',') => rest = rest.slice(1..),
                Some(_) => return Err(bad("attributes are separated by commas")),
            }
        }
        if name.trim().is_empty() {
            return Err(bad("it has no name"));
        }
        Ok(Written { name: name.trim().to_string(), pairs })
    }
}

/// A set whose variables are prepared.
pub struct Set {
    name: String,
    pairs: Vec<(Arc<str>, Var)>,
}

impl Set {
    fn new(
        written: &Written,
        dictionary: &Dictionary,
        loc: Loc,
        loader: &mut Loader,
    ) -> Result<Set, Diagnostic> {
        let mut pairs = Vec::with_capacity(written.pairs.len());
        for (attribute, variable) in &written.pairs {
            let Some(found) = dictionary.attribute(attribute) else {
                let text = format!("set {}: the dictionary has no attribute {attribute}", written.name);
                return Err(Diagnostic::error(loc, text));
            };
            let spec = script::parse_variable(variable, loc)?;
            pairs.push((found.name.clone(), loader.var(&spec)?));
        }
        Ok(Set { name: written.name.clone(), pairs })
    }

    /// The request that the variables make now.
    pub fn request(&self, ctx: &mut Ctx, kind: AaaKind) -> AaaRequest {
        let mut request = AaaRequest::new(kind);
        for (attribute, var) in &self.pairs {
            request.add(attribute.clone(), var.get(ctx));
        }
        request
    }

    /// Writes the attributes of an answer; only their first values unless `all`.
    pub fn write(&self, ctx: &mut Ctx, answer: &AaaAnswer, all: bool) {
        for (attribute, var) in &self.pairs {
            let count = if all { usize::MAX } else { 1 };
            for value in answer.values(attribute).take(count) {
                if !var.set(ctx, AssignOp::Set, value.clone()) {
                    host::error!("aaa_radius", "{attribute} does not go into {var:?}");
                }
            }
        }
    }
}

/// A set by its name.
#[derive(Clone)]
pub struct SetArg(pub Arc<Set>);

pub struct PreparedSet {
    sets: Vec<Arc<Set>>,
    name: Format,
}

impl Arg<Radius> for SetArg {
    type Prepared = PreparedSet;
    const WHAT: &'static str = "the name of a set";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Radius>,
    ) -> Result<PreparedSet, Diagnostic> {
        let arg =
            arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: the name of a set"))?;
        let Some(client) = &module.client else {
            return Err(Diagnostic::error(site, "this function needs the servers").hint(
                "modparam(\"aaa_radius\", \"radius_config\", \"/etc/radiusclient/radiusclient.conf\")",
            ));
        };
        let name = host::arg::format_of(arg, loader)?;
        let sets =
            module.sets.iter().map(|set| Set::new(set, client.dictionary(), arg.loc, loader).map(Arc::new));
        let sets: Vec<Arc<Set>> = sets.collect::<Result<_, _>>()?;
        if let Some(name) = name.constant().map(|name| String::from_utf8_lossy(name).into_owned())
            && !sets.iter().any(|set| set.name == name)
        {
            let error = Diagnostic::error(arg.loc, format!("there is no set {name}"));
            return Err(match script::nearest(&name, sets.iter().map(|set| &*set.name)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => {
                    error.hint(format!("modparam(\"aaa_radius\", \"sets\", \"{name} = (User-Name = $fU)\")"))
                }
            });
        }
        Ok(PreparedSet { sets, name })
    }

    fn eval(prepared: &PreparedSet, call: &mut Call<'_, Radius>) -> Result<SetArg, i32> {
        let name = prepared.name.text(call.ctx);
        let found = prepared.sets.iter().find(|set| set.name.as_bytes() == &name[..]);
        found.cloned().map(SetArg).ok_or_else(|| {
            host::error!("aaa_radius", "there is no set {}", String::from_utf8_lossy(&name));
            -1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_as_the_manual_writes_them() {
        let parse = |text| Written::parse(text).map(|set| (set.name, set.pairs));
        let pair = |a: &str, v: &'static str| (a.to_string(), Bytes::from_static(v.as_bytes()));
        assert_eq!(
            parse(
                "set4  =  (  Sip-User-ID  =   $avp(10)\n\t,   Sip-From-Tag=$si,Sip-To-Tag=$(hdr(X)[1]{s.len})      )      "
            ),
            Ok((
                "set4".to_string(),
                vec![
                    pair("Sip-User-ID", "$avp(10)"),
                    pair("Sip-From-Tag", "$si"),
                    pair("Sip-To-Tag", "$(hdr(X)[1]{s.len})")
                ]
            ))
        );
        for (text, says) in [
            ("set1", "no `=`"),
            ("set1 = User-Name = $var(x)", "parentheses"),
            ("set1 = (User-Name)", "no variable"),
            ("set1 = (User-Name = x)", "User-Name"),
            ("set1 = (A = $si B = $si)", "commas"),
        ] {
            assert!(parse(text).is_err_and(|e| e.contains(says)), "{text}");
        }
    }
}
