//! `ring_hash` (gRFC A42, with the changes of A61 and A76).

use std::collections::BTreeSet;

use evenkeel_balance::{Address, Connectivity, Endpoint, Input, LbConfig, Metadata, Pick, PickArgs, Status};

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, policies, secs, v4, v6},
};

const BY_HEADER: &str = r#"[{"ring_hash":{"requestHashHeader":"x-user"}}]"#;

/// Headers of one name.
#[derive(Debug)]
struct Headers(&'static str, Vec<&'static [u8]>);

impl Metadata for Headers {
    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if name == self.0 {
            self.1.iter().for_each(|value| visit(value));
        }
    }
}

fn ring_hash(endpoints: u8) -> Driver {
    let mut driver = Driver::new("ring_hash");
    driver.resolve((1..=endpoints).map(v4));
    driver
}

/// Makes a call of `key` and lets the policy hear of it, as a driver does, until it is placed.
fn connect(driver: &mut Driver, key: &str) -> Address {
    loop {
        match driver.pick_by(key) {
            Placed::On(address) => return address,
            Placed::Idle => driver.input(Input::ExitIdle),
            Placed::Queued => {
                let address = driver.dialling.keys().next().expect("a call that waits has an attempt").clone();
                driver.accept(&address);
            }
            Placed::Failed(status) => panic!("{status}"),
        }
    }
}

#[test]
fn a42_starts_idle_and_connects_only_what_a_call_hashes_to() {
    let mut driver = ring_hash(5);
    assert_eq!((driver.balancer.connectivity(), driver.dialled.len()), (Connectivity::Idle, 0));
    assert_eq!((driver.pick_by("a"), driver.dialled.len()), (Placed::Idle, 0));
    driver.input(Input::ExitIdle);
    assert_eq!((driver.dialling.len(), driver.balancer.connectivity()), (1, Connectivity::Connecting));
    assert_eq!(driver.pick_by("a"), Placed::Queued);
    let home = driver.take_dialled().remove(0);
    driver.accept(&home);
    assert_eq!(driver.balancer.connectivity(), Connectivity::Ready);
    assert_eq!((driver.pick_by("a"), driver.pick_by("a")), (Placed::On(home.clone()), Placed::On(home)));
    assert_eq!(driver.dialled, []);
}

#[test]
fn keys_keep_their_endpoints_and_reach_them_all() {
    let mut driver = ring_hash(5);
    let keys: Vec<_> = (0..200).map(|n| format!("user-{n}")).collect();
    let first: Vec<_> = keys.iter().map(|key| connect(&mut driver, key)).collect();
    let again: Vec<_> = keys.iter().map(|key| connect(&mut driver, key)).collect();
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 5);
    // The ring is the same whatever the order of the list, and in every client.
    let mut other = Driver::seeded(&LbConfig::of("ring_hash_experimental"), 77);
    other.resolve([v4(4), v4(2), v4(5), v4(1), v4(3)]);
    assert_eq!(keys.iter().map(|key| connect(&mut other, key)).collect::<Vec<_>>(), first);
}

#[test]
fn a61_a_ready_endpoint_waits_for_no_other_and_an_idle_one_is_waited_for() {
    let mut driver = ring_hash(5);
    let home = connect(&mut driver, "a");
    let other = (0..1_000).map(|n| n.to_string()).find(|key| driver.pick_by(key) == Placed::Idle).unwrap();
    assert_eq!(driver.balancer.connectivity(), Connectivity::Ready);
    driver.input(Input::ExitIdle);
    assert_eq!((driver.pick_by(&other), driver.pick_by("a")), (Placed::Queued, Placed::On(home)));
}

#[test]
fn a61_calls_walk_past_endpoints_that_are_out() {
    let mut driver = ring_hash(4);
    let home = connect(&mut driver, "a");
    driver.take_dialled();
    driver.pick_by("a");
    driver.lose(&home);
    // Lost, it is IDLE again, and is not reconnected unasked.
    assert_eq!((driver.balancer.connectivity(), driver.take_dialled()), (Connectivity::Idle, vec![]));
    driver.pick_by("a");
    driver.input(Input::ExitIdle);
    driver.refuse(&home);
    // One failure of many is no failure of the channel, and the policy goes on with another on its own.
    assert_eq!(driver.balancer.connectivity(), Connectivity::Connecting);
    assert_eq!(driver.dialling.len(), 1);
    let next = connect(&mut driver, "a");
    assert_ne!(next, home);
    driver.wait(secs(2));
    assert!(driver.dialling.contains_key(&home), "its leaf retries by its own backoff");
    driver.accept(&home);
    assert_eq!(driver.pick_by("a"), Placed::On(home));
}

#[test]
fn a42_two_failures_are_a_failure_and_any_connection_ends_it() {
    let mut driver = ring_hash(4);
    driver.pick_by("a");
    driver.input(Input::ExitIdle);
    let seen: Vec<_> = (0..4)
        .map(|_| {
            let tried = driver.dialling.keys().next().unwrap().clone();
            driver.refuse(&tried);
            driver.balancer.connectivity()
        })
        .collect();
    let [connecting, out] = [Connectivity::Connecting, Connectivity::TransientFailure];
    assert_eq!(seen, [connecting, out, out, out]);
    assert_eq!(driver.dialled.iter().collect::<BTreeSet<_>>().len(), 4, "one after another was tried, without a call");
    let Placed::Failed(status) = driver.pick_by("a") else { panic!("all are out") };
    assert!(status.message.starts_with("all 4 endpoints are out: 10.0.0."), "{status}");
    driver.wait(secs(2));
    driver.accept(&v4(3));
    assert_eq!((driver.balancer.connectivity(), driver.pick_by("a")), (Connectivity::Ready, Placed::On(v4(3))));
}

#[test]
fn a42_a_single_endpoint_that_fails_is_a_failure() {
    let mut driver = ring_hash(1);
    driver.pick_by("a");
    driver.input(Input::ExitIdle);
    driver.refuse(&v4(1));
    assert_eq!(driver.balancer.connectivity(), Connectivity::TransientFailure);
    assert!(matches!(driver.pick_by("a"), Placed::Failed(_)));
    driver.wait(secs(2));
    assert_eq!(driver.balancer.connectivity(), Connectivity::TransientFailure, "it stays out while it retries");
    driver.accept(&v4(1));
    assert_eq!(driver.pick_by("a"), Placed::On(v4(1)));
}

#[test]
fn a61_an_update_while_out_keeps_one_attempt_running() {
    let mut driver = ring_hash(2);
    driver.pick_by("a");
    driver.input(Input::ExitIdle);
    for _ in 0..2 {
        let tried = driver.dialling.keys().next().unwrap().clone();
        driver.refuse(&tried);
    }
    assert!(driver.dialling.is_empty());
    driver.resolve([v4(1), v4(2), v4(3), v4(4)]);
    assert_eq!(driver.dialling.len(), 1, "of the new ones, one is tried");
}

#[test]
fn a76_without_a_key_calls_go_to_ready_endpoints_and_in_the_end_to_all() {
    let mut driver = ring_hash(5);
    assert_eq!(driver.pick(), Placed::Idle);
    driver.input(Input::ExitIdle);
    assert_eq!((driver.pick(), driver.dialling.len()), (Placed::Queued, 1));
    driver.resolve_and_connect((1..=5).map(v4));
    let first = driver.open.len();
    assert_eq!(first, 1);
    let mut waited = 0;
    for _ in 0..200 {
        let pick = driver.pick_raw();
        assert!(matches!(pick, Pick::Call(_)), "{pick:?}: a ready endpoint is there");
        if pick.exits_idle() {
            driver.input(Input::ExitIdle);
            waited += 1;
            assert_eq!(driver.dialling.len(), 1, "one call connects one endpoint");
            assert!(!driver.pick_raw().exits_idle(), "and none while one is being connected");
            let dialled = driver.dialling.keys().next().unwrap().clone();
            driver.accept(&dialled);
        }
    }
    assert_eq!((waited, driver.open.len()), (4, 5));
    assert_eq!(driver.picks(500).len(), 5);
}

#[test]
fn a76_the_header_has_the_key_and_several_values_are_joined() {
    let mut driver = Driver::seeded(&policies(BY_HEADER), 1);
    driver.resolve((1..=9).map(v4));
    for n in 0..60 {
        connect(&mut driver, &n.to_string());
    }
    let placed = |headers: Headers, entropy| {
        let args = PickArgs::new(driver.now, entropy, "/test.Test/Call").with_metadata(&headers);
        let Pick::Call(call) = driver.pick_args(&args) else { panic!("all are ready") };
        driver.address_of(&call)
    };
    for key in ["7", "11", "ann"] {
        let by_key = driver.pick_by(key);
        for entropy in [0, u64::MAX / 3, u64::MAX] {
            assert_eq!(Placed::On(placed(Headers("x-user", vec![key.as_bytes()]), entropy)), by_key, "{key}");
        }
    }
    assert_eq!(Placed::On(placed(Headers("x-user", vec![b"a", b"", b"b"]), 0)), driver.pick_by("a,,b"));
    // The header is missing or empty, or another: any endpoint will do.
    for headers in [("x-user", vec![]), ("x-user", vec![&b""[..]]), ("x-other", vec![&b"7"[..]])] {
        let reached: BTreeSet<_> =
            (0..200_u64).map(|n| placed(Headers(headers.0, headers.1.clone()), n << 56)).collect();
        assert!(reached.len() > 5, "{headers:?} reaches {reached:?}");
    }
}

#[test]
fn a_key_of_the_callers_own_wins_over_the_header() {
    let mut driver = Driver::seeded(&policies(BY_HEADER), 1);
    driver.resolve((1..=9).map(v4));
    for n in 0..60 {
        connect(&mut driver, &n.to_string());
    }
    for n in 0..30 {
        let key = n.to_string();
        let headers = Headers("x-user", vec![b"ann"]);
        let args =
            PickArgs::new(driver.now, 0, "/test.Test/Call").with_metadata(&headers).with_hash_key(key.as_bytes());
        let Pick::Call(call) = driver.pick_args(&args) else { panic!("all are ready") };
        assert_eq!(Placed::On(driver.address_of(&call)), driver.pick_by(&key));
    }
}

#[test]
fn a76_an_endpoints_hash_key_places_it_whatever_its_address() {
    let named = |addresses: [u8; 3]| {
        let endpoints = addresses.iter().zip(["red", "green", "blue"]);
        Input::Resolved(endpoints.map(|(&n, name)| endpoint(v4(n)).with_hash_key(name)).collect())
    };
    let mut driver = Driver::new("ring_hash");
    driver.input(named([1, 2, 3]));
    let before: Vec<_> = (0..50).map(|n| connect(&mut driver, &n.to_string())).collect();
    driver.input(named([11, 12, 13]));
    let after: Vec<_> = (0..50).map(|n| connect(&mut driver, &n.to_string())).collect();
    let moved = |address: &Address| (1..=3).find(|&n| v4(n) == *address).map(|n| v4(n + 10)).unwrap();
    assert_eq!(before.iter().map(moved).collect::<Vec<_>>(), after);

    // Another key is another place.
    driver.input(Input::Resolved(
        [(11, "green"), (12, "red"), (13, "blue")]
            .iter()
            .map(|&(n, name)| endpoint(v4(n)).with_hash_key(name))
            .collect(),
    ));
    let swapped: Vec<_> = (0..50).map(|n| connect(&mut driver, &n.to_string())).collect();
    assert!(after.iter().zip(&swapped).all(|(after, swapped)| (*after == v4(13)) == (after == swapped)));
}

#[test]
fn a42_weights_and_duplicates_earn_more_of_the_ring() {
    let mut driver = Driver::new("ring_hash");
    driver.resolve_weighted(&[(1, 1), (2, 3), (3, 1), (3, 1)]);
    for n in 0..600 {
        connect(&mut driver, &n.to_string());
    }
    let share = |n: u8| (0..6_000).filter(|key| driver.pick_by(&format!("k{key}")) == Placed::On(v4(n))).count();
    let shares = [share(1), share(2), share(3)];
    for (share, fair) in shares.iter().zip([1_000_usize, 3_000, 2_000]) {
        assert!(share.abs_diff(fair) < fair / 4, "{shares:?}");
    }
}

#[test]
fn a61_the_first_address_places_an_endpoint_that_may_connect_by_another() {
    let mut driver = Driver::new("ring_hash");
    driver.input(Input::Resolved([Endpoint::with_addresses([v4(1), v6(1)]).unwrap(), endpoint(v4(2))].into()));
    let mut single = ring_hash(2);
    let key = (0..1_000).map(|n| n.to_string()).find(|key| connect(&mut single, key) == v4(1)).unwrap();
    driver.pick_by(&key);
    driver.input(Input::ExitIdle);
    driver.refuse(&v4(1));
    driver.accept(&v6(1));
    assert_eq!(driver.pick_by(&key), Placed::On(v6(1)));
}

#[test]
fn a_switch_from_another_policy_keeps_its_connections() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2), v4(3)]);
    driver.configure(&LbConfig::of("ring_hash")).unwrap();
    assert_eq!(driver.balancer.policy(), "ring_hash");
    let reached: BTreeSet<_> = (0..50).map(|n| connect(&mut driver, &n.to_string())).collect();
    assert_eq!((reached.len(), driver.dialled.len(), driver.closed.len()), (3, 3, 0));
    driver.configure(&LbConfig::of("round_robin")).unwrap();
    assert_eq!((driver.picks(3).len(), driver.dialled.len(), driver.closed.len()), (3, 3, 0));
}

#[test]
fn an_idle_ring_takes_over_from_a_policy_that_is_ready() {
    // The ring has one endpoint of the two, in some clients the one that round_robin could not connect.
    let subset = policies(r#"[{"random_subsetting":{"subsetSize":1,"childPolicy":[{"ring_hash":{}}]}}]"#);
    let reached: BTreeSet<_> = (0..20)
        .map(|seed| {
            let mut driver = Driver::seeded(&LbConfig::of("round_robin"), seed);
            driver.resolve([v4(1), v4(2)]);
            driver.accept(&v4(1));
            driver.refuse(&v4(2));
            driver.configure(&subset).unwrap();
            let explanation = driver.balancer.explain().to_string();
            assert!(!explanation.contains("round_robin"), "{explanation}");
            connect(&mut driver, "a")
        })
        .collect();
    assert_eq!(reached.len(), 2);
}

#[test]
fn a_call_that_waits_without_having_been_picked_has_an_endpoint_connected() {
    let mut driver = ring_hash(3);
    driver.input(Input::ExitIdle);
    driver.input(Input::ExitIdle);
    assert_eq!(driver.dialling.len(), 1);
}

#[test]
fn a_key_whose_endpoint_falls_silent_does_not_wait_for_it() {
    let mut driver = ring_hash(3);
    let home = connect(&mut driver, "a");
    driver.input(Input::Stalled(driver.open[&home], "silent for 400 ms".into()));
    assert_ne!(connect(&mut driver, "a"), home);
    driver.input(Input::Recovered(driver.open[&home]));
    assert_eq!(driver.pick_by("a"), Placed::On(home));
}

#[test]
fn reconfiguring_keeps_connections_and_moves_to_the_new_ring() {
    let mut driver = ring_hash(3);
    for n in 0..60 {
        connect(&mut driver, &n.to_string());
    }
    driver.configure(&policies(r#"[{"ring_hash_experimental":{"minRingSize":"10","maxRingSize":20}}]"#)).unwrap();
    assert_eq!((driver.dialled.len(), driver.closed.len()), (3, 0));
    let notes = driver.balancer.explain().to_string();
    assert!(notes.contains("3 endpoints are ready") && notes.contains("12 places"), "{notes}");
}

#[test]
fn without_endpoints_calls_fail_with_what_the_resolver_said() {
    let mut driver = Driver::new("ring_hash");
    driver.input(Input::ExitIdle);
    assert_eq!((driver.pick_by("a"), driver.balancer.connectivity()), (Placed::Queued, Connectivity::Connecting));
    driver.input(Input::ResolutionFailed(Status::unavailable("no DNS server answers")));
    assert_eq!(driver.pick_by("a"), Placed::Failed(Status::unavailable("no DNS server answers")));
    driver.resolve([v4(1)]);
    assert_eq!(connect(&mut driver, "a"), v4(1));
    driver.resolve([]);
    assert_eq!(driver.pick_by("a"), Placed::Failed(Status::unavailable("the resolver returned no endpoints")));
    assert_eq!(driver.closed, [v4(1)]);
}

#[test]
fn configs_are_checked() {
    let at = |json: &str| refused(&policies(&format!(r#"[{{"ring_hash":{json}}}]"#))).path().to_owned();
    let path = |field| format!("loadBalancingConfig[0].ring_hash.{field}");
    assert_eq!(at(r#"{"minRingSize":8388609}"#), path("minRingSize"));
    assert_eq!(at(r#"{"maxRingSize":8388609}"#), path("maxRingSize"));
    assert_eq!(at(r#"{"minRingSize":5,"maxRingSize":4}"#), path("minRingSize"));
    assert_eq!(at(r#"{"minRingSize":-1}"#), path("minRingSize"));
    assert_eq!(at(r#"{"minRingSize":"x"}"#), path("minRingSize"));
    assert_eq!(at(r#"{"requestHashHeader":"x user"}"#), path("requestHashHeader"));
    assert_eq!(at(r#"{"requestHashHeader":":path"}"#), path("requestHashHeader"));
    assert_eq!(at(r#"{"requestHashHeader":"Trace-BIN"}"#), path("requestHashHeader"));
    for good in [r#"{"minRingSize":0}"#, r#"{"minRingSize":"8388608","maxRingSize":8388608}"#, r#"{"unknown":1}"#] {
        Driver::seeded(&policies(&format!(r#"[{{"ring_hash":{good}}}]"#)), 1);
    }
}
