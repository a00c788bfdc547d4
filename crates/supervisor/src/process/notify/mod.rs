//! `sd_notify(3)`, both ways: what we tell systemd, and what children tell us in the same words.
//!
//! A message is a datagram of lines `NAME=value`, sent to the socket that the environment variable `NOTIFY_SOCKET` names.

mod receiver;
mod systemd;

pub(super) use self::receiver::NotifySocket;
pub use self::receiver::{Notices, Notify};
pub use self::systemd::Systemd;

/// The variables of this protocol in the environment.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
/// The process that is meant by [`WATCHDOG_VARIABLE`].
pub(super) const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";
