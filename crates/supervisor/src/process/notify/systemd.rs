//! What we tell systemd, or whatever else speaks its words, of ourselves.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{SOCKET_VARIABLE, WATCHDOG_PID_VARIABLE, WATCHDOG_VARIABLE};

/// What we tell systemd of ourselves; nothing where it has not asked (`Type=notify`), such as in a terminal. Nothing
/// here waits: a message that finds no room is an error.
#[derive(Debug)]
pub struct Systemd {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`). Children do not inherit that.
    ///
    /// # Errors
    /// If `NOTIFY_SOCKET` names no Unix socket, by path or by an abstract name (`@…`), or no socket can be made.
    pub fn from_environment() -> io::Result<Self> {
        let name = env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty());
        let to = name.map(|name| connect(name.as_bytes())).transpose()?;
        let variable = |name| env::var(name).ok();
        let watchdog = watchdog(variable(WATCHDOG_VARIABLE), variable(WATCHDOG_PID_VARIABLE), std::process::id());
        Ok(Self { watchdog: watchdog.filter(|_| to.is_some()), to })
    }

    /// Whether anybody listens.
    pub fn is_listening(&self) -> bool {
        self.to.is_some()
    }

    /// How long systemd waits for a sign of life before it takes us for hung (`WatchdogSec=`); none if it does not.
    /// [`keep_alive`](Self::keep_alive) is best called twice in that time.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// We have started, or have read our configuration again.
    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1")
    }

    /// What `systemctl status` shows of us, in a line; further lines are joined to it.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&status_message(status))
    }

    /// We read our configuration again, until [`ready`](Self::ready).
    pub fn reloading(&self) -> io::Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000))
    }

    /// We are about to end.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1")
    }

    /// We are alive.
    pub fn keep_alive(&self) -> io::Result<()> {
        self.send("WATCHDOG=1")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        socket.send_to_addr(message.as_bytes(), address).map(drop)
    }
}

fn connect(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => {
            let name = String::from_utf8_lossy(name);
            let error = format!("{SOCKET_VARIABLE} is `{name}`, which is neither a path nor an abstract name (`@…`)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Those of another process are not ours: they were left in the environment.
fn watchdog(within: Option<String>, of: Option<String>, ourselves: u32) -> Option<Duration> {
    let is_ours = of.is_none_or(|pid| pid.parse() == Ok(ourselves));
    let within = within?.parse().ok().map(Duration::from_micros)?;
    (is_ours && !within.is_zero()).then_some(within)
}

/// A line break would begin another assignment.
fn status_message(status: &str) -> String {
    format!("STATUS={}", status.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn says_all(to: (UnixDatagram, SocketAddr), socket: &UnixDatagram) {
        let systemd = Systemd { to: Some(to), watchdog: None };
        systemd.ready().unwrap();
        assert_eq!(heard(socket), "READY=1");
        systemd.status("two\nlines").unwrap();
        assert_eq!(heard(socket), "STATUS=two lines");
        systemd.reloading().unwrap();
        let reloading = heard(socket);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both");
        assert!(time.parse::<u64>().unwrap() > 0);
        systemd.keep_alive().unwrap();
        systemd.stopping().unwrap();
        assert_eq!([heard(socket), heard(socket)], ["WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn sockets_are_paths_or_abstract_names() {
        let name = format!("evenkeel-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        says_all(connect(format!("@{name}").as_bytes()).unwrap(), &UnixDatagram::bind_addr(&abstract_name).unwrap());
        let path = env::temp_dir().join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        says_all(connect(path.as_os_str().as_bytes()).unwrap(), &socket);
        std::fs::remove_file(&path).unwrap();
        assert!(connect(b"vsock:2:1").unwrap_err().to_string().contains("neither"));
        let gone = Systemd { to: Some(connect(path.as_os_str().as_bytes()).unwrap()), watchdog: None };
        assert_eq!(gone.ready().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_watchdog_is_ours_if_it_names_us_or_nobody() {
        let watchdog = |within: &str, of: Option<&str>| watchdog(Some(within.to_owned()), of.map(str::to_owned), 7);
        let second = Some(Duration::from_secs(1));
        assert_eq!([watchdog("1000000", None), watchdog("1000000", Some("7"))], [second, second]);
        let none = [watchdog("1000000", Some("8")), watchdog("0", None), watchdog("soon", None)];
        assert_eq!(none, [None; 3]);
    }

    #[test]
    fn without_a_socket_nothing_is_said() {
        let systemd = Systemd { to: None, watchdog: None };
        systemd.ready().unwrap();
        assert!(!systemd.is_listening());
    }
}
