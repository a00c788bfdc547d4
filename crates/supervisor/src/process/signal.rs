//! Signals by name, and those that a supervisor passes on.

pub use rustix::process::Signal;

/// The signals that a supervisor passes on to its services rather than act on them itself: they have no meaning of
/// their own that it could serve. SIGTERM, SIGINT and SIGQUIT stop the supervisor, which stops its services in order;
/// SIGHUP asks it to read its configuration again; SIGCHLD is its own.
pub const FORWARDED: [Signal; 3] = [Signal::USR1, Signal::USR2, Signal::WINCH];

const NAMES: [(Signal, &str); 31] = [
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::TRAP, "SIGTRAP"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::BUS, "SIGBUS"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::TERM, "SIGTERM"),
    (Signal::STKFLT, "SIGSTKFLT"),
    (Signal::CHILD, "SIGCHLD"),
    (Signal::CONT, "SIGCONT"),
    (Signal::STOP, "SIGSTOP"),
    (Signal::TSTP, "SIGTSTP"),
    (Signal::TTIN, "SIGTTIN"),
    (Signal::TTOU, "SIGTTOU"),
    (Signal::URG, "SIGURG"),
    (Signal::XCPU, "SIGXCPU"),
    (Signal::XFSZ, "SIGXFSZ"),
    (Signal::VTALARM, "SIGVTALRM"),
    (Signal::PROF, "SIGPROF"),
    (Signal::WINCH, "SIGWINCH"),
    (Signal::IO, "SIGIO"),
    (Signal::POWER, "SIGPWR"),
    (Signal::SYS, "SIGSYS"),
];

/// The signal of this name, in any case, with `SIG` or without: `SIGTERM`, `term`. `None` for no signal's name;
/// real-time signals have none.
pub fn parse(name: &str) -> Option<Signal> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(_, name)| &name[3..] == short).map(|(signal, _)| *signal)
}

/// The name of a signal, such as `SIGTERM`.
pub fn name(signal: Signal) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == signal).map_or("a real-time signal", |(_, name)| name)
}

/// `None` for a number that is no signal's, or a real-time one's.
pub(super) fn from_number(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_signals_are_told_apart_and_back() {
        for (signal, name) in NAMES {
            assert_eq!(parse(name), Some(signal));
            assert_eq!(parse(&name[3..].to_lowercase()), Some(signal));
            assert_eq!(super::name(signal), name);
            assert_eq!(from_number(signal.as_raw()), Some(signal));
        }
        assert_eq!([parse(""), parse("SIG"), parse("9"), parse("SIGSIGTERM")], [None; 4]);
    }
}
