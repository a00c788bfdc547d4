//! Peers that mean harm, or are badly broken: a probe ends all the same, and says what was wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_checker::{
    Probe,
    balance::{
        CheckOutcome::{self, Drained, Serving},
        FailureKind,
    },
};
use peers::{Answer, Peer, SERVING, ask, at, failure, grpc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A literal header that the peer does not remember.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend(value.as_bytes());
    bytes
}

/// The head of a gRPC response: `:status: 200` and its type.
fn head(stream: u32) -> Vec<u8> {
    let block = [&[0x88][..], &header("content-type", "application/grpc")].concat();
    frame(1, 4, stream, &block)
}

fn trailers(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &header("grpc-status", "0"))
}

/// Reads until the request has begun.
async fn request(stream: &mut TcpStream) {
    let mut seen: Vec<u8> = Vec::new();
    // The preface is followed by SETTINGS, and the request's HEADERS have the path in them or come with it.
    while seen.len() < 120 {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        seen.extend(&bytes[..read]);
    }
}

/// A peer that answers the first request with these bytes, in pieces, and then reads on.
async fn raw(bytes: Vec<u8>, piece: usize) -> Peer {
    Peer::start(move |_, mut stream| {
        let bytes = bytes.clone();
        async move {
            stream.set_nodelay(true).unwrap();
            stream.write_all(SETTINGS).await.unwrap();
            request(&mut stream).await;
            for piece in bytes.chunks(piece) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {}
        }
    })
    .await
}

fn answer() -> Vec<u8> {
    [head(1), frame(0, 0, 1, SERVING), trailers(1)].concat()
}

#[tokio::test]
async fn an_answer_in_pieces_of_one_byte_is_an_answer() {
    let peer = raw(answer(), 1).await;
    assert_eq!(ask(&mut at(Probe::grpc(""), peer.address)).await, Serving);
}

#[tokio::test]
async fn informational_heads_without_number_come_before_the_answer_or_end_the_probe() {
    let early = frame(1, 4, 1, &header(":status", "103"));
    let peer = raw([early.repeat(10), answer()].concat(), 4096).await;
    assert_eq!(ask(&mut at(Probe::grpc(""), peer.address)).await, Serving);
    let peer = raw(early.repeat(100_000), 65_536).await;
    let outcome = at(Probe::grpc(""), peer.address).probe(Instant::now() + Duration::from_millis(300)).await;
    assert!(matches!(outcome, CheckOutcome::Failed(_)), "{outcome}");
}

#[tokio::test]
async fn good_byes_that_leave_a_fresh_connections_probe_behind_are_drains() {
    let goaway = frame(7, 0, 0, &[0; 8]);
    let peer = raw(goaway, 4096).await;
    let mut prober = at(Probe::grpc(""), peer.address);
    assert_eq!(ask(&mut prober).await, Drained);
    assert_eq!(ask(&mut prober).await, Drained, "balance::Check makes a failure of the second");
    assert_eq!(peer.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_good_bye_after_each_answer_costs_a_connection_and_no_failure() {
    let goaway = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let peer = raw([goaway, answer()].concat(), 4096).await;
    let mut prober = at(Probe::grpc(""), peer.address);
    for _ in 0..5 {
        assert_eq!(ask(&mut prober).await, Serving);
    }
    assert_eq!(peer.connections.load(SeqCst), 5);
}

#[tokio::test]
async fn a_reset_after_the_answer_takes_nothing_back_and_one_before_is_named() {
    let reset = frame(3, 0, 1, &[0, 0, 0, 0]);
    let peer = raw([answer(), reset].concat(), 4096).await;
    assert_eq!(ask(&mut at(Probe::grpc(""), peer.address)).await, Serving);
    let refused = frame(3, 0, 1, &[0, 0, 0, 7]);
    let peer = raw(refused, 4096).await;
    assert_eq!(failure(&mut at(Probe::grpc(""), peer.address)).await.0, FailureKind::Protocol);
}

#[tokio::test]
async fn a_second_reply_an_endless_one_and_a_status_without_a_reply_are_no_answers() {
    for body in
        [SERVING.repeat(2), [&[0, 0, 0, 0, 200][..], &[0; 20]].concat(), Vec::new(), vec![0, 0xFF, 0xFF, 0xFF, 0xFF]]
    {
        let peer = raw([head(1), frame(0, 0, 1, &body), trailers(1)].concat(), 4096).await;
        let (kind, detail) = failure(&mut at(Probe::grpc(""), peer.address)).await;
        assert_eq!(kind, FailureKind::Protocol, "{detail}");
    }
}

#[tokio::test]
async fn a_head_of_many_small_headers_or_a_huge_trailer_ends_the_probe() {
    let many = [vec![0x88], header("a", "b").repeat(2_000)].concat();
    let huge = [header("grpc-status", "0"), header("x", &"y".repeat(120)).repeat(130)].concat();
    for bytes in [frame(1, 4, 1, &many), [head(1), frame(0, 0, 1, SERVING), frame(1, 5, 1, &huge)].concat()] {
        let peer = raw(bytes, 4096).await;
        // Trailers count as far as they fit.
        let outcome = ask(&mut at(Probe::grpc(""), peer.address)).await;
        assert!(outcome == Serving || outcome.label() == "protocol", "{outcome:?}");
    }
}

#[tokio::test]
async fn after_a_probe_that_was_dropped_the_next_one_connects_anew() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hung = Arc::clone(&hangs);
    let peer = Peer::http2(move |_| if hung.load(SeqCst) { Answer::Never } else { grpc(SERVING, 0) }).await;
    let mut prober = at(Probe::grpc(""), peer.address);
    assert_eq!(ask(&mut prober).await, Serving);
    hangs.store(true, SeqCst);
    tokio::time::timeout(Duration::from_millis(50), ask(&mut prober)).await.unwrap_err();
    hangs.store(false, SeqCst);
    assert_eq!(ask(&mut prober).await, Serving);
    assert_eq!(peer.connections.load(SeqCst), 2);
}

/// What this process has open.
#[cfg(target_os = "linux")]
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_probes_leave_nothing_open_however_they_end() {
    let (well, gone) = (Peer::http2(|_| grpc(SERVING, 0)).await, Peer::saying(b"").await);
    let never = Peer::http2(|_| Answer::Never).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (files, before) = (open_files(), tasks());
    for probe in [Probe::grpc(""), Probe::watch(""), Probe::http("/"), Probe::http2("/"), Probe::tcp()] {
        for peer in [&well, &gone, &never] {
            let mut kept = at(probe.clone(), peer.address);
            for _ in 0..60 {
                let soon = Instant::now() + Duration::from_millis(2);
                kept.probe(soon).await;
                // Dropped half-way.
                let _ = tokio::time::timeout(Duration::from_millis(1), kept.probe(soon)).await;
            }
        }
    }
    // The peers have yet to see the ends of the last ones.
    while open_files() > files || tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn http_1_is_not_held_up_by_informational_heads_lengths_that_lie_or_kept_connections_that_go() {
    let continues: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let peer = Peer::saying(continues).await;
    assert_eq!(ask(&mut at(Probe::http("/"), peer.address)).await, Serving);
    for lie in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
    ] {
        let peer = Peer::saying(lie).await;
        let outcome = ask(&mut at(Probe::http("/"), peer.address)).await;
        assert!(matches!(outcome, CheckOutcome::Failed(_)), "{outcome} to {:?}", String::from_utf8_lossy(lie));
    }
    // It says that it keeps the connection, and closes it.
    let peer = Peer::saying(b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n").await;
    let mut prober = at(Probe::http("/"), peer.address);
    let mut served = 0;
    while served < 5 {
        match ask(&mut prober).await {
            Serving => served += 1,
            Drained => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn bodies_and_heads_without_end_end_the_probe() {
    let endless = |start: &'static [u8], more: &'static [u8]| {
        Peer::start(move |_, mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(start).await;
            while stream.write_all(more).await.is_ok() {}
        })
    };
    let chunks = endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nhello\r\n").await;
    assert_eq!(ask(&mut at(Probe::http("/"), chunks.address)).await, Serving);
    let informational = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n").await;
    let soon = Instant::now() + Duration::from_millis(300);
    let outcome = at(Probe::http("/"), informational.address).probe(soon).await;
    assert!(matches!(outcome, CheckOutcome::Failed(_)), "{outcome}");
    let headers = endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n").await;
    assert!(matches!(ask(&mut at(Probe::http("/"), headers.address)).await, CheckOutcome::Failed(_)));
}
