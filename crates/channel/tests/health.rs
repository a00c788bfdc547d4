//! Health as a channel sees it: what servers say of themselves, and what checks find out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{sync::Arc, time::Duration};

use evenkeel_channel::{
    Channel, Report,
    balance::{Connectivity, HealthCheck, UnknownService},
};
use evenkeel_health::ServingStatus;
use evenkeel_proto::demo::echo_client::EchoClient;
use servers::{Server, request};

/// Waits until `count` endpoints are ready.
async fn ready(channel: &Channel, count: usize) {
    channel.connect();
    let is_ready = |report: &Arc<Report>| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count() == count
    };
    let mut reports = channel.reports();
    tokio::time::timeout(Duration::from_secs(10), reports.wait_for(is_ready)).await.expect("in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_that_flaps_ten_times_a_second_costs_no_call_and_no_connection() {
    const FLAPS: usize = 20;
    let (steady, flapping) = (Server::start().await, Server::start().await);
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let target = servers::target(&[&steady, &flapping]);
    let channel = Channel::builder(target).policy("round_robin").health_check(check).build().unwrap();
    ready(&channel, 2).await;
    let sockets = |mut sockets: Vec<evenkeel_channel::SocketReport>| {
        sockets.sort_by_key(|socket| socket.id);
        sockets.into_iter().map(|socket| socket.id).collect::<Vec<_>>()
    };
    let before = sockets(channel.sockets());

    let health = flapping.health.clone();
    let flaps = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for flap in 0..2 * FLAPS {
            ticks.tick().await;
            let status = if flap % 2 == 0 { ServingStatus::NotServing } else { ServingStatus::Serving };
            health.set("", status);
        }
    });
    let mut client = EchoClient::new(channel.clone());
    let mut calls = 0;
    while !flaps.is_finished() {
        client.unary(request("x")).await.expect("no call fails");
        calls += 1;
    }
    flaps.await.unwrap();
    ready(&channel, 2).await;
    assert_eq!(sockets(channel.sockets()), before, "the connections are the same");
    assert_eq!(steady.calls() + flapping.calls(), calls, "each was made once");
    assert!(flapping.calls() > 0 && flapping.calls() < calls / 2 + 1, "{} of {calls}", flapping.calls());
}
