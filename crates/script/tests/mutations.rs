//! Damaged configurations: nothing panics or hangs, and what is still correct is laid out the same twice.

#[path = "../../../fuzz/checks/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/checks/script.rs"]
mod script_check;

#[test]
fn scripts() {
    let here = env!("CARGO_MANIFEST_DIR");
    let mut seeds = mutate::seeds(&format!("{here}/tests/diagnostics"), "cfg");
    seeds.extend(mutate::seeds(&format!("{here}/tests/bytecode"), "cfg"));
    seeds.extend(mutate::seeds(&format!("{here}/../../etc"), "cfg"));
    mutate::run(&seeds, include_str!("../../../fuzz/script.dict"), 300, script_check::check);
}
