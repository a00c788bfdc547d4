//! What was used, and what the checkers' own figures say.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram as Counts;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// What this process has used.
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    at: Instant,
    cpu: Duration,
    resident: u64,
}

impl Usage {
    pub(crate) fn now() -> Result<Self> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?);
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let resident = line.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { wall: Duration::ZERO, at: Instant::now(), cpu, resident })
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self { wall: self.at - before.at, cpu: self.cpu - before.cpu, ..self }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.cpu.as_secs_f64() / self.wall.as_secs_f64() * 100.0;
        write!(f, "CPU {share:.1} % of a core over {:.1?}; RSS {} MiB", self.wall, self.resident / 1024)
    }
}

/// The checkers' figures.
#[derive(Clone, Default)]
pub(crate) struct Figures(Arc<Kept>);

#[derive(Default)]
struct Kept {
    passed: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    delay: Arc<Times>,
    duration: Arc<Times>,
}

impl Figures {
    /// Takes in what the checkers count from now on.
    pub(crate) fn install() -> Result<Self> {
        let figures = Self::default();
        metrics::set_global_recorder(figures.clone()).map_err(|error| anyhow!("{error}"))?;
        Ok(figures)
    }

    pub(crate) fn clear(&self) {
        self.0.passed.store(0, Relaxed);
        self.0.failed.store(0, Relaxed);
        self.0.delay.clear();
        self.0.duration.clear();
    }

    pub(crate) fn report(&self, over: Duration) -> String {
        let (passed, failed) = (self.0.passed.load(Relaxed), self.0.failed.load(Relaxed));
        let seconds = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (passed + failed) * 1_000 / seconds;
        format!(
            "{rate} probes/s, {failed} of {} failed; they started late by {}; they took {}",
            passed + failed,
            self.0.delay,
            self.0.duration
        )
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "evenkeel.check.probes" {
            return Counter::noop();
        }
        let passed = key.labels().any(|label| label.value() == "serving");
        Counter::from_arc(Arc::clone(if passed { &self.0.passed } else { &self.0.failed }))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match key.name() {
            "evenkeel.check.delay" => Histogram::from_arc(Arc::clone(&self.0.delay)),
            "evenkeel.check.duration" => Histogram::from_arc(Arc::clone(&self.0.duration)),
            _ => Histogram::noop(),
        }
    }
}

/// Times, in microseconds.
struct Times(Mutex<Counts<u64>>);

impl Times {
    fn with<T>(&self, look: impl FnOnce(&mut Counts<u64>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn clear(&self) {
        self.with(Counts::clear);
    }
}

impl Default for Times {
    fn default() -> Self {
        Self(Mutex::new(Counts::new(3).expect("three digits are few enough")))
    }
}

impl HistogramFn for Times {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are neither long nor negative")]
    fn record(&self, seconds: f64) {
        self.with(|counts| counts.saturating_record((seconds * 1e6) as u64));
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |quantile| Duration::from_micros(self.with(|counts| counts.value_at_quantile(quantile)));
        write!(f, "p50 {:.2?}, p99 {:.2?}, at most {:.2?}", of(0.5), of(0.99), of(1.0))
    }
}
