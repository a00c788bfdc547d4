//! What to start, and how.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use rustix::process::Resource as Raw;
use serde::{Deserialize, Serialize};

use super::{Notify, Signal};

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Command {
    /// Whose process it is, such as `greeter/0`: the prefix of its output, and part of its [`Marker`](super::Marker).
    pub replica: String,
    /// A path, or a name to be found in the `PATH` of the process's own environment. A relative path starts at
    /// `directory`.
    pub program: String,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Variables set for it, over those inherited and over `HOME`, `USER` and `LOGNAME`, which `user` sets.
    pub environment: BTreeMap<String, String>,
    /// Whether it inherits the supervisor's own environment. Default: true. What systemd tells the supervisor
    /// (`NOTIFY_SOCKET`, `WATCHDOG_*`, `LISTEN_*`) is never inherited.
    pub inherits_environment: bool,
    /// Where it works. Default: where the supervisor does. It is entered as the process's user, which therefore needs
    /// to be allowed to.
    pub directory: Option<PathBuf>,
    /// A user by name or number. Default: the supervisor's own. Another one needs root. Names are looked up in
    /// `/etc/passwd` alone, and supplementary groups in `/etc/group`.
    pub user: Option<String>,
    /// A group by name or number. Default: the user's own. Needs `user`.
    pub group: Option<String>,
    /// Permissions taken from files that it creates, such as `0o027`. Default: the supervisor's.
    pub umask: Option<u32>,
    /// Limits by resource, both soft and hard. Those not named are the supervisor's. To raise a hard one needs root.
    pub limits: BTreeMap<Resource, Limit>,
    /// How gladly the kernel kills it when memory runs out, from -1000 (never) to 1000. Default: as the supervisor. To
    /// lower it needs root.
    pub oom_score_adjust: Option<i16>,
    /// What it is sent when the supervisor itself dies, even of SIGKILL. Default: SIGKILL. Its own children do not get
    /// it, unless they were started by another supervisor. None: it lives on.
    pub on_supervisor_death: Option<Signal>,
    /// That it speaks `sd_notify`. Default: it does not.
    pub notify: Option<Notify>,
}

impl Command {
    /// A program with nothing else said.
    pub fn new(replica: impl Into<String>, program: impl Into<String>) -> Self {
        Self {
            replica: replica.into(),
            program: program.into(),
            args: Vec::new(),
            environment: BTreeMap::new(),
            inherits_environment: true,
            directory: None,
            user: None,
            group: None,
            umask: None,
            limits: BTreeMap::new(),
            oom_score_adjust: None,
            on_supervisor_death: Some(Signal::KILL),
            notify: None,
        }
    }
}

/// How much of a [`Resource`] a process may use; none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What holds at first; the process may raise it up to `hard`.
    pub soft: Option<u64>,
    /// How far.
    pub hard: Option<u64>,
}

impl Limit {
    /// Soft and hard alike.
    pub fn both(limit: u64) -> Self {
        Self { soft: Some(limit), hard: Some(limit) }
    }
}

/// What a [`Limit`] is of, by its name in a configuration: those of `getrlimit(2)` in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Memory it may map, in bytes.
    As,
    /// The largest core file, in bytes; 0 for none.
    Core,
    /// Processor time, in seconds; it gets SIGXCPU then.
    Cpu,
    /// Data and heap, in bytes.
    Data,
    /// The largest file it may write, in bytes; it gets SIGXFSZ then.
    Fsize,
    /// Memory it may lock, in bytes.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// How far it may raise its priority: 20 minus the nice value.
    Nice,
    /// Open files.
    Nofile,
    /// Processes and threads of its user, all over the machine; root is not bound.
    Nproc,
    /// The highest real-time priority.
    Rtprio,
    /// Signals that wait for it.
    Sigpending,
    /// Stack, in bytes.
    Stack,
}

impl Resource {
    /// Every one, in the order of names.
    pub const ALL: [Self; 13] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rtprio,
        Self::Sigpending,
        Self::Stack,
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        self.properties().0
    }

    /// The resource of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    pub(super) fn raw(self) -> Raw {
        self.properties().1
    }

    fn properties(self) -> (&'static str, Raw) {
        match self {
            Self::As => ("as", Raw::As),
            Self::Core => ("core", Raw::Core),
            Self::Cpu => ("cpu", Raw::Cpu),
            Self::Data => ("data", Raw::Data),
            Self::Fsize => ("fsize", Raw::Fsize),
            Self::Memlock => ("memlock", Raw::Memlock),
            Self::Msgqueue => ("msgqueue", Raw::Msgqueue),
            Self::Nice => ("nice", Raw::Nice),
            Self::Nofile => ("nofile", Raw::Nofile),
            Self::Nproc => ("nproc", Raw::Nproc),
            Self::Rtprio => ("rtprio", Raw::Rtprio),
            Self::Sigpending => ("sigpending", Raw::Sigpending),
            Self::Stack => ("stack", Raw::Stack),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_one_name_each_in_every_place() {
        for resource in Resource::ALL {
            assert_eq!(Resource::parse(resource.name()), Some(resource));
            assert_eq!(serde_json::to_string(&resource).unwrap(), format!("{:?}", resource.name()));
        }
        assert_eq!(Resource::parse("NOFILE"), None);
    }
}
