use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tonic::server::NamedService;

use crate::ServingStatus;
use crate::registry::{Effects, Registry};
use crate::self_check::{Board, Explanation, SelfCheckError, SelfChecks};

/// Sets what callers are told about a server and its services. Clones set the same.
///
/// Every change of what callers see is logged at `info`. No method waits.
#[derive(Clone, Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Mutex<Registry>,
    draining: watch::Sender<bool>,
    /// What the self-checks that run have found.
    board: Mutex<Weak<Board>>,
}

impl Reporter {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry: Mutex::new(registry),
                draining: watch::Sender::new(false),
                board: Mutex::default(),
            }),
        }
    }

    /// Registers a service by its full name, or changes its status; `""` is the whole server.
    ///
    /// [`ServingStatus::ServiceUnknown`] does what [`clear`](Self::clear) does. After a [`shutdown`](Self::shutdown)
    /// the status is kept for [`resume`](Self::resume), and `NOT_SERVING` is shown.
    pub fn set(&self, service: &str, status: ServingStatus) {
        self.change(|registry| registry.set(service, status));
    }

    /// [`set`](Self::set)s the service of a generated server, such as `EchoServer<MyEcho>`, to SERVING.
    pub fn set_serving<S: NamedService>(&self) {
        self.set(S::NAME, ServingStatus::Serving);
    }

    /// [`set`](Self::set)s the service of a generated server, such as `EchoServer<MyEcho>`, to `NOT_SERVING`.
    pub fn set_not_serving<S: NamedService>(&self) {
        self.set(S::NAME, ServingStatus::NotServing);
    }

    /// Takes a service out: its watchers are told `SERVICE_UNKNOWN` and stay, a `Check` of it fails with `NOT_FOUND`.
    pub fn clear(&self, service: &str) {
        self.set(service, ServingStatus::ServiceUnknown);
    }

    /// What a caller is told about a service now; [`ServingStatus::ServiceUnknown`] if it is not registered.
    pub fn status(&self, service: &str) -> ServingStatus {
        self.lock().status(service)
    }

    /// Shows every registered service as `NOT_SERVING` until [`resume`](Self::resume).
    ///
    /// The server runs on; to end it, see [`drain`](Self::drain).
    pub fn shutdown(&self) {
        self.change(Registry::shutdown);
    }

    /// Ends a [`shutdown`](Self::shutdown): each service shows the status that was last set. A drain stays a drain.
    pub fn resume(&self) {
        self.change(Registry::resume);
    }

    /// Self-checks, by which services show SERVING only while what they need is well; see [`SelfChecks`].
    pub fn self_checks(&self) -> SelfChecks {
        SelfChecks::new(self.clone())
    }

    /// Why each registered service shows what it shows, with the standing of its self-checks.
    pub fn explain(&self) -> Explanation {
        let board = self.board().upgrade();
        Explanation::of(board.as_deref(), || {
            let registry = self.lock();
            let by_hand = |name| registry.status_by_hand(name).unwrap_or(ServingStatus::ServiceUnknown);
            registry.registered().map(|(name, status)| (name.to_owned(), status, by_hand(name))).collect()
        })
    }

    /// Begins a drain: from now on every registered service shows `NOT_SERVING`, whatever is set.
    ///
    /// What [`drain`](Self::drain) or [`drain_on_signal`](Self::drain_on_signal) has made of this reporter goes on as if
    /// its trigger had come; so one call from anywhere in a program ends its server in order. A second call
    /// does nothing.
    pub fn begin_drain(&self) {
        self.change(Registry::begin_drain);
        self.shared.draining.send_replace(true);
    }

    /// Resolves when a drain has begun.
    pub(crate) async fn draining(&self) {
        // The sender lives as long as this reporter.
        let _ = self.subscribe().wait_for(|draining| *draining).await;
    }

    /// Tells when a drain has begun; closed when no reporter is left.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.shared.draining.subscribe()
    }

    /// Makes this the board of the self-checks that run.
    pub(crate) fn set_board(&self, board: &Arc<Board>) -> Result<(), SelfCheckError> {
        let mut slot = self.board();
        if slot.strong_count() > 0 {
            return Err(SelfCheckError::Running);
        }
        *slot = Arc::downgrade(board);
        Ok(())
    }

    pub(crate) fn set_checked(&self, service: &str, checked: Option<ServingStatus>) {
        self.change(|registry| registry.set_checked(service, checked));
    }

    /// The same without keeping it alive.
    pub(crate) fn downgrade(&self) -> WeakReporter {
        WeakReporter(Arc::downgrade(&self.shared))
    }

    fn board(&self) -> MutexGuard<'_, Weak<Board>> {
        self.shared.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.change(Registry::close);
    }

    /// The registry holds no invariant across a panic that a half-done change could break for others.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.shared.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Registry) -> Effects) {
        let effects = change(&mut self.lock());
        effects.run();
    }
}

/// A reporter that does not keep what it reports on alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakReporter(Weak<Shared>);

impl WeakReporter {
    /// `None` when every reporter and health service is gone.
    pub(crate) fn upgrade(&self) -> Option<Reporter> {
        self.0.upgrade().map(|shared| Reporter { shared })
    }
}
