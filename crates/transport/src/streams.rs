use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::socket::StreamCounts;

/// Counts a connection's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Streams {
    pub(crate) fn started(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    /// A stream is over; `ended` says whether the peer ended it in good order.
    pub(crate) fn over(&self, ended: bool) {
        let counter = if ended { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> StreamCounts {
        let (succeeded, failed) = (self.succeeded.load(Relaxed), self.failed.load(Relaxed));
        StreamCounts { started: self.started.load(Relaxed), succeeded, failed }
    }
}
