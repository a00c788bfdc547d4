//! Calls that a correct client saves, and what a server is told of their deadlines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod servers;

use std::time::Duration;

use bytes::Bytes;
use evenkeel_channel::{Channel, ResponseBody};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use peer::{Peer, Raw};
use tokio::sync::mpsc;
use tower_service::Service;

/// A request body that a test writes as it goes.
struct Script(mpsc::UnboundedReceiver<Bytes>);

impl Body for Script {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// A request whose body goes on for as long as the sender lives.
fn endless() -> (mpsc::UnboundedSender<Bytes>, Request<Script>) {
    let (send, body) = mpsc::unbounded_channel();
    send.send(Bytes::from_static(b"\0\0\0\0\x01x")).unwrap();
    let request = Request::post("/s/m").header("content-type", "application/grpc").header("te", "trailers");
    (send, request.body(Script(body)).unwrap())
}

/// A request with one message.
fn whole() -> Request<Script> {
    endless().1
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// The headers that hold the call's status.
async fn finish(response: Response<ResponseBody>) -> HeaderMap {
    let (head, mut body) = response.into_parts();
    let mut last = head.headers;
    while let Some(Ok(frame)) = within(std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx))).await {
        if let Ok(trailers) = frame.into_trailers() {
            last = trailers;
        }
    }
    last
}

async fn status(channel: Channel, request: Request<Script>) -> String {
    let Ok(response) = within(channel.clone().call(request)).await;
    let headers = finish(response).await;
    format!("{} {:?}", headers["grpc-status"].to_str().unwrap(), headers.get("grpc-message"))
}

fn channel(target: impl std::fmt::Display, method: &str) -> Channel {
    let config =
        format!(r#"{{"loadBalancingConfig":[{{"round_robin":{{}}}}],"methodConfig":[{{"name":[{{}}],{method}}}]}}"#);
    Channel::builder(target.to_string()).service_config(&config).unwrap().build().unwrap()
}

fn is_down(report: &std::sync::Arc<evenkeel_channel::Report>) -> bool {
    report.connectivity == evenkeel_channel::balance::Connectivity::TransientFailure
}

fn in_flight(channel: &Channel) -> u32 {
    channel.reports().borrow().endpoints.iter().map(|endpoint| endpoint.load.in_flight()).sum()
}

const RETRIED: &str = r#""retryPolicy":{"maxAttempts":4,"initialBackoff":"0.001s","maxBackoff":"0.001s",
    "backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}"#;

/// Answers the only stream of the peer's next calls: refuses the first `refusals`.
async fn refuse(peer: &mut Raw, refusals: usize) {
    const REFUSED_STREAM: u32 = 7;
    for _ in 0..refusals {
        let stream = peer.until_headers().await;
        peer.reset(stream, REFUSED_STREAM).await;
    }
    let stream = peer.until_headers().await;
    peer.trailers_only(stream, "0").await;
}

#[tokio::test]
async fn a6_a_call_that_is_refused_twice_is_retried_as_the_policy_says() {
    let (address, mut peers) = Raw::listen().await;
    let channel = channel(address, RETRIED);
    let calling = tokio::spawn(status(channel.clone(), whole()));
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    within(refuse(&mut peer, 3)).await;
    assert_eq!(within(calling).await.unwrap(), "0 None");
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn a6_an_early_status_is_retried_though_the_server_closes_the_rest_of_the_upload() {
    const NO_ERROR: u32 = 0;
    let (address, mut peers) = Raw::listen().await;
    let channel = channel(address, RETRIED);
    let (_writer, request) = endless();
    let calling = tokio::spawn(status(channel.clone(), request));
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    for code in ["14", "0"] {
        let stream = peer.until_headers().await;
        peer.trailers_only_and_reset(stream, code, NO_ERROR).await;
    }
    assert_eq!(within(calling).await.unwrap(), "0 None");
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn a6_a_hedge_that_finds_no_endpoint_leaves_the_first_attempt_alone() {
    let (address, mut peers) = Raw::listen().await;
    let hedged = r#""hedgingPolicy":{"maxAttempts":2,"hedgingDelay":"0.3s","nonFatalStatusCodes":["UNAVAILABLE"]}"#;
    let channel = channel(address, hedged);
    let calling = tokio::spawn(status(channel.clone(), whole()));
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    let stream = peer.until_headers().await;
    // The server leaves, finishes what it has, and nobody takes its place: the listener is gone with `peers`.
    drop(peers);
    peer.go_away(stream).await;
    within(channel.reports().wait_for(is_down)).await.unwrap();
    let calls = channel.calls();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((calls.started, channel.calls().failed), (1, 0), "the hedge has not failed the call");
    peer.trailers_only(stream, "0").await;
    assert_eq!(within(calling).await.unwrap(), "0 None");
    assert_eq!(in_flight(&channel), 0);
}

#[tokio::test]
async fn a6_a_call_that_finds_no_endpoint_is_retried_as_the_policy_says() {
    // A port where nobody listens yet.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let patient = r#""retryPolicy":{"maxAttempts":5,"initialBackoff":"3s","maxBackoff":"3s",
        "backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}"#;
    let channel = channel(address, patient);
    channel.connect();
    within(channel.reports().wait_for(is_down)).await.unwrap();
    let calling = tokio::spawn(status(channel.clone(), whole()));
    let _server = servers::Server::start_at(address).await;
    // UNIMPLEMENTED: the server has no such method, but it was asked.
    assert!(within(calling).await.unwrap().starts_with("12 "));
}

#[tokio::test]
async fn a_server_is_told_the_sooner_deadline_and_no_other() {
    let mut peer = Peer::start().await;
    let channel = channel(peer.address, r#""timeout":"7s""#);
    let mut request = whole();
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("50S"));
    let calling = tokio::spawn(status(channel, request));
    let stream = peer.call().await;
    let told: Vec<_> = stream.request.headers().get_all("grpc-timeout").iter().collect();
    calling.abort();
    let &[told] = &told[..] else { panic!("one deadline: {told:?}") };
    assert!(micros(told) <= Duration::from_secs(7), "{told:?}");
}

/// A time-out that is told in microseconds.
fn micros(told: &HeaderValue) -> Duration {
    Duration::from_micros(told.to_str().unwrap().strip_suffix('u').unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_call_that_had_to_wait_tells_the_server_what_is_left_of_its_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = channel(address, r#""timeout":"15s","waitForReady":true"#);
    channel.connect();
    within(channel.reports().wait_for(is_down)).await.unwrap();
    let (asked, calling) = (std::time::Instant::now(), tokio::spawn(status(channel, whole())));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut peer = Peer::start_at(address).await;
    let stream = peer.call().await;
    let told = micros(&stream.request.headers()["grpc-timeout"]);
    calling.abort();
    assert!(told <= Duration::from_millis(14_700), "300 ms were spent before the call was sent: {told:?}");
    assert!(told + asked.elapsed() >= Duration::from_secs(15));
}

#[tokio::test]
async fn a6_an_error_of_a_proxy_that_speaks_no_grpc_is_retried_by_its_http_status() {
    let mut peer = Peer::start().await;
    let channel = channel(peer.address, RETRIED);
    let calling = tokio::spawn(status(channel.clone(), whole()));
    let mut busy = peer.call().await;
    let head = Response::builder().status(503).header("content-type", "text/html").body(()).unwrap();
    let mut body = busy.respond.send_response(head, false).unwrap();
    body.send_data("<h1>busy</h1>".into(), true).unwrap();
    let mut stream = peer.call().await;
    let mut head = peer::head();
    head.headers_mut().extend(peer::status("0"));
    stream.respond.send_response(head, true).unwrap();
    assert_eq!(within(calling).await.unwrap(), "0 None");
    assert_eq!(in_flight(&channel), 0);
}
