use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{ConfigError, parse_duration};
use crate::{Backoff, Code};

/// At most this many attempts, whatever a config asks for (gRFC A6).
const MAX_ATTEMPTS: u32 = 5;

/// How calls of some methods are made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MethodConfig {
    /// The longest that a call may take; the caller's own deadline holds if it is shorter. `None`: no limit.
    pub timeout: Option<Duration>,
    /// Whether calls wait out failing endpoints rather than fail. Default false; the caller may say otherwise.
    pub wait_for_ready: Option<bool>,
    /// When failed calls are tried again. `None`: never, but for calls that no server processed.
    pub retry: Option<RetryPolicy>,
    /// When calls are sent again before they have failed. `None`: never.
    pub hedging: Option<HedgingPolicy>,
    /// The largest message that may be sent, in bytes, before compression; the caller's own limit holds if it is
    /// smaller. `None`: no limit.
    pub max_request_bytes: Option<u64>,
    /// The largest message that is received, in bytes. `None`: no limit but the generated client's own.
    pub max_response_bytes: Option<u64>,
}

impl MethodConfig {
    /// Nothing set, as for a method that no service config names.
    pub const NOTHING: Self = Self {
        timeout: None,
        wait_for_ready: None,
        retry: None,
        hedging: None,
        max_request_bytes: None,
        max_response_bytes: None,
    };
}

/// When and how often failed calls are tried again (gRFC A6).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first included: 2 to 5.
    pub max_attempts: u32,
    /// Between attempts: jittered by ± 20 %.
    pub backoff: Backoff,
    /// Statuses that are worth another attempt. Never empty.
    pub retryable: Vec<Code>,
}

/// When and how often calls are sent again before they have failed (gRFC A6). For calls that may be made twice: the
/// server may process more than one attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgingPolicy {
    /// Attempts in all, the first included: 2 to 5.
    pub max_attempts: u32,
    /// From one attempt to the next while none has answered. Default 0: all at once.
    pub delay: Duration,
    /// Statuses that do not end the call while other attempts may do better. Any other status does.
    pub non_fatal: Vec<Code>,
    /// Finds the delay by itself and bounds the extra load. Not part of gRPC's config; other clients ignore it.
    pub adaptive: Option<AdaptiveHedging>,
}

/// Hedging that tunes itself: an attempt that takes longer than most of the method's recent calls is hedged, on another
/// endpoint, within a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveHedging {
    /// The share of recent calls that answer without a hedge. Default 0.95. Until 100 calls were seen,
    /// [`HedgingPolicy::delay`] holds; if that is 0, nothing is hedged.
    pub quantile: f64,
    /// Hedges a call, at most, over time. Default 0.05: 5 % more load.
    pub extra_load: f64,
}

/// Method configs by the names they apply to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Methods {
    configs: Vec<Arc<MethodConfig>>,
    /// `/service/method`, `/service/` or nothing at all to a place in `configs`.
    by_name: BTreeMap<String, usize>,
}

impl Methods {
    pub(super) fn parse(raw: Vec<RawMethod>) -> Result<Self, ConfigError> {
        let mut methods = Self::default();
        for (i, method) in raw.into_iter().enumerate() {
            let at = format!("methodConfig[{i}]");
            methods.add(method).map_err(|error| error.under(&at))?;
        }
        Ok(methods)
    }

    fn add(&mut self, raw: RawMethod) -> Result<(), ConfigError> {
        let index = self.configs.len();
        for (i, name) in raw.name.iter().enumerate() {
            let at = format!("name[{i}]");
            let key = name.key().map_err(|error| error.under(&at))?;
            if self.by_name.insert(key, index).is_some() {
                return Err(ConfigError::new(at, "is named by another entry too"));
            }
        }
        self.configs.push(Arc::new(raw.check()?));
        Ok(())
    }

    pub(super) fn get(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        let service = path.rfind('/').map_or(path, |slash| &path[..=slash]);
        let index = [path, service, ""].into_iter().find_map(|name| self.by_name.get(name));
        index.map(|&index| &self.configs[index])
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawMethod {
    #[serde(default)]
    name: Vec<RawName>,
    timeout: Option<String>,
    wait_for_ready: Option<bool>,
    retry_policy: Option<RawRetry>,
    hedging_policy: Option<RawHedging>,
    max_request_message_bytes: Option<RawCount>,
    max_response_message_bytes: Option<RawCount>,
}

/// A protobuf integer in JSON: a number, or one in a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawCount {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHedging {
    max_attempts: u32,
    hedging_delay: Option<String>,
    #[serde(default)]
    non_fatal_status_codes: Vec<RawCode>,
    adaptive: Option<RawAdaptive>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAdaptive {
    quantile: Option<f64>,
    extra_load: Option<f64>,
}

#[derive(Deserialize)]
struct RawName {
    #[serde(default)]
    service: String,
    #[serde(default)]
    method: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRetry {
    max_attempts: u32,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<RawCode>,
}

/// A status code by name or by number; both are valid in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawCode {
    Name(String),
    Number(u32),
}

impl RawName {
    fn key(&self) -> Result<String, ConfigError> {
        match (self.service.as_str(), self.method.as_str()) {
            ("", "") => Ok(String::new()),
            ("", _) => Err(ConfigError::new("method", "is set, but its service is not")),
            (service, method) => Ok(format!("/{service}/{method}")),
        }
    }
}

impl RawMethod {
    fn check(self) -> Result<MethodConfig, ConfigError> {
        if self.retry_policy.is_some() && self.hedging_policy.is_some() {
            return Err(ConfigError::new("hedgingPolicy", "is set beside retryPolicy; a method has one of them"));
        }
        Ok(MethodConfig {
            timeout: self.timeout.map(|text| duration("timeout", &text)).transpose()?,
            wait_for_ready: self.wait_for_ready,
            retry: self.retry_policy.map(RawRetry::check).transpose().map_err(|error| error.under("retryPolicy"))?,
            hedging: self
                .hedging_policy
                .map(RawHedging::check)
                .transpose()
                .map_err(|error| error.under("hedgingPolicy"))?,
            max_request_bytes: limit("maxRequestMessageBytes", self.max_request_message_bytes)?,
            max_response_bytes: limit("maxResponseMessageBytes", self.max_response_message_bytes)?,
        })
    }
}

impl RawRetry {
    fn check(self) -> Result<RetryPolicy, ConfigError> {
        if self.max_attempts < 2 {
            return Err(ConfigError::new("maxAttempts", format!("is {}, must be at least 2", self.max_attempts)));
        }
        if !(self.backoff_multiplier > 0.0 && self.backoff_multiplier.is_finite()) {
            return Err(ConfigError::new("backoffMultiplier", "must be above 0"));
        }
        let initial = above_zero("initialBackoff", &self.initial_backoff)?;
        let max = above_zero("maxBackoff", &self.max_backoff)?;
        let retryable = failures("retryableStatusCodes", &self.retryable_status_codes)?;
        if retryable.is_empty() {
            return Err(ConfigError::new("retryableStatusCodes", "names no code"));
        }
        Ok(RetryPolicy {
            max_attempts: self.max_attempts.min(MAX_ATTEMPTS),
            backoff: Backoff::new(initial.min(max), max, self.backoff_multiplier, 0.2),
            retryable,
        })
    }
}

impl RawHedging {
    fn check(self) -> Result<HedgingPolicy, ConfigError> {
        if self.max_attempts < 2 {
            return Err(ConfigError::new("maxAttempts", format!("is {}, must be at least 2", self.max_attempts)));
        }
        let delay = self.hedging_delay.map(|text| duration("hedgingDelay", &text)).transpose()?;
        Ok(HedgingPolicy {
            max_attempts: self.max_attempts.min(MAX_ATTEMPTS),
            delay: delay.unwrap_or_default(),
            non_fatal: failures("nonFatalStatusCodes", &self.non_fatal_status_codes)?,
            adaptive: self.adaptive.map(RawAdaptive::check).transpose().map_err(|error| error.under("adaptive"))?,
        })
    }
}

impl RawAdaptive {
    fn check(self) -> Result<AdaptiveHedging, ConfigError> {
        let quantile = self.quantile.unwrap_or(0.95);
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(ConfigError::new("quantile", format!("is {quantile}, must be above 0 and below 1")));
        }
        let extra_load = self.extra_load.unwrap_or(0.05);
        if !(extra_load > 0.0 && extra_load <= 1.0) {
            return Err(ConfigError::new("extraLoad", format!("is {extra_load}, must be above 0 and at most 1")));
        }
        Ok(AdaptiveHedging { quantile, extra_load })
    }
}

fn failures(field: &str, codes: &[RawCode]) -> Result<Vec<Code>, ConfigError> {
    codes.iter().enumerate().map(|(i, code)| code.check(field, i)).collect()
}

impl RawCode {
    fn check(&self, field: &str, index: usize) -> Result<Code, ConfigError> {
        let (code, shown) = match self {
            Self::Name(name) => (Code::from_name(name), name.clone()),
            Self::Number(number) => {
                (Code::ALL.into_iter().find(|code| u32::from(code.number()) == *number), number.to_string())
            }
        };
        code.filter(|&code| code != Code::Ok).ok_or_else(|| {
            ConfigError::new(format!("{field}[{index}]"), format!("{shown} is no status of a failed call"))
        })
    }
}

fn above_zero(field: &str, text: &str) -> Result<Duration, ConfigError> {
    let duration = duration(field, text)?;
    if duration.is_zero() {
        return Err(ConfigError::new(field, "must be above 0"));
    }
    Ok(duration)
}

fn limit(field: &str, raw: Option<RawCount>) -> Result<Option<u64>, ConfigError> {
    match raw {
        None => Ok(None),
        Some(RawCount::Number(bytes)) => Ok(Some(bytes)),
        Some(RawCount::Text(text)) => match text.parse() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(ConfigError::new(field, format!("{text:?} is no number of bytes"))),
        },
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, ConfigError> {
    parse_duration(text).ok_or_else(|| ConfigError::new(field, format!("{text:?} is no duration such as \"1.5s\"")))
}

#[cfg(test)]
mod tests {
    use crate::{Code, ServiceConfig};

    const RETRY: &str = r#"{"maxAttempts":9,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,
        "retryableStatusCodes":["unavailable",8]}"#;

    fn refused(method: &str) -> String {
        format!(r#"{{"methodConfig":[{method}]}}"#).parse::<ServiceConfig>().unwrap_err().path().to_owned()
    }

    #[test]
    fn the_most_specific_name_wins() {
        let config: ServiceConfig = r#"{"methodConfig":[
            {"name":[{}],"timeout":"3s"},
            {"name":[{"service":"a.B"}],"timeout":"2s"},
            {"name":[{"service":"a.B","method":"C"}],"waitForReady":true}]}"#
            .parse()
            .unwrap();
        assert_eq!(config.method("/a.B/C").wait_for_ready, Some(true));
        assert_eq!(config.method("/a.B/D").timeout.unwrap().as_secs(), 2);
        assert_eq!(config.method("/x.Y/Z").timeout.unwrap().as_secs(), 3);
        assert_eq!(*"{}".parse::<ServiceConfig>().unwrap().method("/a.B/C"), super::MethodConfig::default());
    }

    #[test]
    fn a6_retry_policies_are_checked_and_capped() {
        let config: ServiceConfig =
            format!(r#"{{"methodConfig":[{{"name":[{{}}],"retryPolicy":{RETRY}}}]}}"#).parse().unwrap();
        let retry = config.method("/a/b").retry.as_ref().unwrap();
        assert_eq!((retry.max_attempts, &retry.retryable[..]), (5, &[Code::Unavailable, Code::ResourceExhausted][..]));

        let with =
            |from: &str, to: &str| refused(&format!(r#"{{"name":[{{}}],"retryPolicy":{}}}"#, RETRY.replace(from, to)));
        assert_eq!(with("9", "1"), "methodConfig[0].retryPolicy.maxAttempts");
        assert_eq!(with("0.1s", "0s"), "methodConfig[0].retryPolicy.initialBackoff");
        assert_eq!(with(r#""1s""#, r#""1""#), "methodConfig[0].retryPolicy.maxBackoff");
        assert_eq!(with(":2", ":0"), "methodConfig[0].retryPolicy.backoffMultiplier");
        assert_eq!(with("unavailable", "OK"), "methodConfig[0].retryPolicy.retryableStatusCodes[0]");
        assert_eq!(with(r#""unavailable",8"#, ""), "methodConfig[0].retryPolicy.retryableStatusCodes");
    }

    #[test]
    fn a6_hedging_policies_are_checked_and_capped() {
        let config: ServiceConfig = r#"{"methodConfig":[{"name":[{}],"maxRequestMessageBytes":"100","maxResponseMessageBytes":7,
            "hedgingPolicy":{"maxAttempts":9,"hedgingDelay":"0.5s","nonFatalStatusCodes":["UNAVAILABLE"],"adaptive":{}}}]}"#
            .parse()
            .unwrap();
        let method = config.method("/a/b");
        let hedging = method.hedging.as_ref().unwrap();
        assert_eq!((hedging.max_attempts, hedging.delay.as_millis()), (5, 500));
        assert!((hedging.adaptive.unwrap().extra_load - 0.05).abs() < 1e-9);
        assert_eq!((method.max_request_bytes, method.max_response_bytes), (Some(100), Some(7)));

        let with = |policy: &str| refused(&format!(r#"{{"name":[{{}}],"hedgingPolicy":{policy}}}"#));
        assert_eq!(with(r#"{"maxAttempts":1}"#), "methodConfig[0].hedgingPolicy.maxAttempts");
        assert_eq!(with(r#"{"maxAttempts":2,"hedgingDelay":"1"}"#), "methodConfig[0].hedgingPolicy.hedgingDelay");
        let adaptive = with(r#"{"maxAttempts":2,"adaptive":{"quantile":1}}"#);
        assert_eq!(adaptive, "methodConfig[0].hedgingPolicy.adaptive.quantile");
        let both = format!(r#"{{"name":[{{}}],"hedgingPolicy":{{"maxAttempts":2}},"retryPolicy":{RETRY}}}"#);
        assert_eq!(refused(&both), "methodConfig[0].hedgingPolicy");
        assert_eq!(refused(r#"{"maxRequestMessageBytes":"x"}"#), "methodConfig[0].maxRequestMessageBytes");
        assert_eq!(refused(r#"{"maxResponseMessageBytes":-1}"#), "methodConfig[0].maxResponseMessageBytes");
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(refused(r#"{"name":[{"method":"M"}]}"#), "methodConfig[0].name[0].method");
        assert_eq!(refused(r#"{"name":[{},{}]}"#), "methodConfig[0].name[1]");
    }
}
