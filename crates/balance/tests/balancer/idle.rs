//! A channel that nobody uses: before its first call, and after a long time without one.

use evenkeel_balance::{Connectivity, Input, LbConfig};

use crate::driver::{Driver, Placed, secs, v4};

const POLICIES: [&str; 6] =
    ["pick_first", "round_robin", "least_request", "random", "ring_hash", "weighted_round_robin"];

#[test]
fn nothing_is_published_before_anybody_wants_a_connection() {
    for policy in POLICIES {
        let mut driver = Driver::new(policy);
        driver.wait(secs(10));
        assert_eq!(driver.published, [], "{policy}");
        assert_eq!(driver.pick(), Placed::Idle, "{policy}: the first call wakes it");
    }
}

#[test]
fn going_idle_closes_everything_and_the_next_call_begins_anew() {
    for policy in POLICIES {
        let mut driver = Driver::new(policy);
        for round in 0..3 {
            driver.resolve_and_connect([v4(1), v4(2)]);
            assert!(matches!(driver.pick(), Placed::On(_)), "{policy}, round {round}");
            let open: Vec<_> = driver.open.keys().cloned().collect();
            driver.closed.clear();
            driver.input(Input::GoIdle);
            driver.closed.sort();
            assert_eq!(driver.closed, open, "{policy}");
            assert_eq!(driver.published.last(), Some(&Connectivity::Idle));
            assert_eq!(driver.balancer.connectivity(), Connectivity::Idle);
            assert!(driver.balancer.subchannels().is_empty());

            let dialled = driver.dialled.len();
            driver.wait(secs(3_600));
            assert_eq!(driver.pick(), Placed::Idle, "{policy}");
            assert_eq!(driver.dialled.len(), dialled, "{policy}: nothing is dialled until somebody asks");
            driver.input(Input::ExitIdle);
            let waits = if policy == "pick_first" { Placed::Idle } else { Placed::Queued };
            assert_eq!(driver.pick(), waits, "{policy}: it waits for the resolver");
        }
    }
}

#[test]
fn going_idle_keeps_the_config_and_says_so_once() {
    let mut driver = Driver::new("pick_first");
    driver.balancer.configure(driver.now, &LbConfig::of("random")).unwrap();
    driver.resolve_and_connect([v4(1)]);
    driver.input(Input::GoIdle);
    let published = driver.published.len();
    driver.input(Input::GoIdle);
    assert_eq!(driver.published.len(), published);
    assert_eq!(driver.balancer.policy(), "random");
}

#[test]
fn news_of_connections_from_before_changes_nothing() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1), v4(2)]);
    let late = driver.dialling[&v4(1)];
    driver.input(Input::GoIdle);
    driver.connected(late);
    driver.disconnected(late, "too late");
    assert_eq!(driver.pick(), Placed::Idle);
    assert_eq!(driver.published.last(), Some(&Connectivity::Idle));
}
