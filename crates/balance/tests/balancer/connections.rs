//! Connection backoff (gRPC's connection-backoff document), and news that comes too late.

use std::time::Duration;

use evenkeel_balance::{Connectivity, Input, Status, Time, What};

use crate::driver::{Driver, Placed, millis, secs, v4};

#[test]
fn failed_attempts_wait_1_s_growing_by_1_6_up_to_120_s_give_or_take_a_fifth() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    let mut expected = 1.0_f64;
    for attempt in 1..20 {
        driver.refuse(&v4(1));
        let waited = until_dialled(&mut driver).as_secs_f64();
        assert!((0.8 * expected - 1e-6..=1.2 * expected + 1e-6).contains(&waited), "after {attempt}: {waited} s");
        expected = (expected * 1.6).min(120.0);
    }
    assert_eq!(driver.resolutions, 19);
}

#[test]
fn a_useful_connection_resets_the_backoff() {
    let mut driver = failing_for_long();
    driver.accept(&v4(1));
    driver.picks(1);
    driver.lose(&v4(1));
    assert!(driver.dialling.contains_key(&v4(1)), "dialled again at once");
    driver.refuse(&v4(1));
    assert!(until_dialled(&mut driver) <= millis(1_200));
}

#[test]
fn a_connection_that_lasts_is_useful_without_a_call() {
    let mut driver = failing_for_long();
    driver.accept(&v4(1));
    driver.wait(secs(1));
    driver.lose(&v4(1));
    assert!(driver.dialling.contains_key(&v4(1)), "dialled again at once");
}

#[test]
fn a_peer_that_accepts_and_hangs_up_at_once_is_backed_off() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    let started = driver.now;
    for _ in 0..8 {
        driver.accept(&v4(1));
        driver.lose(&v4(1));
        assert!(driver.dialling.is_empty(), "not dialled at once");
        assert!(matches!(driver.pick(), Placed::Failed(_)));
        until_dialled(&mut driver);
    }
    assert!(driver.now.since(started) > secs(30), "the backoff grows");
}

#[test]
fn an_attempt_has_20_s_and_is_then_given_up() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    driver.wait(millis(19_999));
    assert_eq!((driver.pick(), driver.closed.len()), (Placed::Queued, 0));
    let late = driver.dialling[&v4(1)];
    driver.wait(millis(1));
    assert_eq!(driver.closed, [v4(1)]);
    let Placed::Failed(status) = driver.pick() else { panic!("calls fail") };
    assert!(status.message.contains("not connected in time"), "{status}");

    driver.input(Input::Connected(late));
    assert!(matches!(driver.pick(), Placed::Failed(_)), "an attempt that was given up is not heard");
}

#[test]
fn attempts_that_change_nothing_are_no_news() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.picks(2);
    driver.decisions.clear();
    driver.lose(&v4(1));
    for _ in 0..100 {
        driver.find_nobody(&v4(1));
        until_dialled(&mut driver);
    }
    driver.accept(&v4(1));
    let states = driver.decisions.iter().filter_map(|decision| match &decision.what {
        What::Endpoint { from, to, .. } => Some((*from, *to)),
        _ => None,
    });
    let out = Connectivity::TransientFailure;
    let expected =
        [(Connectivity::Ready, Connectivity::Idle), (Connectivity::Connecting, out), (out, Connectivity::Ready)];
    assert_eq!(states.collect::<Vec<_>>(), expected);
}

#[test]
fn an_endpoint_that_was_lost_is_tried_every_200_ms_for_a_minute_while_nobody_listens() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    driver.picks(1);
    driver.lose(&v4(1));
    let lost = driver.now;
    while driver.now.since(lost) < secs(60) {
        driver.find_nobody(&v4(1));
        let waited = until_dialled(&mut driver);
        assert!((millis(160)..=millis(240)).contains(&waited), "{waited:?}");
    }
    driver.find_nobody(&v4(1));
    assert!(until_dialled(&mut driver) >= millis(800), "then by the backoff");
    driver.find_nobody(&v4(1));
    assert!(until_dialled(&mut driver) >= millis(1_280));
}

#[test]
fn only_lost_endpoints_return_quickly_and_only_while_nobody_listens() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    driver.find_nobody(&v4(1));
    assert!(until_dialled(&mut driver) >= millis(800), "it has never carried a call");

    driver.accept(&v4(1));
    driver.picks(1);
    driver.lose(&v4(1));
    // A dying process still accepts once; after that, whoever listens and fails is not hurried.
    driver.refuse(&v4(1));
    assert!(until_dialled(&mut driver) <= millis(240));
    driver.refuse(&v4(1));
    assert!(until_dialled(&mut driver) >= millis(1_280));
    driver.find_nobody(&v4(1));
    assert!(until_dialled(&mut driver) <= millis(240));
}

#[test]
fn news_of_an_earlier_connection_is_ignored() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    let old = driver.open[&v4(1)];
    driver.picks(1);
    driver.lose(&v4(1));
    driver.accept(&v4(1));
    driver.input(Input::Disconnected(old, Status::unavailable("late")));
    driver.input(Input::Stalled(old, "late".into()));
    driver.input(Input::Health(old, evenkeel_balance::HealthSignal::NotServing));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    assert_eq!(driver.dialled.len(), 2);
}

#[test]
fn the_state_says_since_when_and_why_an_address_is_out() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    driver.picks(1);
    driver.wait(secs(5));
    driver.lose(&v4(1));
    driver.refuse(&v4(1));
    driver.wait(secs(3));
    let state = driver.state(&v4(1)).unwrap();
    assert_eq!(state.since, Time::ZERO + secs(5), "the steps of a reconnect do not count");
    assert_eq!((state.reason.as_str(), state.service), ("connection refused", Connectivity::Connecting));
}

#[test]
fn shutdown_closes_everything() {
    for policy in ["pick_first", "round_robin", "random", "least_request"] {
        let mut driver = Driver::new(policy);
        driver.resolve([v4(1), v4(2)]);
        driver.input(Input::ExitIdle);
        driver.balancer.shutdown(driver.now);
        driver.input(Input::ExitIdle);
        assert!(driver.dialling.is_empty() && driver.open.is_empty(), "{policy}");
        assert!(driver.balancer.subchannels().is_empty(), "{policy}");
        assert_eq!(driver.balancer.next_timeout(), None, "{policy}");
    }
}

/// An address whose backoff has grown, and that is being dialled.
fn failing_for_long() -> Driver {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    for _ in 0..6 {
        driver.refuse(&v4(1));
        until_dialled(&mut driver);
    }
    driver
}

/// Waits until the address is dialled, and says how long that took.
fn until_dialled(driver: &mut Driver) -> Duration {
    let started = driver.now;
    while driver.dialling.is_empty() {
        let at = driver.balancer.next_timeout().expect("the core will dial again");
        driver.wait(at.since(driver.now));
    }
    driver.now.since(started)
}
