//! Active checks of endpoints, and how calls combine with them.

use std::time::Duration;

use evenkeel_balance::{
    CheckFailure, CheckNews, CheckOutcome, CheckSettings, CheckVerdict, Connectivity, FailureKind, Initial, Input,
    LbConfig, Time, What,
};

use crate::driver::{Driver, Placed, millis, secs, v4};

fn settings() -> CheckSettings {
    let mut settings = CheckSettings::default();
    settings.jitter = 0.0;
    settings
}

fn timed_out() -> CheckOutcome {
    CheckOutcome::Failed(CheckFailure::new(FailureKind::TimedOut, "no answer within 500 ms"))
}

/// Two connected endpoints, both answered their first probe.
fn two() -> Driver {
    let mut driver = Driver::new("round_robin");
    driver.check_actively(settings());
    driver.resolve_and_connect([v4(1), v4(2)]);
    driver.wait(Duration::ZERO);
    for n in [1, 2] {
        driver.answer(&v4(n), CheckOutcome::Serving);
    }
    driver
}

/// Lets the next probe of `n` start, and ends it so; those of others are answered.
fn probe(driver: &mut Driver, n: u8, outcome: &CheckOutcome) {
    for _ in 0..8 {
        driver.wait(millis(250));
        let probed: Vec<_> = driver.probes.keys().cloned().collect();
        for address in &probed {
            let outcome = if *address == v4(n) { outcome.clone() } else { CheckOutcome::Serving };
            driver.answer(address, outcome);
        }
        if probed.contains(&v4(n)) {
            return;
        }
    }
    panic!("{n} was not probed");
}

#[test]
fn a_connected_endpoint_waits_for_its_first_probe() {
    let mut driver = Driver::new("round_robin");
    driver.check_actively(settings());
    driver.resolve_and_connect([v4(1)]);
    driver.wait(Duration::ZERO);
    assert_eq!(driver.pick(), Placed::Queued);
    assert_eq!(driver.state(&v4(1)).unwrap().connection, Connectivity::Ready);
    driver.answer(&v4(1), CheckOutcome::Serving);
    assert_eq!(driver.pick(), Placed::On(v4(1)));
}

#[test]
fn an_endpoint_whose_probes_fail_is_out_by_fall_and_back_by_rise() {
    let mut driver = two();
    assert_eq!(driver.picks(4).len(), 2);
    probe(&mut driver, 2, &timed_out());
    probe(&mut driver, 2, &CheckOutcome::Serving);
    probe(&mut driver, 2, &timed_out());
    assert_eq!(driver.state(&v4(2)).unwrap().service, Connectivity::Ready, "one failure is none");
    probe(&mut driver, 2, &timed_out());
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
    let state = driver.state(&v4(2)).unwrap();
    assert_eq!((state.connection, state.service), (Connectivity::Ready, Connectivity::TransientFailure));
    assert_eq!(state.reason, "check: 2 probes in a row failed, the last one: no answer within 500 ms");
    assert_eq!(state.since, driver.now);
    probe(&mut driver, 2, &CheckOutcome::Serving);
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
    probe(&mut driver, 2, &CheckOutcome::Serving);
    assert_eq!(driver.picks(4).len(), 2);
    let history = driver.balancer.check_history(&v4(2)).unwrap();
    let verdicts: Vec<_> = history.iter().map(|transition| transition.to).collect();
    assert_eq!(verdicts, [CheckVerdict::Healthy, CheckVerdict::Unhealthy, CheckVerdict::Healthy]);
}

#[test]
fn calls_that_succeed_overrule_probes_that_fail_and_not_serving_overrules_both() {
    let mut driver = two();
    for _ in 0..3 {
        driver.picks(4);
        probe(&mut driver, 2, &timed_out());
    }
    assert_eq!(driver.picks(4).len(), 2, "disputed, and in use");
    let disputed = driver.decisions.iter().any(
        |decision| matches!(&decision.what, What::Check { address, transition } if *address == v4(2) && transition.to == CheckVerdict::Disputed),
    );
    assert!(disputed, "{:?}", driver.decisions);
    driver.picks(4);
    probe(&mut driver, 2, &CheckOutcome::NotServing);
    assert_eq!(driver.picks(4), [(v4(1), 4)].into());
    assert_eq!(driver.state(&v4(2)).unwrap().reason, "check: the server reports NOT_SERVING");
}

#[test]
fn probes_go_on_while_nothing_is_connected_and_decide_before_the_first_call() {
    let mut driver = Driver::new("round_robin");
    driver.check_actively(settings());
    driver.resolve([v4(1)]);
    driver.wait(Duration::ZERO);
    driver.answer(&v4(1), CheckOutcome::NotServing);
    driver.accept(&v4(1));
    assert!(matches!(driver.pick(), Placed::Failed(status) if status.message.contains("NOT_SERVING")));
}

#[test]
fn an_endpoint_that_is_removed_is_probed_no_more_and_a_late_answer_is_ignored() {
    let mut driver = two();
    driver.wait(secs(1));
    let (id, _) = driver.probes[&v4(2)];
    driver.resolve([v4(1)]);
    assert_eq!(driver.probes.keys().collect::<Vec<_>>(), [&v4(1)]);
    driver.input(Input::Checked(id, CheckNews::Ended(timed_out())));
    assert!(driver.balancer.check_history(&v4(2)).is_none());
}

#[test]
fn new_settings_check_anew_and_none_end_the_checks() {
    let mut driver = two();
    let mut changed = settings();
    changed.initial = Initial::Healthy;
    driver.check_actively(changed);
    assert_eq!(driver.picks(2).len(), 2);
    driver.wait(Duration::ZERO);
    assert_eq!(driver.probes.len(), 2);
    driver.balancer.set_checks(driver.now, None).unwrap();
    driver.input(Input::ExitIdle);
    driver.wait(secs(5));
    assert_eq!((driver.probes.len(), driver.picks(2).len()), (0, 2));
}

#[test]
fn bad_settings_are_refused_and_change_nothing() {
    let mut driver = two();
    let mut bad = settings();
    bad.fall = 0;
    driver.balancer.set_checks(driver.now, Some(bad)).unwrap_err();
    probe(&mut driver, 1, &timed_out());
    probe(&mut driver, 1, &timed_out());
    assert_eq!(driver.picks(2), [(v4(2), 2)].into());
}

/// Whenever a server hangs relative to its probes, it is out within what the settings promise, and back likewise.
#[test]
fn a_hung_endpoint_is_out_within_2_2_s_and_back_within_3_s_whatever_the_phase() {
    let end = |from: Time, limit: Duration| from + limit;
    for phase in (0..1_000).step_by(50) {
        let mut driver = Driver::seeded(&LbConfig::of("round_robin"), phase);
        driver.check_actively(CheckSettings::default());
        driver.resolve_and_connect([v4(1)]);
        let mut hung = None;
        let mut out = None;
        let mut mended = None;
        let mut back = None;
        while back.is_none() {
            driver.wait(millis(10));
            if let Some(&(_, deadline)) = driver.probes.get(&v4(1)) {
                let hangs = hung.is_some() && mended.is_none();
                if hangs && driver.now + millis(10) > deadline {
                    driver.wait(deadline.since(driver.now));
                    driver.answer(&v4(1), timed_out());
                } else if !hangs {
                    driver.answer(&v4(1), CheckOutcome::Serving);
                }
            }
            let ready = driver.state(&v4(1)).unwrap().service == Connectivity::Ready;
            if hung.is_none() && driver.now >= Time::ZERO + millis(3_000 + phase) {
                hung = Some(driver.now);
            } else if hung.is_some() && out.is_none() && !ready {
                out = Some(driver.now);
            } else if out.is_some() && mended.is_none() && driver.now >= out.unwrap() + millis(1_000 + phase) {
                mended = Some(driver.now);
            } else if mended.is_some() && ready {
                back = Some(driver.now);
            }
        }
        assert!(out.unwrap() <= end(hung.unwrap(), millis(2_200)), "phase {phase}: {hung:?} {out:?}");
        assert!(back.unwrap() <= end(mended.unwrap(), secs(3)), "phase {phase}: {mended:?} {back:?}");
    }
}
