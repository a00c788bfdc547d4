//! `maglev`: consistent hashing over endpoints that are all kept connected.

use std::collections::BTreeMap;

use evenkeel_balance::{Address, Connectivity, LbConfig, Pick};

use crate::{
    config::refused,
    driver::{Driver, Placed, policies, secs, v4},
};

fn maglev(endpoints: u8) -> Driver {
    let mut driver = Driver::new("maglev");
    driver.resolve_and_connect((1..=endpoints).map(v4));
    driver
}

/// Where calls of so many keys go.
fn homes(driver: &Driver, keys: usize) -> Vec<Address> {
    let home = |key: usize| match driver.pick_by(&key.to_string()) {
        Placed::On(address) => address,
        other => panic!("not placed: {other:?}"),
    };
    (0..keys).map(home).collect()
}

fn counts(homes: &[Address]) -> BTreeMap<&Address, usize> {
    homes.iter().fold(BTreeMap::new(), |mut counts, home| {
        *counts.entry(home).or_default() += 1;
        counts
    })
}

#[test]
fn connects_every_endpoint_and_calls_wait_for_the_first() {
    let mut driver = Driver::new("maglev");
    driver.resolve([v4(1), v4(2), v4(3)]);
    assert_eq!((driver.dialling.len(), driver.pick_by("a")), (3, Placed::Queued));
    driver.accept(&v4(2));
    assert!(homes(&driver, 20).iter().all(|home| *home == v4(2)), "whoever is ready takes all");
}

#[test]
fn keys_keep_their_endpoints_and_are_shared_evenly() {
    let driver = maglev(5);
    let first = homes(&driver, 5_000);
    assert_eq!(homes(&driver, 5_000), first);
    assert!(counts(&first).values().all(|&keys| (850..1_150).contains(&keys)), "{:?}", counts(&first));
    let mut other = Driver::seeded(&LbConfig::of("maglev"), 99);
    other.resolve_and_connect([3, 1, 5, 4, 2].map(v4));
    assert_eq!(homes(&other, 5_000), first);
}

#[test]
fn an_endpoint_that_is_out_moves_no_keys_but_its_own_and_they_spread_over_all_others() {
    let mut driver = maglev(5);
    let before = homes(&driver, 5_000);
    driver.lose(&v4(3));
    driver.refuse(&v4(3));
    let during = homes(&driver, 5_000);
    let moved: Vec<_> = before.iter().zip(&during).filter(|(before, during)| before != during).collect();
    assert!(moved.iter().all(|(before, _)| **before == v4(3)));
    let taken_over: Vec<_> = moved.into_iter().map(|(_, during)| during.clone()).collect();
    let shares = counts(&taken_over);
    assert_eq!(shares.len(), 4);
    assert!(shares.values().all(|&keys| keys > taken_over.len() / 6), "{shares:?}");
    driver.wait(secs(2));
    driver.accept(&v4(3));
    assert_eq!(homes(&driver, 5_000), before);
}

#[test]
fn an_endpoint_that_is_removed_moves_few_keys_of_others() {
    let mut driver = maglev(20);
    let before = homes(&driver, 5_000);
    driver.resolve((1..=19).map(v4));
    let after = homes(&driver, 5_000);
    let others = before.iter().zip(&after).filter(|(before, after)| **before != v4(20) && before != after).count();
    assert!(others < 250, "{others} of 5000 keys moved needlessly, where the endpoint had 250");
    assert!(after.iter().all(|home| *home != v4(20)));
}

#[test]
fn with_all_endpoints_out_calls_fail_and_say_why() {
    let mut driver = Driver::new("maglev");
    driver.resolve([v4(1), v4(2)]);
    driver.refuse(&v4(1));
    assert_eq!((driver.balancer.connectivity(), driver.pick_by("a")), (Connectivity::Connecting, Placed::Queued));
    driver.refuse(&v4(2));
    let Placed::Failed(status) = driver.pick_by("a") else { panic!("all are out") };
    assert!(status.message.starts_with("all 2 endpoints are out: 10.0.0.1:50051: connection refused"), "{status}");
}

#[test]
fn weights_earn_keys_and_calls_without_a_key_go_anywhere() {
    let mut driver = Driver::new("maglev");
    driver.resolve_weighted(&[(1, 1), (2, 3)]);
    driver.accept(&v4(1));
    driver.accept(&v4(2));
    for counted in [counts(&homes(&driver, 4_000))[&v4(1)], driver.picks(4_000)[&v4(1)]] {
        assert!((850..1_150).contains(&counted), "{counted} of 4000 for a quarter of the weight");
    }
}

#[test]
fn explains_its_table() {
    let driver = maglev(3);
    let notes = driver.balancer.explain().to_string();
    assert!(notes.contains("65537 places; endpoints own 1.00 to 1.00 times their fair share"), "{notes}");
    assert!(notes.contains("requestHashHeader is not set"), "{notes}");
}

#[test]
fn no_pick_asks_for_a_connection() {
    let mut driver = maglev(3);
    driver.lose(&v4(1));
    for n in 0..50_u64 {
        let pick = driver.pick_with(n << 58);
        assert!(matches!(pick, Pick::Call(_)) && !pick.exits_idle());
    }
}

#[test]
fn configs_are_checked() {
    let error = |json: &str| refused(&policies(&format!(r#"[{{"maglev":{json}}}]"#)));
    let path = |field| format!("loadBalancingConfig[0].maglev.{field}");
    let composite = error(r#"{"tableSize":100}"#);
    assert_eq!(composite.path(), path("tableSize"));
    assert!(composite.to_string().ends_with("is 100, must be a prime, such as 101"), "{composite}");
    assert_eq!(error(r#"{"tableSize":5000077}"#).path(), path("tableSize"));
    assert_eq!(error(r#"{"requestHashHeader":"key-bin"}"#).path(), path("requestHashHeader"));
    assert_eq!(error(r#"{"hashBalanceFactor":99}"#).path(), path("hashBalanceFactor"));
    for good in [r#"{"tableSize":"5000011"}"#, r#"{"tableSize":0}"#, r#"{"hashBalanceFactor":100}"#] {
        Driver::seeded(&policies(&format!(r#"[{{"maglev":{good}}}]"#)), 1);
    }
}
