//! The names of the reference's modules and of what they offer, for messages about what is not here.
//!
//! `reference.tsv` has one name a line: module, kind (`M` module, `f` function, `v` variable, `p` parameter,
//! `m` management command), name, and the versions whose manual lists it (`2`: 2.1, `4`: master, `o`: others from
//! 1.11 to 3.6). Modules of this program are tested against it.

use std::sync::LazyLock;

/// One line of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    pub module: &'static str,
    pub kind: KnownKind,
    pub name: &'static str,
    /// `2`, `4`, `o`
    pub versions: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnownKind {
    Module,
    Function,
    Variable,
    Parameter,
    Command,
}

static NAMES: LazyLock<Vec<Name>> =
    LazyLock::new(|| include_str!("reference.tsv").lines().filter_map(line).collect());

fn line(text: &'static str) -> Option<Name> {
    let mut fields = text.split('\t');
    let (module, kind, name) = (fields.next()?, fields.next()?, fields.next()?);
    let kind = match kind {
        "M" => KnownKind::Module,
        "f" => KnownKind::Function,
        "v" => KnownKind::Variable,
        "p" => KnownKind::Parameter,
        "m" => KnownKind::Command,
        _ => return None,
    };
    Some(Name { module, kind, name, versions: fields.next()? })
}

/// The whole list, by module, kind and name.
pub fn names() -> &'static [Name] {
    &NAMES
}

/// The reference has a module of this name.
pub fn is_module(name: &str) -> bool {
    names().iter().any(|n| n.kind == KnownKind::Module && n.module == name)
}

/// Modules of the reference that offer this name; those of 4.x first.
pub fn owners(kind: KnownKind, name: &str) -> Vec<&'static str> {
    let mut found: Vec<&Name> = names().iter().filter(|n| n.kind == kind && n.name == name).collect();
    found.sort_by_key(|n| !n.versions.contains('4'));
    found.into_iter().map(|n| n.module).collect()
}

/// Modules that were renamed: the old name, what does the work now. Loading the old one loads the new one.
const RENAMED: &[(&str, &str)] = &[
    ("dbtext", "db_text"),
    ("flatstore", "db_flatstore"),
    ("localcache", "cachedb_local"),
    ("mysql", "db_mysql"),
    ("postgres", "db_postgres"),
    ("uri_db", "uri"),
];

/// Modules without a successor of the same interface: what to use.
const REPLACED: &[(&str, &str)] = &[
    ("auth_diameter", "auth_aaa, with a URL of aaa_diameter or aaa_radius"),
    ("auth_radius", "auth_aaa with aaa_radius"),
    ("avp_radius", "aaa_radius and its radius_send_auth()"),
    ("cpl-c", "the script itself"),
    ("group_radius", "group with aaa_radius"),
    ("identity", "stir_shaken"),
    ("ipops", "the {ip...} transformations"),
    ("lua", "the script itself, and exec(), rest_get() or a database for what it lacks"),
    ("mi_xmlrpc", "mi_http (JSON-RPC over httpd)"),
    ("mi_xmlrpc_ng", "mi_http (JSON-RPC over httpd)"),
    ("mi_unixsock", "mi_datagram"),
    ("pa", "presence"),
    ("perl", "the script itself, and exec(), rest_get() or a database for what it lacks"),
    ("perlvdb", "db_virtual, or rest_get()"),
    ("pv", "the core: variables need no module"),
    ("python", "the script itself, and exec(), rest_get() or a database for what it lacks"),
    ("siputils", "sipmsgops and uri"),
    ("sl_tm", "tm and sl"),
    ("tlsops", "tls_mgm"),
    ("unixodbc", "db_unixodbc"),
    ("uri_radius", "uri with aaa_radius"),
    ("xlog", "the core: xlog() needs no module"),
];

/// What a module is called now.
pub fn renamed(old: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(name, _)| *name == old).map(|(_, new)| *new)
}

/// What to use in place of a module that is no more.
pub fn replaced(old: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(name, _)| *name == old).map(|(_, new)| *new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        assert_eq!(names().len(), include_str!("reference.tsv").lines().count());
        assert!(is_module("dialog") && !is_module("dialgo"));
        assert_eq!(owners(KnownKind::Function, "create_dialog"), ["dialog"]);
        assert_eq!(owners(KnownKind::Variable, "DLG_status"), ["dialog"]);
        assert!(RENAMED.is_sorted() && REPLACED.iter().all(|(old, _)| renamed(old).is_none()));
    }
}
