//! The checked-in code is what the `.proto` files generate.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
const PROTOS: [&str; 1] = ["grpc/testing/test.proto"];
const ADVICE: &str = "run `EVENKEEL_REGENERATE=1 cargo test -p evenkeel-interop` and commit src/generated";

#[test]
fn checked_in_code_is_what_the_protos_generate() -> io::Result<()> {
    let checked_in = Path::new(CRATE).join("src/generated");
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated-interop");
    generate(&fresh)?;
    if std::env::var_os("EVENKEEL_REGENERATE").is_some() {
        replace(&checked_in, &fresh)?;
    }
    let (old, new) = (read(&checked_in)?, read(&fresh)?);
    assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "{ADVICE}");
    for (name, code) in new {
        assert!(old[&name] == code, "src/generated/{name} differs from what its .proto generates; {ADVICE}");
    }
    Ok(())
}

fn generate(into: &Path) -> io::Result<()> {
    let files = protox::compile(PROTOS, [Path::new(CRATE).join("protos")]).map_err(io::Error::other)?;
    empty(into)?;
    tonic_prost_build::configure().build_transport(false).btree_map(".").out_dir(into).compile_fds(files)
}

fn replace(checked_in: &Path, fresh: &Path) -> io::Result<()> {
    empty(checked_in)?;
    for (name, code) in read(fresh)? {
        fs::write(checked_in.join(name), code)?;
    }
    Ok(())
}

/// Makes a folder without files: one that an earlier run left must not pass for one of this run.
fn empty(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)
}

/// The files of a folder by name.
fn read(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?);
    }
    Ok(files)
}
