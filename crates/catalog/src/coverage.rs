//! Whatever the manuals of the reference list for the core and for the modules that exist here is known here, or
//! stands in `manual/left_out.txt` with its reason.

use host::Accepts;
use host::reference::{self, KnownKind};
use host::registrar::Module;
use std::collections::{BTreeMap, BTreeSet};

fn all() -> impl Iterator<Item = &'static host::ModuleDef> {
    crate::all().iter()
}

/// `module kind name: reason`, one a line.
const LEFT_OUT: &str = include_str!("manual/left_out.txt");

fn letter(kind: KnownKind) -> char {
    match kind {
        KnownKind::Module => 'M',
        KnownKind::Function => 'f',
        KnownKind::Variable => 'v',
        KnownKind::Parameter => 'p',
        KnownKind::Command => 'm',
    }
}

fn knows(module: &dyn Module, kind: KnownKind, name: &str) -> bool {
    match kind {
        // Commands are bound to a running module.
        KnownKind::Module | KnownKind::Command => true,
        KnownKind::Function => module.functions().iter().any(|f| f.name == name),
        KnownKind::Variable => module.variable_names().contains(&name),
        KnownKind::Parameter => module.param_names().contains(&name),
    }
}

#[test]
fn everything_in_the_manuals_is_known_or_left_out_for_a_reason() {
    let mut left: BTreeMap<String, &str> = BTreeMap::new();
    let lines = LEFT_OUT.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("core "));
    for line in lines {
        let (what, why) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
        left.insert(what.to_owned(), why);
    }
    let core_variables: BTreeSet<&str> = {
        let mut table = host::load::VarTable::new(|_| false);
        host::vars::register(&mut table);
        table.names().collect()
    };
    let mut missing = Vec::new();
    for def in all() {
        let module = (def.make)();
        let listed =
            reference::names().iter().filter(|n| n.module == def.name && n.kind != KnownKind::Command);
        for name in listed {
            let known = knows(&*module, name.kind, name.name)
                || (name.kind == KnownKind::Variable && core_variables.contains(name.name));
            let key = format!("{} {} {}", name.module, letter(name.kind), name.name);
            let left_out = left.remove(&key).is_some();
            if !known && !left_out {
                missing.push(format!("{key} ({})", name.versions));
            }
        }
    }
    missing.extend(left.keys().map(|key| format!("{key} is in no manual")));
    assert!(missing.is_empty(), "{} names:\n{}", missing.len(), missing.join("\n"));
}

/// What the manuals of 2.1 and master list for the core: `kind name versions`, with the kinds `P` parameter, `F`
/// function, `V` variable, `T` transformation.
const CORE: &str = include_str!("manual/core.tsv");

#[test]
fn everything_of_the_core_is_known() {
    let mut table = host::load::VarTable::new(|_| false);
    host::vars::register(&mut table);
    let variables: BTreeSet<&str> = table.names().collect();
    let of_modules: BTreeSet<&str> = all().flat_map(|def| (def.make)().variable_names()).collect();
    let core = (all().find(|def| def.name == "core").unwrap().make)();
    let functions: BTreeSet<&str> = core.functions().iter().map(|f| f.name).collect();
    let mut missing = Vec::new();
    for line in CORE.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, name, versions] = fields[..] else { panic!("{line}") };
        let known = match kind {
            "P" => host::parameters::effect(name).is_some(),
            "F" => functions.contains(name),
            "V" => variables.contains(name) || of_modules.contains(name),
            "T" => host::tran::is_known(name),
            _ => panic!("{line}"),
        };
        let key = format!("core {kind} {name}");
        let left_out = LEFT_OUT.lines().any(|l| l.starts_with(&format!("{key}: ")));
        if !known && !left_out {
            missing.push(format!("{key} ({versions})"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The ends of a declared range, and all declared words, are values that the module takes.
#[test]
fn what_parameters_declare_is_taken() {
    use script::ast::ParamValue;
    let mut wrong = Vec::new();
    let mut ranges = 0;
    for def in all() {
        let mut module = (def.make)();
        for (name, _) in module.params() {
            let values = match module.accepts(name) {
                Some(Accepts::Range { first, last, .. }) => {
                    ranges += 1;
                    [first, last].map(ParamValue::Int).to_vec()
                }
                Some(Accepts::Words(words)) => {
                    words.iter().map(|word| ParamValue::Text(word.as_bytes().into())).collect()
                }
                _ => continue,
            };
            for value in values {
                if let Err(why) = module.set_param(name, &value) {
                    wrong.push(format!("{} {name} {value:?}: {why}", def.name));
                }
            }
        }
    }
    assert!(ranges > 30 && wrong.is_empty(), "{ranges} ranges; refused:\n{}", wrong.join("\n"));
}
