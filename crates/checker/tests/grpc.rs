//! The gRPC Check over real sockets: answers, and everything else that peers do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;
mod servers;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use evenkeel_checker::{
    Probe,
    balance::{
        CheckOutcome::{Drained, NotServing, ServiceUnknown, Serving},
        FailureKind,
    },
};
use evenkeel_health::ServingStatus;
use http::Response;
use peers::{Answer, Peer, SERVING, ask, at, failure, grpc};
use servers::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

#[tokio::test]
async fn each_status_is_understood_and_one_connection_serves_all_probes() {
    let server = Server::start();
    server.health.set("s", ServingStatus::Serving);
    let mut prober = at(Probe::grpc("s"), server.address);
    assert_eq!(ask(&mut prober).await, Serving);
    server.health.set("s", ServingStatus::NotServing);
    assert_eq!(ask(&mut prober).await, NotServing);
    server.health.set("s", ServingStatus::Unknown);
    assert_eq!(ask(&mut prober).await, NotServing);
    server.health.clear("s");
    assert_eq!(ask(&mut prober).await, ServiceUnknown);
    assert_eq!(server.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn what_was_given_is_sent() {
    let seen = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&seen);
    let peer = Peer::http2(move |request| {
        *sink.lock().unwrap() = Some(request);
        grpc(SERVING, 0)
    })
    .await;
    let probe = Probe::grpc("s").authority("shop.internal").header("x-of", "eu").user_agent("me/1");
    assert_eq!(ask(&mut at(probe, peer.address)).await, Serving);
    let request = seen.lock().unwrap().take().unwrap();
    assert_eq!(request.uri(), "http://shop.internal/grpc.health.v1.Health/Check");
    assert_eq!(
        (&request.headers()["x-of"], &request.headers()["user-agent"]),
        (&"eu".parse().unwrap(), &"me/1".parse().unwrap())
    );
}

#[tokio::test]
async fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(failure(&mut at(Probe::grpc(""), address)).await.0, FailureKind::Refused);
    let mut missing = Probe::grpc("").at(evenkeel_checker::balance::Address::Unix("/no/such/socket".into())).unwrap();
    assert_eq!(failure(&mut missing).await.0, FailureKind::Refused);
}

#[tokio::test]
async fn a_hung_server_is_told_from_one_that_is_slow_to_answer() {
    let server = Server::start();
    let frozen = server.freeze();
    let mut prober = at(Probe::grpc(""), server.address);
    let soon = || Instant::now() + Duration::from_millis(100);
    let outcome = prober.probe(soon()).await.to_string();
    assert!(outcome.contains("connected, but not a byte within the time-out"), "{outcome}");
    drop(frozen);
    assert_eq!(ask(&mut prober).await, Serving, "on a new connection");

    let slow = Peer::http2(|_| Answer::Never).await;
    let outcome = at(Probe::grpc(""), slow.address).probe(soon()).await.to_string();
    assert!(outcome.contains("asked, but no answer"), "{outcome}");
}

#[tokio::test]
async fn peers_that_close_or_speak_something_else_are_named() {
    let closes = Peer::saying(b"").await;
    let (kind, detail) = failure(&mut at(Probe::grpc(""), closes.address)).await;
    assert_eq!(kind, FailureKind::Closed, "{detail}");

    let http1 = Peer::saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let (kind, detail) = failure(&mut at(Probe::grpc(""), http1.address)).await;
    assert_eq!(kind, FailureKind::Protocol, "{detail}");
    assert!(detail.contains("does it speak HTTP/2 on this port?"), "{detail}");

    let resets = Peer::http2(|_| Answer::Reset(h2::Reason::INTERNAL_ERROR)).await;
    let (kind, detail) = failure(&mut at(Probe::grpc(""), resets.address)).await;
    assert_eq!((kind, detail.as_str()), (FailureKind::Protocol, "the server reset the stream: INTERNAL_ERROR"));
}

#[tokio::test]
async fn answers_that_are_none_are_named() {
    let detail = async |answer: Answer| {
        let peer = Peer::http2(move |_| answer.clone()).await;
        let (kind, detail) = failure(&mut at(Probe::grpc(""), peer.address)).await;
        (kind, detail)
    };
    let (kind, words) = detail(Answer::Head(Response::builder().status(503).body(()).unwrap())).await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(words.contains("HTTP status 503 Service Unavailable, and not as a gRPC server"), "{words}");
    let (kind, words) = detail(grpc(b"", 12)).await;
    assert_eq!(kind, FailureKind::Status);
    assert!(words.contains("does not implement grpc.health.v1"), "{words}");
    assert_eq!(detail(grpc(b"", 14)).await, (FailureKind::Status, "the Check ended with UNAVAILABLE".to_owned()));
    let (kind, words) = detail(grpc(b"", 0)).await;
    assert_eq!((kind, words.as_str()), (FailureKind::Protocol, "the Check ended without a reply"));
    let (kind, words) = detail(grpc(&[1, 0, 0, 0, 0], 0)).await;
    assert!(kind == FailureKind::Protocol && words.contains("compression"), "{words}");
    let (kind, words) = detail(grpc(&[0, 0xFF, 0xFF, 0xFF, 0xFF], 0)).await;
    assert!(kind == FailureKind::Protocol && words.contains("at most 1024"), "{words}");
    let two = &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1];
    assert!(detail(grpc(two, 0)).await.1.contains("more than one reply"));
}

#[tokio::test]
async fn headers_without_end_are_given_up_and_nothing_is_kept_of_them() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let peer = Peer::start(|_, mut stream| async move {
        stream.write_all(&SETTINGS).await.unwrap();
        let mut read = [0; 4_096];
        assert!(stream.read(&mut read).await.unwrap() > 0);
        // HEADERS of stream 1 without END_HEADERS, then CONTINUATION for ever, each with a literal header of 16 KiB.
        let mut value = vec![0x00, 0x01, b'x', 0x7F, 0x81, 0x7E];
        value.extend(vec![b'y'; 127 + 1 + (0x7E << 7)]);
        for kind in std::iter::once(1).chain(std::iter::repeat(9)) {
            let length = u32::try_from(value.len()).unwrap().to_be_bytes();
            let head = [length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
            if stream.write_all(&head).await.is_err() || stream.write_all(&value).await.is_err() {
                return;
            }
        }
    })
    .await;
    let (kind, detail) = failure(&mut at(Probe::grpc(""), peer.address)).await;
    assert!(matches!(kind, FailureKind::Protocol | FailureKind::Closed), "{kind:?}: {detail}");
}

#[tokio::test]
async fn a_good_bye_counts_as_nothing_and_the_next_probe_connects_anew() {
    let peer = Peer::start(|number, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        if number == 0 {
            // The request is on its way, and is left behind.
            connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            while let Some(Ok(_)) = connection.accept().await {}
            return;
        }
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let Answer::Whole(head, body, trailers) = grpc(SERVING, 0) else { unreachable!() };
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(body.into(), false).unwrap();
            stream.send_trailers(trailers.headers().clone()).unwrap();
            if number == 1 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let mut prober = at(Probe::grpc(""), peer.address);
    assert_eq!(ask(&mut prober).await, Drained);
    assert_eq!(ask(&mut prober).await, Serving);
    // The second connection's server leaves while nobody asks.
    for _ in 0..3 {
        assert!(matches!(ask(&mut prober).await, Serving | Drained));
    }
    assert_eq!(ask(&mut prober).await, Serving);
    assert_eq!(peer.connections.load(SeqCst), 3);
}

#[tokio::test]
async fn a_kept_connection_that_is_lost_says_nothing_and_a_restarted_server_is_found() {
    let mut server = Server::start();
    let mut prober = at(Probe::grpc(""), server.address);
    assert_eq!(ask(&mut prober).await, Serving);
    let address = server.address;
    server.kill();
    assert_eq!(prober.news().await, evenkeel_checker::News::Lost, "it went without a good-bye");
    assert_eq!(failure(&mut prober).await.0, FailureKind::Refused);
    let _again = Server::start_at(address);
    assert_eq!(ask(&mut prober).await, Serving);
}
