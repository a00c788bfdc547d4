//! What has to happen in a child between fork and exec, done by our own program started again.
//!
//! The standard library can run code there only by `unsafe`. So the child is the supervisor's own program
//! (`/proc/self/exe`, which stays itself when the file is replaced), with [`ARGUMENT`] as its first argument. It does
//! what its instructions say and then becomes the program. Its standard input is a socket to the supervisor, on which
//! it says when it is ready, and then what went wrong; that nothing follows says that it has become the program.

use std::{
    ffi::OsString,
    fmt, fs,
    fs::File,
    io,
    io::Write,
    os::{fd::AsFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
};

use rustix::{
    fs::Mode,
    process::{Gid, Uid},
    process::{Rlimit, getppid, set_parent_process_death_signal, setrlimit, umask},
    stdio::dup2_stdin,
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};

use super::{
    account::Identity,
    command::{Limit, Resource},
    notify::WATCHDOG_PID_VARIABLE,
    signal,
};

/// The first argument by which the program is asked to be a launcher.
pub const ARGUMENT: &str = "supervise-exec";

/// What it says when all is done but the last step. JSON may begin with it.
pub(super) const READY: &[u8] = b"\n";

/// What the launcher was at when it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// It read its instructions.
    Instructions,
    /// It opened `/dev/null` for its standard input.
    Input,
    /// It set this limit.
    Limit(Resource),
    /// It set the score that the kernel kills by when memory runs out.
    OomScore,
    /// It took on the user's groups.
    Groups,
    /// It became the user.
    User,
    /// It entered this directory.
    Directory(PathBuf),
    /// It asked for a signal at the supervisor's death.
    SupervisorDeath,
    /// It became the program.
    Program(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instructions => f.write_str("read the launcher's instructions"),
            Self::Input => f.write_str("open /dev/null"),
            Self::Limit(resource) => write!(f, "set the limit `{resource}`"),
            Self::OomScore => f.write_str("set the OOM score"),
            Self::Groups => f.write_str("take on the user's groups"),
            Self::User => f.write_str("become the user"),
            Self::Directory(directory) => write!(f, "enter the directory {}", directory.display()),
            Self::SupervisorDeath => f.write_str("ask for a signal at the supervisor's death"),
            Self::Program(program) => write!(f, "execute `{program}`"),
        }
    }
}

/// What the supervisor wants done, as the argument after [`ARGUMENT`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instructions {
    pub(super) supervisor: i32,
    pub(super) identity: Option<Identity>,
    pub(super) directory: Option<PathBuf>,
    pub(super) umask: Option<u32>,
    pub(super) limits: Vec<(Resource, Limit)>,
    pub(super) oom_score_adjust: Option<i16>,
    /// The number of a signal.
    pub(super) on_supervisor_death: Option<i32>,
    /// Whether to say in the environment that the watchdog's time is meant for this process.
    pub(super) has_watchdog: bool,
}

/// What the launcher says when it fails.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
}

impl Failure {
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
    fn new(step: Step, error: io::Error) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or_else(|| rustix::io::Errno::INVAL.raw_os_error()) }
    }
}

/// Becomes the program that the supervisor wants started; returns only where it cannot. `args` are the process's
/// arguments after [`ARGUMENT`].
///
/// A program that supervises calls it first thing in `main`, before there is a second thread or anything has read the
/// arguments, since those that follow belong to another program:
///
/// ```no_run
/// use std::process::ExitCode;
/// use evenkeel_supervisor::process::launcher;
///
/// fn main() -> ExitCode {
///     let mut args = std::env::args_os().skip(1);
///     if args.next().is_some_and(|first| first == launcher::ARGUMENT) {
///         return launcher::run(args);
///     }
///     ExitCode::SUCCESS // The program itself.
/// }
/// ```
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // `dup` by the standard library sets CLOEXEC: the supervisor's end sees the exec as the end of the stream.
    let Ok(report) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(126) };
    let mut report = File::from(report);
    let failure = launch(args.into_iter(), &mut report);
    // Without anybody there to read it, what went wrong still shows by the exit code.
    let _: io::Result<()> = serde_json::to_vec(&failure).map_err(Into::into).and_then(|json| report.write_all(&json));
    ExitCode::from(if failure.errno == rustix::io::Errno::NOENT.raw_os_error() { 127 } else { 126 })
}

/// Returns only on failure.
/// What the supervisor was started with ignored (SIGHUP, by `nohup`) would stay ignored in a service, and no shell could
/// trap it there. A handler ends with the exec, and leaves the default.
fn heed_signals() {
    use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
    let named = [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2];
    for signal in named {
        // Refused for no signal of these. If it were, the signal would be as it was.
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
}

fn launch(mut args: impl Iterator<Item = OsString>, report: &mut File) -> Failure {
    let invalid = || Failure::new(Step::Instructions, io::Error::from(rustix::io::Errno::INVAL));
    let instructions = args.next().and_then(|json| serde_json::from_str::<Instructions>(json.to_str()?).ok());
    let (Some(instructions), Some(program)) = (instructions, args.next()) else { return invalid() };
    let said = |error| Failure::new(Step::Instructions, error);
    if let Err(failure) = prepare(&instructions).and_then(|()| report.write_all(READY).map_err(said)) {
        return failure;
    }
    let mut command = Command::new(&program);
    if instructions.has_watchdog {
        command.env(WATCHDOG_PID_VARIABLE, std::process::id().to_string());
    }
    heed_signals();
    let error = command.args(args).exec();
    Failure::new(Step::Program(program.to_string_lossy().into_owned()), error)
}

/// Limits and the OOM score come first, since raising them needs the rights that are given up with the user; the
/// directory comes after, since the user has to be allowed into it; and the signal at the supervisor's death comes
/// last, since the kernel forgets it when the user changes.
fn prepare(instructions: &Instructions) -> Result<(), Failure> {
    let null = File::open("/dev/null").map_err(|error| Failure::new(Step::Input, error))?;
    dup2_stdin(null).map_err(|error| Failure::new(Step::Input, error.into()))?;
    for (resource, limit) in &instructions.limits {
        let limit = Rlimit { current: limit.soft, maximum: limit.hard };
        setrlimit(resource.raw(), limit).map_err(|error| Failure::new(Step::Limit(*resource), error.into()))?;
    }
    if let Some(score) = instructions.oom_score_adjust {
        let written = fs::write("/proc/self/oom_score_adj", score.to_string());
        written.map_err(|error| Failure::new(Step::OomScore, error))?;
    }
    if let Some(identity) = &instructions.identity {
        become_user(identity)?;
    }
    if let Some(directory) = &instructions.directory {
        let entered = std::env::set_current_dir(directory);
        entered.map_err(|error| Failure::new(Step::Directory(directory.clone()), error))?;
    }
    if let Some(mask) = instructions.umask {
        umask(Mode::from_raw_mode(mask & 0o777));
    }
    tie_to_supervisor(instructions)
}

/// The calls are the thread's own, and the launcher has but one.
fn become_user(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (user, group) = (Uid::from_raw(identity.user), Gid::from_raw(identity.group));
    set_thread_groups(&groups).map_err(|error| Failure::new(Step::Groups, error.into()))?;
    set_thread_res_gid(group, group, group).map_err(|error| Failure::new(Step::Groups, error.into()))?;
    set_thread_res_uid(user, user, user).map_err(|error| Failure::new(Step::User, error.into()))
}

fn tie_to_supervisor(instructions: &Instructions) -> Result<(), Failure> {
    let Some(number) = instructions.on_supervisor_death else { return Ok(()) };
    set_parent_process_death_signal(signal::from_number(number))
        .map_err(|error| Failure::new(Step::SupervisorDeath, error.into()))?;
    // A supervisor that died before the call above would never be noticed.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) == Some(instructions.supervisor) {
        Ok(())
    } else {
        Err(Failure::new(Step::SupervisorDeath, rustix::io::Errno::SRCH.into()))
    }
}
