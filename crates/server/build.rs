//! Lists the words of the modules (`crates/*/manual/NAME.txt`) for `src/manual`.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut files = Vec::new();
    for folder in [
        "../modules/manual",
        "../drivers/manual",
        "../routing/manual",
        "../media/manual",
        "../presence/manual",
        "../capture/manual",
        "../page/manual",
        "../b2b/manual",
        "../identity/manual",
        "../queues/manual",
        "../host/manual",
    ] {
        let folder = Path::new(&root).join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(&folder).expect("the folder of words");
        files.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "txt")) {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.file_stem().expect("a name").to_string_lossy();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a string");
    }
    list.push_str("]\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("words.rs");
    fs::write(out, list).expect("the list");
}
