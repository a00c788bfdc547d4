//! `zone_aware`: calls stay in the client's zone while it can take them.

use evenkeel_balance::{Endpoint, Input, Status};

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, policies, v4},
};

const CONFIG: &str = r#"[{"zone_aware":{"zone":"a","childPolicy":[{"round_robin":{}}]}}]"#;

/// Ten endpoints in zone a, from 1; ten in zone b, from 11.
fn ten_and_ten() -> Driver {
    let mut driver = Driver::seeded(&policies(CONFIG), 1);
    driver.list((1..=20).map(zoned));
    accept_all(&mut driver);
    driver
}

fn zoned(n: u8) -> Endpoint {
    endpoint(v4(n)).in_zone(if n <= 10 { "a" } else { "b" })
}

fn accept_all(driver: &mut Driver) {
    while let Some(address) = driver.dialling.keys().next().cloned() {
        driver.accept(&address);
    }
}

/// Breaks the connections to these, and refuses new ones.
fn take_out(driver: &mut Driver, numbers: impl IntoIterator<Item = u8>) {
    for n in numbers {
        driver.lose(&v4(n));
        if driver.dialling.contains_key(&v4(n)) {
            driver.refuse(&v4(n));
        }
    }
}

/// How many of 10,000 calls stay in zone a.
fn stay(driver: &mut Driver) -> usize {
    let picks = driver.picks(10_000);
    (1..=10).filter_map(|n| picks.get(&v4(n))).sum()
}

#[test]
fn calls_stay_in_the_zone() {
    let mut driver = ten_and_ten();
    assert_eq!(stay(&mut driver), 10_000);
    assert_eq!(driver.picks(100).len(), 10);
}

#[test]
fn nothing_spills_over_until_29_percent_of_the_zone_are_out() {
    let mut driver = ten_and_ten();
    take_out(&mut driver, 1..=2);
    assert_eq!(stay(&mut driver), 10_000, "8 of 10, times 1.4");
    take_out(&mut driver, 3..=4);
    let stayed = stay(&mut driver);
    assert!((8_250..8_550).contains(&stayed), "6 of 10, times 1.4: {stayed}");
    let note = driver.take_notes().pop().unwrap();
    assert!(note.contains("calls spill over: 98 % stay in zone a; there, 7 of 10"), "{note}");
}

#[test]
fn a_zone_without_a_ready_endpoint_gets_no_calls() {
    let mut driver = ten_and_ten();
    take_out(&mut driver, 1..=10);
    assert_eq!(stay(&mut driver), 0);
    let address = driver.dialling.keys().next().cloned();
    assert_eq!(address, None, "all wait for their backoff");
    driver.let_all_connect();
    assert_eq!(stay(&mut driver), 10_000);
}

#[test]
fn where_no_side_can_take_all_they_share_in_proportion() {
    let mut driver = ten_and_ten();
    take_out(&mut driver, (2..=10).chain(13..=20));
    let stayed = stay(&mut driver);
    assert!((3_150..3_520).contains(&stayed), "1 of 10 to 2 of 10: {stayed}");
}

#[test]
fn too_few_endpoints_are_used_as_if_there_were_no_zones() {
    let mut driver = Driver::seeded(&policies(CONFIG), 1);
    driver.list([1, 2, 11, 12, 13].map(zoned));
    accept_all(&mut driver);
    let stayed = stay(&mut driver);
    assert!((3_800..4_200).contains(&stayed), "2 of 5: {stayed}");
    assert!(driver.balancer.explain().to_string().contains("too few endpoints to go by zones"));
}

#[test]
fn a_zone_below_its_minimum_is_used_as_if_there_were_no_zones() {
    let config = CONFIG.replace(r#""zone":"a""#, r#""zone":"a","minLocalEndpoints":3"#);
    let mut driver = Driver::seeded(&policies(&config), 1);
    driver.list((9..=18).map(zoned));
    accept_all(&mut driver);
    let stayed = stay(&mut driver);
    assert!((1_850..2_150).contains(&stayed), "2 of 10: {stayed}");
}

#[test]
fn a_client_that_moves_keeps_its_connections() {
    let mut driver = ten_and_ten();
    driver.configure(&policies(&CONFIG.replace(r#""zone":"a""#, r#""zone":"b""#))).unwrap();
    assert_eq!(stay(&mut driver), 0);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (20, 0));
}

#[test]
fn endpoints_of_unknown_zone_are_elsewhere() {
    let mut driver = Driver::seeded(&policies(CONFIG), 1);
    driver.resolve_and_connect((11..=20).map(v4));
    assert_eq!(stay(&mut driver), 0);
}

#[test]
fn failures_of_the_resolver_and_of_all_endpoints_reach_the_calls() {
    let mut driver = Driver::seeded(&policies(CONFIG), 1);
    driver.input(Input::ExitIdle);
    assert_eq!(driver.pick(), Placed::Queued);
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(failure.clone()));
    assert_eq!(driver.pick(), Placed::Failed(failure));
    driver.list([zoned(11)]);
    driver.refuse(&v4(11));
    assert!(matches!(driver.pick(), Placed::Failed(status) if status.message.contains("10.0.0.11")));
}

#[test]
fn a_bad_config_names_what_is_wrong_with_it() {
    let path = |from: &str, to: &str| refused(&policies(&CONFIG.replace(from, to))).path().to_owned();
    let at = "loadBalancingConfig[0].zone_aware";
    assert_eq!(path(r#""a""#, r#""""#), format!("{at}.zone"));
    assert_eq!(path(r#""zone":"a","#, ""), at);
    assert_eq!(path("round_robin", "never"), format!("{at}.childPolicy"));
    assert_eq!(path(r#""a","#, r#""a","overprovisioningFactor":99,"#), format!("{at}.overprovisioningFactor"));
}
