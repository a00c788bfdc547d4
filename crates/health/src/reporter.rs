use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::server::NamedService;

use crate::ServingStatus;
use crate::registry::{Effects, Registry};

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
}

impl Reporter {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { shared: Arc::new(Shared { registry: Mutex::new(registry), draining: watch::Sender::new(false) }) }
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
        let _ = self.shared.draining.subscribe().wait_for(|draining| *draining).await;
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
