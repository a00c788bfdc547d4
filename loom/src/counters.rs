//! What the calls of an endpoint or a channel count.

use evenkeel_balance::RetryThrottling;
use loom::{sync::Arc, thread};

use crate::{hedging::HedgeBudget, load::Load, retry::RetryThrottle};

pub(crate) fn loads_return_to_zero() {
    let load = Arc::new(Load::default());
    let other = Arc::clone(&load);
    let thread = thread::spawn(move || {
        other.begin();
        other.end(true);
    });
    load.begin();
    assert!((1..=2).contains(&load.in_flight()), "its own call, and perhaps the other");
    load.end(false);
    load.begin();
    load.withdraw();
    thread.join().unwrap();
    assert_eq!((load.in_flight(), load.started(), load.succeeded(), load.failed()), (0, 2, 1, 1));
}

pub(crate) fn suspicion_is_independent() {
    let load = Arc::new(Load::default());
    let driver = Arc::clone(&load);
    let thread = thread::spawn(move || {
        driver.suspect(true);
        driver.suspect(false);
    });
    load.begin();
    let seen = (load.is_suspect(), load.in_flight());
    assert_eq!(seen.1, 1, "a suspicion changes no count, whether it is seen ({}) or not", seen.0);
    load.end(true);
    thread.join().unwrap();
    assert!(!load.is_suspect() && load.in_flight() == 0, "the last word holds");
}

/// Of 4 tokens, retries are allowed while more than 2 are left.
fn throttle() -> Arc<RetryThrottle> {
    Arc::new(RetryThrottle::new(RetryThrottling { max_tokens: 4.0, token_ratio: 0.5 }))
}

pub(crate) fn throttle_loses_no_token() {
    let throttle = throttle();
    let other = Arc::clone(&throttle);
    let thread = thread::spawn(move || other.failed());
    let mine = throttle.failed();
    let others = thread.join().unwrap();
    assert!(mine != others, "the first leaves 3 and may retry, the second leaves 2 and may not");
    assert!(!throttle.allows());
    let other = Arc::clone(&throttle);
    let thread = thread::spawn(move || other.succeeded());
    throttle.succeeded();
    thread.join().unwrap();
    // 2 + 0.5 + 0.5, of which one failure takes 1: had one been lost, the next failure would leave 1.5 just as well, so
    // they are counted up to where it shows.
    assert!(throttle.allows());
    throttle.succeeded();
    assert!(throttle.failed(), "3.5 - 1 is above half; 3 - 1 would not be");
}

pub(crate) fn one_hedge_is_spent_once() {
    let budget = Arc::new(HedgeBudget::new());
    let other = Arc::clone(&budget);
    let thread = thread::spawn(move || other.spend());
    let mine = budget.spend();
    assert!(mine != thread.join().unwrap(), "it begins with one hedge");
}

pub(crate) fn no_earning_is_lost() {
    let budget = Arc::new(HedgeBudget::new());
    let other = Arc::clone(&budget);
    let thread = thread::spawn(move || other.earn(0.5));
    budget.earn(0.5);
    thread.join().unwrap();
    assert!(budget.spend() && budget.spend() && !budget.spend(), "one to begin with, and two halves");
}
