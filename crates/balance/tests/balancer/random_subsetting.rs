//! `random_subsetting` (gRFC A68) under a channel; its ranking is tested beside the code.

use std::collections::BTreeSet;

use evenkeel_balance::{Address, Input, Status};

use crate::{
    config::refused,
    driver::{Driver, Placed, policies, v4},
};

fn config(size: u32) -> String {
    format!(r#"[{{"random_subsetting":{{"subsetSize":{size},"childPolicy":[{{"round_robin":{{}}}}]}}}}]"#)
}

fn open(driver: &Driver) -> BTreeSet<Address> {
    driver.open.keys().cloned().collect()
}

#[test]
fn a68_the_child_sees_the_subset_alone() {
    let mut driver = Driver::seeded(&policies(&config(5)), 1);
    driver.resolve_and_connect((1..=50).map(v4));
    assert_eq!(open(&driver).len(), 5);
    assert!(driver.picks(100).values().all(|&calls| calls == 20));
    assert!(driver.balancer.explain().to_string().contains("uses 5 of 50 endpoints"));
}

#[test]
fn a68_clients_draw_their_own_subsets() {
    let subset = |seed| {
        let mut driver = Driver::seeded(&policies(&config(5)), seed);
        driver.resolve_and_connect((1..=50).map(v4));
        open(&driver)
    };
    assert_eq!(subset(1), subset(1));
    assert_ne!(subset(1), subset(2));
}

#[test]
fn a68_servers_that_come_and_go_cost_few_connections() {
    let mut driver = Driver::seeded(&policies(&config(5)), 1);
    driver.resolve_and_connect((1..=50).map(v4));
    driver.take_dialled();
    driver.resolve_and_connect((2..=51).map(v4));
    assert!(driver.take_dialled().len() <= 2 && driver.closed.len() <= 2);
    driver.resolve_and_connect((2..=51).rev().map(v4));
    assert_eq!(driver.take_dialled(), [], "the order of the list does not matter");
}

#[test]
fn a68_fewer_endpoints_than_the_subset_are_all_used() {
    let mut driver = Driver::seeded(&policies(&config(20)), 1);
    driver.resolve_and_connect((1..=3).map(v4));
    assert_eq!(driver.picks(30).len(), 3);
}

#[test]
fn a_subset_of_another_size_has_most_of_its_endpoints_in_common() {
    let mut driver = Driver::seeded(&policies(&config(5)), 1);
    driver.resolve_and_connect((1..=50).map(v4));
    let before = open(&driver);
    driver.configure(&policies(&config(7))).unwrap();
    driver.let_all_connect();
    assert_eq!((open(&driver).len(), open(&driver).is_superset(&before)), (7, true));
    driver.configure(&policies(&config(5))).unwrap();
    assert_eq!(open(&driver), before);
}

#[test]
fn the_resolvers_error_reaches_the_child() {
    let mut driver = Driver::seeded(&policies(&config(5)), 1);
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(failure.clone()));
    assert_eq!(driver.pick(), Placed::Failed(failure));
}

#[test]
fn a68_the_size_and_the_child_have_to_be_said() {
    let path = |json: &str| refused(&policies(json)).path().to_owned();
    let at = "loadBalancingConfig[0].random_subsetting";
    assert_eq!(path(&config(0)), format!("{at}.subsetSize"));
    assert_eq!(path(&config(1).replace("round_robin", "never")), format!("{at}.childPolicy"));
    for missing in [r#"{"subsetSize":5}"#, r#"{"childPolicy":[{"random":{}}]}"#] {
        assert_eq!(path(&format!(r#"[{{"random_subsetting":{missing}}}]"#)), at);
    }
}
