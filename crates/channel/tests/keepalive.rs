//! Keepalive against peers that speak HTTP/2 by hand (gRFC A8). Once a connection stands, time is virtual: it jumps to the
//! next timer whenever nothing else is to be done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod servers;

use std::time::Duration;

use evenkeel_channel::{Channel, balance::KeepaliveSettings};
use evenkeel_proto::demo::echo_client::EchoClient;
use peer::{Frame, Raw};
use servers::request;
use tokio::time;
use tonic::Code;

const TIME: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

fn keepalive() -> KeepaliveSettings {
    let mut keepalive = KeepaliveSettings::every(TIME);
    keepalive.timeout = TIMEOUT;
    keepalive
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

fn pings(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.is_ping()).count()
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_given_up_and_its_calls_say_why() {
    let (address, mut peers) = Raw::listen().await;
    let channel = Channel::builder(address.to_string()).keepalive(keepalive()).build().unwrap();
    let mut client = EchoClient::new(channel);
    let calling = tokio::spawn(async move { client.unary(request("x")).await });
    let mut peer = within(peers.recv()).await.unwrap();
    peer.settings(&[]).await;
    peer.until_headers().await;

    time::pause();
    let status = calling.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("keepalive: no answer to a PING for 5s"), "{status}");
    let frames = peer.frames(|_| false).await;
    assert_eq!(pings(&frames), 1, "the question about the call that hangs serves both");
}

#[tokio::test]
async fn a_connection_without_calls_is_asked_only_where_the_settings_say_so() {
    let (address, mut peers) = Raw::listen().await;
    let mut asks = keepalive();
    asks.without_calls = true;
    let (asking, resting) = (asks, keepalive());
    let mut connections = Vec::new();
    let mut channels = Vec::new();
    for keepalive in [asking, resting] {
        let channel = Channel::builder(address.to_string()).keepalive(keepalive).build().unwrap();
        channel.connect();
        channels.push(channel);
        let mut peer = within(peers.recv()).await.unwrap();
        peer.settings(&[]).await;
        peer.settings_acknowledged().await;
        connections.push(peer);
    }
    time::pause();
    // Given up, it is dialled again, while the other has not been asked anything.
    let asked = connections[0].frames(|_| false).await;
    assert_eq!(pings(&asked), 1);
    channels.pop();
    let rested = connections[1].frames(|_| false).await;
    assert_eq!(pings(&rested), 0);
}

#[tokio::test]
async fn a_server_that_finds_pings_too_many_gets_half_as_many() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let (address, mut peers) = Raw::listen().await;
    let mut keepalive = keepalive();
    keepalive.without_calls = true;
    let channel = Channel::builder(address.to_string()).policy("round_robin").keepalive(keepalive).build().unwrap();
    channel.connect();
    let mut before = within(peers.recv()).await.unwrap();
    before.settings(&[]).await;
    before.settings_acknowledged().await;
    before.go_away_saying(0, ENHANCE_YOUR_CALM, "too_many_pings").await;
    let mut after = within(peers.recv()).await.unwrap();
    after.settings(&[]).await;
    after.settings_acknowledged().await;

    time::pause();
    let quiet_since = time::Instant::now();
    let frames = after.frames(Frame::is_ping).await;
    assert_eq!(pings(&frames), 1);
    // What came before the clock stood still may have been a moment earlier.
    assert!(quiet_since.elapsed() > TIME * 3 / 2, "{:?}", quiet_since.elapsed());
}
