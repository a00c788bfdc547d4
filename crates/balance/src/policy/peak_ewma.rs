mod latency;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{Candidate, Choose, Context, Explanation, Petiole, Policies, PolicyFactory, SlowStart, slow_start::Ramp};
use crate::{
    ConfigError, Endpoint, Pick, PickArgs, Picker, Route, Time,
    entropy::{remix, scale},
    service_config::json_duration,
};

pub use latency::PeakLatency;

/// `peak_ewma`: draws two ready endpoints and takes the one where a call is likely to be done sooner.
///
/// The cost of an endpoint is its average latency times its calls in flight, this one included. The average follows a
/// peak at once and forgets it over `decay`; it decays while nothing is measured, so an endpoint that was slow is tried
/// again. Failures count as slow calls, or an endpoint that fails fast would attract all calls. An endpoint without a
/// measurement is tried at once, by one call at a time. After Finagle's peak EWMA; there is no gRFC.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma;

/// The config of `peak_ewma`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PeakEwmaConfig {
    /// After this long a peak is down to 37 %. Default 10 s, above 0.
    #[serde(default = "ten_seconds", deserialize_with = "json_duration")]
    pub decay: Duration,
    /// The least that a call counts as whose status says that the server failed (`UNKNOWN`, `DEADLINE_EXCEEDED`,
    /// `RESOURCE_EXHAUSTED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`). Default 5 s.
    #[serde(default = "five_seconds", deserialize_with = "json_duration")]
    pub failure_penalty: Duration,
    /// Whether endpoints that have just become ready start slowly: their cost is divided by their share of the full
    /// weight. Default: they do not.
    pub slow_start: Option<SlowStart>,
}

impl Default for PeakEwmaConfig {
    fn default() -> Self {
        Self { decay: ten_seconds(), failure_penalty: five_seconds(), slow_start: None }
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

impl PeakEwmaConfig {
    fn checked(self) -> Result<Self, ConfigError> {
        if self.decay.is_zero() {
            return Err(ConfigError::new("decay", "must be above 0"));
        }
        SlowStart::check(self.slow_start)?;
        Ok(self)
    }
}

impl PolicyFactory for PeakEwma {
    const NAME: &'static str = "peak_ewma";
    type Config = PeakEwmaConfig;
    type Policy = Petiole<ByLatency>;

    fn build(&self, config: PeakEwmaConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Petiole::new(ByLatency { config: config.checked()?, applied: Vec::new() }))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: PeakEwmaConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        let config = config.checked()?;
        policy.chooser().config = config;
        Ok(())
    }
}

/// How `peak_ewma` chooses.
#[derive(Debug)]
pub struct ByLatency {
    config: PeakEwmaConfig,
    /// What the last picker was made of, for whoever asks.
    applied: Vec<(Arc<Endpoint>, Arc<PeakLatency>)>,
}

impl Choose for ByLatency {
    type Memory = PeakLatency;

    fn picker(&mut self, ready: Vec<Candidate<PeakLatency>>, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        self.applied.clear();
        let options = ready.into_iter().filter_map(|candidate| {
            let latency = candidate.memory?;
            latency.configure(&self.config);
            self.applied.push((candidate.endpoint, Arc::clone(&latency)));
            let ramp = Ramp::new(self.config.slow_start, candidate.since, ctx.now());
            Some(Choice { route: candidate.route, latency, ramp })
        });
        Arc::new(Pair(options.collect()))
    }

    fn remember(&mut self, _: &Endpoint) -> Option<Arc<PeakLatency>> {
        Some(Arc::new(PeakLatency::new(&self.config)))
    }

    fn explain(&self) -> Explanation {
        const NAMED: usize = 20;
        let each = self.applied.iter().take(NAMED).map(|(endpoint, latency)| match latency.last() {
            Some(seconds) => format!("{endpoint}: {:.1} ms after its last call", seconds * 1_000.0),
            None => format!("{endpoint}: not measured yet"),
        });
        each.fold(Explanation::default(), Explanation::note)
    }
}

#[derive(Debug)]
struct Choice {
    route: Arc<Route>,
    latency: Arc<PeakLatency>,
    ramp: Ramp,
}

impl Choice {
    /// Suspects come after all others, and then what costs more.
    fn is_better_than(&self, other: &Self, now: Time) -> bool {
        let rank = |choice: &Self| (choice.route.load().is_suspect(), choice.cost(now));
        rank(self) < rank(other)
    }

    /// How long one more call would be expected to take, in seconds.
    fn cost(&self, now: Time) -> f64 {
        let in_flight = self.route.load().in_flight();
        let calls = f64::from(in_flight) + 1.0;
        let cost = match self.latency.at(now) {
            Some(latency) => latency * calls,
            None if in_flight == 0 => 0.0,
            None => self.latency.penalty() * calls,
        };
        cost / self.ramp.share(now)
    }
}

/// Takes the better of two that it draws, with replacement.
#[derive(Debug)]
struct Pair(Vec<Choice>);

impl Pair {
    /// The best of all, for the rare case that only suspects were drawn.
    fn best(&self, now: Time) -> Option<&Choice> {
        self.0.iter().reduce(|best, other| if other.is_better_than(best, now) { other } else { best })
    }
}

impl Picker for Pair {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let draw = |bits| self.0.get(scale(bits, self.0.len()));
        let (Some(one), Some(other)) = (draw(args.entropy), draw(remix(args.entropy))) else { return Pick::Queue };
        let drawn = if other.is_better_than(one, args.now) { other } else { one };
        let well = Some(drawn).filter(|choice| !choice.route.load().is_suspect());
        Pick::Call(well.or_else(|| self.best(args.now)).unwrap_or(drawn).route.call())
    }
}
