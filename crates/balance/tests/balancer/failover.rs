//! `failover`: standby groups take over as the first falters, and give back gracefully.

use evenkeel_balance::{Address, Connectivity, Endpoint, HealthSignal, Input, Status, Value};

use crate::{
    config::refused,
    driver::{Driver, Placed, endpoint, millis, policies, secs, v4},
};

/// Of rank 0: 1 to 4; of rank 1: 11 to 14; and so on.
fn ranked(n: u8) -> Endpoint {
    endpoint(v4(n)).with_priority(u32::from(n / 10))
}

const TWO_GROUPS: [u8; 8] = [1, 2, 3, 4, 11, 12, 13, 14];

fn config(fields: &str) -> evenkeel_balance::LbConfig {
    policies(&format!(r#"[{{"failover":{{"childPolicy":[{{"round_robin":{{}}}}]{fields}}}}}]"#))
}

fn two_groups(fields: &str) -> Driver {
    let mut driver = Driver::seeded(&config(fields), 1);
    driver.list(TWO_GROUPS.map(ranked));
    accept_all(&mut driver);
    // A connection that is lost sooner than this counts as a failed attempt.
    driver.wait(secs(2));
    driver.take_notes();
    driver
}

/// As [`two_groups`], with everybody's health watched and SERVING.
fn serving(fields: &str) -> Driver {
    let mut driver = Driver::seeded(&config(fields), 1);
    driver.check_health("svc");
    driver.list(TWO_GROUPS.map(ranked));
    accept_all(&mut driver);
    report(&mut driver, TWO_GROUPS, &HealthSignal::Serving);
    driver.take_notes();
    driver
}

fn report(driver: &mut Driver, numbers: impl IntoIterator<Item = u8>, signal: &HealthSignal) {
    for n in numbers {
        driver.health(&v4(n), signal.clone());
    }
}

fn accept_all(driver: &mut Driver) {
    while let Some(address) = driver.dialling.keys().next().cloned() {
        driver.accept(&address);
    }
}

fn take_out(driver: &mut Driver, numbers: impl IntoIterator<Item = u8>) {
    for n in numbers {
        driver.lose(&v4(n));
        if driver.dialling.contains_key(&v4(n)) {
            driver.refuse(&v4(n));
        }
    }
}

/// Lets these reconnect as soon as their backoff is over, and says how long that took.
fn bring_back(driver: &mut Driver, numbers: impl IntoIterator<Item = u8>) {
    for n in numbers {
        for _ in 0..1_000 {
            if driver.open.contains_key(&v4(n)) {
                break;
            }
            if driver.dialling.contains_key(&v4(n)) {
                driver.accept(&v4(n));
            } else {
                driver.wait(millis(20));
            }
        }
        assert!(driver.open.contains_key(&v4(n)), "{n} is not back");
    }
}

/// How many of 1,000 calls go to each group.
fn shares(driver: &mut Driver) -> [usize; 3] {
    let mut shares = [0; 3];
    for (address, picks) in driver.picks(1_000) {
        let group = (0..30).find(|n| v4(*n) == address).expect("one of ours") / 10;
        shares[usize::from(group)] += picks;
    }
    shares
}

fn is_near(picks: usize, expected: usize) -> bool {
    picks.abs_diff(expected) <= 60
}

fn failure(driver: &mut Driver) -> String {
    match driver.pick() {
        Placed::Failed(status) => status.message,
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn the_first_group_takes_all_calls_and_the_standby_is_connected() {
    let mut driver = two_groups("");
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    assert_eq!((driver.picks(100).len(), driver.open.len()), (4, 8));
    assert_eq!(driver.balancer.connectivity(), Connectivity::Ready);
}

#[test]
fn calls_spill_over_by_the_overprovisioning_factor_and_the_note_says_why() {
    let mut driver = two_groups("");
    take_out(&mut driver, [1]);
    assert_eq!(shares(&mut driver), [1_000, 0, 0], "3 of 4, times 1.4");
    assert_eq!(driver.take_notes(), [""; 0]);
    take_out(&mut driver, [2]);
    let [first, standby, _] = shares(&mut driver);
    assert!(is_near(first, 700) && is_near(standby, 300), "{first} {standby}");
    take_out(&mut driver, [3]);
    let [first, standby, _] = shares(&mut driver);
    assert!(is_near(first, 350) && is_near(standby, 650), "{first} {standby}");
    let note = driver.take_notes().pop().unwrap();
    assert_eq!(
        note,
        "failover: calls move on: group 0: 1 of 4 endpoints ready, takes 35 % of calls; \
         group 1: 4 of 4 endpoints ready, takes 65 % of calls; 10.0.0.1:50051: connection refused"
    );
    take_out(&mut driver, [4]);
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    assert!(driver.balancer.explain().to_string().contains("4 of 4 endpoints ready, takes 100 % of calls"));
}

#[test]
fn a_higher_factor_keeps_calls_longer() {
    let mut driver = two_groups(r#","overprovisioningFactor":400"#);
    take_out(&mut driver, [1, 2, 3]);
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
}

#[test]
fn a_third_group_takes_what_the_second_cannot() {
    let mut driver = Driver::seeded(&config(r#","panicThreshold":0"#), 1);
    driver.list([1, 2, 3, 4, 11, 12, 13, 14, 21].map(ranked));
    accept_all(&mut driver);
    take_out(&mut driver, [1, 2, 3, 11, 12, 13]);
    let [first, second, third] = shares(&mut driver);
    assert!(is_near(first, 350) && is_near(second, 350) && is_near(third, 300), "{first} {second} {third}");
    take_out(&mut driver, [21]);
    let [first, second, third] = shares(&mut driver);
    assert!(is_near(first, 500) && is_near(second, 500) && third == 0, "what they can take, in proportion");
}

#[test]
fn a_reconnect_is_no_failover() {
    let mut driver = two_groups("");
    for n in 1..=4 {
        driver.lose(&v4(n));
    }
    assert_eq!(driver.pick(), Placed::Queued, "they are being connected again");
    driver.wait(millis(499));
    driver.accept(&v4(1));
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    assert_eq!(driver.take_notes(), [""; 0]);
}

#[test]
fn attempts_that_hang_are_given_half_a_second() {
    let mut driver = two_groups("");
    for n in 1..=4 {
        driver.lose(&v4(n));
    }
    driver.wait(millis(500));
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    let mut slower = two_groups(r#","failoverTimeout":"3s""#);
    for n in 1..=4 {
        slower.lose(&v4(n));
    }
    slower.wait(millis(2_999));
    assert_eq!(slower.pick(), Placed::Queued);
    slower.wait(millis(1));
    assert_eq!(shares(&mut slower), [0, 1_000, 0]);
}

#[test]
fn at_the_start_calls_wait_for_the_first_group_as_long() {
    let mut driver = Driver::seeded(&config(""), 1);
    driver.list(TWO_GROUPS.map(ranked));
    (11..=14).for_each(|n| driver.accept(&v4(n)));
    assert_eq!(driver.pick(), Placed::Queued);
    driver.wait(millis(500));
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    driver.accept(&v4(1));
    assert_eq!(shares(&mut driver), [0, 1_000, 0], "it was out, so it is held back");
}

#[test]
fn silent_endpoints_are_out_at_once() {
    let mut driver = two_groups("");
    for n in 1..=4 {
        driver.input(Input::Stalled(driver.open[&v4(n)], "silent".into()));
    }
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
}

#[test]
fn calls_return_after_the_delay_and_over_the_ramp() {
    let mut driver = two_groups("");
    take_out(&mut driver, 1..=4);
    bring_back(&mut driver, 1..=4);
    driver.take_notes();
    driver.measurements.clear();
    driver.wait(secs(8));
    assert_eq!(shares(&mut driver), [0, 1_000, 0], "not yet");
    driver.wait(secs(2));
    assert!(is_near(shares(&mut driver)[0], 50), "{:?}", shares(&mut driver));
    let begun = driver.take_notes();
    assert!(begun.iter().any(|note| note.starts_with("failover: calls return to group 0 over 30s: group 0: 4 of 4")));
    let mut before = 0;
    for _ in 0..4 {
        driver.wait(secs(6));
        let first = shares(&mut driver)[0];
        assert!(first > before + 120 && first < 1_000, "{first} after {before}");
        before = first;
    }
    assert_eq!(driver.take_notes(), [""; 0], "the steps between are no news");
    driver.wait(secs(6));
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    assert!(driver.take_notes()[0].starts_with("failover: calls have returned to group 0: "));
    assert_eq!(driver.balancer.next_timeout(), None);
    let steps = driver.measurements.iter().filter(|it| it.metric == "evenkeel.failover.share").count();
    assert!((38..=42).contains(&steps), "20 steps of two groups: {steps}");
}

#[test]
fn a_group_that_falters_again_starts_over() {
    let mut driver = two_groups("");
    take_out(&mut driver, 1..=4);
    bring_back(&mut driver, [1]);
    driver.wait(secs(5));
    driver.lose(&v4(1));
    driver.refuse(&v4(1));
    bring_back(&mut driver, [1]);
    driver.wait(secs(9));
    assert_eq!(shares(&mut driver), [0, 1_000, 0], "well for 9 s, not for 14");
    driver.wait(secs(1));
    assert!(is_near(shares(&mut driver)[0], 17), "a twentieth of 35 %");
}

#[test]
fn without_delay_and_ramp_calls_return_at_once() {
    let mut driver = two_groups(r#","failbackDelay":"0s","failbackRamp":"0s""#);
    take_out(&mut driver, 1..=4);
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    bring_back(&mut driver, 1..=3);
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
}

#[test]
fn a_group_that_is_needed_is_not_held_back() {
    let mut driver = two_groups(r#","panicThreshold":0"#);
    take_out(&mut driver, 1..=4);
    bring_back(&mut driver, 1..=4);
    driver.take_notes();
    take_out(&mut driver, 11..=13);
    let [first, standby, _] = shares(&mut driver);
    assert!(is_near(first, 1_000) && standby == 0, "{first} {standby}: it serves, as good as ever");
    assert!(driver.take_notes().iter().any(|note| note.contains("group 0 serves at once")));
}

#[test]
fn running_calls_stay_where_they_are() {
    let mut driver = two_groups(r#","failbackDelay":"0s","failbackRamp":"0s""#);
    take_out(&mut driver, 1..=4);
    let on_standby = driver.pick_raw();
    bring_back(&mut driver, 1..=4);
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    assert_eq!((11..=14).map(|n| driver.load(&v4(n)).in_flight()).sum::<u32>(), 1);
    assert_eq!(driver.closed, [] as [Address; 0]);
    drop(on_standby);
}

#[test]
fn too_few_well_endpoints_are_a_panic() {
    let mut driver = serving("");
    for ill in [2, 3, 4, 12, 13] {
        driver.health(&v4(ill), HealthSignal::NotServing);
    }
    // 35 % and 70 % are enough for all calls.
    assert_eq!(driver.picks(100).len(), 3);
    driver.take_notes();
    driver.health(&v4(14), HealthSignal::NotServing);
    assert_eq!(driver.picks(400).len(), 8, "2 of 8 are well, and that is not enough");
    let [first, standby, _] = shares(&mut driver);
    assert!(is_near(first, 500) && is_near(standby, 500), "by the endpoints that are connected");
    assert_eq!(
        driver.take_notes(),
        ["failover: panic: 2 of 8 endpoints are ready; calls go to all that are connected"]
    );
    driver.health(&v4(14), HealthSignal::Serving);
    assert_eq!(driver.picks(100).len(), 3);
    assert!(driver.take_notes()[0].starts_with("failover: the panic is over"));
}

#[test]
fn a_standby_that_can_take_all_calls_is_no_reason_to_panic() {
    let mut driver = Driver::seeded(&config(""), 1);
    driver.check_health("svc");
    let all = [1, 2, 3, 4, 5, 6, 7, 8, 11];
    driver.list(all.map(ranked));
    accept_all(&mut driver);
    report(&mut driver, all, &HealthSignal::Serving);
    report(&mut driver, 1..=8, &HealthSignal::NotServing);
    assert_eq!(shares(&mut driver), [0, 1_000, 0], "1 of 9 is well");
}

#[test]
fn panic_can_be_turned_off() {
    let mut driver = serving(r#","panicThreshold":0"#);
    for ill in [2, 3, 4, 12, 13, 14] {
        driver.health(&v4(ill), HealthSignal::NotServing);
    }
    assert_eq!(driver.picks(100).len(), 2);
}

#[test]
fn with_all_out_the_mode_decides() {
    let all_ill = |fields: &str| {
        let mut driver = serving(fields);
        report(&mut driver, TWO_GROUPS, &HealthSignal::NotServing);
        driver
    };
    let mut panics = all_ill("");
    assert_eq!(panics.picks(400).len(), 8);
    let mut fails = all_ill(r#","whenAllOut":"failFast""#);
    let message = failure(&mut fails);
    assert!(
        message.starts_with("all endpoints are out: group 0: 0 of 4 endpoints ready, 10.0.0.1:50051: "),
        "{message}"
    );
    assert!(message.contains("; group 1: 0 of 4 endpoints ready, 10.0.0.11:50051: "), "{message}");
    assert!(
        fails
            .take_notes()
            .iter()
            .any(|note| note.starts_with("failover: all endpoints are out, and calls fail at once; 10.0.0.1:50051: "))
    );
    let mut waits = all_ill(r#","whenAllOut":"wait""#);
    assert_eq!(waits.pick(), Placed::Queued);
    for driver in [&mut panics, &mut fails, &mut waits] {
        driver.health(&v4(12), HealthSignal::Serving);
        driver.wait(secs(1));
        assert_eq!(driver.picks(10).values().sum::<usize>(), 10);
        assert!(driver.take_notes().iter().any(|note| note.contains("no longer are all endpoints out")));
    }
}

#[test]
fn with_nothing_connected_calls_fail_in_all_modes_but_wait() {
    for (mode, waits) in [("panic", false), ("failFast", false), ("wait", true)] {
        let mut driver = two_groups(&format!(r#","whenAllOut":"{mode}""#));
        take_out(&mut driver, TWO_GROUPS);
        if waits {
            assert_eq!(driver.pick(), Placed::Queued, "{mode}");
        } else {
            assert!(failure(&mut driver).contains("connection refused"), "{mode}");
        }
        bring_back(&mut driver, [13]);
        assert_eq!(driver.pick(), Placed::On(v4(13)), "{mode}");
    }
}

#[test]
fn an_operator_switches_by_hand_and_back() {
    let mut driver = two_groups("");
    driver.input(Input::SwitchTo(Some(1)));
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    assert_eq!(
        driver.take_notes(),
        [
            "failover: switched to group 1 by hand: group 0: 4 of 4 endpoints ready, takes 0 % of calls; group 1: 4 of 4 endpoints ready, takes 100 % of calls"
        ]
    );
    driver.configure(&config(r#","failbackDelay":"1s""#)).unwrap();
    driver.list([1, 2, 11, 12].map(ranked));
    assert_eq!(shares(&mut driver), [0, 1_000, 0], "whatever is configured and resolved");
    assert!(driver.balancer.explain().to_string().contains("switched to group 1 by hand"));
    driver.input(Input::SwitchTo(None));
    assert_eq!(shares(&mut driver), [1_000, 0, 0], "at once: nothing was wrong with it");
    assert!(driver.take_notes()[0].starts_with("failover: the switch by hand is over"));
}

#[test]
fn a_switch_outlives_the_policy_and_idleness() {
    let mut driver = two_groups("");
    driver.input(Input::SwitchTo(Some(1)));
    driver.configure(&policies(r#"[{"round_robin":{}}]"#)).unwrap();
    assert_eq!(driver.picks(80).len(), 8, "it knows no groups");
    driver.configure(&config("")).unwrap();
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    driver.input(Input::GoIdle);
    driver.list(TWO_GROUPS.map(ranked));
    accept_all(&mut driver);
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
}

#[test]
fn a_switch_to_a_group_that_is_out_stays() {
    let mut driver = two_groups(r#","whenAllOut":"failFast""#);
    driver.input(Input::SwitchTo(Some(1)));
    take_out(&mut driver, 11..=14);
    assert!(failure(&mut driver).starts_with("all endpoints are out (switched to group 1 by hand): "));
    driver.input(Input::SwitchTo(None));
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
}

#[test]
fn a_switch_to_a_group_without_endpoints_changes_nothing_until_it_has_some() {
    let mut driver = two_groups("");
    driver.input(Input::SwitchTo(Some(2)));
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    assert!(driver.take_notes()[0].contains("which has no endpoint, so nothing changes"));
    driver.list([1, 11, 21].map(ranked));
    accept_all(&mut driver);
    assert_eq!(shares(&mut driver), [0, 0, 1_000]);
}

#[test]
fn a_switch_to_a_group_that_is_held_back_does_not_wait() {
    let mut driver = two_groups("");
    take_out(&mut driver, 1..=4);
    bring_back(&mut driver, 1..=4);
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    driver.input(Input::SwitchTo(Some(0)));
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
}

#[test]
fn a_cold_group_is_connected_when_it_is_needed_and_let_go_after_15_minutes() {
    let mut driver = two_groups(r#","standby":"cold","failbackDelay":"0s","failbackRamp":"0s""#);
    assert_eq!(driver.open.len(), 4);
    take_out(&mut driver, 1..=4);
    assert_eq!(driver.pick(), Placed::Queued);
    (11..=14).for_each(|n| driver.accept(&v4(n)));
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    bring_back(&mut driver, 1..=4);
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    driver.wait(secs(15 * 60 - 1));
    assert_eq!(driver.open.len(), 8);
    driver.wait(secs(60));
    assert_eq!(driver.open.len(), 4);
    assert!(driver.balancer.explain().to_string().contains("not connected: 0 of 4 endpoints ready"));
    assert_eq!(driver.balancer.next_timeout(), None);
}

#[test]
fn a_cold_group_that_fails_hands_on_to_the_next() {
    let mut driver = Driver::seeded(&config(r#","standby":"cold""#), 1);
    driver.list([1, 11, 21].map(ranked));
    driver.refuse(&v4(1));
    driver.refuse(&v4(11));
    driver.accept(&v4(21));
    assert_eq!(shares(&mut driver), [0, 0, 1_000]);
}

#[test]
fn a_list_that_changes_keeps_what_is_known() {
    let mut driver = two_groups("");
    take_out(&mut driver, [3, 4]);
    driver.take_notes();
    // The same endpoints in other groups.
    driver.list([1, 2, 3, 4].map(ranked).into_iter().chain([endpoint(v4(11)), endpoint(v4(12))]));
    assert_eq!(driver.picks(100).len(), 4, "4 of 6 are ready");
    assert_eq!(driver.dialled.len(), 10, "none of them was connected anew");
    driver.list([11, 12].map(ranked));
    assert_eq!(shares(&mut driver), [0, 1_000, 0]);
    assert!(driver.take_notes().last().unwrap().contains("calls move on: group 1: 2 of 2"), "group 0 is gone");
    driver.list([]);
    assert_eq!(failure(&mut driver), "the resolver returned no endpoints");
    assert_eq!((driver.open.len(), driver.balancer.next_timeout()), (0, None));
}

#[test]
fn a_panic_ends_with_the_endpoints_and_with_the_policy() {
    let mut driver = serving("");
    report(&mut driver, TWO_GROUPS, &HealthSignal::NotServing);
    driver.list([1, 2].map(ranked));
    assert_eq!(driver.picks(8).len(), 2, "those that stay are trusted still");
    driver.configure(&policies(r#"[{"round_robin":{}}]"#)).unwrap();
    assert!(matches!(driver.pick(), Placed::Failed(_)), "nobody trusts them any more");
}

#[test]
fn another_config_counts_at_once() {
    let mut driver = two_groups("");
    take_out(&mut driver, 1..=3);
    driver.configure(&config(r#","overprovisioningFactor":400"#)).unwrap();
    assert_eq!(shares(&mut driver), [1_000, 0, 0]);
    driver.configure(&policies(r#"[{"failover":{}}]"#)).unwrap();
    assert!(driver.balancer.explain().to_string().contains("least_request"), "the default");
    assert!(is_near(shares(&mut driver)[0], 350));
}

#[test]
fn steps_and_shares_are_measured() {
    let mut driver = two_groups("");
    driver.measurements.clear();
    take_out(&mut driver, 1..=4);
    let steps = driver.measurements.iter().filter(|it| it.metric == "evenkeel.failover.steps");
    assert!(
        steps.clone().count() >= 1
            && steps.clone().all(|it| it.labels == [("evenkeel.failover.step", "failover".to_owned())])
    );
    let of_standby = ("evenkeel.failover.group", "1".to_owned());
    let share = driver.measurements.iter().rfind(|it| it.labels.contains(&of_standby)).unwrap();
    assert_eq!((share.metric, share.value), ("evenkeel.failover.share", Value::Level(1.0)));
}

#[test]
fn failures_of_the_resolver_reach_the_calls() {
    let mut driver = Driver::seeded(&config(""), 1);
    driver.input(Input::ExitIdle);
    assert_eq!(driver.pick(), Placed::Queued);
    let refused = Status::unavailable("no DNS server answers");
    driver.input(Input::ResolutionFailed(refused.clone()));
    assert_eq!(driver.pick(), Placed::Failed(refused));
}

#[test]
fn bad_configs_name_what_is_wrong_with_them() {
    let path = |fields: &str| refused(&config(fields)).path().to_owned();
    let at = "loadBalancingConfig[0].failover";
    assert_eq!(path(r#","overprovisioningFactor":99"#), format!("{at}.overprovisioningFactor"));
    assert_eq!(path(r#","panicThreshold":101"#), format!("{at}.panicThreshold"));
    assert_eq!(path(r#","failoverTimeout":"0s""#), format!("{at}.failoverTimeout"));
    assert_eq!(path(r#","failbackRamp":3"#), format!("{at}.failbackRamp"));
    assert_eq!(path(r#","whenAllOut":"never""#), format!("{at}.whenAllOut"));
    let child = refused(&policies(r#"[{"failover":{"childPolicy":[{"never":{}}]}}]"#));
    assert_eq!(child.path(), format!("{at}.childPolicy"));
}
