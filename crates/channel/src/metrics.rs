//! Figures for the `metrics` facade, by the names of the gRFCs. METRICS.md lists them for whoever reads them.

use evenkeel_balance::{Measurement, Value};
use metrics::{Label, Unit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What an exporter is told of a metric.
struct Description {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    text: &'static str,
}

const fn metric(kind: Kind, name: &'static str, unit: Unit, text: &'static str) -> Description {
    Description { name, kind, unit, text }
}

/// Every metric of a channel: of its calls, and of its policies and subchannels.
const METRICS: &[Description] = &[
    metric(
        Kind::Counter,
        "grpc.client.attempt.started",
        Unit::Count,
        "Attempts begun, those that have not ended included",
    ),
    metric(Kind::Histogram, "grpc.client.attempt.duration", Unit::Seconds, "From an attempt's start to its end"),
    metric(
        Kind::Histogram,
        "grpc.client.attempt.sent_total_compressed_message_size",
        Unit::Bytes,
        "Messages sent by an attempt, as compressed, without framing",
    ),
    metric(
        Kind::Histogram,
        "grpc.client.attempt.rcvd_total_compressed_message_size",
        Unit::Bytes,
        "Messages received by an attempt, as compressed, without framing",
    ),
    metric(
        Kind::Histogram,
        "grpc.client.call.duration",
        Unit::Seconds,
        "From a call's start to its end, for its caller",
    ),
    metric(Kind::Histogram, "grpc.client.call.retries", Unit::Count, "Retries of a call that was retried"),
    metric(
        Kind::Histogram,
        "grpc.client.call.transparent_retries",
        Unit::Count,
        "Retries of a call that no server had processed",
    ),
    metric(Kind::Histogram, "grpc.client.call.hedges", Unit::Count, "Hedges of a call that was hedged"),
    metric(
        Kind::Histogram,
        "grpc.client.call.retry_delay",
        Unit::Seconds,
        "Time of a call in which none of its attempts was running",
    ),
    metric(
        Kind::Counter,
        "grpc.subchannel.connection_attempts_succeeded",
        Unit::Count,
        "Attempts to connect that have made a connection",
    ),
    metric(Kind::Counter, "grpc.subchannel.connection_attempts_failed", Unit::Count, "Attempts to connect that failed"),
    metric(Kind::Counter, "grpc.subchannel.disconnections", Unit::Count, "Connections that have ended, and how"),
    metric(Kind::Gauge, "grpc.subchannel.open_connections", Unit::Count, "Connections that take calls"),
    metric(Kind::Counter, "evenkeel.check.transitions", Unit::Count, "Changes of a check's verdict"),
    metric(
        Kind::Counter,
        "grpc.lb.pick_first.connection_attempts_succeeded",
        Unit::Count,
        "Connections that a leaf of the policies took for its own",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.pick_first.connection_attempts_failed",
        Unit::Count,
        "Attempts of a leaf of the policies that failed",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.pick_first.disconnections",
        Unit::Count,
        "Connections that a leaf of the policies has lost",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.wrr.rr_fallback",
        Unit::Count,
        "Updates of the weights that found too few of them, so that endpoints take turns",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.wrr.endpoint_weight_not_yet_usable",
        Unit::Count,
        "Endpoints without a weight yet, at each update",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.wrr.endpoint_weight_stale",
        Unit::Count,
        "Endpoints whose weight has expired, at each update",
    ),
    metric(Kind::Histogram, "grpc.lb.wrr.endpoint_weights", Unit::Count, "The endpoints' weights, at each update"),
    metric(Kind::Gauge, "evenkeel.failover.share", Unit::Count, "Each group's part of all calls, from 0 to 1"),
    metric(Kind::Counter, "evenkeel.failover.steps", Unit::Count, "Steps of failover and failback, and which"),
    metric(
        Kind::Counter,
        "grpc.lb.outlier_detection.ejections_enforced",
        Unit::Count,
        "Endpoints taken out because of their failures",
    ),
    metric(
        Kind::Counter,
        "grpc.lb.outlier_detection.ejections_unenforced",
        Unit::Count,
        "Outliers that were left in, and why",
    ),
];

/// Tells the recorder the unit and the meaning of each metric.
pub(crate) fn describe() {
    for Description { name, kind, unit, text } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *text),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *text),
            Kind::Histogram => metrics::describe_histogram!(*name, *unit, *text),
        }
    }
}

/// Adds what the balancing core has measured, labelled with the channel's target.
pub(crate) fn record(target: &str, measurement: &Measurement) {
    let labels = std::iter::once(Label::new("grpc.target", target.to_owned()));
    let own = measurement.labels.iter().map(|(key, value)| Label::new(*key, value.clone()));
    let labels: Vec<_> = labels.chain(own).collect();
    match measurement.value {
        Value::Count(count) => metrics::counter!(measurement.metric, labels).increment(count),
        Value::Sample(sample) => metrics::histogram!(measurement.metric, labels).record(sample),
        Value::Level(level) => metrics::gauge!(measurement.metric, labels).set(level),
        Value::Change(change) => metrics::gauge!(measurement.metric, labels).increment(change),
        other => {
            tracing::debug!(target: "evenkeel::channel", metric = measurement.metric, ?other, "no such kind of metric");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_readers_has_every_metric_with_its_kind() {
        let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        let list = list.expect("METRICS.md stands at the root");
        for Description { name, kind, .. } in METRICS {
            let kind = format!("{kind:?}").to_lowercase();
            let row = format!("| `{name}` | {kind} |");
            assert!(list.contains(&row), "METRICS.md has a row {row}");
        }
    }
}
