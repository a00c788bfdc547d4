//! How a process ended.

use std::fmt;

use rustix::process::WaitStatus;

use super::signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this code (0 to 255).
    Code(u8),
    /// This signal ended it; the number, since real-time signals have no name.
    Signal(i32),
}

impl Exit {
    /// Whether it ended by itself, with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// The exit code that a shell would report, and that a supervisor ends with on behalf of its child: 128 + n for one
    /// that died of signal n.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(signal).unwrap_or(0).saturating_add(128),
        }
    }

    /// `None` for a process that is stopped or continued, and so has not ended.
    pub(super) fn of(status: WaitStatus) -> Option<Self> {
        if let Some(code) = status.exit_status() {
            return Some(Self::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
        }
        status.terminating_signal().map(Self::Signal)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match signal::from_number(*number) {
                Some(signal) => write!(f, "was ended by {}", signal::name(signal)),
                None => write!(f, "was ended by signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_says_its_code_or_its_signal() {
        assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
        assert_eq!(Exit::Signal(9).to_string(), "was ended by SIGKILL");
        assert_eq!(Exit::Signal(40).to_string(), "was ended by signal 40");
    }

    #[test]
    fn codes_are_a_shells() {
        assert_eq!([Exit::Code(3), Exit::Signal(15), Exit::Signal(9)].map(Exit::code), [3, 143, 137]);
        assert!(Exit::Code(0).is_success() && !Exit::Code(1).is_success() && !Exit::Signal(1).is_success());
    }
}
