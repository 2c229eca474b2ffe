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

/// `fmt` changes the layout alone: the same instructions come out, in either dialect.
#[test]
fn the_layout_changes_no_instruction() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bytecode");
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "cfg") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("read");
        let laid_out = script::format_source(&text, "test.cfg").expect("a correct script");
        for text in [laid_out.clone(), laid_out.replace("\n", "\r\n")] {
            let dialect = if path.to_string_lossy().contains("v21") { Dialect::V21 } else { Dialect::V4 };
            let program =
                |text: &str| load(text, dialect).unwrap_or_else(|p| panic!("{path:?}: {p:#?}")).disassemble();
            let original = std::fs::read_to_string(&path).expect("read");
            assert_eq!(program(&original), program(&text), "{path:?}");
        }
    }
}
