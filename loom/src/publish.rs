//! How a call waits for a newer snapshot. `ArcSwap` and tokio's `watch` know nothing of loom, so this is a model of
//! `Shared::publish` and `Shared::newer_than`: the store that publishes is a release and the load an acquire, as in
//! `ArcSwap`, and a `watch` is a value under a lock that its waiters look at before they sleep.

use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

#[derive(Default)]
struct Shared {
    /// The version of the snapshot.
    snapshot: AtomicU64,
    version: Mutex<u64>,
    changed: Condvar,
}

impl Shared {
    fn snapshot(&self) -> u64 {
        self.snapshot.load(Ordering::Acquire)
    }

    /// The snapshot first, then the news of it.
    fn publish(&self, version: u64) {
        self.snapshot.store(version, Ordering::Release);
        *self.version.lock().unwrap() = version;
        self.changed.notify_all();
    }

    fn newer_than(&self, version: u64) -> u64 {
        let mut newest = self.version.lock().unwrap();
        while *newest <= version {
            newest = self.changed.wait(newest).unwrap();
        }
        *newest
    }
}

/// A call that has found nothing in the snapshot it saw waits for a newer one, and always comes to the last: loom fails
/// the model if it sleeps for ever.
pub(crate) fn newer_is_not_missed() {
    let shared = Arc::new(Shared::default());
    let driver = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        driver.publish(1);
        driver.publish(2);
    });
    let mut seen = shared.snapshot();
    while seen < 2 {
        shared.newer_than(seen);
        let now = shared.snapshot();
        assert!(now > seen, "it does not turn in vain");
        seen = now;
    }
    thread.join().unwrap();
}

pub(crate) fn told_is_found() {
    let shared = Arc::new(Shared::default());
    let driver = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        driver.publish(1);
        driver.publish(2);
    });
    let told = shared.newer_than(0);
    assert!(shared.snapshot() >= told);
    thread.join().unwrap();
}
