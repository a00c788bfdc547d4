//! `weighted_target_experimental` (gRFC A28).

use evenkeel_balance::{Address, Connectivity, Endpoint, Input, Status};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, policies, v4},
};

fn config(weights: &[(&str, u32)]) -> String {
    let target = |(name, weight): &(&str, u32)| {
        format!(r#""{name}":{{"weight":{weight},"childPolicy":[{{"round_robin":{{}}}}]}}"#)
    };
    let targets = weights.iter().map(target).collect::<Vec<_>>().join(",");
    format!(r#"[{{"weighted_target_experimental":{{"targets":{{{targets}}}}}}}]"#)
}

/// Children `a` and `b`, with the endpoints 1 and 2 in `a` and 3 in `b`.
fn list() -> [Endpoint; 3] {
    [endpoint(v4(1)).under(["a"]), endpoint(v4(2)).under(["a"]), endpoint(v4(3)).under(["b"])]
}

fn driver(a: u32, b: u32) -> Driver {
    let mut driver = Driver::seeded(&policies(&config(&[("a", a), ("b", b)])), 1);
    driver.list(list());
    driver
}

fn accept_all(driver: &mut Driver) {
    while let Some(address) = driver.dialling.keys().next().cloned() {
        driver.accept(&address);
    }
}

#[test]
fn a28_calls_are_split_by_weight_and_then_by_the_child() {
    let mut driver = driver(80, 20);
    accept_all(&mut driver);
    let picks = driver.picks(10_000);
    let share = |n| picks[&v4(n)];
    assert!((1_850..2_150).contains(&share(3)), "{picks:?}");
    assert!(share(1).abs_diff(share(2)) <= 1, "{picks:?}");
}

#[test]
fn a28_only_children_that_are_ready_count() {
    let mut driver = driver(1, 1_000);
    driver.accept(&v4(1));
    assert_eq!(driver.picks(10), [(v4(1), 10)].into());
    driver.accept(&v4(3));
    assert!(driver.picks(1_000)[&v4(3)] > 950);
}

#[test]
fn a28_with_no_child_ready_the_state_is_the_most_useful_of_theirs() {
    let mut driver = driver(1, 1);
    driver.refuse(&v4(3));
    assert_eq!((driver.pick(), driver.balancer.connectivity()), (Placed::Queued, Connectivity::Connecting));
    driver.refuse(&v4(1));
    driver.refuse(&v4(2));
    assert_eq!(driver.balancer.connectivity(), Connectivity::TransientFailure);
    let mut reasons: Vec<_> = std::iter::repeat_with(|| driver.pick())
        .take(50)
        .map(|placed| match placed {
            Placed::Failed(status) => status.message,
            other => panic!("{other:?}"),
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons.len(), 2, "calls hear of the failures of both: {reasons:?}");
}

#[test]
fn a28_a_child_of_the_same_name_is_updated_rather_than_made_anew() {
    let mut driver = driver(1, 1);
    accept_all(&mut driver);
    driver.configure(&policies(&config(&[("a", 3), ("b", 1)]))).unwrap();
    assert!((700..800).contains(&(1_000 - driver.picks(1_000)[&v4(3)])));
    assert_eq!((driver.dialled.len(), driver.closed.len()), (3, 0));
}

#[test]
fn a_child_that_is_dropped_ends_at_once() {
    let mut driver = driver(1, 1);
    accept_all(&mut driver);
    driver.configure(&policies(&config(&[("a", 1)]))).unwrap();
    assert_eq!((driver.closed.as_slice(), driver.open.len()), ([v4(3)].as_slice(), 2));
    assert!(driver.balancer.explain().to_string().contains("1 endpoints belong to no child"));
}

#[test]
fn an_endpoint_moves_to_another_child_without_a_reconnect() {
    let mut driver = driver(1, 1);
    accept_all(&mut driver);
    driver.list(list().map(|endpoint| endpoint.under(["b"])));
    assert_eq!(driver.picks(30).len(), 3);
    driver.balancer.configure(driver.now, &policies(&config(&[("c", 1)]))).unwrap();
    driver.list(list().map(|endpoint| endpoint.under(["c"])));
    assert_eq!(driver.picks(30).len(), 3);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (3, 0));
}

#[test]
fn children_that_would_wait_for_a_call_are_connected_nevertheless() {
    let pick_first = config(&[("a", 1), ("b", 1)]).replace("round_robin", "pick_first");
    let mut driver = Driver::seeded(&policies(&pick_first), 1);
    driver.list(list());
    accept_all(&mut driver);
    driver.picks(10);
    driver.lose(&v4(3));
    assert!(driver.dialling.contains_key(&v4(3)));
}

#[test]
fn no_targets_and_no_resolver_are_told_to_calls() {
    let mut driver = Driver::new("weighted_target");
    driver.input(Input::ExitIdle);
    assert_eq!(driver.pick(), Placed::Queued);
    driver.resolve([v4(1)]);
    assert!(matches!(driver.pick(), Placed::Failed(status) if status.message.contains("no targets")));
    let mut driver = Driver::seeded(&policies(&config(&[("a", 1)])), 1);
    let failure = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(failure.clone()));
    assert_eq!(driver.pick(), Placed::Failed(failure));
}

#[test]
fn a_bad_config_names_what_is_wrong_with_it() {
    let path = |json: &str| refused(&policies(json)).path().to_owned();
    let at = "loadBalancingConfig[0].weighted_target_experimental.targets.a";
    assert_eq!(path(&config(&[("a", 0)])), format!("{at}.weight"));
    assert_eq!(path(&config(&[("a", 1)]).replace("round_robin", "never")), format!("{at}.childPolicy"));
    assert_eq!(path(&config(&[("a", 1)]).replace(r#""weight":1,"#, "")), at);
}

proptest! {
    #[test]
    fn a28_a_draw_lands_in_the_range_of_its_child(weights in vec(1..u32::MAX, 1..12), draws in vec(any::<u64>(), 50)) {
        let names: Vec<_> = (10..10 + weights.len()).map(|n| n.to_string()).collect();
        let named: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let mut driver = Driver::seeded(&policies(&config(&named)), 1);
        let address = |i: usize| -> Address { v4(u8::try_from(i).unwrap()) };
        driver.list(names.iter().enumerate().map(|(i, name)| endpoint(address(i)).under([name.as_str()])));
        accept_all(&mut driver);
        let total: u128 = weights.iter().copied().map(u128::from).sum();
        for bits in draws {
            let mut drawn = (u128::from(bits) * total) >> 64;
            let mut expected = 0;
            while drawn >= u128::from(weights[expected]) {
                drawn -= u128::from(weights[expected]);
                expected += 1;
            }
            let evenkeel_balance::Pick::Call(call) = driver.pick_with(bits) else { panic!("all are ready") };
            prop_assert_eq!(driver.address_of(&call), address(expected));
        }
    }
}
