//! Servers that end their connections at a certain age (gRFC A9).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_channel::{Channel, balance::What};
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request, target};

/// How many connections are to be lost under the load.
const LOST: usize = 10;

async fn aging() -> Server {
    Server::start_with(|server| server.max_connection_age(Duration::from_millis(100))).await
}

/// Calls of every length, until told to stop; returns how many there were.
async fn load(mut client: EchoClient<Channel>, is_over: Arc<AtomicBool>) -> u32 {
    let mut calls = 0;
    while !is_over.load(SeqCst) {
        let unary = EchoRequest { delay_ms: calls % 4, ..request("x") };
        client.unary(unary).await.unwrap();
        let many = EchoRequest { repeat: 8, payload: vec![0; 4_096].into(), delay_ms: calls % 3, ..request("x") };
        let mut replies = client.server_stream(many).await.unwrap().into_inner();
        let mut received = 0;
        while replies.message().await.unwrap().is_some() {
            received += 1;
        }
        assert_eq!(received, 8);
        calls += 2;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a9_connections_that_reach_their_age_under_load_fail_no_call() {
    let (one, two) = (aging().await, aging().await);
    let channel = Channel::builder(target(&[&one, &two])).policy("round_robin").build().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..16).map(|_| tokio::spawn(load(EchoClient::new(channel.clone()), Arc::clone(&is_over)))).collect();

    let lost = tokio::time::timeout(Duration::from_secs(30), until_lost(&channel, LOST)).await;
    is_over.store(true, SeqCst);
    let mut calls = 0;
    for caller in callers {
        let ended = tokio::time::timeout(Duration::from_secs(20), caller).await;
        let Ok(ended) = ended else { panic!("a call hangs:\n{}", channel.explain().await.unwrap()) };
        calls += ended.expect("no call fails");
    }
    lost.expect("connections are lost in time");
    assert!(u64::from(calls) <= one.calls() + two.calls());
    assert!(one.calls() > 0 && two.calls() > 0);
}

/// Waits until the channel has seen `count` good-byes.
async fn until_lost(channel: &Channel, count: usize) {
    let mut reports = channel.reports();
    loop {
        let explanation = channel.explain().await.unwrap();
        let lost = explanation.decisions.iter().filter(|decision| match &decision.what {
            What::Endpoint { reason, .. } => reason.contains("GOAWAY"),
            _ => false,
        });
        if lost.count() >= count {
            return;
        }
        reports.changed().await.unwrap();
    }
}
