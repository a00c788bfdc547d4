//! Figures for the `metrics` facade, by the names of the gRFCs.

use evenkeel_balance::{Measurement, Value};
use metrics::Label;

/// Adds what the balancing core has measured, labelled with the channel's target.
pub(crate) fn record(target: &str, measurement: &Measurement) {
    let labels = std::iter::once(Label::new("grpc.target", target.to_owned()));
    let own = measurement.labels.iter().map(|(key, value)| Label::new(*key, value.clone()));
    let labels: Vec<_> = labels.chain(own).collect();
    match measurement.value {
        Value::Count(count) => metrics::counter!(measurement.metric, labels).increment(count),
        Value::Sample(sample) => metrics::histogram!(measurement.metric, labels).record(sample),
        Value::Level(level) => metrics::gauge!(measurement.metric, labels).set(level),
        other => {
            tracing::debug!(target: "evenkeel::channel", metric = measurement.metric, ?other, "no such kind of metric");
        }
    }
}
