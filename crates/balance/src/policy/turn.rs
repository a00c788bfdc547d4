use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Numbers the picks of a picker: each gets the next number, which wraps around.
///
/// On a cache line of its own, so that counting slows nothing else.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Turn(AtomicU32);

impl Turn {
    /// Counts from `start`: many clients that start alike are to start at different places.
    pub(super) fn new(start: u64) -> Self {
        Self(AtomicU32::new((start >> 32) as u32))
    }

    /// The next number.
    pub(super) fn next(&self) -> u32 {
        self.0.fetch_add(1, Relaxed)
    }
}
