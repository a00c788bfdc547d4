//! `failover` over time: two groups of servers, of which the first dies and returns.

use std::{ops::Range, time::Duration};

use evenkeel_balance::{Code, ServiceConfig};
use evenkeel_sim::{Scenario, Server, Trace, run};

const DEAD: Range<u64> = 20..50;

/// Servers 0 to 3 are the first group, which is dead for half a minute; 4 to 7 are the standby.
fn scenario(delay: &str, ramp: &str) -> Scenario {
    let config =
        format!(r#"{{"loadBalancingConfig":[{{"failover":{{"failbackDelay":"{delay}","failbackRamp":"{ramp}"}}}}]}}"#);
    let config: ServiceConfig = config.parse().expect("a good config");
    let server = Server::new(Duration::from_millis(50));
    let dead = Duration::from_secs(DEAD.start)..Duration::from_secs(DEAD.end);
    let servers =
        (0..8).map(|n| if n < 4 { server.clone().dead(dead.clone()) } else { server.clone().with_priority(1) });
    let mut scenario = Scenario::new(config.load_balancing.expect("it names a policy"), servers.collect());
    (scenario.rate, scenario.duration) = (200.0, Duration::from_secs(120));
    scenario
}

/// The part of calls that the standby gets in each of these seconds.
fn standby(trace: &Trace, seconds: Range<u64>) -> Vec<f64> {
    let picks = |servers: Range<usize>, second| {
        let (from, until) = (Duration::from_secs(second), Duration::from_secs(second + 1));
        servers.map(|server| trace.picks_between(server, from, until)).sum::<usize>()
    };
    #[allow(clippy::cast_precision_loss, reason = "the counts are small")]
    let share = |second| picks(4..8, second) as f64 / picks(0..8, second) as f64;
    seconds.map(share).collect()
}

#[test]
fn the_standby_takes_over_at_once_and_gives_back_step_by_step() {
    let trace = run(&scenario("5s", "20s")).expect("the config is good");
    assert!(standby(&trace, 1..DEAD.start).iter().all(|&share| share == 0.0));
    assert!(standby(&trace, DEAD.start + 1..DEAD.end).iter().all(|&share| share >= 1.0));

    // Their backoff has grown, so they are back at 50 s plus what is left of it.
    let after = standby(&trace, DEAD.end..120);
    let begins = after.iter().position(|&share| share < 1.0).expect("calls return");
    let whole = after.iter().position(|&share| share == 0.0).expect("all of them do");
    assert!(begins >= 5, "held back for the delay: {after:?}");
    assert!((15..=35).contains(&(whole - begins)), "over the ramp, or a little longer: {after:?}");
    assert!(after[whole + 1..].iter().all(|&share| share == 0.0), "{after:?}");
    let steps = after.windows(2).map(|pair| pair[0] - pair[1]);
    assert!(steps.into_iter().all(|step| step < 0.5), "no leap: {after:?}");

    let lost: Vec<_> = trace.failures().collect();
    let died = Duration::from_secs(DEAD.start) + Duration::from_micros(500);
    assert!(!lost.is_empty(), "some calls were running");
    for call in lost {
        assert_eq!(call.code, Code::Unavailable);
        assert_eq!(call.ended.since(evenkeel_balance::Time::ZERO), died, "only those: {call}");
    }
}

#[test]
fn calls_return_at_once_where_the_config_says_so() {
    let trace = run(&scenario("0s", "0s")).expect("the config is good");
    let after = standby(&trace, DEAD.end..120);
    let begins = after.iter().position(|&share| share < 1.0).expect("calls return");
    let whole = after.iter().position(|&share| share == 0.0).expect("all of them do");
    // They return as the servers do, each after its own backoff; at 3 of 4, all calls have.
    assert!(whole - begins <= 20 && after[whole..].iter().all(|&share| share == 0.0), "{after:?}");
}

#[test]
fn equal_scenarios_give_equal_traces() {
    let play = || run(&scenario("5s", "20s")).expect("the config is good").to_string();
    assert_eq!(play(), play());
}
