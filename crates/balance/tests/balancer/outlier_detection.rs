//! `outlier_detection` (gRFC A50, A61, A91) and what we add to it.

use std::collections::BTreeSet;

use evenkeel_balance::{Address, Code, Connectivity, Endpoint, Entropy, Input, LbConfig, Outcome, Pick, Value};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, Placed, policies, secs, v4, v6},
};

const FAILING: &str = r#""failurePercentageEjection":{"requestVolume":10,"threshold":50}"#;
const SUCCESS: &str = r#""successRateEjection":{"requestVolume":10,"stdevFactor":1000}"#;
const ALL: &str = r#""maxEjectionPercent":100"#;

#[test]
fn a50_the_documented_defaults() {
    let mut fleet = Fleet::new(r#""failurePercentageEjection":{}"#, 20);
    // 85 % of 50 calls is not more than 85 %; 45 failures are more, and of 49 calls none count.
    fleet.interval(&[(7, 43), (4, 45), (8, 42), (20, 30), (15, 35)]);
    assert_eq!(fleet.out(), [], "43 of 50 is 86 %, but only hosts with the volume count: four of the five");
    let five_good = [(50, 0); 5];
    fleet.interval(&[&[(8, 42), (7, 43)], &five_good[..]].concat());
    assert_eq!(fleet.out(), [v4(2)]);
    fleet.driver.wait(secs(29));
    assert_eq!(fleet.out(), [v4(2)]);
    fleet.driver.wait(secs(1));
    assert_eq!(fleet.out(), [], "30 s, to the next sweep");
}

#[test]
fn a50_bad_values_are_refused_with_their_path() {
    let cases = [
        (r#""interval":"-1s""#, "interval"),
        (r#""interval":10"#, "interval"),
        (r#""baseEjectionTime":"x""#, "baseEjectionTime"),
        (r#""maxEjectionTime":"1""#, "maxEjectionTime"),
        (r#""maxEjectionPercent":101"#, "maxEjectionPercent"),
        (r#""successRateEjection":{"enforcementPercentage":101}"#, "successRateEjection.enforcementPercentage"),
        (r#""successRateEjection":{"minimumGap":101}"#, "successRateEjection.minimumGap"),
        (r#""failurePercentageEjection":{"threshold":101}"#, "failurePercentageEjection.threshold"),
        (
            r#""failurePercentageEjection":{"enforcementPercentage":101}"#,
            "failurePercentageEjection.enforcementPercentage",
        ),
        (r#""smallFleetEjection":{"minimumGap":0}"#, "smallFleetEjection.minimumGap"),
        (r#""smallFleetEjection":{"enforcementPercentage":200}"#, "smallFleetEjection.enforcementPercentage"),
    ];
    for (fields, path) in cases {
        assert_eq!(
            refused(&config(fields)).path(),
            format!("loadBalancingConfig[0].outlier_detection_experimental.{path}")
        );
    }
    let childless = refused(&policies(r#"[{"outlier_detection":{}}]"#));
    assert!(childless.to_string().contains("childPolicy"), "{childless}");
    let bad_child = policies(r#"[{"outlier_detection":{"childPolicy":[{"least_request":{"choiceCount":1}}]}}]"#);
    let at = "loadBalancingConfig[0].outlier_detection.childPolicy[0].least_request.choiceCount";
    assert_eq!(refused(&bad_child).path(), at);
}

#[test]
fn a50_success_rate_ejects_hosts_far_below_the_mean() {
    let mut fleet = Fleet::new(&format!("{SUCCESS},{ALL}"), 5);
    // The mean is 0.88, the deviation 0.194: required is 0.686.
    fleet.interval(&[(100, 0), (100, 0), (49, 51), (100, 0), (91, 9)]);
    assert_eq!(fleet.out(), [v4(3)]);
    let reason = fleet.driver.state(&v4(3)).unwrap().reason;
    assert_eq!(
        reason,
        "ejected until 40.000000000s as an outlier: 49.0 % of 100 calls succeeded; the mean is 88.0 %, the least accepted \
         68.2 %"
    );
}

#[test]
fn a50_success_rate_needs_hosts_and_volume() {
    let mut fleet = Fleet::new(&format!("{SUCCESS},{ALL}"), 5);
    fleet.interval(&[(9, 0), (10, 0), (0, 10), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [], "four hosts have the volume");
    fleet.interval(&[(10, 0), (10, 0), (0, 10), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [v4(3)]);
}

#[test]
fn a50_calls_of_earlier_intervals_do_not_count() {
    let mut fleet = Fleet::new(&format!("{SUCCESS},{ALL}"), 5);
    fleet.interval(&[(9, 0), (9, 0), (0, 9), (9, 0), (9, 0)]);
    fleet.interval(&[(9, 0), (9, 0), (0, 9), (9, 0), (9, 0)]);
    assert_eq!(fleet.out(), []);
}

#[test]
fn a50_failure_percentage_must_exceed_the_threshold() {
    let mut fleet = Fleet::new(&format!("{FAILING},{ALL}"), 5);
    fleet.interval(&[(5, 5), (4, 6), (10, 0), (0, 9), (10, 0)]);
    assert_eq!(fleet.out(), [], "four hosts have the volume");
    fleet.interval(&[(5, 5), (4, 6), (10, 0), (0, 10), (10, 0)]);
    assert_eq!(fleet.out(), [v4(2), v4(4)]);
}

#[test]
fn a50_max_ejection_percent_is_asked_first_so_that_one_can_always_go() {
    let bad = [(0, 10), (1, 9), (10, 0), (10, 0), (2, 8)];
    for (percent, out) in [(0, &[][..]), (1, &[v4(1)]), (20, &[v4(1)]), (21, &[v4(1), v4(2)])] {
        let mut fleet = Fleet::new(&format!(r#"{FAILING},"maxEjectionPercent":{percent}"#), 5);
        fleet.interval(&bad);
        assert_eq!(fleet.out(), out, "{percent} %: the worst go");
        assert_eq!(fleet.measured("unenforced", "max_ejection_overflow"), 3 - out.len() as u64);
    }
}

#[test]
fn a50_enforcement_is_a_chance_and_a91_counts_what_came_of_it() {
    let bad = [(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)];
    let ejections = (0..200).filter(|&seed| {
        let rule = r#""failurePercentageEjection":{"requestVolume":10,"threshold":50,"enforcementPercentage":30}"#;
        let mut fleet = Fleet::seeded(rule, 5, seed);
        fleet.interval(&bad);
        let ejected = !fleet.out().is_empty();
        assert_eq!(fleet.measured("unenforced", "enforcement_percentage"), u64::from(!ejected));
        assert_eq!(fleet.measured("enforced", "failure_percentage"), u64::from(ejected));
        ejected
    });
    let ejections = ejections.count();
    assert!((35..=85).contains(&ejections), "{ejections} of 200");
}

#[test]
fn a50_ejections_grow_longer_up_to_the_maximum_and_good_intervals_shorten_the_next() {
    let fields = format!(r#"{FAILING},"baseEjectionTime":"20s","maxEjectionTime":"50s""#);
    let mut fleet = Fleet::new(&fields, 5);
    let (good, bad) = ([(10, 0); 5], [(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    for expected in [20, 40, 50, 50] {
        fleet.interval(&bad);
        assert_eq!(fleet.time_out(&v4(1)), expected);
    }
    // Four ejections, and the sweeps that ended them do not count as good.
    for _ in 0..3 {
        fleet.interval(&good);
    }
    fleet.interval(&bad);
    assert_eq!(fleet.time_out(&v4(1)), 40);
}

#[test]
fn a50_max_ejection_time_is_at_least_the_base() {
    let mut fleet = Fleet::new(&format!(r#"{FAILING},"baseEjectionTime":"40s","maxEjectionTime":"0s""#), 5);
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    assert_eq!(fleet.time_out(&v4(1)), 40);
}

#[test]
fn a50_an_ejected_host_whose_running_calls_fail_is_ejected_anew() {
    let mut fleet = Fleet::new(&format!("{FAILING},{ALL}"), 5);
    let running: Vec<_> = (0..50).map(|_| fleet.driver.pick_raw()).collect();
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [v4(1)]);
    for pick in running {
        let Pick::Call(call) = pick else { panic!("all are ready") };
        let code = if call.subchannel().slot() == 0 { Code::Unavailable } else { Code::Ok };
        call.finish(&Outcome::new(code));
    }
    fleet.driver.wait(secs(10));
    assert!(fleet.driver.state(&v4(1)).unwrap().reason.starts_with("ejected until 80.000000000s"));
    assert_eq!(fleet.time_out(&v4(1)), 60, "one return ends both");
}

#[test]
fn a50_a_config_without_rules_lets_all_return_and_forgets() {
    let mut fleet = Fleet::new(FAILING, 5);
    let bad = [(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)];
    fleet.interval(&bad);
    assert_eq!(fleet.out(), [v4(1)]);
    fleet.driver.configure(&config(r#""interval":"10s""#)).unwrap();
    assert_eq!((fleet.out(), fleet.driver.balancer.next_timeout()), (vec![], None));
    fleet.serve(&bad);
    fleet.driver.configure(&config(FAILING)).unwrap();
    fleet.interval(&[(10, 0); 5]);
    assert_eq!(fleet.out(), [], "what happened in the meantime does not count");
    fleet.interval(&bad);
    assert_eq!(fleet.time_out(&v4(1)), 30, "the multiplier began anew");
}

#[test]
fn a50_another_interval_counts_from_the_last_sweep() {
    let mut fleet = Fleet::new(FAILING, 5);
    fleet.driver.wait(secs(14));
    for (interval, next) in [(5, 15), (60, 70), (2, 14)] {
        fleet.driver.configure(&config(&format!(r#"{FAILING},"interval":"{interval}s""#))).unwrap();
        let sweep = fleet.driver.balancer.next_timeout().unwrap();
        assert_eq!(sweep.as_nanos(), next * 1_000_000_000, "interval {interval} s");
    }
}

#[test]
fn a50_an_interval_of_nothing_does_not_spin() {
    let mut fleet = Fleet::new(&format!(r#"{FAILING},"interval":"0s""#), 5);
    fleet.driver.wait(secs(1));
    assert!(fleet.driver.balancer.next_timeout() > Some(fleet.driver.now));
}

#[test]
fn a61_the_addresses_of_an_endpoint_count_and_go_together() {
    let mut driver = Driver::seeded(&config(FAILING), 1);
    let both = Endpoint::with_addresses([v4(1), v6(1)]).unwrap();
    let single = |n| Endpoint::with_addresses([v4(n)]).unwrap();
    let endpoints = [vec![both], (2..=5).map(single).collect()].concat();
    driver.input(Input::Resolved(endpoints.into()));
    while let Some(address) = driver.dialling.keys().next().cloned() {
        driver.accept(&address);
    }
    let mut fleet = Fleet { driver };
    let fail_on_first = |fleet: &mut Fleet, calls: usize| {
        for _ in 0..calls {
            let Pick::Call(call) = fleet.driver.pick_raw() else { panic!("some are ready") };
            let is_first = [v4(1), v6(1)].contains(&fleet.driver.address_of(&call));
            call.finish(&Outcome::new(if is_first { Code::Internal } else { Code::Ok }));
        }
    };
    fail_on_first(&mut fleet, 25);
    fleet.driver.lose(&v4(1));
    fleet.driver.refuse(&v4(1));
    fleet.driver.accept(&v6(1));
    fail_on_first(&mut fleet, 25);
    fleet.driver.wait(secs(10));
    assert_eq!(fleet.driver.picks(40).len(), 4, "5 failures over each address");
    fleet.driver.lose(&v6(1));
    fleet.driver.accept(&v4(1));
    assert_eq!(fleet.driver.picks(40).len(), 4, "out over either address");
    fleet.driver.wait(secs(30));
    assert_eq!(fleet.driver.picks(40).len(), 5);
}

#[test]
fn ejections_end_with_the_endpoint() {
    let mut fleet = Fleet::new(FAILING, 5);
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [v4(1)]);
    fleet.driver.resolve((2..=6).map(v4));
    fleet.driver.resolve((1..=5).map(v4));
    fleet.driver.accept(&v4(1));
    assert_eq!((fleet.out(), fleet.driver.picks(20).len()), (vec![], 5), "it came back as another");
}

#[test]
fn ejections_end_with_the_policy() {
    let mut fleet = Fleet::new(FAILING, 5);
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [v4(1)]);
    fleet.driver.configure(&LbConfig::of("round_robin")).unwrap();
    assert_eq!((fleet.out(), fleet.driver.picks(10).len()), (vec![], 5));
    fleet.driver.configure(&config(FAILING)).unwrap();
    fleet.driver.balancer.shutdown(fleet.driver.now);
    assert_eq!(fleet.driver.balancer.next_timeout(), None);
}

#[test]
fn the_connection_of_an_ejected_host_stays_and_its_running_calls_go_on() {
    let mut fleet = Fleet::new(FAILING, 5);
    let running: Vec<_> = (0..5).map(|_| fleet.driver.pick_raw()).collect();
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    assert_eq!((fleet.driver.dialled.len(), fleet.driver.closed.len()), (5, 0));
    assert_eq!(fleet.driver.load(&v4(1)).in_flight(), 1);
    drop(running);
    fleet.driver.lose(&v4(1));
    fleet.driver.accept(&v4(1));
    assert_eq!(fleet.out(), [v4(1)], "a new connection does not end an ejection");
}

#[test]
fn with_every_host_ejected_calls_fail_with_the_reason() {
    let mut fleet = Fleet::new(&format!("{FAILING},{ALL}"), 5);
    fleet.interval(&[(0, 10); 5]);
    let Placed::Failed(status) = fleet.driver.pick() else { panic!("all are out") };
    assert!(status.message.contains("0.0 % of 10 calls succeeded; more than 50 % fail"), "{status}");
}

#[test]
fn the_explanation_names_who_is_out_and_why() {
    let mut fleet = Fleet::new(FAILING, 5);
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)]);
    let expected = "outlier_detection READY\n  - 1 of 5 endpoints are ejected; the most is 10 %\n  - 10.0.0.1:50051: ejected \
                    until 40.000000000s as an outlier: 0.0 % of 10 calls succeeded; more than 50 % fail\n  childPolicy: \
                    round_robin READY";
    assert_eq!(fleet.driver.balancer.explain().to_string(), expected);
    let notes: Vec<_> = fleet.driver.decisions.iter().map(ToString::to_string).collect();
    assert!(
        notes.iter().any(|note| note.starts_with("outlier detection: 10.0.0.1:50051 is ejected until")),
        "{notes:?}"
    );
    fleet.driver.wait(secs(30));
    let notes = fleet.driver.decisions.iter().map(ToString::to_string);
    assert!(notes.into_iter().any(|note| note == "outlier detection: 10.0.0.1:50051 returns"));
}

#[test]
fn small_fleets_eject_the_one_that_is_far_behind_the_others() {
    let small = r#""smallFleetEjection":{"requestVolume":10}"#;
    let cases: [(&[Calls], &[Address]); 7] = [
        (&[(7, 3), (10, 0)], &[v4(1)]),
        (&[(8, 2), (10, 0)], &[]),
        (&[(0, 10), (0, 10)], &[]),
        (&[(0, 10), (9, 0)], &[]),
        (&[(10, 0), (10, 0), (5, 5)], &[v4(3)]),
        (&[(0, 10), (10, 0), (1, 9), (10, 0)], &[v4(1)]),
        (&[(0, 10), (10, 0), (10, 0), (10, 0), (10, 0)], &[]),
    ];
    for (calls, out) in cases {
        let mut fleet = Fleet::new(small, calls.len());
        fleet.interval(calls);
        assert_eq!(fleet.out(), out, "{calls:?}");
    }
}

#[test]
fn a_success_rate_cannot_be_1_9_deviations_off_in_a_fleet_of_four() {
    let lenient = r#""successRateEjection":{"requestVolume":10,"minimumHosts":1}"#;
    let mut fleet = Fleet::new(&format!("{lenient},{ALL}"), 4);
    fleet.interval(&[(0, 10), (10, 0), (10, 0), (10, 0)]);
    assert_eq!(fleet.out(), [], "why small fleets have a rule of their own");
}

/// 20 hosts that all fail one call in a hundred, over 60 sweeps: who is flagged is flagged by chance.
#[test]
fn a_minimum_gap_ends_the_ejection_of_healthy_hosts() {
    let flagged = |gap: u32| {
        let rule = format!(r#""successRateEjection":{{"enforcementPercentage":0,"minimumGap":{gap}}}"#);
        let mut fleet = Fleet::new(&rule, 20);
        let mut luck = Entropy::new(7);
        for _ in 0..60 {
            for _ in 0..20 * 150 {
                let Pick::Call(call) = fleet.driver.pick_raw() else { panic!("all are ready") };
                call.finish(&Outcome::new(if luck.below(100) == 0 { Code::Unavailable } else { Code::Ok }));
            }
            fleet.driver.wait(secs(10));
        }
        fleet.measured("unenforced", "enforcement_percentage")
    };
    let (by_the_book, guarded) = (flagged(0), flagged(5));
    assert!(by_the_book >= 24, "{by_the_book} of 1200 are flagged: 2 % and more");
    assert_eq!(guarded, 0);
}

#[test]
fn a_minimum_gap_still_ejects_hosts_that_are_ill() {
    let rule = r#""successRateEjection":{"minimumGap":5}"#;
    let mut fleet = Fleet::new(rule, 10);
    let calls = [&[(60, 40)], &[(99, 1); 9][..]].concat();
    fleet.interval(&calls);
    assert_eq!(fleet.out(), [v4(1)]);
}

proptest! {
    #[test]
    fn a50_agrees_with_its_text(
        intervals in vec(vec((0..15_u32, 0..15_u32), 6), 1..12),
        percent in 0..101_u32,
        factor in 0..2_500_u32,
        threshold in 0..101_u32,
        rules in 1..4_u8,
    ) {
        let success = format!(r#","successRateEjection":{{"requestVolume":10,"minimumHosts":4,"stdevFactor":{factor}}}"#);
        let failure = format!(r#","failurePercentageEjection":{{"requestVolume":8,"minimumHosts":3,"threshold":{threshold}}}"#);
        let fields = format!(
            r#""maxEjectionPercent":{percent},"maxEjectionTime":"70s"{}{}"#,
            if rules & 1 > 0 { &success } else { "" },
            if rules & 2 > 0 { &failure } else { "" },
        );
        let mut fleet = Fleet::new(&fields, 6);
        let mut model = Model { hosts: [ModelHost::default(); 6], now: 0 };
        for calls in intervals {
            let served = fleet.interval(&calls);
            model.sweep(&served, percent, (rules & 1 > 0).then_some(factor), (rules & 2 > 0).then_some(threshold));
            prop_assert_eq!(fleet.out(), model.out());
        }
    }
}

/// A50's text, a line at a time, over six hosts.
struct Model {
    hosts: [ModelHost; 6],
    now: u64,
}

#[derive(Clone, Copy, Default)]
struct ModelHost {
    ejected_at: Option<u64>,
    multiplier: u64,
}

impl Model {
    fn sweep(&mut self, calls: &[(u32, u32)], percent: u32, factor: Option<u32>, threshold: Option<u32>) {
        self.now += 10;
        let rate = |(ok, failed): (u32, u32)| f64::from(ok) / f64::from(ok + failed);
        let with_volume = |volume| (0..6).filter(|&i| calls[i].0 + calls[i].1 >= volume).collect::<Vec<_>>();
        if let (Some(factor), judged) = (factor, with_volume(10))
            && judged.len() >= 4
        {
            let n = f64::from(u32::try_from(judged.len()).expect("six at most"));
            let mean = judged.iter().map(|&i| rate(calls[i])).sum::<f64>() / n;
            let variance = judged.iter().map(|&i| (rate(calls[i]) - mean).powi(2)).sum::<f64>() / n;
            let required = mean - variance.sqrt() * (f64::from(factor) / 1000.0);
            self.eject(judged.into_iter().filter(|&i| rate(calls[i]) < required), calls, percent);
        }
        if let (Some(threshold), judged) = (threshold, with_volume(8))
            && judged.len() >= 3
        {
            let failing = |&i: &usize| calls[i].1 * 100 > threshold * (calls[i].0 + calls[i].1);
            self.eject(judged.into_iter().filter(failing), calls, percent);
        }
        for host in &mut self.hosts {
            match host.ejected_at {
                None => host.multiplier = host.multiplier.saturating_sub(1),
                Some(at) if self.now >= at + (30 * host.multiplier).min(70) => host.ejected_at = None,
                Some(_) => {}
            }
        }
    }

    fn eject(&mut self, outliers: impl Iterator<Item = usize>, calls: &[(u32, u32)], percent: u32) {
        let mut outliers: Vec<_> = outliers.collect();
        outliers
            .sort_by(|&a, &b| (calls[a].0 * (calls[b].0 + calls[b].1)).cmp(&(calls[b].0 * (calls[a].0 + calls[a].1))));
        for i in outliers {
            let ejected = self.hosts.iter().filter(|host| host.ejected_at.is_some()).count();
            if ejected * 100 < 6 * percent as usize {
                self.hosts[i] = ModelHost { ejected_at: Some(self.now), multiplier: self.hosts[i].multiplier + 1 };
            }
        }
    }

    fn out(&self) -> Vec<Address> {
        let numbered = (1..).zip(&self.hosts);
        numbered.filter(|(_, host)| host.ejected_at.is_some()).map(|(n, _)| v4(n)).collect()
    }
}

/// How many succeed, and how many fail.
type Calls = (u32, u32);

/// Hosts 10.0.0.1 and so on under `outlier_detection` over `round_robin`.
struct Fleet {
    driver: Driver,
}

impl Fleet {
    fn new(fields: &str, hosts: usize) -> Self {
        Self::seeded(fields, hosts, 1)
    }

    fn seeded(fields: &str, hosts: usize, seed: u64) -> Self {
        let mut driver = Driver::seeded(&config(fields), seed);
        driver.resolve_and_connect((1..).take(hosts).map(v4));
        Self { driver }
    }

    /// Makes so many calls to each host that succeed and that fail; none to hosts that are out. Says what was made.
    fn serve(&mut self, calls: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut left = calls.to_vec();
        let rounds: u32 = calls.iter().map(|(ok, failed)| ok + failed).max().unwrap_or(0);
        for _ in 0..rounds as usize * self.driver.open.len() {
            let Pick::Call(call) = self.driver.pick_raw() else { break };
            // Addresses got their slots in the order of the list.
            match left.get_mut(call.subchannel().slot()) {
                Some((ok @ 1.., _)) => {
                    *ok -= 1;
                    call.finish(&Outcome::new(Code::Ok));
                }
                Some((_, failed @ 1..)) => {
                    *failed -= 1;
                    call.finish(&Outcome::new(Code::Unavailable));
                }
                _ => call.withdraw(),
            }
        }
        calls.iter().zip(left).map(|(made, left)| (made.0 - left.0, made.1 - left.1)).collect()
    }

    /// As [`serve`](Self::serve), and then comes the sweep.
    fn interval(&mut self, calls: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let made = self.serve(calls);
        self.driver.wait(secs(10));
        made
    }

    fn out(&self) -> Vec<Address> {
        let reports = self.driver.balancer.subchannels();
        let out = reports.into_iter().filter(|report| {
            report.state.connection == Connectivity::Ready && report.state.service != Connectivity::Ready
        });
        out.map(|report| report.address).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Waits until the host is back, and says for how many seconds that took.
    fn time_out(&mut self, address: &Address) -> u64 {
        let mut waited = 0;
        while self.out().contains(address) {
            self.driver.wait(secs(10));
            waited += 10;
        }
        waited
    }

    /// How often a metric counted something with this label.
    fn measured(&self, metric: &str, label: &str) -> u64 {
        let name = format!("grpc.lb.outlier_detection.ejections_{metric}");
        let counts = self.driver.measurements.iter().filter(|measurement| {
            measurement.metric == name && measurement.labels.iter().any(|(_, value)| value == label)
        });
        counts.map(|measurement| if let Value::Count(n) = measurement.value { n } else { 0 }).sum()
    }
}

fn config(fields: &str) -> LbConfig {
    policies(&format!(r#"[{{"outlier_detection_experimental":{{{fields},"childPolicy":[{{"round_robin":{{}}}}]}}}}]"#))
}
