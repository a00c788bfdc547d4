//! `priority_experimental` (gRFC A56, A115).

use std::collections::BTreeMap;

use evenkeel_balance::{Address, Connectivity, Endpoint, Input, LbConfig, Status, Time};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, millis, policies, secs, v4},
};

const TWO: &str = r#"[{"priority_experimental":{
    "children":{"p0":{"config":[{"round_robin":{}}]},"p1":{"config":[{"round_robin":{}}]}},
    "priorities":["p0","p1"]}}]"#;
const RANKS: &str = r#"[{"priority":{"childPolicy":[{"round_robin":{}}]}}]"#;

/// One endpoint in each of two levels: 1 in `p0`, 2 in `p1`.
fn two() -> Driver {
    let mut driver = Driver::seeded(&policies(TWO), 1);
    driver.list([endpoint(v4(1)).under(["p0"]), endpoint(v4(2)).under(["p1"])]);
    driver
}

/// As [`two`], after the first has failed and the second has taken over.
fn failed_over() -> Driver {
    let mut driver = two();
    driver.refuse(&v4(1));
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
    driver
}

/// As [`two`], after a failover and the return from it.
fn failed_back() -> Driver {
    let mut driver = failed_over();
    driver.wait(secs(2));
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    driver
}

#[test]
fn a56_a_lower_level_is_not_started_while_a_higher_one_is_tried_or_serves() {
    let mut driver = two();
    assert_eq!((driver.take_dialled(), driver.pick()), (vec![v4(1)], Placed::Queued));
    driver.accept(&v4(1));
    assert_eq!((driver.take_dialled(), driver.pick()), (vec![], Placed::On(v4(1))));
    assert_eq!(driver.take_notes(), [""; 0]);
}

#[test]
fn a56_a_level_that_has_failed_is_followed_by_the_next_at_once() {
    let mut driver = two();
    driver.refuse(&v4(1));
    assert_eq!((driver.pick(), driver.take_dialled()), (Placed::Queued, vec![v4(1), v4(2)]));
    let notes = driver.take_notes();
    assert_eq!(notes, ["priority: fails over from p0 to p1: p0 is TRANSIENT_FAILURE since 0.000000000s"]);
}

#[test]
fn a56_a_level_has_10_s_to_connect() {
    let mut driver = two();
    driver.wait(millis(9_999));
    assert_eq!(driver.dialled, [v4(1)]);
    driver.wait(millis(1));
    assert_eq!(driver.dialled, [v4(1), v4(2)]);
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn the_time_to_connect_is_configurable() {
    let short = RANKS.replace(r#""childPolicy""#, r#""failoverTimeout":"0.5s","childPolicy""#);
    let mut driver = Driver::seeded(&policies(&short), 1);
    driver.list([endpoint(v4(1)), endpoint(v4(2)).with_priority(1)]);
    driver.wait(millis(499));
    assert_eq!(driver.dialled, [v4(1)]);
    driver.wait(millis(1));
    assert_eq!(driver.dialled, [v4(1), v4(2)]);
}

#[test]
fn a56_calls_return_at_once_to_a_better_level_that_is_up_again() {
    let mut driver = failed_back();
    assert!(driver.open.contains_key(&v4(2)), "kept");
    let notes = driver.take_notes();
    assert_eq!(notes.last().unwrap(), "priority: back to p0 from p1: p0 is READY since 2.000000000s");
}

#[test]
fn a56_a_level_that_is_not_needed_is_kept_for_15_minutes() {
    let mut driver = failed_back();
    driver.wait(secs(15 * 60 - 1));
    assert!(driver.open.contains_key(&v4(2)));
    driver.wait(secs(1));
    assert_eq!((driver.closed.as_slice(), driver.open.len()), ([v4(2)].as_slice(), 1));
}

#[test]
fn a56_a_level_that_is_needed_again_is_reactivated() {
    let mut driver = failed_back();
    driver.picks(1);
    driver.lose(&v4(1));
    driver.refuse(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(2)), "at once: it is still connected");
    driver.wait(secs(20 * 60));
    assert_eq!((driver.pick(), driver.closed.contains(&v4(2))), (Placed::On(v4(2)), false));
}

#[test]
fn a56_the_failover_timer_starts_again_for_a_level_that_was_up() {
    let mut driver = failed_back();
    driver.picks(1);
    driver.lose(&v4(1));
    assert_eq!(driver.pick(), Placed::Queued, "it is being reconnected");
    driver.wait(millis(9_999));
    assert_eq!(driver.pick(), Placed::Queued);
    driver.wait(millis(1));
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn a56_the_failover_timer_does_not_start_again_for_a_level_that_has_failed() {
    let mut driver = failed_over();
    driver.wait(secs(2));
    assert!(driver.dialling.contains_key(&v4(1)), "it is tried again");
    assert_eq!(driver.pick(), Placed::On(v4(2)));
}

#[test]
fn a56_with_none_up_the_first_that_is_connecting_is_waited_for_and_else_the_last_one_answers() {
    let mut driver = two();
    driver.wait(secs(10));
    driver.refuse(&v4(2));
    assert_eq!(driver.pick(), Placed::Queued, "the first is connecting");
    driver.refuse(&v4(1));
    let Placed::Failed(status) = driver.pick() else { panic!("all have failed") };
    assert!(status.message.contains("10.0.0.2"), "{status}");
}

#[test]
fn a56_an_empty_list_of_priorities_fails_all_calls() {
    let mut driver = Driver::new("priority_experimental");
    driver.input(Input::ExitIdle);
    assert_eq!(driver.pick(), Placed::Queued);
    driver.resolve([v4(1)]);
    let Placed::Failed(status) = driver.pick() else { panic!("there is no level") };
    assert!(status.message.contains("empty priority list"), "{status}");
}

#[test]
fn a56_an_idle_level_serves_and_calls_wake_it() {
    let pick_first = TWO.replace("round_robin", "pick_first");
    let mut driver = Driver::seeded(&policies(&pick_first), 1);
    driver.list([endpoint(v4(1)).under(["p0"]), endpoint(v4(2)).under(["p1"])]);
    driver.accept(&v4(1));
    driver.picks(1);
    driver.lose(&v4(1));
    assert_eq!((driver.pick(), driver.dialling.len()), (Placed::Idle, 0));
    driver.input(Input::ExitIdle);
    assert_eq!(driver.dialling.keys().collect::<Vec<_>>(), [&v4(1)]);
}

#[test]
fn a56_calls_do_not_wake_a_level_that_is_not_needed() {
    let mut driver = Driver::seeded(&policies(&RANKS.replace("round_robin", "pick_first")), 1);
    driver.list([endpoint(v4(1)), endpoint(v4(2)).with_priority(1)]);
    driver.refuse(&v4(1));
    driver.accept(&v4(2));
    driver.wait(secs(2));
    driver.accept(&v4(1));
    driver.lose(&v4(2));
    driver.input(Input::ExitIdle);
    assert_eq!((driver.pick(), driver.dialling.len()), (Placed::On(v4(1)), 0));
}

#[test]
fn a56_a_level_moves_to_another_place_without_a_reconnect() {
    let mut driver = two();
    driver.accept(&v4(1));
    driver.configure(&policies(&TWO.replace(r#"["p0","p1"]"#, r#"["p1","p0"]"#))).unwrap();
    driver.list([endpoint(v4(1)).under(["p0"]), endpoint(v4(2)).under(["p1"])]);
    assert_eq!(driver.pick(), Placed::Queued, "p1 is first now");
    driver.refuse(&v4(2));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    assert_eq!((driver.dialled, driver.closed), (vec![v4(1), v4(2)], vec![]));
}

#[test]
fn a115_a_level_that_is_no_longer_listed_ends_at_once() {
    let mut driver = failed_back();
    driver.configure(&policies(&TWO.replace(r#"["p0","p1"]"#, r#"["p0"]"#))).unwrap();
    assert_eq!((driver.pick(), driver.closed), (Placed::On(v4(1)), vec![v4(2)]));
}

#[test]
fn a_level_of_another_name_takes_over_the_connections_to_its_endpoints() {
    let mut driver = two();
    driver.accept(&v4(1));
    driver.balancer.configure(driver.now, &policies(&TWO.replace("p0", "q0"))).unwrap();
    driver.list([endpoint(v4(1)).under(["q0"])]);
    assert_eq!((driver.pick(), driver.dialled, driver.closed), (Placed::On(v4(1)), vec![v4(1)], vec![]));
}

#[test]
fn a37_wishes_to_resolve_again_go_unheard_where_the_config_says_so() {
    let resolutions = |config: &str| {
        let mut driver = Driver::seeded(&policies(config), 1);
        driver.list([endpoint(v4(1)).under(["p0"])]);
        driver.refuse(&v4(1));
        driver.resolutions
    };
    let muted = TWO.replace(r#""p0":{"#, r#""p0":{"ignoreReresolutionRequests":true,"#);
    assert_eq!((resolutions(TWO), resolutions(&muted)), (1, 0));
}

#[test]
fn without_a_control_plane_the_levels_are_the_endpoints_own_ranks() {
    let mut driver = Driver::seeded(&policies(RANKS), 1);
    let ranked = |n: u8, rank| endpoint(v4(n)).with_priority(rank);
    driver.list([ranked(3, 20), ranked(1, 3), ranked(2, 3)]);
    assert_eq!(driver.take_dialled(), [v4(1), v4(2)]);
    driver.refuse(&v4(1));
    driver.refuse(&v4(2));
    driver.accept(&v4(3));
    assert_eq!(driver.pick(), Placed::On(v4(3)));
    driver.list([ranked(3, 20), ranked(4, 0)]);
    assert_eq!(driver.pick(), Placed::Queued, "a new best level is tried");
    driver.accept(&v4(4));
    assert_eq!(driver.pick(), Placed::On(v4(4)));
    driver.list([]);
    assert!(driver.open.is_empty() && matches!(driver.pick(), Placed::Failed(_)));
}

#[test]
fn a_resolver_that_never_answered_fails_calls_with_its_error() {
    for config in [TWO, RANKS] {
        let mut driver = Driver::seeded(&policies(config), 1);
        let failure = Status::unavailable("no DNS server answers");
        driver.input(Input::ResolutionFailed(failure.clone()));
        assert_eq!(driver.pick(), Placed::Failed(failure), "{config}");
    }
}

#[test]
fn it_explains_which_level_serves_and_why_no_better_one_does() {
    let mut driver = failed_over();
    driver.list([endpoint(v4(1)).under(["p0"]), endpoint(v4(2)).under(["p1"]), endpoint(v4(3))]);
    let told = driver.balancer.explain().to_string();
    for line in [
        "priority_experimental READY",
        "p1 serves since 0.000000000s",
        "not p0: p0 is TRANSIENT_FAILURE since",
        "1 endpoints belong to no child",
        "p0: round_robin TRANSIENT_FAILURE",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(failed_back().balancer.explain().to_string().contains("not needed: kept until 902.000000000s"));
}

#[test]
fn a_bad_config_names_what_is_wrong_with_it() {
    let path = |json: &str| refused(&policies(&format!(r#"[{{"priority":{json}}}]"#))).path().to_owned();
    let at = "loadBalancingConfig[0].priority";
    assert_eq!(path(r#"{"priorities":["a"]}"#), format!("{at}.priorities[0]"));
    let child = r#""children":{"a":{"config":[{"round_robin":{}}]}}"#;
    assert_eq!(path(&format!(r#"{{{child},"priorities":["a","a"]}}"#)), format!("{at}.priorities[1]"));
    assert_eq!(path(&format!(r#"{{{child},"childPolicy":[{{"random":{{}}}}]}}"#)), format!("{at}.childPolicy"));
    assert_eq!(path(r#"{"failoverTimeout":"0s"}"#), format!("{at}.failoverTimeout"));
    assert_eq!(path(r#"{"failoverTimeout":"soon"}"#), format!("{at}.failoverTimeout"));
    assert_eq!(path(r#"{"children":{"a":{"config":[{"never":{}}]}}}"#), format!("{at}.children.a.config"));
}

/// What becomes of three levels of one endpoint each: the facts, as the network shows them.
#[derive(Default)]
struct Facts(BTreeMap<u8, Fact>);

#[derive(Clone, Copy)]
struct Fact {
    state: Connectivity,
    awaited_until: Time,
}

const LEVELS: u8 = 3;

impl Facts {
    fn observe(&mut self, driver: &Driver) {
        for n in 0..LEVELS {
            let Some(subchannel) = driver.state(&v4(n)) else {
                self.0.remove(&n);
                continue;
            };
            let start = Fact { state: Connectivity::Connecting, awaited_until: driver.now + secs(10) };
            let fact = self.0.entry(n).or_insert(start);
            let state = match subchannel.service {
                Connectivity::Idle | Connectivity::Connecting if fact.state == Connectivity::TransientFailure => {
                    continue;
                }
                Connectivity::Idle => Connectivity::Connecting,
                state => state,
            };
            if fact.state == Connectivity::Ready && state == Connectivity::Connecting {
                fact.awaited_until = driver.now + secs(10);
            }
            fact.state = state;
        }
    }

    /// Where a call must go now.
    fn expected(&self, now: Time) -> Option<Address> {
        for (&n, fact) in &self.0 {
            match fact.state {
                Connectivity::Ready => return Some(v4(n)),
                Connectivity::Connecting if fact.awaited_until > now => return None,
                _ => {}
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Accept(u8),
    Refuse(u8),
    Lose(u8),
    Wait(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..LEVELS).prop_map(Change::Accept),
        3 => (0..LEVELS).prop_map(Change::Refuse),
        2 => (0..LEVELS).prop_map(Change::Lose),
        4 => (0..12_000_u64).prop_map(Change::Wait),
    ]
}

proptest! {
    #[test]
    fn a56_calls_go_to_the_first_level_that_is_up_unless_a_better_one_is_awaited(
        by_rank: bool,
        changes in vec(change(), 1..60),
    ) {
        let mut driver = Driver::seeded(&three(by_rank), 1);
        driver.list((0..LEVELS).map(ranked));
        let mut facts = Facts::default();
        facts.observe(&driver);
        for change in changes {
            match change {
                Change::Accept(n) if driver.dialling.contains_key(&v4(n)) => driver.accept(&v4(n)),
                Change::Refuse(n) if driver.dialling.contains_key(&v4(n)) => driver.refuse(&v4(n)),
                Change::Lose(n) if driver.open.contains_key(&v4(n)) => driver.lose(&v4(n)),
                Change::Wait(wait) => step_by_step(&mut driver, wait, |driver| facts.observe(driver)),
                _ => {}
            }
            facts.observe(&driver);
            match (driver.pick(), facts.expected(driver.now)) {
                (Placed::On(placed), Some(expected)) => prop_assert_eq!(placed, expected),
                (Placed::Queued | Placed::Failed(_), None) => {}
                (placed, expected) => prop_assert!(false, "{placed:?} for {expected:?} at {}", driver.now),
            }
            let started = facts.0.len();
            prop_assert!(facts.0.keys().copied().eq(0..u8::try_from(started).unwrap()), "levels start in order");
        }
    }
}

fn three(by_rank: bool) -> LbConfig {
    if by_rank {
        return policies(RANKS);
    }
    let child = |n| format!(r#""{n}":{{"config":[{{"round_robin":{{}}}}]}}"#);
    let children = (0..LEVELS).map(child).collect::<Vec<_>>().join(",");
    policies(&format!(r#"[{{"priority":{{"children":{{{children}}},"priorities":["0","1","2"]}}}}]"#))
}

fn ranked(n: u8) -> Endpoint {
    endpoint(v4(n)).with_priority(n.into()).under([n.to_string()])
}

/// Lets time pass, and has a look after each deadline of the core.
fn step_by_step(driver: &mut Driver, wait: u64, mut look: impl FnMut(&Driver)) {
    let end = driver.now + millis(wait);
    while let Some(at) = driver.balancer.next_timeout().filter(|&at| at <= end) {
        driver.wait(at.since(driver.now));
        look(driver);
    }
    driver.wait(end.since(driver.now));
}
