//! Figures for the `metrics` facade. METRICS.md lists them for whoever reads them.

use std::sync::Arc;
use std::time::Duration;

use metrics::Unit;

use crate::ServingStatus;

const SERVING: &str = "evenkeel.health.serving";
const CHECK: &str = "evenkeel.health.check";
const PROBES: &str = "evenkeel.health.check_probes";
const DURATION: &str = "evenkeel.health.check_duration";
const WATCHES_REFUSED: &str = "evenkeel.health.watches_refused";

/// Tells the recorder the unit and the meaning of each metric.
pub(crate) fn describe() {
    metrics::describe_gauge!(SERVING, Unit::Count, "1 while callers are told that the service is SERVING, else 0");
    metrics::describe_gauge!(CHECK, Unit::Count, "1 while a self-check passes, 0 while it fails or has not ended yet");
    metrics::describe_counter!(PROBES, Unit::Count, "Probes of self-checks that ended, and how");
    metrics::describe_histogram!(DURATION, Unit::Seconds, "From the start of a self-check's probe to its end");
    metrics::describe_counter!(WATCHES_REFUSED, Unit::Count, "Watch streams that were refused, and why");
}

pub(crate) fn shown(service: &Arc<str>, status: ServingStatus) {
    let serving = u32::from(status == ServingStatus::Serving);
    metrics::gauge!(SERVING, "service" => service.clone()).set(serving);
}

pub(crate) fn check(check: &Arc<str>, passes: bool) {
    metrics::gauge!(CHECK, "check" => check.clone()).set(u32::from(passes));
}

pub(crate) fn probe(check: &Arc<str>, outcome: &'static str, took: Duration) {
    metrics::counter!(PROBES, "check" => check.clone(), "outcome" => outcome).increment(1);
    metrics::histogram!(DURATION, "check" => check.clone()).record(took);
}

pub(crate) fn watch_refused(reason: &'static str) {
    metrics::counter!(WATCHES_REFUSED, "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_readers_has_every_metric_with_its_kind() {
        let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        let list = list.expect("METRICS.md stands at the root");
        let metrics = [
            (SERVING, "gauge"),
            (CHECK, "gauge"),
            (PROBES, "counter"),
            (DURATION, "histogram"),
            (WATCHES_REFUSED, "counter"),
        ];
        for (name, kind) in metrics {
            let row = format!("| `{name}` | {kind} |");
            assert!(list.contains(&row), "METRICS.md has a row {row}");
        }
    }
}
