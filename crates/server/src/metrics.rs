//! Figures for the `metrics` facade. METRICS.md lists them for whoever reads them.

use metrics::Unit;

use crate::lifetime::Reason;

const CONNECTIONS: &str = "evenkeel.server.connections";
const ACCEPTED: &str = "evenkeel.server.connections_accepted";
const REFUSED: &str = "evenkeel.server.connections_refused";
const GOAWAYS: &str = "evenkeel.server.goaways";
const CUT_OFF: &str = "evenkeel.server.connections_cut_off";
const ACCEPT_ERRORS: &str = "evenkeel.server.accept_errors";

/// Tells the recorder the unit and the meaning of each metric.
pub(crate) fn describe() {
    metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open");
    metrics::describe_counter!(ACCEPTED, Unit::Count, "Connections accepted");
    metrics::describe_counter!(REFUSED, Unit::Count, "Connections closed at once because too many were open");
    metrics::describe_counter!(GOAWAYS, Unit::Count, "Connections that were told to go, and why");
    metrics::describe_counter!(CUT_OFF, Unit::Count, "Connections that the server closed by itself, and why");
    metrics::describe_counter!(ACCEPT_ERRORS, Unit::Count, "Failures to accept for want of files or memory");
}

/// A connection that is open as long as this is there.
#[derive(Debug)]
pub(crate) struct Open(());

impl Open {
    pub(crate) fn count() -> Self {
        metrics::counter!(ACCEPTED).increment(1);
        metrics::gauge!(CONNECTIONS).increment(1);
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(CONNECTIONS).decrement(1);
    }
}

pub(crate) fn refused() {
    metrics::counter!(REFUSED).increment(1);
}

pub(crate) fn goaway(reason: Reason) {
    metrics::counter!(GOAWAYS, "reason" => reason.name()).increment(1);
}

pub(crate) fn cut_off(reason: Reason) {
    metrics::counter!(CUT_OFF, "reason" => reason.name()).increment(1);
}

pub(crate) fn accept_failed() {
    metrics::counter!(ACCEPT_ERRORS).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_readers_has_every_metric_with_its_kind() {
        let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        let list = list.expect("METRICS.md stands at the root");
        let counters = [ACCEPTED, REFUSED, GOAWAYS, CUT_OFF, ACCEPT_ERRORS].map(|name| (name, "counter"));
        for (name, kind) in counters.into_iter().chain([(CONNECTIONS, "gauge")]) {
            let row = format!("| `{name}` | {kind} |");
            assert!(list.contains(&row), "METRICS.md has a row {row}");
        }
    }
}
