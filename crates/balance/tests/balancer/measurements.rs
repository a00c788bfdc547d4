//! What is counted of connections: gRFC A94, and A78's older names for what the leaves of the policies see.

use evenkeel_balance::{Input, Loss, Status, Value};

use crate::driver::{Driver, secs, v4};

/// Each figure since the last call of this, as `name+count` or `name[label]+count`, sorted.
fn counted(driver: &mut Driver) -> Vec<String> {
    let all = std::mem::take(&mut driver.measurements).into_iter().map(|measurement| {
        let name = measurement.metric.trim_start_matches("grpc.");
        let labels: Vec<_> = measurement.labels.iter().map(|(_, value)| format!("[{value}]")).collect();
        match measurement.value {
            Value::Count(count) => format!("{name}{}+{count}", labels.concat()),
            Value::Change(change) => format!("{name}{change:+}"),
            other => panic!("{name} has {other:?}"),
        }
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[test]
fn a94_attempts_connections_and_their_ends_are_counted() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1), v4(2)]);
    assert_eq!(counted(&mut driver), [""; 0], "an attempt counts when it ends");
    driver.accept(&v4(1));
    driver.refuse(&v4(2));
    let expected = [
        "lb.pick_first.connection_attempts_failed+1",
        "lb.pick_first.connection_attempts_succeeded+1",
        "subchannel.connection_attempts_failed+1",
        "subchannel.connection_attempts_succeeded+1",
        "subchannel.open_connections+1",
    ];
    assert_eq!(counted(&mut driver), expected);

    let connection = driver.open[&v4(1)];
    driver.input(Input::Lost(connection, Status::unavailable("leaving"), Loss::GoAway(11)));
    // The connection breaks when its last call has ended; that says nothing new.
    driver.input(Input::Lost(connection, Status::unavailable("reset"), Loss::Reset));
    let expected = [
        "lb.pick_first.disconnections+1",
        "subchannel.disconnections[GOAWAY ENHANCE_YOUR_CALM]+1",
        "subchannel.open_connections-1",
    ];
    assert_eq!(counted(&mut driver), expected);
}

#[test]
fn a94_an_attempt_that_takes_too_long_has_failed_and_one_that_nobody_wants_any_more_has_not() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1), v4(2)]);
    driver.accept(&v4(2));
    counted(&mut driver);
    driver.resolve([v4(3)]);
    assert_eq!(
        counted(&mut driver),
        ["subchannel.disconnections[subchannel shutdown]+1", "subchannel.open_connections-1"],
        "of 10.0.0.2; the attempt at 10.0.0.1 is no failure"
    );
    driver.wait(secs(20));
    let failed = ["lb.pick_first.connection_attempts_failed+1", "subchannel.connection_attempts_failed+1"];
    assert_eq!(counted(&mut driver), failed);
}

#[test]
fn a94_a_shared_connection_is_counted_once() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    driver.accept(&v4(1));
    counted(&mut driver);
    // Another policy takes the connection over.
    driver.configure(&evenkeel_balance::LbConfig::of("random")).unwrap();
    assert_eq!(counted(&mut driver), [""; 0]);
    driver.balancer.shutdown(driver.now);
    driver.oversleep(secs(0));
    let expected = ["subchannel.disconnections[subchannel shutdown]+1", "subchannel.open_connections-1"];
    assert_eq!(counted(&mut driver), expected);
}
