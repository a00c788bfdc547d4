//! The core stays sans-IO: nothing that it is built of can open a socket, read a clock or draw a random number.

use std::{collections::BTreeSet, process::Command};

/// Every crate that may be in the core, itself included. Before you add one, see that it does no I/O.
const ALLOWED: [&str; 16] = [
    "evenkeel-balance",
    "itoa",
    "memchr",
    "proc-macro2",
    "quote",
    "ryu",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "serde_path_to_error",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "zmij",
];

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "evenkeel-balance", "--edges", "normal,build", "--target", "all"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("cargo prints UTF-8");
    let crates: BTreeSet<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains("evenkeel-balance") && crates.contains("serde_json"), "{text}");
    let foreign: Vec<_> = crates.iter().filter(|name| !ALLOWED.contains(name)).collect();
    assert!(foreign.is_empty(), "not known to be free of I/O: {foreign:?}\n{text}");
}
