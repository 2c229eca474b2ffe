//! allow_routing, allow_register, allow_uri: pairs of URIs against files.

use super::Permissions;
use super::files::Rules;
use bytes::Bytes;
use host::load::Loader;
use host::{Arg, Call, Text, Word};
use script::ast;
use script::{Diagnostic, Loc};
use sip::{HeaderName, Uri};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The rules of an allow file and a deny file.
#[derive(Debug)]
pub struct Pair {
    allow: Rules,
    deny: Rules,
}

impl Pair {
    pub fn read(allow: &Path, deny: &Path) -> Arc<Pair> {
        Arc::new(Pair { allow: Rules::read(allow), deny: Rules::read(deny) })
    }

    fn is_off(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Allowed by the first file, else not denied by the second.
    pub fn permits(&self, left: &[u8], right: &[u8]) -> bool {
        self.allow.allow(left, right) || !self.deny.allow(left, right)
    }
}

/// Where a file of a configuration is: relative names stand beside the main file.
pub fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

/// The files of a call: one base name, or (2.1) the allow file and the deny file; none: the default files.
pub struct Files(pub Arc<Pair>);

fn constant(arg: &ast::Arg, loader: &mut Loader, module: &Arc<Permissions>) -> Result<String, Diagnostic> {
    let name = <Word as Arg<Permissions>>::prepare(Some(arg), arg.loc, loader, module)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

impl Arg<Permissions> for Files {
    type Prepared = Arc<Pair>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "the base name of files";

    fn prepare(
        arg: Option<&ast::Arg>,
        _: Loc,
        loader: &mut Loader,
        module: &Arc<Permissions>,
    ) -> Result<Arc<Pair>, Diagnostic> {
        let Some(arg) = arg.filter(|a| !matches!(a.kind, ast::ArgKind::Empty)) else {
            return Ok(module.default_files());
        };
        let base = constant(arg, loader, module)?;
        Ok(module.files_of(&base))
    }

    fn eval(pair: &Arc<Pair>, _: &mut Call<'_, Permissions>) -> Result<Files, i32> {
        Ok(Files(pair.clone()))
    }
}

/// "sip:user@host" of a URI: what rules are compared with.
fn plain(uri: &Bytes) -> Option<Bytes> {
    let uri = Uri::parse(uri).ok()?;
    Some(match uri.user.as_ref().filter(|u| !u.is_empty()) {
        Some(user) => [b"sip:", &user[..], b"@", &uri.host].concat().into(),
        None => [b"sip:", &uri.host[..]].concat().into(),
    })
}

/// allow_routing([base name]): From against the R-URI and all branches.
pub fn allow_routing(call: &mut Call<Permissions>, files: Files) -> i32 {
    routing(call, &files.0)
}

/// allow_routing(allow file, deny file), 2.1
pub fn allow_routing_old(call: &mut Call<Permissions>, allow: Word, deny: Word) -> i32 {
    let pair = call.module.clone().pair_of(&allow.0, &deny.0);
    routing(call, &pair)
}

fn routing(call: &mut Call<Permissions>, pair: &Pair) -> i32 {
    if pair.is_off() {
        return 1;
    }
    let state = &call.ctx.state;
    let Some(from) = state.msg.from().and_then(|f| plain(&f.uri)) else { return -1 };
    let mut targets = vec![state.current_uri()];
    if call.module.check_all_branches {
        targets.extend(state.branches.iter().map(|b| b.uri.clone()));
    }
    let permitted = |uri: &Bytes| plain(uri).is_some_and(|uri| pair.permits(&from, &uri));
    if targets.iter().all(permitted) { 1 } else { -1 }
}

/// allow_register(base name): To against all Contacts.
pub fn allow_register(call: &mut Call<Permissions>, files: Files) -> i32 {
    register(call, &files.0)
}

/// allow_register(allow file, deny file), 2.1
pub fn allow_register_old(call: &mut Call<Permissions>, allow: Word, deny: Word) -> i32 {
    let pair = call.module.clone().pair_of(&allow.0, &deny.0);
    register(call, &pair)
}

fn register(call: &mut Call<Permissions>, pair: &Pair) -> i32 {
    if pair.is_off() {
        return 1;
    }
    let msg = call.ctx.state.msg.clone();
    let Some(to) = msg.to().and_then(|t| plain(&t.uri)) else { return -1 };
    let Ok(contacts) = msg.addresses(HeaderName::Contact) else { return -1 };
    // "*" removes what is there already.
    let permitted = |uri: &Bytes| plain(uri).is_some_and(|uri| pair.permits(&to, &uri));
    if contacts.iter().all(|c| &c.uri[..] == b"*" || permitted(&c.uri)) { 1 } else { -1 }
}

/// allow_uri(base name, URI): From against a URI, both as written.
pub fn allow_uri(call: &mut Call<Permissions>, files: Files, uri: Text) -> i32 {
    if files.0.is_off() {
        return 1;
    }
    let Some(from) = call.ctx.state.msg.from() else { return -1 };
    if files.0.permits(&from.uri, &uri) { 1 } else { -1 }
}
