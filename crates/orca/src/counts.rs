use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tonic::Code;

/// The calls of a server, for its rates and its concurrency.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    running: AtomicU32,
    ended: AtomicU32,
    failed: AtomicU32,
}

impl Counts {
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running { counts: Arc::clone(self), failed: false }
    }

    pub(crate) fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// Calls that ended, those that failed among them. The count wraps round.
    pub(crate) fn ended(&self) -> u32 {
        self.ended.load(Relaxed)
    }

    /// Calls that failed. The count wraps round.
    pub(crate) fn failed(&self) -> u32 {
        self.failed.load(Relaxed)
    }
}

/// A call that runs; dropped on any path, it counts the call as ended.
#[derive(Debug)]
pub(crate) struct Running {
    counts: Arc<Counts>,
    failed: bool,
}

impl Running {
    /// Tells how the call ended. A call of which this is not told was given up by its client, which is no fault of the
    /// server's.
    pub(crate) fn ended_with(&mut self, code: Code) {
        self.failed = is_the_servers_failure(code);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Relaxed);
        self.counts.ended.fetch_add(1, Relaxed);
        self.counts.failed.fetch_add(u32::from(self.failed), Relaxed);
    }
}

/// The other codes are answers: a server that often says `NOT_FOUND` is not to get fewer calls for it.
fn is_the_servers_failure(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | ResourceExhausted | Unimplemented | Internal | Unavailable | DataLoss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_however_they_end() {
        let counts = Arc::new(Counts::default());
        let mut calls: Vec<_> = (0..4).map(|_| counts.begin()).collect();
        assert_eq!((counts.running(), counts.ended(), counts.failed()), (4, 0, 0));
        calls[0].ended_with(Code::Ok);
        calls[1].ended_with(Code::NotFound);
        calls[2].ended_with(Code::Internal);
        drop(calls);
        assert_eq!((counts.running(), counts.ended(), counts.failed()), (0, 4, 1));
    }
}
