//! A process that was started, and all that it starts.

use std::{io, os::unix::net::UnixStream, time::Duration};

use rustix::process::Pid;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Exit, Facts, Line, Marker, Notices, Output, Remain, Signal, Stream,
    notify::NotifySocket,
    output::{Pumps, Tail},
    reaper::{Reaper, Spawned, Whom},
    remains::Kin,
};

/// How often it is looked for processes that are left, where no exit tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A deadline that is found to have passed by so much says that we have not run meanwhile.
const SLEPT: Duration = Duration::from_millis(500);
/// How long processes may take to die of SIGKILL. One takes longer only inside the kernel, as on a dead network disk.
const DYING_TAKES: Duration = Duration::from_secs(10);

/// A process that was started, with all that it starts. Dropping this ends nothing.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    kin: Kin,
    exit: watch::Receiver<Option<Exit>>,
    pumps: Pumps,
    tail: Tail,
    notices: Option<watch::Receiver<Notices>>,
    reaper: Reaper,
}

/// How a stop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How the process that was started ended; none if it has not.
    pub exit: Option<Exit>,
    /// What was still there when the grace period was over, and so got SIGKILL. Empty after an orderly end.
    pub killed: Vec<Remain>,
    /// What has not died of it within 10 s. Anything here hangs inside the kernel, or may not be signalled.
    pub left: Vec<Remain>,
}

impl Child {
    /// # Errors
    /// If its pipes cannot be registered with the runtime.
    pub(super) fn new(
        spawned: Spawned,
        kin: Kin,
        socket: Option<NotifySocket>,
        output: &Output,
        reaper: Reaper,
    ) -> io::Result<(Self, UnixStream)> {
        let Spawned { pid, report, stdout, stderr, exit, .. } = spawned;
        let tail = Tail::default();
        let pipes = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let pumps = Pumps::start(output, &kin.replica, pipes, &tail, &exit)?;
        let notices = socket.map(|socket| socket.listen(exit.clone()));
        Ok((Self { pid, kin, exit, pumps, tail, notices, reaper }, report))
    }

    /// The number of the process that was started.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The mark that its processes carry.
    pub fn marker(&self) -> &Marker {
        &self.kin.marker
    }

    /// How it ended; `None` while it runs. Processes that it has left behind are none of this: see
    /// [`remains`](Self::remains).
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until it ends. May be called by several tasks, and again afterwards.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match ended {
            Some(exit) => exit,
            // The reaper's thread is gone, and with it any way to know.
            None => std::future::pending().await,
        }
    }

    /// The last 20 lines that it wrote, of both streams, the newest last.
    pub fn last_lines(&self) -> Vec<Line> {
        self.tail.lines()
    }

    /// Waits until all that it wrote before its exit has been read, and handed to the [`Output`]: then
    /// [`last_lines`](Self::last_lines) has its last words. To be given a time limit: it takes as long as whoever reads
    /// our output lets us wait.
    pub async fn drained(&self) {
        self.pumps.drained().await;
    }

    /// What it has told us of itself, always the newest; none if its [`Command::notify`](super::Command::notify) is none.
    pub fn notices(&self) -> Option<watch::Receiver<Notices>> {
        self.notices.clone()
    }

    /// Waits until its watchdog finds it hung: it has said nothing for `limit` since it said `READY=1` or `WATCHDOG=1`
    /// last, or has said `WATCHDOG=trigger`. Never, while it has said none of these: how long a start may take is
    /// another question. Where we ourselves have not run meanwhile, as after a SIGSTOP, it has as much time once more:
    /// what it said is still to be heard.
    pub async fn falls_silent(&self, limit: Duration) {
        let Some(mut notices) = self.notices() else { return std::future::pending().await };
        let mut resumed_at = None;
        loop {
            let (gives_up, alive_at) = {
                let notices = notices.borrow_and_update();
                (notices.gives_up, notices.alive_at)
            };
            let deadline =
                alive_at.and_then(|alive_at| alive_at.max(resumed_at.unwrap_or(alive_at)).checked_add(limit));
            let late = deadline.and_then(|deadline| Instant::now().checked_duration_since(deadline));
            if gives_up || late.is_some_and(|late| late < SLEPT) {
                return;
            }
            if late.is_some() {
                resumed_at = Some(Instant::now());
                continue;
            }
            tokio::select! {
                () = changed(&mut notices) => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
    }

    /// What the process uses now.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it has ended.
    pub fn facts(&self) -> io::Result<Facts> {
        Facts::of(&self.kin.leader)
    }

    /// Sends a signal to the process that was started alone, such as SIGHUP for it to reload. Whether it was still
    /// there.
    pub async fn signal(&self, signal: Signal) -> io::Result<bool> {
        self.reaper.signal(self.pid, signal, Whom::Leader).await
    }

    /// Sends a signal to all its processes: at once to its process group, then to those that have left it.
    ///
    /// # Errors
    /// Where one may not be signalled, such as a set-user-id program of another user's; the others have got it.
    pub async fn signal_all(&self, signal: Signal) -> io::Result<()> {
        // Those that can be known by their ancestors alone have to be seen before these die of the signal. If that
        // fails, so does the second look, which is told.
        drop(self.remains().await);
        let group = self.reaper.signal(self.pid, signal, Whom::Group).await;
        let was_group_signalled = *group.as_ref().unwrap_or(&false);
        let kin = self.kin.clone();
        let signal_rest = move || -> io::Result<()> {
            let others = kin.remains()?.into_iter().filter(|remain| !was_group_signalled || !kin.is_in_group(remain));
            others.map(|remain| remain.signal(signal)).fold(Ok(()), io::Result::and)
        };
        let rest = blocking(signal_rest).await;
        group.and(rest)
    }

    /// Its processes that still run: itself, what it has started, and what those have, also where they have left its
    /// process group and session. Reads `/proc`.
    pub async fn remains(&self) -> io::Result<Vec<Remain>> {
        let kin = self.kin.clone();
        blocking(move || kin.remains()).await
    }

    /// Ends it and everything that it has started: `signal` (usually SIGTERM) to all, and SIGCONT so that stopped ones
    /// get it; SIGKILL to what is still there after `grace`. Returns as soon as nothing is. After a child's own end, it
    /// ends what the child has left behind.
    ///
    /// # Errors
    /// Where `/proc` cannot be read. Processes that may not be signalled are in [`Stopped::left`].
    pub async fn stop(&self, signal: Signal, grace: Duration) -> io::Result<Stopped> {
        let deadline = Instant::now() + grace;
        for signal in [signal, Signal::CONT] {
            if let Err(error) = self.signal_all(signal).await {
                self.warn(signal, &error);
            }
        }
        // While it runs itself, nothing needs to be looked for.
        let is_dead = timeout_at(deadline, self.exited()).await.is_ok();
        if is_dead && self.until_gone(deadline).await? {
            return Ok(Stopped { exit: self.exit(), killed: Vec::new(), left: Vec::new() });
        }
        self.kill().await
    }

    /// Kills what there is, and what that starts meanwhile, until there is nothing.
    async fn kill(&self) -> io::Result<Stopped> {
        let deadline = Instant::now() + DYING_TAKES;
        let mut killed: Vec<Remain> = Vec::new();
        loop {
            let found = self.remains().await?;
            killed.extend(found.into_iter().filter(|remain| !killed.contains(remain)).collect::<Vec<_>>());
            let sent = self.signal_all(Signal::KILL).await;
            if self.until_gone(deadline.min(Instant::now() + LOOK_EVERY)).await? {
                return Ok(Stopped { exit: self.exit(), killed, left: Vec::new() });
            } else if Instant::now() >= deadline {
                sent.unwrap_or_else(|error| self.warn(Signal::KILL, &error));
                return Ok(Stopped { exit: self.exit(), killed, left: self.remains().await? });
            }
        }
    }

    /// Whether nothing is there any more, at the deadline at the latest.
    async fn until_gone(&self, deadline: Instant) -> io::Result<bool> {
        let mut orphans = self.reaper.orphans();
        let mut exit = self.exit.clone();
        loop {
            exit.mark_unchanged();
            orphans.mark_unchanged();
            let (is_dead, orphans_before) = (self.exit().is_some(), self.reaper.orphans_now().await?);
            if self.remains().await?.is_empty() && is_dead {
                // Only a picture in which nothing moved shows that nothing is there.
                if self.reaper.orphans_now().await? == orphans_before {
                    return Ok(true);
                }
            } else if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::select! {
                () = changed(&mut exit) => {}
                () = changed(&mut orphans) => {}
                () = sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => {}
            }
        }
    }

    fn warn(&self, signal: Signal, error: &io::Error) {
        let (marker, signal) = (self.marker(), super::signal::name(signal));
        tracing::warn!(%marker, signal, %error, "not every process could be signalled");
    }

    /// Kills its process group soon.
    pub(super) fn kill_group(&self) {
        self.reaper.kill_group(self.pid);
    }
}

/// Never, where there will be no change any more.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
