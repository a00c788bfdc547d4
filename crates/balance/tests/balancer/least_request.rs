//! `least_request` (gRFC A48).

use evenkeel_balance::Pick;

use crate::{
    config::refused,
    driver::{Driver, policies, v4},
};

#[test]
fn a48_the_choice_count_is_at_least_2_and_counts_as_10_above_that() {
    for bad in [0, 1] {
        let error = refused(&policies(&format!(r#"[{{"least_request":{{"choiceCount":{bad}}}}}]"#)));
        assert!(error.to_string().contains(&format!("is {bad}, must be at least 2")), "{error}");
    }
    for (one, same) in [("10", "11"), ("10", "4294967295")] {
        assert_eq!(busy_trail(one), busy_trail(same));
    }
    assert_ne!(busy_trail("2"), busy_trail("10"));
}

#[test]
fn a48_the_default_choice_count_is_2() {
    assert_eq!(trail(r#"[{"least_request":{}}]"#), busy_trail("2"));
}

#[test]
fn a48_calls_that_do_not_end_are_spread_evenly() {
    let mut driver = Driver::seeded(&policies(r#"[{"least_request":{"choiceCount":10}}]"#), 1);
    driver.resolve_and_connect((1..=4).map(v4));
    let calls: Vec<Pick> = (0..400).map(|_| driver.pick_raw()).collect();
    for n in 1..=4 {
        let in_flight = driver.load(&v4(n)).in_flight();
        assert!((98..=102).contains(&in_flight), "{n}: {in_flight}");
    }
    drop(calls);
    assert!((1..=4).all(|n| driver.load(&v4(n)).in_flight() == 0));
}

#[test]
fn a48_idle_endpoints_share_evenly() {
    let mut driver = Driver::new("least_request");
    driver.resolve_and_connect((1..=4).map(v4));
    for (address, calls) in driver.picks(4_000) {
        assert!((850..=1_150).contains(&calls), "{address}: {calls}");
    }
}

fn busy_trail(choice_count: &str) -> Vec<String> {
    trail(&format!(r#"[{{"least_request":{{"choiceCount":{choice_count}}}}}]"#))
}

/// Where calls that do not end go, one after the other.
fn trail(config: &str) -> Vec<String> {
    let mut driver = Driver::seeded(&policies(config), 1);
    driver.resolve_and_connect((1..=20).map(v4));
    let calls: Vec<Pick> = (0..100).map(|_| driver.pick_raw()).collect();
    let placed = calls.iter().map(|pick| match pick {
        Pick::Call(call) => driver.address_of(call).to_string(),
        other => panic!("{other:?}"),
    });
    placed.collect()
}
