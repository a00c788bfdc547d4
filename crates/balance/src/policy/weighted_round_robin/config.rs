use std::time::Duration;

use serde::Deserialize;

use crate::{ConfigError, LoadReport, policy::SlowStart, service_config::json_duration};

/// The config of `weighted_round_robin` (gRFC A58, A114).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WeightedRoundRobinConfig {
    /// Whether servers report their load out of band rather than with each response. Default false.
    #[serde(default)]
    pub enable_oob_load_report: bool,
    /// How often they report out of band. Default 10 s; below 100 ms is taken as 100 ms. Servers may have a floor of
    /// their own, 30 s as a rule.
    #[serde(default = "ten_seconds", deserialize_with = "json_duration")]
    pub oob_reporting_period: Duration,
    /// How long an endpoint must have been reporting before its weight counts. Default 10 s.
    #[serde(default = "ten_seconds", deserialize_with = "json_duration")]
    pub blackout_period: Duration,
    /// How long after its last report an endpoint's weight counts. Default 180 s.
    #[serde(default = "three_minutes", deserialize_with = "json_duration")]
    pub weight_expiration_period: Duration,
    /// How often weights are applied. Default 1 s; below 100 ms is taken as 100 ms.
    #[serde(default = "one_second", deserialize_with = "json_duration")]
    pub weight_update_period: Duration,
    /// By how much a share of failed calls of 1 raises the utilization. Default 1; negative is refused.
    #[serde(default = "one")]
    pub error_utilization_penalty: f64,
    /// Values of a report whose largest is the utilization: `application_utilization`, `cpu_utilization`,
    /// `mem_utilization`, `utilization.<name>` or `named_metrics.<name>`; others are ignored. Default none, as where
    /// none is reported: then `application_utilization` counts, or else `cpu_utilization`.
    #[serde(default)]
    pub metric_names_for_computing_utilization: Vec<String>,
    /// Ours: whether endpoints that have just become ready start slowly. Default: they do not.
    pub slow_start: Option<SlowStart>,
}

const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

impl WeightedRoundRobinConfig {
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        if self.error_utilization_penalty.is_nan() || self.error_utilization_penalty < 0.0 {
            return Err(ConfigError::new("errorUtilizationPenalty", "must not be negative"));
        }
        SlowStart::check(self.slow_start)?;
        self.oob_reporting_period = self.oob_reporting_period.max(SHORTEST_PERIOD);
        self.weight_update_period = self.weight_update_period.max(SHORTEST_PERIOD);
        self.metric_names_for_computing_utilization.retain(|name| is_utilization(name));
        Ok(self)
    }

    /// The weight of an endpoint that reports this; `None` where the report says nothing of use.
    pub(super) fn weight(&self, report: &LoadReport) -> Option<f64> {
        let utilization = self.utilization(report);
        let errors = if report.eps > 0.0 { report.eps / report.qps * self.error_utilization_penalty } else { 0.0 };
        let weight = report.qps / (utilization + errors);
        (report.qps > 0.0 && utilization > 0.0 && weight.is_finite() && weight > 0.0).then_some(weight)
    }

    fn utilization(&self, report: &LoadReport) -> f64 {
        let named = self.metric_names_for_computing_utilization.iter().filter_map(|name| report.metric(name));
        let largest = named.filter(|&value| value > 0.0).reduce(f64::max);
        largest.unwrap_or(if report.application_utilization > 0.0 {
            report.application_utilization
        } else {
            report.cpu_utilization
        })
    }
}

/// What A114 supports, of all that a report has.
fn is_utilization(name: &str) -> bool {
    matches!(name, "application_utilization" | "cpu_utilization" | "mem_utilization")
        || matches!(name.split_once('.'), Some(("utilization" | "named_metrics", _)))
}

fn one() -> f64 {
    1.0
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn three_minutes() -> Duration {
    Duration::from_secs(180)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(json: serde_json::Value) -> WeightedRoundRobinConfig {
        serde_json::from_value::<WeightedRoundRobinConfig>(json).unwrap().checked().unwrap()
    }

    fn report(application: f64, cpu: f64, qps: f64, eps: f64) -> LoadReport {
        LoadReport { application_utilization: application, cpu_utilization: cpu, qps, eps, ..LoadReport::default() }
    }

    #[test]
    fn a58_the_weight_is_qps_over_utilization_with_a_penalty_for_errors() {
        let weigh = |config: &WeightedRoundRobinConfig, report| config.weight(&report);
        let plain = config(json!({}));
        assert_eq!(weigh(&plain, report(0.5, 0.9, 100.0, 0.0)), Some(200.0));
        assert_eq!(weigh(&plain, report(0.0, 0.25, 100.0, 0.0)), Some(400.0), "else the CPU's");
        assert_eq!(weigh(&plain, report(0.5, 0.0, 100.0, 50.0)), Some(100.0), "half of all fail");
        assert_eq!(weigh(&config(json!({"errorUtilizationPenalty": 0})), report(0.5, 0.0, 100.0, 50.0)), Some(200.0));
        for useless in [
            report(0.0, 0.0, 100.0, 0.0),
            report(0.5, 0.0, 0.0, 0.0),
            report(f64::NAN, f64::NAN, 1.0, 0.0),
            report(0.5, 0.0, f64::INFINITY, 0.0),
            report(0.5, 0.0, f64::NAN, 0.0),
            report(f64::INFINITY, 0.0, 1.0, 0.0),
            report(f64::MIN_POSITIVE, 0.0, f64::MAX, 0.0),
            report(-1.0, -1.0, 1.0, 0.0),
        ] {
            assert_eq!(weigh(&plain, useless.clone()), None, "{useless:?}");
        }
    }

    #[test]
    fn a114_the_largest_named_value_counts_and_without_any_the_usual_one() {
        let named = |names: &[&str], metrics: &[(&str, f64)]| {
            let mut report = report(0.5, 0.0, 100.0, 0.0);
            report.memory_utilization = 0.8;
            report.named_metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            config(json!({"metricNamesForComputingUtilization": names})).weight(&report).map(f64::round)
        };
        let both = ["named_metrics.a", "named_metrics.b.c"];
        assert_eq!(named(&both, &[("a", 0.1), ("b.c", 0.2)]), Some(500.0));
        assert_eq!(named(&both, &[("a", f64::NAN), ("b.c", -2.0)]), Some(200.0));
        assert_eq!(named(&both, &[("a", 0.0)]), Some(200.0));
        assert_eq!(named(&["mem_utilization", "named_metrics.a"], &[("a", 0.4)]), Some(125.0));
        assert_eq!(named(&["rps_fractional", "eps"], &[]), Some(200.0), "not among those that are supported");
    }
}
