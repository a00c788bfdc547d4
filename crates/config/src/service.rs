use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::{duration, size};

/// A service: one program, run as one or more replicas (`[service.NAME]`).
///
/// In `args`, `environment`, `address` and the texts of `check`, `{port}` stands for the replica's port, `{replica}` for
/// its number from 0, and `{service}` for the service's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Service {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub command: String,
    /// Its arguments. Default none.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables added to the supervisor's own environment. Default none.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it runs. Default: where the supervisor does.
    pub directory: Option<PathBuf>,
    /// The user it runs as, by name or number; needs a supervisor that runs as root. Default: the supervisor's.
    pub user: Option<String>,
    /// The group it runs as, by name or number. Default: the user's own, or the supervisor's.
    pub group: Option<String>,
    /// How many replicas take calls. Default 1.
    #[serde(default = "one")]
    pub replicas: u32,
    /// How many more run, hot, and take calls only while no replica before them serves. Default 0.
    #[serde(default)]
    pub standby: u32,
    /// The port of replica 0; each further replica has the next one. 0 gives each start any free port. Default: the
    /// service has no port, and `{port}` means nothing.
    pub port: Option<u16>,
    /// Where the replica takes calls: `ADDR:PORT` or `unix:PATH`. Default `127.0.0.1:{port}` where there is a port.
    pub address: Option<String>,
    /// Services that must serve before this one is started, and are stopped after it. Default none.
    #[serde(default)]
    pub after: Vec<String>,
    /// What to do about an exit that nobody asked for. Default `always`.
    #[serde(default)]
    pub restart: Restart,
    /// How long from start to the first sign that it serves, before the start counts as failed. Default 30 s.
    #[serde(default = "start_timeout", deserialize_with = "duration::read")]
    pub start_timeout: Duration,
    /// How long its checks may fail, once it has served, before it is restarted; it takes no calls meanwhile. Default
    /// 10 s.
    #[serde(default = "unhealthy_timeout", deserialize_with = "duration::read")]
    pub unhealthy_timeout: Duration,
    /// How long a replica that was taken out of the endpoints goes on before it is told to stop, so that callers learn
    /// of it first. Default 1 s.
    #[serde(default = "drain_timeout", deserialize_with = "duration::read")]
    pub drain_timeout: Duration,
    /// How long it may take to end after SIGTERM before its whole process group is killed. Default 10 s.
    #[serde(default = "stop_timeout", deserialize_with = "duration::read")]
    pub stop_timeout: Duration,
    /// How long a replica must serve for earlier failures to be forgotten. Default 1 min.
    #[serde(default = "healthy_after", deserialize_with = "duration::read")]
    pub healthy_after: Duration,
    /// How long no primary may serve before a standby takes its place. Default 3 s.
    #[serde(default = "promote_after", deserialize_with = "duration::read")]
    pub promote_after: Duration,
    /// Waits for `READY=1` on the socket that `NOTIFY_SOCKET` names before the replica counts as serving. Default
    /// `false`.
    #[serde(default)]
    pub notify: bool,
    /// Expects `WATCHDOG=1` on that socket at least this often, and restarts what falls silent. Default: never.
    #[serde(default, deserialize_with = "duration::read")]
    pub watchdog: Option<Duration>,
    /// How many replicas a rolling restart may have out of service at once. Default 1.
    #[serde(default = "one")]
    pub max_unavailable: u32,
    /// Runs one more replica while a rolling restart goes on. Default: where `port = 0`, since there the ports allow it.
    pub surge: Option<bool>,
    /// How it is asked whether it serves. Default: gRPC health where it has a port, and otherwise not at all.
    pub check: Option<Check>,
    /// The wait between restarts.
    #[serde(default)]
    pub backoff: Backoff,
    /// When exits make a crash loop.
    #[serde(default)]
    pub crash_loop: CrashLoop,
    /// What the kernel lets each process have.
    #[serde(default)]
    pub limits: Limits,
}

/// Which exits are followed by another start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// All of them.
    #[default]
    Always,
    /// Those with a code other than 0 or by a signal, failed starts, and hung or unhealthy replicas.
    OnFailure,
    /// None.
    Never,
}

/// How a replica is asked whether it serves (`check`).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Check {
    /// By what. Default `grpc`.
    #[serde(default)]
    pub kind: CheckKind,
    /// Of `grpc`: the service asked about. Default the whole server.
    #[serde(default)]
    pub service: String,
    /// Of `http`: the path that must answer with a status from 200 to 399. Default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// Where to ask. Default: the replica's `address`.
    pub address: Option<String>,
    /// From one check to the next. Default 1 s.
    #[serde(default = "second", deserialize_with = "duration::read")]
    pub interval: Duration,
    /// How long an answer may take. Default 1 s.
    #[serde(default = "second", deserialize_with = "duration::read")]
    pub timeout: Duration,
    /// Checks in a row that must succeed for a replica that was out to serve. Default 1.
    #[serde(default = "one")]
    pub rise: u32,
    /// Checks in a row that must fail for a serving one to be out. Default 3. A clear "not serving" counts at once.
    #[serde(default = "three")]
    pub fall: u32,
}

/// By what a replica is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// `grpc.health.v1.Health`.
    #[default]
    Grpc,
    /// An HTTP/1.1 GET.
    Http,
    /// A TCP connection.
    Tcp,
    /// Not at all: it serves as long as it runs.
    None,
}

/// The wait between restarts: `initial × multiplier^n` up to `max`, each ± `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backoff {
    /// The first wait. Default 200 ms.
    #[serde(deserialize_with = "duration::read")]
    pub initial: Duration,
    /// The longest wait. Default 30 s.
    #[serde(deserialize_with = "duration::read")]
    pub max: Duration,
    /// Growth from one wait to the next. Default 2.
    pub multiplier: f64,
    /// The share of each wait that is left to chance, from 0 to 1. Default 0.2.
    pub jitter: f64,
}

/// So many exits within so long are a crash loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CrashLoop {
    /// The exits that nobody asked for. Default 5.
    pub exits: u32,
    /// Within this. Default 1 min.
    #[serde(deserialize_with = "duration::read")]
    pub within: Duration,
    /// Starts it no more until somebody asks. Default `false`: it goes on, at the longest wait of the backoff.
    pub give_up: bool,
}

/// Limits of each process of a service (`setrlimit`). Default for each: the supervisor's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of address space.
    #[serde(deserialize_with = "size::read")]
    pub memory: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
    /// Processes of its user.
    pub processes: Option<u64>,
    /// Bytes of a core file.
    #[serde(deserialize_with = "size::read")]
    pub core: Option<u64>,
    /// Processor time, in whole seconds.
    #[serde(deserialize_with = "duration::read")]
    pub cpu: Option<Duration>,
}

impl Service {
    /// Replicas and standbys together.
    pub fn slots(&self) -> u32 {
        self.replicas.saturating_add(self.standby)
    }

    /// How it is checked, the default filled in.
    pub fn check(&self) -> Check {
        let kind = if self.address().is_some() { CheckKind::Grpc } else { CheckKind::None };
        self.check.clone().unwrap_or(Check { kind, ..Check::default() })
    }

    /// Where it takes calls, before `{port}` and the like are filled in; none where it takes none.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref().or_else(|| self.port.map(|_| "127.0.0.1:{port}"))
    }

    /// `text` with what stands for the replica's port, its number and the service's name filled in.
    pub fn fill(text: &str, name: &str, replica: u32, port: Option<u16>) -> String {
        let text = text.replace("{replica}", &replica.to_string()).replace("{service}", name);
        port.map_or(text.clone(), |port| text.replace("{port}", &port.to_string()))
    }

    /// Whether a rolling restart runs one replica more.
    pub fn surges(&self) -> bool {
        self.surge.unwrap_or(self.port == Some(0))
    }

    /// Whether `other` would start or check a process otherwise; what else differs needs no restart.
    pub fn starts_unlike(&self, other: &Self) -> bool {
        let alike = Self {
            replicas: other.replicas,
            standby: other.standby,
            after: other.after.clone(),
            restart: other.restart,
            start_timeout: other.start_timeout,
            unhealthy_timeout: other.unhealthy_timeout,
            drain_timeout: other.drain_timeout,
            stop_timeout: other.stop_timeout,
            healthy_after: other.healthy_after,
            promote_after: other.promote_after,
            max_unavailable: other.max_unavailable,
            surge: other.surge,
            backoff: other.backoff,
            crash_loop: other.crash_loop,
            ..self.clone()
        };
        alike != *other
    }
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::default(),
            service: String::new(),
            path: root(),
            address: None,
            interval: second(),
            timeout: second(),
            rise: one(),
            fall: three(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        let (initial, max) = (Duration::from_millis(200), Duration::from_secs(30));
        Self { initial, max, multiplier: 2.0, jitter: 0.2 }
    }
}

impl Default for CrashLoop {
    fn default() -> Self {
        Self { exits: 5, within: Duration::from_secs(60), give_up: false }
    }
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn root() -> String {
    "/".to_owned()
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn start_timeout() -> Duration {
    Duration::from_secs(30)
}

fn unhealthy_timeout() -> Duration {
    Duration::from_secs(10)
}

fn drain_timeout() -> Duration {
    Duration::from_secs(1)
}

fn stop_timeout() -> Duration {
    Duration::from_secs(10)
}

fn healthy_after() -> Duration {
    Duration::from_secs(60)
}

fn promote_after() -> Duration {
    Duration::from_secs(3)
}
