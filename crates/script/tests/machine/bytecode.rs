//! Instructions word for word: each `bytecode/*.cfg` is compiled and compared with the `.txt` beside it.
//! `UPDATE=1` writes the `.txt` files anew.

use crate::mock::load;
use script::ast::Dialect;
use std::path::Path;

#[test]
fn snapshots() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bytecode");
    let update = std::env::var_os("UPDATE").is_some();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("folder")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.ends_with(".cfg"))
        .collect();
    names.sort();
    let mut differing = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name)).expect("read");
        let dialect = if name.contains("v21") { Dialect::V21 } else { Dialect::V4 };
        let got = load(&text, dialect).unwrap_or_else(|p| panic!("{name}: {p:#?}")).disassemble();
        let file = folder.join(name.replace(".cfg", ".txt"));
        if update {
            std::fs::write(&file, &got).expect("write");
        } else if std::fs::read_to_string(&file).unwrap_or_default() != got {
            differing.push(format!("---- {name}\n{got}"));
        }
    }
    assert!(differing.is_empty(), "instructions changed (UPDATE=1 accepts them):\n{}", differing.join("\n"));
}
