//! Who starts children and waits for them: one thread, which owns them all.
//!
//! A child is registered before its exit can be seen, since the thread that starts it is the one that reaps. The same
//! holds for signals: a group is signalled while its first process has not been reaped, so that its number is still
//! its own. And the thread lives as long as there are children, since the kernel takes the end of the thread that
//! started them for the supervisor's death.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use rustix::process::{Pid, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::AbortHandle,
};

use super::{Exit, Signal, procfs::Stat};

/// What the thread is asked to do.
enum Request {
    Spawn(std::process::Command, oneshot::Sender<io::Result<Spawned>>),
    Signal {
        pid: Pid,
        signal: Signal,
        to: Whom,
        reply: oneshot::Sender<io::Result<bool>>,
    },
    /// Which children have not been reaped?
    Running(oneshot::Sender<io::Result<Vec<i32>>>),
    /// A child may have ended.
    Reap,
    /// How many orphans have been reaped, with all that there are now?
    Orphans(oneshot::Sender<io::Result<u64>>),
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// The process that was started.
    Leader,
    /// Its process group.
    Group,
}

/// A child that was just started, as the launcher.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) stat: Stat,
    /// On which the launcher says what goes wrong.
    pub(super) report: UnixStream,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

/// The way to the thread; it ends when the last of these is gone.
#[derive(Clone, Debug)]
pub(super) struct Reaper(Arc<Requests>);

#[derive(Debug)]
struct Requests {
    sender: mpsc::Sender<Request>,
    orphans: watch::Receiver<u64>,
    on_child: AbortHandle,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.on_child.abort();
    }
}

/// Why children cannot be looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessesError {
    /// There can be one in a process, since it waits for every child.
    #[error("this process already has one that waits for its children")]
    SecondInProcess,
    /// The operating system refuses.
    #[error("cannot {what}: {error}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// Whether a thread waits for this process's children.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Holds [`IS_TAKEN`].
struct Turn;

impl Turn {
    fn take() -> Result<Self, ProcessesError> {
        let taken = IS_TAKEN.swap(true, Ordering::AcqRel);
        if taken { Err(ProcessesError::SecondInProcess) } else { Ok(Self) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        IS_TAKEN.store(false, Ordering::Release);
    }
}

impl Reaper {
    /// Makes this process the one that its orphaned descendants are left to, and starts the thread.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn start() -> Result<Self, ProcessesError> {
        let system = |what| move |error| ProcessesError::System { what, error };
        let turn = Turn::take()?;
        let ourselves = getpid();
        set_child_subreaper(Some(ourselves)).map_err(|error| system("become the reaper of orphans")(error.into()))?;
        let mut ended = signal(SignalKind::child()).map_err(system("listen to SIGCHLD"))?;
        let (sender, requests) = mpsc::channel();
        let (orphans, orphans_seen) = watch::channel(0);
        let thread = Thread { requests, children: BTreeMap::new(), orphans, _turn: turn };
        std::thread::Builder::new()
            .name("processes".to_owned())
            .spawn(move || thread.run())
            .map_err(system("start the thread that waits for children"))?;
        let on_child = tokio::spawn({
            let sender = sender.clone();
            async move { while ended.recv().await.is_some() && sender.send(Request::Reap).is_ok() {} }
        });
        Ok(Self(Arc::new(Requests { sender, orphans: orphans_seen, on_child: on_child.abort_handle() })))
    }

    pub(super) async fn spawn(&self, command: std::process::Command) -> io::Result<Spawned> {
        self.ask(|reply| Request::Spawn(command, reply)).await
    }

    /// Whether there was anybody to signal: the process has not been reaped.
    pub(super) async fn signal(&self, pid: Pid, signal: Signal, to: Whom) -> io::Result<bool> {
        self.ask(|reply| Request::Signal { pid, signal, to, reply }).await
    }

    /// Kills a child's group soon, without saying how that went.
    pub(super) fn kill_group(&self, pid: Pid) {
        let (reply, _) = oneshot::channel();
        let request = Request::Signal { pid, signal: Signal::KILL, to: Whom::Group, reply };
        // Without the thread there are no children either.
        let _: Result<(), mpsc::SendError<Request>> = self.0.sender.send(request);
    }

    /// The children that have not been reaped.
    pub(super) async fn running(&self) -> io::Result<Vec<i32>> {
        self.ask(Request::Running).await
    }

    /// Takes every exit there is, and tells how many processes that nobody here had started were reaped so far.
    ///
    /// A picture of all processes is not of one moment: it misses one that was started meanwhile, if the one that
    /// started it has ended meanwhile. But then that one, or an ancestor of it, was an orphan, so that this number is
    /// another after the picture than before.
    pub(super) async fn orphans_now(&self) -> io::Result<u64> {
        self.ask(Request::Orphans).await
    }

    /// How many processes that nobody here had started were reaped.
    pub(super) fn orphans(&self) -> watch::Receiver<u64> {
        self.0.orphans.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Request) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let is_gone = || io::Error::other("the thread that waits for children has ended");
        self.0.sender.send(request(reply)).map_err(|_| is_gone())?;
        answer.await.map_err(|_| is_gone())?
    }
}

/// The thread's own.
struct Thread {
    requests: mpsc::Receiver<Request>,
    /// Those that were started and have not been reaped.
    children: BTreeMap<i32, watch::Sender<Option<Exit>>>,
    orphans: watch::Sender<u64>,
    _turn: Turn,
}

impl Thread {
    fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            match request {
                // Whoever asked may have gone away: what it wanted was done all the same, and a process that nobody
                // waits for is ended by `spawn` itself.
                Request::Spawn(command, reply) => self.spawn(command, reply),
                Request::Signal { pid, signal, to, reply } => drop(reply.send(self.signal(pid, signal, to))),
                Request::Running(reply) => drop(reply.send(Ok(self.children.keys().copied().collect()))),
                Request::Reap => self.reap(),
                Request::Orphans(reply) => {
                    self.reap();
                    drop(reply.send(Ok(*self.orphans.borrow())));
                }
            }
        }
    }

    fn spawn(&mut self, command: std::process::Command, reply: oneshot::Sender<io::Result<Spawned>>) {
        let spawned = self.try_spawn(command);
        let Err(Ok(unwanted)) = reply.send(spawned) else { return };
        let _: io::Result<bool> = self.signal(unwanted.pid, Signal::KILL, Whom::Group);
    }

    fn try_spawn(&mut self, mut command: std::process::Command) -> io::Result<Spawned> {
        let (report, launchers_end) = UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let (stdout, childs_stdout) = io::pipe()?;
        let (stderr, childs_stderr) = io::pipe()?;
        command.stdin(Stdio::from(OwnedFd::from(launchers_end)));
        command.stdout(childs_stdout).stderr(childs_stderr).process_group(0);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let number = pid.as_raw_nonzero().get();
        let (sender, exit) = watch::channel(None);
        self.children.insert(number, sender);
        let stat = Stat::read(number)?;
        Ok(Spawned { pid, stat, report, stdout: stdout.into(), stderr: stderr.into(), exit })
    }

    fn signal(&self, pid: Pid, signal: Signal, to: Whom) -> io::Result<bool> {
        if !self.children.contains_key(&pid.as_raw_nonzero().get()) {
            return Ok(false);
        }
        let sent = match to {
            Whom::Leader => kill_process(pid, signal),
            Whom::Group => kill_process_group(pid, signal),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes every exit there is: signals are merged where several children end at once.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(exit) = Exit::of(status) else { continue };
            let number = pid.as_raw_nonzero().get();
            if let Some(waiting) = self.children.remove(&number) {
                waiting.send_replace(Some(exit));
            } else {
                tracing::debug!(pid = number, %exit, "an orphan was reaped");
                self.orphans.send_modify(|orphans| *orphans += 1);
            }
        }
    }
}
