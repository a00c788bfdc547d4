//! `least_request` (gRFC A48).

use evenkeel_balance::{Input, Pick};

use crate::{
    config::refused,
    driver::{Driver, endpoint, policies, secs, v4},
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

#[test]
fn a_full_scan_takes_the_least_of_all() {
    let mut driver = Driver::seeded(&policies(r#"[{"least_request":{"fullScan":true}}]"#), 1);
    driver.resolve_and_connect((1..=7).map(v4));
    let calls: Vec<Pick> = (0..70).map(|_| driver.pick_raw()).collect();
    assert!((1..=7).all(|n| driver.load(&v4(n)).in_flight() == 10));
    drop(calls);
    for (address, calls) in driver.picks(7_000) {
        assert!((850..=1_150).contains(&calls), "ties fall evenly: {address} has {calls}");
    }
}

#[test]
fn with_a_bias_the_resolvers_weights_are_heeded_and_without_they_are_not() {
    for (fields, expected) in [
        (r#""activeRequestBias":1"#, [100, 200, 300]),
        (r#""activeRequestBias":2"#, [145, 205, 250]),
        (r#""activeRequestBias":0"#, [0, 0, 600]),
        ("", [200, 200, 200]),
    ] {
        let comma = if fields.is_empty() { "" } else { "," };
        let config = policies(&format!(r#"[{{"least_request":{{"fullScan":true{comma}{fields}}}}}]"#));
        let mut driver = Driver::seeded(&config, 1);
        driver.input(Input::Resolved((1..=3).map(|n| endpoint(v4(n)).weighted(u32::from(n))).collect()));
        (1..=3).for_each(|n| driver.accept(&v4(n)));
        let calls: Vec<Pick> = (0..600).map(|_| driver.pick_raw()).collect();
        let in_flight = [1, 2, 3].map(|n| driver.load(&v4(n)).in_flight());
        let near = in_flight.iter().zip(expected).all(|(have, want)| have.abs_diff(want) <= 2);
        assert!(near, "{fields}: {in_flight:?}");
        drop(calls);
    }
}

#[test]
fn suspects_are_taken_only_where_there_is_nobody_else() {
    for fields in ["", r#""fullScan":true"#, r#""activeRequestBias":1"#, r#""fullScan":true,"activeRequestBias":1"#] {
        let mut driver = Driver::seeded(&policies(&format!(r#"[{{"least_request":{{{fields}}}}}]"#)), 1);
        driver.input(Input::Resolved((1..=4).map(|n| endpoint(v4(n)).weighted(u32::from(n))).collect()));
        (1..=4).for_each(|n| driver.accept(&v4(n)));
        (2..=4).for_each(|n| driver.load(&v4(n)).suspect(true));
        assert_eq!(driver.picks(100), [(v4(1), 100)].into(), "{fields}");
        driver.load(&v4(1)).suspect(true);
        driver.picks(100);
    }
}

#[test]
fn an_endpoint_that_returns_starts_slowly() {
    let slow = r#"[{"least_request":{"fullScan":true,"slowStart":{"window":"100s","minWeightPercent":20}}}]"#;
    let mut driver = Driver::seeded(&policies(slow), 1);
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.wait(secs(200));
    driver.picks(2);
    driver.lose(&v4(2));
    driver.accept(&v4(2));
    for (wait, expected) in [(0, 20), (50, 40), (50, 60)] {
        driver.wait(secs(wait));
        let calls: Vec<Pick> = (0..120).map(|_| driver.pick_raw()).collect();
        let in_flight = driver.load(&v4(2)).in_flight();
        assert!(in_flight.abs_diff(expected) <= 1, "{wait} s later: {in_flight} of 120");
        drop(calls);
    }
}

#[test]
fn bad_configs_are_refused_with_their_path() {
    for (fields, path) in [
        (r#""activeRequestBias":-1"#, "activeRequestBias"),
        (r#""fullScan":1"#, "fullScan"),
        (r#""slowStart":{"window":"0s"}"#, "slowStart.window"),
    ] {
        let error = refused(&policies(&format!(r#"[{{"least_request":{{{fields}}}}}]"#)));
        assert_eq!(error.path(), format!("loadBalancingConfig[0].least_request.{path}"));
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
