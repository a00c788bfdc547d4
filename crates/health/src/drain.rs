use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Reporter;

/// How a server leaves.
///
/// From the trigger on, every service shows `NOT_SERVING`. After [`grace`](Self::grace) all `Watch` streams end and
/// the server is told to shut down: tonic then takes no connection, sends GOAWAY and lets running calls finish. At
/// [`deadline`](Self::deadline) those that still run are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long the server still takes calls after it shows `NOT_SERVING`. Default 1 s.
    ///
    /// Callers that `Watch` know within a round trip, so 1 s leaves room for a busy machine. Where callers poll `Check`,
    /// or a registry sends them, give the poll's interval times its failure threshold: a caller that has not noticed
    /// connects to a closed port.
    pub grace: Duration,
    /// The longest time from the trigger to the end, `grace` included. Default 25 s; `Duration::MAX` for no end.
    ///
    /// The default is below the 30 s after which Kubernetes kills a container. Too short cuts calls off; too
    /// long lets one open stream hold the process. Only [`Draining::run`] can keep it.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: Duration::from_secs(1), deadline: Duration::from_secs(25) }
    }
}

impl Reporter {
    /// Drains when `trigger` resolves, or at [`begin_drain`](Self::begin_drain). What is returned does nothing until it is awaited, or [`run`](Draining::run).
    pub fn drain(&self, drain: Drain, trigger: impl Future<Output = ()> + Send + 'static) -> Draining {
        Draining::new(self.clone(), drain, trigger, None)
    }

    /// Drains on SIGTERM or SIGINT (on Windows: Ctrl-C), or at [`begin_drain`](Self::begin_drain).
    ///
    /// A second signal ends a [`run`](Draining::run) at once, with an error. Where the drain is awaited without
    /// `run`, nothing else could stop the server, so the second signal exits the process, with code 1.
    ///
    /// From this call on the process no longer dies of these signals by itself.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its IO driver enabled.
    pub fn drain_on_signal(&self, drain: Drain) -> io::Result<Draining> {
        let (mut first, mut second) = (Signals::listen()?, Signals::listen()?);
        let trigger = async move { first.recv().await };
        let hurry = async move {
            second.recv().await;
            second.recv().await;
        };
        Ok(Draining::new(self.clone(), drain, trigger, Some(Box::pin(hurry))))
    }
}

/// A drain that waits for its trigger.
///
/// [`run`](Self::run) a server under it. Or hand it, as the future that it is, to tonic's `serve_with_shutdown`: it
/// resolves when the server is to shut down. Then nothing keeps the [`deadline`](Drain::deadline), and a
/// second signal exits the process.
#[must_use = "a drain does nothing unless it is awaited or run"]
pub struct Draining {
    drain: Drain,
    signal: Event,
    begun: oneshot::Receiver<()>,
    /// A second signal, until somebody waits for it.
    hurry: Option<Event>,
    /// Exits the process on it, where the drain is not run.
    exit: Option<JoinHandle<()>>,
}

type Event = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Draining {
    fn new(
        reporter: Reporter,
        drain: Drain,
        trigger: impl Future<Output = ()> + Send + 'static,
        hurry: Option<Event>,
    ) -> Self {
        let (announce, begun) = oneshot::channel();
        let signal = async move {
            tokio::select! {
                () = trigger => {}
                () = reporter.draining() => {}
            }
            tracing::info!(grace = ?drain.grace, deadline = ?drain.deadline, "drain begins");
            // Nobody listens when the drain is awaited without `run`.
            let _ = announce.send(());
            reporter.begin_drain();
            sleep(drain.grace).await;
            reporter.close();
        };
        Self { drain, signal: Box::pin(signal), begun, hurry, exit: None }
    }

    /// Runs the server that `serve` makes until it ends, or the drain's deadline, or a second signal.
    ///
    /// `serve` gets the future that tonic's `serve_with_shutdown` and its kin take. Connections that tonic has
    /// spawned end with the runtime: after an error return from `main`.
    ///
    /// # Errors
    /// [`DrainError::Server`] is the server's own; the others say why running calls were given up.
    pub async fn run<T, E, S>(mut self, serve: impl FnOnce(Event) -> S) -> Result<T, DrainError<E>>
    where
        S: Future<Output = Result<T, E>>,
    {
        let signal = std::mem::replace(&mut self.signal, Box::pin(pending()));
        let hurry = self.hurry.take().unwrap_or_else(|| Box::pin(pending()));
        tokio::select! {
            biased;
            ended = serve(signal) => ended.map_err(DrainError::Server),
            () = hurry => Err(DrainError::Hurried),
            () = overdue(&mut self.begun, self.drain.deadline) => Err(DrainError::Deadline(self.drain.deadline)),
        }
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(hurry) = self.hurry.take() {
            self.exit = Some(tokio::spawn(exit_after(hurry)));
        }
        self.signal.as_mut().poll(cx)
    }
}

impl Drop for Draining {
    /// Before the drain has begun, a server that is gone needs no exit. Once it has, servers may drop it.
    fn drop(&mut self) {
        let not_begun = matches!(self.begun.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        self.exit.take().filter(|_| not_begun).inspect(JoinHandle::abort);
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("drain", &self.drain).finish_non_exhaustive()
    }
}

/// How a server under a drain failed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError<E> {
    /// The server failed by itself.
    #[error("the server failed")]
    Server(#[source] E),
    /// Calls still ran at the drain's deadline.
    #[error(
        "calls still ran {0:?} after the drain began and were cut off: give calls deadlines, or the drain a later one"
    )]
    Deadline(Duration),
    /// A second signal came before the last call had ended.
    #[error("a second signal ended the drain: calls that still ran were cut off")]
    Hurried,
}

async fn exit_after(hurry: Event) {
    hurry.await;
    tracing::error!("a second signal: the process exits, calls that still run are cut off");
    std::process::exit(1);
}

async fn overdue(begun: &mut oneshot::Receiver<()>, deadline: Duration) {
    match begun.await {
        Ok(()) => sleep(deadline).await,
        // The server let go of its shutdown signal before the drain began: only its own end can follow.
        Err(_) => pending().await,
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn recv(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{ServingStatus, service};
    use tokio::time::Instant;

    fn drain() -> Drain {
        Drain { grace: Duration::from_secs(3), deadline: Duration::from_secs(10) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_shows_not_serving_for_its_grace() {
        let (reporter, _health) = service();
        let (trigger, triggered) = oneshot::channel();
        let draining = tokio::spawn(reporter.drain(drain(), async { triggered.await.unwrap() }));
        tokio::task::yield_now().await;
        assert_eq!(reporter.status(""), ServingStatus::Serving, "the trigger has not come");
        let begin = Instant::now();
        trigger.send(()).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(reporter.status(""), ServingStatus::NotServing);
        assert!(!draining.is_finished());
        draining.await.unwrap();
        // tokio's timers have a grain of 1 ms.
        assert_eq!(begin.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_begins_a_drain_for_good() {
        let (reporter, _health) = service();
        let draining = reporter.drain(drain(), pending());
        let begin = Instant::now();
        reporter.begin_drain();
        reporter.begin_drain();
        reporter.set("", ServingStatus::Serving);
        assert_eq!(reporter.status(""), ServingStatus::NotServing);
        draining.await;
        assert_eq!(begin.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_end_is_given_up_at_the_deadline() {
        let (reporter, _health) = service();
        let begin = Instant::now();
        let draining = reporter.drain(drain(), async {});
        let ended = draining.run(|signal| async {
            signal.await;
            pending::<Result<(), Infallible>>().await
        });
        assert!(matches!(ended.await, Err(DrainError::Deadline(at)) if at == drain().deadline));
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_run_at_once() {
        let (reporter, _health) = service();
        let begin = Instant::now();
        let draining = Draining::new(reporter, drain(), async {}, Some(Box::pin(sleep(Duration::from_secs(1)))));
        let ended = draining.run(|signal| async {
            signal.await;
            pending::<Result<(), Infallible>>().await
        });
        assert!(matches!(ended.await, Err(DrainError::Hurried)));
        assert_eq!(begin.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_by_itself_ends_the_run() {
        let (reporter, _health) = service();
        let draining = reporter.drain(drain(), pending());
        let ended = draining.run(|_| async { Err::<(), _>(io::Error::other("port in use")) });
        assert!(matches!(ended.await, Err(DrainError::Server(error)) if error.to_string() == "port in use"));

        let draining = reporter.drain(drain(), pending());
        let letting_go = |signal| async move {
            drop(signal);
            sleep(Duration::from_secs(60)).await;
            Ok::<_, Infallible>("done")
        };
        assert_eq!(draining.run(letting_go).await.unwrap(), "done");
    }
}
