//! TLS over real sockets: what a channel trusts and shows, files that rotate under running calls, and what it says
//! when a handshake fails.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod front;
mod peer;
mod servers;

use std::{sync::Arc, time::Duration};

use evenkeel_channel::{BuildError, Channel, Tls, balance::Connectivity};
use evenkeel_proto::demo::echo_client::EchoClient;
use front::{Authority, Files, Front};
use peer::Peer;
use servers::{Server, request};
use tonic::Code;

fn channel(front: &Front, tls: Tls) -> Channel {
    Channel::builder(front.address.to_string()).tls(tls).build().unwrap()
}

/// Why a call on `channel` fails.
async fn failure(channel: Channel) -> String {
    let status = EchoClient::new(channel).unary(request("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    status.message().to_owned()
}

#[tokio::test]
async fn calls_pass_and_say_https() {
    let (ca, mut peer) = (Authority::new(), Peer::start().await);
    let front = Front::start(peer.address, ca.server("127.0.0.1")).await;
    let mut client = EchoClient::new(channel(&front, Tls::new().ca_pem(ca.pem())));
    let call = tokio::spawn(async move { client.unary(request("x")).await });
    let mut stream = peer.call().await;
    assert_eq!(stream.request.uri().scheme_str(), Some("https"));
    assert_eq!(stream.request.uri().authority().unwrap().as_str(), front.address.to_string());
    stream.respond.send_response(peer::head(), false).unwrap().send_trailers(peer::status("5")).unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_name_that_is_expected_can_be_set_and_is_the_authority_host_by_default() {
    let (ca, server) = (Authority::new(), Server::start().await);
    let front = Front::start(server.address, ca.server("echo.test")).await;
    let tls = || Tls::new().ca_pem(ca.pem());
    EchoClient::new(channel(&front, tls().server_name("echo.test"))).unary(request("x")).await.unwrap();
    let by_authority = Channel::builder(front.address.to_string()).authority("echo.test:1").tls(tls()).build().unwrap();
    EchoClient::new(by_authority).unary(request("x")).await.unwrap();
    let why = failure(channel(&front, tls())).await;
    assert!(why.contains("the channel expects 127.0.0.1"), "{why}");
}

#[tokio::test]
async fn servers_that_ask_are_shown_the_identity() {
    let (ca, server) = (Authority::new(), Server::start().await);
    let front = Front::start(server.address, ca.mutual_server("127.0.0.1", &ca)).await;
    let (chain, key) = ca.issue("client");
    let with = Tls::new().ca_pem(ca.pem()).identity_pem(chain, key);
    EchoClient::new(channel(&front, with)).unary(request("x")).await.unwrap();
    let why = failure(channel(&front, Tls::new().ca_pem(ca.pem()))).await;
    assert!(why.contains("CertificateRequired") && why.contains("Tls::identity_files"), "{why}");
    let (chain, key) = Authority::new().issue("client");
    let why = failure(channel(&front, Tls::new().ca_pem(ca.pem()).identity_pem(chain, key))).await;
    assert!(why.contains("does not accept the client's certificate"), "{why}");
}

#[tokio::test]
async fn failed_handshakes_say_what_to_do() {
    let (ca, stranger, server) = (Authority::new(), Authority::new(), Server::start().await);
    let front = Front::start(server.address, ca.server("127.0.0.1")).await;
    let why = failure(channel(&front, Tls::new().ca_pem(stranger.pem()))).await;
    assert!(why.contains("Tls::ca_file") && why.contains(&front.address.to_string()), "{why}");

    let mut old = ca.server("127.0.0.1");
    Arc::get_mut(&mut old).unwrap().alpn_protocols.clear();
    let front = Front::start(server.address, old).await;
    let why = failure(channel(&front, Tls::new().ca_pem(ca.pem()))).await;
    assert!(why.contains("no protocol by ALPN"), "{why}");

    let mut old = ca.server("127.0.0.1");
    Arc::get_mut(&mut old).unwrap().alpn_protocols = vec![b"http/1.1".to_vec()];
    let front = Front::start(server.address, old).await;
    let why = failure(channel(&front, Tls::new().ca_pem(ca.pem()))).await;
    assert!(why.contains("does not speak HTTP/2"), "{why}");

    let plain = Channel::builder(server.address.to_string()).tls(Tls::new().ca_pem(ca.pem())).build().unwrap();
    let why = failure(plain).await;
    assert!(why.contains("TLS on this port"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_when_the_channel_is_built() {
    let build = |tls| Channel::builder("127.0.0.1:1").tls(tls).build().map(drop);
    let why = |tls| match build(tls) {
        Err(error @ BuildError::Tls(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(why(Tls::new().ca_file("/nowhere/ca.pem")).contains("/nowhere/ca.pem"));
    assert!(why(Tls::new().ca_pem("")).contains("PEM with a certificate"));
    let (ca, other) = (Authority::new(), Authority::new());
    let (chain, key) = (ca.issue("a").0, other.issue("b").1);
    assert!(why(Tls::new().ca_pem(ca.pem()).identity_pem(chain, key)).contains("belong together"));
    assert!(why(Tls::new().ca_pem(ca.pem()).server_name("no name")).contains("Tls::server_name"));
}

#[tokio::test]
async fn files_rotate_without_a_dropped_call() {
    let (old, new) = (Authority::new(), Authority::new());
    let (server, steady_server) = (Server::start().await, Server::start().await);
    let files = Files::new();
    files.write(&old);
    let front = Front::start(server.address, old.mutual_server("127.0.0.1", &old)).await;
    let steady = Front::start(steady_server.address, old.mutual_server("127.0.0.1", &old)).await;
    let channel = Channel::builder(format!("{},{}", front.address, steady.address))
        .policy("round_robin")
        .tls(files.tls())
        .build()
        .unwrap();
    until_ready(&channel, 2).await;
    let mut client = EchoClient::new(channel.clone());

    // A long call on the connection that stays.
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut requests = Some(tokio_stream::wrappers::ReceiverStream::new(receive));
    let mut replies = loop {
        let reply = client.unary(request("turn")).await.unwrap().into_inner();
        if reply.backend == server.address.to_string() {
            break client.bidi_stream(requests.take().unwrap()).await.unwrap().into_inner();
        }
    };
    steady_server.until_busy().await;

    // Half written files keep the last good ones in force: the server's restart is not noticed.
    files.spoil();
    front.restart(old.mutual_server("127.0.0.1", &old)).await;
    until_ready(&channel, 2).await;
    client.unary(request("x")).await.unwrap();
    client.unary(request("x")).await.unwrap();

    // The new authority's files: the old ones would neither trust the new server nor be trusted by it.
    files.write(&new);
    front.restart(new.mutual_server("127.0.0.1", &new)).await;
    until_ready(&channel, 2).await;
    let before = server.calls();
    for _ in 0..4 {
        client.unary(request("x")).await.unwrap();
    }
    assert!(server.calls() > before, "the restarted server takes calls over its new certificate");

    send.send(request("still here")).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap().message, "still here");
}

/// Waits until `count` endpoints are ready, at the newest report.
async fn until_ready(channel: &Channel, count: usize) {
    channel.connect();
    let mut reports = channel.reports();
    let ready = reports.wait_for(|report| {
        report.endpoints.iter().filter(|endpoint| endpoint.state.service == Connectivity::Ready).count() == count
    });
    tokio::time::timeout(Duration::from_secs(20), ready).await.expect("in time").unwrap();
}
