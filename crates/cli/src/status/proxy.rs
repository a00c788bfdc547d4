use std::fmt::Write;

use evenkeel_supervisor::control::{EndpointStatus, ProxyStatus, TrafficStatus};

use super::{ago, columns};

const HEADINGS: [&str; 7] = ["ENDPOINT", "STATE", "FOR", "IN FLIGHT", "OK", "FAILED", "WHY"];

/// A proxy: its listener, what it does for its clients, what is in force, its groups, a line for each endpoint, and so many of its last decisions.
pub(super) fn write(text: &mut String, proxy: &ProxyStatus, decisions: usize) {
    let ProxyStatus { name, listen, upstream, state, policy, .. } = proxy;
    // Writing to a string cannot fail.
    let switched =
        proxy.switched_to.map_or_else(String::new, |group| format!(", all calls sent to group {group} by hand"));
    let _ = writeln!(text, "proxy {name} on {listen}, before {upstream}: {state}, by {policy}{switched}");
    let _ = writeln!(text, "  {}", traffic(&proxy.traffic));
    let floods: Vec<_> = proxy.floods.iter().filter(|(_, count)| **count > 0).collect();
    if !floods.is_empty() {
        let floods: Vec<_> = floods.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let _ = writeln!(text, "  connections ended because of floods: {}", floods.join(", "));
    }
    for remark in &proxy.remarks {
        let _ = writeln!(text, "  {remark}");
    }
    for group in &proxy.groups {
        let _ = writeln!(text, "  {}: {}", group.name, group.what.join("; "));
    }
    if !proxy.endpoints.is_empty() {
        let headings = HEADINGS.map(str::to_owned);
        let rows: Vec<_> = std::iter::once(headings).chain(proxy.endpoints.iter().map(row)).collect();
        for line in columns(&rows).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    let first = proxy.decisions.len().saturating_sub(decisions);
    for decision in &proxy.decisions[first..] {
        let _ = writeln!(text, "  {} ago: {}", ago(decision.ago_ms), decision.what);
    }
}

/// What there is now, and of what was turned away only what there was.
fn traffic(traffic: &TrafficStatus) -> String {
    let TrafficStatus { clients, running, held_bytes, calls, .. } = traffic;
    let refused = [
        (traffic.refused_connections, "connections refused"),
        (traffic.refused_streams, "streams refused"),
        (traffic.refused_requests, "requests that were no calls"),
        (traffic.too_long, "messages too long"),
        (traffic.held_too_much, "calls ended as too much was kept"),
    ];
    let now = format!("{clients} client connections, {running} of {calls} calls running, {held_bytes} bytes kept");
    let refused = refused.into_iter().filter(|(count, _)| *count > 0);
    refused.fold(now, |told, (count, what)| format!("{told}, {count} {what}"))
}

fn row(endpoint: &EndpointStatus) -> [String; HEADINGS.len()] {
    [
        endpoint.address.clone(),
        endpoint.state.clone(),
        ago(endpoint.for_ms),
        endpoint.in_flight.to_string(),
        endpoint.succeeded.to_string(),
        endpoint.failed.to_string(),
        endpoint.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use evenkeel_supervisor::control::{DecisionStatus, GroupStatus};

    use super::*;

    #[test]
    fn a_proxy_says_where_its_calls_go_and_why() {
        let decision = |ago_ms, what: &str| DecisionStatus { ago_ms, what: what.to_owned() };
        let proxy = ProxyStatus {
            name: "front".to_owned(),
            listen: "127.0.0.1:8080".to_owned(),
            upstream: "a:1".to_owned(),
            state: "READY".to_owned(),
            policy: "failover".to_owned(),
            switched_to: Some(1),
            remarks: vec!["panic: 0 of 1".to_owned()],
            groups: vec![GroupStatus { name: "group 0".to_owned(), what: vec!["takes 0 %".to_owned()] }],
            traffic: TrafficStatus {
                clients: 2,
                running: 3,
                calls: 40,
                refused_requests: 1,
                ..TrafficStatus::default()
            },
            floods: [("pings".to_owned(), 2), ("unread".to_owned(), 0)].into(),
            endpoints: vec![EndpointStatus {
                address: "10.0.0.1:1".to_owned(),
                state: "TRANSIENT_FAILURE".to_owned(),
                is_out: true,
                for_ms: 61_000,
                why: "connection refused".to_owned(),
                in_flight: 0,
                succeeded: 12,
                failed: 1,
            }],
            decisions: vec![decision(9_000, "older"), decision(4_000, "newer")],
        };
        let mut text = String::new();
        write(&mut text, &proxy, 1);
        assert_eq!(
            text,
            "proxy front on 127.0.0.1:8080, before a:1: READY, by failover, all calls sent to group 1 by hand\n  2 client \
             connections, 3 of 40 calls running, 0 bytes kept, 1 requests that were no calls\n  connections ended because \
             of floods: pings 2\n  panic: 0 of 1\n  \
             group 0: takes 0 %\n  ENDPOINT    STATE              FOR   IN FLIGHT  OK  FAILED  WHY\n  \
             10.0.0.1:1  TRANSIENT_FAILURE  1m1s  0          12  1       connection refused\n  4s ago: newer\n"
        );
    }
}
