//! The machine's network interfaces, which link-local IPv6 addresses name.

use std::{io, num::NonZeroU32};

/// The number of the interface `name`, now: interfaces come and go.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn number_of(name: &str) -> io::Result<NonZeroU32> {
    use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

    let any_socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let number = name_to_index(any_socket, name)?;
    NonZeroU32::new(number).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Always an error: only Linux is asked.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn number_of(_: &str) -> io::Result<NonZeroU32> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "write the interface's number, as in `[fe80::1%2]:80`"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_a_number_and_others_have_none() {
        assert!(number_of("lo").is_ok());
        assert!(number_of("nosuchinterface").is_err());
    }
}
