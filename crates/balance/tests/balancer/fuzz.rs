//! A whole balancer under arbitrary sequences of inputs: stale news, late timeouts, switches of policy.

use std::{collections::BTreeSet, sync::Arc};

use evenkeel_balance::{
    Call, Code, ConnectionId, Connectivity, Endpoint, HealthCheck, HealthSignal, Input, LbConfig, Load, Pick, Status,
    SubchannelReport, UnknownService,
};
use proptest::{collection::vec, prelude::*};

use crate::driver::{Driver, millis, policies, v4};

#[derive(Clone, Debug)]
enum Step {
    /// Endpoints, each with its addresses.
    Resolved(Vec<Vec<u8>>),
    ResolutionFailed,
    /// Connections are counted back from the latest.
    Connected(usize),
    Disconnected(usize),
    Health(usize, HealthSignal),
    Stalled(usize),
    Recovered(usize),
    SwitchTo(Option<u32>),
    ExitIdle,
    GoIdle,
    Wait(u64),
    Oversleep(u64),
    Configure(LbConfig),
    CheckHealth(bool),
    Call,
    EndCall(usize),
}

/// READY while any endpoint is.
const PETIOLES: [&str; 11] = [
    r#"[{"round_robin":{}}]"#,
    r#"[{"random":{}}]"#,
    r#"[{"least_request":{"choiceCount":3,"slowStart":{"window":"5s"}}}]"#,
    r#"[{"maglev":{"tableSize":23,"hashBalanceFactor":110}}]"#,
    r#"[{"random_subsetting":{"subsetSize":100,"childPolicy":[{"random":{}}]}}]"#,
    r#"[{"zone_aware":{"zone":"0","minClusterSize":2,"childPolicy":[{"round_robin":{}}]}}]"#,
    r#"[{"zone_aware":{"zone":"1","childPolicy":[{"random":{}}]}}]"#,
    r#"[{"outlier_detection":{"interval":"1s","baseEjectionTime":"2s","maxEjectionPercent":90,"childPolicy":[{"random":{}}],
        "failurePercentageEjection":{"threshold":40,"minimumHosts":1,"requestVolume":1}}}]"#,
    r#"[{"weighted_round_robin":{"enableOobLoadReport":true,"slowStart":{"window":"5s"}}}]"#,
    r#"[{"peak_ewma":{"slowStart":{"window":"5s"}}}]"#,
    r#"[{"panic_threshold":{"threshold":70,"childPolicy":[{"round_robin":{}}]}}]"#,
];
const RING_HASH: [&str; 2] = [
    r#"[{"ring_hash":{"minRingSize":20}}]"#,
    r#"[{"ring_hash_experimental":{"requestHashHeader":"x-user","hashBalanceFactor":125}}]"#,
];
const PICK_FIRST: [&str; 2] = [r#"[{"pick_first":{}}]"#, r#"[{"pick_first":{"shuffleAddressList":true}}]"#];
/// Not READY while a better level is awaited.
const LEVELS: [&str; 6] = [
    r#"[{"priority":{"childPolicy":[{"round_robin":{}}]}}]"#,
    r#"[{"priority":{"failoverTimeout":"1s","childPolicy":[{"pick_first":{}}]}}]"#,
    r#"[{"priority":{"childPolicy":[{"zone_aware":{"zone":"0","childPolicy":[{"least_request":{}}]}}]}}]"#,
    r#"[{"failover":{}}]"#,
    r#"[{"failover":{"childPolicy":[{"round_robin":{}}],"failbackRamp":"0s","whenAllOut":"failFast","panicThreshold":0}}]"#,
    r#"[{"failover":{"childPolicy":[{"pick_first":{}}],"standby":"cold","failbackDelay":"1s","whenAllOut":"wait"}}]"#,
];

fn petiole() -> impl Strategy<Value = LbConfig> {
    prop::sample::select(&PETIOLES[..]).prop_map(policies)
}

fn any_policy() -> impl Strategy<Value = LbConfig> {
    let other = |list: &'static [&'static str]| prop::sample::select(list).prop_map(policies);
    prop_oneof![petiole(), other(&PICK_FIRST), other(&LEVELS), other(&RING_HASH)]
}

/// One step, of which those that configure take their config from `config`.
fn step(config: impl Strategy<Value = LbConfig> + 'static) -> impl Strategy<Value = Step> {
    let connection = || 0..12_usize;
    let signal = prop_oneof![
        Just(HealthSignal::Serving),
        Just(HealthSignal::NotServing),
        Just(HealthSignal::ServiceUnknown),
        Just(HealthSignal::Ended(Status::unavailable("over"))),
        Just(HealthSignal::Ended(Status::new(Code::Unimplemented, "none"))),
    ];
    prop_oneof![
        3 => vec(vec(1..7_u8, 1..4), 0..5).prop_map(Step::Resolved),
        1 => Just(Step::ResolutionFailed),
        8 => connection().prop_map(Step::Connected),
        5 => connection().prop_map(Step::Disconnected),
        4 => (connection(), signal).prop_map(|(connection, signal)| Step::Health(connection, signal)),
        1 => connection().prop_map(Step::Stalled),
        1 => connection().prop_map(Step::Recovered),
        2 => Just(Step::ExitIdle),
        1 => prop::option::of(0..3_u32).prop_map(Step::SwitchTo),
        1 => Just(Step::GoIdle),
        3 => (0..40_000_u64).prop_map(Step::Wait),
        1 => (0..400_000_u64).prop_map(Step::Oversleep),
        1 => config.prop_map(Step::Configure),
        1 => any::<bool>().prop_map(Step::CheckHealth),
        3 => Just(Step::Call),
        2 => (0..9_usize).prop_map(Step::EndCall),
    ]
}

struct Fuzz {
    driver: Driver,
    calls: Vec<Call>,
    loads: Vec<Arc<Load>>,
    listed: BTreeSet<u8>,
}

impl Fuzz {
    fn new(config: &LbConfig) -> Self {
        Self { driver: Driver::seeded(config, 1), calls: Vec::new(), loads: Vec::new(), listed: BTreeSet::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Resolved(list) => self.resolve(&list),
            Step::ResolutionFailed => self.driver.input(Input::ResolutionFailed(Status::unavailable("no answer"))),
            Step::Connected(back) => self.with(back, Driver::connected),
            Step::Disconnected(back) => self.with(back, |driver, id| driver.disconnected(id, "gone")),
            Step::Health(back, signal) => self.with(back, |driver, id| driver.input(Input::Health(id, signal))),
            Step::Stalled(back) => self.with(back, |driver, id| driver.input(Input::Stalled(id, "silent".into()))),
            Step::Recovered(back) => self.with(back, |driver, id| driver.input(Input::Recovered(id))),
            Step::SwitchTo(group) => self.driver.input(Input::SwitchTo(group)),
            Step::ExitIdle => self.driver.input(Input::ExitIdle),
            Step::GoIdle => {
                self.listed.clear();
                self.driver.input(Input::GoIdle);
            }
            Step::Wait(wait) => self.driver.wait(millis(wait)),
            Step::Oversleep(wait) => self.driver.oversleep(millis(wait)),
            Step::Configure(config) => self.driver.configure(&config).expect("the config is good"),
            Step::CheckHealth(on) => {
                let check = HealthCheck { service: "svc".into(), unknown: UnknownService::IsUnhealthy };
                self.driver.balancer.set_health_check(self.driver.now, on.then_some(check));
            }
            Step::Call => {
                if let Pick::Call(call) = self.driver.pick_raw() {
                    self.calls.push(call);
                }
            }
            Step::EndCall(index) if index < self.calls.len() => drop(self.calls.swap_remove(index)),
            Step::EndCall(_) => {}
        }
        // What a step has done to the core without the driver is seen at the next poll.
        self.driver.oversleep(millis(0));
        self.loads.extend(self.driver.balancer.subchannels().into_iter().map(|report| report.load));
    }

    fn resolve(&mut self, list: &[Vec<u8>]) {
        self.listed = list.iter().flatten().copied().collect();
        let endpoints = list.iter().filter_map(|addresses| {
            let endpoint = Endpoint::with_addresses(addresses.iter().copied().map(v4))?;
            let first = u32::from(*addresses.first()?);
            Some(endpoint.with_priority(first % 2).in_zone((first % 3).to_string()))
        });
        self.driver.input(Input::Resolved(endpoints.collect()));
    }

    fn with(&mut self, back: usize, act: impl FnOnce(&mut Driver, ConnectionId)) {
        let history = self.driver.history();
        if let Some(at) = history.len().checked_sub(back + 1) {
            act(&mut self.driver, history[at]);
        }
    }

    /// What holds at any moment.
    fn check(&mut self) {
        let reports = self.driver.balancer.subchannels();
        assert!(reports.iter().all(|report| self.listed.iter().any(|&n| v4(n) == report.address)), "{reports:?}");
        for report in &reports {
            let connected = self.driver.open.contains_key(&report.address);
            assert_eq!(report.state.connection == Connectivity::Ready, connected, "{report:?}");
        }
        match (self.driver.pick_raw(), self.driver.balancer.connectivity()) {
            (Pick::Call(call), Connectivity::Ready) => {
                assert!(self.driver.open.contains_key(&self.driver.address_of(&call)));
            }
            (Pick::Queue, Connectivity::Connecting)
            | (Pick::Idle, Connectivity::Idle)
            | (Pick::Fail(_), Connectivity::TransientFailure) => {}
            // It has a state for the whole of its endpoints, and connects those that a call is for.
            (Pick::Queue | Pick::Idle, _) if self.driver.balancer.policy() == "ring_hash" => {}
            (pick, connectivity) => panic!("{pick:?} while {connectivity}"),
        }
    }

    /// What holds at any moment where no policy ignores health and progress: every ready endpoint counts, no other.
    fn check_petiole(&mut self) {
        let ready = |report: &SubchannelReport| report.state.service == Connectivity::Ready;
        let reports = self.driver.balancer.subchannels();
        let any_ready = reports.iter().any(ready);
        assert_eq!(self.driver.balancer.connectivity() == Connectivity::Ready, any_ready, "{reports:?}");
        if let Pick::Call(call) = self.driver.pick_raw() {
            let picked = reports.iter().find(|report| report.id == call.subchannel());
            assert!(picked.is_some_and(ready), "{picked:?}");
        }
    }

    /// However it got here, the channel connects if it can, and lets go of everything in the end.
    fn finish(mut self) {
        self.driver.let_all_connect();
        for report in self.driver.balancer.subchannels() {
            // Nobody has asked for it since it was lost, or it is in reserve.
            let may_rest = ["ring_hash", "priority_experimental", "failover"].contains(&self.driver.balancer.policy());
            let rests = report.state.connection == Connectivity::Idle && may_rest;
            assert!(rests || report.state.connection == Connectivity::Ready, "{report:?}");
        }
        assert_eq!(self.driver.open.is_empty(), self.listed.is_empty());

        self.driver.resolve([]);
        assert!(self.driver.open.is_empty() && self.driver.dialling.is_empty());
        assert_eq!(self.driver.balancer.subchannels().len(), 0);
        assert_eq!(self.driver.balancer.next_timeout(), None);
        self.calls.clear();
        assert!(self.loads.iter().all(|load| load.in_flight() == 0));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_core_stays_sound(start in any_policy(), steps in vec(step(any_policy()), 1..80)) {
        let mut fuzz = Fuzz::new(&start);
        for step in steps {
            fuzz.take(step);
            fuzz.check();
        }
        fuzz.finish();
    }

    #[test]
    fn petioles_are_ready_while_any_endpoint_is(start in petiole(), steps in vec(step(petiole()), 1..80)) {
        let mut fuzz = Fuzz::new(&start);
        for step in steps {
            fuzz.take(step);
            fuzz.check_petiole();
        }
    }

    #[test]
    fn equal_inputs_give_equal_outputs(start in any_policy(), steps in vec(step(any_policy()), 1..60)) {
        let play = || {
            let mut fuzz = Fuzz::new(&start);
            steps.iter().cloned().for_each(|step| fuzz.take(step));
            (fuzz.driver.dialled, fuzz.driver.closed, fuzz.driver.published, format!("{:?}", fuzz.driver.balancer))
        };
        prop_assert_eq!(play(), play());
    }
}
