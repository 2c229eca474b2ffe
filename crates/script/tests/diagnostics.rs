//! What people are told about a wrong configuration, word for word: each `diagnostics/*.cfg` is read
//! (and checked, when it has no errors) and its diagnostics are compared with the `.txt` beside it. `UPDATE=1` writes the `.txt` files anew.

use script::{Options, Sources, lint, parse_file};
use std::path::Path;

#[test]
fn snapshots() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let update = std::env::var_os("UPDATE").is_some();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("folder")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.ends_with(".cfg") && !n.contains(".inc."))
        .collect();
    names.sort();
    let mut differing = Vec::new();
    for name in names {
        let mut sources = Sources::default();
        let mut loader = |path: &str| std::fs::read(folder.join(path));
        let (config, mut problems) = parse_file(&name, &mut loader, &mut sources, Options::default());
        if !problems.iter().any(|p| p.is_error()) {
            problems.extend(lint(&config, &|name| matches!(name, b"sql_query" | b"rest_get")));
        }
        let got: String = problems.iter().map(|p| sources.render(p) + "\n").collect();
        let file = folder.join(name.replace(".cfg", ".txt"));
        if update {
            std::fs::write(&file, &got).expect("write");
        } else if std::fs::read_to_string(&file).unwrap_or_default() != got {
            differing.push(format!("---- {name}\n{got}"));
        }
    }
    assert!(differing.is_empty(), "diagnostics changed (UPDATE=1 accepts them):\n{}", differing.join("\n"));
}
