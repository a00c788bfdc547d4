use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::handle::Message;
use crate::{
    Input, RunId,
    process::{Child, Command, Notices, Processes, Signal, Stopped},
};

/// For a stop that the engine itself follows with a kill.
const UNTIL_KILLED: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the last words of a process may take to be read.
const LAST_WORDS_TAKE: Duration = Duration::from_secs(1);

/// What is to be done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Terminate,
    Kill,
}

/// Starts a process and tells what becomes of it, until nothing of it runs any more. Deeds that come before it has
/// started are done then.
pub(super) struct Tend {
    pub(super) run: RunId,
    pub(super) command: Command,
    pub(super) processes: Processes,
    pub(super) deeds: mpsc::UnboundedReceiver<Deed>,
    pub(super) messages: mpsc::UnboundedSender<Message>,
    /// Where the engine finds the process.
    pub(super) child: watch::Sender<Option<Arc<Child>>>,
}

type Stopping = Pin<Box<dyn Future<Output = std::io::Result<Stopped>> + Send>>;

impl Tend {
    pub(super) async fn run(mut self) {
        let child = match self.processes.start(&self.command).await {
            Ok(child) => Arc::new(child),
            Err(error) => return self.tell(Input::StartFailed(self.run, error.to_string())),
        };
        self.child.send_replace(Some(Arc::clone(&child)));
        self.tell(Input::Started(self.run, child.pid()));
        let heard = tokio::spawn(listen(self.run, Arc::clone(&child), self.command.notify, self.messages.clone()));
        self.follow(&child).await;
        heard.abort();
        let _ = tokio::time::timeout(LAST_WORDS_TAKE, child.drained()).await;
        self.tell(Input::Gone(self.run));
    }

    /// Until nothing of it runs.
    async fn follow(&mut self, child: &Arc<Child>) {
        let mut has_exited = false;
        let mut stopping: Option<Stopping> = None;
        loop {
            tokio::select! {
                exit = child.exited(), if !has_exited => {
                    has_exited = true;
                    self.tell(Input::Exited(self.run, exit));
                }
                Some(deed) = self.deeds.recv() => stopping = Some(stop(Arc::clone(child), deed)),
                stopped = done(&mut stopping) => {
                    if let (false, Some(exit)) = (has_exited, child.exit()) {
                        self.tell(Input::Exited(self.run, exit));
                    }
                    return self.report(stopped);
                }
            }
        }
    }

    fn report(&self, stopped: std::io::Result<Stopped>) {
        let replica = &self.command.replica;
        match stopped {
            Ok(Stopped { killed, left, .. }) => {
                let list = |remains: Vec<_>| remains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                if !killed.is_empty() {
                    tracing::warn!(target: "evenkeel::supervisor", replica, killed = list(killed), "killed what did not end");
                }
                if !left.is_empty() {
                    tracing::error!(target: "evenkeel::supervisor", replica, left = list(left), "even SIGKILL did not end these: they hang inside the kernel");
                }
            }
            Err(error) => {
                tracing::error!(target: "evenkeel::supervisor", replica, %error, "cannot tell whether everything has ended");
            }
        }
    }

    fn tell(&self, input: Input) {
        // Fails only where the engine has ended.
        let _ = self.messages.send(Message::Input(input));
    }
}

/// Never, while nothing is being stopped.
async fn done(stopping: &mut Option<Stopping>) -> std::io::Result<Stopped> {
    match stopping {
        Some(stopping) => stopping.await,
        None => std::future::pending().await,
    }
}

fn stop(child: Arc<Child>, deed: Deed) -> Stopping {
    Box::pin(async move {
        match deed {
            Deed::Terminate => child.stop(Signal::TERM, UNTIL_KILLED).await,
            Deed::Kill => child.stop(Signal::KILL, Duration::ZERO).await,
        }
    })
}

/// Tells what the process says of itself.
async fn listen(
    run: RunId,
    child: Arc<Child>,
    notify: Option<crate::process::Notify>,
    messages: mpsc::UnboundedSender<Message>,
) {
    let Some(notify) = notify else { return };
    let Some(mut notices) = child.notices() else { return };
    let ready = async {
        if notices.wait_for(|notices: &Notices| notices.is_ready).await.is_ok() {
            let _ = messages.send(Message::Input(Input::Ready(run)));
        }
    };
    let silent = async {
        match notify.watchdog {
            Some(limit) => child.falls_silent(limit).await,
            None => std::future::pending().await,
        }
        let _ = messages.send(Message::Input(Input::Silent(run)));
    };
    tokio::join!(ready, silent);
}
