//! Figures for the `metrics` facade. METRICS.md lists them for whoever reads them.

use std::{net::SocketAddr, time::Duration};

use metrics::Unit;

use crate::{Figures, Monitor};

/// How often they are brought up to date.
const EVERY: Duration = Duration::from_secs(1);

/// The label with the address that the proxy listens on: a process may have several proxies.
const LISTEN: &str = "evenkeel.proxy.listen";

/// A flood that has ended a connection, by the label `evenkeel.proxy.flood`.
const FLOODS: &str = "evenkeel.proxy.floods";

/// A metric: its name, its unit, its meaning, and its value.
struct Metric(&'static str, Unit, &'static str, fn(&Figures) -> u64);

const GAUGES: &[Metric] = &[
    Metric("evenkeel.proxy.clients", Unit::Count, "Client connections that are open", |of| of.clients as u64),
    Metric("evenkeel.proxy.running", Unit::Count, "Calls that run", |of| of.running as u64),
    Metric("evenkeel.proxy.held", Unit::Bytes, "Payload kept for slow sides and further attempts", |of| of.held as u64),
];

const COUNTERS: &[Metric] = &[
    Metric("evenkeel.proxy.clients_accepted", Unit::Count, "Client connections accepted", |of| {
        of.counters.clients_accepted
    }),
    Metric("evenkeel.proxy.clients_refused", Unit::Count, "Client connections closed at once, as too many", |of| {
        of.refused_connections
    }),
    Metric("evenkeel.proxy.accept_errors", Unit::Count, "Failures to accept", |of| of.accept_errors),
    Metric("evenkeel.proxy.tls_failures", Unit::Count, "TLS handshakes that failed", |of| of.tls_failures),
    Metric("evenkeel.proxy.bytes_in", Unit::Bytes, "Bytes read from sockets", |of| of.bytes_in),
    Metric("evenkeel.proxy.bytes_out", Unit::Bytes, "Bytes written to sockets", |of| of.bytes_out),
    Metric("evenkeel.proxy.calls", Unit::Count, "Calls begun", |of| of.counters.calls),
    Metric("evenkeel.proxy.calls_cancelled", Unit::Count, "Calls reset by their clients", |of| of.counters.cancelled),
    Metric("evenkeel.proxy.calls_timed_out", Unit::Count, "Calls ended at their deadlines", |of| of.counters.timed_out),
    Metric("evenkeel.proxy.calls_too_long", Unit::Count, "Calls ended by a message beyond the limit", |of| {
        of.counters.too_long
    }),
    Metric("evenkeel.proxy.calls_held_too_much", Unit::Count, "Calls ended as too much payload was kept", |of| {
        of.counters.held_too_much
    }),
    Metric("evenkeel.proxy.requests_refused", Unit::Count, "Requests that were no gRPC calls", |of| {
        of.counters.refused
    }),
    Metric("evenkeel.proxy.connected", Unit::Count, "Connections made to endpoints", |of| of.counters.connected),
    Metric("evenkeel.proxy.streams_refused", Unit::Count, "Streams beyond what was allowed at once", |of| {
        of.counters.connections.refused
    }),
    Metric("evenkeel.proxy.stream_errors", Unit::Count, "Stream errors that peers made", |of| {
        of.counters.connections.glitches
    }),
    Metric("evenkeel.proxy.connection_errors", Unit::Count, "Connections ended by their peers' errors", |of| {
        of.counters.connections.connection_errors
    }),
    Metric(
        "evenkeel.proxy.connections_timed_out",
        Unit::Count,
        "Connections whose peers began and did not go on",
        |of| of.counters.connections.timeouts,
    ),
];

/// Tells the recorder the unit and the meaning of each metric.
fn describe() {
    for Metric(name, unit, text, _) in GAUGES {
        metrics::describe_gauge!(*name, *unit, *text);
    }
    for Metric(name, unit, text, _) in COUNTERS {
        metrics::describe_counter!(*name, *unit, *text);
    }
    metrics::describe_counter!(FLOODS, Unit::Count, "Connections ended because of a flood, by its kind");
}

/// Keeps the metrics of a proxy up to date. Never ends.
pub(crate) async fn keep(monitor: Monitor, listen: SocketAddr) {
    describe();
    let listen = listen.to_string();
    loop {
        write(&monitor.figures().await, monitor.workers.len(), &listen);
        tokio::time::sleep(EVERY).await;
    }
}

/// Counters stay as they are once a worker has ended and its part is missing.
#[allow(clippy::cast_precision_loss, reason = "gauges are floats")]
fn write(figures: &Figures, workers: usize, listen: &str) {
    for Metric(name, _, _, value) in GAUGES {
        metrics::gauge!(*name, LISTEN => listen.to_owned()).set(value(figures) as f64);
    }
    if figures.workers < workers {
        return;
    }
    for Metric(name, _, _, value) in COUNTERS {
        metrics::counter!(*name, LISTEN => listen.to_owned()).absolute(value(figures));
    }
    for (kind, count) in figures.counters.connections.floods.by_kind() {
        metrics::counter!(FLOODS, LISTEN => listen.to_owned(), "evenkeel.proxy.flood" => kind).absolute(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_readers_has_every_metric_with_its_kind() {
        let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        let list = list.expect("METRICS.md stands at the root");
        let gauges = GAUGES.iter().map(|Metric(name, unit, ..)| (*name, "gauge", *unit));
        let counters = COUNTERS.iter().map(|Metric(name, unit, ..)| (*name, "counter", *unit));
        for (name, kind, unit) in gauges.chain(counters).chain([(FLOODS, "counter", Unit::Count)]) {
            let row = format!("| `{name}` | {kind} |");
            let row = list.lines().find(|line| line.starts_with(&row)).expect(name);
            assert_eq!(unit == Unit::Bytes, row.contains("| bytes |"), "{row}");
        }
    }
}
