use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Where the control socket of the file `file` is, unless the file says otherwise: `$XDG_RUNTIME_DIR/evenkeel/NAME.sock`,
/// or `/run/evenkeel/NAME.sock` without that variable. NAME is the file's, without its ending.
pub fn default_path(file: &Path) -> PathBuf {
    let name = file.file_stem().unwrap_or(file.as_os_str());
    directory().join(name).with_extension("sock")
}

/// The one socket there is in the default place.
///
/// # Errors
///
/// Where there is none, or more than one; the message says which.
pub fn only_path() -> io::Result<PathBuf> {
    let directory = directory();
    let entries = fs::read_dir(&directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let sockets: Vec<PathBuf> = entries.unwrap_or_default();
    let mut sockets: Vec<_> =
        sockets.into_iter().filter(|path| path.extension().is_some_and(|e| e == "sock")).collect();
    sockets.sort();
    match sockets.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no supervisor has a socket in {}; say where with --control", directory.display()),
        )),
        several => {
            let list: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            Err(io::Error::other(format!("there are several supervisors; choose with --control: {}", list.join(", "))))
        }
    }
}

fn directory() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory).join("evenkeel"),
        None => PathBuf::from("/run/evenkeel"),
    }
}
