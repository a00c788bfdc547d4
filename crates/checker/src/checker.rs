use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use evenkeel_balance::{
    Address, CallsSeen, Check, CheckReason, CheckSettings, CheckSettingsError, CheckVerdict, Entropy, History, Time,
    Transition,
};
use evenkeel_transport::Clock;
use tokio::{sync::watch, task::JoinHandle};

use crate::{Prober, metrics, prober::News};

/// A server under check: a task that probes it until this is dropped.
///
/// ```
/// # use evenkeel_balance::{CheckSettings, CheckVerdict};
/// # use evenkeel_checker::{Checker, Probe};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A port that nobody listens on.
/// let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
/// let checker = Checker::start(Probe::grpc("").at(address)?, CheckSettings::default())?;
/// let change = checker.transitions().next().await.expect("it is not dropped");
/// assert_eq!(change.to, CheckVerdict::Unhealthy);
/// println!("{change}");
/// # Ok(())
/// # }
/// ```
pub struct Checker {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    task: JoinHandle<()>,
}

/// What the task and those who look at it share.
struct Shared {
    address: Address,
    check: Mutex<Check>,
    clock: Clock,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// What the checks of a server make of it at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The verdict.
    pub verdict: CheckVerdict,
    /// Why.
    pub reason: CheckReason,
    /// Since when, counted from the start of the checker.
    pub since: Time,
}

impl Checker {
    /// Starts to check.
    ///
    /// # Errors
    /// Settings that make no sense.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time.
    pub fn start(prober: Prober, settings: CheckSettings) -> Result<Self, CheckSettingsError> {
        let mut entropy = Entropy::new(rand::random());
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            address: prober.address().clone(),
            check: Mutex::new(Check::new(settings, clock.now(), &mut entropy)?),
            clock,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let (sender, changes) = watch::channel(());
        let task = Task { prober, shared: Arc::clone(&shared), entropy, changes: sender };
        Ok(Self { shared, changes, task: tokio::spawn(task.run()) })
    }

    /// The server's address.
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// What the checks make of it.
    pub fn verdict(&self) -> CheckVerdict {
        self.shared.check().verdict()
    }

    /// The verdict with its reason, and since when.
    pub fn standing(&self) -> Standing {
        let check = self.shared.check();
        Standing { verdict: check.verdict(), reason: check.reason().clone(), since: check.since() }
    }

    /// The last transitions, as many as [`CheckSettings::history`] says.
    pub fn history(&self) -> History {
        self.shared.check().history().clone()
    }

    /// By which its times are counted: [`Clock::instant`] makes them comparable with others'.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Tells how a call to the server ended: calls that succeed keep it in use while its probes fail
    /// ([`Check`] has the rule).
    pub fn record(&self, succeeded: bool) {
        let counter = if succeeded { &self.shared.succeeded } else { &self.shared.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// The transitions, from the oldest that the history has.
    pub fn transitions(&self) -> Transitions {
        Transitions { shared: Arc::clone(&self.shared), changes: self.changes.clone(), next: 0 }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("address", &self.shared.address)
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}

/// Transitions as they happen.
pub struct Transitions {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    /// The number of the next one, among all that there ever were.
    next: u64,
}

impl Transitions {
    /// The next transition; `None` once the [`Checker`] is dropped and all are told. Who falls behind by more than the
    /// history keeps misses the oldest.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            self.changes.mark_unchanged();
            if let Some(transition) = self.untold() {
                return Some(transition);
            }
            self.changes.changed().await.ok()?;
        }
    }

    fn untold(&mut self) -> Option<Transition> {
        let check = self.shared.check();
        let history = check.history();
        self.next = self.next.max(history.dropped());
        let place = usize::try_from(self.next - history.dropped()).ok()?;
        let transition = history.iter().nth(place)?.clone();
        self.next += 1;
        Some(transition)
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transitions")
            .field("address", &self.shared.address)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// A panic elsewhere has left it as it was: every change is made by one call.
    fn check(&self) -> MutexGuard<'_, Check> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls since this was last asked.
    fn take_calls(&self) -> CallsSeen {
        CallsSeen { succeeded: self.succeeded.swap(0, Relaxed), failed: self.failed.swap(0, Relaxed) }
    }
}

/// The task of a checker.
struct Task {
    prober: Prober,
    shared: Arc<Shared>,
    entropy: Entropy,
    changes: watch::Sender<()>,
}

impl Task {
    async fn run(mut self) {
        let clock = self.shared.clock;
        loop {
            let next = self.shared.check().next_timeout().unwrap_or_else(|| clock.now());
            // The timer first: no peer can talk so much that it is not probed.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(clock.instant(next)) => self.probe(next).await,
                news = self.prober.news() => self.heed(news),
            }
        }
    }

    async fn probe(&mut self, planned: Time) {
        let (clock, started) = (self.shared.clock, self.shared.clock.now());
        let Some(deadline) = self.shared.check().poll(started) else { return };
        metrics::started(self.prober.kind(), started.since(planned));
        let outcome = self.prober.probe(clock.instant(deadline)).await;
        let now = clock.now();
        tracing::trace!(target: "evenkeel::checker", address = %self.shared.address, %outcome, "probed");
        let calls = self.shared.take_calls();
        let transition = self.shared.check().handle(now, outcome, calls, &mut self.entropy);
        self.publish(transition);
    }

    fn heed(&mut self, news: News) {
        let now = self.shared.clock.now();
        let transition = match news {
            News::Said(statement) => self.shared.check().hear(now, statement),
            News::Lost => {
                self.shared.check().hasten(now);
                None
            }
        };
        self.publish(transition);
    }

    fn publish(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let Transition { from, to, reason, .. } = &transition;
        tracing::info!(target: "evenkeel::checker", address = %self.shared.address, kind = self.prober.kind(), %from, %to, %reason, "check verdict");
        metrics::changed(self.prober.kind(), &transition);
        self.changes.send_replace(());
    }
}
