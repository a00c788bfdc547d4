use std::time::Duration;

use serde::Deserialize;

use crate::{ConfigError, LbConfig, service_config::json_duration};

/// The config of `outlier_detection` (gRFC A50). With none of the three rules set it ejects nothing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OutlierDetectionConfig {
    /// How often endpoints are judged. Default 10 s; below 10 ms is taken as 10 ms.
    #[serde(default = "ten_seconds", deserialize_with = "json_duration")]
    pub interval: Duration,
    /// How long the first ejection of an endpoint lasts; the n-th in a row lasts n times as long. Default 30 s.
    #[serde(default = "half_a_minute", deserialize_with = "json_duration")]
    pub base_ejection_time: Duration,
    /// The longest that an ejection lasts. Default 300 s; below `baseEjectionTime` it is taken as that.
    #[serde(default = "five_minutes", deserialize_with = "json_duration")]
    pub max_ejection_time: Duration,
    /// No further endpoint is ejected while at least this percentage of all is. Default 10, at most 100. As that is
    /// asked before an ejection, one endpoint can always go, unless this is 0.
    #[serde(default = "ten")]
    pub max_ejection_percent: u32,
    /// Ejects endpoints whose success rate is far below the mean. Default: not done.
    pub success_rate_ejection: Option<SuccessRateEjection>,
    /// Ejects endpoints that fail most of their calls. Default: not done.
    pub failure_percentage_ejection: Option<FailurePercentageEjection>,
    /// Ejects endpoints of fleets that are too small for statistics. Ours, not in A50. Default: not done.
    pub small_fleet_ejection: Option<SmallFleetEjection>,
    /// What places the calls. Required.
    pub child_policy: LbConfig,
}

/// `successRateEjection`: an endpoint is an outlier if its share of calls that succeed is below the mean of all by more
/// than so many standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SuccessRateEjection {
    /// How many standard deviations, times 1000. Default 1900.
    #[serde(default = "one_point_nine_thousand")]
    pub stdev_factor: u32,
    /// The chance, in percent, that an outlier is ejected. Default 100, at most 100.
    #[serde(default = "hundred")]
    pub enforcement_percentage: u32,
    /// Nobody is an outlier unless so many endpoints have the volume. Default 5.
    #[serde(default = "five")]
    pub minimum_hosts: u32,
    /// Calls that an endpoint must have finished since the last sweep to be judged, and to count in the mean.
    /// Default 100.
    #[serde(default = "hundred")]
    pub request_volume: u32,
    /// By how many percentage points an outlier must be below the mean as well. Ours; default 0, which is A50.
    ///
    /// Standard deviations know no absolute scale: of endpoints that all fail one call in a hundred, some are always
    /// 1.9 deviations off, and A50 ejects about 3 % of healthy endpoints in each sweep. A gap of 5 ends that.
    #[serde(default)]
    pub minimum_gap: u32,
}

/// `failurePercentageEjection`: an endpoint is an outlier if it fails more than this share of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FailurePercentageEjection {
    /// The percentage that an outlier exceeds. Default 85, at most 100.
    #[serde(default = "eighty_five")]
    pub threshold: u32,
    /// The chance, in percent, that an outlier is ejected. Default 100, at most 100.
    #[serde(default = "hundred")]
    pub enforcement_percentage: u32,
    /// Nobody is an outlier unless so many endpoints have the volume. Default 5.
    #[serde(default = "five")]
    pub minimum_hosts: u32,
    /// Calls that an endpoint must have finished since the last sweep to be judged. Default 50.
    #[serde(default = "fifty")]
    pub request_volume: u32,
}

/// `smallFleetEjection`: where two to four endpoints have the volume, one is an outlier if its success rate is this far
/// below the mean of the others.
///
/// Among four endpoints none can be 1.9 standard deviations off, so that A50's success rate is blind to them whatever
/// its `minimumHosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SmallFleetEjection {
    /// How far, in percentage points. Default 30; 1 to 100.
    #[serde(default = "thirty")]
    pub minimum_gap: u32,
    /// The chance, in percent, that an outlier is ejected. Default 100, at most 100.
    #[serde(default = "hundred")]
    pub enforcement_percentage: u32,
    /// Calls that an endpoint must have finished since the last sweep to be judged. Default 50.
    #[serde(default = "fifty")]
    pub request_volume: u32,
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

impl OutlierDetectionConfig {
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        at_most_100("maxEjectionPercent", self.max_ejection_percent)?;
        if let Some(rule) = &self.success_rate_ejection {
            at_most_100("successRateEjection.enforcementPercentage", rule.enforcement_percentage)?;
            at_most_100("successRateEjection.minimumGap", rule.minimum_gap)?;
        }
        if let Some(rule) = &self.failure_percentage_ejection {
            at_most_100("failurePercentageEjection.threshold", rule.threshold)?;
            at_most_100("failurePercentageEjection.enforcementPercentage", rule.enforcement_percentage)?;
        }
        if let Some(rule) = &self.small_fleet_ejection {
            at_most_100("smallFleetEjection.enforcementPercentage", rule.enforcement_percentage)?;
            at_most_100("smallFleetEjection.minimumGap", rule.minimum_gap)?;
            if rule.minimum_gap == 0 {
                return Err(ConfigError::new("smallFleetEjection.minimumGap", "must be at least 1"));
            }
        }
        self.interval = self.interval.max(SHORTEST_INTERVAL);
        Ok(self)
    }

    /// Whether there is anything to detect.
    pub(super) fn detects(&self) -> bool {
        self.success_rate_ejection.is_some()
            || self.failure_percentage_ejection.is_some()
            || self.small_fleet_ejection.is_some()
    }

    /// How long the ejection of this multiplier lasts.
    pub(super) fn ejection_time(&self, multiplier: u32) -> Duration {
        self.base_ejection_time.saturating_mul(multiplier).min(self.base_ejection_time.max(self.max_ejection_time))
    }
}

fn at_most_100(path: &str, percent: u32) -> Result<(), ConfigError> {
    if percent > 100 {
        return Err(ConfigError::new(path, format!("is {percent}, must be at most 100")));
    }
    Ok(())
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn five() -> u32 {
    5
}

fn ten() -> u32 {
    10
}

fn thirty() -> u32 {
    30
}

fn fifty() -> u32 {
    50
}

fn eighty_five() -> u32 {
    85
}

fn hundred() -> u32 {
    100
}

fn one_point_nine_thousand() -> u32 {
    1_900
}
