use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use evenkeel_balance::{CheckFailure, CheckOutcome, CheckSettings, FailureKind};
use tokio::time::Instant;

/// A self-check: what is probed, and how often.
///
/// By default it is probed every 5 s, and every second while it fails; a probe may take 1 s; 2 failures in a row make it
/// fail, and 2 successes in a row make it pass again.
pub struct SelfCheck {
    probe: Probe,
    settings: CheckSettings,
}

/// Begins a probe that is dropped at the given time.
type Probe = Box<dyn FnMut(Instant) -> Probing + Send>;

/// A probe on its way.
pub(super) type Probing = Pin<Box<dyn Future<Output = CheckOutcome> + Send>>;

impl SelfCheck {
    /// Calls `probe` for each probe; an error's text says what is wrong, in logs and explanations.
    ///
    /// Each probe is a task of its own: one that takes too long is dropped, and one that panics has failed.
    pub fn new<P, F, E>(mut probe: P) -> Self
    where
        P: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::of(move |_| {
            let probing = probe();
            Box::pin(async move {
                let failed = |error: E| CheckFailure::new(FailureKind::Status, error.to_string());
                probing.await.map_or_else(|error| CheckOutcome::Failed(failed(error)), |()| CheckOutcome::Serving)
            })
        })
    }

    /// A check whose probes know more kinds of outcome, and until when they may take.
    pub(super) fn of(probe: impl FnMut(Instant) -> Probing + Send + 'static) -> Self {
        let mut settings = CheckSettings::every(Duration::from_secs(5));
        settings.failing_interval = Duration::from_secs(1);
        settings.timeout = Duration::from_secs(1);
        Self { probe: Box::new(probe), settings }
    }

    /// From the start of one probe to the start of the next while all is well, ± 10 %. Default 5 s. While it fails, the
    /// interval is 1 s, or this if it is shorter.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self.settings.failing_interval = Duration::from_secs(1).min(interval);
        self
    }

    /// A probe that takes longer has failed. Default 1 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Failures in a row that make it fail. Default 2. The first probe of all decides alone.
    #[must_use]
    pub fn fall(mut self, failures: u32) -> Self {
        self.settings.fall = failures;
        self
    }

    /// Successes in a row that make it pass again. Default 2.
    #[must_use]
    pub fn rise(mut self, successes: u32) -> Self {
        self.settings.rise = successes;
        self
    }

    /// All settings, in place of what was set before.
    #[must_use]
    pub fn settings_of(mut self, settings: CheckSettings) -> Self {
        self.settings = settings;
        self
    }

    pub(super) fn settings(&self) -> &CheckSettings {
        &self.settings
    }

    /// Begins a probe, which may take until then.
    pub(super) fn probe_now(&mut self, deadline: Instant) -> Probing {
        (self.probe)(deadline)
    }
}

impl fmt::Debug for SelfCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}
