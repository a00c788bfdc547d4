//! Figures for the `metrics` facade. METRICS.md lists them for whoever reads them.

use std::time::Duration;

use evenkeel_balance::{CheckOutcome, Transition};
use metrics::Unit;

const PROBES: &str = "evenkeel.check.probes";
const DURATION: &str = "evenkeel.check.duration";
const DELAY: &str = "evenkeel.check.delay";
const TRANSITIONS: &str = "evenkeel.check.transitions";

/// Tells the recorder the unit and the meaning of each metric.
pub(crate) fn describe() {
    metrics::describe_counter!(PROBES, Unit::Count, "Probes that have ended, and how");
    metrics::describe_histogram!(DURATION, Unit::Seconds, "From the start of a probe to its end, connecting included");
    metrics::describe_histogram!(DELAY, Unit::Seconds, "From the moment that a probe was planned for to its start");
    metrics::describe_counter!(TRANSITIONS, Unit::Count, "Changes of a verdict");
}

/// A probe has ended.
pub(crate) fn probed(kind: &'static str, outcome: &CheckOutcome, took: Duration) {
    metrics::counter!(PROBES, "evenkeel.check.kind" => kind, "evenkeel.check.outcome" => outcome.label()).increment(1);
    metrics::histogram!(DURATION, "evenkeel.check.kind" => kind).record(took.as_secs_f64());
}

/// A probe has started so late.
pub(crate) fn started(kind: &'static str, late: Duration) {
    metrics::histogram!(DELAY, "evenkeel.check.kind" => kind).record(late.as_secs_f64());
}

/// A verdict has changed. A new reason for the same verdict is no change here.
pub(crate) fn changed(kind: &'static str, transition: &Transition) {
    let Transition { from, to, .. } = transition;
    if from != to {
        let (from, to) = (from.label(), to.label());
        metrics::counter!(TRANSITIONS, "evenkeel.check.kind" => kind, "evenkeel.check.from" => from, "evenkeel.check.to" => to)
            .increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_readers_has_every_metric_with_its_kind() {
        let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        let list = list.expect("METRICS.md stands at the root");
        for (name, kind) in
            [(PROBES, "counter"), (DURATION, "histogram"), (DELAY, "histogram"), (TRANSITIONS, "counter")]
        {
            let row = format!("| `{name}` | {kind} |");
            assert!(list.contains(&row), "METRICS.md has a row {row}");
        }
    }
}
