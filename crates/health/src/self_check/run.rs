//! The tasks that probe.

use std::future::pending;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use evenkeel_balance::{
    CallsSeen, Check, CheckFailure, CheckOutcome, CheckReason, CheckVerdict, Entropy, FailureKind, Time,
};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::board::Board;
use super::check::SelfCheck;
use crate::reporter::WeakReporter;
use crate::{Reporter, ServingStatus, metrics};

/// Self-checks that run, until this is dropped.
#[derive(Debug)]
#[must_use = "self-checks stop when this is dropped: keep it as long as the server"]
pub struct RunningSelfChecks {
    reporter: WeakReporter,
    board: Arc<Board>,
    _tasks: JoinSet<()>,
}

impl RunningSelfChecks {
    pub(super) fn start(reporter: &Reporter, board: Arc<Board>, checks: Vec<(Arc<str>, SelfCheck)>) -> Self {
        for service in board.services() {
            reporter.set_checked(&service.service, Some(service.allowed(&board.checks())));
            if reporter.status(&service.service) == ServingStatus::ServiceUnknown {
                reporter.set(&service.service, ServingStatus::Serving);
            }
        }
        let mut tasks = JoinSet::new();
        for (at, (name, check)) in checks.into_iter().enumerate() {
            let outlet = Outlet { at, name, board: Arc::downgrade(&board), reporter: reporter.downgrade() };
            tasks.spawn(until(reporter.subscribe(), outlet.keep_probing(check)));
        }
        Self { reporter: reporter.downgrade(), board, _tasks: tasks }
    }
}

impl Drop for RunningSelfChecks {
    /// A service that nobody looks after any more shows what was set by hand.
    fn drop(&mut self) {
        let Some(reporter) = self.reporter.upgrade() else { return };
        let mut checks = self.board.checks();
        checks.clear();
        for service in self.board.services() {
            reporter.set_checked(&service.service, None);
        }
    }
}

/// Runs a task until a drain begins or no reporter is left.
async fn until(mut draining: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = draining.wait_for(|draining| *draining) => {}
        () = task => {}
    }
}

/// Where a check's findings go.
struct Outlet {
    /// Its place on the board.
    at: usize,
    name: Arc<str>,
    board: Weak<Board>,
    reporter: WeakReporter,
}

impl Outlet {
    async fn keep_probing(self, of: SelfCheck) {
        let (start, mut entropy) = (Instant::now(), seeded());
        let now = || Time::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let at = |time: Time| start + Duration::from_nanos(time.as_nanos());
        // The settings were validated before.
        let Ok(mut check) = Check::new(*of.settings(), now(), &mut entropy) else { return };
        let mut probes = Probes::of(of);
        loop {
            let Some(next) = check.next_timeout() else { return pending().await };
            sleep_until(at(next)).await;
            let Some(deadline) = check.poll(now()) else { continue };
            let begun = Instant::now();
            let outcome = probes.next(at(deadline)).await;
            metrics::probe(&self.name, outcome.label(), begun.elapsed());
            if let CheckOutcome::Failed(failure) = &outcome {
                tracing::debug!(check = %self.name, %failure, "self-check's probe failed");
            }
            if check.handle(now(), outcome, CallsSeen::NONE, &mut entropy).is_some() {
                self.turned(check.verdict(), check.reason().clone());
            }
        }
    }

    /// The check's verdict or its reason has changed.
    fn turned(&self, verdict: CheckVerdict, reason: CheckReason) {
        let (Some(reporter), Some(board)) = (self.reporter.upgrade(), self.board.upgrade()) else { return };
        metrics::check(&self.name, verdict.is_healthy());
        if verdict.is_healthy() {
            tracing::info!(check = %self.name, %reason, "self-check passes");
        } else {
            tracing::warn!(check = %self.name, %reason, "self-check fails");
        }
        // The board stays locked, so that services are told of the checks' turns in their order.
        let mut checks = board.checks();
        let Some(standing) = checks.get_mut(self.at) else { return };
        (standing.verdict, standing.reason, standing.since) = (verdict, reason, SystemTime::now());
        for service in board.services() {
            if service.members.iter().any(|member| member.check == self.at) {
                reporter.set_checked(&service.service, Some(service.allowed(&checks)));
            }
        }
    }
}

/// The probes of a check, each in a task of its own: one that panics has failed, and one that blocks holds no other up.
///
/// A task that blocks its thread cannot be ended. So no probe begins before the one before it is over: a check that
/// always blocks holds one thread of the runtime, not one for each probe.
struct Probes {
    check: Arc<Mutex<SelfCheck>>,
    task: JoinSet<CheckOutcome>,
}

impl Probes {
    fn of(check: SelfCheck) -> Self {
        Self { check: Arc::new(Mutex::new(check)), task: JoinSet::new() }
    }

    /// One probe; it is over by the deadline.
    async fn next(&mut self, deadline: Instant) -> CheckOutcome {
        let (kind, detail) = match timeout_at(deadline, self.run(deadline)).await {
            Ok(Some(Ok(outcome))) => return outcome,
            Ok(Some(Err(error))) => (FailureKind::Protocol, format!("the check itself failed: {error}")),
            Ok(None) => (FailureKind::Protocol, "the check did not run".to_owned()),
            Err(_) => (FailureKind::TimedOut, "no answer in time".to_owned()),
        };
        self.task.abort_all();
        CheckOutcome::Failed(CheckFailure::new(kind, detail))
    }

    async fn run(&mut self, deadline: Instant) -> Option<Result<CheckOutcome, JoinError>> {
        while self.task.join_next().await.is_some() {}
        let check = self.check.clone();
        self.task.spawn(async move {
            let probing = check.lock().unwrap_or_else(PoisonError::into_inner).probe_now(deadline);
            probing.await
        });
        self.task.join_next().await
    }
}

/// Randomness that differs from process to process, for the jitter of intervals.
fn seeded() -> Entropy {
    Entropy::new(RandomState::new().build_hasher().finish())
}
