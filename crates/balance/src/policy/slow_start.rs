use std::time::Duration;

use serde::Deserialize;

use crate::{ConfigError, Time, service_config::json_duration};

/// `slowStart`: an endpoint that has just become ready gets fewer calls than its share, growing to all of it.
///
/// A fresh process compiles, fills caches and opens connections of its own; all its calls at once would find it cold.
/// The weight is `max(minWeightPercent / 100, (t / window)^(1 / aggression))` of the full one, `t` after the endpoint
/// became ready, as Envoy has it. Endpoints that become ready together ramp together, so a channel that starts is
/// not slowed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SlowStart {
    /// How long it takes. Required, above 0.
    #[serde(deserialize_with = "json_duration")]
    pub window: Duration,
    /// The shape: 1 is a straight line, more rises faster at first. Default 1, above 0.
    #[serde(default = "one")]
    pub aggression: f64,
    /// Where it starts, in percent of the full weight. Default 10, above 0, at most 100.
    #[serde(default = "ten")]
    pub min_weight_percent: f64,
}

fn one() -> f64 {
    1.0
}

fn ten() -> f64 {
    10.0
}

impl SlowStart {
    /// The config as it is, if it is sound; paths of errors are those in the policy's config.
    pub(super) fn check(config: Option<Self>) -> Result<Option<Self>, ConfigError> {
        let Some(slow) = config else { return Ok(None) };
        let refuse = |field: &str, must: &str| Err(ConfigError::new(format!("slowStart.{field}"), must));
        if slow.window.is_zero() {
            return refuse("window", "must be above 0");
        }
        if slow.aggression.is_nan() || slow.aggression <= 0.0 {
            return refuse("aggression", "must be above 0");
        }
        if !(slow.min_weight_percent > 0.0 && slow.min_weight_percent <= 100.0) {
            return refuse("minWeightPercent", "must be above 0 and at most 100");
        }
        Ok(Some(slow))
    }

    fn share(&self, ready_for: Duration) -> f64 {
        if ready_for >= self.window {
            return 1.0;
        }
        let time = ready_for.as_secs_f64() / self.window.as_secs_f64();
        time.powf(self.aggression.recip()).max(self.min_weight_percent / 100.0)
    }
}

/// How far one endpoint is in its slow start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp(Option<(SlowStart, Time)>);

impl Ramp {
    /// The ramp of an endpoint that became ready at `since`; none where `config` is none, or the ramp is over.
    pub(super) fn new(config: Option<SlowStart>, since: Time, now: Time) -> Self {
        Self(config.filter(|slow| now.since(since) < slow.window).map(|slow| (slow, since)))
    }

    /// Whether the weight is full, now and later.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_none()
    }

    /// The share of its full weight that the endpoint has: above 0, at most 1.
    pub(super) fn share(&self, now: Time) -> f64 {
        self.0.map_or(1.0, |(slow, since)| slow.share(now.since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(aggression: f64) -> Vec<f64> {
        let slow = SlowStart { window: Duration::from_secs(10), aggression, min_weight_percent: 20.0 };
        [0, 1, 4, 9, 10, 99].map(|t| (slow.share(Duration::from_secs(t)) * 1_000.0).round() / 1_000.0).into()
    }

    #[test]
    fn the_ramp_rises_from_its_minimum_to_the_full_weight() {
        assert_eq!(shares(1.0), [0.2, 0.2, 0.4, 0.9, 1.0, 1.0]);
        assert_eq!(shares(2.0), [0.2, 0.316, 0.632, 0.949, 1.0, 1.0], "faster at first");
        assert_eq!(shares(0.5), [0.2, 0.2, 0.2, 0.81, 1.0, 1.0], "slower at first");
    }

    #[test]
    fn without_a_config_or_after_the_window_the_weight_is_full() {
        let slow = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight_percent: 10.0 };
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        assert!(Ramp::new(Some(slow), at(5), at(15)).0.is_none(), "over");
        for (ramp, expected) in [(Ramp::new(Some(slow), at(5), at(6)), 0.7), (Ramp::new(None, at(5), at(6)), 1.0)] {
            assert!((ramp.share(at(12)) - expected).abs() < 1e-9);
        }
    }
}
