//! Each policy against a model so naive that it is plainly right.

use std::collections::BTreeMap;

use evenkeel_balance::{Address, Connectivity, Entropy, LbConfig, Outcome, Pick};
use proptest::{collection::vec, prelude::*};

use crate::driver::{Driver, Placed, millis, policies, secs, v4};

/// What befalls a channel. Addresses that it does not concern at the time stay as they are.
#[derive(Clone, Debug)]
enum Change {
    List(Vec<u8>),
    Accept(u8),
    Refuse(u8),
    Lose(u8),
    Wait(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let address = 1..6_u8;
    prop_oneof![
        1 => vec(address.clone(), 0..6).prop_map(Change::List),
        4 => address.clone().prop_map(Change::Accept),
        2 => address.clone().prop_map(Change::Refuse),
        2 => address.prop_map(Change::Lose),
        2 => (0..25_000_u64).prop_map(Change::Wait),
    ]
}

/// Brings a change about, where it is possible at the moment.
fn apply(driver: &mut Driver, change: &Change) {
    match change {
        Change::List(list) => driver.resolve(list.iter().copied().map(v4)),
        Change::Accept(n) if driver.dialling.contains_key(&v4(*n)) => driver.accept(&v4(*n)),
        Change::Refuse(n) if driver.dialling.contains_key(&v4(*n)) => driver.refuse(&v4(*n)),
        Change::Lose(n) if driver.open.contains_key(&v4(*n)) => driver.lose(&v4(*n)),
        Change::Wait(wait) => driver.wait(millis(*wait)),
        Change::Accept(_) | Change::Refuse(_) | Change::Lose(_) => {}
    }
}

/// What a petiole policy must make of each endpoint.
#[derive(Default)]
struct Endpoints(BTreeMap<Address, Connectivity>);

impl Endpoints {
    /// Takes in a change, of which the driver tells how it came out.
    fn follow(&mut self, change: &Change, driver: &Driver, timed_out: &[Address]) {
        if let Change::List(list) = change {
            self.0.retain(|address, _| list.iter().any(|&n| v4(n) == *address));
            for &n in list {
                self.0.entry(v4(n)).or_insert(Connectivity::Connecting);
            }
        }
        for (address, state) in &mut self.0 {
            let failed = matches!(change, Change::Refuse(n) if v4(*n) == *address) && *state != Connectivity::Ready;
            if driver.open.contains_key(address) {
                *state = Connectivity::Ready;
            } else if failed || timed_out.contains(address) {
                *state = Connectivity::TransientFailure;
            } else if *state == Connectivity::Ready {
                // Lost after it was of use; else it would have failed.
                *state = Connectivity::Connecting;
            }
        }
    }

    fn aggregate(&self) -> Connectivity {
        for state in [Connectivity::Ready, Connectivity::Connecting] {
            if self.0.values().any(|&endpoint| endpoint == state) {
                return state;
            }
        }
        Connectivity::TransientFailure
    }
}

proptest! {
    #[test]
    fn petioles_place_calls_on_ready_endpoints_alone(
        policy in prop::sample::select(&["round_robin", "random", "least_request", "maglev"][..]),
        changes in vec(change(), 1..60),
    ) {
        let mut driver = Driver::new(policy);
        driver.resolve([]);
        let mut model = Endpoints::default();
        for change in &changes {
            let dialled_before: Vec<_> = driver.dialling.keys().cloned().collect();
            driver.closed.clear();
            apply(&mut driver, change);
            let refused = |n: &u8| dialled_before.contains(&v4(*n));
            let timed_out = if matches!(change, Change::Wait(_)) { driver.closed.clone() } else { Vec::new() };
            // A refusal of nothing is no refusal.
            if !matches!(change, Change::Refuse(n) if !refused(n)) {
                model.follow(change, &driver, &timed_out);
            }
            prop_assert_eq!(driver.balancer.connectivity(), model.aggregate());
            check_picks(&mut driver, policy);
        }
        driver.let_all_connect();
        prop_assert_eq!(driver.open.keys().collect::<Vec<_>>(), model.0.keys().collect::<Vec<_>>(), "all connect");
    }

    #[test]
    fn pick_first_keeps_one_connection_and_uses_it(changes in vec(change(), 1..60)) {
        let mut driver = Driver::new("pick_first");
        driver.resolve([]);
        let mut listed = Vec::new();
        for change in &changes {
            let before = driver.balancer.connectivity();
            if let Change::List(list) = change {
                listed.clone_from(list);
            }
            apply(&mut driver, change);
            if driver.pick() == Placed::Idle {
                driver.input(evenkeel_balance::Input::ExitIdle);
            }
            let after = driver.balancer.connectivity();
            prop_assert!(driver.open.len() <= 1, "{:?}", driver.open);
            prop_assert!(driver.open.keys().all(|address| listed.iter().any(|&n| v4(n) == *address)));
            prop_assert_eq!(after == Connectivity::Ready, driver.open.len() == 1);
            let sticky = before == Connectivity::TransientFailure && !matches!(change, Change::List(_));
            prop_assert!(!sticky || matches!(after, Connectivity::TransientFailure | Connectivity::Ready));
            match driver.pick() {
                Placed::On(address) => prop_assert!(driver.open.contains_key(&address)),
                Placed::Queued => prop_assert_eq!(after, Connectivity::Connecting),
                Placed::Failed(_) => prop_assert_eq!(after, Connectivity::TransientFailure),
                Placed::Idle => prop_assert!(false, "somebody waits"),
            }
        }
        driver.let_all_connect();
        prop_assert_eq!(driver.open.len(), usize::from(!listed.is_empty()), "it connects if it can");
    }

    #[test]
    fn pick_first_dials_in_the_order_of_the_list(n in 1..8_u8, failing in 0..8_u8, seed: u64) {
        let mut order: Vec<u8> = (1..=n).collect();
        Entropy::new(seed).shuffle(&mut order);
        let mut driver = Driver::new("pick_first");
        driver.resolve(order.iter().copied().map(v4));
        driver.input(evenkeel_balance::Input::ExitIdle);
        for &n in order.iter().take(failing.into()) {
            driver.refuse(&v4(n));
        }
        let tried = usize::from(n).min(usize::from(failing) + 1);
        let expected: Vec<_> = order.iter().take(tried).copied().map(v4).collect();
        prop_assert_eq!(driver.take_dialled(), expected);
    }

    #[test]
    fn least_request_takes_the_least_busy_of_its_draws(
        endpoints in 1..9_u8,
        choices in 2..15_u32,
        steps in vec(any::<(bool, u64)>(), 1..200),
    ) {
        let config = policies(&format!(r#"[{{"least_request":{{"choiceCount":{choices}}}}}]"#));
        let mut driver = Driver::seeded(&config, 1);
        driver.resolve_and_connect((1..=endpoints).map(v4));
        let mut busy = vec![0_u32; endpoints.into()];
        let mut running = Vec::new();
        for (ends, bits) in steps {
            if ends && !running.is_empty() {
                let (index, call): (usize, evenkeel_balance::Call) = running.remove(scaled(bits, running.len()));
                call.finish(&Outcome::new(evenkeel_balance::Code::Ok));
                busy[index] -= 1;
            } else {
                let expected = least_of_draws(bits, choices.min(10), &busy);
                let Pick::Call(call) = driver.pick_with(bits) else { panic!("all are ready") };
                prop_assert_eq!(driver.address_of(&call), v4(u8::try_from(expected + 1).unwrap()));
                busy[expected] += 1;
                running.push((expected, call));
            }
        }
    }

    #[test]
    fn random_takes_what_it_draws(endpoints in 1..9_u8, draws in vec(any::<u64>(), 1..100)) {
        let mut driver = Driver::new("random");
        driver.resolve_and_connect((1..=endpoints).map(v4));
        for bits in draws {
            let Pick::Call(call) = driver.pick_with(bits) else { panic!("all are ready") };
            let expected = u8::try_from(scaled(bits, endpoints.into()) + 1).unwrap();
            prop_assert_eq!(driver.address_of(&call), v4(expected));
        }
    }
}

#[test]
fn random_is_even_in_the_long_run() {
    for seed in 0..20 {
        let mut driver = Driver::seeded(&LbConfig::of("random"), seed);
        driver.resolve_and_connect((1..=5).map(v4));
        for (address, calls) in driver.picks(5_000) {
            assert!((800..=1_200).contains(&calls), "seed {seed}: {address} has {calls} of 1000");
        }
    }
}

#[test]
fn failed_endpoints_are_retried_however_long_it_takes() {
    let mut driver = Driver::new("round_robin");
    driver.resolve([v4(1)]);
    for _ in 0..30 {
        driver.refuse(&v4(1));
        driver.wait(secs(145));
        assert!(driver.dialling.contains_key(&v4(1)) || driver.closed.contains(&v4(1)));
        while driver.dialling.is_empty() {
            driver.wait(secs(1));
        }
    }
}

/// Calls go to open connections alone; in turn, where turns are what the policy is about.
fn check_picks(driver: &mut Driver, policy: &str) {
    if driver.open.is_empty() {
        let fails = driver.balancer.connectivity() == Connectivity::TransientFailure;
        assert_eq!(matches!(driver.pick(), Placed::Failed(_)), fails);
        return;
    }
    let open: Vec<_> = driver.open.keys().cloned().collect();
    let counts = driver.picks(open.len() * 40);
    assert_eq!(counts.keys().cloned().collect::<Vec<_>>(), open, "{policy}: 40 rounds miss nobody");
    if policy == "round_robin" {
        assert!(counts.values().all(|&calls| calls == 40), "{counts:?}");
        let ahead = driver.picks(open.len() * 2 + 1);
        assert!(ahead.values().all(|&calls| calls == 2 || calls == 3), "{ahead:?}");
    }
}

/// Draws with replacement; the first of the least busy.
fn least_of_draws(mut bits: u64, choices: u32, busy: &[u32]) -> usize {
    let mut best = scaled(bits, busy.len());
    for _ in 1..choices {
        bits = Entropy::new(bits).next_u64();
        let drawn = scaled(bits, busy.len());
        if busy[drawn] < busy[best] {
            best = drawn;
        }
    }
    best
}

/// The upper half of the product: a number below `n`, as evenly as the bits.
fn scaled(bits: u64, n: usize) -> usize {
    usize::try_from((u128::from(bits) * n as u128) >> 64).expect("it is below n")
}
