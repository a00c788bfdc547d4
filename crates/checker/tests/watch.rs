//! Watch: changes as they happen, Checks where there is no Watch, and servers that hang behind an open one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;
mod servers;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use evenkeel_checker::{
    News, Probe,
    balance::{
        CheckOutcome::{self, NotServing, ServiceUnknown, Serving},
        FailureKind, Statement,
    },
};
use evenkeel_health::ServingStatus;
use peers::{Answer, Peer, SERVING, ask, at, grpc};
use servers::Server;
use tokio::time::Instant;

#[tokio::test]
async fn changes_are_heard_between_probes() {
    let server = Server::start();
    let mut prober = at(Probe::watch(""), server.address);
    assert_eq!(ask(&mut prober).await, Serving);
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(prober.news().await, News::Said(Statement::NotServing));
    assert_eq!(ask(&mut prober).await, NotServing, "a Check says so too");
    server.health.set("", ServingStatus::Serving);
    assert_eq!(prober.news().await, News::Said(Statement::Serving));
    assert_eq!(server.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_service_that_is_registered_later_is_heard_of() {
    let server = Server::start();
    let mut prober = at(Probe::watch("later"), server.address);
    assert_eq!(ask(&mut prober).await, ServiceUnknown);
    server.health.set("later", ServingStatus::Serving);
    assert_eq!(prober.news().await, News::Said(Statement::Serving));
}

#[tokio::test]
async fn a_server_that_hangs_behind_an_open_watch_is_found() {
    let server = Server::start();
    let mut prober = at(Probe::watch(""), server.address);
    assert_eq!(ask(&mut prober).await, Serving);
    let frozen = server.freeze();
    let outcome = prober.probe(Instant::now() + Duration::from_millis(100)).await;
    assert!(matches!(&outcome, CheckOutcome::Failed(failure) if failure.kind == FailureKind::TimedOut), "{outcome:?}");
    drop(frozen);
    assert_eq!(ask(&mut prober).await, Serving);
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(prober.news().await, News::Said(Statement::NotServing), "by a new Watch");
}

/// A peer that answers Checks with SERVING and Watches with `watch`, and the paths that it was asked.
async fn checks_and(watch: Answer) -> (Peer, Arc<Mutex<Vec<String>>>) {
    let paths = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&paths);
    let peer = Peer::http2(move |request| {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let is_watch = method == "Watch";
        sink.lock().unwrap().push(method);
        if is_watch { watch.clone() } else { grpc(SERVING, 0) }
    })
    .await;
    (peer, paths)
}

#[tokio::test]
async fn checks_take_the_place_of_a_watch_that_is_not_implemented() {
    let (peer, paths) = checks_and(grpc(b"", 12)).await;
    let mut prober = at(Probe::watch(""), peer.address);
    for _ in 0..3 {
        assert_eq!(ask(&mut prober).await, Serving);
    }
    assert_eq!(*paths.lock().unwrap(), ["Watch", "Check", "Check", "Check"]);
    assert_eq!(peer.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_watch_that_ends_is_news_and_is_not_tried_again_at_once() {
    let (peer, paths) = checks_and(grpc(SERVING, 14)).await;
    let mut prober = at(Probe::watch(""), peer.address);
    assert_eq!(ask(&mut prober).await, Serving);
    assert_eq!(prober.news().await, News::Lost);
    assert_eq!((ask(&mut prober).await, ask(&mut prober).await), (Serving, Serving));
    assert_eq!(*paths.lock().unwrap(), ["Watch", "Check", "Check"]);
}

#[tokio::test]
async fn a_watch_that_is_reset_costs_no_connection() {
    let (peer, paths) = checks_and(Answer::Reset(h2::Reason::CANCEL)).await;
    let mut prober = at(Probe::watch(""), peer.address);
    assert_eq!((ask(&mut prober).await, ask(&mut prober).await), (Serving, Serving));
    assert_eq!(*paths.lock().unwrap(), ["Watch", "Check", "Check"]);
    assert_eq!(peer.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_lost_connection_is_news() {
    let mut server = Server::start();
    let mut prober = at(Probe::watch(""), server.address);
    assert_eq!(ask(&mut prober).await, Serving);
    server.kill();
    assert_eq!(prober.news().await, News::Lost);
}

#[tokio::test]
async fn of_a_watch_that_never_holds_still_the_last_word_counts() {
    const WORDS: usize = 10_000;
    let peer = Peer::start(|_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            // Many to a frame, since HTTP/2's library ends connections that carry too many tiny ones.
            let words = [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 2].repeat(50);
            for _ in 0..WORDS / 100 {
                body.send_data(words.clone().into(), false).unwrap();
            }
            body.send_data(bytes::Bytes::from_static(&[0, 0, 0, 0, 2, 8, 3]), false).unwrap();
            std::mem::forget((body, respond));
        }
    })
    .await;
    let mut prober = at(Probe::watch(""), peer.address);
    assert_eq!(ask(&mut prober).await, Serving);
    let mut told = 1;
    loop {
        match prober.news().await {
            News::Said(Statement::ServiceUnknown) => break,
            News::Said(_) => told += 1,
            News::Lost => panic!("the Watch goes on"),
        }
    }
    assert!(told < WORDS / 10, "{told} of {WORDS} are told");
}
