use std::sync::{Arc, Mutex};

use tonic::Request;

use crate::metrics::Metrics;
use crate::recorder::lock;
use crate::{Metric, OutOfRange};

/// What one call says of its load: its own costs, and metrics in place of the server's. Clones share everything.
///
/// It may be written to until the call ends; the last value of a metric is reported, in the call's trailers.
#[derive(Clone, Debug, Default)]
pub struct CallRecorder {
    metrics: Arc<Mutex<Metrics>>,
}

impl CallRecorder {
    /// The recorder of the call that this is the request of. `None` if the server does not have the
    /// [`Layer`](crate::Layer).
    pub fn of<T>(request: &Request<T>) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Sets a metric for this call's report, in place of the server's.
    ///
    /// # Errors
    /// A value outside the [`Metric`]'s range is refused.
    pub fn set(&self, metric: Metric<'_>, value: f64) -> Result<(), OutOfRange> {
        lock(&self.metrics).set(metric, value)
    }

    /// Sets what this call costs, by a measure of the application's own and in its unit.
    ///
    /// # Errors
    /// A cost that is not finite is refused.
    pub fn set_request_cost(&self, name: &str, cost: f64) -> Result<(), OutOfRange> {
        lock(&self.metrics).set_request_cost(name, cost)
    }

    /// Sets any other metric of the application's own. Policies can be told to weigh endpoints by it (gRFC A114).
    ///
    /// # Errors
    /// A value that is not finite is refused.
    pub fn set_named(&self, name: &str, value: f64) -> Result<(), OutOfRange> {
        lock(&self.metrics).set_named(name, value)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        lock(&self.metrics).clone()
    }
}
