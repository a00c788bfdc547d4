//! The task: its schedule, what it publishes, and its end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod peers;
mod servers;

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use evenkeel_checker::{
    Checker, Probe, Transitions,
    balance::{
        CheckReason, CheckSettings,
        CheckVerdict::{self, Disputed, Healthy, Pending, Unhealthy},
        FailureKind, Transition,
    },
};
use evenkeel_health::ServingStatus;
use peers::{PATIENCE, Peer, at};
use servers::Server;

fn brisk() -> CheckSettings {
    let mut settings = CheckSettings::every(Duration::from_millis(20));
    settings.timeout = Duration::from_millis(200);
    settings
}

async fn next(transitions: &mut Transitions) -> Transition {
    tokio::time::timeout(PATIENCE, transitions.next()).await.unwrap().unwrap()
}

/// The verdicts of the next transition, and why.
async fn change(transitions: &mut Transitions) -> (CheckVerdict, CheckVerdict, CheckReason) {
    let Transition { from, to, reason, .. } = next(transitions).await;
    (from, to, reason)
}

fn kind(reason: &CheckReason) -> Option<FailureKind> {
    match reason {
        CheckReason::Failed { last, .. } => Some(last.kind),
        _ => None,
    }
}

#[tokio::test]
async fn a_servers_life_is_told_with_reasons() {
    let mut server = Server::start();
    let checker = Checker::start(at(Probe::grpc(""), server.address), brisk()).unwrap();
    let mut transitions = checker.transitions();
    assert_eq!(change(&mut transitions).await, (Pending, Healthy, CheckReason::Answered(1)));

    server.health.set("", ServingStatus::NotServing);
    assert_eq!(change(&mut transitions).await, (Healthy, Unhealthy, CheckReason::NotServing));
    server.health.set("", ServingStatus::Serving);
    assert_eq!(change(&mut transitions).await, (Unhealthy, Healthy, CheckReason::Serving));

    let frozen = server.freeze();
    let (from, to, reason) = change(&mut transitions).await;
    assert_eq!((from, to, kind(&reason)), (Healthy, Unhealthy, Some(FailureKind::TimedOut)));
    drop(frozen);
    assert_eq!(change(&mut transitions).await, (Unhealthy, Healthy, CheckReason::Answered(2)));

    server.kill();
    let (from, to, reason) = change(&mut transitions).await;
    assert_eq!((from, to, kind(&reason)), (Healthy, Unhealthy, Some(FailureKind::Refused)));
    assert_eq!(checker.verdict(), Unhealthy);
    assert_eq!(checker.standing().reason, reason);
    assert_eq!(checker.history().iter().len(), 6);

    let _again = Server::start_at(server.address);
    assert_eq!(change(&mut transitions).await.1, Healthy);
}

#[tokio::test]
async fn a_watch_tells_long_before_the_next_probe() {
    let server = Server::start();
    // No test waits for an hour: what is heard here, the Watch has told.
    let checker =
        Checker::start(at(Probe::watch(""), server.address), CheckSettings::every(Duration::from_secs(3_600)));
    let mut transitions = checker.as_ref().unwrap().transitions();
    assert_eq!(change(&mut transitions).await.1, Healthy);
    server.health.set("", ServingStatus::NotServing);
    assert_eq!(change(&mut transitions).await, (Healthy, Unhealthy, CheckReason::NotServing));
}

#[tokio::test]
async fn a_killed_server_is_out_without_waiting_for_the_interval() {
    let mut server = Server::start();
    let checker = Checker::start(at(Probe::grpc(""), server.address), CheckSettings::every(Duration::from_secs(3_600)));
    let mut transitions = checker.as_ref().unwrap().transitions();
    assert_eq!(change(&mut transitions).await.1, Healthy);
    server.kill();
    assert_eq!(change(&mut transitions).await.1, Unhealthy);
}

#[tokio::test]
async fn calls_that_succeed_keep_a_server_whose_probes_fail() {
    let peer = Peer::saying(b"").await;
    let mut settings = brisk();
    settings.initial = evenkeel_checker::balance::Initial::Healthy;
    let checker = Checker::start(at(Probe::grpc(""), peer.address), settings).unwrap();
    let mut transitions = checker.transitions();
    let disputed = async {
        loop {
            checker.record(true);
            tokio::task::yield_now().await;
        }
    };
    let (from, to, reason) = tokio::select! {
        change = change(&mut transitions) => change,
        () = disputed => unreachable!(),
    };
    assert_eq!((from, to), (Healthy, Disputed));
    assert!(matches!(reason, CheckReason::CallsSucceed { .. }), "{reason}");
    let (from, to, _) = change(&mut transitions).await;
    assert_eq!((from, to), (Disputed, Unhealthy), "the calls have ended");
}

#[tokio::test]
async fn it_ends_with_its_handle() {
    let server = Server::start();
    let checker = Checker::start(at(Probe::grpc(""), server.address), brisk()).unwrap();
    let mut transitions = checker.transitions();
    assert_eq!(change(&mut transitions).await.1, Healthy);
    drop(checker);
    assert_eq!(transitions.next().await, None);
    assert_eq!(server.connections.load(SeqCst), 1);
}
