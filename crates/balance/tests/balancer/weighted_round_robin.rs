//! `weighted_round_robin` (gRFC A58, A78, A114).

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_balance::{Address, Code, Endpoint, Input, LbConfig, LoadReport, Outcome, Pick, Value};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, endpoint, millis, policies, secs, v4},
};

#[test]
fn a58_calls_follow_the_reported_weights_once_the_blackout_is_over() {
    let mut driver = connected(3, "");
    let capacity = [100.0, 200.0, 300.0];
    assert_eq!(shares(&mut driver, 600, &capacity), [200, 200, 200], "no weights yet");
    driver.wait(secs(9));
    assert_eq!(shares(&mut driver, 600, &capacity), [200, 200, 200], "the blackout is 10 s");
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 600, &capacity), &[100, 200, 300]);
}

#[test]
fn a58_without_a_blackout_weights_count_from_the_next_update() {
    let mut driver = connected(2, r#""blackoutPeriod":"0s","weightUpdatePeriod":"0.5s""#);
    shares(&mut driver, 2, &[100.0, 300.0]);
    driver.wait(millis(499));
    assert_eq!(shares(&mut driver, 400, &[100.0, 300.0]), [200, 200]);
    driver.wait(millis(1));
    assert_near(&shares(&mut driver, 400, &[100.0, 300.0]), &[100, 300]);
}

#[test]
fn a58_updates_come_at_most_every_100_ms() {
    let mut driver = connected(2, r#""weightUpdatePeriod":"0.001s""#);
    let before = driver.published.len();
    driver.wait(secs(1));
    assert_eq!(driver.published.len() - before, 10);
}

#[test]
fn a58_endpoints_without_a_weight_count_as_the_mean() {
    let mut driver = connected(3, r#""blackoutPeriod":"0s""#);
    shares(&mut driver, 3, &[100.0, 300.0, 0.0]);
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 600, &[100.0, 300.0, 0.0]), &[100, 300, 200]);
}

#[test]
fn a58_with_fewer_than_two_weights_it_is_round_robin() {
    let mut driver = connected(3, r#""blackoutPeriod":"0s""#);
    shares(&mut driver, 3, &[900.0, 0.0, 0.0]);
    driver.wait(secs(1));
    assert_eq!(shares(&mut driver, 600, &[900.0, 0.0, 0.0]), [200, 200, 200]);
}

#[test]
fn a58_weights_expire_and_the_blackout_begins_anew() {
    let mut driver = connected(2, r#""weightExpirationPeriod":"30s""#);
    let capacity = [100.0, 300.0];
    shares(&mut driver, 2, &capacity);
    driver.wait(secs(10));
    assert_near(&shares(&mut driver, 400, &capacity), &[100, 300]);
    driver.wait(secs(29));
    assert_near(&shares(&mut driver, 400, &[0.0; 2]), &[100, 300]);
    driver.wait(secs(1));
    assert_eq!(shares(&mut driver, 400, &capacity), [200, 200], "30 s without a report");
    driver.wait(secs(9));
    assert_eq!(shares(&mut driver, 400, &capacity), [200, 200], "blackout");
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 400, &capacity), &[100, 300]);
}

#[test]
fn a58_a_new_connection_begins_a_new_blackout() {
    let mut driver = connected(3, "");
    let capacity = [100.0, 200.0, 600.0];
    shares(&mut driver, 3, &capacity);
    driver.wait(secs(10));
    assert_near(&shares(&mut driver, 900, &capacity), &[100, 200, 600]);
    driver.lose(&v4(3));
    driver.accept(&v4(3));
    assert_near(&shares(&mut driver, 900, &capacity), &[200, 400, 300]);
    driver.wait(secs(10));
    assert_near(&shares(&mut driver, 900, &capacity), &[100, 200, 600]);
}

#[test]
fn a58_out_of_band_reports_are_asked_for_and_count_instead_of_those_with_responses() {
    let mut driver = connected(2, r#""blackoutPeriod":"0s","enableOobLoadReport":true,"oobReportingPeriod":"7s""#);
    assert_eq!(driver.load_watched, [(v4(1), secs(7)), (v4(2), secs(7))]);
    let Pick::Call(call) = driver.pick_raw() else { panic!("all are ready") };
    assert!(!call.wants_report());
    drop(call);
    shares(&mut driver, 20, &[900.0, 100.0]);
    for (n, qps) in [(1, 100.0), (2, 300.0)] {
        driver.input(Input::Load(driver.open[&v4(n)], report(qps)));
    }
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 400, &[900.0, 100.0]), &[100, 300]);
}

#[test]
fn a58_reports_out_of_band_begin_and_end_with_the_config() {
    let mut driver = connected(2, r#""blackoutPeriod":"0s""#);
    assert_eq!(driver.load_watched, []);
    driver.configure(&config(r#""blackoutPeriod":"0s","enableOobLoadReport":true"#)).unwrap();
    assert_eq!(driver.load_watched, [(v4(1), secs(10)), (v4(2), secs(10))]);
    driver.configure(&config(r#""blackoutPeriod":"0s""#)).unwrap();
    shares(&mut driver, 20, &[100.0, 300.0]);
    driver.input(Input::Load(driver.open[&v4(1)], report(9_000.0)));
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 400, &[100.0, 300.0]), &[100, 300]);
    assert_eq!((driver.dialled.len(), driver.closed.len()), (2, 0));
}

#[test]
fn a58_another_config_counts_for_the_weights_that_come_after_it() {
    let mut driver = connected(2, r#""blackoutPeriod":"0s","errorUtilizationPenalty":0"#);
    let failing = |driver: &mut Driver| {
        for _ in 0..2 {
            let Pick::Call(call) = driver.pick_raw() else { panic!("all are ready") };
            let mut load = report(100.0);
            load.eps = if call.subchannel().slot() == 0 { 100.0 } else { 0.0 };
            call.finish(&Outcome::new(Code::Ok).at(driver.now).reporting(Arc::new(load)));
        }
        driver.wait(secs(1));
    };
    failing(&mut driver);
    assert_near(&shares(&mut driver, 400, &[0.0; 2]), &[200, 200]);
    driver.configure(&config(r#""blackoutPeriod":"0s","errorUtilizationPenalty":2"#)).unwrap();
    failing(&mut driver);
    assert_near(&shares(&mut driver, 400, &[0.0; 2]), &[67, 333]);
}

#[test]
fn a114_named_metrics_are_the_utilization() {
    let mut driver =
        connected(2, r#""blackoutPeriod":"0s","metricNamesForComputingUtilization":["named_metrics.queue"]"#);
    for _ in 0..2 {
        let Pick::Call(call) = driver.pick_raw() else { panic!("all are ready") };
        assert!(call.wants_report());
        let mut load = report(100.0);
        let queue = if call.subchannel().slot() == 0 { 0.25 } else { 0.75 };
        load.named_metrics = BTreeMap::from([("queue".to_owned(), queue)]);
        call.finish(&Outcome::new(Code::Ok).at(driver.now).reporting(Arc::new(load)));
    }
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 400, &[0.0; 2]), &[300, 100]);
}

#[test]
fn a78_each_update_is_measured() {
    let mut driver = connected(3, r#""weightExpirationPeriod":"20s""#);
    let update = |driver: &mut Driver, wait| {
        driver.wait(wait);
        driver.measurements.clear();
        driver.wait(secs(1));
        let of =
            |name: &str| driver.measurements.iter().filter(|m| m.metric == name).map(|m| m.value).collect::<Vec<_>>();
        (
            of("grpc.lb.wrr.rr_fallback"),
            of("grpc.lb.wrr.endpoint_weight_not_yet_usable"),
            of("grpc.lb.wrr.endpoint_weight_stale"),
            of("grpc.lb.wrr.endpoint_weights"),
        )
    };
    let (one, three, zero) = (Value::Count(1), Value::Count(3), Value::Sample(0.0));
    assert_eq!(update(&mut driver, secs(0)), (vec![one], vec![three], vec![], vec![zero; 3]));
    shares(&mut driver, 3, &[100.0, 200.0, 0.0]);
    let weights = vec![Value::Sample(200.0), Value::Sample(400.0), zero];
    assert_eq!(update(&mut driver, secs(10)), (vec![], vec![one], vec![], weights));
    let stale = vec![Value::Count(2)];
    assert_eq!(update(&mut driver, secs(20)), (vec![one], vec![one], stale, vec![zero; 3]));
}

#[test]
fn without_reports_the_resolvers_weights_count() {
    let mut driver = Driver::seeded(&config(""), 1);
    let weighted = |n: u8| endpoint(v4(n)).weighted(u32::from(n));
    driver.input(Input::Resolved((1..=3).map(weighted).collect::<Vec<Endpoint>>().into()));
    (1..=3).for_each(|n| driver.accept(&v4(n)));
    assert_near(&shares(&mut driver, 600, &[0.0; 3]), &[100, 200, 300]);
    driver.input(Input::Resolved((1..=3).map(|n| endpoint(v4(n)).weighted(u32::from(4 - n))).collect()));
    assert_near(&shares(&mut driver, 600, &[0.0; 3]), &[300, 200, 100]);
}

#[test]
fn a_weight_counts_as_ten_times_the_mean_at_most_and_a_tenth_of_it_at_least() {
    let mut driver = connected(2, r#""blackoutPeriod":"0s""#);
    shares(&mut driver, 2, &[1e-9, 2.0]);
    driver.wait(secs(1));
    assert_near(&shares(&mut driver, 2_100, &[1e-9, 2.0]), &[100, 2_000]);
}

#[test]
fn an_endpoint_that_returns_starts_slowly() {
    let mut driver = connected(3, r#""slowStart":{"window":"100s","minWeightPercent":25}"#);
    assert_eq!(shares(&mut driver, 300, &[0.0; 3]), [100, 100, 100], "all are new");
    driver.wait(secs(200));
    driver.lose(&v4(3));
    driver.accept(&v4(3));
    assert_near(&shares(&mut driver, 900, &[0.0; 3]), &[400, 400, 100]);
    driver.wait(secs(50));
    assert_near(&shares(&mut driver, 1_000, &[0.0; 3]), &[400, 400, 200]);
    driver.wait(secs(50));
    assert_eq!(shares(&mut driver, 300, &[0.0; 3]), [100, 100, 100]);
}

#[test]
fn a_suspect_is_skipped_and_the_others_keep_their_shares() {
    let mut driver = Driver::seeded(&config(""), 1);
    driver.input(Input::Resolved((1..=3).map(|n| endpoint(v4(n)).weighted(u32::from(n))).collect()));
    (1..=3).for_each(|n| driver.accept(&v4(n)));
    driver.load(&v4(2)).suspect(true);
    assert_near(&shares(&mut driver, 400, &[0.0; 3]), &[100, 0, 300]);
    (1..=3).for_each(|n| driver.load(&v4(n)).suspect(true));
    let drawn = shares(&mut driver, 6_000, &[0.0; 3]);
    assert!(drawn.iter().zip([1_000, 2_000, 3_000]).all(|(n, expected)| n.abs_diff(expected) < 200), "{drawn:?}");
}

#[test]
fn bad_configs_are_refused_with_their_path() {
    for (fields, path) in [
        (r#""errorUtilizationPenalty":-0.1"#, "errorUtilizationPenalty"),
        (r#""blackoutPeriod":"-1s""#, "blackoutPeriod"),
        (r#""weightUpdatePeriod":1"#, "weightUpdatePeriod"),
        (r#""slowStart":{"window":"0s"}"#, "slowStart.window"),
        (r#""slowStart":{"window":"1s","aggression":0}"#, "slowStart.aggression"),
        (r#""slowStart":{"window":"1s","minWeightPercent":0}"#, "slowStart.minWeightPercent"),
        (r#""slowStart":{"window":"1s","minWeightPercent":101}"#, "slowStart.minWeightPercent"),
    ] {
        assert_eq!(refused(&config(fields)).path(), format!("loadBalancingConfig[0].weighted_round_robin.{path}"));
    }
    assert!(refused(&config(r#""slowStart":{}"#)).to_string().contains("window"));
}

#[test]
fn the_explanation_gives_each_endpoints_share_and_why() {
    let mut driver = connected(3, r#""blackoutPeriod":"0s""#);
    shares(&mut driver, 3, &[100.0, 300.0, 0.0]);
    driver.wait(secs(1));
    let expected = "weighted_round_robin READY\n  - 2 of 3 ready endpoints report usable weights: the reported weights \
                    count\n  - 10.0.0.1:50051: 16.7 % of calls; weight 200.0\n  - 10.0.0.2:50051: 50.0 % of calls; \
                    weight 600.0\n  - 10.0.0.3:50051: 33.3 % of calls; no usable weight yet";
    assert_eq!(driver.balancer.explain().to_string(), expected);
}

proptest! {
    #[test]
    fn a58_shares_are_those_of_its_formula(servers in vec((0.0..1e6_f64, 0.0..2.0_f64, 0.0..1e3_f64), 2..7), penalty in 0.0..3.0_f64) {
        let n = u8::try_from(servers.len()).expect("a few");
        let mut driver = connected(n, &format!(r#""blackoutPeriod":"0s","errorUtilizationPenalty":{penalty}"#));
        for _ in 0..n {
            let Pick::Call(call) = driver.pick_raw() else { panic!("all are ready") };
            let (qps, utilization, eps) = servers[call.subchannel().slot()];
            let mut load = report(qps);
            (load.application_utilization, load.eps) = (utilization, eps);
            call.finish(&Outcome::new(Code::Ok).at(driver.now).reporting(Arc::new(load)));
        }
        driver.wait(secs(1));
        let reported: Vec<f64> = servers.iter().map(|&(qps, utilization, eps)| {
            if qps > 0.0 && utilization > 0.0 { qps / (utilization + eps / qps * penalty) } else { 0.0 }
        }).collect();
        let usable: Vec<_> = reported.iter().filter(|&&weight| weight > 0.0).collect();
        let mean = usable.iter().copied().sum::<f64>() / f64::from(u8::try_from(usable.len()).expect("a few"));
        let weights: Vec<f64> = if usable.len() < 2 { vec![1.0; servers.len()] } else {
            reported.iter().map(|&weight| if weight > 0.0 { weight.clamp(mean / 10.0, mean * 10.0) } else { mean }).collect()
        };
        let sum: f64 = weights.iter().sum();
        for (count, weight) in shares(&mut driver, 5_000, &[]).into_iter().zip(weights) {
            let expected = 5_000.0 * weight / sum;
            prop_assert!((f64::from(count) - expected).abs() < 10.0 + expected * 0.02, "{count} for {expected}");
        }
    }
}

/// Makes `n` calls and counts them by endpoint. Each server reports so many calls a second at half its capacity.
fn shares(driver: &mut Driver, n: usize, qps: &[f64]) -> Vec<u32> {
    let mut counts = vec![0; driver.open.len()];
    for _ in 0..n {
        let Pick::Call(call) = driver.pick_raw() else { panic!("some are ready") };
        let server = call.subchannel().slot();
        counts[server] += 1;
        let mut outcome = Outcome::new(Code::Ok).at(driver.now);
        if let Some(&qps) = qps.get(server).filter(|&&qps| qps > 0.0) {
            outcome = outcome.reporting(Arc::new(report(qps)));
        }
        call.finish(&outcome);
    }
    counts
}

fn report(qps: f64) -> LoadReport {
    let mut report = LoadReport::default();
    (report.qps, report.application_utilization) = (qps, 0.5);
    report
}

/// Turns are spread evenly, so that counts are off by rounding alone.
fn assert_near(counts: &[u32], expected: &[u32]) {
    let near = counts.iter().zip(expected).all(|(count, expected)| count.abs_diff(*expected) <= 3);
    assert!(near && counts.len() == expected.len(), "{counts:?} for {expected:?}");
}

fn connected(n: u8, fields: &str) -> Driver {
    let mut driver = Driver::seeded(&config(fields), 1);
    driver.resolve_and_connect((1..=n).map(v4).collect::<Vec<Address>>());
    driver
}

fn config(fields: &str) -> LbConfig {
    policies(&format!(r#"[{{"weighted_round_robin":{{{fields}}}}}]"#))
}
