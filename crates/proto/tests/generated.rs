//! The checked-in code is what the `.proto` files generate.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use prost::Message;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
const HEALTH: &str = "grpc/health/v1/health.proto";
const PROTOS: [&str; 3] =
    ["grpc/channelz/v1/channelz.proto", "xds/service/orca/v3/orca.proto", "evenkeel/demo/v1/echo.proto"];

#[test]
fn checked_in_code_is_what_the_protos_generate() -> io::Result<()> {
    let checked_in = Path::new(CRATE).join("src/generated");
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
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

const ADVICE: &str = "run `EVENKEEL_REGENERATE=1 cargo test -p evenkeel-proto` and commit src/generated";

fn generate(into: &Path) -> io::Result<()> {
    let compile =
        |protos: &[&str]| protox::compile(protos, [Path::new(CRATE).join("protos")]).map_err(io::Error::other);
    let configured = || tonic_prost_build::configure().build_transport(false).bytes(".").btree_map(".").out_dir(into);
    empty(into)?;
    configured().compile_fds(compile(&PROTOS)?)?;
    let mut health = compile(&[HEALTH])?;
    configured().codec_path("crate::BriefCodec").compile_fds(health.clone())?;
    // Reflection shows no comments.
    health.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(into.join("grpc.health.v1.binpb"), health.encode_to_vec())
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
fn read(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(files)
}
