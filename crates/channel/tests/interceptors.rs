//! What wraps a channel: layers of tower and interceptors of tonic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peer;
mod servers;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use evenkeel_channel::{Channel, HashKey, PinnedTo, WaitForReady};
use evenkeel_proto::demo::echo_client::EchoClient;
use http::{HeaderValue, header::AUTHORIZATION};
use peer::Peer;
use servers::{Server, request};
use tonic::{Code, Request, Status};

fn channel(servers: &[&Server], policy: &str) -> Channel {
    Channel::builder(servers::target(servers)).policy(policy).build().unwrap()
}

#[tokio::test]
async fn a_layer_acts_once_on_a_call_that_is_tried_twice() {
    let mut peer = Peer::start().await;
    let layered = AtomicUsize::new(0);
    let service = tower::ServiceBuilder::new()
        .map_request(|mut request: http::Request<tonic::body::Body>| {
            layered.fetch_add(1, SeqCst);
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
            request
        })
        .service(Channel::builder(peer.address.to_string()).build().unwrap());
    let mut client = EchoClient::new(service);
    let answers = async {
        let mut refused = peer.call().await;
        assert_eq!(refused.request.headers()[AUTHORIZATION], "Bearer x");
        refused.respond.send_reset(h2::Reason::REFUSED_STREAM);
        let mut answered = peer.call().await;
        assert_eq!(answered.request.headers()[AUTHORIZATION], "Bearer x");
        let mut body = answered.respond.send_response(peer::head(), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        body.send_trailers(peer::status("0")).unwrap();
    };
    let (called, ()) = tokio::join!(client.unary(request("x")), answers);
    called.unwrap();
    assert_eq!(layered.load(SeqCst), 1);
}

#[tokio::test]
async fn an_interceptor_pins_hashes_and_refuses() {
    let (one, other) = (Server::start().await, Server::start().await);
    let pinned = PinnedTo(other.address.into());
    let pin = move |mut request: Request<()>| {
        request.extensions_mut().insert(pinned.clone());
        request.extensions_mut().insert(WaitForReady(true));
        Ok(request)
    };
    let mut client = EchoClient::with_interceptor(channel(&[&one, &other], "round_robin"), pin);
    for _ in 0..6 {
        client.unary(request("x")).await.unwrap();
    }
    assert_eq!((one.calls(), other.calls()), (0, 6));

    let hash = |mut request: Request<()>| {
        let user = request.metadata().get("x-user").ok_or_else(|| Status::unauthenticated("no x-user"))?;
        let key = HashKey::new(user.as_bytes().to_vec());
        request.extensions_mut().insert(key);
        Ok(request)
    };
    let mut client = EchoClient::with_interceptor(channel(&[&one, &other], "ring_hash"), hash);
    assert_eq!(client.unary(request("x")).await.unwrap_err().code(), Code::Unauthenticated);
    for _ in 0..6 {
        let mut request = Request::new(request("x"));
        request.metadata_mut().insert("x-user", "4711".parse().unwrap());
        client.unary(request).await.unwrap();
    }
    assert!([(6, 6), (0, 12)].contains(&(one.calls(), other.calls())), "one user, one server");
}
