//! `panic_threshold`: too few endpoints are ready, so all that are connected are used.

use std::collections::BTreeSet;

use evenkeel_balance::{Code, Connectivity, HealthSignal, Input, LbConfig, Outcome, Pick};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, Placed, policies, secs, v4},
};

#[test]
fn below_the_threshold_all_connected_endpoints_are_used_and_from_it_on_the_ready_ones() {
    let mut driver = serving(4, r#""threshold":50"#);
    for (ill, used) in [(1, 3), (2, 2), (3, 4)] {
        driver.health(&v4(ill), HealthSignal::NotServing);
        assert_eq!(driver.picks(40).len(), used, "{ill} of 4 are ill");
    }
    driver.health(&v4(1), HealthSignal::Serving);
    assert_eq!(driver.picks(40).len(), 2, "the panic is over");
    let notes: Vec<_> = driver.decisions.iter().map(ToString::to_string).collect();
    let entered = "panic: 1 of 4 endpoints are well; all that are connected are used".to_owned();
    let left = "the panic is over: 2 of 4 endpoints are well".to_owned();
    assert!(notes.contains(&entered) && notes.contains(&left), "{notes:?}");
}

#[test]
fn the_default_threshold_is_50_and_0_turns_it_off() {
    for (fields, used) in [("", 4), (r#""threshold":50"#, 4), (r#""threshold":25"#, 1), (r#""threshold":0"#, 1)] {
        let mut driver = serving(4, fields);
        for ill in 1..=3 {
            driver.health(&v4(ill), HealthSignal::NotServing);
        }
        assert_eq!(driver.picks(40).len(), used, "{fields}");
    }
    let mut off = serving(1, r#""threshold":0"#);
    off.health(&v4(1), HealthSignal::NotServing);
    assert!(matches!(off.pick(), Placed::Failed(_)));
}

#[test]
fn bad_configs_are_refused_with_their_path() {
    assert_eq!(refused(&config(r#""threshold":101"#)).path(), "loadBalancingConfig[0].panic_threshold.threshold");
    assert!(refused(&policies(r#"[{"panic_threshold":{}}]"#)).to_string().contains("childPolicy"));
    let error = refused(&policies(r#"[{"panic_threshold":{"childPolicy":[{"least_request":{"choiceCount":0}}]}}]"#));
    assert_eq!(error.path(), "loadBalancingConfig[0].panic_threshold.childPolicy[0].least_request.choiceCount");
}

#[test]
fn endpoints_that_have_yet_to_show_are_no_reason_to_panic() {
    let mut driver = Driver::seeded(&config(""), 1);
    driver.check_health("svc");
    driver.resolve((1..=4).map(v4));
    driver.accept(&v4(1));
    driver.accept(&v4(2));
    assert_eq!(driver.pick(), Placed::Queued, "connected, but it has not reported yet");
    driver.health(&v4(1), HealthSignal::NotServing);
    driver.health(&v4(2), HealthSignal::Serving);
    assert_eq!(driver.picks(4).len(), 1, "one of four is out");
    driver.refuse(&v4(3));
    driver.refuse(&v4(4));
    assert_eq!(driver.picks(4).len(), 2, "three are");
}

#[test]
fn endpoints_that_are_not_connected_are_not_used() {
    let mut driver = serving(4, "");
    driver.picks(4);
    for gone in 1..=3 {
        driver.lose(&v4(gone));
        driver.refuse(&v4(gone));
    }
    assert!(explained(&driver).contains("panic: all endpoints"));
    assert_eq!(driver.picks(8), [(v4(4), 8)].into());
    driver.accept_if_dialled(&v4(1));
    driver.wait(secs(2));
    driver.accept_if_dialled(&v4(1));
    assert_eq!(driver.picks(8).len(), 2, "used before it reports its health");
}

#[test]
fn stalls_count() {
    let mut driver = serving(3, "");
    for silent in 1..=2 {
        driver.input(Input::Stalled(driver.open[&v4(silent)], "silent".into()));
    }
    assert_eq!(driver.picks(9).len(), 3);
    driver.input(Input::Recovered(driver.open[&v4(1)]));
    assert_eq!(driver.picks(8).len(), 2);
}

#[test]
fn ejections_count_on_whichever_side_they_are_made() {
    let rule = r#""maxEjectionPercent":100,"failurePercentageEjection":{"requestVolume":1,"minimumHosts":1}"#;
    let inside = format!(
        r#"[{{"panic_threshold":{{"childPolicy":[{{"outlier_detection":{{{rule},"childPolicy":[{{"round_robin":{{}}}}]}}}}]}}}}]"#
    );
    let outside = format!(
        r#"[{{"outlier_detection":{{{rule},"childPolicy":[{{"panic_threshold":{{"childPolicy":[{{"round_robin":{{}}}}]}}}}]}}}}]"#
    );
    for tree in [inside, outside] {
        let mut driver = Driver::seeded(&policies(&tree), 1);
        driver.resolve_and_connect((1..=4).map(v4));
        for (failing, used) in [(2, 2), (3, 4)] {
            for _ in 0..40 {
                let Pick::Call(call) = driver.pick_raw() else { panic!("some are ready") };
                let code = if call.subchannel().slot() < failing { Code::Unavailable } else { Code::Ok };
                call.finish(&Outcome::new(code));
            }
            driver.wait(secs(10));
            assert_eq!(driver.picks(40).len(), used, "{failing} of 4 fail: {tree}");
            driver.wait(secs(30));
        }
    }
}

#[test]
fn trust_ends_with_the_endpoint_and_with_the_policy() {
    let mut driver = serving(2, "");
    driver.health(&v4(1), HealthSignal::NotServing);
    driver.health(&v4(2), HealthSignal::NotServing);
    assert_eq!(driver.picks(8).len(), 2);
    driver.resolve([v4(2), v4(3)]);
    driver.accept(&v4(3));
    driver.health(&v4(3), HealthSignal::NotServing);
    assert_eq!(driver.picks(8), [(v4(2), 4), (v4(3), 4)].into(), "new endpoints are trusted too");
    driver.configure(&LbConfig::of("round_robin")).unwrap();
    assert!(matches!(driver.pick(), Placed::Failed(_)));
    driver.resolve([v4(1), v4(2)]);
    driver.accept(&v4(1));
    driver.health(&v4(1), HealthSignal::NotServing);
    assert!(matches!(driver.pick(), Placed::Failed(_)));
}

#[test]
fn another_threshold_counts_at_once() {
    let mut driver = serving(4, r#""threshold":25"#);
    for ill in 1..=3 {
        driver.health(&v4(ill), HealthSignal::NotServing);
    }
    assert_eq!(driver.picks(8).len(), 1);
    driver.configure(&config(r#""threshold":26"#)).unwrap();
    assert_eq!(driver.picks(8).len(), 4);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (4, 0));
}

#[test]
fn the_explanation_says_how_many_are_well() {
    let mut driver = serving(4, "");
    let calm =
        "panic_threshold READY\n  - 4 of 4 endpoints are well; the threshold is 50 %\n  childPolicy: round_robin READY";
    assert_eq!(explained(&driver), calm);
    for ill in 1..=3 {
        driver.health(&v4(ill), HealthSignal::NotServing);
    }
    assert!(explained(&driver).contains("- 1 of 4 endpoints are well"));
    assert!(explained(&driver).contains("- panic: all endpoints that are connected are used"));
}

proptest! {
    #[test]
    fn who_is_used_is_a_matter_of_counting(n in 1..8_u8, threshold in 0..101_usize, changes in vec((1..8_u8, 0..4_u8), 1..60)) {
        let mut driver = serving(n, &format!(r#""threshold":{threshold}"#));
        for (which, change) in changes {
            let address = v4(which.min(n));
            match change {
                0 if driver.open.contains_key(&address) => driver.health(&address, HealthSignal::NotServing),
                1 if driver.open.contains_key(&address) => driver.health(&address, HealthSignal::Serving),
                2 if driver.open.contains_key(&address) => driver.lose(&address),
                3 => driver.accept_if_dialled(&address),
                _ => {}
            }
            let reports = driver.balancer.subchannels();
            let ready = |wanted: bool| reports.iter().filter(move |report| {
                let state = &report.state;
                if wanted { state.connection == Connectivity::Ready } else { state.untrusted == Connectivity::Ready }
            });
            let panics = ready(false).count() * 100 < usize::from(n) * threshold;
            let used: BTreeSet<_> = ready(panics).map(|report| report.address.clone()).collect();
            if used.is_empty() {
                prop_assert!(!matches!(driver.pick(), Placed::On(_)));
            } else {
                prop_assert_eq!(driver.picks(3 * usize::from(n)).into_keys().collect::<BTreeSet<_>>(), used);
            }
        }
    }
}

/// Endpoints that are all connected and SERVING.
fn serving(n: u8, fields: &str) -> Driver {
    let mut driver = Driver::seeded(&config(fields), 1);
    driver.check_health("svc");
    driver.resolve_and_connect((1..=n).map(v4));
    for n in 1..=n {
        driver.health(&v4(n), HealthSignal::Serving);
    }
    driver
}

fn config(fields: &str) -> LbConfig {
    let comma = if fields.is_empty() { "" } else { "," };
    policies(&format!(r#"[{{"panic_threshold":{{{fields}{comma}"childPolicy":[{{"round_robin":{{}}}}]}}}}]"#))
}

fn explained(driver: &Driver) -> String {
    driver.balancer.explain().to_string()
}

impl Driver {
    fn accept_if_dialled(&mut self, address: &evenkeel_balance::Address) {
        if self.dialling.contains_key(address) {
            self.accept(address);
        }
    }
}
