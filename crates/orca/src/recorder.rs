use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_process::Process;
use evenkeel_proto::orca::open_rca_service_server::OpenRcaServiceServer;

use crate::counts::{Counts, Running};
use crate::history::{History, Rates, Sample};
use crate::metrics::Metrics;
use crate::service::{self, MIN_INTERVAL, OpenRcaService};
use crate::{CallRecorder, Layer, LoadReport, Metric, OutOfRange};

/// What the server says of its load: what it measures by itself, and what the application sets in place of that.
///
/// Clones share everything. Make one for the process, give its [`layer`](Self::layer) and [`service`](Self::service) to
/// the server, and keep a clone if the application sets metrics.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// What a [`Recorder`] fills in by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// [`Metric::CpuUtilization`]: processor time of this process by what is available to it, which is the control
    /// group's quota if there is one. [`Metric::MemoryUtilization`]: of the control group's limit, or else of the
    /// machine's memory. Default true. Processor time is told on Unix, the rest on Linux.
    pub process: bool,
    /// [`Metric::Qps`] and [`Metric::Eps`]: the calls that ended and those that failed, as the [`Layer`] sees them.
    /// Default true.
    pub calls: bool,
    /// How many calls the server does well at once. [`Metric::ApplicationUtilization`] is then the share of it that runs,
    /// and above 1 when more do. Default none: that metric is not filled in. Nothing is limited by this.
    pub concurrency_limit: Option<NonZeroU32>,
}

impl Measures {
    /// Nothing: reports hold what the application sets, and no more.
    pub const NONE: Self = Self { process: false, calls: false, concurrency_limit: None };
}

impl Default for Measures {
    fn default() -> Self {
        Self { process: true, calls: true, concurrency_limit: None }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder with the default [`Measures`].
    pub fn new() -> Self {
        Self::with(Measures::default())
    }

    /// A recorder that fills in these.
    pub fn with(measures: Measures) -> Self {
        let process = measures.process.then(Process::this);
        let counts = Arc::default();
        let history = History::new(sample(Instant::now(), &counts, process.as_ref()));
        let shared = Shared {
            measures,
            set: Mutex::default(),
            counts,
            process,
            history: Mutex::new(history),
            measured: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets a metric of the server, in place of what was set or is measured, until it is set again or cleared.
    ///
    /// # Errors
    /// A value outside the [`Metric`]'s range is refused.
    pub fn set(&self, metric: Metric<'_>, value: f64) -> Result<(), OutOfRange> {
        lock(&self.shared.set).set(metric, value)
    }

    /// Forgets what was set: the metric is again what is measured, or not reported if it is not.
    pub fn clear(&self, metric: Metric<'_>) {
        lock(&self.shared.set).clear(metric);
    }

    /// The report as it is now. Rates and shares are measured at most twice a second, over the last five seconds.
    pub fn report(&self) -> LoadReport {
        self.metrics().into_report()
    }

    /// The layer that counts calls and reports in their trailers.
    pub fn layer(&self) -> Layer {
        Layer::new(self.clone())
    }

    /// The service that streams reports to whoever asks, at most every 30 s (gRFC A51).
    pub fn service(&self) -> OpenRcaServiceServer<OpenRcaService> {
        self.service_with(MIN_INTERVAL)
    }

    /// The service with another shortest interval between the reports of a stream. A caller that asks for a shorter one
    /// gets this. Below a millisecond it counts as one.
    pub fn service_with(&self, min_interval: Duration) -> OpenRcaServiceServer<OpenRcaService> {
        service::server(self.clone(), min_interval)
    }

    pub(crate) fn begin_call(&self) -> Running {
        self.shared.counts.begin()
    }

    /// The report for a call that ends.
    pub(crate) fn report_of(&self, call: &CallRecorder) -> LoadReport {
        self.metrics().under(&call.metrics()).into_report()
    }

    fn metrics(&self) -> Metrics {
        self.shared.measured(Instant::now()).under(&lock(&self.shared.set))
    }
}

#[derive(Debug)]
struct Shared {
    measures: Measures,
    set: Mutex<Metrics>,
    counts: Arc<Counts>,
    process: Option<Process>,
    history: Mutex<History>,
    measured: Mutex<Measured>,
}

/// What the last sample told; nothing until the second one.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    cpu_utilization: Option<f64>,
    memory_utilization: Option<f64>,
    rates: Option<Rates>,
}

impl Shared {
    fn measured(&self, now: Instant) -> Metrics {
        self.sample_if_due(now);
        let Measured { cpu_utilization, memory_utilization, rates } = *lock(&self.measured);
        let rates = rates.filter(|_| self.measures.calls);
        Metrics {
            cpu_utilization,
            memory_utilization,
            application_utilization: self.measures.concurrency_limit.map(|limit| self.share_of(limit)),
            qps: rates.map(|rates| rates.qps),
            eps: rates.map(|rates| rates.eps),
            ..Metrics::default()
        }
    }

    /// Takes a sample, unless another thread is at it: no call waits for one.
    fn sample_if_due(&self, now: Instant) {
        let Ok(mut history) = self.history.try_lock() else { return };
        if !history.is_due(now) {
            return;
        }
        let rates = history.push(sample(now, &self.counts, self.process.as_ref()));
        let process = self.process.as_ref();
        let measured = Measured {
            cpu_utilization: process.and_then(Process::processors).map(|all| rates.processors / all),
            memory_utilization: process.and_then(Process::memory_utilization),
            rates: Some(rates),
        };
        *lock(&self.measured) = measured;
    }

    fn share_of(&self, limit: NonZeroU32) -> f64 {
        f64::from(self.counts.running()) / f64::from(limit.get())
    }
}

fn sample(at: Instant, counts: &Counts, process: Option<&Process>) -> Sample {
    let busy = process.map_or(Duration::ZERO, |_| Process::busy());
    Sample { at, calls: counts.ended(), errors: counts.failed(), busy }
}

/// A thread that panicked with the lock has left nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn what_is_set_stands_in_for_what_is_measured_until_it_is_cleared() -> Result<(), OutOfRange> {
        let limit = NonZeroU32::new(4);
        let recorder = Recorder::with(Measures { concurrency_limit: limit, ..Measures::NONE });
        let calls = [recorder.begin_call(), recorder.begin_call()];
        assert_eq!(recorder.report().application_utilization, 0.5);
        recorder.set(Metric::ApplicationUtilization, 0.9)?;
        assert_eq!(recorder.clone().report().application_utilization, 0.9);
        recorder.clear(Metric::ApplicationUtilization);
        drop(calls);
        assert_eq!(recorder.report(), LoadReport::default());
        Ok(())
    }

    #[test]
    fn calls_and_the_process_are_measured_from_the_second_sample_on() {
        let recorder = Recorder::new();
        let start = Instant::now();
        assert_eq!(recorder.shared.measured(start), Metrics::default());
        for code in [Code::Ok, Code::Ok, Code::NotFound, Code::Internal] {
            recorder.begin_call().ended_with(code);
        }
        let metrics = recorder.shared.measured(start + Duration::from_secs(1));
        let (qps, eps) = (metrics.qps.unwrap(), metrics.eps.unwrap());
        // The recorder's first sample is a little older than `start`.
        assert!(qps > 0.0 && qps <= 4.0, "{qps}");
        assert!((qps / eps - 4.0).abs() < 1e-9, "{qps} {eps}");
        assert_eq!(metrics.memory_utilization.is_some(), cfg!(target_os = "linux"));
        assert!(metrics.cpu_utilization.is_some_and(|share| share >= 0.0));
    }

    #[test]
    fn between_samples_the_last_one_serves() {
        let recorder = Recorder::with(Measures { calls: true, ..Measures::NONE });
        let later = Instant::now() + Duration::from_secs(1);
        let first = recorder.shared.measured(later);
        recorder.begin_call().ended_with(Code::Ok);
        assert_eq!(recorder.shared.measured(later + Duration::from_millis(400)), first);
        assert!(recorder.shared.measured(later + Duration::from_millis(600)).qps > first.qps);
    }
}
