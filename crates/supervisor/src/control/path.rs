use std::{
    env, fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Where the control socket of the file `file` is, unless the file says otherwise: `$XDG_RUNTIME_DIR/evenkeel/NAME.sock`,
/// or `/run/evenkeel/NAME.sock` without that variable. NAME is the file's, without its ending.
pub fn default_path(file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or(file.as_os_str()).to_owned();
    // Not as an extension: what stands behind a dot of `shop.v2.toml` belongs to its name.
    name.push(".sock");
    directory().join(name)
}

/// The one socket in the default place that a supervisor answers at; those of supervisors that were killed are passed
/// over.
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
    // One that may not be asked may be alive, and asking it says why not.
    let is_dead =
        |path: &PathBuf| UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    sockets.retain(|path| !is_dead(path));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_a_socket_of_its_own() {
        let name = |file: &str| default_path(Path::new(file)).file_name().map(ToOwned::to_owned);
        assert_eq!(name("/etc/shop.toml").unwrap(), "shop.sock");
        assert_eq!(name("shop.v1.toml").unwrap(), "shop.v1.sock");
        assert_eq!(name("shop").unwrap(), "shop.sock");
    }
}
