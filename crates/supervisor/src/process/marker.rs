//! The mark by which the processes of a replica are known, wherever they have gone.

use std::{fmt, io, time::Duration};

use super::procfs::Stat;

/// The environment variable that carries a [`Marker`] into every process of a replica.
pub const MARKER_VARIABLE: &str = "EVENKEEL_REPLICA";

/// A process that becomes another program has no environment for a moment. So often it is looked whether it has none.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Whose process it is: `<replica>@<supervisor's pid>-<its start time>`, such as `greeter/0@4711-88123`. The start time
/// (in clock ticks since the machine's boot) tells this supervisor from an earlier one that had the same pid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker(String);

impl Marker {
    pub(super) fn new(replica: &str, supervisor: &Stat) -> Self {
        Self(format!("{replica}@{}-{}", supervisor.pid, supervisor.started))
    }

    /// Whether this process, or what it inherited its environment from, was started with this mark. `false` where the
    /// process is gone. May block for some milliseconds.
    ///
    /// # Errors
    /// Where the environment may not be read: it is another user's process, or one that hides it.
    pub(super) fn is_on(&self, pid: i32) -> io::Result<bool> {
        for _ in 0..LOOKS {
            let environment = match std::fs::read(format!("/proc/{pid}/environ")) {
                Ok(environment) => environment,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if !environment.is_empty() {
                return Ok(environment.split(|byte| *byte == 0).any(|entry| self.is_entry(entry)));
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(false)
    }

    fn is_entry(&self, entry: &[u8]) -> bool {
        let value = entry.strip_prefix(MARKER_VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        value == Some(self.0.as_bytes())
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_whole_entry() {
        let marker = Marker("a/1@7-9".to_owned());
        assert!(marker.is_entry(b"EVENKEEL_REPLICA=a/1@7-9"));
        for other in ["EVENKEEL_REPLICA=a/1@7-99", "EVENKEEL_REPLICA=aa/1@7-9", "X_EVENKEEL_REPLICA=a/1@7-9", "", "="] {
            assert!(!marker.is_entry(other.as_bytes()), "{other}");
        }
    }
}
