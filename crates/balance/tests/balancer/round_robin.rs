//! `round_robin`, and what every petiole policy shares with it (gRFC A61).

use std::collections::BTreeSet;

use evenkeel_balance::{Connectivity, Endpoint, Input, Status};

use crate::driver::{Driver, Placed, millis, secs, v4, v6};

#[test]
fn connects_every_endpoint_and_gives_each_its_turn() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1), v4(2), v4(3)]);
    assert_eq!((driver.pick(), driver.dialled.len()), (Placed::Queued, 3));
    for n in 1..=3 {
        driver.accept(&v4(n));
    }
    assert!(driver.picks(30).values().all(|&calls| calls == 10));
}

#[test]
fn a61_the_channel_is_as_well_as_its_best_endpoint() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1), v4(2)]);
    assert_eq!(driver.balancer.connectivity(), Connectivity::Connecting);
    driver.refuse(&v4(1));
    assert_eq!((driver.balancer.connectivity(), driver.pick()), (Connectivity::Connecting, Placed::Queued));
    driver.accept(&v4(2));
    assert_eq!(driver.balancer.connectivity(), Connectivity::Ready);
    assert_eq!(driver.picks(10), [(v4(2), 10)].into(), "the failed one is passed over");
}

#[test]
fn with_all_endpoints_out_calls_fail_and_the_message_names_them() {
    let mut driver = Driver::new("round_robin");
    driver.resolve((1..=5).map(v4));
    for n in 1..=5 {
        driver.refuse(&v4(n));
    }
    assert_eq!(driver.balancer.connectivity(), Connectivity::TransientFailure);
    let Placed::Failed(status) = driver.pick() else { panic!("calls fail") };
    let expected = "all 5 endpoints are out: 10.0.0.1:50051: connection refused; 10.0.0.2:50051: connection refused; \
                    10.0.0.3:50051: connection refused; and 2 more";
    assert_eq!(status, Status::unavailable(expected));
}

#[test]
fn endpoints_that_failed_are_retried_without_being_asked() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    driver.refuse(&v4(1));
    assert_eq!(driver.resolutions, 1);
    driver.wait(millis(1_200));
    assert!(matches!(driver.pick(), Placed::Failed(_)), "fails, rather than hangs, while it retries");
    driver.accept(&v4(1));
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
}

#[test]
fn a_lost_connection_is_made_again_without_being_asked() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.picks(2);
    driver.take_dialled();
    driver.lose(&v4(1));
    assert_eq!((driver.take_dialled(), driver.resolutions), (vec![v4(1)], 1));
    assert_eq!(driver.picks(4), [(v4(2), 4)].into());
}

#[test]
fn duplicates_and_reorderings_open_and_close_nothing() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2), v4(3)]);
    driver.take_dialled();
    driver.resolve([v4(3), v4(1), v4(2), v4(1), v4(3)]);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (0, 0));
    assert!(driver.picks(30).values().all(|&calls| calls == 10), "a duplicate earns no second share");
}

#[test]
fn a61_the_order_of_an_endpoints_addresses_does_not_make_it_another() {
    let mut driver = Driver::new("round_robin");
    let listed = |addresses| Input::Resolved([Endpoint::with_addresses(addresses).unwrap()].into());
    driver.input(listed([v4(1), v6(1)]));
    driver.accept(&v4(1));
    driver.input(listed([v6(1), v4(1)]));
    assert_eq!((driver.dialled.len(), driver.closed.len()), (1, 0));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn a61_an_endpoint_of_many_addresses_has_one_share() {
    let mut driver = Driver::new("round_robin");
    let both = Endpoint::with_addresses([v4(1), v6(1)]).unwrap();
    driver.input(Input::Resolved([both, Endpoint::with_addresses([v4(2)]).unwrap()].into()));
    driver.accept(&v4(2));
    driver.refuse(&v4(1));
    driver.accept(&v6(1));
    assert_eq!(driver.picks(20), [(v6(1), 10), (v4(2), 10)].into());
}

#[test]
fn removed_endpoints_are_closed_and_their_running_calls_go_on() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    let load = driver.load(&v4(1));
    let calls = [driver.pick_raw(), driver.pick_raw()];
    driver.resolve([v4(2), v4(3)]);
    assert_eq!((driver.closed.as_slice(), driver.state(&v4(1))), ([v4(1)].as_slice(), None));
    assert_eq!(driver.picks(4), [(v4(2), 4)].into());
    assert_eq!(load.in_flight(), 1);
    drop(calls);
    assert_eq!(load.in_flight(), 0);
}

#[test]
fn an_endpoint_that_comes_back_is_a_new_one() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    let old = driver.open[&v4(1)];
    driver.resolve([]);
    driver.resolve([v4(1)]);
    driver.input(Input::Connected(old));
    assert_eq!(driver.pick(), Placed::Queued, "news of the old connection is not the new one's");
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn an_empty_list_fails_calls_and_a_failed_resolver_keeps_the_list() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    driver.input(Input::ResolutionFailed(Status::unavailable("no DNS server answers")));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    driver.resolve([]);
    assert_eq!(driver.pick(), Placed::Failed(Status::unavailable("the resolver returned no endpoints")));
    assert_eq!(driver.closed, [v4(1)]);
}

#[test]
fn before_the_first_list_calls_wait_and_a_failed_resolver_fails_them() {
    let mut driver = Driver::new("round_robin");
    driver.input(Input::ExitIdle);
    assert_eq!(driver.pick(), Placed::Queued);
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(failure.clone()));
    assert_eq!(driver.pick(), Placed::Failed(failure));
}

#[test]
fn clients_begin_at_different_endpoints() {
    let firsts: BTreeSet<_> = (0..50)
        .map(|seed| {
            let mut driver = Driver::seeded(&evenkeel_balance::LbConfig::of("round_robin"), seed);
            driver.resolve_and_connect([v4(1), v4(2), v4(3)]);
            driver.picks(1).into_keys().next()
        })
        .collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn a_stalled_endpoint_gets_no_calls_until_it_recovers() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    let silent = driver.open[&v4(1)];
    driver.input(Input::Stalled(silent, "silent for 200 ms".into()));
    assert_eq!(driver.picks(4), [(v4(2), 4)].into());
    assert_eq!(driver.state(&v4(1)).unwrap().reason, "silent for 200 ms");

    driver.input(Input::Stalled(driver.open[&v4(2)], "silent".into()));
    assert_eq!(driver.pick(), Placed::Queued, "calls wait rather than fail");
    driver.input(Input::Recovered(silent));
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
    driver.wait(secs(60));
    assert_eq!((driver.dialled.len(), driver.closed.len()), (2, 0), "neither connection was touched");
}

#[test]
fn suspects_get_no_calls_while_others_are_well_and_no_picker_is_made_for_them() {
    for policy in ["round_robin", "random", "least_request"] {
        let mut driver = Driver::new(policy);
        driver.resolve_and_connect([v4(1), v4(2), v4(3)]);
        let published = driver.published.len();
        driver.load(&v4(2)).suspect(true);
        let picks = driver.picks(300);
        assert_eq!(picks.get(&v4(2)), None, "{policy}");
        assert!([1, 3].iter().all(|&n| picks[&v4(n)] > 90), "{policy}: the others share its calls: {picks:?}");

        for n in [1, 3] {
            driver.load(&v4(n)).suspect(true);
        }
        assert_eq!(driver.picks(300).len(), 3, "{policy}: with all suspect, none is");
        for n in 1..=3 {
            driver.load(&v4(n)).suspect(false);
        }
        assert_eq!(driver.picks(300).len(), 3, "{policy}: cleared at once");
        assert_eq!(driver.published.len(), published, "{policy}");
    }
}
