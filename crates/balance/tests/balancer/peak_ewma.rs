//! `peak_ewma`.

use evenkeel_balance::{Call, Code, Entropy, LbConfig, Outcome, Pick};
use proptest::{collection::vec, prelude::*};

use crate::{
    config::refused,
    driver::{Driver, millis, policies, secs, v4},
};

#[test]
fn calls_go_where_they_are_done_sooner() {
    let mut driver = connected(2, "");
    let counts = serve(&mut driver, 400, &[(Code::Ok, 10), (Code::Ok, 20)]);
    // The slower one is taken where both draws are of it.
    assert!((250..350).contains(&counts[0]), "{counts:?}");
}

#[test]
fn an_endpoint_that_fails_fast_does_not_attract_calls() {
    let mut driver = connected(4, "");
    let fast_failure = [(Code::Unavailable, 1), (Code::Ok, 50), (Code::Ok, 50), (Code::Ok, 50)];
    let counts = serve(&mut driver, 4_000, &fast_failure);
    assert!(counts[0] < 400, "one in sixteen draws: {counts:?}");
    let mut driver = connected(4, r#""failurePenalty":"0s""#);
    let counts = serve(&mut driver, 4_000, &fast_failure);
    assert!(counts[0] > 1_500, "without the penalty: {counts:?}");
}

#[test]
fn an_endpoint_that_was_slow_is_tried_again_when_the_peak_is_forgotten() {
    let mut driver = connected(2, r#""decay":"2s""#);
    serve(&mut driver, 40, &[(Code::Ok, 1_000), (Code::Ok, 10)]);
    let counts = serve(&mut driver, 200, &[(Code::Ok, 10); 2]);
    assert!(counts[0] < 80, "{counts:?}");
    driver.wait(secs(20));
    let counts = serve(&mut driver, 400, &[(Code::Ok, 10); 2]);
    assert!((100..300).contains(&counts[0]), "{counts:?}");
}

#[test]
fn an_endpoint_without_a_measurement_is_tried_by_one_call_at_a_time() {
    let mut driver = connected(1, "");
    serve(&mut driver, 10, &[(Code::Ok, 10)]);
    driver.resolve([v4(1), v4(2)]);
    driver.accept(&v4(2));
    let running: Vec<_> = (0..100).map(|_| driver.pick_raw()).collect();
    // Both draws are of it in a fourth of all cases.
    let new = driver.load(&v4(2)).in_flight();
    assert!(new > 0 && new < 45, "{new}");
    drop(running);
}

#[test]
fn what_it_has_learned_outlives_a_change_of_its_config() {
    let mut driver = connected(2, "");
    serve(&mut driver, 40, &[(Code::Ok, 900), (Code::Ok, 1)]);
    driver.configure(&config(r#""decay":"600s""#)).unwrap();
    driver.wait(secs(10));
    let counts = serve(&mut driver, 400, &[(Code::Ok, 1); 2]);
    assert!(counts[0] < 150, "{counts:?}");
    assert_eq!((driver.dialled.len(), driver.closed.len()), (2, 0));
}

#[test]
fn an_endpoint_that_returns_starts_slowly() {
    let mut driver = connected(2, r#""slowStart":{"window":"60s","minWeightPercent":10}"#);
    driver.wait(secs(100));
    serve(&mut driver, 50, &[(Code::Ok, 10); 2]);
    driver.lose(&v4(2));
    driver.accept(&v4(2));
    let mut running = Vec::new();
    let mut level = |driver: &mut Driver| {
        running.clear();
        running.extend((0..220).map(|_| driver.pick_raw()));
        driver.load(&v4(2)).in_flight()
    };
    let begun = level(&mut driver);
    driver.wait(secs(60));
    let over = level(&mut driver);
    assert!(begun < 70 && over > 90, "{begun}, later {over} of 220 calls at once");
}

#[test]
fn suspects_are_taken_only_where_there_is_nobody_else() {
    let mut driver = connected(4, "");
    for n in 1..=3 {
        driver.load(&v4(n)).suspect(true);
    }
    assert_eq!(serve(&mut driver, 100, &[(Code::Ok, 10); 4]), [0, 0, 0, 100]);
    driver.load(&v4(4)).suspect(true);
    assert_eq!(serve(&mut driver, 100, &[(Code::Ok, 10); 4]).iter().sum::<usize>(), 100);
}

#[test]
fn bad_configs_are_refused_with_their_path() {
    for (fields, path) in [
        (r#""decay":"0s""#, "decay"),
        (r#""decay":10"#, "decay"),
        (r#""failurePenalty":"-1s""#, "failurePenalty"),
        (r#""slowStart":{"window":"1s","aggression":-1}"#, "slowStart.aggression"),
    ] {
        assert_eq!(refused(&config(fields)).path(), format!("loadBalancingConfig[0].peak_ewma.{path}"));
    }
}

#[test]
fn the_explanation_gives_each_endpoints_latency() {
    let driver = connected(2, "");
    let Pick::Call(call) = driver.pick_with(0) else { panic!("all are ready") };
    call.finish(&Outcome::new(Code::Ok).after(millis(25)).at(driver.now));
    let explained = driver.balancer.explain().to_string();
    assert!(explained.contains("25.0 ms after its last call"), "{explained}");
    assert!(explained.contains("not measured yet"), "{explained}");
}

proptest! {
    #[test]
    fn it_takes_the_cheaper_of_its_draws(n in 1..6_u8, steps in vec((any::<bool>(), any::<u64>(), 0..2_000_u64, 0..500_u64), 1..80)) {
        let mut driver = connected(n, "");
        let mut model: Vec<Server> = vec![Server::default(); n.into()];
        let mut running: Vec<(usize, Call)> = Vec::new();
        for (ends, bits, wait, took) in steps {
            driver.wait(millis(wait));
            for server in &mut model {
                server.average = server.average.map(|average| average * (-millis(wait).as_secs_f64() / 10.0).exp());
            }
            if ends && !running.is_empty() {
                let (index, call) = running.remove(scaled(bits, running.len()));
                call.finish(&Outcome::new(Code::Ok).after(millis(took)).at(driver.now));
                model[index].end(took, driver.now.as_nanos());
            } else {
                let (one, other) = (scaled(bits, n.into()), scaled(Entropy::new(bits).next_u64(), n.into()));
                let expected = if model[other].cost() < model[one].cost() { other } else { one };
                let Pick::Call(call) = driver.pick_with(bits) else { panic!("all are ready") };
                prop_assert_eq!(call.subchannel().slot(), expected);
                model[expected].running += 1;
                running.push((expected, call));
            }
        }
    }
}

#[derive(Clone, Default)]
struct Server {
    running: u32,
    /// Seconds, as of now.
    average: Option<f64>,
    measured_at: u64,
}

impl Server {
    fn end(&mut self, took: u64, now: u64) {
        self.running -= 1;
        let took = millis(took).as_secs_f64();
        let idle = std::time::Duration::from_nanos(now - self.measured_at).as_secs_f64();
        let kept = (-idle / 10.0).exp();
        self.average = Some(match self.average {
            // `average` has decayed since; the peak is that of the last measurement.
            Some(average) if took <= average / kept => average + took * (1.0 - kept),
            _ => took,
        });
        self.measured_at = now;
    }

    fn cost(&self) -> f64 {
        match self.average {
            Some(average) => average.max(1e-9) * f64::from(self.running + 1),
            None if self.running == 0 => 0.0,
            None => 5.0 * f64::from(self.running + 1),
        }
    }
}

/// Makes calls one after the other that end as each server ends them, and counts them by server.
fn serve(driver: &mut Driver, calls: usize, servers: &[(Code, u64)]) -> Vec<usize> {
    let mut counts = vec![0; servers.len()];
    for _ in 0..calls {
        let Pick::Call(call) = driver.pick_raw() else { panic!("some are ready") };
        let server = call.subchannel().slot();
        counts[server] += 1;
        let (code, took) = servers[server];
        driver.wait(millis(1));
        call.finish(&Outcome::new(code).after(millis(took)).at(driver.now));
    }
    counts
}

fn scaled(bits: u64, n: usize) -> usize {
    usize::try_from((u128::from(bits) * n as u128) >> 64).expect("it is below n")
}

fn connected(n: u8, fields: &str) -> Driver {
    let mut driver = Driver::seeded(&config(fields), 1);
    driver.resolve_and_connect((1..=n).map(v4));
    driver
}

fn config(fields: &str) -> LbConfig {
    policies(&format!(r#"[{{"peak_ewma":{{{fields}}}}}]"#))
}
