//! `pick_first` (gRFC A61 and A62).

use std::collections::BTreeSet;

use evenkeel_balance::{Address, Connectivity, Endpoint, Input, Status};

use crate::driver::{Driver, Placed, millis, policies, secs, v4, v6};

#[test]
fn a62_the_first_list_is_connected_at_once_and_calls_wait_for_it() {
    let mut driver = Driver::new("pick_first");
    assert_eq!((driver.pick(), driver.balancer.connectivity()), (Placed::Idle, Connectivity::Idle));
    driver.resolve([v4(1)]);
    assert_eq!((driver.pick(), driver.take_dialled()), (Placed::Queued, vec![v4(1)]));
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    assert_eq!(driver.balancer.connectivity(), Connectivity::Ready);
}

#[test]
fn a62_tries_addresses_in_order_and_the_next_as_soon_as_one_fails() {
    let mut driver = connecting([v4(1), v4(2), v4(3)]);
    assert_eq!(driver.take_dialled(), [v4(1)]);
    driver.refuse(&v4(1));
    assert_eq!(driver.take_dialled(), [v4(2)]);
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
    driver.wait(secs(60));
    assert_eq!(driver.take_dialled(), []);
}

#[test]
fn a61_the_next_address_is_tried_after_250_ms_and_the_loser_is_closed() {
    let mut driver = connecting([v4(1), v4(2), v4(3)]);
    driver.wait(millis(249));
    assert_eq!(driver.take_dialled(), [v4(1)]);
    driver.wait(millis(1));
    assert_eq!(driver.take_dialled(), [v4(2)]);
    driver.wait(millis(250));
    assert_eq!(driver.take_dialled(), [v4(3)]);
    driver.accept(&v4(2));
    assert_eq!(driver.closed.iter().collect::<BTreeSet<_>>(), [&v4(1), &v4(3)].into());
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn a61_families_take_turns_from_whichever_comes_first() {
    let addresses = [v6(1), v6(2), v4(1), v6(3), v4(2)];
    let endpoint = Endpoint::with_addresses(addresses).unwrap();
    let mut driver = Driver::new("pick_first");
    driver.input(Input::Resolved([endpoint].into()));
    driver.input(Input::ExitIdle);
    driver.wait(secs(2));
    assert_eq!(driver.take_dialled(), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
}

#[test]
fn a62_a_failed_pass_fails_calls_asks_for_new_addresses_and_stays_so_while_it_retries() {
    let mut driver = connecting([v4(1), v4(2)]);
    driver.refuse(&v4(1));
    assert_eq!(driver.resolutions, 0);
    driver.refuse(&v4(2));
    assert_eq!(driver.resolutions, 1);
    assert_names_both(driver.pick());

    driver.take_dialled();
    driver.wait(millis(1_200));
    assert_eq!(driver.take_dialled().into_iter().collect::<BTreeSet<_>>(), [v4(1), v4(2)].into());
    assert_names_both(driver.pick());
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn a61_an_address_whose_backoff_ends_during_the_pass_is_retried_after_it() {
    let mut driver = connecting([v4(1), v4(2)]);
    driver.refuse(&v4(1));
    driver.wait(secs(20));
    driver.take_dialled();
    driver.wait(millis(1));
    assert_eq!(driver.state(&v4(1)).unwrap().connection, Connectivity::Connecting);
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn a62_after_a_lost_connection_it_is_idle_and_asks_for_new_addresses() {
    let mut driver = Driver::new("pick_first");
    driver.resolve_and_connect([v4(1)]);
    driver.picks(1);
    driver.lose(&v4(1));
    driver.wait(secs(60));
    assert_eq!((driver.pick(), driver.resolutions), (Placed::Idle, 1));
    assert_eq!(driver.dialled, [v4(1)], "only the first connection");
    driver.input(Input::ExitIdle);
    assert_eq!(driver.dialled, [v4(1), v4(1)]);
}

#[test]
fn a62_an_update_that_still_has_the_connected_address_keeps_the_connection() {
    let mut driver = Driver::new("pick_first");
    driver.resolve_and_connect([v4(1)]);
    for addresses in [vec![v4(2), v4(1)], vec![v4(1), v4(3)], vec![v4(1)]] {
        driver.resolve(addresses);
        assert_eq!(driver.pick(), Placed::On(v4(1)));
    }
    assert_eq!((driver.dialled.as_slice(), driver.closed.as_slice()), ([v4(1)].as_slice(), [].as_slice()));
}

#[test]
fn a62_an_update_without_the_connected_address_replaces_the_connection() {
    let mut driver = Driver::new("pick_first");
    driver.resolve_and_connect([v4(1)]);
    driver.resolve([v4(2)]);
    assert_eq!((driver.pick(), driver.closed.as_slice()), (Placed::Queued, [v4(1)].as_slice()));
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn a62_the_order_of_the_latest_list_counts_at_the_next_attempt() {
    let mut driver = Driver::new("pick_first");
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.picks(1);
    driver.resolve([v4(2), v4(1)]);
    assert_eq!(driver.closed, []);
    driver.lose(&v4(1));
    driver.take_dialled();
    driver.input(Input::ExitIdle);
    assert_eq!(driver.take_dialled(), [v4(2)]);

    driver.accept(&v4(2));
    driver.picks(1);
    driver.lose(&v4(2));
    driver.resolve([v4(1), v4(2)]);
    assert_eq!(driver.take_dialled(), [], "IDLE it stays");
    driver.input(Input::ExitIdle);
    assert_eq!(driver.take_dialled(), [v4(1)]);
}

#[test]
fn a62_shuffling_spreads_clients_over_the_addresses() {
    let config = policies(r#"[{"pick_first":{"shuffleAddressList":true}}]"#);
    let firsts: BTreeSet<Address> = (0..50)
        .map(|seed| {
            let mut driver = Driver::seeded(&config, seed);
            driver.resolve([v4(1), v4(2), v4(3)]);
            driver.input(Input::ExitIdle);
            driver.take_dialled().remove(0)
        })
        .collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn a_resolver_failure_fails_calls_only_where_there_are_no_addresses() {
    let mut driver = Driver::new("pick_first");
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ExitIdle);
    driver.input(Input::ResolutionFailed(failure.clone()));
    assert_eq!(driver.pick(), Placed::Failed(failure.clone()));
    driver.resolve_and_connect([v4(1)]);
    driver.input(Input::ResolutionFailed(failure));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn an_empty_list_closes_the_connection_and_fails_calls() {
    let mut driver = Driver::new("pick_first");
    driver.resolve_and_connect([v4(1)]);
    driver.resolve([]);
    assert_eq!(driver.closed, [v4(1)]);
    assert!(matches!(driver.pick(), Placed::Failed(_)));
}

fn connecting(addresses: impl IntoIterator<Item = Address>) -> Driver {
    let mut driver = Driver::new("pick_first");
    driver.resolve(addresses);
    driver.input(Input::ExitIdle);
    driver
}

fn assert_names_both(placed: Placed) {
    let Placed::Failed(status) = placed else { panic!("{placed:?}") };
    for address in [v4(1), v4(2)] {
        assert!(status.message.contains(&format!("{address}: connection refused")), "{status}");
    }
}
