//! Every standard policy against servers that are slow, die, flap and freeze.

use std::time::Duration;

use evenkeel_balance::{Code, HealthCheck, LbConfig, Time, UnknownService};
use evenkeel_sim::{ConnectionEvent, Scenario, Server, Trace, run};

const PETIOLES: [&str; 3] = ["round_robin", "random", "least_request"];
const POLICIES: [&str; 4] = ["pick_first", "round_robin", "random", "least_request"];

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    for policy in POLICIES {
        let flapping = server().flapping(secs(4), secs(5)..secs(20));
        let scenario = scenario(policy, vec![flapping, server().frozen(secs(8)..secs(9)), server().slow(3.0)]);
        let mut other = scenario.clone();
        other.seed = 2;
        assert_eq!(play(&scenario).to_string(), play(&scenario).to_string(), "{policy}");
        assert_ne!(play(&scenario).to_string(), play(&other).to_string(), "{policy}");
    }
}

#[test]
fn without_faults_no_call_fails_and_every_server_is_dialled_once() {
    for policy in PETIOLES {
        let trace = play(&scenario(policy, vec![server(); 3]));
        assert_eq!(trace.failures().count(), 0, "{policy}");
        for index in 0..3 {
            assert_eq!(dials(&trace, index), 1, "{policy}: server {index}");
            assert!(trace.picks(index) > 0, "{policy}: server {index}");
        }
    }
}

#[test]
fn a_slow_server_gets_less_only_where_the_policy_looks_at_load() {
    let picks = |policy| {
        let trace = play(&scenario(policy, vec![server(), server(), server().slow(20.0)]));
        assert_eq!(trace.failures().count(), 0, "{policy}");
        [0, 1, 2].map(|index| trace.picks_between(index, secs(1), Duration::MAX))
    };
    let [fast, also_fast, slow] = picks("least_request");
    assert!(slow * 2 < fast && slow * 2 < also_fast, "least_request: {fast} {also_fast} {slow}");

    let turns = picks("round_robin");
    assert!(turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 1, "round_robin: {turns:?}");

    let [fast, _, slow] = picks("random");
    assert!(slow * 5 > fast * 4, "random cannot tell: {fast} {slow}");

    let [first, rest @ ..] = picks("pick_first");
    assert!(first > 0 && rest == [0, 0], "pick_first: {first} {rest:?}");
}

#[test]
fn a_dead_server_gets_no_call_once_its_death_is_known_and_its_share_when_it_is_back() {
    for policy in PETIOLES {
        let mut scenario = scenario(policy, vec![busy(), busy().dead(secs(10)..secs(20)), busy()]);
        scenario.rate = 300.0;
        let trace = play(&scenario);
        let known = secs(10) + scenario.network_delay;
        assert!(trace.failures().count() > 0, "{policy}: some calls are lost");
        assert_eq!(trace.picks_between(1, known, secs(20)), 0, "{policy}");
        assert!(trace.failures().all(|call| was_running_at(call, known)), "{policy}: only running calls are lost");

        // Its fourth failure lies at most 1.2 × (1 + 1.6 + 2.56 + 4.096) s after its death, the next 7.9 s later.
        let (back, end) = (secs(30), secs(60));
        let [one, returned] = [0, 1].map(|index| trace.picks_between(index, back, end));
        assert!(returned * 10 > one * 8, "{policy}: {returned} of {one}");
        assert!(dials(&trace, 1) <= 7, "{policy}: {} dials", dials(&trace, 1));
    }
}

#[test]
fn pick_first_moves_on_when_its_server_dies() {
    let scenario = scenario("pick_first", vec![server().dead(secs(10)..secs(20)), server()]);
    let trace = play(&scenario);
    let known = secs(10) + scenario.network_delay;
    assert!(trace.failures().all(|call| was_running_at(call, known)));
    assert_eq!(trace.picks_between(0, known, secs(60)), 0, "the connection that works is kept");
    assert!(trace.picks_between(1, known, secs(60)) > 0);
}

#[test]
fn a_flapping_server_costs_only_the_calls_it_drops_and_is_not_stormed() {
    for policy in POLICIES {
        let (period, faults) = (secs(2), secs(10)..secs(50));
        let mut scenario = scenario(policy, vec![busy().flapping(period, faults.clone()), busy(), busy()]);
        scenario.rate = 300.0;
        let trace = play(&scenario);
        assert!(trace.failures().count() > 0, "{policy}: some calls are lost");
        let deaths: Vec<_> = (0..20).map(|i| faults.start + period * i + scenario.network_delay).collect();
        for call in trace.failures() {
            assert!(deaths.iter().any(|&death| was_running_at(call, death)), "{policy}: {call} could have been saved");
        }
        // Each of 20 deaths is worth one attempt at once, and one after each backoff of at least 0.8 s.
        assert!(dials(&trace, 0) <= 1 + 20 * 3, "{policy}: {} dials", dials(&trace, 0));
        assert!([1, 2].iter().all(|&index| dials(&trace, index) <= 21), "{policy}");
    }
}

#[test]
fn a_frozen_server_is_left_alone_until_it_thaws() {
    for policy in PETIOLES {
        let scenario = scenario(policy, vec![server(), server().frozen(secs(10)..secs(18)), server()]);
        let trace = play(&scenario);
        let stalled = only(&trace, ConnectionEvent::Stalled);
        let recovered = only(&trace, ConnectionEvent::Recovered);
        assert!(stalled < secs(11), "{policy}: noticed at {stalled:?}");
        assert!((secs(18)..secs(19)).contains(&recovered), "{policy}: thaw noticed at {recovered:?}");
        assert_eq!(trace.picks_between(1, stalled, recovered), 0, "{policy}");
        let beside = dials(&trace, 1) - 1;
        assert!((7..=9).contains(&beside), "{policy}: {beside} dials beside it in eight seconds");

        let [one, thawed] = [0, 1].map(|index| trace.picks_between(index, recovered, secs(60)));
        assert!(thawed * 10 > one * 8, "{policy}: {thawed} of {one}");
    }
}

#[test]
fn least_request_hangs_fewer_calls_on_a_frozen_server_than_round_robin() {
    let hung = |policy| {
        let trace = play(&scenario(policy, vec![server(), server().frozen(secs(10)..secs(18)), server()]));
        trace.failures().inspect(|call| assert_eq!(call.code, Code::DeadlineExceeded)).count()
    };
    let (least, turns) = (hung("least_request"), hung("round_robin"));
    assert!(least * 2 < turns, "least_request {least}, round_robin {turns}");
    assert!(least <= 10, "{least} calls hang");
}

#[test]
fn a_server_that_stays_frozen_is_given_up_and_dialled_again() {
    for policy in PETIOLES {
        let trace = play(&scenario(policy, vec![server(), server().frozen(secs(5)..secs(40))]));
        assert_eq!(trace.connection_events(1, ConnectionEvent::Lost).count(), 1, "{policy}");
        assert!(dials(&trace, 1) >= 2, "{policy}");
        assert!(trace.picks_between(1, secs(45), secs(60)) > 0, "{policy}: it serves again");
    }
}

#[test]
fn a_server_that_is_slow_and_answers_pings_is_not_taken_for_a_frozen_one() {
    for policy in PETIOLES {
        let mut scenario = scenario(policy, vec![server().slow(200.0)]);
        scenario.rate = 0.2;
        let trace = play(&scenario);
        assert_eq!((trace.failures().count(), dials(&trace, 0)), (0, 1), "{policy}");
        assert_eq!(trace.connection_events(0, ConnectionEvent::Stalled).count(), 0, "{policy}");
    }
}

#[test]
fn a_server_that_is_not_serving_gets_no_calls_and_loses_none() {
    for policy in PETIOLES {
        let mut scenario = scenario(policy, vec![server(), server().not_serving(secs(10)..secs(20))]);
        scenario.health_check = Some(HealthCheck { service: String::new(), unknown: UnknownService::IsUnhealthy });
        let trace = play(&scenario);
        let known = scenario.network_delay;
        assert_eq!(trace.failures().count(), 0, "{policy}");
        assert_eq!(trace.picks_between(1, secs(10) + known, secs(20) + known), 0, "{policy}");
        assert!(trace.picks_between(1, secs(21), secs(60)) > 0, "{policy}");
        assert_eq!(dials(&trace, 1), 1, "{policy}: the connection is kept");
    }
}

#[test]
fn with_every_server_dead_calls_fail_fast_and_recover() {
    for policy in POLICIES {
        let scenario = scenario(policy, vec![server().dead(secs(10)..secs(20)); 2]);
        let trace = play(&scenario);
        let during: Vec<_> = trace.failures().filter(|call| call.arrived > Time::ZERO + secs(11)).collect();
        assert!(!during.is_empty(), "{policy}");
        for call in during {
            assert_eq!((call.code, call.ended), (Code::Unavailable, call.arrived), "{policy}: {call}");
        }
        let late = trace.failures().filter(|call| call.arrived > Time::ZERO + secs(30)).count();
        assert_eq!(late, 0, "{policy}: all is well again");
    }
}

#[test]
fn a_config_that_its_policy_refuses_is_an_error() {
    assert!(run(&scenario("no_such_policy", vec![server()])).is_err());
}

fn scenario(policy: &str, servers: Vec<Server>) -> Scenario {
    Scenario::new(LbConfig::of(policy), servers)
}

/// Plays a scenario and checks what holds for all of them.
fn play(scenario: &Scenario) -> Trace {
    let trace = run(scenario).expect("the policy takes its config");
    assert!(trace.in_flight.iter().all(|&calls| calls == 0), "{:?} are still in flight", trace.in_flight);
    assert!(trace.calls.iter().all(|call| call.code != Code::Unknown), "every call has ended");
    trace
}

fn server() -> Server {
    Server::new(Duration::from_millis(10))
}

/// A server that, at 300 calls a second, nearly always has some running.
fn busy() -> Server {
    Server::new(Duration::from_millis(50))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn dials(trace: &Trace, server: usize) -> usize {
    trace.connection_events(server, ConnectionEvent::Dialled).count()
}

/// When the one such event of server 1 happened.
fn only(trace: &Trace, event: ConnectionEvent) -> Duration {
    let times: Vec<_> = trace.connection_events(1, event).collect();
    assert_eq!(times.len(), 1, "{event}: {times:?}");
    times[0].since(Time::ZERO)
}

fn was_running_at(call: &evenkeel_sim::CallRecord, moment: Duration) -> bool {
    let moment = Time::ZERO + moment;
    call.picked.is_some_and(|(at, _)| at <= moment) && call.ended == moment
}
