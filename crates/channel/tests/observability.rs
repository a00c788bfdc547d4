//! What a channel tells of its calls: metrics by the names of gRFCs A66, A94 and A96.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod recorder;
mod servers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_channel::{
    Channel, Report,
    balance::{Connectivity, HealthCheck, UnknownService},
};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use metrics::Unit;
use peer::{Peer, Raw, Stream};
use servers::{Server, request};
use tonic::{Code, Request};

const UNARY: (&str, &str) = ("grpc.method", "evenkeel.demo.v1.Echo/Unary");

const STARTED: &str = "grpc.client.attempt.started";
const ATTEMPT: &str = "grpc.client.attempt.duration";
const SENT: &str = "grpc.client.attempt.sent_total_compressed_message_size";
const RECEIVED: &str = "grpc.client.attempt.rcvd_total_compressed_message_size";
const CALL: &str = "grpc.client.call.duration";
const RETRIES: &str = "grpc.client.call.retries";
const TRANSPARENT: &str = "grpc.client.call.transparent_retries";
const HEDGES: &str = "grpc.client.call.hedges";
const DELAY: &str = "grpc.client.call.retry_delay";

/// A channel whose figures go to the recorder.
struct Measured {
    channel: Channel,
    target: String,
}

impl Measured {
    fn channel(target: String, method: &str) -> Self {
        recorder::installed();
        let config =
            format!(r#"{{"loadBalancingConfig":[{{"round_robin":{{}}}}],"methodConfig":[{{"name":[{{}}]{method}}}]}}"#);
        let channel = Channel::builder(&target).service_config(&config).unwrap().build().unwrap();
        Self { channel, target }
    }

    fn client(&self) -> EchoClient<Channel> {
        EchoClient::new(self.channel.clone())
    }

    /// How many samples a histogram of unary calls has that ended so.
    fn count(&self, metric: &str, code: &str) -> usize {
        recorder::installed().samples(metric, &self.target, &[UNARY, ("grpc.status", code)]).len()
    }

    fn samples(&self, metric: &str) -> Vec<f64> {
        recorder::installed().samples(metric, &self.target, &[UNARY])
    }

    fn started(&self) -> f64 {
        recorder::installed().total(STARTED, &self.target, &[UNARY])
    }

    fn sum(&self, metric: &str, code: &str) -> f64 {
        recorder::installed().total(metric, &self.target, &[UNARY, ("grpc.status", code)])
    }
}

async fn ready(channel: &Channel, count: usize) {
    channel.connect();
    until(channel, |report| {
        report.endpoints.iter().filter(|at| at.state.service == Connectivity::Ready).count() == count
    })
    .await;
}

async fn until(channel: &Channel, condition: impl Fn(&Report) -> bool) {
    let mut reports = channel.reports();
    let came_true = reports.wait_for(|report: &Arc<Report>| condition(report));
    tokio::time::timeout(Duration::from_secs(10), came_true).await.expect("in time").unwrap();
}

/// Answers with a head that is the whole response.
fn fail(mut stream: Stream, code: &'static str) {
    let mut head = peer::head();
    head.headers_mut().insert("grpc-status", code.parse().unwrap());
    stream.respond.send_response(head, true).unwrap();
}

fn succeed(mut stream: Stream) {
    let mut body = stream.respond.send_response(peer::head(), false).unwrap();
    // An empty message, in gRPC's framing.
    body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
    body.send_trailers(peer::status("0")).unwrap();
}

#[tokio::test]
async fn a66_a_call_that_succeeds_is_counted_once_with_the_bytes_of_its_messages() {
    let server = Server::start().await;
    let measured = Measured::channel(servers::target(&[&server]), "");
    for _ in 0..3 {
        measured.client().unary(EchoRequest { payload: vec![7; 1_000].into(), ..request("x") }).await.unwrap();
    }
    assert!((measured.started() - 3.0).abs() < f64::EPSILON);
    for metric in [ATTEMPT, SENT, RECEIVED, CALL] {
        assert_eq!(measured.count(metric, "OK"), 3, "{metric}");
    }
    // The payload, its tag and length, and those of "x"; the reply names its server besides.
    assert!((measured.sum(SENT, "OK") - 3.0 * 1_006.0).abs() < f64::EPSILON, "{}", measured.sum(SENT, "OK"));
    assert!(measured.sum(RECEIVED, "OK") > 3.0 * 1_006.0, "{}", measured.sum(RECEIVED, "OK"));
    for metric in [RETRIES, TRANSPARENT, HEDGES, DELAY] {
        assert_eq!(measured.samples(metric), [0.0; 0], "{metric} is of calls that were tried again");
    }
}

#[tokio::test]
async fn a66_a_failure_is_counted_under_its_status_and_a_call_without_an_attempt_too() {
    let server = Server::start().await;
    server.fails(Code::NotFound);
    let measured = Measured::channel(servers::target(&[&server]), "");
    measured.client().unary(request("x")).await.unwrap_err();
    for metric in [ATTEMPT, SENT, RECEIVED, CALL] {
        assert_eq!((measured.count(metric, "NOT_FOUND"), measured.count(metric, "OK")), (1, 0), "{metric}");
    }

    let address = server.address;
    server.stop().await;
    let measured = Measured::channel(format!("ipv4:{address}"), "");
    measured.client().unary(request("x")).await.unwrap_err();
    assert_eq!((measured.count(CALL, "UNAVAILABLE"), measured.count(ATTEMPT, "UNAVAILABLE")), (1, 0));
}

#[tokio::test]
async fn a66_calls_given_up_are_counted_as_cancelled_or_past_their_deadline() {
    let server = Server::start().await;
    let measured = Measured::channel(servers::target(&[&server]), "");
    ready(&measured.channel, 1).await;
    let mut client = measured.client();
    let call = client.unary(EchoRequest { delay_ms: 60_000, ..request("slow") });
    tokio::select! {
        _ = call => panic!("it takes a minute"),
        () = server.until_busy() => {}
    }
    assert_eq!((measured.count(CALL, "CANCELLED"), measured.count(ATTEMPT, "CANCELLED")), (1, 1));

    let mut late = Request::new(EchoRequest { delay_ms: 60_000, ..request("slow") });
    late.set_timeout(Duration::from_millis(50));
    measured.client().unary(late).await.unwrap_err();
    assert_eq!((measured.count(CALL, "DEADLINE_EXCEEDED"), measured.count(ATTEMPT, "DEADLINE_EXCEEDED")), (1, 1));
    assert!((measured.started() - 2.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a96_retries_and_their_delay_are_counted_by_call() {
    let mut peer = Peer::start().await;
    let retried = r#","retryPolicy":{"maxAttempts":4,"initialBackoff":"0.001s","maxBackoff":"0.001s",
        "backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}"#;
    let measured = Measured::channel(peer.address.to_string(), retried);
    let mut client = measured.client();
    let answers = async {
        fail(peer.call().await, "14");
        fail(peer.call().await, "14");
        succeed(peer.call().await);
    };
    let (called, ()) = tokio::join!(client.unary(request("x")), answers);
    called.unwrap();
    assert_eq!((measured.count(ATTEMPT, "UNAVAILABLE"), measured.count(ATTEMPT, "OK")), (2, 1));
    assert_eq!((measured.count(CALL, "UNAVAILABLE"), measured.count(CALL, "OK")), (0, 1));
    assert_eq!(measured.samples(RETRIES), [2.0]);
    assert!(matches!(measured.samples(DELAY)[..], [delay] if delay > 0.0 && delay < 1.0));
    assert_eq!(measured.samples(TRANSPARENT), [0.0; 0]);
}

#[tokio::test]
async fn a96_what_no_server_has_processed_is_a_transparent_retry() {
    let mut peer = Peer::start().await;
    let measured = Measured::channel(peer.address.to_string(), "");
    let mut client = measured.client();
    let answers = async {
        peer.call().await.respond.send_reset(h2::Reason::REFUSED_STREAM);
        succeed(peer.call().await);
    };
    let (called, ()) = tokio::join!(client.unary(request("x")), answers);
    called.unwrap();
    assert_eq!(measured.samples(TRANSPARENT), [1.0]);
    assert_eq!(measured.samples(RETRIES), [0.0; 0]);
    assert_eq!((measured.count(CALL, "OK"), measured.count(ATTEMPT, "OK")), (1, 1));
}

#[tokio::test]
async fn a96_hedges_are_counted_by_call_and_the_attempt_that_lost_is_cancelled() {
    let (fast, slow) = (Server::start().await, Server::start().await);
    slow.delays(Duration::from_secs(60));
    let hedged = r#","hedgingPolicy":{"maxAttempts":2,"hedgingDelay":"0.05s"}"#;
    let measured = Measured::channel(servers::target(&[&fast, &slow]), hedged);
    ready(&measured.channel, 2).await;
    // Two calls take turns; the one that begins at the slow server is hedged, and the other is not unless it is late.
    for _ in 0..2 {
        measured.client().unary(request("x")).await.unwrap();
    }
    slow.until_idle().await;
    assert!(measured.samples(HEDGES).contains(&1.0), "{:?}", measured.samples(HEDGES));
    assert_eq!((measured.count(CALL, "OK"), measured.count(ATTEMPT, "OK")), (2, 2));
    assert!(measured.count(ATTEMPT, "CANCELLED") >= 1);
    assert_eq!(measured.samples(RETRIES), [0.0; 0]);
}

#[tokio::test]
async fn health_checks_are_no_calls_and_metrics_are_described_with_their_units() {
    let server = Server::start().await;
    let target = servers::target(&[&server]);
    let figures = recorder::installed();
    let check = HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy };
    let builder = Channel::builder(&target).policy("round_robin").health_check(check);
    let channel = builder.build().unwrap();
    ready(&channel, 1).await;
    let of_calls: Vec<_> = figures.keys(&target).into_iter().filter(|key| key.starts_with("grpc.client")).collect();
    assert_eq!(of_calls, [""; 0]);

    EchoClient::new(channel).unary(request("x")).await.unwrap();
    let of_calls: Vec<_> = figures.keys(&target).into_iter().filter(|key| key.starts_with("grpc.client")).collect();
    assert!(!of_calls.is_empty() && of_calls.iter().all(|key| key.contains("Echo/Unary")), "{of_calls:?}");

    let units = [STARTED, ATTEMPT, SENT, CALL, DELAY].map(|metric| figures.unit(metric));
    let expected = [Unit::Count, Unit::Seconds, Unit::Bytes, Unit::Seconds, Unit::Seconds];
    assert_eq!(units, expected.map(Some));
}

/// How many connections to `target` were lost so.
fn lost(target: &str, how: &str) -> f64 {
    recorder::installed().total("grpc.subchannel.disconnections", target, &[("grpc.disconnect_error", how)])
}

fn open_connections(target: &str) -> f64 {
    recorder::installed().total("grpc.subchannel.open_connections", target, &[])
}

async fn eventually(condition: impl Fn() -> bool) {
    let came_true = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), came_true).await.expect("in time");
}

#[tokio::test]
async fn a94_connections_are_counted_and_how_they_were_lost() {
    let (leaving, killed) = (Server::start().await, Server::start().await);
    let target = servers::target(&[&leaving, &killed]);
    let measured = Measured::channel(target.clone(), "");
    ready(&measured.channel, 2).await;
    assert!((open_connections(&target) - 2.0).abs() < f64::EPSILON);

    leaving.stop().await;
    eventually(|| lost(&target, "GOAWAY NO_ERROR") > 0.0).await;
    drop(measured);
    eventually(|| lost(&target, "subchannel shutdown") > 0.0).await;
    assert!(open_connections(&target).abs() < f64::EPSILON);
    let succeeded = recorder::installed().total("grpc.subchannel.connection_attempts_succeeded", &target, &[]);
    assert!((succeeded - 2.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a94_a_peer_that_goes_away_in_anger_or_without_a_word_is_told_apart() {
    let (address, mut connections) = Raw::listen().await;
    let measured = Measured::channel(address.to_string(), "");
    let target = &measured.target;
    measured.channel.connect();
    let mut angry = connections.recv().await.unwrap();
    angry.settings(&[]).await;
    ready(&measured.channel, 1).await;
    angry.go_away_with(0, 11).await;
    eventually(|| lost(target, "GOAWAY ENHANCE_YOUR_CALM") > 0.0).await;
    drop(angry);

    let mut silent = tokio::time::timeout(Duration::from_secs(10), connections.recv()).await.unwrap().unwrap();
    silent.settings(&[]).await;
    silent.settings_acknowledged().await;
    drop(silent);
    eventually(|| lost(target, "unknown") > 0.0).await;
    assert!(open_connections(target).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_report_is_made_when_something_has_changed_and_not_for_each_message() {
    let server = Server::start().await;
    let channel = Channel::builder(servers::target(&[&server])).policy("round_robin").build().unwrap();
    let mut reports = channel.reports();
    EchoClient::new(channel.clone()).unary(request("x")).await.unwrap();
    channel.explain().await.unwrap();
    reports.mark_unchanged();
    for _ in 0..3 {
        channel.connect();
        channel.explain().await.unwrap();
    }
    assert!(!reports.has_changed().unwrap(), "asking changes nothing");
    drop(server);
    tokio::time::timeout(Duration::from_secs(20), reports.changed()).await.expect("a loss is reported").unwrap();
}
