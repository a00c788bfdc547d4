//! Service configs put to use (gRFC A21, A24).

use evenkeel_balance::{Balancer, ConfigError, ConnectionSettings, LbConfig, Policies};

use crate::driver::{Driver, Placed, policies, v4};

#[test]
fn a24_the_first_known_policy_wins() {
    let driver = Driver::seeded(&policies(r#"[{"tomorrow":{"x":1}},{"random":{}},{"round_robin":{}}]"#), 1);
    assert_eq!(driver.balancer.policy(), "random");
}

#[test]
fn a24_no_known_policy_is_an_error_that_lists_those_there_are() {
    let error = refused(&policies(r#"[{"tomorrow":{}},{"never":{}}]"#));
    assert_eq!(error.path(), "loadBalancingConfig");
    for name in ["tomorrow", "never", "least_request", "pick_first", "random", "round_robin"] {
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(refused(&policies("[]")).to_string().contains("no known policy"));
}

#[test]
fn a21_a_bad_config_of_the_chosen_policy_names_its_path_even_where_a_later_policy_is_good() {
    let error = refused(&policies(r#"[{"tomorrow":{}},{"least_request":{"choiceCount":"x"}},{"round_robin":{}}]"#));
    assert_eq!(error.path(), "loadBalancingConfig[1].least_request.choiceCount");
    let error = refused(&policies(r#"[{"pick_first":{"shuffleAddressList":1}}]"#));
    assert_eq!(error.path(), "loadBalancingConfig[0].pick_first.shuffleAddressList");
}

#[test]
fn a21_a_refused_config_leaves_the_old_one_in_force() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1), v4(2)]);
    for bad in [r#"[{"least_request":{"choiceCount":1}}]"#, r#"[{"tomorrow":{}}]"#, r#"[{"round_robin":[7]}]"#] {
        assert!(driver.configure(&policies(bad)).is_err(), "{bad}");
    }
    assert_eq!(driver.balancer.policy(), "round_robin");
    assert!(driver.picks(10).values().all(|&calls| calls == 5));
    assert_eq!((driver.dialled.len(), driver.closed.len()), (2, 0));
}

#[test]
fn a21_a_refused_reconfiguration_leaves_the_policy_as_it_was() {
    let mut driver = Driver::new("least_request");
    driver.resolve_and_connect([v4(1)]);
    let error = driver.configure(&policies(r#"[{"least_request":{"choiceCount":0}}]"#)).unwrap_err();
    assert_eq!(error.path(), "loadBalancingConfig[0].least_request.choiceCount");
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn unknown_fields_of_a_policys_config_are_ignored() {
    for policy in ["pick_first", "round_robin", "random", "least_request"] {
        let config = policies(&format!(r#"[{{"{policy}":{{"future":[1]}}}}]"#));
        assert_eq!(Driver::seeded(&config, 1).balancer.policy(), policy);
    }
}

#[test]
fn an_alias_names_the_same_policy() {
    let mut driver = Driver::new("least_request_experimental");
    driver.resolve_and_connect([v4(1)]);
    assert_eq!(driver.balancer.policy(), "least_request");
    driver.decisions.clear();
    driver.configure(&policies(r#"[{"least_request":{"choiceCount":3}}]"#)).unwrap();
    assert_eq!(driver.decisions, [], "reconfigured, not replaced");
    let error = driver.configure(&policies(r#"[{"least_request_experimental":{"choiceCount":0}}]"#)).unwrap_err();
    assert_eq!(error.path(), "loadBalancingConfig[0].least_request_experimental.choiceCount");
}

pub(crate) fn refused(config: &LbConfig) -> ConfigError {
    Balancer::new(Policies::standard(), config, ConnectionSettings::default(), 1).expect_err("the config is bad")
}
