//! Which variables of the core have several values.

use script::ast::VarSpec;

/// Core variables that have several values and so take an index; modules say that of theirs.
const INDEXED: [&str; 19] = [
    "avp",
    "hdr",
    "hdr_name",
    "ct",
    "ct.fields",
    "cT",
    "rb",
    "route",
    "route.name",
    "route.type",
    "msg.branch.uri",
    "msg.branch.duri",
    "msg.branch.path",
    "msg.branch.q",
    "msg.branch.flags",
    "msg.branch.socket",
    "msg.branch.flag",
    "msg.branch.attr",
    "branch.flag",
];

/// An index may stand after this core variable; the reference refuses it after all others.
pub fn takes_index(spec: &VarSpec) -> bool {
    match &spec.name[..] {
        b"branch" => spec.inner.is_some(),
        name => INDEXED.iter().any(|one| one.as_bytes() == name),
    }
}
