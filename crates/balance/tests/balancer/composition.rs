//! Policies under policies: they nest by config alone.

use evenkeel_balance::Endpoint;

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, policies, v4},
};

/// Two levels: in the first, two localities by weight, of which one is subset; in the second, zones.
const TREE: &str = r#"[{"priority":{"priorities":["p0","p1"],"children":{
    "p0":{"config":[{"weighted_target":{"targets":{
        "west":{"weight":3,"childPolicy":[{"round_robin":{}}]},
        "east":{"weight":1,"childPolicy":[{"random_subsetting":{
            "subsetSize":2,"childPolicy":[{"least_request":{"choiceCount":2}}]}}]}}}}]},
    "p1":{"config":[{"zone_aware":{"zone":"a","childPolicy":[{"random":{}}]}}]}}}}]"#;

/// 1 and 2 are west, 3 to 6 east; 7 and 8 are in reserve.
fn endpoints() -> impl Iterator<Item = Endpoint> {
    (1..=8).map(|n| match n {
        1..=2 => endpoint(v4(n)).under(["p0", "west"]),
        3..=6 => endpoint(v4(n)).under(["p0", "east"]),
        _ => endpoint(v4(n)).under(["p1"]).in_zone("a"),
    })
}

fn tree() -> Driver {
    let mut driver = Driver::seeded(&policies(TREE), 1);
    driver.list(endpoints());
    accept_all(&mut driver);
    driver
}

fn accept_all(driver: &mut Driver) {
    while let Some(address) = driver.dialling.keys().next().cloned() {
        driver.accept(&address);
    }
}

fn share(driver: &mut Driver, numbers: std::ops::RangeInclusive<u8>) -> usize {
    let picks = driver.picks(4_000);
    numbers.filter_map(|n| picks.get(&v4(n))).sum()
}

#[test]
fn a_tree_of_policies_places_calls_at_every_level() {
    let mut driver = tree();
    assert_eq!(driver.open.len(), 4, "two west, a subset of two east, none in reserve");
    let west = share(&mut driver, 1..=2);
    assert!((2_880..3_120).contains(&west), "{west}");
    for address in driver.open.keys().cloned().collect::<Vec<_>>() {
        driver.lose(&address);
        if driver.dialling.contains_key(&address) {
            driver.refuse(&address);
        }
    }
    accept_all(&mut driver);
    assert_eq!(share(&mut driver, 7..=8), 4_000);
}

#[test]
fn another_config_for_a_deep_child_keeps_every_connection() {
    let mut driver = tree();
    let told = driver.balancer.explain().to_string().replace("compares 2", "compares 5");
    driver.take_notes();
    driver.configure(&policies(&TREE.replace(r#""choiceCount":2"#, r#""choiceCount":5"#))).unwrap();
    assert_eq!(driver.take_notes(), [""; 0], "nothing was replaced");
    assert_eq!((driver.dialled.len(), driver.closed.len(), driver.balancer.explain().to_string()), (4, 0, told));
    driver.configure(&policies(&TREE.replace("round_robin", "random"))).unwrap();
    assert_eq!(driver.take_notes(), ["policy random takes over from round_robin"]);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (4, 0));
    assert!((2_880..3_120).contains(&share(&mut driver, 1..=2)));
}

#[test]
fn learned_state_survives_another_config_around_it() {
    let mut driver = tree();
    let call = driver.pick_raw();
    let in_flight =
        |driver: &Driver| -> u32 { driver.balancer.subchannels().iter().map(|report| report.load.in_flight()).sum() };
    driver.configure(&policies(&TREE.replace(r#""weight":3"#, r#""weight":1"#))).unwrap();
    assert_eq!(in_flight(&driver), 1);
    drop(call);
    assert_eq!(in_flight(&driver), 0);
    assert!((1_850..2_150).contains(&share(&mut driver, 1..=2)));
}

#[test]
fn a_refused_config_of_one_child_changes_none() {
    let mut driver = tree();
    let bad = TREE.replace(r#""weight":3"#, r#""weight":1"#).replace(r#""zone":"a","#, r#""zone":"","#);
    let error = driver.configure(&policies(&bad)).unwrap_err();
    assert_eq!(error.path(), "loadBalancingConfig[0].priority.children.p1.config[0].zone_aware.zone");
    assert!((2_880..3_120).contains(&share(&mut driver, 1..=2)), "the weights are as before");
}

#[test]
fn a_bad_config_deep_down_is_named_by_its_whole_path() {
    let path = |from: &str, to: &str| refused(&policies(&TREE.replace(from, to))).path().to_owned();
    let east = "loadBalancingConfig[0].priority.children.p0.config[0].weighted_target.targets.east.childPolicy[0]";
    let subset = format!("{east}.random_subsetting");
    assert_eq!(path(r#""subsetSize":2"#, r#""subsetSize":0"#), format!("{subset}.subsetSize"));
    assert_eq!(
        path(r#""choiceCount":2"#, r#""choiceCount":1"#),
        format!("{subset}.childPolicy[0].least_request.choiceCount")
    );
    assert_eq!(
        path(r#""choiceCount":2"#, r#""choiceCount":"x""#),
        format!("{subset}.childPolicy[0].least_request.choiceCount")
    );
    assert_eq!(path("least_request", "never"), format!("{subset}.childPolicy"));
}

#[test]
fn a52_policies_nest_16_deep_and_no_deeper() {
    let nested = |depth| {
        (1..depth).fold(r#"[{"round_robin":{}}]"#.to_owned(), |child, level| {
            if level % 2 == 0 {
                format!(r#"[{{"priority":{{"childPolicy":{child}}}}}]"#)
            } else {
                format!(r#"[{{"random_subsetting":{{"subsetSize":9,"childPolicy":{child}}}}}]"#)
            }
        })
    };
    let mut driver = Driver::seeded(&policies(&nested(16)), 1);
    driver.resolve([v4(1)]);
    driver.accept(&v4(1));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    assert_eq!(driver.balancer.explain().to_string().lines().filter(|line| line.contains("READY")).count(), 16);
    let error = refused(&policies(&nested(17)));
    assert!(error.to_string().ends_with("policies nest deeper than 16"), "{error}");
    assert!(driver.configure(&policies(&nested(17))).is_err());
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}
