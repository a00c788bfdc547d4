use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What one endpoint is doing now and has done so far.
///
/// Counters are written by the calls of that endpoint alone and stand on cache lines of their own, so that picking one
/// endpoint never slows the picking of another. They outlive reconnects and picker snapshots.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    in_flight: AtomicU32,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    suspect: AtomicBool,
}

/// What pickers hear of one connection whose peer owes a sign of life. Only what was raised here is cleared, at the latest
/// when this is dropped: the endpoint may have another connection by now.
#[derive(Debug)]
pub struct Suspicion {
    load: Arc<Load>,
    is_raised: bool,
}

impl Load {
    /// Calls that have begun and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Calls begun since the endpoint became known.
    pub fn started(&self) -> u64 {
        self.started.load(Relaxed)
    }

    /// Calls that ended with status OK.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    /// Calls that ended with any other status, cancelled ones included.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Whether the endpoint's connection has calls outstanding, has fallen silent, and has been asked for a sign of life
    /// ([`Progress`](crate::Progress)). Pickers would rather have another one: the answer is a moment away, and if none
    /// comes, fewer calls wait for it.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Relaxed)
    }

    /// Marks the endpoint as suspect, or clears it: for the driver, which has its connection.
    pub fn suspect(&self, is_suspect: bool) {
        self.suspect.store(is_suspect, Relaxed);
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.started.fetch_add(1, Relaxed);
    }

    pub(crate) fn withdraw(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.started.fetch_sub(1, Relaxed);
    }

    pub(crate) fn end(&self, ok: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        let counter = if ok { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

impl Suspicion {
    /// None yet, of the endpoint with this load.
    pub fn new(load: Arc<Load>) -> Self {
        Self { load, is_raised: false }
    }

    /// Raises or clears it.
    pub fn set(&mut self, is_raised: bool) {
        if std::mem::replace(&mut self.is_raised, is_raised) != is_raised {
            self.load.suspect(is_raised);
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.set(false);
    }
}
