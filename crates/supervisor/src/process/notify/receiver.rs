//! What a child tells us of itself: a socket for each start of each child, so that nobody speaks for another.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{net::UnixDatagram, sync::watch, time::Instant};

use super::{SOCKET_VARIABLE, WATCHDOG_VARIABLE};
use crate::process::{Exit, account::Identity};

/// The longest message, in bytes; longer ones are passed over.
const LONGEST_MESSAGE: usize = 4096;
/// The longest status that is kept, in characters.
const LONGEST_STATUS: usize = 1024;

/// That a program speaks `sd_notify`. It gets a `NOTIFY_SOCKET` of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// How often it has to say `WATCHDOG=1`, which it is told by `WATCHDOG_USEC`. Default: it need not. See
    /// [`Child::falls_silent`](super::super::Child::falls_silent).
    pub watchdog: Option<Duration>,
}

/// What a child has told us of itself since it was started.
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the protocol, and any of them may go together")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notices {
    /// It said `READY=1`.
    pub is_ready: bool,
    /// It said `RELOADING=1`, and not yet `READY=1` again.
    pub is_reloading: bool,
    /// It said `STOPPING=1`: it will end by itself.
    pub is_stopping: bool,
    /// The last `STATUS=`, without control characters, and cut to 1024 characters.
    pub status: Option<String>,
    /// When it said `WATCHDOG=1` or `READY=1` last.
    pub alive_at: Option<Instant>,
    /// It said `WATCHDOG=trigger`: it has found itself broken, and wants to be ended.
    pub gives_up: bool,
}

impl Notices {
    /// Takes in a message; lines that mean nothing to us are passed over, as the protocol asks.
    fn hear(&mut self, message: &str, now: Instant) {
        for (name, value) in message.lines().filter_map(|line| line.split_once('=')) {
            match (name, value) {
                ("READY", "1") => {
                    (self.is_ready, self.is_reloading) = (true, false);
                    self.alive_at = Some(now);
                }
                ("RELOADING", "1") => self.is_reloading = true,
                ("STOPPING", "1") => self.is_stopping = true,
                ("WATCHDOG", "1") => self.alive_at = Some(now),
                ("WATCHDOG", "trigger") => self.gives_up = true,
                ("STATUS", status) => {
                    let shown = status.chars().filter(|char| !char.is_control()).take(LONGEST_STATUS);
                    self.status = Some(shown.collect());
                }
                _ => {}
            }
        }
    }
}

/// The receiving end, and the directory that it is in.
#[derive(Debug)]
pub(in crate::process) struct NotifySocket {
    socket: UnixDatagram,
    directory: PathBuf,
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(directory = %self.directory.display(), %error, "a notification socket could not be removed");
        }
    }
}

impl NotifySocket {
    /// Makes a socket that only we and this user can write to. It is a path, since not every program that speaks the
    /// protocol knows abstract names, and since the kernel asks nobody who writes to those.
    pub(in crate::process) fn new(user: Option<&Identity>) -> io::Result<Self> {
        let directory = make_directory()?;
        let socket = UnixDatagram::bind(directory.join("notify"));
        let socket = Self { socket: socket.inspect_err(|_| drop(fs::remove_dir(&directory)))?, directory };
        socket.give_to(user)?;
        Ok(socket)
    }

    fn give_to(&self, user: Option<&Identity>) -> io::Result<()> {
        // Whatever our umask takes from others, they need to pass through.
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600))?;
        user.map_or(Ok(()), |user| chown(self.path(), Some(user.user), Some(user.group)))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("notify")
    }

    /// What the child's environment says of it.
    pub(in crate::process) fn announce(&self, notify: Notify, command: &mut std::process::Command) {
        command.env(SOCKET_VARIABLE, self.path());
        if let Some(watchdog) = notify.watchdog {
            command.env(WATCHDOG_VARIABLE, watchdog.as_micros().to_string());
        }
    }

    /// Listens until the child has ended.
    pub(in crate::process) fn listen(self, mut exit: watch::Receiver<Option<Exit>>) -> watch::Receiver<Notices> {
        let (notices, heard) = watch::channel(Notices::default());
        tokio::spawn(async move {
            tokio::select! {
                // What it said before its end is heard first.
                biased;
                () = self.hear(&notices) => {}
                _ = exit.wait_for(Option::is_some) => {}
            }
        });
        heard
    }

    async fn hear(&self, notices: &watch::Sender<Notices>) {
        let mut buffer = [0; LONGEST_MESSAGE + 1];
        while let Ok(length) = self.socket.recv(&mut buffer).await {
            match std::str::from_utf8(&buffer[..length]) {
                Ok(message) if length <= LONGEST_MESSAGE => {
                    notices.send_modify(|notices| notices.hear(message, Instant::now()));
                }
                _ => tracing::debug!(length, "a notification is too long or not UTF-8, and was passed over"),
            }
        }
    }
}

/// A directory that nobody has had before us. One that is there is a killed supervisor's with our pid, as in a container
/// that was started again, or somebody's who hopes that we use it.
fn make_directory() -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("evenkeel-{pid}-{number}"));
        match fs::DirBuilder::new().mode(0o711).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let text =
                    format!("{}: {error}: set TMPDIR to a directory where we may make others", directory.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_last_holds() {
        let mut notices = Notices::default();
        let now = Instant::now();
        notices.hear("STATUS=loading\x1b[31m 3 %\nUNKNOWN=1\nnonsense\nMAINPID=7", now);
        assert_eq!(notices, Notices { status: Some("loading[31m 3 %".to_owned()), ..Notices::default() });
        notices.hear("READY=1\nSTATUS=", now);
        assert!(notices.is_ready && notices.alive_at == Some(now) && notices.status.as_deref() == Some(""));
        notices.hear("RELOADING=1\nMONOTONIC_USEC=5", now);
        assert!(notices.is_ready && notices.is_reloading);
        notices.hear("READY=1", now);
        assert!(!notices.is_reloading);
        notices.hear("READY=0\nWATCHDOG=0\nSTOPPING=yes\n=\nREADY", now);
        assert!(notices.is_ready && !notices.is_stopping && !notices.gives_up);
        notices.hear("STOPPING=1\nWATCHDOG=trigger\n", now);
        assert!(notices.is_stopping && notices.gives_up);
        notices.hear(&format!("STATUS={}", "x".repeat(3000)), now);
        assert_eq!(notices.status.map(|status| status.len()), Some(LONGEST_STATUS));
    }
}
