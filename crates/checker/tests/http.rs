//! GET by HTTP/1.1 and HTTP/2, and bare connections, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;

use std::sync::atomic::Ordering::SeqCst;

use evenkeel_checker::{
    Probe,
    balance::{
        Address,
        CheckOutcome::{Drained, Serving},
        FailureKind,
    },
};
use http::Response;
use peers::{Answer, Peer, ask, at, failure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixListener},
};

/// An HTTP/1.1 server that answers each request by its path: `/<status>`, and after `/close` hangs up.
async fn http1() -> Peer {
    Peer::start(|_, stream| async move {
        let mut stream = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if stream.read_line(&mut first).await.unwrap() == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if line == "\r\n" {
                    break;
                }
            }
            let path = first.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let status = if path == "close" { "200" } else { &path };
            let answer = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if path == "close" {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn statuses_from_200_to_399_pass_unless_others_are_given() {
    let peer = http1().await;
    for (path, passes) in [("/200", true), ("/204", true), ("/302", true), ("/404", false), ("/503", false)] {
        let mut prober = at(Probe::http(path), peer.address);
        if passes {
            assert_eq!(ask(&mut prober).await, Serving, "{path}");
        } else {
            let (kind, detail) = failure(&mut prober).await;
            assert_eq!(kind, FailureKind::Status);
            assert_eq!(detail, format!("it answers with HTTP status {}, and 200 to 399 passes", &path[1..]));
        }
    }
    assert_eq!(ask(&mut at(Probe::http("/404").passes(404..=404), peer.address)).await, Serving);
}

#[tokio::test]
async fn a_connection_is_kept_and_one_that_was_closed_meanwhile_is_no_failure() {
    let peer = http1().await;
    let mut prober = at(Probe::http("/200"), peer.address);
    for _ in 0..3 {
        assert_eq!(ask(&mut prober).await, Serving);
    }
    assert_eq!(peer.connections.load(SeqCst), 1);

    let mut prober = at(Probe::http("/close"), peer.address);
    for _ in 0..3 {
        assert!(matches!(ask(&mut prober).await, Serving | Drained));
    }
}

#[tokio::test]
async fn answers_that_are_no_http_are_named() {
    let words = Peer::saying(b"220 mail.example ESMTP\r\n").await;
    let (kind, detail) = failure(&mut at(Probe::http("/"), words.address)).await;
    assert_eq!(kind, FailureKind::Protocol, "{detail}");
    assert!(detail.contains("does it speak HTTP/1.1 on this port?"), "{detail}");
    let closes = Peer::saying(b"").await;
    let (kind, detail) = failure(&mut at(Probe::http("/"), closes.address)).await;
    assert_eq!(kind, FailureKind::Closed, "{detail}");
}

#[tokio::test]
async fn a_head_without_end_fails_and_a_body_without_end_costs_its_connection_only() {
    let heads = Peer::start(|_, mut stream| async move {
        assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
        let mut answer = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while answer.is_ok() {
            answer = stream.write_all(b"x-more: and more of it, without end\r\n").await;
        }
    })
    .await;
    let (kind, detail) = failure(&mut at(Probe::http("/"), heads.address)).await;
    assert_eq!(kind, FailureKind::Protocol, "{detail}");

    let bodies = Peer::start(|_, mut stream| async move {
        assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
        let mut answer = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while answer.is_ok() {
            answer = stream.write_all(&[b'x'; 4_096]).await;
        }
    })
    .await;
    let mut prober = at(Probe::http("/"), bodies.address);
    assert_eq!(ask(&mut prober).await, Serving);
    assert!(matches!(ask(&mut prober).await, Serving | Drained));
}

#[tokio::test]
async fn http_2_is_asked_on_one_connection() {
    let peer = Peer::http2(|request| {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        Answer::Head(Response::builder().status(status).body(()).unwrap())
    })
    .await;
    let mut prober = at(Probe::http2("/204"), peer.address);
    assert_eq!((ask(&mut prober).await, ask(&mut prober).await), (Serving, Serving));
    assert_eq!(peer.connections.load(SeqCst), 1);
    assert_eq!(failure(&mut at(Probe::http2("/500"), peer.address)).await.0, FailureKind::Status);
}

#[tokio::test]
async fn a_connection_is_enough_where_no_more_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(ask(&mut at(Probe::tcp(), address)).await, Serving);
    drop(listener);
    assert_eq!(failure(&mut at(Probe::tcp(), address)).await.0, FailureKind::Refused);

    let path = std::env::temp_dir().join(format!("evenkeel-checker-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut prober = Probe::tcp().at(Address::Unix(path.clone())).unwrap();
    assert_eq!(ask(&mut prober).await, Serving);
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(failure(&mut prober).await.0, FailureKind::Refused);
}
