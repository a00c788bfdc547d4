//! Client-side health checking (gRFC A17).

use evenkeel_balance::{Code, Connectivity, HealthSignal, Input, Status};

use crate::driver::{Driver, Placed, millis, v4};

#[test]
fn a17_a_petiole_policy_waits_for_the_first_report_and_follows_every_later_one() {
    let mut driver = Driver::new("round_robin");
    driver.check_health("svc");
    driver.resolve_and_connect([v4(1), v4(2)]);
    assert_eq!(driver.watched, [(v4(1), "svc".to_owned()), (v4(2), "svc".to_owned())]);
    assert_eq!(driver.pick(), Placed::Queued);
    driver.health(&v4(1), HealthSignal::Serving);
    driver.health(&v4(2), HealthSignal::NotServing);
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
    driver.health(&v4(2), HealthSignal::Serving);
    assert_eq!(driver.picks(4).len(), 2);
}

#[test]
fn a17_with_every_endpoint_unhealthy_calls_fail_with_the_reason() {
    let mut driver = Driver::new("round_robin");
    driver.check_health("svc");
    driver.resolve_and_connect([v4(1)]);
    driver.health(&v4(1), HealthSignal::NotServing);
    let Placed::Failed(status) = driver.pick() else { panic!("calls fail") };
    assert!(status.message.contains(r#""svc" is NOT_SERVING"#), "{status}");
    assert_eq!(driver.state(&v4(1)).unwrap().connection, Connectivity::Ready, "the connection itself is well");
}

#[test]
fn a17_pick_first_as_the_channels_policy_ignores_health() {
    let mut driver = Driver::new("pick_first");
    driver.check_health("svc");
    driver.resolve_and_connect([v4(1)]);
    assert_eq!(driver.pick(), Placed::On(v4(1)));
    driver.health(&v4(1), HealthSignal::NotServing);
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn a17_a_watch_that_ends_is_opened_again_after_a_backoff() {
    let mut driver = Driver::new("round_robin");
    driver.check_health("svc");
    driver.resolve_and_connect([v4(1)]);
    driver.health(&v4(1), HealthSignal::Serving);
    driver.health(&v4(1), HealthSignal::Ended(Status::new(Code::Ok, "")));
    assert!(matches!(driver.pick(), Placed::Failed(_)));
    driver.wait(millis(799));
    assert_eq!(driver.watched.len(), 1);
    driver.wait(millis(401));
    assert_eq!(driver.watched.len(), 2);
    driver.health(&v4(1), HealthSignal::Serving);
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn a17_a_server_without_a_health_service_is_healthy() {
    let mut driver = Driver::new("round_robin");
    driver.check_health("svc");
    driver.resolve_and_connect([v4(1)]);
    driver.health(&v4(1), HealthSignal::Ended(Status::new(Code::Unimplemented, "no such service")));
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn turning_checks_on_and_off_concerns_connections_that_exist() {
    let mut driver = Driver::new("round_robin");
    driver.resolve_and_connect([v4(1)]);
    assert_eq!(driver.watched, []);
    driver.check_health("svc");
    assert_eq!((driver.watched.len(), driver.pick()), (1, Placed::Queued));
    driver.balancer.set_health_check(driver.now, None);
    // An input of no consequence, so that the driver polls.
    driver.input(Input::ExitIdle);
    assert_eq!((driver.dialled.len(), driver.pick()), (1, Placed::On(v4(1))));
}
