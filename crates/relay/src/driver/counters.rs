use std::sync::atomic::{AtomicU64, Ordering};

/// What one worker has done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted and kept.
    pub accepted: Counter,
    /// Connections that were closed at once, since there are too many.
    pub refused: Counter,
    /// Times that accepting failed, for want of file descriptors say.
    pub accept_errors: Counter,
    /// TLS handshakes that failed or took too long, on either side.
    pub tls_failures: Counter,
    /// Bytes that were read from sockets.
    pub bytes_in: Counter,
    /// Bytes that were written to sockets.
    pub bytes_out: Counter,
    /// Turns of the loop.
    pub turns: Counter,
}

/// A number that one thread adds to and any may read.
///
/// Having one writer, it is added to by a load and a store: an atomic addition would hold up the processor for longer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Only the worker that owns it calls this.
    pub(super) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: usize) {
        self.add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
