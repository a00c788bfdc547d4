//! Health as a channel sees it: what servers say of themselves, and what checks find out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_channel::{
    Builder, Channel, Report,
    balance::{CheckSettings, Connectivity, HealthCheck, UnknownService},
    checker::Probe,
};
use evenkeel_health::ServingStatus;
use evenkeel_proto::{
    demo::echo_client::EchoClient,
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_server::{Health, HealthServer},
    },
};
use servers::{Server, request};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

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

/// A server of Check alone, which answers with this status; 0 for no answer at all.
#[derive(Clone)]
struct CheckOnly(Arc<AtomicI32>);

#[tonic::async_trait]
impl Health for CheckOnly {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.0.load(SeqCst) {
            0 => std::future::pending().await,
            status => Ok(Response::new(HealthCheckResponse { status })),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only Check"))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("only Check"))
    }
}

#[tokio::test]
async fn a_server_without_watch_is_asked_by_check() {
    let status = Arc::new(AtomicI32::new(2));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = HealthServer::new(CheckOnly(Arc::clone(&status)));
    tokio::spawn(tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming));
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let channel = Channel::builder(target).policy("round_robin").health_check(check).build().unwrap();

    out_because(&channel, r#""" is NOT_SERVING"#).await;
    status.store(1, SeqCst);
    ready(&channel, 1).await;
    status.store(0, SeqCst);
    out_because(&channel, r#"the health checks of "" fail: 2 probes in a row failed"#).await;
    status.store(1, SeqCst);
    ready(&channel, 1).await;
}

/// Waits until the first endpoint is connected and out, for a reason that begins so.
async fn out_because(channel: &Channel, reason: &str) {
    channel.connect();
    let is_out = |report: &Arc<Report>| {
        report.endpoints.first().is_some_and(|endpoint| {
            let state = &endpoint.state;
            state.service == Connectivity::TransientFailure && state.reason.contains(reason)
        })
    };
    let mut reports = channel.reports();
    let out = tokio::time::timeout(Duration::from_secs(10), reports.wait_for(is_out)).await;
    assert!(out.is_ok(), "{:?}", channel.reports().borrow().endpoints);
}

fn checked(servers: &[&Server], probe: Probe) -> Builder {
    Channel::builder(servers::target(servers)).policy("round_robin").check(probe, CheckSettings::default())
}

#[tokio::test]
async fn an_endpoint_whose_check_says_not_serving_gets_no_calls_though_its_connection_is_well() {
    let server = Server::start().await;
    let channel = checked(&[&server], Probe::grpc("")).build().unwrap();
    ready(&channel, 1).await;
    server.health.set("", ServingStatus::NotServing);
    out_because(&channel, "check: the server reports NOT_SERVING").await;
    server.health.set("", ServingStatus::Serving);
    ready(&channel, 1).await;
    EchoClient::new(channel).unary(request("x")).await.unwrap();
}

#[tokio::test]
async fn a_watching_check_hears_of_a_change_between_its_probes() {
    let server = Server::start().await;
    let settings = CheckSettings::every(Duration::from_secs(3_600));
    let builder = Channel::builder(servers::target(&[&server])).policy("round_robin");
    let channel = builder.check(Probe::watch(""), settings).build().unwrap();
    ready(&channel, 1).await;
    server.health.set("", ServingStatus::NotServing);
    out_because(&channel, "check: the server reports NOT_SERVING").await;
    server.health.set("", ServingStatus::Serving);
    ready(&channel, 1).await;
}

#[tokio::test]
async fn checks_may_ask_another_port_and_calls_that_succeed_overrule_them() {
    let (server, sidecar) = (Server::start().await, tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let probe = Probe::tcp().port(sidecar.local_addr().unwrap().port());
    let channel = checked(&[&server], probe).build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    drop(sidecar);
    // While calls go well the endpoint stays, and the channel says that the two disagree.
    loop {
        client.unary(request("x")).await.unwrap();
        let decisions = channel.explain().await.unwrap().decisions;
        if decisions.iter().any(|decision| decision.to_string().contains("healthy → disputed")) {
            break;
        }
    }
    // Without calls nothing speaks for it.
    out_because(&channel, "check: ").await;
}

#[test]
fn a_check_that_cannot_be_asked_is_refused_at_once() {
    let build = |probe| Channel::builder("127.0.0.1:1").check(probe, CheckSettings::default()).build().unwrap_err();
    let error = build(Probe::grpc("").authority("no authority"));
    assert!(error.to_string().starts_with("check: "), "{error}");
    let mut settings = CheckSettings::default();
    settings.rise = 0;
    let error = Channel::builder("127.0.0.1:1").check(Probe::tcp(), settings).build().unwrap_err();
    assert!(error.to_string().starts_with("rise of a check is 0"), "{error}");
}
