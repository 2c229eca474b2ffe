//! The words of `do_accounting` as arguments: "db|log", "cdr|missed|failed".

use super::Acc;
use super::account::{Backend, What};
use host::load::Loader;
use host::{Arg, Call, Format, Text};
use script::ast;
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub struct BackendsArg(pub Vec<Backend>);
pub struct WhatArg(pub Vec<What>);

/// Words between `|`; the error names the one that is unknown.
fn words<T>(text: &[u8], parse: fn(&[u8]) -> Option<T>, known: &str) -> Result<Vec<T>, String> {
    let mut list = Vec::new();
    for word in text.split(|b| *b == b'|').map(|w| w.trim_ascii()).filter(|w| !w.is_empty()) {
        let unknown = || format!("`{}` is none of {known}", String::from_utf8_lossy(word));
        list.push(parse(word).ok_or_else(unknown)?);
    }
    Ok(list)
}

const BACKENDS: &str = "log, db, aaa and evi";
const WHATS: &str = "cdr, missed and failed";

fn prepared(
    arg: Option<&ast::Arg>,
    site: Loc,
    loader: &mut Loader,
    module: &Arc<Acc>,
) -> Result<(Format, Loc), Diagnostic> {
    let format = <Text as Arg<Acc>>::prepare(arg, site, loader, module)?;
    Ok((format, arg.map_or(site, |a| a.loc)))
}

fn failed(error: String) -> i32 {
    host::error!("acc", "{error}");
    -1
}

impl Arg<Acc> for BackendsArg {
    type Prepared = Format;
    const WHAT: &'static str = "backends";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Acc>,
    ) -> Result<Format, Diagnostic> {
        let (format, loc) = prepared(arg, site, loader, module)?;
        if let Some(text) = format.constant() {
            let list = words(text, Backend::parse, BACKENDS).map_err(|e| Diagnostic::error(loc, e))?;
            if list.contains(&Backend::Db) && module.db.is_none() {
                return Err(Diagnostic::error(loc, "accounting to a table needs a database")
                    .hint("modparam(\"acc\", \"db_url\", \"mysql://...\")"));
            }
            if list.contains(&Backend::Aaa) && module.aaa.is_none() {
                return Err(Diagnostic::error(loc, "accounting to an AAA server needs its address")
                    .hint("modparam(\"acc\", \"aaa_url\", \"radius:/etc/radiusclient.conf\")"));
            }
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, Acc>) -> Result<BackendsArg, i32> {
        words(&format.text(call.ctx), Backend::parse, BACKENDS).map(BackendsArg).map_err(failed)
    }
}

impl Arg<Acc> for WhatArg {
    type Prepared = Format;
    const WHAT: &'static str = "what to account";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Acc>,
    ) -> Result<Format, Diagnostic> {
        let (format, loc) = prepared(arg, site, loader, module)?;
        if let Some(text) = format.constant() {
            let list = words(text, What::parse, WHATS).map_err(|e| Diagnostic::error(loc, e))?;
            if list.contains(&What::Cdr) && !module.has_dialog {
                return Err(Diagnostic::error(loc, "records of whole calls (\"cdr\") need module dialog")
                    .hint("loadmodule \"dialog.so\""));
            }
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, Acc>) -> Result<WhatArg, i32> {
        words(&format.text(call.ctx), What::parse, WHATS).map(WhatArg).map_err(failed)
    }
}
