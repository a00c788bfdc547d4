use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use evenkeel::balance::{
    ConfigError, Context, Endpoint, Observer, Outcome, Pick, PickArgs, Picker, Policies, PolicyFactory, Route,
    policy::{Candidate, Choose, Petiole},
};
use serde::Deserialize;

/// `example.fastest`: prefers the endpoint whose calls were the fastest of late; those without a measurement come first.
///
/// An example, not advice: all clients would run to the same endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Fastest;

/// The config of `example.fastest`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FastestConfig {
    /// How much of the old average remains at each measurement, in percent: below 100. Default 50.
    #[serde(default = "half")]
    pub memory_percent: u64,
}

fn half() -> u64 {
    50
}

impl FastestConfig {
    fn chooser(self) -> Result<ByLatency, ConfigError> {
        if self.memory_percent >= 100 {
            // The path is relative to this config; the core puts the rest before it.
            return Err(ConfigError::new("memoryPercent", "must be below 100"));
        }
        Ok(ByLatency { memory_percent: self.memory_percent })
    }
}

impl PolicyFactory for Fastest {
    const NAME: &'static str = "example.fastest";
    type Config = FastestConfig;
    type Policy = Petiole<ByLatency>;

    fn build(&self, config: FastestConfig, _: &Policies) -> Result<Self::Policy, ConfigError> {
        Ok(Petiole::new(config.chooser()?))
    }

    fn reconfigure(
        &self,
        policy: &mut Self::Policy,
        config: FastestConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        // The endpoints, their connections and their memories stay.
        policy.reconfigure(config.chooser()?);
        Ok(())
    }
}

/// How `example.fastest` chooses.
#[derive(Clone, Copy, Debug)]
pub struct ByLatency {
    memory_percent: u64,
}

impl Choose for ByLatency {
    type Memory = Latency;

    fn picker(&mut self, ready: Vec<Candidate<Latency>>, _: &mut Context<'_>) -> Arc<dyn Picker> {
        let ranked = ready.into_iter().filter_map(|candidate| Some((candidate.route, candidate.memory?)));
        Arc::new(Ranked(ranked.collect()))
    }

    fn remember(&mut self, _: &Endpoint) -> Option<Arc<Latency>> {
        Some(Arc::new(Latency { memory_percent: self.memory_percent, micros: AtomicU64::new(0) }))
    }
}

/// The latency of an endpoint's calls, as an exponentially weighted average.
#[derive(Debug)]
pub struct Latency {
    memory_percent: u64,
    /// 0 until the first measurement.
    micros: AtomicU64,
}

impl Observer for Latency {
    fn finished(&self, outcome: &Outcome) {
        let Some(latency) = outcome.latency else { return };
        let fresh = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::MAX / 100);
        let updated = self.micros.fetch_update(Relaxed, Relaxed, |old| {
            let kept = if old == 0 { 0 } else { self.memory_percent };
            Some((old * kept + fresh * (100 - kept)) / 100)
        });
        updated.expect("every value is replaced");
    }
}

/// What the calls' threads see: immutable but for what the memories learn, so that a pick takes no lock.
#[derive(Debug)]
struct Ranked(Vec<(Arc<Route>, Arc<Latency>)>);

impl Picker for Ranked {
    fn pick(&self, _: &PickArgs<'_>) -> Pick {
        let fastest = self.0.iter().min_by_key(|(_, latency)| latency.micros.load(Relaxed));
        fastest.map_or(Pick::Queue, |(route, _)| Pick::Call(route.call()))
    }
}
