//! Random histories against a model that looks through all outcomes each time, and detection times in virtual time.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Answered(Statement),
    Failed { vouched: bool },
    Drained,
}

impl Step {
    fn outcome(self) -> CheckOutcome {
        match self {
            Self::Answered(statement) => statement.into(),
            Self::Failed { .. } => CheckOutcome::Failed(CheckFailure::new(FailureKind::TimedOut, "silent")),
            Self::Drained => CheckOutcome::Drained,
        }
    }

    fn calls(self) -> CallsSeen {
        CallsSeen { succeeded: u64::from(self == Self::Failed { vouched: true }), failed: 0 }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let statement = prop_oneof![
        6 => Just(Statement::Serving),
        1 => Just(Statement::NotServing),
        1 => Just(Statement::ServiceUnknown),
    ];
    let step = prop_oneof![
        4 => statement.prop_map(Step::Answered),
        4 => any::<bool>().prop_map(|vouched| Step::Failed { vouched }),
        1 => Just(Step::Drained),
    ];
    vec(step, 0..80)
}

/// Every outcome so far that counts, and whether the thing is taken to be reachable.
struct Naive {
    rise: usize,
    fall: usize,
    is_up: Option<bool>,
    counted: Vec<Step>,
    last: Option<Step>,
}

impl Naive {
    fn new(settings: &CheckSettings) -> Self {
        let is_up = match settings.initial {
            Initial::Pending => None,
            Initial::Healthy => Some(true),
            Initial::Unhealthy => Some(false),
        };
        let [rise, fall] = [settings.rise, settings.fall].map(|n| usize::try_from(n).unwrap());
        Self { rise, fall, is_up, counted: Vec::new(), last: None }
    }

    fn step(&mut self, step: Step) -> CheckVerdict {
        let again = self.last.replace(step) == Some(Step::Drained);
        match step {
            Step::Drained if !again => return self.verdict(),
            Step::Drained => self.counted.push(Step::Failed { vouched: false }),
            step => self.counted.push(step),
        }
        let vouched = step == Step::Failed { vouched: true };
        let answered = |step: &Step| matches!(step, Step::Answered(_));
        self.is_up = match self.is_up {
            None => Some(answered(&step)),
            Some(true) => Some(!self.ends_with(self.fall, |step| !answered(step)) || vouched),
            Some(false) => Some(self.ends_with(self.rise, answered)),
        };
        self.verdict()
    }

    fn verdict(&self) -> CheckVerdict {
        let said = self.counted.iter().rev().find_map(|step| match step {
            Step::Answered(statement) => Some(*statement),
            _ => None,
        });
        match (self.is_up, said.unwrap_or(Statement::Serving)) {
            (None, _) => CheckVerdict::Pending,
            (Some(true), Statement::Serving)
                if self.ends_with(self.fall, |step| !matches!(step, Step::Answered(_))) =>
            {
                CheckVerdict::Disputed
            }
            (Some(true), Statement::Serving) => CheckVerdict::Healthy,
            _ => CheckVerdict::Unhealthy,
        }
    }

    fn ends_with(&self, count: usize, is: impl Fn(&Step) -> bool) -> bool {
        self.counted.iter().rev().take_while(|step| is(step)).count() >= count
    }
}

fn initial() -> impl Strategy<Value = Initial> {
    prop::sample::select(&[Initial::Pending, Initial::Healthy, Initial::Unhealthy][..])
}

proptest! {
    #[test]
    fn agrees_with_a_look_through_all_outcomes(
        steps in steps(), initial in initial(), rise in 1..4_u32, fall in 1..4_u32, seed: u64,
    ) {
        let settings = CheckSettings { initial, rise, fall, history: 200, ..CheckSettings::default() };
        let mut entropy = Entropy::new(seed);
        let mut check = Check::new(settings, Time::ZERO, &mut entropy).unwrap();
        let mut naive = Naive::new(&settings);
        for step in steps {
            let (before, told_before) = (check.verdict(), check.history().iter().len());
            let now = check.next_timeout().unwrap();
            prop_assert!(check.poll(now).is_some());
            let transition = check.handle(now, step.outcome(), step.calls(), &mut entropy);
            prop_assert_eq!(check.verdict(), naive.step(step));
            prop_assert!(transition.is_some() || before == check.verdict(), "no change goes untold");
            prop_assert_eq!(check.history().iter().nth(told_before).cloned(), transition);
        }
        for (one, next) in check.history().iter().zip(check.history().iter().skip(1)) {
            prop_assert_eq!(one.to, next.from, "the history has no gaps");
        }
    }
}

/// A server that answers a probe `latency` after its start, and none that it would answer while it hangs.
struct Server {
    latency: Duration,
    hangs: std::ops::Range<Time>,
}

impl Server {
    /// How the probe that started at `started` ends, and when.
    fn probe(&self, started: Time, deadline: Time) -> (Time, CheckOutcome) {
        let answer = started + self.latency;
        if answer > deadline || self.hangs.contains(&answer) || self.hangs.contains(&started) {
            (deadline, CheckOutcome::Failed(CheckFailure::new(FailureKind::TimedOut, "silent")))
        } else {
            (answer, CheckOutcome::Serving)
        }
    }
}

/// When the checks found out that the server hung, and that it was back.
fn found(server: &Server, seed: u64) -> [Time; 2] {
    let mut entropy = Entropy::new(seed);
    let mut check = Check::new(CheckSettings::default(), Time::ZERO, &mut entropy).unwrap();
    let mut changes = Vec::new();
    while changes.len() < 3 {
        let started = check.next_timeout().unwrap();
        let deadline = check.poll(started).unwrap();
        let (ended, outcome) = server.probe(started, deadline);
        changes.extend(check.handle(ended, outcome, CallsSeen::NONE, &mut entropy).map(|change| change.at));
    }
    [changes[1], changes[2]]
}

#[test]
fn a_hung_server_is_out_within_2_2_s_and_back_within_3_s_whenever_it_hangs() {
    let settings = CheckSettings::default();
    let [mut slowest_out, mut slowest_back] = [Duration::ZERO; 2];
    for phase in 0..2_500 {
        let latency = Duration::from_millis(phase % 7 * 20);
        let hung = Time::ZERO + Duration::from_millis(3_000 + phase);
        let back = hung + Duration::from_millis(5_000 + phase * 3);
        let [out, again] = found(&Server { latency, hangs: hung..back }, phase);
        slowest_out = slowest_out.max(out.since(hung));
        slowest_back = slowest_back.max(again.since(back));
    }
    assert!(slowest_out <= Duration::from_millis(2_200) && slowest_out <= settings.detects_within(), "{slowest_out:?}");
    assert!(slowest_back <= Duration::from_secs(3) && slowest_back <= settings.returns_within(), "{slowest_back:?}");
    assert!(slowest_out > Duration::from_millis(1_900), "the phases cover the worst case: {slowest_out:?}");
}
