//! The attempts of a call: hedges, retries, their limits, and what a caller may override.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::time::Duration;

use evenkeel_channel::{Channel, HashKey, PinnedTo, ReplayLimits, balance::Connectivity};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request};
use tonic::{Code, Request};

/// A minute: no test waits that long.
const FOR_EVER: Duration = Duration::from_secs(60);

async fn ready(servers: &[&Server], policy: &str, method: &str) -> Channel {
    let config =
        format!(r#"{{"loadBalancingConfig":[{{"{policy}":{{}}}}],"methodConfig":[{{"name":[{{}}],{method}}}]}}"#);
    let builder = Channel::builder(servers::target(servers)).service_config(&config).unwrap();
    let channel = builder.replay_limits(ReplayLimits::new(64 * 1024, 1024 * 1024)).build().unwrap();
    channel.connect();
    let mut reports = channel.reports();
    let is_ready = |report: &std::sync::Arc<evenkeel_channel::Report>| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count()
            == servers.len()
    };
    tokio::time::timeout(Duration::from_secs(10), reports.wait_for(is_ready)).await.expect("in time").unwrap();
    channel
}

fn in_flight(channel: &Channel) -> u32 {
    channel.reports().borrow().endpoints.iter().map(|endpoint| endpoint.load.in_flight()).sum()
}

const HEDGED: &str =
    r#""hedgingPolicy":{"maxAttempts":2,"hedgingDelay":"0.05s","nonFatalStatusCodes":["UNAVAILABLE"]}"#;
const HEDGED_LATE: &str =
    r#""hedgingPolicy":{"maxAttempts":2,"hedgingDelay":"60s","nonFatalStatusCodes":["UNAVAILABLE"]}"#;

#[tokio::test]
async fn a6_a_hedge_answers_for_a_server_that_hangs_and_the_other_attempt_is_cancelled() {
    let (fast, slow) = (Server::start().await, Server::start().await);
    slow.delays(FOR_EVER);
    let channel = ready(&[&fast, &slow], "round_robin", HEDGED).await;
    let mut client = EchoClient::new(channel.clone());
    for n in 0..6 {
        assert_eq!(client.unary(request(&n.to_string())).await.unwrap().into_inner().message, n.to_string());
    }
    slow.until_idle().await;
    assert_eq!(in_flight(&channel), 0);
    assert!(fast.calls() == 6 && slow.calls() >= 3, "calls began at the slow server too");
}

#[tokio::test]
async fn a6_a_non_fatal_status_is_hedged_at_once_and_a_fatal_one_is_the_calls() {
    let (well, ill) = (Server::start().await, Server::start().await);
    let channel = ready(&[&well, &ill], "round_robin", HEDGED_LATE).await;
    let mut client = EchoClient::new(channel);
    ill.fails(Code::Unavailable);
    for _ in 0..6 {
        client.unary(request("x")).await.unwrap();
    }
    assert!(well.calls() == 6 && ill.calls() >= 3, "calls began at the failing server too");
    ill.fails(Code::InvalidArgument);
    let failed = [client.unary(request("x")).await, client.unary(request("x")).await];
    let codes: Vec<_> = failed.iter().filter_map(|result| result.as_ref().err()).map(tonic::Status::code).collect();
    assert!(codes.contains(&Code::InvalidArgument), "one of two began there: {codes:?}");
}

#[tokio::test]
async fn a6_streams_are_hedged_with_all_that_was_sent_and_long_ones_are_sent_once() {
    let (fast, slow) = (Server::start().await, Server::start().await);
    slow.delays(FOR_EVER);
    let channel = ready(&[&fast, &slow], "round_robin", HEDGED).await;
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..4 {
        let requests = tokio_stream::iter((0..10).map(|n| request(&n.to_string())));
        assert_eq!(client.client_stream(requests).await.unwrap().into_inner().message, "0123456789");
    }
    slow.until_idle().await;

    // Ten times what may be kept: whichever attempt it begins with is the only one.
    let before = fast.calls() + slow.calls();
    slow.delays(Duration::from_millis(300));
    for _ in 0..2 {
        let large = || EchoRequest { payload: vec![7; 64 * 1024].into(), ..request("x") };
        client.client_stream(tokio_stream::iter((0..10).map(move |_| large()))).await.unwrap();
    }
    assert_eq!(fast.calls() + slow.calls(), before + 2);
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn adaptive_hedging_learns_its_delay_and_keeps_to_its_budget() {
    let adaptive = r#""hedgingPolicy":{"maxAttempts":2,"adaptive":{"extraLoad":0.1}}"#;
    let (fast, slow) = (Server::start().await, Server::start().await);
    let channel = ready(&[&fast, &slow], "round_robin", adaptive).await;
    let mut client = EchoClient::new(channel);
    for _ in 0..200 {
        client.unary(request("x")).await.unwrap();
    }
    let learned = fast.calls() + slow.calls() - 200;
    assert!(learned <= 1 + 20, "{learned} hedges of 200 calls are more than a tenth");

    slow.delays(FOR_EVER);
    for _ in 0..2 {
        client.unary(request("x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_retry_prefers_an_endpoint_that_has_not_failed_the_call() {
    let retried = r#""retryPolicy":{"maxAttempts":2,"initialBackoff":"0.001s","maxBackoff":"0.001s",
        "backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}"#;
    let (well, ill) = (Server::start().await, Server::start().await);
    ill.fails(Code::Unavailable);
    // At random, the second attempt of every fourth call would go where the first has failed.
    let channel = ready(&[&well, &ill], "random", retried).await;
    let mut client = EchoClient::new(channel);
    let mut failed = 0;
    for _ in 0..60 {
        failed += u32::from(client.unary(request("x")).await.is_err());
    }
    assert!(failed <= 4, "{failed} of 60: one in 64 is expected");
}

#[tokio::test]
async fn messages_that_are_too_long_are_refused_before_they_are_sent_or_passed_on() {
    let server = Server::start().await;
    let limits = r#""maxRequestMessageBytes":1000,"maxResponseMessageBytes":500"#;
    let channel = ready(&[&server], "round_robin", limits).await;
    let mut client = EchoClient::new(channel.clone());
    let mut call = async |bytes: usize| {
        client.unary(EchoRequest { payload: vec![7; bytes].into(), ..request("x") }).await.map(drop)
    };
    call(300).await.unwrap();
    let long = call(800).await.unwrap_err();
    assert!(long.code() == Code::ResourceExhausted && long.message().starts_with("response: a message of"), "{long}");
    assert_eq!(server.calls(), 2);
    let longer = call(1_200).await.unwrap_err();
    assert!(longer.code() == Code::ResourceExhausted && longer.message().contains("than the 1000"), "{longer}");
    server.until_idle().await;
    assert_eq!(in_flight(&channel), 0);
}

async fn answered_by(channel: &Channel, change: impl FnOnce(&mut http::Extensions)) -> Result<String, tonic::Status> {
    let mut call = Request::new(request("x"));
    let mut extensions = http::Extensions::new();
    change(&mut extensions);
    *call.extensions_mut() = extensions;
    EchoClient::new(channel.clone()).unary(call).await.map(|reply| reply.into_inner().backend)
}

#[tokio::test]
async fn calls_of_one_hash_key_stay_together() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let channel = Channel::builder(servers::target(&servers.each_ref())).policy("ring_hash").build().unwrap();
    let with_key = async |key: String| {
        let answered = answered_by(&channel, |extensions| {
            extensions.insert(HashKey::new(key));
        });
        answered.await.unwrap()
    };
    let homes: Vec<_> = [with_key("a".to_owned()).await, with_key("b".to_owned()).await].into();
    for _ in 0..20 {
        assert_eq!([with_key("a".to_owned()).await, with_key("b".to_owned()).await], homes[..]);
    }
    for n in 0..100 {
        with_key(n.to_string()).await;
    }
    assert!(servers.iter().all(|server| server.calls() > 0), "keys are spread");
}

#[tokio::test]
async fn a_pinned_call_goes_to_its_endpoint_and_nowhere_else() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let channel = ready(&servers.each_ref(), "round_robin", r#""waitForReady":false"#).await;
    let pinned_to = async |server: &Server| {
        let pin = PinnedTo(server.address.into());
        let answered = answered_by(&channel, |extensions| {
            extensions.insert(pin);
        });
        answered.await
    };
    for server in &servers {
        for _ in 0..3 {
            assert_eq!(pinned_to(server).await.unwrap(), server.address.to_string());
        }
    }
    let refused = pinned_to(&Server::start().await).await.unwrap_err();
    assert!(refused.code() == Code::Unavailable && refused.message().contains("pinned"), "{refused}");
    assert_eq!(in_flight(&channel), 0);
}
