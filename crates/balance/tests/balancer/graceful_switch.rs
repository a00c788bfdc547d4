//! One policy taking over from another without a gap.

use evenkeel_balance::{Connectivity, Endpoint, Input, LbConfig, Status};

use crate::driver::{Driver, Placed, policies, v4, v6};

#[test]
fn policies_share_connections_so_that_a_switch_reconnects_nothing() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2), v4(3)]);
    for policy in ["least_request", "random", "round_robin"] {
        driver.configure(&LbConfig::of(policy)).unwrap();
        assert_eq!((driver.balancer.policy(), driver.picks(300).len()), (policy, 3));
    }
    assert_eq!((driver.dialled.len(), driver.closed.len()), (3, 0));
    assert!(driver.published.iter().skip(4).all(|&state| state == Connectivity::Ready), "{:?}", driver.published);
}

#[test]
fn a_switch_keeps_to_the_address_that_is_connected_though_it_is_not_the_first() {
    let mut driver = Driver::new("round_robin");
    driver.input(Input::Resolved([Endpoint::with_addresses([v6(1), v4(1)]).unwrap()].into()));
    driver.refuse(&v6(1));
    driver.accept(&v4(1));
    driver.take_dialled();
    for policy in ["random", "pick_first"] {
        driver.configure(&LbConfig::of(policy)).unwrap();
        assert_eq!(driver.pick(), Placed::On(v4(1)), "{policy}");
    }
    assert_eq!((driver.dialled, driver.closed), (vec![], vec![]));
}

#[test]
fn the_old_policy_serves_until_the_new_one_is_ready() {
    let mut driver = Driver::new("pick_first");
    driver.resolve([v4(1), v4(2)]);
    driver.input(Input::ExitIdle);
    driver.accept(&v4(1));
    driver.lose(&v4(1));
    driver.input(Input::ExitIdle);
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
    driver.configure(&LbConfig::of("round_robin")).unwrap();
    assert_eq!(driver.picks(2), [(v4(2), 2)].into());
}

#[test]
fn to_pick_first_the_switch_happens_and_the_surplus_is_closed() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.configure(&LbConfig::of("pick_first")).unwrap();
    assert_eq!(driver.picks(10), [(v4(1), 10)].into());
    assert_eq!((driver.dialled.len(), driver.closed.as_slice()), (2, [v4(2)].as_slice()));
}

#[test]
fn a_policy_that_was_never_ready_is_replaced_at_once() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    driver.refuse(&v4(1));
    driver.configure(&LbConfig::of("random")).unwrap();
    driver.wait(crate::driver::millis(1_200));
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    assert_eq!(driver.closed, []);
}

#[test]
fn a_new_policy_hears_what_the_resolver_said_last() {
    let mut driver = Driver::new("round_robin");
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(failure.clone()));
    driver.configure(&LbConfig::of("random")).unwrap();
    assert_eq!(driver.pick(), Placed::Failed(failure));
}

#[test]
fn a_config_of_the_same_policy_reconfigures_it_in_place() {
    let mut driver = Driver::new("least_request");
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.configure(&policies(r#"[{"least_request":{"choiceCount":5}}]"#)).unwrap();
    assert_eq!(driver.picks(100).len(), 2);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (2, 0));
}
