//! Starting children.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    time::{Instant, timeout},
};

use super::{
    AccountError, Child, Command, Exit, Marker, Output, ProcessesError, Remain, Signal, Step,
    account::{Account, Identity},
    launcher::{self, Failure, Instructions},
    marker::MARKER_VARIABLE,
    notify::NotifySocket,
    procfs::Stat,
    reaper::Reaper,
    remains::{self, Kin},
};

/// How long a launcher may take to become the program. It waits for disks alone.
const LAUNCHING_TAKES: Duration = Duration::from_secs(30);
/// How long [`Processes::kill_strays`] goes on.
const KILLING_TAKES: Duration = Duration::from_secs(10);
/// How often it looks where no exit tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Our own program, also after its file was replaced.
const LAUNCHER: &str = "/proc/self/exe";
/// The longest failure that a launcher reports, in bytes.
const LONGEST_REPORT: u64 = 16 * 1024;
/// What systemd tells the supervisor, and nobody else.
const SUPERVISORS_OWN: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// The children of this process: starts them, and waits for all. Also for those that others leave to it: it becomes the
/// subreaper of its descendants, and as process 1 gets every orphan.
///
/// There can be one in a process, and nothing else there may start processes. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Processes {
    reaper: Reaper,
    supervisor: Arc<Stat>,
    output: Output,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its user or group is not there.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The launcher could not be started: there are too many processes or open files, or too little memory.
    #[error("cannot start the launcher: {0}")]
    Launcher(io::Error),
    /// The socket for its notifications could not be made.
    #[error("cannot make its notification socket: {0}")]
    Socket(io::Error),
    /// The launcher failed at a step.
    #[error("cannot {step}: {error}{}", advice(.step, .error))]
    Step {
        /// At which.
        step: Step,
        /// Why.
        error: io::Error,
    },
    /// The launcher ended without a word, such as for want of memory under the limit `as`.
    #[error("the launcher {0} before it became the program")]
    Died(Exit),
    /// The launcher took longer than 30 s, and was killed. A disk that does not answer does that.
    #[error("the launcher did not become the program within 30 s: does the disk of the program or directory answer?")]
    Stuck,
}

fn advice(step: &Step, error: &io::Error) -> &'static str {
    match (step, error.kind()) {
        (Step::Program(_), io::ErrorKind::NotFound) => {
            " (it is not in PATH, or the interpreter that its first line names is missing)"
        }
        (Step::Program(_), io::ErrorKind::PermissionDenied) => {
            " (the user may not execute it, or not search a directory of PATH or on the way to it)"
        }
        (Step::Program(_), io::ErrorKind::WouldBlock) => {
            " (the user has as many processes as the limit `nproc` allows)"
        }
        (Step::Directory(_), io::ErrorKind::NotFound) => " (create it, or change `directory`)",
        (Step::User | Step::Groups, io::ErrorKind::PermissionDenied) => {
            " (another user needs a supervisor run by root)"
        }
        (Step::Limit(_), io::ErrorKind::PermissionDenied) => " (only root may raise a hard limit)",
        (Step::OomScore, io::ErrorKind::PermissionDenied) => " (only root may lower it)",
        _ => "",
    }
}

impl Processes {
    /// Makes this process the one that waits for its children, and for orphans among their descendants.
    ///
    /// What children write goes to `output`. They are started by way of the program itself, whose `main` therefore calls [`launcher::run`].
    ///
    /// # Errors
    /// If the process has one already, or the operating system refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub fn new(output: Output) -> Result<Self, ProcessesError> {
        let read = Stat::of_ourselves();
        let supervisor = read.map_err(|error| ProcessesError::System { what: "read /proc/self", error })?;
        Ok(Self { reaper: Reaper::start()?, supervisor: Arc::new(supervisor), output })
    }

    /// Starts a program, in a process group of its own. Returns when it runs: when the launcher has become it.
    ///
    /// If the future is dropped before that, the process is killed.
    ///
    /// # Errors
    /// Where it cannot be started, each with what to do. A program that starts and ends at once is no error: see
    /// [`Child::exited`].
    pub async fn start(&self, command: &Command) -> Result<Child, StartError> {
        let marker = Marker::new(&command.replica, &self.supervisor);
        let (launch, socket) = self.launch(command, &marker)?;
        let spawned = self.reaper.spawn(launch).await.map_err(StartError::Launcher)?;
        let (pid, leader) = (spawned.pid, spawned.stat.clone());
        let kin = Kin::new(self.supervisor.pid, command.replica.clone(), leader, marker);
        let child = Child::new(spawned, kin, socket, &self.output, self.reaper.clone());
        let (child, report) = child.map_err(|error| {
            self.reaper.kill_group(pid);
            StartError::Launcher(error)
        })?;
        Starting { child: Some(child) }.finish(report).await
    }

    /// Descendants that no child can be found for: not below one that runs, and so left behind by those that have
    /// ended, and hidden too well for [`Child::remains`]. Meant for the end, when every child has been stopped.
    pub async fn strays(&self) -> io::Result<Vec<Remain>> {
        let running: BTreeSet<i32> = self.reaper.running().await?.into_iter().collect();
        let supervisor = self.supervisor.pid;
        let find = move || remains::strays(supervisor, |pid| running.contains(&pid));
        tokio::task::spawn_blocking(find).await.map_err(io::Error::other)?
    }

    /// Kills what [`strays`](Self::strays) finds until it finds nothing any more, for 10 s at most. Gives what it has
    /// killed.
    pub async fn kill_strays(&self) -> io::Result<Vec<Remain>> {
        let deadline = Instant::now() + KILLING_TAKES;
        let (mut orphans, mut killed) = (self.reaper.orphans(), Vec::new());
        loop {
            orphans.mark_unchanged();
            let before = self.reaper.orphans_now().await?;
            let strays = self.strays().await?;
            let is_still = strays.is_empty() && self.reaper.orphans_now().await? == before;
            if is_still || Instant::now() >= deadline {
                return Ok(killed);
            }
            for stray in strays {
                stray.signal(Signal::KILL)?;
                if !killed.contains(&stray) {
                    killed.push(stray);
                }
            }
            // An exit that nobody tells us of, since its parent still lives, is looked for.
            let _ = timeout(LOOK_EVERY, orphans.changed()).await;
        }
    }

    /// How many processes were reaped that nobody here had started.
    pub fn orphans_reaped(&self) -> u64 {
        *self.reaper.orphans().borrow()
    }

    /// The launcher with its instructions, and with the environment of the program; and where the program speaks to us.
    fn launch(
        &self,
        command: &Command,
        marker: &Marker,
    ) -> Result<(std::process::Command, Option<NotifySocket>), StartError> {
        let account = account(command)?;
        let mut launch = std::process::Command::new(LAUNCHER);
        set_environment(&mut launch, command, account.as_ref(), marker);
        let identity = account.map(|account| account.identity).filter(|identity| !identity.is_ours());
        let socket = command.notify.map(|_| NotifySocket::new(identity.as_ref()));
        let socket = socket.transpose().map_err(StartError::Socket)?;
        if let (Some(socket), Some(notify)) = (&socket, command.notify) {
            socket.announce(notify, &mut launch);
        }
        let json = serde_json::to_string(&self.instructions(command, identity));
        launch.arg(launcher::ARGUMENT).arg(json.map_err(|error| StartError::Launcher(error.into()))?);
        launch.arg(&command.program).args(&command.args);
        Ok((launch, socket))
    }

    fn instructions(&self, command: &Command, identity: Option<Identity>) -> Instructions {
        Instructions {
            supervisor: self.supervisor.pid,
            identity,
            directory: command.directory.clone(),
            umask: command.umask,
            limits: command.limits.iter().map(|(resource, limit)| (*resource, *limit)).collect(),
            oom_score_adjust: command.oom_score_adjust,
            on_supervisor_death: command.on_supervisor_death.map(Signal::as_raw),
            has_watchdog: command.notify.is_some_and(|notify| notify.watchdog.is_some()),
        }
    }
}

fn account(command: &Command) -> Result<Option<Account>, AccountError> {
    match (&command.user, &command.group) {
        (Some(user), group) => Account::find(user, group.as_deref()).map(Some),
        (None, Some(group)) => Err(AccountError::GroupWithoutUser(group.clone())),
        (None, None) => Ok(None),
    }
}

fn set_environment(launch: &mut std::process::Command, command: &Command, account: Option<&Account>, marker: &Marker) {
    if command.inherits_environment {
        for variable in SUPERVISORS_OWN {
            launch.env_remove(variable);
        }
    } else {
        launch.env_clear();
    }
    if let Some(account) = account {
        launch.envs(account.name.iter().flat_map(|name| [("USER", name), ("LOGNAME", name)]));
        launch.envs(account.home.iter().map(|home| ("HOME", home)));
    }
    launch.envs(&command.environment).env(MARKER_VARIABLE, marker.to_string());
}

/// A child that is not yet the program. Unless it becomes that, it is killed.
struct Starting {
    child: Option<Child>,
}

impl Starting {
    async fn finish(mut self, report: std::os::unix::net::UnixStream) -> Result<Child, StartError> {
        let mut said = Vec::new();
        let report = UnixStream::from_std(report).map_err(StartError::Launcher)?;
        match timeout(LAUNCHING_TAKES, report.take(LONGEST_REPORT).read_to_end(&mut said)).await {
            Err(_) => return Err(StartError::Stuck),
            Ok(Err(error)) => return Err(StartError::Launcher(error)),
            Ok(Ok(_)) => {}
        }
        match (said.as_slice(), &self.child) {
            ([], Some(child)) => Err(StartError::Died(child.exited().await)),
            (launcher::READY, _) => self.child.take().ok_or(StartError::Stuck),
            (failure, _) => Err(understand(failure)),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            child.kill_group();
        }
    }
}

fn understand(report: &[u8]) -> StartError {
    match serde_json::from_slice::<Failure>(report) {
        Ok(Failure { step, errno }) => StartError::Step { step, error: io::Error::from_raw_os_error(errno) },
        Err(error) => StartError::Launcher(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
