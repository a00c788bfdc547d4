//! Whether tasks get to run when they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::SelfCheck;

/// Fails while tasks of this tokio runtime run later than `most` after they are due.
///
/// A task that sleeps 100 ms at a time is measured by how much later it wakes; the worst since the probe before counts. So a
/// handler that blocks a thread of the runtime shows here, as does a machine that is too busy. Probed every second.
/// While the whole runtime stands still nothing can be probed, nor told: it shows when it moves again.
pub fn event_loop(most: Duration) -> SelfCheck {
    let worst = Arc::new(Worst::default());
    let mut watch = JoinSet::new();
    let check = SelfCheck::new(move || {
        if watch.is_empty() {
            watch.spawn(keep_measuring(worst.clone()));
        }
        let late = worst.take();
        std::future::ready(if late > most { Err(Late(late, most)) } else { Ok(()) })
    });
    check.every(Duration::from_secs(1))
}

#[derive(Debug, thiserror::Error)]
#[error(
    "tasks ran up to {0:.0?} late, at most {1:?} is taken: look for handlers that block, or for too few processors"
)]
struct Late(Duration, Duration);

const PERIOD: Duration = Duration::from_millis(100);

async fn keep_measuring(worst: Arc<Worst>) {
    loop {
        let due = Instant::now() + PERIOD;
        sleep_until(due).await;
        worst.add(due.elapsed());
    }
}

/// The longest of some times, in nanoseconds.
#[derive(Debug, Default)]
struct Worst(AtomicU64);

impl Worst {
    fn add(&self, late: Duration) {
        self.0.fetch_max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn take(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_balance::CheckOutcome;

    use super::*;

    #[tokio::test]
    async fn a_thread_that_is_blocked_shows() {
        let mut check = event_loop(Duration::from_millis(300));
        let mut probe = || check.probe_now(Instant::now());
        assert_eq!(probe().await, CheckOutcome::Serving, "nothing is measured yet");
        // The measuring task begins, and then cannot wake.
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_secs(1));
        let shown = loop {
            if let CheckOutcome::Failed(shown) = probe().await {
                break shown.to_string();
            }
            tokio::task::yield_now().await;
        };
        assert!(shown.starts_with("tasks ran up to "), "{shown}");
    }
}
